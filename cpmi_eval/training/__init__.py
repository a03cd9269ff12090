"""Train a process reward model from a file of step labels."""
