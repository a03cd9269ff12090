"""From rows to results.json: metrics per subset and their mean, cost, coverage, errors, and what all of it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cpmi_eval import cost, registry
from cpmi_eval.config import RunConfig
from cpmi_eval.metrics.outcome import Metric, Outcome, Threshold
from cpmi_eval.protocols import Labeler, Task
from cpmi_eval.store import SCHEMA_VERSION
from cpmi_eval.types import JSON, Gold, TaskData


def summarize(
    config: RunConfig,
    task: Task,
    labeler: Labeler,
    rule: Threshold,
    data: TaskData,
    rows: Sequence[JSON],
    manifest: JSON,
) -> JSON:
    """Reduce rows to what results.json holds."""
    by_task: dict[str, list[JSON]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row)
    functions = [registry.load("metrics", name) for name in task.metrics]
    results: dict[str, dict[str, Metric]] = {}
    for name, group in by_task.items():
        outcomes = [_outcome(row, rule) for row in group]
        results[name] = {key: value for function in functions for key, value in function(outcomes).items()}
    results[config.task] = _mean(list(results.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "results": {
            name: {key: metric.as_dict() for key, metric in metrics.items()} for name, metrics in results.items()
        },
        "cost": cost.total(list(rows), manifest["sessions"]),
        "coverage": {name: _coverage(name, group, data) for name, group in by_task.items()},
        "errors": dict(Counter(row["error"]["kind"] for row in rows if row["error"])),
        "labeler": {
            "name": config.labeler,
            "kind": labeler.kind,
            "uses_reference": "answer" in labeler.needs,
        },
        "threshold": asdict(rule),
        "synthetic": task.synthetic,
        "config": manifest["config"],
        "model": manifest["model"],
        "data": manifest["data"],
        "versions": manifest["versions"],
    }


def _outcome(row: JSON, rule: Threshold) -> Outcome:
    scores = None if row["scores"] is None else tuple(row["scores"])
    return Outcome(Gold.from_dict(row["gold"]), scores, row["prediction"], undecided=rule.value is None)


def _mean(subsets: Sequence[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Return the plain mean over subsets of each metric, undefined where one of them is; ``n`` adds up."""
    means = {}
    for name in subsets[0]:
        values = [metrics[name].value for metrics in subsets]
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if len(known) == len(values) else None
        means[name] = Metric(mean, sum(metrics[name].n for metrics in subsets), subsets[0][name].detail)
    return means


def _coverage(name: str, rows: Sequence[JSON], data: TaskData) -> dict[str, Any]:
    kinds = Counter(row["error"]["kind"] if row["error"] else "scored" for row in rows)
    scored, without = kinds.pop("scored", 0), kinds.pop("no_reference", 0)
    counts: JSON = {"traces": len(rows), "scored": scored, "no_reference": without, "failed": sum(kinds.values())}
    annotated = sum(row["gold"]["first_error"] is not None for row in rows)
    if annotated < len(rows):
        counts["annotated"] = annotated
    if references := data.references.get(name.partition("/")[2]):
        counts["references"] = dict(references)
    return counts
