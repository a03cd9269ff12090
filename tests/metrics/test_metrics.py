"""Metrics against tables worked out by hand, and AUC against its definition."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpmi_eval.errors import UsageError
from cpmi_eval.metrics import first_error, ranking
from cpmi_eval.metrics.outcome import Metric, Outcome
from cpmi_eval.metrics.thresholds import Threshold, threshold
from cpmi_eval.summary import _mean
from cpmi_eval.types import Gold


def outcome(gold: int, prediction: int | None = None, scores: tuple[float, ...] | None = None, **more: Any) -> Outcome:
    return Outcome(Gold(gold), scores, prediction, **more)


# (label, prediction) of each trace -> acc_error, acc_correct, f1
TABLES = {
    # erroneous: 2 of 4 found exactly; correct: 1 of 2 left alone; 2 * .5 * .5 / 1
    "half and half": ([(0, 0), (2, 2), (2, 1), (3, -1), (-1, -1), (-1, 0)], 1 / 2, 1 / 2, 1 / 2),
    # erroneous 1 of 3, correct 3 of 4: 2 * (1/3) * (3/4) / (13/12) = 6/13
    "uneven": ([(1, 1), (1, 0), (1, 2), (-1, -1), (-1, -1), (-1, -1), (-1, 5)], 1 / 3, 3 / 4, 6 / 13),
    "perfect": ([(4, 4), (-1, -1)], 1.0, 1.0, 1.0),
    # 0 / 0 is a zero, not a gap
    "nothing right": ([(0, 1), (-1, 0)], 0.0, 0.0, 0.0),
    "everything called correct": ([(0, -1), (1, -1), (-1, -1)], 0.0, 1.0, 0.0),
    "everything called wrong": ([(0, 0), (-1, 0)], 1.0, 0.0, 0.0),
    # one step too early or too late is a miss
    "near misses": ([(2, 1), (2, 3), (-1, -1)], 0.0, 1.0, 0.0),
    # a trace without a prediction is a miss in its class
    "missing predictions": ([(0, 0), (0, None), (-1, -1), (-1, None)], 1 / 2, 1 / 2, 1 / 2),
    "only missing predictions": ([(0, None), (-1, None)], 0.0, 0.0, 0.0),
    "no erroneous trace": ([(-1, -1), (-1, 0)], None, 1 / 2, None),
    "no correct trace": ([(0, 0), (0, 1)], 1 / 2, None, None),
    "no trace": ([], None, None, None),
}


@pytest.mark.parametrize(("pairs", "error", "correct", "f1"), TABLES.values(), ids=TABLES.keys())
def test_first_error_table(
    pairs: list[tuple[int, int | None]], error: float | None, correct: float | None, f1: float | None
) -> None:
    found = first_error.compute([outcome(gold, prediction) for gold, prediction in pairs]).metrics()
    assert set(found) == {"f1", "acc_error", "acc_correct"}
    wrong = sum(gold >= 0 for gold, _ in pairs)
    for name, value, n in (("acc_error", error, wrong), ("acc_correct", correct, len(pairs) - wrong)):
        assert found[name] == Metric(None if value is None else pytest.approx(value), n)
    assert found["f1"] == Metric(None if f1 is None else pytest.approx(f1), len(pairs))


def test_a_scorer_without_decisions_has_no_accuracies() -> None:
    outcomes = [outcome(gold, scores=(1.0,), undecided=True) for gold in (0, -1)]
    found = first_error.compute(outcomes).metrics()
    assert found == {"f1": Metric(None, 2), "acc_error": Metric(None, 1), "acc_correct": Metric(None, 1)}


@given(st.lists(st.tuples(st.integers(-1, 3), st.one_of(st.none(), st.integers(-1, 3))), max_size=30))
def test_f1_lies_between_the_accuracies(pairs: list[tuple[int, int | None]]) -> None:
    found = first_error.compute([outcome(gold, prediction) for gold, prediction in pairs]).metrics()
    error, correct, f1 = (found[name].value for name in ("acc_error", "acc_correct", "f1"))
    assert (f1 is None) == (error is None or correct is None)
    if error is not None and correct is not None and f1 is not None:
        low, high = min(error, correct), max(error, correct)
        assert low - 1e-12 <= f1 <= high + 1e-12
        assert (f1 == 0) == (low == 0)


def auc(*traces: tuple[int, tuple[float, ...] | None]) -> Metric:
    found = ranking.compute([outcome(gold, scores=scores) for gold, scores in traces]).metrics()
    assert set(found) == {"step_auc"}
    return found["step_auc"]


# (label, scores) of each trace -> AUC, annotated steps
AUC_TABLES = {
    "wrong step lowest": ([(1, (0.9, 0.1))], 1.0, 2),
    "wrong step highest": ([(1, (0.1, 0.9))], 0.0, 2),
    "a tie is half a win": ([(1, (0.5, 0.5))], 0.5, 2),
    # good .9 .5 .1 against wrong .5: a win, a tie, a loss
    "win, tie, loss": ([(3, (0.9, 0.5, 0.1, 0.5))], 1.5 / 3, 4),
    # the .0 and the .99 come after the first error and have no label
    "steps after the first error": ([(1, (0.9, 0.1, 0.0, 0.99))], 1.0, 2),
    # good .2 .8 (correct trace) .6; wrong .4: 2 of 3
    "pooled over traces": ([(-1, (0.2, 0.8)), (1, (0.6, 0.4, 0.9))], 2 / 3, 4),
    # two wrong steps .3 .7, good .5: 1 of 2
    "error at once": ([(0, (0.3, 0.9)), (0, (0.7,)), (-1, (0.5,))], 1 / 2, 3),
    "rows without scores": ([(1, (0.9, 0.1)), (0, None), (-1, None)], 1.0, 2),
    "only good steps": ([(-1, (0.1, 0.2))], None, 2),
    "only wrong steps": ([(0, (0.1, 0.2)), (0, (0.3,))], None, 2),
    "no scores at all": ([(0, None), (-1, None)], None, 0),
    "no trace": ([], None, 0),
}


@pytest.mark.parametrize(("traces", "value", "n"), AUC_TABLES.values(), ids=AUC_TABLES.keys())
def test_auc_table(traces: list[tuple[int, tuple[float, ...] | None]], value: float | None, n: int) -> None:
    assert auc(*traces) == Metric(None if value is None else pytest.approx(value), n)


def test_labels_end_at_the_first_error() -> None:
    assert ranking.labelled_steps(outcome(1, scores=(0.5, 0.25, 0.125))) == ([1, 0], [0.5, 0.25])
    assert ranking.labelled_steps(outcome(-1, scores=(0.5, 0.25))) == ([1, 1], [0.5, 0.25])
    assert ranking.labelled_steps(outcome(0)) == ([], [])


# Few distinct scores, so that ties are common; and some that only a stable implementation tells apart.
SCORES = st.one_of(st.sampled_from([-1.0, 0.0, 0.25, 0.5]), st.floats(-1e9, 1e9))


@st.composite
def labelled_traces(draw: st.DrawFn) -> list[tuple[int, tuple[float, ...] | None]]:
    traces: list[tuple[int, tuple[float, ...] | None]] = []
    for _ in range(draw(st.integers(0, 6))):
        scores = draw(st.lists(SCORES, min_size=1, max_size=6).map(tuple))
        gold = draw(st.integers(-1, len(scores) - 1))
        traces.append((gold, None if draw(st.integers(0, 5)) == 0 else scores))
    return traces


@given(labelled_traces())
def test_auc_is_the_share_of_pairs_in_the_right_order(traces: list[tuple[int, tuple[float, ...] | None]]) -> None:
    good, wrong = [], []
    for gold, scores in traces:
        for index, score in enumerate(scores or ()):
            if index == gold:
                wrong.append(score)
            elif gold < 0 or index < gold:
                good.append(score)
    wins = sum((a > b) + 0.5 * (a == b) for a in good for b in wrong)
    expected = pytest.approx(wins / (len(good) * len(wrong)), abs=1e-12) if good and wrong else None
    assert auc(*traces) == Metric(expected, len(good) + len(wrong))


@given(labelled_traces())
def test_auc_depends_on_order_alone(traces: list[tuple[int, tuple[float, ...] | None]]) -> None:
    ranks = {score: rank for rank, score in enumerate(sorted({s for _, scores in traces for s in scores or ()}))}
    ranked = [(gold, None if scores is None else tuple(float(ranks[s]) for s in scores)) for gold, scores in traces]
    assert auc(*ranked) == auc(*traces)


def test_the_mean_over_subsets_is_plain() -> None:
    subsets = [{"f1": Metric(0.2, 400)}, {"f1": Metric(0.4, 1000)}, {"f1": Metric(0.9, 1)}]
    assert _mean(subsets) == {"f1": Metric(pytest.approx(0.5), 1401)}


def test_a_mean_over_what_is_undefined_is_undefined() -> None:
    assert _mean([{"f1": Metric(0.2, 4), "acc": Metric(0.5, 2)}, {"f1": Metric(None, 3), "acc": Metric(1.0, 2)}]) == {
        "f1": Metric(None, 7),
        "acc": Metric(0.75, 4),
    }


def test_the_mean_over_one_subset_is_that_subset() -> None:
    assert _mean([{"f1": Metric(0.25, 4)}]) == {"f1": Metric(0.25, 4)}


@pytest.mark.parametrize(
    ("scores", "prediction"),
    [
        ((0.6, 0.4, 0.1), 1),
        ((0.4, 0.9), 0),
        ((0.6, 0.7), -1),
        ((0.5, 0.5), -1),  # at the threshold is not below it
        ((math.nextafter(0.5, 0), 0.5), 0),
    ],
)
def test_the_first_step_below_the_threshold_is_called_wrong(scores: tuple[float, ...], prediction: int) -> None:
    assert Threshold("native", 0.5).predict(scores) == prediction


def test_native_is_the_scorers_own_and_fixed_anyones() -> None:
    assert threshold("native", 0.5) == Threshold("native", 0.5)
    assert threshold("native", None).predict((0.0,)) is None
    assert threshold("fixed:0.25", None) == Threshold("fixed:0.25", 0.25)
    assert threshold("fixed:-1e3", 0.5) == Threshold("fixed:-1000", -1000.0)


@pytest.mark.parametrize("text", ["", "fixed", "fixed:", "fixed:half", "fixed:nan", "fixed:inf", "0.5", "best:0.5"])
def test_other_thresholds_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="use native or fixed:x"):
        threshold(text, 0.5)
