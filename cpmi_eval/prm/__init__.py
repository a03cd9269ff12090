"""Trained process reward models: how each family reads a trace and where its scores are, as data."""
