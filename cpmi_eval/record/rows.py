"""A line of samples.jsonl and one of traces.jsonl, and what the two say together of a trace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpmi_eval.cost import Share
from cpmi_eval.errors import StoreError
from cpmi_eval.types import JSON, Failure, Gold, Item

Key = tuple[str, str]  # part and id


@dataclass(frozen=True)
class Row:
    """What one trace scored: a line of samples.jsonl.

    ``task``: the part of the task (``processbench/gsm8k``). ``scores``: one per step; ``None`` where scoring failed,
    and then ``error`` says why. ``decision``: the scorer's own, where that is more than a cut on its scores.
    """

    id: str
    task: str
    scores: tuple[float, ...] | None
    prediction: int | None
    gold: Gold
    error: Failure | None
    cost: Share
    details: Mapping[str, Any]
    decision: int | None = None

    @property
    def key(self) -> Key:
        """Which trace it is."""
        return self.task, self.id

    def as_dict(self) -> JSON:
        """The line as JSON values."""
        return {
            "id": self.id,
            "task": self.task,
            "scores": None if self.scores is None else list(self.scores),
            "prediction": self.prediction,
            **({} if self.decision is None else {"decision": self.decision}),
            "gold": self.gold.as_dict(),
            "error": None if self.error is None else asdict(self.error),
            "cost": self.cost.as_dict(),
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class TraceText:
    """The texts of one trace: a line of traces.jsonl. ``cluster`` identifies its problem."""

    id: str
    task: str
    problem: str
    steps: tuple[str, ...]
    answer: str | None = None
    cluster: str = ""

    @property
    def key(self) -> Key:
        """Which trace it is."""
        return self.task, self.id

    @classmethod
    def of(cls, item: Item, task: str) -> TraceText:
        """The texts of an item of a task."""
        trace = item.trace
        return cls(trace.id, part_of(item, task), trace.problem, trace.steps, trace.answer, trace.cluster)


@dataclass(frozen=True)
class Record:
    """One trace of a run: its texts, its gold annotation, what it scored and what that cost.

    ``part``: the part of the task it belongs to, as in results.json. ``cluster`` identifies the problem. The rest is as
    in :class:`Row`.
    """

    id: str
    part: str
    cluster: str
    problem: str
    steps: tuple[str, ...]
    gold: Gold
    scores: tuple[float, ...] | None
    prediction: int | None
    error: Failure | None
    cost: Share
    details: Mapping[str, Any] = field(default_factory=dict)
    decision: int | None = None

    @classmethod
    def of(cls, row: Row, text: TraceText) -> Record:
        """Put the two lines of a trace together."""
        return cls(
            *(row.id, row.task, text.cluster or row.id, text.problem, text.steps, row.gold, row.scores),
            *(row.prediction, row.error, row.cost, row.details, row.decision),
        )

    @classmethod
    def unscored(cls, item: Item, task: str) -> Record:
        """The record of a trace that nobody has scored yet."""
        trace = item.trace
        own = (trace.id, part_of(item, task), trace.cluster, trace.problem, trace.steps, item.gold)
        return cls(*own, None, None, None, Share.nothing())


@dataclass(frozen=True)
class Outcome:
    """One trace's gold annotation beside what was scored and predicted: what a metric sees of it.

    ``scores`` is ``None`` where scoring failed. ``prediction`` is the index of the first step called wrong, -1 for
    none, ``None`` where there is no prediction. ``undecided``: the scorer ranks but decides nothing; that is no miss.
    ``aggregation``: how the scorer's step scores become one of the solution (``min``, ``last``, ...). ``cluster``: the
    problem, for resampling.
    """

    gold: Gold
    scores: tuple[float, ...] | None
    prediction: int | None
    undecided: bool = False
    aggregation: str = "min"
    cluster: str = ""


def part_of(item: Item, task: str) -> str:
    """The name of the part of a task that an item belongs to."""
    return f"{task}/{item.subset}"


def join(rows: Iterable[Row], texts: Iterable[TraceText], path: Path) -> tuple[Record, ...]:
    """Put rows and texts together, in the order of the texts.

    Raises:
        StoreError: a trace without a row or with two, a row without a trace, one that is both scored and failed or
            neither, or one with another number of scores than steps; names file and trace.
    """
    found: dict[Key, Row] = {}
    for row in rows:
        if row.key in found:
            raise _wrong(path, row.key, "it has two rows")
        found[row.key] = row
    records = []
    for text in texts:
        own = found.pop(text.key, None)
        if own is None:
            raise _wrong(path, text.key, "it has no row")
        check(own, len(text.steps), path)
        records.append(Record.of(own, text))
    for key in found:
        raise _wrong(path, key, "traces.jsonl does not have it")
    return tuple(records)


def check(row: Row, steps: int, path: Path) -> None:
    """Refuse a row that does not fit its trace of so many ``steps``.

    Raises:
        StoreError: both a score and an error or neither, or not one score per step.
    """
    if (row.scores is None) == (row.error is None):
        raise _wrong(path, row.key, "a row has either scores or an error")
    if row.scores is not None and len(row.scores) != steps:
        raise _wrong(path, row.key, f"{len(row.scores)} scores for {steps} steps")


def _wrong(path: Path, key: Key, what: str) -> StoreError:
    return StoreError(
        f"{path}: the trace {key[1]} of {key[0]}: {what}; running the same command again rewrites what is missing, "
        "with --fresh all of it"
    )


def by_part(records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
    """Group records by part, in order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.part, []).append(record)
    return {part: tuple(group) for part, group in found.items()}


def trace_set(records: Sequence[Record]) -> str:
    """The SHA-256 of what results on these traces depend on: ids, texts and annotations, in any order.

    Runs can be compared where it is the same, wherever their data came from.
    """
    return hashlib.sha256("\n".join(sorted(map(_content, records))).encode()).hexdigest()


def _content(one: Record) -> str:
    return json.dumps([one.id, one.problem, one.steps, one.gold.as_dict()], ensure_ascii=False)


def rollouts_of(row: Row, samples: Iterable[JSON]) -> Iterator[JSON]:
    """The lines of rollouts.jsonl that stand behind a row."""
    yield from ({"task": row.task, "id": row.id, **sample} for sample in samples)
