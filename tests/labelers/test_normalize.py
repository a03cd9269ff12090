"""Normalised scores against values worked out by hand, and what must hold for all scores."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cpmi_eval.labelers.normalize import NORMALIZE, quantile, zsig


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


scores = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=30)


def test_zsig_by_hand() -> None:
    # median 3; distances 2, 1, 0, 1, 97: their median is 1, so one standard deviation is 1.4826
    unit = 1 / 1.4826022
    expected = [sigmoid(-2 * unit), sigmoid(-unit), 0.5, sigmoid(unit), 1.0]
    assert zsig([1, 2, 3, 4, 100]) == pytest.approx(expected, abs=1e-7)
    assert zsig([1, 2, 3, 4, 100])[4] < 1


def test_zsig_where_more_than_half_are_equal() -> None:
    # median 0 and MAD 0; mean distance (0 + 0 + 0 + 4) / 4 = 1, so one standard deviation is 1.2533
    assert zsig([0, 0, 0, 4]) == pytest.approx([0.5, 0.5, 0.5, sigmoid(4 / 1.2533141)], abs=1e-7)


def test_zsig_where_all_are_equal() -> None:
    assert list(zsig([7.5] * 4)) == [0.5] * 4
    assert list(zsig([-3.0])) == [0.5]


def test_quantile_by_hand() -> None:
    # ranks 4, 1, 2.5, 2.5 of 4
    assert list(quantile([9, -1, 2, 2])) == [0.875, 0.125, 0.5, 0.5]
    assert list(quantile([-3.0])) == [0.5]


@pytest.mark.parametrize("name", NORMALIZE)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        NORMALIZE[name]([0.0, bad])


@pytest.mark.parametrize("name", NORMALIZE)
def test_nothing_stays_nothing(name: str) -> None:
    assert NORMALIZE[name]([]).shape == (0,)


@pytest.mark.parametrize("name", NORMALIZE)
@given(scores)
def test_order_and_ties_are_kept_within_0_and_1(name: str, values: list[float]) -> None:
    made = NORMALIZE[name](values)
    assert made.dtype == np.float64
    assert made.shape == (len(values),)
    assert ((made > 0) & (made < 1)).all()
    for a, x in zip(values, made, strict=True):
        for b, y in zip(values, made, strict=True):
            assert (x <= y) if a < b else (a > b or x == y)


@given(scores)
def test_quantile_tells_all_different_scores_apart(values: list[float]) -> None:
    assert len(set(quantile(values))) == len(set(values))


@given(scores, st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_zsig_ignores_scale_and_shift(values: list[float], scale: float, shift: float) -> None:
    moved = np.asarray(values) * scale + shift
    apart = np.diff(np.unique(values))
    # Rounding may make two scores equal, or equal distances differ, where one dwarfs the other.
    assume(apart.size == 0 or apart.min() > 1e-6 * max(1.0, np.abs(values).max()))
    assert zsig(moved) == pytest.approx(zsig(values), abs=1e-4)


@given(scores)
def test_quantile_depends_on_the_order_alone(values: list[float]) -> None:
    assert list(quantile(np.asarray(values) * 3)) == list(quantile(values))
