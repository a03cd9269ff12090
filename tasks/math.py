"""MATH: competition problems (arXiv 2103.03874), each with several solutions to select among.

``math500`` are the 500 of its test set that are often reported (arXiv 2305.20050).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cpmi_eval.grading.finding import last_boxed
from cpmi_eval.tasks.references import ReferenceSource
from cpmi_eval.tasks.selection import Selection
from cpmi_eval.tasks.sources import Table

UNKNOWN_LEVEL = "?"
_LEVEL = re.compile(r"(?:Level )?([1-5])")
_SUBJECTS = "algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra precalculus"


@dataclass(frozen=True)
class _Row:  # copies write ``Level 2`` or ``2``, ``type`` or ``subject``, and the hub's has no ``answer``
    problem: str
    solution: str | None = None
    answer: str | None = None
    level: str | int | None = None
    subject: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        if self.answer is None and self.solution is None:
            raise ValueError("solution: missing, and there is no answer")

    @property
    def reference(self) -> str | None:
        return last_boxed(self.solution or "") if self.answer is None else self.answer.strip()

    @property
    def worked(self) -> str | None:
        return self.solution

    @property
    def groups(self) -> Mapping[str, str]:
        level, subject = _LEVEL.fullmatch(str(self.level).strip()), self.subject or self.type
        return {"level": level.group(1) if level else UNKNOWN_LEVEL, **({"subject": subject} if subject else {})}


SOURCE = ReferenceSource(
    Table(
        *("EleutherAI/hendrycks_math", "test.jsonl", "test", "21a5633873b6a120296cce3e2df9d5550074f4a3"),
        hub_configs=tuple(_SUBJECTS.split()),
        role="reference answers of math problems",
    ),
    _Row,
)
_MATH500 = Table(
    *("HuggingFaceH4/MATH-500", "test.jsonl", "test", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"),
    role="problems of math500",
)


class MATH(Selection):
    """Best-of-N selection; its settings are ``candidates`` (a file) and ``split`` (auto, blank or line)."""

    name: ClassVar[str] = "math"
    summary: ClassVar[str] = "select among solutions of competition problems (MATH): --candidates FILE"
    sources: ClassVar[Mapping[str, ReferenceSource]] = {"test": SOURCE, "math500": ReferenceSource(_MATH500, _Row)}
