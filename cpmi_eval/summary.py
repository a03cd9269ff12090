"""From records to results.json: metrics per subset and their mean, cost, coverage, errors, and what they rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cpmi_eval import registry
from cpmi_eval.metrics.outcome import Metric, MetricFunction, Outcome, Statistics, metrics_of
from cpmi_eval.metrics.thresholds import Decisions
from cpmi_eval.protocols import Labeler, Task
from cpmi_eval.record.results import Blank, Coverage, Manifest, Results, Scorer, Session, Total
from cpmi_eval.record.rows import Record, by_part, part_of
from cpmi_eval.record.run import empty, outcome
from cpmi_eval.types import TaskData

Metrics = Mapping[str, Metric]
References = Mapping[str, Mapping[str, int]]


def summarize(
    task: Task, labeler: Labeler, decided: Decisions, data: TaskData, records: Sequence[Record], manifest: Manifest
) -> Results:
    """Reduce a run's records, as ``decided`` has them predicted, to what results.json holds."""
    name = manifest.config.task
    selects = getattr(task, "selects", False)
    known = Results(
        selects=selects,
        notes=dict(data.notes),
        empty=tuple(
            Blank(task=part_of(item, name), id=item.trace.id, cluster=item.trace.cluster, gold=item.gold)
            for item in data.empty
        ),
        labeler=Scorer(
            name=manifest.config.labeler,
            kind=labeler.kind,
            uses_reference="answer" in labeler.needs,
            native_threshold=labeler.native_threshold,
            aggregation=getattr(labeler, "aggregation", "min") if selects else None,
        ),
        synthetic=task.synthetic,
        config=manifest.config,
        model=manifest.model,
        data=manifest.data,
        versions=manifest.versions,
        results={},
        cost=Total.of((), ()),
        coverage={},
        errors={},
        threshold=decided.rule,
    )
    references = {f"{name}/{subset}": counts for subset, counts in data.references.items()}
    return reduce(known, decided, records, manifest.sessions, references)


def reduce(
    known: Results,
    decided: Decisions,
    records: Sequence[Record],
    sessions: Sequence[Session],
    references: References,
) -> Results:
    """Work out everything in results.json that depends on the records.

    Args:
        known: results, of which all that depends on the records is replaced.
        decided: the records' predictions.
        records: all traces of the run.
        sessions: of the manifest.
        references: by part, where reference answers came from; empty where that was not counted for these records.
    """
    functions = [registry.load("metrics", name) for name in registry.load("tasks", known.task).metrics]
    parts, rule = by_part(records), decided.rule
    outcomes = {
        name: [outcome(one, known.aggregation, undecided=not rule.decides) for one in group]
        + empty(known.empty, name, known.aggregation)
        for name, group in parts.items()
        if name != rule.held_out
    }
    notes = {name: known.notes.get(name.partition("/")[2], {}) for name in parts}
    found: Results = known.replaced(
        results=measured(known.task, functions, outcomes),
        groups={name: _groups(functions, group) for name, group in outcomes.items()} if known.selects else {},
        cost=Total.of([one.cost for one in records], sessions),
        coverage={
            name: _coverage(group, notes[name], outcomes.get(name, ()), references.get(name))
            for name, group in parts.items()
        },
        errors=dict(Counter(one.error.kind for one in records if one.error)),
        threshold=rule,
    )
    return found


def measured(
    task: str, functions: Sequence[MetricFunction], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, Metrics]:
    """The metrics of each part with their intervals, and under the task's name their plain means over parts."""
    from cpmi_eval.metrics.uncertainty import intervals, with_intervals

    found = {part: [function(group) for function in functions] for part, group in outcomes.items()}
    statistics = {part: [one for one in group if isinstance(one, Statistics)] for part, group in found.items()}
    bounds, of_means = intervals(statistics, {part: [one.cluster for one in group] for part, group in outcomes.items()})
    metrics = {part: with_intervals(_metrics(group), bounds.get(part, {})) for part, group in found.items()}
    return {**metrics, task: with_intervals(_mean(list(metrics.values())), of_means)}


def _metrics(found: Sequence[Statistics | Mapping[str, Metric]]) -> dict[str, Metric]:
    return {name: metric for one in found for name, metric in metrics_of(one).items()}


def _groups(functions: Sequence[MetricFunction], outcomes: Sequence[Outcome]) -> dict[str, dict[str, Metrics]]:
    """For what candidates can be grouped by, the metrics that are no details of each value's candidates.

    What has one value throughout is left out.
    """
    members: dict[str, dict[str, list[Outcome]]] = {}
    for one in outcomes:
        for name, value in (one.gold.candidate.groups if one.gold.candidate else {}).items():
            members.setdefault(name, {}).setdefault(value, []).append(one)
    return {
        name: {
            value: {key: one for key, one in _metrics([f(values[value]) for f in functions]).items() if not one.detail}
            for value in sorted(values)
        }
        for name, values in members.items()
        if len(values) > 1
    }


def _mean(subsets: Sequence[Metrics]) -> dict[str, Metric]:
    """The plain mean over subsets of each metric, undefined where one of them is or lacks it; ``n`` adds up."""
    means = {}
    for name in dict.fromkeys(name for metrics in subsets for name in metrics):
        found = [metrics[name] for metrics in subsets if name in metrics]
        known = [metric.value for metric in found if metric.value is not None]
        mean = sum(known) / len(known) if len(known) == len(subsets) else None
        means[name] = Metric(mean, sum(metric.n for metric in found), all(metric.detail for metric in found))
    return means


def _coverage(
    records: Sequence[Record],
    note: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    references: Mapping[str, int] | None,
) -> Coverage:
    kinds = Counter(one.error.kind if one.error else "scored" for one in records)
    scored, without = kinds.pop("scored", 0), kinds.pop("no_reference", 0)
    counts = Coverage(traces=len(records), scored=scored, no_reference=without, failed=sum(kinds.values()))
    problems = {one.gold.candidate.problem for one in outcomes if one.gold.candidate is not None}
    more: dict[str, Any]
    if problems:
        more = {"problems": len(problems), "of_problems": note.get("problems", len(problems))}
        more |= {"candidates": len(outcomes), "empty": len(outcomes) - len(records)}
    else:
        annotated = sum(one.gold.first_error is not None for one in records)
        more = {"annotated": annotated if annotated < len(records) else None, "references": dict(references or {})}
    found: Coverage = counts.replaced(**more)
    return found
