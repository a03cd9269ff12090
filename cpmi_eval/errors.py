"""What can go wrong, as types: each kind carries its exit code, and its message says what to do next.

Two families that must not be mixed up:

* :class:`UsageError` and its children stop the program before or between traces (exit code 2).
* A failure on one trace is data, not an exception: see :class:`cpmi_eval.types.Failure`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN_NAMES = 15
EXIT_OK = 0
EXIT_FAILED_ROWS = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """The request cannot be carried out as given; the message names the thing and the next step."""

    exit_code = EXIT_USAGE


class UnknownNameError(UsageError):
    """A name that no registry knows; close names are suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the message from the ``kind`` of thing, the unknown ``name`` and the ``known`` ones."""
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        listed = ", ".join(names[:SHOWN_NAMES]) or "none"
        super().__init__(f"unknown {kind} {name!r}.{hint} Known: {listed}{more}.")
        self.name = name


class DataError(UsageError):
    """Benchmark data is missing, unreadable or malformed; the message names file, row and remedy."""


class ModelError(UsageError):
    """A model cannot be found or loaded, or lacks what the run needs of it."""


class StoreError(UsageError):
    """A run directory cannot be used as asked."""
