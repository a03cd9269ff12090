"""A finished run as its metrics see it: read back from its directory, without data or model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cpmi_eval.errors import StoreError
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.store import Store, parse_rows, read_json, read_results
from cpmi_eval.types import JSON, Gold


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
    """A finished run: ``summary`` is the content of results.json, ``records`` its traces in the order of the task."""

    path: Path
    summary: JSON
    records: tuple[Record, ...]

    @cached_property
    def parts(self) -> dict[str, tuple[Record, ...]]:
        """The records by part of the task, in order."""
        found: dict[str, list[Record]] = {}
        for record in self.records:
            found.setdefault(record.part, []).append(record)
        return {part: tuple(group) for part, group in found.items()}

    def outcomes(self, part: str) -> list[Outcome]:
        """Return what metrics see of one part's traces, in the order of its records."""
        aggregation = self.summary["labeler"].get("aggregation", "min")
        rule = self.summary["threshold"]
        undecided = rule.get("undecided", rule["value"] is None)
        return [outcome(record, aggregation, undecided=undecided) for record in self.parts[part]]


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
    texts = _texts(store)
    try:
        records = {(row["task"], row["id"]): _record(row, texts[row["task"], row["id"]]) for row in rows}
        ordered = tuple(records[key] for key in texts)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{store.samples_path} and {store.traces_path.name} do not fit together ({error!r}); running the same "
            "command again rewrites what is missing"
        ) from error
    return Run(path, summary, ordered)


def _texts(store: Store) -> dict[tuple[str, str], JSON]:
    try:
        traces = [json.loads(line) for line in store.traces_path.read_bytes().splitlines()]
        return {(one["task"], one["id"]): one for one in traces}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.traces_path} cannot be read ({error}); running the same command again rewrites the file"
        ) from error


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


def trace_set(records: Sequence[Record]) -> str:
    """Return the SHA-256 of what results on these traces depend on: ids, texts and annotations, in any order.

    Runs can be compared where it is the same, wherever their data came from.
    """
    lines = sorted(
        json.dumps([one.id, one.problem, one.steps, one.gold.as_dict()], ensure_ascii=False) for one in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
