"""What the page shows of runs, as JSON: facts, results, plots, and traces whose texts are stored once.

Runs over the same traces share them. Where all texts and scores would outgrow ``BUDGET``, an evenly spaced choice is
taken from every set of traces, and the page says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from cpmi_eval.metrics import ranking
from cpmi_eval.record.results import Metric
from cpmi_eval.record.rows import Record, trace_set
from cpmi_eval.record.signature import portable
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.page import curves
from cpmi_eval.reports.page.boards import entry, significant
from cpmi_eval.types import JSON

if TYPE_CHECKING:
    from cpmi_eval.record.run import Run

BUDGET = 3_600_000  # bytes for the texts and scores of traces
SCORE_BYTES = 9  # of -0.04321 and its comma
TRACE_BYTES = 12  # prediction, ending and punctuation of one trace in one run
ESCAPED = ("<", ">", "&")


@dataclass
class TraceSet:
    """Traces that some runs share: ``records`` of one of them, and how many ``runs`` there are."""

    records: Sequence[Record]
    runs: int = 0
    chosen: list[int] = field(default_factory=list)

    def bytes_of(self, place: int) -> int:
        """What one trace takes: its texts once, its scores in every run."""
        record = self.records[place]
        texts = json.dumps([record.id, record.problem, record.steps], ensure_ascii=False)
        size = len(texts.encode("utf-8", "surrogatepass")) + 5 * sum(map(texts.count, ESCAPED))
        return size + self.runs * (len(record.steps) * SCORE_BYTES + TRACE_BYTES)


def run_data(runs: Sequence[Run], names: Mapping[int, str]) -> JSON:
    """``runs``, and the ``sets`` of traces, ``texts`` and ``problems`` that they refer to by number.

    Args:
        runs: finished runs.
        names: what boards call the runs that they hold, by their place; others go by labeler and settings.
    """
    sets: dict[str, TraceSet] = {}
    keys: dict[tuple[int, str], str] = {}
    for place, run in enumerate(runs):
        for part, records in run.parts.items():
            key = keys[place, part] = trace_set(records)
            sets.setdefault(key, TraceSet(records)).runs += 1
    choose(list(sets.values()), BUDGET)
    places = {key: place for place, key in enumerate(sets)}
    pool = Pool()
    listed = [
        {"total": len(one.records), "texts": [pool.add(one.records[i]) for i in one.chosen]} for one in sets.values()
    ]
    listed_runs = []
    for place, run in enumerate(runs):
        own = {part: (places[keys[place, part]], sets[keys[place, part]]) for part in run.parts}
        listed_runs.append(_run(run, names.get(place) or _name(run), own))
    return {
        "runs": listed_runs,
        "sets": listed,
        "texts": pool.texts,
        "problems": list(pool.problems),
        "ends": list(curves.ENDS),
    }


def choose(sets: Sequence[TraceSet], budget: int) -> None:
    """Choose from every set the traces that are shown, evenly spaced, so that all of them fit into ``budget`` bytes.

    Sets share it evenly; what small ones leave goes to the larger.
    """
    sizes = {id(one): [one.bytes_of(place) for place in range(len(one.records))] for one in sets}
    left = budget
    for done, one in enumerate(sorted(sets, key=lambda one: sum(sizes[id(one)]))):
        own = sizes[id(one)]
        one.chosen = fitting(own, left // (len(sets) - done))
        left -= sum(own[place] for place in one.chosen)


def fitting(sizes: Sequence[int], budget: int) -> list[int]:
    """Places, evenly spaced and as many as the sum of their sizes allows."""
    count = len(sizes)
    while sum(sizes[place] for place in spaced(len(sizes), count)) > budget:
        count -= max(1, count // 100)
    return spaced(len(sizes), count)


def spaced(total: int, count: int) -> list[int]:
    """``count`` evenly spaced places among ``total``."""
    return [place * total // count for place in range(count)]


class Pool:
    """Texts of traces, each stored once, and problems, each stored once."""

    def __init__(self) -> None:
        """Start empty."""
        self.texts: list[Any] = []
        self.problems: dict[str, int] = {}
        self._places: dict[Any, int] = {}

    def add(self, record: Record) -> int:
        """The number of a trace's texts, which are added where they are new."""
        key = (record.id, record.problem, record.steps, record.gold.first_error, record.gold.final_answer_correct)
        if key not in self._places:
            self._places[key] = len(self.texts)
            problem = self.problems.setdefault(record.problem, len(self.problems))
            self.texts.append([record.id, problem, record.steps, *key[3:]])
        return self._places[key]


