"""Is one scorer better than another on the same traces?

A paired permutation test: if two scorers are equally good, it does not matter which of them gave a problem's scores, so
swapping them problem by problem shows what differences chance makes. Problems rather than traces are swapped, because
the traces of one problem (``Outcome.cluster``) are not independent. A metric's statistics of both scorers' outcomes put
together give both sides of a swap as two weightings, (1 - m, m) and (m, 1 - m), so that this works for any metric.

Metrics of ranks (``MetricSpec.ranks``) need more: raw scores of two scorers are on different scales and cannot
be mixed in one ranking. Each side's scores are first replaced by their mid-ranks among that side's (Venkatraman and
Begg, Biometrika 1996; with the difference in areas as the statistic: Bandos, Rockette and Gur, Statistics in Medicine
2005), which leaves each side's own area as it is. Both sides are restricted to the traces that both scored.

Intervals of the difference are those of :mod:`cpmi_eval.metrics.uncertainty`, with both scorers under the same
resample. Matches are compared by McNemar's test, many comparisons by Holm's method; both are those of statsmodels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.metrics.best_of_n import AGGREGATIONS
from cpmi_eval.metrics.outcome import Floats, Metric, MetricFunction, Outcome, Statistics
from cpmi_eval.metrics.ranking import labelled_steps
from cpmi_eval.metrics.spec import MetricSpec, spec_of
from cpmi_eval.metrics.uncertainty import BATCH, RESAMPLES, intervals
from cpmi_eval.seeding import derive_seed

Pair: TypeAlias = tuple[Sequence[Outcome], Sequence[Outcome]]

DRAWS = RESAMPLES
UNDECIDED = "makes no decisions without a threshold"
ROUNDING = 1e-10  # differences closer than this are the same one, summed in another order


class UndefinedError(UsageError):
    """A metric has no value for one of two scorers, so that there is nothing to compare.

    ``side``: whose (0 for a, 1 for b), ``reason``: why, as what is to be said of that scorer.
    """

    def __init__(self, what: str, side: int, reason: str) -> None:
        """Build the message from ``what`` cannot be compared, and the two attributes."""
        super().__init__(f"no {what} to compare: {'ab'[side]} {reason}")
        self.side = side
        self.reason = reason


@dataclass(frozen=True)
class Difference:
    """How two scorers, a and b, differ in one metric on the same traces.

    ``difference`` is ``value_a - value_b``, ``interval`` its 95% interval (``None``: too few problems for one). ``p``:
    two-sided. ``p_better`` and ``p_worse``: one-sided, small where a is better or worse than b. ``n``: things the
    values stand on, as in results.json; ``traces`` and ``problems``: those compared; ``left_out``: traces that are not,
    because one scorer or both have no scores for them. ``method`` says how the p-values were made.
    """

    metric: str
    value_a: float
    value_b: float
    difference: float
    interval: tuple[float, float] | None
    p: float
    p_better: float
    p_worse: float
    n: int
    traces: int
    problems: int
    left_out: int
    method: str


@dataclass(frozen=True)
class Matches:
    """McNemar's test of two scorers' exact matches, over annotated traces.

    A match: the first wrong step found exactly, or a correct trace left alone. ``only_a`` and ``only_b`` count the
    traces that one scorer alone matched. ``p`` is two-sided and exact (binomial). The test takes traces as
    independent: it ignores that some may share a problem.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float


@dataclass(frozen=True)
class _Part:
    """One part's statistics: of a, of b, and of both together (a's traces, then b's); ``unit`` (traces,): problems."""

    a: Statistics
    b: Statistics
    joint: Statistics
    unit: NDArray[np.int64]
    problems: int
    left_out: int


