"""Best-of-N: how good is the solution that a scorer selects among N candidates of a problem?

Beside it, what needs no scorer: the mean candidate (pass@1), the most frequent answer (majority vote), and the best
there is (pass@N, the unbiased estimate of arXiv 2107.03374). All are expected values over the subsets of N of a
problem's candidates, drawn without replacement, and uniform over ties.

A candidate that was not scored is never chosen; where a subset holds no other, that is a miss. One without a readable
answer does not vote and is incorrect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, groupby
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cpmi_eval import settings
from cpmi_eval.metrics.areas import Area, Integers
from cpmi_eval.metrics.outcome import Floats, Metric, Outcome
from cpmi_eval.metrics.spec import MetricSpec, describes
from cpmi_eval.seeding import derive_seed

Scores: TypeAlias = tuple[float, ...]

MAX_SUBSETS = 4096
TIE = 1e-9  # sums of the same weights in another order differ by rounding

AGGREGATIONS: Mapping[str, Callable[[Scores], float]] = MappingProxyType(
    {
        "last": lambda scores: scores[-1],
        "min": min,
        "product": math.prod,
        "mean": lambda scores: math.fsum(scores) / len(scores),
        "max": max,
    }
)


@dataclass(frozen=True)
class _Problem:
    """A problem's n candidates, each in its place in every tuple.

    ``correct``: whether it is; ``answers``: the class of its answer, -1 for none; ``scores``: by aggregation, ``None``
    where it was not scored. ``places``: where they stand among the outcomes.
    """

    name: str
    places: tuple[int, ...]
    correct: tuple[bool, ...]
    answers: tuple[int, ...]
    scores: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class BestOfN:
    """What each problem contributes, so that problems can be resampled.

    ``found``: all metrics. ``values``: by the name of a column that is a mean over problems, one value per problem and
    the place of its first candidate among the outcomes. ``area``: the outcome AUC of the scorer's own aggregation.
    """

    found: Mapping[str, Metric]
    values: Mapping[str, tuple[Floats, Integers]]
    area: Area

    def metrics(self) -> dict[str, Metric]:
        """All of them, columns first."""
        return dict(self.found)

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The columns for each weighting; a problem counts as often as its first candidate."""
        result: dict[str, Floats] = {}
        for name, (values, owners) in self.values.items():
            own = weights[:, owners]
            total = own.sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                result[name] = np.where(total > 0, own @ values / total, np.nan)
        return {**result, "outcome_auc": self.area.resampled(weights)}


