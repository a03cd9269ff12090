"""Where reports are printed."""

from __future__ import annotations

import io
import sys

from rich.console import Console

from cpmi_eval.reports.grid import Report, drawn

WIDTH_OF_FILES = 130  # a log or a pipe has no width of its own, and 80 columns would break most tables


def stdout() -> Console:
    """A console for results: as wide as the terminal, or 130 columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)


def show(report: Report) -> None:
    """Print a report."""
    console = stdout()
    console.print(drawn(report, console.width))


def text(report: Report, *, for_file: bool = False) -> str:
    """A report as it is printed, or as it is written to a file: without styles."""
    console = Console(width=WIDTH_OF_FILES, file=io.StringIO()) if for_file else stdout()
    with console.capture() as captured:
        console.print(drawn(report, console.width))
    return captured.get()
