"""Models behind one interface: log-likelihoods and generation, loaded once and shared by every labeler."""
