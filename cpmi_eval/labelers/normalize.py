"""Bring raw step scores onto (0, 1) by where they stand among all scores of a set.

``zsig``: how far a score is from the middle, in robust standard deviations (Iglewicz & Hoaglin, "How to Detect and
Handle Outliers", 1993), through a sigmoid. ``quantile``: the share of scores below it. Both keep the order of the
scores; equal scores stay equal. What they return depends on the whole set, so two sets are not on one scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]

FURTHEST = 36.0  # a sigmoid of more than that is 1 in double precision


def zsig(values: ArrayLike) -> Floats:
    """Return sigmoid((x - median) / (1.4826 * MAD)) of each value (ValueError: one is not finite).

    Where more than half are equal, so that the MAD is 0, its place is taken by 1.2533 times the mean absolute deviation
    (both estimate the standard deviation of a normal distribution); where all are equal, all become 0.5.
    """
    import numpy as np
    from scipy.special import expit
    from scipy.stats import median_abs_deviation

    array = _finite(values)
    if array.size == 0:
        return array
    away = array - np.median(array)
    deviation = float(median_abs_deviation(array, axis=None, scale="normal"))
    scale = deviation or math.sqrt(math.pi / 2) * float(np.abs(away).mean())
    scores: Floats = expit(np.clip(away / (scale or 1.0), -FURTHEST, FURTHEST))
    return scores


def quantile(values: ArrayLike) -> Floats:
    """Return (rank - 0.5) / n of each value, equal ones sharing their mean rank (ValueError: one is not finite)."""
    from scipy.stats import rankdata

    array = _finite(values)
    ranks: Floats = rankdata(array, axis=None).reshape(array.shape)
    return (ranks - 0.5) / max(array.size, 1)


def _finite(values: ArrayLike) -> Floats:
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("scores to be normalised must be finite")
    return array


NORMALIZE: Mapping[str, Callable[[ArrayLike], Floats]] = {"zsig": zsig, "quantile": quantile}
