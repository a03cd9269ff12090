r"""Reference answers for benchmarks whose rows carry none, found again in the datasets the problems came from.

Rows are joined to their source by problem text. Copies of a problem differ in white space, quotes, ``\$`` against
``$`` and the like, so texts are compared by their letters and digits alone. That is coarse: it cannot tell ``x+1``
from ``x-1``. Where one such key stands for source problems with different answers, the copy that agrees in everything
but white space decides, and where none does, there is no reference: a guess would be worse.

In a local copy of the hub the sources are the files named below; each may be what ``Dataset.to_json`` writes of the
hub's split (for OlympiadBench the file is named after the configuration).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from cpmi_eval.errors import DataError
from cpmi_eval.grading.finding import clean, last_boxed
from cpmi_eval.tasks.sources import Table, read_rows
from cpmi_eval.types import JSON, Provenance

Extract: TypeAlias = Callable[[JSON], str | None]

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class _BadFieldError(ValueError):
    """A source row lacks a field or has it in another type."""


@dataclass(frozen=True)
class ReferenceSource:
    """A table of problems with answers: which field holds the problem, and how to get at the answer."""

    source: Table
    problem_field: str
    answer: Extract


def problem_key(problem: str) -> str:
    """Return the letters and digits of a problem, case folded: equal for copies of one problem.

    A text without any is its own key, white space aside.
    """
    folded = unicodedata.normalize("NFKC", problem).casefold()
    return "".join(filter(str.isalnum, folded)) or _strict_key(problem)


def _strict_key(problem: str) -> str:
    return "".join(problem.split())


def problem_cluster(problem: str) -> str:
    """Return a short stable name for the problem, shared by all its copies."""
    return hashlib.sha256(problem_key(problem).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class ReferenceTable:
    """Answers by problem text. ``entries``: key -> the answers of each copy, by the copy's text without white space."""

    entries: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @classmethod
    def build(cls, pairs: Iterable[tuple[str, str]]) -> ReferenceTable:
        """Index (problem, answer) pairs."""
        entries: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
        for problem, answer in pairs:
            copies = entries[problem_key(problem)]
            strict = _strict_key(problem)
            copies[strict] = copies.get(strict, frozenset()) | {answer}
        return cls(entries)

    def find(self, problem: str) -> str | None:
        """Return the problem's answer; ``None`` if it is not there or its answers disagree."""
        copies = self.entries.get(problem_key(problem), {})
        for answers in (frozenset[str]().union(*copies.values()), copies.get(_strict_key(problem), frozenset[str]())):
            if len(answers) == 1:
                return next(iter(answers))
        return None


def find_references(
    problems: Iterable[str], sources: Sequence[ReferenceSource], data_dir: Path | None
) -> tuple[dict[str, str], list[Provenance]]:
    """Return the reference answer of each problem that has one, and where those read came from.

    Sources are consulted in order, a later one only if problems are left that no earlier one answers.

    Raises:
        DataError: a source that is needed is missing or malformed.
    """
    found: dict[str, str] = {}
    consulted: list[Provenance] = []
    open_problems = list(dict.fromkeys(problems))
    for reference in sources:
        if not open_problems:
            break
        rows, provenance = read_rows(reference.source, data_dir)
        consulted.append(provenance)
        table = ReferenceTable.build(_pairs(reference, rows, provenance.name))
        found |= {problem: answer for problem in open_problems if (answer := table.find(problem)) is not None}
        open_problems = [problem for problem in open_problems if problem not in found]
    return found, consulted


def _pairs(reference: ReferenceSource, rows: Iterable[JSON], label: str) -> Iterable[tuple[str, str]]:
    """Yield (problem, answer) of the rows that have an answer."""
    for number, row in enumerate(rows, start=1):
        try:
            problem, answer = _text(row, reference.problem_field), reference.answer(row)
        except _BadFieldError as error:
            raise DataError(f"{label} row {number} ({reference.source.role}): {error}") from error
        if answer:
            yield problem, answer


def _value(row: JSON, key: str) -> Any:
    if key not in row:
        raise _BadFieldError(f"no {key!r}; it has {', '.join(map(repr, row)) or 'nothing'}")
    return row[key]


def _text(row: JSON, key: str) -> str:
    value = _value(row, key)
    if not isinstance(value, str):
        raise _BadFieldError(f"{key!r} is {type(value).__name__}, expected a string")
    return value


def _gsm8k_answer(row: JSON) -> str | None:
    """Return what follows ``####``, without thousands separators, as GSM8K's own grader reads it."""
    _, marker, answer = _text(row, "answer").rpartition("####")
    if not marker:
        raise _BadFieldError("'answer' has no '####' line")
    return _THOUSANDS.sub("", answer.strip())


def _math_answer(row: JSON) -> str | None:
    """Return the answer field where a copy has one, else the solution's last box (the hub has solutions only)."""
    return _text(row, "answer").strip() if "answer" in row else last_boxed(_text(row, "solution"))


def _olympiadbench_answer(row: JSON) -> str | None:
    """Return the parts of ``final_answer`` as one comma-separated answer; proofs have none."""
    parts = _value(row, "final_answer")
    if parts is None:
        return None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise _BadFieldError("'final_answer' is not a list of strings")
    return ", ".join(filter(None, map(clean, parts)))


def _omnimath_answer(row: JSON) -> str | None:
    return None if _value(row, "answer") is None else clean(_text(row, "answer"))


def _gsm8k(split: str) -> ReferenceSource:
    source = Table(
        name="openai/gsm8k",
        file=f"{split}.jsonl",
        hub_split=split,
        hub_configs=("main",),
        revision="740312add88f781978c0658806c59bc2815b9866",
        role="reference answers of gsm8k problems",
    )
    return ReferenceSource(source, problem_field="question", answer=_gsm8k_answer)


_MATH = ReferenceSource(
    Table(
        name="EleutherAI/hendrycks_math",
        file="test.jsonl",
        hub_split="test",
        hub_configs=(
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        ),
        revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
        role="reference answers of math problems",
    ),
    problem_field="problem",
    answer=_math_answer,
)
# Open-ended, text-only, mathematics, English: the other configurations have no answers, or images, or other problems.
_OLYMPIADBENCH = ReferenceSource(
    Table(
        name="Hothan/OlympiadBench",
        file="OE_TO_maths_en_COMP.jsonl",
        hub_split="train",
        hub_configs=("OE_TO_maths_en_COMP",),
        revision="91184b52131e7fc9455fef848035173aea8cc01a",
        role="reference answers of olympiadbench problems",
    ),
    problem_field="question",
    answer=_olympiadbench_answer,
)
_OMNI_MATH = ReferenceSource(
    Table(
        name="KbsdJames/Omni-MATH",
        file="test.jsonl",
        hub_split="test",
        revision="40ba231d8f16e29ecd40e6407e2c8640145a8f62",
        role="reference answers of omnimath problems",
    ),
    problem_field="problem",
    answer=_omnimath_answer,
)

REFERENCE_SOURCES: Mapping[str, tuple[ReferenceSource, ...]] = MappingProxyType(
    {
        "gsm8k": (_gsm8k("test"), _gsm8k("train")),
        "math": (_MATH,),
        "olympiadbench": (_OLYMPIADBENCH,),
        "omnimath": (_OMNI_MATH,),
    }
)