def _name(run: Run) -> str:
    config = run.results.config
    return fmt.scorer(config.labeler, portable(config.labeler_args))


def _run(run: Run, name: str, sets: dict[str, tuple[int, TraceSet]]) -> JSON:
    results = run.results
    rule = results.threshold.as_dict()
    return {
        "name": name,
        "task": results.task,
        "kind": results.labeler.kind,
        "reference": results.labeler.uses_reference,
        "synthetic": results.synthetic,
        "selects": results.selects,
        "facts": facts(run),
        "threshold": {key: _text(value) for key, value in rule.items() if value is not None and value is not False},
        "errors": _failures(run),
        "results": _entries(results.results, detail=False),
        "details": _entries(results.results, detail=True),
        "parts": [_part(run, part, *sets[part]) for part in run.parts],
    }


def _entries(results: Mapping[str, Mapping[str, Metric]], *, detail: bool) -> JSON:
    return {
        part: {name: entry(one) for name, one in metrics.items() if one.detail == detail}
        for part, metrics in results.items()
    }


def facts(run: Run) -> list[list[str]]:
    """What a run was and what it cost, as pairs of a name and a text."""
    results, model = run.results, run.model
    config, cost = results.config, results.cost
    words = [] if model is None else [portable(model.model), model.version[:12], model.dtype, model.device]
    phases = " + ".join(
        f"{name.replace('_', ' ')} {fmt.seconds(value)}" for name, value in cost.wall_seconds.items() if name != "total"
    )
    sampled = "" if config.limit is None else f", limit {config.limit} per subset"
    tokens = cost.tokens
    found = {
        "run": run.path.name,
        "kind": results.labeler.kind + (", given the reference answer" if results.labeler.uses_reference else ""),
        "model": ", ".join(filter(None, words)) or "none",
        "data": "; ".join(f"{one.name} @ {(one.revision or one.sha256 or '')[:12]}" for one in results.data),
        "seed": f"{config.seed}{sampled}",
        "wall time": f"{fmt.seconds(cost.wall_seconds['total'])} = {phases}",
        "device time of scoring": fmt.seconds(cost.device_seconds),
        "tokens": f"{tokens.requested:,} requested, {tokens.computed:,} computed, {tokens.generated:,} generated",
        "peak memory": fmt.memory(cost.peak_memory_bytes),
        "scored": "; ".join(f"{part}: {one.scored:,} of {one.traces:,}" for part, one in results.coverage.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
    }
    return [[name, text] for name, text in found.items() if text]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _failures(run: Run) -> list[list[Any]]:
    """[kind, traces, one's id, its message] for each kind of failure."""
    found: dict[str, list[Any]] = {}
    for record in chain.from_iterable(run.parts.values()):
        if record.error is not None:
            kind = record.error.kind
            found.setdefault(kind, [kind, 0, record.id, record.error.message])[1] += 1
    return sorted(found.values(), key=lambda one: -one[1])


def _part(run: Run, part: str, place: int, own: TraceSet) -> JSON:
    records, outcomes = run.parts[part], run.outcomes(part)
    value = run.results.threshold.value
    steps = ranking.compute(outcomes)
    labels, scores = steps.labels.tolist(), steps.scores.tolist()
    ends = {
        record.id: curves.ending(outcome, failed=record.error is not None)
        for record, outcome in zip(records, outcomes[: len(records)], strict=True)
    }
    by_id = {record.id: record for record in records}
    shown = [by_id[own.records[i].id] for i in own.chosen]
    counts = Counter(ends.values())
    counts["failed"] += len(outcomes) - len(records)  # traces without any step: there is nothing to show of them
    return {
        "name": part,
        "set": place,
        "counts": [counts[end] for end in curves.ENDS],
        "roc": curves.roc(labels, scores),
        "reliability": curves.reliability(labels, scores, [one for record in records for one in record.scores or ()]),
        "positions": curves.by_position(outcomes),
        "scale": curves.scale(outcomes, value),
        "scores": [None if one.scores is None else [significant(score) for score in one.scores] for one in shown],
        "predictions": [one.prediction for one in shown],
        "ends": [curves.ENDS.index(ends[one.id]) for one in shown],
        "failures": {i: [one.error.kind, one.error.message] for i, one in enumerate(shown) if one.error is not None},
    }
