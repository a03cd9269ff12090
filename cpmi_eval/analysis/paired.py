"""Paired comparison of finished runs: which of them differ, once all that is compared is taken into account.

Runs are compared on the same traces only: same ids, texts and annotations. The tests of two runs are those of
:mod:`cpmi_eval.metrics.permutation`; over all comparisons of a call, p-values are adjusted by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TypeAlias

from cpmi_eval import registry
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.metrics.outcome import MetricFunction, Outcome, metrics_of
from cpmi_eval.metrics.permutation import DRAWS, Difference, Matches, UndefinedError, holm, mcnemar, permutation_of_mean
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.records import Record, Run
from cpmi_eval.types import JSON, Gold

Key: TypeAlias = tuple[str, str]  # part and id of a trace

ALPHA = 0.05
ORACLE = "has an oracle threshold, fitted to the traces it is judged on"


@dataclass(frozen=True)
class Aligned:
    """Several runs on the traces that are compared.

    ``outcomes``: of each run, by part, its outcomes in one order. ``traces``: how many are compared; ``left_out``: of
    each run, how many of its traces are not, because other runs do not have them or have them otherwise. ``empty``: how
    many candidates without any step there were; their problems have fewer candidates here. ``oracles``: the places of
    runs whose threshold was fitted to the traces they are judged on, so that their F1 is not compared.
    """

    task: str
    outcomes: tuple[Mapping[str, Sequence[Outcome]], ...]
    traces: int
    left_out: tuple[int, ...]
    empty: int = 0
    oracles: frozenset[int] = frozenset()

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the task that are compared."""
        return tuple(self.outcomes[0])


