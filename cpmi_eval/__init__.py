"""Evaluate step-level reward labelers and process reward models: quality, cost, leaderboards."""

__version__ = "0.1.0"
