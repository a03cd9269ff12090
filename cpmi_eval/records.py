"""A finished run as its metrics see it: read back from its directory, without data or model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cpmi_eval.description import ModelDescription
from cpmi_eval.description import read as read_model
from cpmi_eval.errors import StoreError
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.store import Store, parse_rows, read_json, read_results
from cpmi_eval.types import JSON, Gold, Item


@dataclass(frozen=True)
class Record:
    """One trace of a finished run: its texts, its gold annotation, what it scored and what that cost.

    ``part``: the part of the task it belongs to, as in results.json (``processbench/gsm8k``). ``cluster`` identifies
    the problem. ``scores`` is ``None`` and ``error`` (``kind``, ``message``) is set where scoring failed. ``cost`` is
    as in samples.jsonl: ``seconds``, ``device_seconds``, ``tokens``, ``peak_memory_bytes``.
    """

    id: str
    part: str
    cluster: str
    problem: str
    steps: tuple[str, ...]
    gold: Gold
    scores: tuple[float, ...] | None
    prediction: int | None
    error: Mapping[str, str] | None
    cost: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)
    decision: int | None = None


@dataclass(frozen=True)
class Run:
    """A finished run: ``summary`` is the content of results.json, ``records`` its traces in the order of the task.

    ``records`` holds all traces; a part that was only used to choose a threshold is not among ``parts``.
    """

    path: Path
    summary: JSON
    records: tuple[Record, ...]

    @cached_property
    def model(self) -> ModelDescription | None:
        """The model that was used; ``None`` where none was."""
        return read_model(self.summary["model"], self.path / "results.json")

    @cached_property
    def parts(self) -> dict[str, tuple[Record, ...]]:
        """The records by reported part of the task, in order."""
        held_out = self.summary["threshold"].get("held_out")
        return {part: group for part, group in by_part(self.records).items() if part != held_out}

    def outcomes(self, part: str) -> list[Outcome]:
        """Return what metrics see of one part's traces, in the order of its records; then those without any step."""
        found = [outcome(record, self.aggregation, undecided=self.undecided) for record in self.parts[part]]
        return found + empty(self.summary.get("empty", ()), part, self.aggregation)

    @property
    def aggregation(self) -> str:
        """How step scores become one of the solution."""
        return str(self.summary["labeler"].get("aggregation", "min"))

    @property
    def undecided(self) -> bool:
        """Whether the scorer makes no decision under the run's threshold."""
        rule = self.summary["threshold"]
        return bool(rule.get("undecided", rule["value"] is None))


def empty(items: Sequence[JSON], part: str, aggregation: str) -> list[Outcome]:
    """Return the outcomes of a part's traces without steps (as results.json lists them): nobody could score them."""
    return [
        Outcome(Gold.from_dict(one["gold"]), None, None, aggregation=aggregation, cluster=one["cluster"])
        for one in items
        if one["task"] == part
    ]


def by_part(records: Iterable[Record]) -> dict[str, tuple[Record, ...]]:
    """Group records by part, in order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.part, []).append(record)
    return {part: tuple(group) for part, group in found.items()}


def outcome(record: Record, aggregation: str = "min", *, undecided: bool = False) -> Outcome:
    """Return what metrics see of a record."""
    return Outcome(record.gold, record.scores, record.prediction, undecided, aggregation, record.cluster)


def read_run(path: Path) -> Run:
    """Read a finished run.

    Raises:
        StoreError: no run, one that is not finished, or damaged files.
    """
    summary, store = read_results(path), Store(path)
    read_json(store.manifest_path)
    data = store.samples_path.read_bytes() if store.samples_path.exists() else b""
    rows = parse_rows(data[: data.rfind(b"\n") + 1], store.samples_path)
    try:
        records = build(rows, [json.loads(line) for line in store.traces_path.read_bytes().splitlines()])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{store.samples_path} and {store.traces_path.name} do not fit together ({error!r}); running the same "
            "command again rewrites what is missing"
        ) from error
    return Run(path, summary, records)


def build(rows: Sequence[JSON], texts: Sequence[JSON]) -> tuple[Record, ...]:
    """Return the records of rows (as in samples.jsonl) and the texts of their traces (traces.jsonl), in these' order.

    Raises:
        KeyError: a trace without a row or a row without a trace.
    """
    found = {(row["task"], row["id"]): row for row in rows}
    records = tuple(_record(found.pop((text["task"], text["id"])), text) for text in texts)
    if found:
        raise KeyError(next(iter(found)))
    return records


def _record(row: JSON, text: JSON) -> Record:
    return Record(
        id=row["id"],
        part=row["task"],
        cluster=text["cluster"] or row["id"],
        problem=text["problem"],
        steps=tuple(text["steps"]),
        gold=Gold.from_dict(row["gold"]),
        scores=None if row["scores"] is None else tuple(row["scores"]),
        prediction=row["prediction"],
        error=row["error"],
        cost=row["cost"],
        details=row["details"],
        decision=row.get("decision"),
    )


def unscored(item: Item, part: str, name: str) -> Record:
    """Return the record of a trace that nobody has scored yet."""
    trace = item.trace
    return Record(name, part, trace.cluster, trace.problem, trace.steps, item.gold, None, None, None, {})


def trace_set(records: Sequence[Record]) -> str:
    """Return the SHA-256 of what results on these traces depend on: ids, texts and annotations, in any order.

    Runs can be compared where it is the same, wherever their data came from.
    """
    lines = sorted(
        json.dumps([one.id, one.problem, one.steps, one.gold.as_dict()], ensure_ascii=False) for one in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
