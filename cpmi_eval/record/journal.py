"""What is written in pieces: JSON lines that are appended, survive being killed at any moment, and are read back whole.

A journal may begin with a head, the identity of what is written. A torn last line is cut off and owed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from cpmi_eval.errors import StoreError
from cpmi_eval.record import door
from cpmi_eval.types import JSON

T = TypeVar("T")
AGAIN = "start anew with --fresh"


class Journal(Generic[T]):
    """A file of lines of one type, with a head or without."""

    def __init__(self, path: Path, kind: type[T], *, advice: str = AGAIN) -> None:
        """Name the file and the type of its lines; nothing is touched."""
        self.path = path
        self.kind = kind
        self.source = door.Source(str(path), StoreError, advice)

    def read(self) -> list[T]:
        """The finished lines; a torn last one is cut off the file.

        Raises:
            StoreError: a line that is not last is damaged; names it.
        """
        if not self.path.exists():
            return []
        return list(door.parse_lines(door.whole_lines(self.path), self.kind, self.source))

    def headed(self) -> tuple[JSON | None, list[T]]:
        """The head, ``None`` where the file is yet to be begun, and the finished lines; as :meth:`read`."""
        first, _, rest = (door.whole_lines(self.path) if self.path.exists() else b"").partition(b"\n")
        if not first:
            return None, []
        head: JSON = door.parse_json(first, dict, self.source.line(1))
        return head, list(door.parse_lines(rest, self.kind, self.source, start=2))

    def begin(self, head: Mapping[str, Any]) -> None:
        """Write the head, in the place of whatever is there."""
        with door.writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self.replace([head])

    def append(self, rows: Iterable[Any]) -> None:
        """Append lines and put them on disk before returning."""
        if data := door.to_lines(rows):
            door.append(self.path, data)

    def replace(self, rows: Iterable[Any]) -> None:
        """Replace all lines at once."""
        door.replace_bytes(self.path, door.to_lines(rows))

    def remove(self) -> None:
        """Remove the file, if there is one."""
        with door.writing(self.path):
            self.path.unlink(missing_ok=True)


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Say which of ``keys`` differ and how; empty if none does."""
    return "; ".join(
        f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} now" for key in keys if theirs.get(key) != ours.get(key)
    )
