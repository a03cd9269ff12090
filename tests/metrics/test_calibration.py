"""Shares with Wilson's interval, reliability bins, calibration error, Brier score."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from cpmi_eval.analysis.diagnostics import plain
from cpmi_eval.metrics.calibration import BINS, calibration, reliability, share


@pytest.mark.parametrize(("hits", "n"), [(3, 10), (0, 7), (7, 7), (1, 1), (250, 400)])
def test_a_share_has_wilsons_interval(hits: int, n: int) -> None:
    z, p = 1.959963984540054, hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = share(hits, n)
    assert (found.value, found.n) == (p, n)
    assert found.interval == pytest.approx(
        ((centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)), abs=1e-12
    )
    assert found.interval is not None
    assert 0 <= found.interval[0] <= p <= found.interval[1] <= 1


def test_a_share_of_nothing_is_not_defined() -> None:
    assert share(0, 0).as_dict() == {"value": None, "n": 0}


def test_bounds_at_none_and_all_are_exact() -> None:
    assert share(0, 7).interval[0] == 0.0  # type: ignore[index]
    assert share(7, 7).interval[1] == 1.0  # type: ignore[index]


def test_calibration_by_hand() -> None:
    # bin 0.1: scores 0.1, 0.15, one of two good: |0.5 - 0.125| = 0.375; bin 0.8: 0.8, 0.85, 0.87, two of three good:
    # |2/3 - 0.84|; bin 0.9: 1.0, good: 0
    scores, labels = (0.1, 0.15, 0.8, 0.85, 0.87, 1.0), (0, 1, 1, 0, 1, 1)
    found = calibration(labels, scores)
    assert found.reason is None
    assert found.n == 6
    assert found.ece == pytest.approx((2 * 0.375 + 3 * abs(2 / 3 - 0.84) + 0) / 6)
    assert found.brier == pytest.approx((0.01 + 0.7225 + 0.04 + 0.7225 + 0.0169 + 0) / 6)
    assert found.share_good == pytest.approx(4 / 6)
    assert found.brier_of_share == pytest.approx((4 * (1 / 3) ** 2 + 2 * (2 / 3) ** 2) / 6)
    assert [one.good.n for one in found.bins] == [0, 2, 0, 0, 0, 0, 0, 0, 3, 1]
    assert found.bins[1].mean_score == pytest.approx(0.125)
    assert found.bins[1].good == share(1, 2)
    assert (found.bins[0].mean_score, found.bins[0].good.value, found.bins[0].good.interval) == (None, None, None)


def test_a_score_on_an_edge_is_in_the_upper_bin() -> None:
    for place in range(BINS):
        bins = reliability([1], [place / BINS])
        assert [one.good.n for one in bins].index(1) == place
        assert (bins[place].low, bins[place].high) == (place / BINS, (place + 1) / BINS)
    assert reliability([1], [1.0])[-1].good.n == 1


def test_bins_agree_with_scikit_learn() -> None:
    rng = random.Random(0)
    scores = [rng.random() for _ in range(3000)]
    labels = [int(rng.random() < score**2) for score in scores]
    good, predicted = calibration_curve(labels, scores, n_bins=BINS)
    bins = reliability(labels, scores)
    np.testing.assert_allclose([one.good.value for one in bins], good)
    np.testing.assert_allclose([one.mean_score for one in bins], predicted)
    assert calibration(labels, scores).ece == pytest.approx(
        sum(one.good.n * abs(g - p) for one, g, p in zip(bins, good, predicted, strict=True)) / 3000
    )


def test_scores_that_are_the_share_of_good_ones_are_calibrated() -> None:
    scores = [0.25] * 400 + [0.75] * 400
    labels = [1] * 100 + [0] * 300 + [1] * 300 + [0] * 100
    found = calibration(labels, scores)
    assert found.ece == pytest.approx(0)
    assert found.brier == pytest.approx(0.25 * 0.75)
    assert found.brier < found.brier_of_share  # type: ignore[operator]


@pytest.mark.parametrize(
    ("labels", "scores", "others", "reason"),
    [
        ((), (), (), "nothing that is annotated was scored"),
        ((), (), (0.5,), "nothing that is annotated was scored"),
        ((1, 0), (0.5, 1.5), (), "scores range from 0.5 to 1.5, and a probability from 0 to 1"),
        ((1, 0), (0.5, 0.25), (-0.125,), "scores range from -0.125 to 0.5, and a probability from 0 to 1"),
        ((1,), (-3.0,), (), "scores range from -3 to -3, and a probability from 0 to 1"),
    ],
)
def test_what_is_no_probability_is_not_calibrated_and_says_why(
    labels: tuple[int, ...], scores: tuple[float, ...], others: tuple[float, ...], reason: str
) -> None:
    found = calibration(labels, scores, others)
    assert (found.reason, found.n, found.ece, found.brier, found.bins) == (reason, 0, None, None, ())


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_enough(label: int) -> None:
    found = calibration([label] * 3, [0.0, 0.5, 1.0])
    errors = [abs(label - score) for score in (0.0, 0.5, 1.0)]
    assert found.ece == pytest.approx(sum(errors) / 3)
    assert found.brier == pytest.approx(sum(one**2 for one in errors) / 3)
    assert found.brier_of_share == 0


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=60), st.randoms())
def test_bins_hold_everything_whatever_the_order(pairs: list[tuple[int, float]], order: random.Random) -> None:
    found = calibration(*zip(*pairs, strict=True))
    assert sum(one.good.n for one in found.bins) == len(pairs) == found.n
    assert sum(one.good.n * (one.good.value or 0) for one in found.bins) == pytest.approx(sum(one for one, _ in pairs))
    for one in found.bins:
        assert one.mean_score is None or one.low - 1e-9 <= one.mean_score <= one.high + 1e-9
    assert found.ece is not None
    assert 0 <= found.ece <= 1
    order.shuffle(pairs)
    assert calibration(*zip(*pairs, strict=True)).ece == pytest.approx(found.ece)


def test_as_json() -> None:
    document = json.loads(json.dumps(plain(calibration([1, 0], [0.95, 0.05])), allow_nan=False))
    assert list(document) == ["n", "share_good", "ece", "brier", "brier_of_share", "bins", "reason"]
    assert document["bins"][0] == {
        "low": 0.0,
        "high": 0.1,
        "mean_score": 0.05,
        "good": {"value": 0.0, "n": 1, "interval": list(share(0, 1).interval or ())},
    }
    assert document["bins"][1] == {"low": 0.1, "high": 0.2, "mean_score": None, "good": {"value": None, "n": 0}}
