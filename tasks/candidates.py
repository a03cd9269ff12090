"""Files of candidate solutions: several per problem, among which a scorer selects.

A line of JSON is one problem: ``{"problem": "...", "candidates": [{"solution": "..."}, ...]}``. It may hold ``id`` (for
people; nothing depends on it) and ``answer`` (a reference answer, held against the benchmark's), and a candidate may
hold ``generator`` (who wrote it) and ``is_correct`` (somebody's grading, held against ours). Other fields are left
alone. ``cpmi-eval generate`` writes such files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval.errors import DataError
from cpmi_eval.types import JSON, Provenance

SHOWN_LINES = 5


@dataclass(frozen=True)
class Solution:
    """One candidate. ``text`` may be blank: a generation that failed. ``marked``: the file's own grading, if any."""

    text: str
    generator: str | None = None
    marked: bool | None = None


@dataclass(frozen=True)
class Line:
    """A line that passed validation: a problem and its candidates in order, none where all are still to be made."""

    number: int
    problem: str
    answer: str | None
    solutions: tuple[Solution, ...]


def read_candidates(path: Path) -> tuple[list[Line], Provenance]:
    """Return the lines of a file in order, and proof of which file it was.

    Raises:
        DataError: it cannot be read, holds no line, or lines are not of the form; these are reported together.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"cannot read candidates from {path}: {why}; `cpmi-eval generate` makes such a file") from error
    lines: list[Line] = []
    complaints: list[str] = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        row, problems = _parse(raw)
        if problems:
            complaints.append(f"{path}:{number}: {'; '.join(problems)}")
        else:
            lines.append(_line(number, row))
    refuse(complaints)
    if not lines:
        raise DataError(f"{path} holds no candidates; `cpmi-eval generate` makes such a file")
    return lines, Provenance(path.name, sha256=hashlib.sha256(content).hexdigest(), rows=len(lines))


def refuse(complaints: Sequence[str]) -> None:
    """Raise one DataError for all complaints, if there are any; each names its file and line."""
    if not complaints:
        return
    count = "1 line" if len(complaints) == 1 else f"{len(complaints)} lines"
    shown = "".join(f"\n  {complaint}" for complaint in complaints[:SHOWN_LINES])
    more = f"\n  ... and {len(complaints) - SHOWN_LINES} more" if len(complaints) > SHOWN_LINES else ""
    raise DataError(f"{count} of candidates cannot be used; correct or remove what is named here:{shown}{more}")


def show(value: Any) -> str:
    """Return a value as an error message shows it: at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse(raw: bytes) -> tuple[JSON, list[str]]:
    """Return a line's object and what is wrong with it; an empty object where it is none."""
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, [f"not UTF-8 ({error.reason} at byte {error.start})"]
    except (ValueError, RecursionError) as error:
        return {}, [f"not JSON ({error})"]
    if not isinstance(row, dict):
        return {}, [f"expected an object with 'problem' and 'candidates', got {show(row)}"]
    return row, list(_problems(row))


def _problems(row: JSON) -> Iterator[str]:
    """Yield what is wrong with an object, each with what was expected."""
    for key in ("problem", "candidates"):
        if key not in row:
            yield f"{key!r} is missing; it has {', '.join(map(show, row)) or 'nothing'}"
    for key in ("problem", "id", "answer"):
        if key in row and (key == "problem" or row[key] is not None):
            yield from _text_problems(repr(key), row[key])
    found = row.get("candidates", [])
    if not isinstance(found, list):
        yield f"'candidates' is {show(found)}, expected a list of objects with 'solution'"
        return
    for index, one in enumerate(found):
        yield from _solution_problems(f"candidate {index}", one)


def _solution_problems(name: str, one: Any) -> Iterator[str]:
    if not isinstance(one, dict):
        yield f"{name} is {show(one)}, expected an object with 'solution'"
        return
    if "solution" not in one:
        yield f"{name} has no 'solution'; it has {', '.join(map(show, one)) or 'nothing'}"
    else:
        yield from _text_problems(f"'solution' of {name}", one["solution"], blank=True)
    if one.get("generator") is not None:
        yield from _text_problems(f"'generator' of {name}", one["generator"])
    if not isinstance(one.get("is_correct"), bool | None):
        yield f"'is_correct' of {name} is {show(one['is_correct'])}, expected true, false or null"


def _text_problems(name: str, value: Any, blank: bool = False) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} is {show(value)}, expected a string"
    elif not value.strip() and not blank:
        yield f"{name} is blank, expected text"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        yield f"{name} holds half a surrogate pair, expected valid Unicode"


def _line(number: int, row: JSON) -> Line:
    solutions = (Solution(one["solution"], one.get("generator"), one.get("is_correct")) for one in row["candidates"])
    return Line(number, row["problem"], row.get("answer"), tuple(solutions))
