"""From rows to results.json: metrics per subset and their mean, cost, coverage, errors, and what all of it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from cpmi_eval import cost, registry
from cpmi_eval.config import RunConfig
from cpmi_eval.metrics.outcome import Metric, Outcome, Threshold
from cpmi_eval.protocols import Labeler, Task
from cpmi_eval.store import SCHEMA_VERSION
from cpmi_eval.types import JSON, Gold, TaskData

Metrics: TypeAlias = Callable[[Sequence[Outcome]], dict[str, Metric]]


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
    aggregation, selects = getattr(labeler, "aggregation", "min"), getattr(task, "selects", False)
    outcomes = {
        name: [_outcome(row, rule, aggregation) for row in group] + _empty(name, data, aggregation)
        for name, group in by_task.items()
    }
    results = {name: _metrics(functions, group) for name, group in outcomes.items()}
    results[config.task] = _mean(list(results.values()))
    return {
        "schema_version": SCHEMA_VERSION,
        "results": {name: _as_dict(metrics) for name, metrics in results.items()},
        "groups": {name: _groups(functions, group) for name, group in outcomes.items()} if selects else {},
        "selects": selects,
        "notes": dict(data.notes),
        "cost": cost.total(list(rows), manifest["sessions"]),
        "coverage": {name: _coverage(name, group, data, outcomes[name]) for name, group in by_task.items()},
        "errors": dict(Counter(row["error"]["kind"] for row in rows if row["error"])),
        "labeler": {
            "name": config.labeler,
            "kind": labeler.kind,
            "uses_reference": "answer" in labeler.needs,
            **({"aggregation": aggregation} if selects else {}),
        },
        "threshold": asdict(rule),
        "synthetic": task.synthetic,
        "config": manifest["config"],
        "model": manifest["model"],
        "data": manifest["data"],
        "versions": manifest["versions"],
    }


def _outcome(row: JSON, rule: Threshold, aggregation: str) -> Outcome:
    scores = None if row["scores"] is None else tuple(row["scores"])
    gold, undecided = Gold.from_dict(row["gold"]), rule.value is None
    return Outcome(gold, scores, row["prediction"], undecided=undecided, aggregation=aggregation)


def _empty(name: str, data: TaskData, aggregation: str) -> list[Outcome]:
    """Return outcomes for the items without steps: failed."""
    subset = name.partition("/")[2]
    return [Outcome(item.gold, None, None, aggregation=aggregation) for item in data.empty if item.subset == subset]


def _metrics(functions: Sequence[Metrics], outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    return {key: value for function in functions for key, value in function(outcomes).items()}


def _as_dict(metrics: Mapping[str, Metric]) -> JSON:
    return {key: metric.as_dict() for key, metric in metrics.items()}


def _groups(functions: Sequence[Metrics], outcomes: Sequence[Outcome]) -> JSON:
    """Return, for what candidates can be grouped by, the metrics that are no details of each value's candidates.

    What has one value throughout is left out.
    """
    members: dict[str, dict[str, list[Outcome]]] = {}
    for outcome in outcomes:
        for name, value in (outcome.gold.candidate.groups if outcome.gold.candidate else {}).items():
            members.setdefault(name, {}).setdefault(value, []).append(outcome)
    found: JSON = {}
    for name, values in members.items():
        if len(values) > 1:
            metrics = {value: _metrics(functions, values[value]) for value in sorted(values)}
            found[name] = {
                value: _as_dict({key: one for key, one in by_key.items() if not one.detail})
                for value, by_key in metrics.items()
            }
    return found


def _mean(subsets: Sequence[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Return the plain mean over subsets of each metric, undefined where one of them is or lacks it; ``n`` adds up."""
    means = {}
    for name in dict.fromkeys(name for metrics in subsets for name in metrics):
        found = [metrics[name] for metrics in subsets if name in metrics]
        known = [metric.value for metric in found if metric.value is not None]
        mean = sum(known) / len(known) if len(known) == len(subsets) else None
        means[name] = Metric(mean, sum(metric.n for metric in found), all(metric.detail for metric in found))
    return means


def _coverage(name: str, rows: Sequence[JSON], data: TaskData, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    kinds = Counter(row["error"]["kind"] if row["error"] else "scored" for row in rows)
    scored, without = kinds.pop("scored", 0), kinds.pop("no_reference", 0)
    counts: JSON = {"traces": len(rows), "scored": scored, "no_reference": without, "failed": sum(kinds.values())}
    problems = {outcome.gold.candidate.problem for outcome in outcomes if outcome.gold.candidate is not None}
    if problems:
        subset = data.notes.get(name.partition("/")[2], {})
        counts |= {"problems": len(problems), "of_problems": subset.get("problems", len(problems))}
        counts |= {"candidates": len(outcomes), "empty": len(outcomes) - len(rows)}
        return counts
    annotated = sum(row["gold"]["first_error"] is not None for row in rows)
    if annotated < len(rows):
        counts["annotated"] = annotated
    if references := data.references.get(name.partition("/")[2]):
        counts["references"] = dict(references)
    return counts
