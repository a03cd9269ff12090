"""Rows that somebody wrote or downloaded: frozen types decide what a row is, and all bad rows are told together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from cpmi_eval.errors import DataError, UnknownNameError

SHOWN_ROWS = 5


class Faults:
    """Collects what is wrong with rows, so that one error names all of them.

    Args:
        unit: what a row is called.
        what: what the rows are of.
    """

    def __init__(self, unit: str, what: str) -> None:
        """Begin with none."""
        self.unit, self.what = unit, what
        self.found: list[str] = []
        self.seen: dict[str, str] = {}

    @contextmanager
    def row(self) -> Iterator[None]:
        """Note the DataError of a row, and go on after it."""
        try:
            yield
        except DataError as error:
            self.found.append(str(error))

    def unique(self, name: str, place: str) -> None:
        """Refuse a row's name that an earlier row has."""
        if (first := self.seen.setdefault(name, place)) != place:
            raise DataError(f"{place}: the id {show(name)} is also that of {first}, expected unique ids")

    def refuse(self) -> None:
        """Raise what was collected, if there is any."""
        if self.found:
            count = f"{len(self.found)} {self.unit}{'s' * (len(self.found) > 1)}"
            shown = "".join(f"\n  {fault}" for fault in self.found[:SHOWN_ROWS])
            more = f"\n  ... and {len(self.found) - SHOWN_ROWS} more" if len(self.found) > SHOWN_ROWS else ""
            raise DataError(
                f"{count} of {self.what} cannot be used; correct, remove or download again what is named here:"
                f"{shown}{more}"
            )


def numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers, from 1; only line feeds end a line."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def show(value: object) -> str:
    """Return a value as an error message shows it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_steps(steps: Sequence[str], first_error: int | None) -> None:
    """Refuse (ValueError) a trace without steps, and a first error that is none of them; -1: there is none."""
    if not steps:
        raise ValueError("steps: empty, expected at least one step")
    if first_error is not None and not -1 <= first_error < len(steps):
        raise ValueError(f"label: {first_error}, expected -1 to {len(steps) - 1} ({len(steps)} steps)")


def check_names(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse names of subsets or settings that a task does not have; close ones are suggested."""
    for name in names:
        if name not in known:
            raise UnknownNameError(what, name, known)
