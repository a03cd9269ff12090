"""Leaderboards: run directories side by side, ranked where ranking means something."""