@dataclass(frozen=True)
class Comparison:
    """Two runs, by their places among all, in one metric.

    ``difference``: ``None`` where there is nothing to compare; ``lacking`` is then the run without a value and
    ``reason`` says why it has none. ``adjusted``: the two-sided p after Holm over all comparisons. ``matches``: for F1,
    the exact matches behind it; ``matches_adjusted``: McNemar's p after Holm over these tests.
    """

    a: int
    b: int
    metric: str
    difference: Difference | None = None
    lacking: int | None = None
    reason: str = ""
    adjusted: float | None = None
    matches: Matches | None = None
    matches_adjusted: float | None = None

    def better(self, alpha: float = ALPHA) -> int | None:
        """The place of the run that is better; ``None`` if no difference is shown.

        It takes both: an adjusted p of at most ``alpha``, and a 95% interval of the difference without 0. Swaps test
        whether two scorers behave alike; two that are equally good in different ways (equal F1, one finding more
        errors and the other leaving more correct traces alone) can differ in that, but the interval tells.
        """
        if self.difference is None or self.adjusted is None or self.adjusted > alpha:
            return None
        bounds = self.difference.interval
        if bounds is not None and bounds[0] <= 0 <= bounds[1]:
            return None
        return self.a if (self.difference.difference > 0) == spec_of(self.metric).higher_is_better else self.b


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of a call, over one part of a task (its own name: the mean over its parts)."""

    runs: tuple[Run, ...]
    aligned: Aligned
    part: str
    comparisons: tuple[Comparison, ...]
    draws: int
    seed: int
    alpha: float = ALPHA

    def as_dict(self) -> JSON:
        """One JSON document."""
        return {
            "task": self.aligned.task,
            "part": self.part,
            "parts": list(self.aligned.parts),
            "traces": self.aligned.traces,
            "draws": self.draws,
            "seed": self.seed,
            "alpha": self.alpha,
            "runs": [
                {
                    "path": str(run.path),
                    "labeler": run.summary["labeler"]["name"],
                    "labeler_args": run.summary["config"].get("labeler_args", {}),
                    "uses_reference": run.summary["labeler"]["uses_reference"],
                    "model": None if run.model is None else run.model.model,
                    "threshold": run.summary["threshold"],
                    "left_out": left_out,
                }
                for run, left_out in zip(self.runs, self.aligned.left_out, strict=True)
            ],
            "comparisons": [{**asdict(one), "better": one.better(self.alpha)} for one in self.comparisons],
        }


def separated(
    runs: Sequence[Run], part: str, metric: str, *, alpha: float = ALPHA, draws: int | None = None, seed: int = 0
) -> set[tuple[int, int]]:
    """The pairs (i, j) of places among ``runs`` where i is better than j, after Holm over all pairs.

    Runs without a value for the metric are in no pair. All runs must be on the same traces. ``draws``: by default as
    many as it takes for the smallest p-values to stand after Holm.

    Raises:
        UsageError: runs of different tasks or on different traces; an unknown part or metric.
    """
    if len(runs) < 2:
        return set()
    found = compare_runs(runs, part=part, metrics=[metric], draws=draws, seed=seed, alpha=alpha, matches=False)
    winners = [(one, one.better(alpha)) for one in found.comparisons]
    return {(best, one.b if best == one.a else one.a) for one, best in winners if best is not None}


def compare_runs(
    runs: Sequence[Run],
    *,
    part: str | None = None,
    metrics: Sequence[str] = (),
    against: int | None = None,
    shared: bool = False,
    draws: int | None = None,
    seed: int = 0,
    alpha: float = ALPHA,
    matches: bool = True,
) -> Comparisons:
    """Compare finished runs: all pairs, or each against one.

    Args:
        runs: at least two.
        part: what to compare on; by default the mean over the task's parts.
        metrics: by default F1 and step AUC; of selection tasks what depends on the scorer; else all.
        against: the place of the run that all others are compared with, as (other, this); ``None``: all pairs.
        shared: compare on the traces that all runs have, where they do not have the same.
        draws: random swaps and resamples. By default 2,000, or as many as it takes for the smallest p-values to stand
            after Holm.
        seed: of both.
        alpha: the level at which differences are told.
        matches: whether to add McNemar's tests where F1 is compared.

    Raises:
        UsageError: fewer than two runs, runs of different tasks or on different traces, too few draws, or an unknown
            part or metric.
    """
    if len(runs) < 2:
        raise UsageError("a comparison takes at least two runs")
    aligned = align(runs, part=part, shared=shared)
    functions = _chosen(aligned, metrics)
    places = range(len(runs))
    pairs = list(combinations(places, 2)) if against is None else [(one, against) for one in places if one != against]
    enough = _enough_draws(len(pairs) * len(functions), draws, alpha)
    found = [
        _compared(aligned, a, b, metric, function, enough, seed, matches)
        for metric, function in functions.items()
        for a, b in pairs
    ]
    adjusted = iter(holm([one.difference.p for one in found if one.difference is not None]))
    of_matches = iter(holm([one.matches.p for one in found if one.matches is not None]))  # a family of their own
    comparisons = tuple(
        replace(
            one,
            adjusted=None if one.difference is None else next(adjusted),
            matches_adjusted=None if one.matches is None else next(of_matches),
        )
        for one in found
    )
    return Comparisons(tuple(runs), aligned, part or aligned.task, comparisons, enough, seed, alpha)


def _enough_draws(comparisons: int, draws: int | None, alpha: float) -> int:
    """The draws to make; the smallest p there is, 1 / (draws + 1), must stand after Holm."""
    if draws is None:
        return max(DRAWS, math.ceil(2 * comparisons / alpha))
    if comparisons / (draws + 1) > alpha:
        raise UsageError(
            f"with {draws} draws no p-value can be below {1 / (draws + 1):.2g}, and none of {comparisons} comparisons "
            f"can stand at {alpha:g}; take at least {math.ceil(comparisons / alpha)} draws"
        )
    return draws


def _compared(
    aligned: Aligned, a: int, b: int, metric: str, function: MetricFunction, draws: int, seed: int, matches: bool
) -> Comparison:
    spec = spec_of(metric, function)
    try:
        for side, place in enumerate((a, b)):
            if place in aligned.oracles and spec.decides:
                raise UndefinedError(metric, side, ORACLE)
        pairs = [(aligned.outcomes[a][part], aligned.outcomes[b][part]) for part in aligned.parts]
        difference = permutation_of_mean(pairs, function, metric, draws=draws, seed=seed)
    except UndefinedError as error:
        return Comparison(a, b, metric, lacking=(a, b)[error.side], reason=error.reason)
    if metric != "f1" or not matches:
        return Comparison(a, b, metric, difference)
    sides = ([one for part in aligned.outcomes[place].values() for one in part] for place in (a, b))
    return Comparison(a, b, metric, difference, matches=mcnemar(*sides))


def _chosen(aligned: Aligned, metrics: Sequence[str]) -> dict[str, MetricFunction]:
    """The metrics that are asked for, or those that are compared unless others are, each with its function."""
    known: dict[str, MetricFunction] = {}
    for name in registry.load("tasks", aligned.task).metrics:
        function: MetricFunction = registry.load("metrics", name)
        for outcomes in aligned.outcomes[0].values():
            found = metrics_of(function(outcomes))
            known |= {metric: function for metric, one in found.items() if not one.detail}
    for metric in metrics:
        if metric not in known:
            raise UnknownNameError("metric", metric, known)
    specs = (spec_of(name, function) for name, function in known.items())
    names = dict.fromkeys(metrics) or [spec.name for spec in specs if spec.needs_scorer and not spec.part_of]
    return {name: known[name] for name in names}


def align(runs: Sequence[Run], *, part: str | None = None, shared: bool = False) -> Aligned:
    """Bring runs of one task to the same traces in the same order.

    Args:
        runs: at least two.
        part: restrict them to this part; ``None`` or the task's own name: all parts.
        shared: take the traces that all runs have with the same texts and annotation (of candidates: the problems whose
            candidates all runs have), instead of asking that all have the same.

    Raises:
        UnknownNameError: a run has no such part.
        UsageError: different tasks, different traces, or none that all runs have.
    """
    tasks = [str(run.summary["config"]["task"]) for run in runs]
    if len(set(tasks)) > 1:
        listed = ", ".join(f"{run.path} is of {task}" for run, task in zip(runs, tasks, strict=True))
        raise UsageError(f"runs of different tasks cannot be compared: {listed}")
    task = tasks[0]
    records = [_records(run, task, part) for run in runs]
    common = _common(records)
    left_out = tuple(len(one) - len(common) for one in records)
    if not common or (any(left_out) and not shared):
        counts = ", ".join(f"{run.path} has {len(one):,}" for run, one in zip(runs, records, strict=True))
        way = "--shared compares them on those" if common else "there is nothing to compare"
        raise UsageError(
            f"these runs are not on the same traces: {counts}; {len(common):,} are in all of them with the same texts "
            f"and annotation; {way}"
        )
    outcomes = tuple(_in_order(run, common) for run in runs)
    empty = max(sum(run.summary["coverage"].get(name, {}).get("empty", 0) for name in outcomes[0]) for run in runs)
    oracles = frozenset(place for place, run in enumerate(runs) if run.summary["threshold"]["protocol"] == "oracle")
    return Aligned(task, outcomes, len(common), left_out, empty, oracles)


def _records(run: Run, task: str, part: str | None) -> dict[Key, Record]:
    if part not in (None, task, *run.parts):
        raise UnknownNameError(f"part of {run.path}", str(part), [task, *run.parts])
    chosen = run.parts if part in (None, task) else {part: run.parts[str(part)]}
    return {(one.part, one.id): one for group in chosen.values() for one in group}


def _common(records: Sequence[Mapping[Key, Record]]) -> list[Key]:
    """What all have with the same texts and annotation, in the first one's order; candidates only together."""
    same = {
        key
        for key, one in records[0].items()
        if all(key in other and _content(other[key]) == _content(one) for other in records[1:])
    }
    torn = {_selection(one) for group in records for key, one in group.items() if key not in same} - {None}
    return [key for key, one in records[0].items() if key in same and _selection(one) not in torn]


def _content(record: Record) -> tuple[str, tuple[str, ...], Gold]:
    return record.problem, record.steps, record.gold


def _selection(record: Record) -> tuple[str, str] | None:
    """The problem among whose candidates a record is, if it is one."""
    candidate = record.gold.candidate
    return None if candidate is None else (record.part, candidate.problem)


def _in_order(run: Run, keys: Sequence[Key]) -> dict[str, list[Outcome]]:
    parts = dict.fromkeys(part for part, _ in keys)
    known = {
        (record.part, record.id): one
        for part in parts
        for record, one in zip(run.parts[part], run.outcomes(part), strict=False)  # those without any step come last
    }
    found: dict[str, list[Outcome]] = {part: [] for part in parts}
    for key in keys:
        found[key[0]].append(known[key])
    return found
