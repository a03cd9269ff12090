"""The gate of continuous integration: a run held against a baseline that is kept beside the code."""