def permutation(
    a: Sequence[Outcome],
    b: Sequence[Outcome],
    function: MetricFunction,
    metric: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Compare two scorers' outcomes on the same traces, in the same order; see :func:`permutation_of_mean`."""
    return permutation_of_mean([(a, b)], function, metric, draws=draws, seed=seed)


def permutation_of_mean(
    pairs: Sequence[Pair], function: MetricFunction, metric: str, *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Compare two scorers by the mean of a metric over several parts.

    Swaps are made in all parts jointly; problems are resampled within each part.

    Args:
        pairs: of each part, the outcomes of both scorers, of the same traces in the same order, with their clusters.
        function: the metric function; one that returns :class:`cpmi_eval.metrics.outcome.Statistics`.
        metric: which of its metrics to compare; one that is no detail.
        draws: random swaps, and resamples behind the interval. Where there are no more ways to swap than this, all
            of them are gone through.
        seed: of both.

    Raises:
        UndefinedError: the metric has no value on one side.
        UnknownNameError: the function has no such metric.
        UsageError: these are not the same traces, or the function gives no statistics.
    """
    if draws < 1:
        raise UsageError(f"draws must be at least 1, not {draws}")
    spec = spec_of(metric, function)
    parts = [_part(a, b, function, spec) for a, b in pairs]
    value_a, value_b = (float(np.mean([_value(getattr(part, side), metric) for part in parts])) for side in "ab")
    observed = value_a - value_b
    problems = sum(part.problems for part in parts)
    null, exact = _swapped(parts, metric, draws, seed)
    extra = 0 if exact else 1  # the observed one is among all swaps, and not among random ones
    undefined = np.isnan(null)  # counted as extreme as can be
    extreme = (null >= observed - ROUNDING, null <= observed + ROUNDING, np.abs(null) >= abs(observed) - ROUNDING)
    above, below, beyond = (
        float((np.count_nonzero(hits | undefined) + extra) / (len(null) + extra)) for hits in extreme
    )
    better, worse = (above, below) if spec.higher_is_better else (below, above)
    return Difference(
        *(metric, value_a, value_b, observed, _interval(parts, metric, draws, seed)),
        p=beyond,
        p_better=better,
        p_worse=worse,
        n=sum(part.a.metrics()[metric].n for part in parts),
        traces=sum(len(part.unit) for part in parts),
        problems=problems,
        left_out=sum(part.left_out for part in parts),
        method=f"permutation by problem, {f'all {2**problems:,}' if exact else f'{draws:,} random'} swaps",
    )


def mcnemar(a: Sequence[Outcome], b: Sequence[Outcome]) -> Matches:
    """Compare how many exact matches two scorers have on the same traces.

    Raises:
        UndefinedError: a scorer makes no decisions.
        UsageError: these are not the same traces.
    """
    from statsmodels.stats import contingency_tables

    _check_same(a, b)
    for side, outcomes in enumerate((a, b)):
        if any(one.undecided for one in outcomes):
            raise UndefinedError("exact matches", side, UNDECIDED)
    counts = np.zeros((2, 2), dtype=int)
    for one, other in zip(a, b, strict=True):
        first = one.gold.first_error
        if first is not None:
            counts[int(one.prediction != first), int(other.prediction != first)] += 1
    p = float(contingency_tables.mcnemar(counts, exact=True).pvalue)
    (both, only_a), (only_b, neither) = counts.tolist()
    return Matches(both, only_a, only_b, neither, p)


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for being many (Holm 1979): below alpha where the comparison stands at that level."""
    from statsmodels.stats.multitest import multipletests

    return [float(one) for one in multipletests(list(p), method="holm")[1]] if p else []


def _part(a: Sequence[Outcome], b: Sequence[Outcome], function: MetricFunction, spec: MetricSpec) -> _Part:
    """Restrict one part where the metric needs scores, and make what is swapped exchangeable."""
    _check_same(a, b)
    total, metric = len(a), spec.name
    if spec.ranks:
        kept = [pair for pair in zip(a, b, strict=True) if pair[0].scores is not None and pair[1].scores is not None]
        a, b = [one for one, _ in kept], [other for _, other in kept]
        if not kept:
            raise UndefinedError(metric, 0, "has no trace scored that the other has scored too")
    own = [_defined(_statistics(function, side), metric, place, side) for place, side in enumerate((a, b))]
    mixed = [_exchangeable(side, spec.ranks) for side in (a, b)]
    apart = [_renamed(one, side) for side, group in zip("ab", mixed, strict=True) for one in group]
    joint = _statistics(function, apart)
    names, unit = np.unique([_problem(one, place) for place, one in enumerate(a)], return_inverse=True)
    part = _Part(own[0], own[1], joint, unit, len(names), total - len(a))
    separate = _value(part.a, metric) - _value(part.b, metric)
    together = float(_difference([part], metric, np.zeros((1, len(names))))[0])
    if not math.isclose(separate, together, abs_tol=1e-6):
        raise UsageError(
            f"{metric} of two scorers put together is not what it is of each ({together:g} instead of {separate:g}): "
            "it depends on more than the traces of one weighting, so this test does not hold for it"
        )
    return part


def _check_same(a: Sequence[Outcome], b: Sequence[Outcome]) -> None:
    if len(a) != len(b) or any(one.gold != other.gold for one, other in zip(a, b, strict=True)):
        raise UsageError(
            f"a paired test takes outcomes of the same traces in the same order; these are {len(a)} and {len(b)} "
            "traces, or differ in their annotation"
        )


def _statistics(function: MetricFunction, outcomes: Sequence[Outcome]) -> Statistics:
    found = function(outcomes)
    if not isinstance(found, Statistics):
        raise UsageError(
            "this metric is a plain function of the outcomes; a paired test needs statistics (an object with "
            "metrics() and resampled(weights), see cpmi_eval.metrics.outcome.Statistics)"
        )
    return found


def _defined(found: Statistics, metric: str, side: int, outcomes: Sequence[Outcome]) -> Statistics:
    """Make sure that one side has a value for the metric."""
    known = {name: one for name, one in found.metrics().items() if not one.detail}
    if metric not in known:
        raise UnknownNameError("metric", metric, known)
    if known[metric].value is None:
        undecided = any(one.undecided for one in outcomes)
        raise UndefinedError(metric, side, UNDECIDED if undecided else "has none on the traces that are compared")
    return found


def _value(statistics: Statistics, metric: str) -> float:
    value = statistics.metrics()[metric].value
    return math.nan if value is None else value


def _problem(outcome: Outcome, place: int) -> str:
    """What is swapped as a whole; a trace without a cluster is a problem of its own."""
    candidate = outcome.gold.candidate
    return outcome.cluster or (f"\0{place}" if candidate is None else candidate.problem)


def _renamed(outcome: Outcome, side: str) -> Outcome:
    """Keep the candidates of two scorers apart when their outcomes are put together: they are not one problem's."""
    candidate = outcome.gold.candidate
    if candidate is None:
        return outcome
    own = replace(candidate, problem=f"{side}:{candidate.problem}")
    return replace(outcome, gold=replace(outcome.gold, candidate=own))


def _exchangeable(outcomes: Sequence[Outcome], ranks: bool) -> list[Outcome]:
    """Make outcomes ones that can be mixed with another scorer's, with the same value of the metric.

    A candidate's step scores become the one of its solution, as scorers may aggregate differently. Where scores of
    different problems are ranked against each other, they become mid-ranks among all that the metric sees: of a
    candidate all, else those of annotated steps.
    """
    single = [
        one
        if one.gold.candidate is None or not one.scores
        else replace(one, scores=(AGGREGATIONS[one.aggregation](one.scores),))
        for one in outcomes
    ]
    if not ranks:
        return [replace(one, aggregation="min") for one in single]
    from scipy.stats import rankdata

    seen = [list(one.scores or ()) if one.gold.candidate is not None else labelled_steps(one)[1] for one in single]
    ranked = iter(rankdata([score for scores in seen for score in scores]).tolist())
    return [
        replace(
            one,
            aggregation="min",
            scores=None if one.scores is None else (*islice(ranked, len(scores)), *one.scores[len(scores) :]),
        )
        for one, scores in zip(single, seen, strict=True)
    ]


def _swapped(parts: Sequence[_Part], metric: str, draws: int, seed: int) -> tuple[Floats, bool]:
    """The mean difference after each of ``draws`` random swaps, or after all where these are no more, and which.

    What scipy permutes are indicators of which scorer is a problem's first. Its own p-values are not used: it takes
    two-sided ones as twice the smaller one-sided one.
    """
    from scipy.stats import permutation_test

    def statistic(swapped: Floats, others: Floats, axis: int) -> Floats | np.float64:
        found = _difference(parts, metric, np.atleast_2d(swapped))
        return found if swapped.ndim > 1 else np.float64(found[0])

    places = max(2, sum(part.problems for part in parts))  # scipy refuses one; nothing is at the second then
    null: Floats = permutation_test(
        (np.zeros(places), np.ones(places)),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=BATCH,
        rng=np.random.default_rng(derive_seed("paired", seed)),
    ).null_distribution
    return null, 2**places <= draws


def _difference(parts: Sequence[_Part], metric: str, swapped: Floats) -> Floats:
    """The mean difference (draws,) over parts after swaps (draws, problems of all parts in turn)."""
    total = np.zeros(len(swapped))
    by_part = np.split(swapped, np.cumsum([part.problems for part in parts])[:-1], axis=1)
    for part, own in zip(parts, by_part, strict=True):
        theirs = own[:, part.unit]
        sides = (np.concatenate([1 - theirs, theirs], axis=1), np.concatenate([theirs, 1 - theirs], axis=1))
        first, second = (part.joint.resampled(weights)[metric] for weights in sides)
        total += first - second
    return total / len(parts)


@dataclass(frozen=True)
class _Delta:
    """What a bootstrap sees of one part: both scorers under the same weights, as the difference of the two."""

    part: _Part
    metric: str

    def metrics(self) -> dict[str, Metric]:
        value = _value(self.part.a, self.metric) - _value(self.part.b, self.metric)
        return {self.metric: Metric(value, self.part.a.metrics()[self.metric].n)}

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        a, b = (side.resampled(weights)[self.metric] for side in (self.part.a, self.part.b))
        return {self.metric: a - b}


def _interval(parts: Sequence[_Part], metric: str, draws: int, seed: int) -> tuple[float, float] | None:
    """Bounds of the 95% interval of the mean difference: a bootstrap over problems, within parts."""
    deltas = {str(place): [_Delta(part, metric)] for place, part in enumerate(parts)}
    clusters = {str(place): list(map(str, part.unit)) for place, part in enumerate(parts)}
    _, of_mean = intervals(deltas, clusters, resamples=draws, seed=derive_seed("paired interval", seed))
    return of_mean.get(metric)