@describes(
    MetricSpec("pass@*", needs_scorer=False),
    MetricSpec("maj@*", needs_scorer=False),
    MetricSpec("bon@*", headline=True),
    MetricSpec("outcome_auc", "AUC", "outcome AUC", "ROC AUC of solutions", unit="fraction", ranks=True),
    MetricSpec("outcome_auc_*", unit="fraction", ranks=True),
)
def compute(outcomes: Sequence[Outcome]) -> BestOfN | dict[str, Metric]:
    """The accuracies of selection by N, with ``n`` the number of problems that have N candidates.

    N runs over the powers of two up to the largest number of candidates M of a problem, and M. For each N: ``pass@N``,
    ``maj@N``, and for each aggregation ``bon_<aggregation>@N`` (the candidate with the highest score) and
    ``wvote_<aggregation>@N`` (the answer with the highest sum of scores). ``outcome_auc_<aggregation>`` is the area
    under the ROC curve of correct against incorrect candidates, pooled over problems. ``bon@M``, ``wvote@M`` and
    ``outcome_auc`` are those of the scorer's own aggregation; with ``pass@1``, ``maj@M`` and ``pass@M`` they are what
    is shown as columns, all others are details.

    Products and sums of scores rank solutions only where scores are not negative: if one step score is (as rewards
    are that compare answers), ``product`` and the weighted votes are undefined. Votes are counted over all subsets of
    N where these are at most ``MAX_SUBSETS``, else over that many random ones, seeded by the problem's name.

    Args:
        outcomes: those whose gold says which candidate they are; others are left out.

    Raises:
        UnknownNameError: the scorer's aggregation is none of ``AGGREGATIONS``.
    """
    members: dict[str, list[tuple[int, Outcome]]] = {}
    for place, outcome in enumerate(outcomes):
        if outcome.gold.candidate is not None:
            members.setdefault(outcome.gold.candidate.problem, []).append((place, outcome))
    if not members:
        return {}
    candidates = [outcome for group in members.values() for _, outcome in group]
    own = settings.choice("aggregation", candidates[0].aggregation, tuple(AGGREGATIONS))
    negative = any(score < 0 for outcome in candidates for score in outcome.scores or ())
    defined = [name for name in AGGREGATIONS if not (negative and name == "product")]
    problems = [_problem(name, group, defined) for name, group in members.items()]
    largest = max(len(problem.correct) for problem in problems)
    details: dict[str, Metric] = {}
    values: dict[str, tuple[Floats, Integers]] = {}
    for size in sorted({1 << power for power in range(largest.bit_length())} | {largest}):
        group = [problem for problem in problems if len(problem.correct) >= size]
        owners = np.array([one.places[0] for one in group])
        for name, found in _at(size, group, negative).items():
            details[name] = Metric(None if found is None else math.fsum(found) / len(found), len(group))
            if found is not None:
                values[name] = np.array(found), owners
    areas = {how: _area(problems, how) for how in AGGREGATIONS}
    for how, area in areas.items():
        details[f"outcome_auc_{how}"] = Metric(area.value(), len(area.positive) + len(area.negative))
    columns = {  # each with the name of the detail that it is, in the order they are read in
        "pass@1": "pass@1",
        f"maj@{largest}": f"maj@{largest}",
        f"bon@{largest}": f"bon_{own}@{largest}",
        f"wvote@{largest}": f"wvote_{own}@{largest}",
        f"pass@{largest}": f"pass@{largest}",
        "outcome_auc": f"outcome_auc_{own}",
    }
    first = {name: details[key] for name, key in columns.items()}
    others = {name: Metric(one.value, one.n, detail=True) for name, one in details.items() if name not in first}
    shown = {name: values[key] for name, key in columns.items() if key in values}
    return BestOfN({**first, **others}, shown, areas[own])


def _problem(name: str, members: Sequence[tuple[int, Outcome]], aggregations: Sequence[str]) -> _Problem:
    group = [outcome for _, outcome in members]
    numbers = [outcome.gold.candidate.answer if outcome.gold.candidate else None for outcome in group]
    right = [outcome.gold.final_answer_correct is True for outcome in group]
    return _Problem(
        name=name,
        places=tuple(place for place, _ in members),
        correct=tuple(good and number is not None for good, number in zip(right, numbers, strict=True)),
        answers=tuple(-1 if number is None else number for number in numbers),
        scores={
            how: tuple(AGGREGATIONS[how](one.scores) if one.scores else None for one in group) for how in aggregations
        },
    )


def _at(size: int, problems: Sequence[_Problem], negative: bool) -> dict[str, Sequence[float] | None]:
    """Everything about subsets of ``size``, one value per problem; ``None`` where it is undefined."""
    weighted = () if negative else tuple(AGGREGATIONS)
    votes = [
        expected_votes(
            one.correct,
            one.answers,
            [(1.0,) * len(one.correct), *(one.scores[how] for how in weighted)],
            size,
            one.name,
        )
        for one in problems
    ]
    found: dict[str, Sequence[float] | None] = {
        f"pass@{size}": [expected_pass(one.correct, size) for one in problems],
        f"maj@{size}": [vote[0] for vote in votes],
    }
    for how in AGGREGATIONS:
        known = how in problems[0].scores
        best = [expected_best(one.correct, one.scores[how], size) for one in problems] if known else None
        found[f"bon_{how}@{size}"] = best
    for place, how in enumerate(AGGREGATIONS, 1):
        found[f"wvote_{how}@{size}"] = [vote[place] for vote in votes] if weighted else None
    return found


