"""Paired comparison of runs: the tests against enumeration by hand, what refuses, and what is printed."""

import importlib.util
import io
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import snapshot
from commandline import Cli
from maderuns import made as finished
from places import BENCHMARKS

import cpmi_eval
from cpmi_eval.analysis.paired import align, compare_runs, separated
from cpmi_eval.cost import Share
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.metrics import best_of_n, first_error, ranking
from cpmi_eval.metrics.outcome import Metric, Outcome
from cpmi_eval.metrics.permutation import (
    Difference,
    UndefinedError,
    holm,
    mcnemar,
    permutation,
    permutation_of_mean,
)
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import Run, read_run
from cpmi_eval.types import Candidate, Gold

CUT = 0.5


def paired_runs(a: Run, b: Run, part: str, metric: str, **how: Any) -> Difference:
    (found,) = compare_runs([a, b], part=part, metrics=[metric], matches=False, **how).comparisons
    if found.difference is None:
        raise UndefinedError(metric, found.lacking or 0, found.reason)
    return found.difference


def trace(first: int, scores: Sequence[float], cluster: str = "") -> Outcome:
    """Make an outcome that calls the first step below one half wrong."""
    called = next((i for i, score in enumerate(scores) if score < CUT), -1)
    return Outcome(Gold(first), tuple(scores), called, cluster=cluster)


def drawn(seed: int, firsts: Sequence[int], clusters: Sequence[str], good: float = 0.0) -> list[Outcome]:
    rng = random.Random(seed)
    return [
        trace(first, [rng.random() + (good if i != first else 0) for i in range(4)], cluster)
        for first, cluster in zip(firsts, clusters, strict=True)
    ]


FIRSTS = [-1, 0, 2, -1, 3, 1, -1, -1, 2, 0]
CLUSTERS = ["p", "p", "q", "r", "s", "s", "s", "t", "u", "v"]  # seven problems


def plain_f1(outcomes: Sequence[Outcome]) -> float:
    accuracies = []
    for erroneous in (True, False):
        group = [one for one in outcomes if (one.gold.first_error >= 0) == erroneous]
        accuracies.append(sum(one.prediction == one.gold.first_error for one in group) / len(group))
    a, b = accuracies
    return 2 * a * b / (a + b) if a + b else 0.0


def plain_auc(outcomes: Sequence[Outcome]) -> float:
    """Count pairs of a good and a wrong step."""
    good = [
        s for one in outcomes for i, s in enumerate(one.scores) if one.gold.first_error < 0 or i < one.gold.first_error
    ]
    wrong = [one.scores[one.gold.first_error] for one in outcomes if one.gold.first_error >= 0]
    return sum((g > w) + (g == w) / 2 for g in good for w in wrong) / (len(good) * len(wrong))


