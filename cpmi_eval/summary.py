"""From rows to results.json: metrics per subset and their mean, cost, coverage, errors, and what all of it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cpmi_eval import cost, registry
from cpmi_eval.config import RunConfig
from cpmi_eval.metrics.outcome import Metric, MetricFunction, Outcome, Statistics, metrics_of
from cpmi_eval.metrics.thresholds import Decisions
from cpmi_eval.protocols import Labeler, Task
from cpmi_eval.records import Record, by_part, empty, outcome
from cpmi_eval.store import SCHEMA_VERSION
from cpmi_eval.types import JSON, TaskData


def summarize(
    config: RunConfig,
    task: Task,
    labeler: Labeler,
    decided: Decisions,
    data: TaskData,
    records: Sequence[Record],
    manifest: JSON,
) -> JSON:
    """Reduce records, as ``decided`` has them predicted, to what results.json holds."""
    aggregation, selects = getattr(labeler, "aggregation", "min"), getattr(task, "selects", False)
    scorer = {
        "name": config.labeler,
        "kind": labeler.kind,
        "uses_reference": "answer" in labeler.needs,
        "native_threshold": labeler.native_threshold,
        **({"aggregation": aggregation} if selects else {}),
    }
    blank = [
        {
            "task": f"{config.task}/{item.subset}",
            "id": item.trace.id,
            "cluster": item.trace.cluster,
            "gold": item.gold.as_dict(),
        }
        for item in data.empty
    ]
    known = {
        "schema_version": SCHEMA_VERSION,
        "selects": selects,
        "notes": dict(data.notes),
        "empty": blank,
        "labeler": scorer,
        "synthetic": task.synthetic,
        **{key: manifest[key] for key in ("config", "model", "data", "versions")},
    }
    references = {f"{config.task}/{subset}": dict(counts) for subset, counts in data.references.items()}
    return reduce(known, decided, records, manifest["sessions"], references)


def reduce(
    known: JSON, decided: Decisions, records: Sequence[Record], sessions: Sequence[JSON], references: JSON
) -> JSON:
    """Return results.json: what is ``known`` before anything is scored, and what the records make of it.

    Args:
        known: a results.json, of which all that depends on the records is replaced.
        decided: the records' predictions.
        records: all traces of the run.
        sessions: of the manifest.
        references: by part, where reference answers came from; empty where that was not counted for these records.
    """
    task = known["config"]["task"]
    functions = [registry.load("metrics", name) for name in registry.load("tasks", task).metrics]
    parts = by_part(records)
    aggregation = known["labeler"].get("aggregation", "min")
    outcomes = {
        name: [outcome(one, aggregation, undecided=decided.undecided) for one in group]
        + empty(known.get("empty", ()), name, aggregation)
        for name, group in parts.items()
        if name != decided.held_out
    }
    groups = {name: _groups(functions, group) for name, group in outcomes.items()} if known["selects"] else {}
    return {
        **known,
        "results": results(task, functions, outcomes),
        "groups": groups,
        "cost": cost.total([one.cost for one in records], sessions),
        "coverage": {
            name: _coverage(name, group, known, outcomes.get(name, ()), references.get(name))
            for name, group in parts.items()
        },
        "errors": dict(Counter(one.error["kind"] for one in records if one.error)),
        "threshold": decided.as_dict(),
    }


def results(task: str, functions: Sequence[MetricFunction], outcomes: Mapping[str, Sequence[Outcome]]) -> JSON:
    """Return the metrics of each part with their intervals, and under the task's name their plain means over parts."""
    from cpmi_eval.metrics.uncertainty import intervals, with_intervals

    found = {part: [function(group) for function in functions] for part, group in outcomes.items()}
    statistics = {part: [one for one in group if isinstance(one, Statistics)] for part, group in found.items()}
    bounds, of_means = intervals(statistics, {part: [one.cluster for one in group] for part, group in outcomes.items()})
    metrics = {part: with_intervals(_metrics(group), bounds.get(part, {})) for part, group in found.items()}
    means = with_intervals(_mean(list(metrics.values())), of_means)
    return {name: _as_dict(group) for name, group in {**metrics, task: means}.items()}


def _metrics(found: Sequence[Statistics | Mapping[str, Metric]]) -> dict[str, Metric]:
    return {name: metric for one in found for name, metric in metrics_of(one).items()}


def _as_dict(metrics: Mapping[str, Metric]) -> JSON:
    return {key: metric.as_dict() for key, metric in metrics.items()}


def _groups(functions: Sequence[MetricFunction], outcomes: Sequence[Outcome]) -> JSON:
    """Return, for what candidates can be grouped by, the metrics that are no details of each value's candidates.

    What has one value throughout is left out.
    """
    members: dict[str, dict[str, list[Outcome]]] = {}
    for one in outcomes:
        for name, value in (one.gold.candidate.groups if one.gold.candidate else {}).items():
            members.setdefault(name, {}).setdefault(value, []).append(one)
    found: JSON = {}
    for name, values in members.items():
        if len(values) > 1:
            metrics = {value: _metrics([function(values[value]) for function in functions]) for value in sorted(values)}
            found[name] = {
                value: _as_dict({key: metric for key, metric in by_key.items() if not metric.detail})
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


def _coverage(
    name: str, records: Sequence[Record], known: JSON, outcomes: Sequence[Outcome], references: JSON | None
) -> dict[str, Any]:
    kinds = Counter(one.error["kind"] if one.error else "scored" for one in records)
    scored, without = kinds.pop("scored", 0), kinds.pop("no_reference", 0)
    counts: JSON = {"traces": len(records), "scored": scored, "no_reference": without, "failed": sum(kinds.values())}
    problems = {one.gold.candidate.problem for one in outcomes if one.gold.candidate is not None}
    if problems:
        subset = known["notes"].get(name.partition("/")[2], {})
        counts |= {"problems": len(problems), "of_problems": subset.get("problems", len(problems))}
        counts |= {"candidates": len(outcomes), "empty": len(outcomes) - len(records)}
        return counts
    annotated = sum(one.gold.first_error is not None for one in records)
    if annotated < len(records):
        counts["annotated"] = annotated
    if references:
        counts["references"] = references
    return counts
