"""Where tables are printed."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH_OF_FILES = 130  # a log or a pipe has no width of its own, and 80 columns would break most tables


def stdout() -> Console:
    """Return a console for results: as wide as the terminal, or 130 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