def expected_pass(correct: Sequence[bool], size: int) -> float:
    """The probability that a subset of ``size`` holds a correct candidate."""
    n, wrong = len(correct), len(correct) - sum(correct)
    return 1.0 - math.comb(wrong, size) / math.comb(n, size)


def expected_best(correct: Sequence[bool], scores: Sequence[float | None], size: int) -> float:
    """The probability that the best-scored candidate of a subset of ``size`` is correct.

    Candidates of equal score are equally likely to be chosen; those without a score (``None``) never are.
    """
    ranked = sorted(
        ((score, right) for score, right in zip(scores, correct, strict=True) if score is not None), reverse=True
    )
    n, total, above, expected = len(correct), math.comb(len(correct), size), 0, 0.0
    for _, tied in groupby(ranked, key=lambda pair: pair[0]):
        group = [right for _, right in tied]
        chosen = math.comb(n - above, size) - math.comb(n - above - len(group), size)
        expected += chosen / total * sum(group) / len(group)
        above += len(group)
    return expected


def expected_votes(
    correct: Sequence[bool],
    answers: Sequence[int],
    weights: Sequence[Sequence[float | None]],
    size: int,
    name: str = "",
) -> list[float]:
    """The probability that the answer with the greatest weight in a subset of ``size`` is correct.

    Args:
        correct: of the n candidates, which are correct.
        answers: the class of each one's answer; -1: it has none and does not vote.
        weights: one sequence of n weights for each vote that is held; ``None``: that candidate does not vote.
        size: candidates per subset.
        name: the problem's, which seeds the random subsets where there are too many to go through.

    Returns:
        One probability per vote. Answers of equal weight are equally likely to win; nobody voting is a miss. A class
        is as correct as its first candidate.
    """
    classes = sorted({answer for answer in answers if answer >= 0})
    if not classes:
        return [0.0] * len(weights)
    subsets = _subsets(len(correct), size, name)
    right = np.array([correct[answers.index(one)] for one in classes])
    belongs = np.array([[answer == one for one in classes] for answer in answers], dtype=float)
    given = np.array([[math.nan if one is None else one for one in row] for row in weights])
    votes = ~np.isnan(given)[:, :, None] * belongs  # (votes held, candidates, classes)
    present = subsets @ votes > 0  # (votes held, subsets, classes)
    sums = np.where(present, subsets @ (np.nan_to_num(given)[:, :, None] * belongs), -np.inf)
    best = sums.max(axis=2, keepdims=True)
    tied = present & (sums >= best - TIE * np.abs(np.where(np.isfinite(best), best, 0.0)))
    shares = (tied & right).sum(axis=2) / np.maximum(tied.sum(axis=2), 1)
    return [float(value) for value in shares.mean(axis=1)]


def _subsets(n: int, size: int, name: str) -> Floats:
    """Membership (subsets, n) in the subsets of ``size``: all of them, or ``MAX_SUBSETS`` random ones."""
    if math.comb(n, size) <= MAX_SUBSETS:
        return _all_subsets(n, size)
    rng = np.random.default_rng(derive_seed("best_of_n", name, n, size))
    chosen = rng.random((MAX_SUBSETS, n)).argpartition(size - 1, axis=1)[:, :size]
    return _membership(chosen, n)


@lru_cache(maxsize=64)
def _all_subsets(n: int, size: int) -> Floats:
    return _membership(np.array(list(combinations(range(n), size))), n)


def _membership(chosen: NDArray[Any], n: int) -> Floats:
    members = np.zeros((len(chosen), n))
    np.put_along_axis(members, chosen, 1.0, axis=1)
    return members


def _area(problems: Sequence[_Problem], how: str) -> Area:
    """Arrange the scored candidates of all problems for the area under their ROC curve."""
    members = [
        (score, right, place)
        for one in problems
        for right, score, place in zip(one.correct, one.scores.get(how, ()), one.places, strict=how in one.scores)
        if score is not None
    ]
    scores, labels, owners = zip(*members, strict=True) if members else ((), (), ())
    return Area.of(np.array(scores, dtype=float), np.array(labels, dtype=bool), np.array(owners, dtype=np.intp))