def in_ranks(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Replace scores of annotated steps by how many of all annotated ones are below, ties counting half."""
    annotated = [
        s for one in outcomes for i, s in enumerate(one.scores) if one.gold.first_error < 0 or i <= one.gold.first_error
    ]
    return [
        replace(one, scores=tuple(sum((x < s) + (x == s) / 2 for x in annotated) for s in one.scores))
        for one in outcomes
    ]


def swapped_differences(
    a: Sequence[Outcome], b: Sequence[Outcome], value: Callable[[Sequence[Outcome]], float]
) -> list[float]:
    """Return the difference under every way to swap whole problems; the first is the one that was observed."""
    problems = list(dict.fromkeys(one.cluster for one in a))
    found = []
    for choice in itertools.product([False, True], repeat=len(problems)):
        swapped = {problem for problem, chosen in zip(problems, choice, strict=True) if chosen}
        left = [y if x.cluster in swapped else x for x, y in zip(a, b, strict=True)]
        right = [x if x.cluster in swapped else y for x, y in zip(a, b, strict=True)]
        found.append(value(left) - value(right))
    return found


def shares(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return p, p_better and p_worse of an exact test."""
    seen, n = differences[0], len(differences)
    return (
        sum(abs(one) >= abs(seen) - 1e-9 for one in differences) / n,
        sum(one >= seen - 1e-9 for one in differences) / n,
        sum(one <= seen + 1e-9 for one in differences) / n,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", ["f1", "step_auc"])
def test_all_swaps_are_those_of_an_enumeration(metric: str, seed: int) -> None:
    a, b = (drawn(seed + 100 * side, FIRSTS, CLUSTERS, good=0.3 * side) for side in (0, 1))
    function, value = (first_error.compute, plain_f1) if metric == "f1" else (ranking.compute, plain_auc)
    differences = swapped_differences(*((a, b) if metric == "f1" else map(in_ranks, (a, b))), value)
    seen = permutation(a, b, function, metric, draws=128)
    assert (seen.value_a, seen.value_b) == pytest.approx((value(a), value(b)))
    assert seen.difference == pytest.approx(differences[0])
    assert (seen.p, seen.p_better, seen.p_worse) == pytest.approx(shares(differences))
    assert (seen.traces, seen.problems, seen.left_out) == (10, 7, 0)
    assert seen.method == "permutation by problem, all 128 swaps"


@pytest.mark.parametrize("metric", ["f1", "step_auc"])
def test_random_swaps_come_near_all_of_them(metric: str) -> None:
    firsts, clusters = FIRSTS * 2, [f"{name}{turn}" for turn in "01" for name in CLUSTERS]  # 14 problems
    a, b = drawn(1, firsts, clusters, good=0.25), drawn(2, firsts, clusters)
    function = first_error.compute if metric == "f1" else ranking.compute
    exact = permutation(a, b, function, metric, draws=2**14)
    near = permutation(a, b, function, metric, draws=8000)
    assert (exact.method, near.method) == (
        "permutation by problem, all 16,384 swaps",
        "permutation by problem, 8,000 random swaps",
    )
    assert 0.01 < exact.p < 0.99
    for name in ("p", "p_better", "p_worse"):
        expected = getattr(exact, name)
        assert getattr(near, name) == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 8000) ** 0.5)


def test_the_smallest_p_counts_the_observed_one() -> None:
    """Every one of 40 problems is a hit of a alone: no random swap is as extreme."""
    gold = [0, -1] * 20
    a = [trace(first, [0.1 if first == 0 else 0.9], str(i)) for i, first in enumerate(gold)]
    b = [trace(first, [0.9 if first == 0 else 0.1], str(i)) for i, first in enumerate(gold)]
    seen = permutation(a, b, first_error.compute, "f1", draws=99)
    assert (seen.difference, seen.p, seen.p_better, seen.p_worse) == (1.0, 0.01, 0.01, 1.0)


def test_swapping_the_scorers_swaps_the_result() -> None:
    a, b = drawn(3, FIRSTS, CLUSTERS, good=0.4), drawn(4, FIRSTS, CLUSTERS)
    for function, metric in ((first_error.compute, "f1"), (ranking.compute, "step_auc")):
        one, other = (permutation(*pair, function, metric, draws=500) for pair in ((a, b), (b, a)))
        assert (one.value_a, one.value_b) == (other.value_b, other.value_a)
        assert one.difference == -other.difference
        assert (one.p, one.p_better, one.p_worse) == (other.p, other.p_worse, other.p_better)
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


def test_a_scorer_does_not_differ_from_itself() -> None:
    a = drawn(5, FIRSTS, CLUSTERS)
    for function, metric in ((first_error.compute, "f1"), (ranking.compute, "step_auc")):
        for draws in (50, 500):
            seen = permutation(a, a, function, metric, draws=draws)
            assert (seen.difference, seen.p, seen.p_better, seen.p_worse) == (0, 1, 1, 1)
            assert seen.interval == (0, 0)


