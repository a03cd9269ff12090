"""Problems of GSM8K and MATH with their reference answers, for solutions to be written for and to be selected among.

GSM8K (arXiv 2110.14168) has the subsets ``test`` and ``train``; MATH (arXiv 2103.03874) its ``test`` set and
``math500``, the 500 of them that are often reported (arXiv 2305.20050).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cpmi_eval.errors import DataError, UnknownNameError
from cpmi_eval.tasks.references import REFERENCE_SOURCES, ReferenceSource
from cpmi_eval.tasks.sources import Table, read_rows
from cpmi_eval.types import JSON, Provenance

UNKNOWN_LEVEL = "?"
_LEVEL = re.compile(r"(?:Level )?([1-5])")
_MATH = REFERENCE_SOURCES["math"][0]
_MATH500 = ReferenceSource(
    Table(
        name="HuggingFaceH4/MATH-500",
        file="test.jsonl",
        hub_split="test",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        role="problems of math500",
    ),
    problem_field="problem",
    answer=_MATH.answer,
)

SOURCES: Mapping[str, Mapping[str, ReferenceSource]] = MappingProxyType(
    {
        "gsm8k": MappingProxyType({one.source.hub_split: one for one in REFERENCE_SOURCES["gsm8k"]}),
        "math": MappingProxyType({"test": _MATH, "math500": _MATH500}),
    }
)


@dataclass(frozen=True)
class Problem:
    """A problem with its reference answer.

    ``id`` is its 0-based place in the benchmark's file (``gsm8k-test-0``). ``groups``: what results are broken down by;
    for MATH its ``level`` (``1`` to ``5``, or ``?``) and ``subject``, for GSM8K nothing.
    """

    id: str
    problem: str
    answer: str
    groups: Mapping[str, str] = field(default_factory=dict)


def load_problems(task: str, subset: str, data_dir: Path | None) -> tuple[list[Problem], list[Provenance]]:
    """Return all problems of a subset in the benchmark's order, and where they came from.

    Args:
        task: ``gsm8k`` or ``math``.
        subset: ``test`` or ``train`` of gsm8k, ``test`` or ``math500`` of math.
        data_dir: a local copy of the hub; ``None`` loads the pinned revision from the hub.

    Raises:
        UnknownNameError: no such task or subset.
        DataError: the data is missing, or a row lacks its problem or its answer.
    """
    if task not in SOURCES:
        raise UnknownNameError("benchmark", task, SOURCES)
    if subset not in SOURCES[task]:
        raise UnknownNameError(f"subset of {task}", subset, SOURCES[task])
    reference = SOURCES[task][subset]
    rows, origin = read_rows(reference.source, data_dir)
    problems = [
        _problem(f"{task}-{subset}-{index}", row, reference, f"{origin.name} row {index + 1}", task)
        for index, row in enumerate(rows)
    ]
    return problems, [origin]


def _problem(name: str, row: JSON, reference: ReferenceSource, place: str, task: str) -> Problem:
    text = row.get(reference.problem_field)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: {reference.problem_field!r} holds no text; download the file again")
    try:
        answer = reference.answer(row)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    if not answer:
        raise DataError(f"{place}: the row gives no answer to its problem; download the file again")
    return Problem(name, text, answer, _groups(row) if task == "math" else {})


def _groups(row: JSON) -> dict[str, str]:
    """Return level and subject of a MATH row; copies write ``Level 2`` or ``2``, ``type`` or ``subject``."""
    level = _LEVEL.fullmatch(str(row.get("level")).strip())
    subject = row.get("subject") or row.get("type")
    groups = {"level": level.group(1) if level else UNKNOWN_LEVEL}
    return {**groups, "subject": str(subject)} if subject else groups
