"""Files of candidate solutions: several per problem, among which a scorer selects.

A line of JSON is one problem: ``{"problem": "...", "candidates": [{"solution": "..."}, ...]}``. It may hold ``id`` (for
people; nothing depends on it) and ``answer`` (a reference answer, held against the benchmark's), and a candidate may
hold ``generator`` (who wrote it) and ``is_correct`` (somebody's grading, held against ours). Other fields are left
alone. ``cpmi-eval generate`` writes such files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cpmi_eval.errors import DataError
from cpmi_eval.record import door
from cpmi_eval.record.door import Filled
from cpmi_eval.tasks.rows import Faults, numbered
from cpmi_eval.types import Provenance


@dataclass(frozen=True)
class Solution:
    """One candidate. Its text may be blank: a generation that failed. ``is_correct``: the file's own grading."""

    solution: str
    generator: Filled | None = None
    is_correct: bool | None = None


@dataclass(frozen=True)
class Line:
    """A problem and its candidates in order, none where all are still to be made."""

    problem: Filled
    candidates: tuple[Solution, ...]
    answer: Filled | None = None
    id: Filled | None = None


def read_candidates(path: Path) -> tuple[dict[int, Line], Provenance]:
    """Return the lines of a file by their number, in order, and proof of which file it was.

    Raises:
        DataError: it cannot be read, holds no line, or lines are not of the form; these are reported together.
    """
    advice = "`cpmi-eval generate` makes such a file"
    if not path.exists():
        raise DataError(f"{path} does not exist; {advice}")
    content = door.read_bytes(path, door.Source(str(path), DataError))
    lines: dict[int, Line] = {}
    faults = Faults("line", "candidates")
    for number, line in numbered(content):
        with faults.row():
            lines[number] = door.parse_json(line, Line, door.Source(f"{path}:{number}", DataError))
    faults.refuse()
    if not lines:
        raise DataError(f"{path} holds no candidates; {advice}")
    return lines, Provenance(path.name, sha256=hashlib.sha256(content).hexdigest(), rows=len(lines))
