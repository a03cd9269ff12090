"""Benchmarks: where their data comes from and how a row becomes a trace."""
