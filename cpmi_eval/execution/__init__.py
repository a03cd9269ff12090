"""Who scores a batch: this process, or workers of Ray."""
