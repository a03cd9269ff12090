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
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cpmi_eval.tasks.sources import Table, read_typed
from cpmi_eval.types import Provenance


class Answered(Protocol):
    """A row of a table of problems with answers, a frozen dataclass with the table's own fields."""

    @property
    def problem(self) -> str:
        """Its text."""

    @property
    def reference(self) -> str | None:
        """Its answer; nothing where it has none."""


@dataclass(frozen=True)
class ReferenceSource:
    """A table of problems with answers, and what its rows are."""

    table: Table
    kind: type[Answered]


def problem_key(problem: str) -> str:
    """Return the letters and digits of a problem, case folded: equal for copies of one problem.

    A text without any is its own key, white space aside.
    """
    folded = unicodedata.normalize("NFKC", problem).casefold()
    return "".join(filter(str.isalnum, folded)) or strict_key(problem)


def strict_key(problem: str) -> str:
    """Return a problem without white space."""
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
            strict = strict_key(problem)
            copies[strict] = copies.get(strict, frozenset()) | {answer}
        return cls(entries)

    def find(self, problem: str) -> str | None:
        """Return the problem's answer; ``None`` if it is not there or its answers disagree."""
        copies = self.entries.get(problem_key(problem), {})
        for answers in (frozenset[str]().union(*copies.values()), copies.get(strict_key(problem), frozenset[str]())):
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
    for source in sources:
        if not open_problems:
            break
        rows, provenance = read_typed(source.table, source.kind, data_dir)
        consulted.append(provenance)
        table = ReferenceTable.build((row.problem, row.reference) for row in rows if row.reference)
        found |= {problem: answer for problem in open_problems if (answer := table.find(problem)) is not None}
        open_problems = [problem for problem in open_problems if problem not in found]
    return found, consulted
