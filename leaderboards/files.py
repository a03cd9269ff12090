"""Leaderboard files: one of JSON lines per task, validated on read and on write.

Nothing is repaired and nothing is skipped: a line that is not a valid row is an error that names file, line and field.
Fields that say nothing (``null``, no settings, no note) are left out of a line.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file
from importlib.resources import files as resources
from pathlib import Path

import msgspec
from filelock import FileLock

from cpmi_eval.errors import DataError
from cpmi_eval.leaderboards.schema import SCHEMA_VERSION, Row, as_dict, check
from cpmi_eval.record import door

FOLDER = "cpmi_eval.leaderboards"
SUFFIX = ".jsonl"
SHOWN_PROBLEMS = 5
_BEGINNING = f'{{"schema_version": {SCHEMA_VERSION}, '.encode()  # as rows are written; read once then


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector: rows are many small objects without cycles, and looking for some takes longer."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class _Versioned(msgspec.Struct, frozen=True):
    schema_version: int


def _lines(path: Path) -> Iterator[Row | str]:
    """Yield each line's row, or what is wrong with it."""
    try:
        lines = door.read_bytes(path, door.Source(str(path), DataError)).split(b"\n")
    except DataError as error:
        yield str(error)
        return
    seen: dict[str | None, int] = {}
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            return
        try:
            row = _checked(line, path, door.Source(f"{path}, line {number}", DataError))
            if row.fingerprint is not None and (first := seen.setdefault(row.fingerprint, number)) != number:
                raise DataError(f"{path}, line {number}: fingerprint is also that of line {first}")
            yield row
        except DataError as error:
            yield str(error)


def _checked(line: bytes, path: Path, source: door.Source) -> Row:
    """Return the row that a line holds.

    Raises:
        DataError: it holds none, one of another version, or one that belongs into another file.
    """
    usual = line.startswith(_BEGINNING)
    version = SCHEMA_VERSION if usual else door.parse_json(line, _Versioned, source).schema_version
    if version != SCHEMA_VERSION:
        raise source.fault(f"has schema_version {version}; this version of cpmi-eval reads and writes {SCHEMA_VERSION}")
    row = door.parse_json(line, Row, source)
    try:
        check(row)
    except ValueError as error:
        raise source.fault(f"is not valid: {error}") from None
    if row.task != path.name.removesuffix(SUFFIX):
        raise source.fault(f"is not valid: task is {row.task!r}, whose rows belong in {row.task}{SUFFIX}")
    return row


def problems(path: Path) -> list[str]:
    """Return what is wrong with a leaderboard file, each with line and field; empty where it is valid."""
    return [one for one in _lines(path) if isinstance(one, str)]


def read(path: Path) -> tuple[Row, ...]:
    """Read a leaderboard file.

    Raises:
        DataError: unreadable, or a line that is not a valid row; the message names file, line and field.
    """
    rows: list[Row] = []
    wrong: list[str] = []
    with uncollected():
        for one in _lines(path):
            if isinstance(one, str):
                wrong.append(one)
            else:
                rows.append(one)
    if wrong:
        more = f"\n... and {len(wrong) - SHOWN_PROBLEMS} more" if len(wrong) > SHOWN_PROBLEMS else ""
        raise DataError("\n".join(wrong[:SHOWN_PROBLEMS]) + more)
    return tuple(rows)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replace a leaderboard file atomically.

    Raises:
        DataError: a row is not valid, belongs to another file, or repeats a fingerprint; nothing is written.
    """
    lines: list[bytes] = []
    seen: set[str | None] = set()
    for row in rows:
        source = door.Source(f"{path}, row of {row.scorer!r}", DataError)
        try:
            line = door.to_lines([as_dict(row)])
        except (TypeError, ValueError) as error:
            raise source.fault(f"cannot be written as JSON: {error}") from error
        _checked(line, path, source)
        if row.fingerprint is not None and row.fingerprint in seen:
            raise source.fault("is not valid: fingerprint is also that of another row")
        seen.add(row.fingerprint)
        lines.append(line)
    door.replace_bytes(path, b"".join(lines))


def add(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Put measured rows into their tasks' files, each under a lock; one of the same fingerprint is replaced.

    Returns:
        What was done with each row: ``added``, ``replaced`` or ``unchanged``.

    Raises:
        DataError: a file or a row is not valid, or the folder cannot be written; that file is left as it is.
    """
    done: dict[int, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for task in dict.fromkeys(row.task for row in rows):
            path = folder / f"{task}{SUFFIX}"
            with FileLock(folder / ".lock"):
                kept = list(read(path)) if path.exists() else []
                for number, row in enumerate(rows):
                    if row.task == task:
                        done[number] = _put(kept, row)
                if any(done[number] != "unchanged" for number, row in enumerate(rows) if row.task == task):
                    write(path, kept)
    except OSError as error:
        raise DataError(f"the leaderboards in {folder} cannot be written: {error}") from error
    return [done[number] for number in range(len(rows))]


def _put(kept: list[Row], row: Row) -> str:
    at = next((at for at, one in enumerate(kept) if one.fingerprint == row.fingerprint), None)
    if at is None:
        kept.append(row)
        return "added"
    same = as_dict(kept[at]) == as_dict(row)
    kept[at] = row
    return "unchanged" if same else "replaced"


def shipped() -> dict[str, Path]:
    """Return the leaderboard files that come with the package, by task."""
    with as_file(resources(FOLDER)) as folder:
        return found(folder)


def found(folder: Path) -> dict[str, Path]:
    """Return the leaderboard files in a folder, by task."""
    return {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