def test_problems_are_swapped_as_a_whole() -> None:
    """Six traces that only a gets right: as six problems p is 2 / 2^6, as two it is 2 / 2^2, as one it is 1."""
    firsts = [0, -1, 0, -1, 0, -1]
    right, wrong = ([trace(first, [0.1 if (first == 0) == hit else 0.9]) for first in firsts] for hit in (True, False))
    for clusters, p in (("abcdef", 1 / 32), ("aabbbb", 1 / 2), ("aaaaaa", 1)):
        sides = [[replace(one, cluster=name) for one, name in zip(s, clusters, strict=True)] for s in (right, wrong)]
        assert permutation(*sides, first_error.compute, "f1", draws=64).p == p


def test_traces_without_a_cluster_are_problems_of_their_own() -> None:
    a, b = drawn(6, FIRSTS, [""] * 10), drawn(7, FIRSTS, [""] * 10)
    assert permutation(a, b, first_error.compute, "f1", draws=20).problems == 10


def test_a_metric_that_a_swap_leaves_undefined_counts_as_extreme() -> None:
    class Fragile:
        """Is 1 for a, 0 for b and nothing for any mixture of the two."""

        def __init__(self, outcomes: Sequence[Outcome]) -> None:
            self.right = [one.prediction == 0 for one in outcomes]

        def metrics(self) -> dict[str, Metric]:
            return {"own": Metric(sum(self.right) / len(self.right), len(self.right))}

        def resampled(self, weights: Any) -> dict[str, Any]:
            share = weights @ self.right / weights.sum(axis=1)
            share[(share > 0) & (share < 1)] = float("nan")
            return {"own": share}

    a, b = ([Outcome(Gold(0), (0.5,), called, cluster=name) for name in "pqr"] for called in (0, -1))
    seen = permutation(a, b, Fragile, "own", draws=8)
    assert (seen.p, seen.p_better, seen.p_worse) == (1, 7 / 8, 1)


def test_the_scale_of_scores_does_not_matter_for_ranks() -> None:
    a, b = drawn(8, FIRSTS * 3, list(map(str, range(30))), good=0.2), drawn(9, FIRSTS * 3, list(map(str, range(30))))
    stretched = [replace(one, scores=tuple(1000 * score**3 - 7 for score in one.scores)) for one in b]
    assert permutation(a, b, ranking.compute, "step_auc", draws=300) == permutation(
        a, stretched, ranking.compute, "step_auc", draws=300
    )


def test_a_failed_trace_is_a_miss_of_f1_and_left_out_of_auc_on_both_sides() -> None:
    a, b = drawn(10, FIRSTS, CLUSTERS), drawn(11, FIRSTS, CLUSTERS)
    a[2], b[5] = (replace(one, scores=None, prediction=None) for one in (a[2], b[5]))
    seen = permutation(a, b, first_error.compute, "f1", draws=300)
    assert (seen.value_a, seen.value_b, seen.left_out) == (*map(pytest.approx, map(plain_f1, (a, b))), 0)
    seen = permutation(a, b, ranking.compute, "step_auc", draws=300)
    kept = [[one for i, one in enumerate(side) if i not in (2, 5)] for side in (a, b)]
    assert (seen.value_a, seen.value_b) == pytest.approx(tuple(map(plain_auc, kept)))
    assert (seen.traces, seen.left_out) == (8, 2)
    assert seen.p == permutation(*kept, ranking.compute, "step_auc", draws=300).p


def test_scorers_that_scored_no_trace_both_have_no_auc_to_compare() -> None:
    rows = [("p", 0, True, (0.5,)), ("p", 1, False, (0.2,))]
    a = candidates(rows, "min")
    b = [replace(one, scores=None) for one in a]
    with pytest.raises(UndefinedError, match="no outcome_auc to compare: a has no trace scored that the other has"):
        permutation(a, b, best_of_n.compute, "outcome_auc")
    assert permutation(a, b, best_of_n.compute, "bon@2", draws=8).difference == 1


