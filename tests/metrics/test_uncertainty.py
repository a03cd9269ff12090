"""Intervals: resampling is a weighting, weightings are recounts, and whole problems are drawn."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmi_eval.metrics import best_of_n, first_error, ranking, uncertainty
from cpmi_eval.metrics.outcome import Metric, MetricFunction, Outcome, Statistics, metrics_of
from cpmi_eval.metrics.uncertainty import intervals, multiplicities, percentiles, with_intervals
from cpmi_eval.types import Candidate, Gold


def repeated(outcomes: Sequence[Outcome], weights: Sequence[int]) -> list[Outcome]:
    return [one for one, n in zip(outcomes, weights, strict=True) for _ in range(n)]


def agrees(function: MetricFunction, outcomes: Sequence[Outcome], weights: Sequence[int]) -> None:
    """Weighting must be the same as repeating each trace as often as its weight says."""
    statistics = function(outcomes)
    assert isinstance(statistics, Statistics)
    found = statistics.resampled(np.array([weights, [1] * len(outcomes)], dtype=float))
    for row, expected in enumerate((metrics_of(function(repeated(outcomes, weights))), statistics.metrics())):
        for name, values in found.items():
            value = expected[name].value if name in expected else None
            assert values[row] == pytest.approx(math.nan if value is None else value, nan_ok=True, abs=1e-12)


SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5]), st.floats(-3, 3))


@st.composite
def weighted(draw: st.DrawFn) -> tuple[list[Outcome], list[int]]:
    outcomes = []
    for _ in range(draw(st.integers(1, 8))):
        scores = draw(st.lists(SCORES, min_size=1, max_size=4).map(tuple))
        gold = draw(st.one_of(st.none(), st.integers(-1, len(scores) - 1)))
        prediction = draw(st.one_of(st.none(), st.integers(-1, len(scores) - 1)))
        outcomes.append(Outcome(Gold(gold), None if draw(st.integers(0, 6)) == 0 else scores, prediction))
    return outcomes, draw(st.lists(st.integers(0, 3), min_size=len(outcomes), max_size=len(outcomes)))


@settings(deadline=None)
@given(weighted())
def test_weights_are_counts_for_first_errors_and_auc(case: tuple[list[Outcome], list[int]]) -> None:
    for function in (first_error.compute, ranking.compute):
        agrees(function, *case)


def candidate(problem: str, answer: int | None, right: bool, score: float | None) -> Outcome:
    gold = Gold(None, right, Candidate(problem, answer))
    return Outcome(gold, None if score is None else (score,), None, cluster=problem)


def test_weights_are_counts_of_problems_for_best_of_n() -> None:
    """A problem that is drawn twice counts twice in the means over problems, and its candidates twice in the AUC."""
    a = [candidate("a", 0, True, 0.9), candidate("a", 1, False, 0.5)]
    b = [candidate("b", 0, False, 0.6), candidate("b", 1, True, 0.1)]
    found = best_of_n.compute([*a, *b])
    assert isinstance(found, Statistics)
    values = found.resampled(np.array([[2.0, 2.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    assert values["bon@2"][:2].tolist() == pytest.approx([2 / 3, 0.0])
    assert values["pass@2"][:2].tolist() == [1.0, 1.0]
    # correct .9 .9 .1 against .5 .5 .6: (3 + 3 + 0) of 9
    assert values["outcome_auc"][:2].tolist() == pytest.approx([6 / 9, 0.0])
    assert np.isnan(values["bon@2"][2])
    assert {name for name, one in found.metrics().items() if not one.detail} == set(values)


def test_drawing_indices_is_counting_them() -> None:
    drawn = np.array([[0, 0, 2], [1, 1, 1]])
    assert multiplicities(drawn, 3).tolist() == [[2, 0, 1], [0, 3, 0]]


def test_an_interval_is_that_of_the_binomial_where_traces_are_independent() -> None:
    """acc_correct over 400 correct traces, half of them left alone: 0.5 +- 1.96 * 0.025, and F1 undefined."""
    outcomes = [Outcome(Gold(-1), (0.5,), -1 if i % 2 else 0, cluster=str(i)) for i in range(400)]
    by_part, means = intervals({"t/a": [first_error.compute(outcomes)]}, {"t/a": [one.cluster for one in outcomes]})
    low, high = by_part["t/a"]["acc_correct"]
    assert (low, high) == (pytest.approx(0.451, abs=0.006), pytest.approx(0.549, abs=0.006))
    assert set(by_part["t/a"]) == {"acc_correct"}  # no erroneous trace: the others are undefined
    assert means["acc_correct"] == (low, high)


def test_traces_of_one_problem_are_drawn_together() -> None:
    """Four copies of a trace under one problem say no more than one: the interval is twice as wide as if they did."""
    outcomes = [Outcome(Gold(-1), (0.5,), -1 if i % 2 else 0) for i in range(100) for _ in range(4)]
    statistics = {"t": [first_error.compute(outcomes)]}
    together, _ = intervals(statistics, {"t": [str(i // 4) for i in range(400)]})
    apart, _ = intervals(statistics, {"t": [str(i) for i in range(400)]})
    width = {
        name: high - low
        for name, (low, high) in (("t", together["t"]["acc_correct"]), ("a", apart["t"]["acc_correct"]))
    }
    assert width["t"] / width["a"] == pytest.approx(2, rel=0.12)


def test_subsets_are_drawn_apart_and_their_mean_varies_less() -> None:
    outcomes = [Outcome(Gold(-1), (0.5,), -1 if i % 2 else 0) for i in range(200)]
    names = [str(i) for i in range(200)]
    parts = ("t/a", "t/b", "t/c", "t/d")
    by_part, means = intervals(
        {part: [first_error.compute(outcomes)] for part in parts}, dict.fromkeys(parts, names), resamples=4000
    )
    width = [by_part[part]["acc_correct"][1] - by_part[part]["acc_correct"][0] for part in parts]
    mean = means["acc_correct"][1] - means["acc_correct"][0]
    assert mean == pytest.approx(np.mean(width) / 2, rel=0.1)  # four independent subsets: half as wide
    assert len({by_part[part]["acc_correct"] for part in parts}) > 1  # not the same draws in each


def test_many_problems_are_drawn_in_groups_with_the_spread_of_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [Outcome(Gold(-1), (0.5,), (i * 7919) % 10 // 3 - 1, cluster=str(i)) for i in range(3000)]
    statistics, names = {"t": [first_error.compute(outcomes)]}, {"t": [one.cluster for one in outcomes]}
    share = np.mean([one.prediction == -1 for one in outcomes])
    width = 2 * 1.96 * math.sqrt(share * (1 - share) / 3000)
    for most in (300, 3000):
        monkeypatch.setattr(uncertainty, "MAX_GROUPS", most)
        low, high = intervals(statistics, names)[0]["t"]["acc_correct"]
        assert low < share < high
        assert high - low == pytest.approx(width, rel=0.1), most


def test_the_same_seed_gives_the_same_bounds() -> None:
    outcomes = [Outcome(Gold(i % 3 - 1), (0.1 * (i % 7), 0.2), i % 2 - 1, cluster=str(i // 2)) for i in range(60)]
    statistics = {"t": [first_error.compute(outcomes), ranking.compute(outcomes)]}
    names = {"t": [one.cluster for one in outcomes]}
    assert intervals(statistics, names, resamples=200) == intervals(statistics, names, resamples=200)
    assert intervals(statistics, names, resamples=200, seed=1) != intervals(statistics, names, resamples=200)


def test_where_nothing_varies_or_too_much_is_undefined_there_is_no_interval() -> None:
    one = [Outcome(Gold(-1), (0.5,), -1, cluster="p")] * 3
    assert intervals({"t": [first_error.compute(one)]}, {"t": ["p"] * 3}) == ({}, {})
    assert intervals({"t": [first_error.compute([])]}, {"t": []}) == ({}, {})
    assert percentiles(np.array([math.nan] * 6 + [0.5] * 94)) is None
    assert percentiles(np.array([math.nan] * 4 + [0.5] * 96)) == (0.5, 0.5)
    assert percentiles(np.array([math.nan])) is None


def test_bounds_are_put_beside_their_values() -> None:
    metrics = {"f1": Metric(0.5, 4), "auc": Metric(None, 0)}
    found = with_intervals(metrics, {"f1": (0.25, 0.75)})
    assert found["f1"].as_dict() == {"value": 0.5, "n": 4, "interval": [0.25, 0.75]}
    assert found["auc"].as_dict() == {"value": None, "n": 0}
    assert {name: Metric.from_dict(one.as_dict()) for name, one in found.items()} == found
