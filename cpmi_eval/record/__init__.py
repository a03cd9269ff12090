"""A run on disk, typed: what its files hold, one door for reading them, one for writing."""