def test_the_interval_is_that_of_a_bootstrap_with_shared_problems() -> None:
    firsts, clusters = FIRSTS * 6, [str(i // 2) for i in range(60)]
    a, b = drawn(12, firsts, clusters, good=0.3), drawn(13, firsts, clusters)
    seen = permutation(a, b, first_error.compute, "f1", draws=4000)
    rng = random.Random(0)
    values = []
    for _ in range(4000):
        chosen = [place for _ in range(30) for place in (lambda at: (2 * at, 2 * at + 1))(rng.randrange(30))]
        values.append(plain_f1([a[i] for i in chosen]) - plain_f1([b[i] for i in chosen]))
    values.sort()
    assert seen.interval == pytest.approx((values[100], values[3899]), abs=0.02)


def test_the_mean_over_parts_swaps_them_jointly() -> None:
    parts = [(drawn(s, FIRSTS[:6], "abcdef"), drawn(s + 1, FIRSTS[:6], "abcdef", good=0.4)) for s in (20, 30)]
    each = [swapped_differences(a, b, plain_f1) for a, b in parts]
    joint = [(one + other) / 2 for one in each[0] for other in each[1]]
    seen = permutation_of_mean(parts, first_error.compute, "f1", draws=2**12)
    assert seen.difference == pytest.approx(joint[0])
    assert (seen.p, seen.p_better, seen.p_worse) == pytest.approx(shares(joint))
    assert (seen.n, seen.traces, seen.problems) == (12, 12, 12)  # of equal names, but of two parts


def candidates(rows: Sequence[tuple[str, int, bool, tuple[float, ...]]], aggregation: str) -> list[Outcome]:
    return [
        Outcome(Gold(None, right, Candidate(problem, answer)), scores, None, True, aggregation, problem)
        for problem, answer, right, scores in rows
    ]


def test_selection_among_candidates_of_scorers_that_aggregate_otherwise() -> None:
    """Three problems of two candidates; a takes the last score and is right in all, b the least and is in the last."""
    shape = [("p", 0, True), ("p", 1, False), ("q", 0, True), ("q", 1, False), ("r", 0, True), ("r", 1, False)]
    a = candidates([(*one, (0.1, 0.9 if one[2] else 0.2)) for one in shape], "last")
    lows = [0.2, 0.3, 0.1, 0.4, 0.6, 0.5]
    b = candidates([(*one, (0.9, low)) for one, low in zip(shape, lows, strict=True)], "min")
    seen = permutation(a, b, best_of_n.compute, "bon@2", draws=8)
    assert (seen.value_a, seen.value_b) == pytest.approx((1, 1 / 3))
    # |difference| is 2/3 where p and q are swapped together or not at all, whatever happens to r
    assert (seen.p, seen.p_better, seen.problems) == (0.5, 0.25, 3)
    assert permutation(a, b, best_of_n.compute, "wvote@2", draws=8).value_a == 1
    area = permutation(a, b, best_of_n.compute, "outcome_auc", draws=8)
    assert (area.value_a, area.value_b) == pytest.approx((1, 1 / 3))
    assert permutation(a, b, best_of_n.compute, "pass@1", draws=8).difference == 0


def test_scorers_that_decide_nothing_have_no_f1() -> None:
    a = drawn(14, FIRSTS, CLUSTERS)
    b = [replace(one, prediction=None, undecided=True) for one in a]
    with pytest.raises(UndefinedError, match="no f1 to compare: b makes no decisions without a threshold") as caught:
        permutation(a, b, first_error.compute, "f1")
    assert caught.value.side == 1
    with pytest.raises(UndefinedError, match="no exact matches to compare: a makes no decisions"):
        mcnemar(b, a)
    assert permutation(a, b, ranking.compute, "step_auc", draws=100).p == 1


def test_one_class_alone_has_no_value() -> None:
    a = [trace(-1, [0.9], "p"), trace(-1, [0.1], "q")]
    with pytest.raises(UndefinedError, match="a has none on the traces that are compared"):
        permutation(a, a, first_error.compute, "f1")


def test_other_traces_other_metrics_and_plain_functions_are_refused() -> None:
    a = drawn(15, FIRSTS, CLUSTERS)
    with pytest.raises(UsageError, match="these are 10 and 9 traces"):
        permutation(a, a[:-1], first_error.compute, "f1")
    with pytest.raises(UsageError, match="differ in their annotation"):
        mcnemar(a, a[::-1])
    with pytest.raises(UnknownNameError, match=r"unknown metric 'f2'\. Did you mean 'f1'"):
        permutation(a, a, first_error.compute, "f2")
    with pytest.raises(UsageError, match="plain function"):
        permutation(a, a, lambda outcomes: {"f1": Metric(0.5, len(outcomes))}, "f1")
    with pytest.raises(UsageError, match="draws must be at least 1"):
        permutation(a, a, first_error.compute, "f1", draws=0)


def test_mcnemar_by_hand() -> None:
    """Five that only a matches, one that only b does: p = 2 (C(6,0) + C(6,1)) / 2^6."""
    hits = [(True, False)] * 5 + [(False, True)] + [(True, True)] * 3 + [(False, False)] * 2
    a, b = (
        [Outcome(Gold(0), (0.5,), 0 if hit[side] else -1) for hit in hits] + [Outcome(Gold(None), (0.5,), 0)]
        for side in (0, 1)
    )
    seen = mcnemar(a, b)
    assert (seen.both, seen.only_a, seen.only_b, seen.neither) == (3, 5, 1, 2)
    assert seen.p == pytest.approx(14 / 64)
    assert mcnemar(b, a).p == seen.p
    assert mcnemar(a, a).p == 1


def test_a_failed_trace_is_no_match() -> None:
    a = [Outcome(Gold(-1), None, None), Outcome(Gold(-1), (0.9,), -1)]
    b = [Outcome(Gold(-1), (0.9,), -1)] * 2
    seen = mcnemar(a, b)
    assert (seen.both, seen.only_a, seen.only_b, seen.neither) == (1, 0, 1, 0)


def test_holm_by_hand() -> None:
    """Sorted: 4 x .005, 3 x .01, 2 x .03, 1 x .04, none below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []


def run_of(outcomes: dict[str, Sequence[Outcome]], path: str = "run", **changes: Any) -> Run:
    records = [
        Record(
            f"{place}", f"synthetic/{part}", one.cluster or str(place), "p", ("s",) * 4, one.gold, one.scores,
            one.prediction, None, Share.nothing()
        )
        for part, group in outcomes.items()
        for place, one in enumerate(group)
    ]  # fmt: skip
    return finished(path, records, synthetic=True, **changes)


LONG = FIRSTS * 8
APART = [str(place) for place in range(80)]


def made(seed: int, good: float, path: str, **changes: Any) -> Run:
    return run_of({"x": drawn(seed, LONG, APART, good)}, path, **changes)


def test_runs_are_compared_part_by_part_and_in_the_mean() -> None:
    groups = [{"x": drawn(s, LONG, APART, good), "y": drawn(s + 1, FIRSTS, CLUSTERS)} for s, good in ((1, 0.5), (5, 0))]
    a, b = (run_of(group) for group in groups)
    mean = paired_runs(a, b, "synthetic", "f1", draws=200)
    assert mean.value_a == pytest.approx(sum(map(plain_f1, groups[0].values())) / 2)
    part = paired_runs(a, b, "synthetic/x", "f1", draws=200)
    assert (part.value_a, part.value_b) == pytest.approx((plain_f1(groups[0]["x"]), plain_f1(groups[1]["x"])))
    assert (part.traces, mean.traces, mean.problems) == (80, 90, 87)
    with pytest.raises(UnknownNameError, match="unknown part of run 'synthetic/z'"):
        paired_runs(a, b, "synthetic/z", "f1")
    with pytest.raises(UnknownNameError, match="unknown metric 'auc'"):
        paired_runs(a, b, "synthetic", "auc")


def test_the_order_of_traces_does_not_matter() -> None:
    a, b = made(1, 0.5, "a"), made(2, 0, "b")
    shuffled = replace(b, records=tuple(random.Random(0).sample(b.records, len(b.records))))
    assert paired_runs(a, shuffled, "synthetic", "f1") == paired_runs(a, b, "synthetic", "f1")


def test_separated_pairs_are_those_that_stand_after_holm() -> None:
    """Two good scorers that are alike, and two poor ones."""
    runs = [made(1, 0.6, "a"), made(2, 0, "b"), made(3, 0.6, "c"), made(4, 0, "d")]
    found = separated(runs, "synthetic", "f1")
    assert found == {(0, 1), (0, 3), (2, 1), (2, 3)}
    assert found == {
        (one.better(), one.a + one.b - one.better())
        for one in compare_runs(runs, metrics=["f1"]).comparisons
        if one.better() is not None
    }
    assert separated(runs[:1], "synthetic", "f1") == set()
    assert separated([runs[0], runs[0]], "synthetic", "step_auc") == set()


def test_a_run_without_a_value_is_separated_from_none() -> None:
    rule = {"protocol": "native", "value": None}
    runs = [made(1, 0.6, "a"), made(2, 0, "b", threshold=rule), made(4, 0, "d")]
    assert separated(runs, "synthetic", "f1") == {(0, 2)}
    first = compare_runs(runs, metrics=["f1"]).comparisons[0]
    assert (first.difference, first.lacking, first.reason) == (None, 1, "makes no decisions without a threshold")


def test_an_oracle_threshold_is_never_compared_by_f1() -> None:
    runs = [made(1, 0.6, "a", threshold={"protocol": "oracle", "value": 0.5}), made(2, 0, "b")]
    assert separated(runs, "synthetic", "f1") == set()
    assert separated(runs, "synthetic", "step_auc") == {(0, 1)}
    with pytest.raises(UndefinedError, match="a has an oracle threshold, fitted to the traces it is judged on"):
        paired_runs(*runs, "synthetic", "acc_error")


def test_many_comparisons_are_adjusted_together() -> None:
    runs = [made(seed, good, str(seed)) for seed, good in ((1, 0.35), (2, 0.1), (3, 0.2))]
    found = compare_runs(runs, draws=400)
    raw = [one.difference.p for one in found.comparisons]
    assert len(raw) == 6  # three pairs, F1 and AUC
    assert [one.adjusted for one in found.comparisons] == pytest.approx(holm(raw))
    matched = [one for one in found.comparisons if one.matches is not None]
    assert [one.metric for one in matched] == ["f1"] * 3
    assert [one.matches_adjusted for one in matched] == pytest.approx(holm([one.matches.p for one in matched]))
    each = compare_runs(runs, against=1, metrics=["f1"])
    assert [(one.a, one.b) for one in each.comparisons] == [(0, 1), (2, 1)]


def test_a_difference_is_told_only_where_the_interval_agrees() -> None:
    runs = [made(1, 0.6, "a"), made(2, 0, "b")]
    one = compare_runs(runs, metrics=["f1"]).comparisons[0]
    assert one.better() == 0
    torn = replace(one, difference=replace(one.difference, interval=(-0.01, 0.3)))
    assert torn.better() is None
    assert replace(one, adjusted=0.06).better() is None


def test_draws_that_cannot_show_anything_are_refused() -> None:
    runs = [made(seed, 0, str(seed)) for seed in (1, 2, 3)]
    with pytest.raises(UsageError, match=r"with 100 draws no p-value can be below 0\.0099.*at least 120 draws"):
        compare_runs(runs, draws=100)
    assert compare_runs(runs, draws=120).draws == 120
    many = [run_of({"x": drawn(seed, FIRSTS, CLUSTERS)}, str(seed)) for seed in range(12)]
    assert compare_runs(many, metrics=["f1"]).draws == 2640  # 66 comparisons: the least p is half of what can stand


def test_runs_on_other_traces_refuse_and_can_be_restricted() -> None:
    a = made(1, 0.5, "a")
    b = made(2, 0, "b")
    fewer = replace(b, records=b.records[10:])
    other = list(fewer.records)
    other[0] = replace(other[0], steps=("t",) * 4)
    other[1] = replace(other[1], gold=replace(other[1].gold, first_error=1))
    fewer = replace(fewer, records=tuple(other))
    message = (
        "not on the same traces: a has 80, b has 70; 68 are in all of them with the same texts and annotation; --shared"
    )
    with pytest.raises(UsageError, match=message):
        paired_runs(a, fewer, "synthetic", "f1")
    seen = paired_runs(a, fewer, "synthetic", "f1", shared=True, draws=100)
    assert seen.value_a == pytest.approx(plain_f1([a.outcomes("synthetic/x")[i] for i in range(12, 80)]))
    aligned = align([a, fewer], shared=True)
    assert (aligned.traces, aligned.left_out) == (68, (12, 2))
    with pytest.raises(UsageError, match=r"0 are in all of them .*; there is nothing to compare"):
        align([a, replace(b, records=b.records[:0])], shared=True)
    with pytest.raises(UsageError, match="different tasks cannot be compared: a is of synthetic, b is of traces"):
        align([a, made(2, 0, "b", config={"task": "traces"})])


def test_only_problems_whose_candidates_all_have_are_shared() -> None:
    rows = [(name, place, place == 0, (0.5,)) for name in "pqr" for place in range(2)]
    run = run_of({"x": candidates(rows, "min")})
    fewer = replace(run, records=run.records[:3] + run.records[4:])  # q lacks one
    aligned = align([run, fewer], shared=True)
    assert [one.cluster for one in aligned.outcomes[0]["synthetic/x"]] == ["p", "p", "r", "r"]
    assert aligned.left_out == (2, 1)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Make runs of three labelers on the synthetic task."""
    paths = {name: str(tmp_path / name) for name in ("random", "constant", "length")}
    for name, path in paths.items():
        cpmi_eval.evaluate(name, "synthetic", limit=20, output_path=path)
    return paths


def test_values_are_those_of_the_runs(folders: dict[str, str], cli: Cli) -> None:
    code, out, err = cli("paired", folders["random"], folders["constant"], "--format", "json", "--draws", "200")
    assert (code, err) == (0, "")
    document = json.loads(out)
    results = {name: read_run(Path(path)).summary["results"]["synthetic"] for name, path in folders.items()}
    assert [one["metric"] for one in document["comparisons"]] == ["f1", "step_auc"]
    for one in document["comparisons"]:
        seen = one["difference"]
        assert seen["value_a"] == pytest.approx(results["random"][one["metric"]]["value"])
        assert seen["value_b"] == pytest.approx(results["constant"][one["metric"]]["value"])
        assert seen["n"] == results["random"][one["metric"]]["n"]
    assert (document["traces"], document["draws"], document["seed"], document["alpha"]) == (20, 200, 0, 0.05)
    assert [run["path"] for run in document["runs"]] == [folders["random"], folders["constant"]]


@pytest.mark.parametrize("style", ["rich", "markdown"])
def test_tables_name_runs_and_verdicts(
    style: str, folders: dict[str, str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    code, out, err = cli("paired", *folders.values(), "--against", folders["constant"], "--format", style)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "synthetic/arithmetic (synthetic data), 20 traces" in text
    assert "A – B" in text
    assert "C – B" in text
    assert "A – C" not in text
    assert "F1 of C is not compared: it makes no decisions without a threshold" in text
    assert "McNemar" in text
    assert "2,000 random swaps" in text
    assert ("| A – B | F1 |" in out) == (style == "markdown")


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_what_people_see(style: str) -> None:
    from rich.console import Console

    from cpmi_eval.reports.grid import drawn, markdown
    from cpmi_eval.reports.paired import paired_report

    good, poor = made(1, 0.6, "runs/a|b"), made(2, 0, "runs/b")
    model = {"backend": "hf", "model": "smollm2-135m", "device": "cpu"}
    asked = {"name": "cpmi", "uses_reference": True}
    config = {"task": "synthetic", "labeler_args": {"variant": "prefix"}}
    rule = {"protocol": "native", "value": None}
    ranks = made(4, 0.3, "runs/c", threshold=rule, labeler=asked, config=config, model=model)
    failed = replace(poor.records[3], scores=None, prediction=None)
    poor = replace(poor, records=(*poor.records[:3], failed, *poor.records[4:-1]))
    found = compare_runs([good, poor, ranks], shared=True)
    if style == "markdown":
        snapshot.check("paired_markdown", markdown(paired_report(found)))
        return
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(drawn(paired_report(found), 130))
    snapshot.check("paired", console.export_text())


def test_shared_says_what_is_left_out(tmp_path: Path, folders: dict[str, str], cli: Cli) -> None:
    short = str(tmp_path / "short")
    cpmi_eval.evaluate("random", "synthetic", limit=12, output_path=short)
    code, out, err = cli("paired", folders["constant"], short)
    assert (code, out) == (2, "")
    assert "20, " in err
    assert "has 12; 12 are in all of them" in err
    assert "--shared" in err
    code, out, _ = cli("paired", folders["constant"], short, "--shared", "--format", "markdown")
    assert code == 0
    assert "shared traces only: left out are 8 of A, 0 of B" in out


def test_wrong_usage(folders: dict[str, str], cli: Cli) -> None:
    one, other = folders["random"], folders["constant"]
    for args, message in (
        ((one,), "name at least two runs"),
        ((one, f"{other}/../random"), "a run is named twice"),
        ((one, "absent"), "absent is not a run directory"),
        ((one, other, "--metrics", "f2"), "unknown metric 'f2'. Did you mean 'f1'"),
        ((one, other, "--part", "synthetic/arithmetics"), "Did you mean 'synthetic/arithmetic'"),
        ((one, other, "--draws", "10"), "take at least 40 draws"),
        ((one, other, "--draws", "0"), "0 is not in the range"),
    ):
        code, out, err = cli("paired", *args)
        assert (code, out) == (2, ""), args
        assert message in err
        assert "Traceback" not in err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cpmi_eval.cli import cli\n"
        "cli.main(['paired', '--help'], standalone_mode=False)\n"
        "sys.exit(sorted({'scipy', 'statsmodels', 'rich', 'sklearn', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--against" in done.stdout


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = BENCHMARKS / "simulation.py"
    spec = importlib.util.spec_from_file_location("simulation_of_statistics", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.POPULATION = 40_000
    return module


def test_intervals_hold_the_truth_about_as_often_as_they_say(simulation: ModuleType) -> None:
    for one in simulation.coverage("one scorer", simulation.Scorer(), 60, 300):
        assert one.covers >= 0.85


def test_alike_scorers_are_seldom_told_apart_and_a_better_one_is(simulation: ModuleType) -> None:
    alike, better = simulation.Scorer(), simulation.Scorer(signal=2.0)
    other = replace(alike, scale=2.0)
    assert simulation.comparison("", "f1", alike, alike, 40, 199).rejects <= 0.15
    assert simulation.comparison("", "step_auc", alike, other, 40, 199).rejects <= 0.15
    told = simulation.comparison("", "step_auc", better, alike, 10, 199)
    assert (told.tells, told.truth > 0.08) == (1, True)


def test_the_table_of_the_simulation(simulation: ModuleType) -> None:
    figure = simulation.Figure("two alike", "f1", 0.0, 100, 0.95, 0.04, 0.03)
    assert simulation.table([figure]).row_count == 1
    assert simulation._rate(0.04, 100) == "4.0 ± 2.0"
