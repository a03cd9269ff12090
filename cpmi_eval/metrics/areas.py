"""The area under the ROC curve where traces count more or less than once: what resampling needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cpmi_eval.metrics.outcome import Floats

Integers = NDArray[np.intp]
CHUNK = 4_000_000  # weights of positives held at once, by draws


@dataclass(frozen=True)
class Area:
    """Scores of positives and negatives, each with the place of the trace that it belongs to.

    ``positive`` is sorted; ``left`` and ``right`` say, for each negative, where in it equal scores begin and end.
    """

    positive: Integers
    negative: Integers
    left: Integers
    right: Integers

    @classmethod
    def of(cls, scores: Floats, labels: NDArray[np.bool_], owners: Integers) -> Area:
        """Arrange scores, all arrays of one length; ``labels``: which are positive, ``owners``: places of traces."""
        good = np.sort(scores[labels])
        order = np.argsort(scores[labels], kind="stable")
        wrong = scores[~labels]
        return cls(
            positive=owners[labels][order],
            negative=owners[~labels],
            left=np.searchsorted(good, wrong, "left"),
            right=np.searchsorted(good, wrong, "right"),
        )

    def value(self) -> float | None:
        """The area with every trace counted once; ``None`` where a class is absent."""
        if not len(self.positive) or not len(self.negative):
            return None
        above = len(self.positive) - (self.left + self.right) / 2
        return float(above.mean() / len(self.positive))

    def resampled(self, weights: Floats) -> Floats:
        """The area for each weighting, (draws, traces) -> (draws,); NaN where a class is absent."""
        step = max(1, CHUNK // max(1, len(self.positive)))
        parts = [self._areas(weights[start : start + step]) for start in range(0, len(weights), step)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _areas(self, weights: Floats) -> Floats:
        good = np.zeros((len(weights), len(self.positive) + 1))
        np.cumsum(weights[:, self.positive], axis=1, out=good[:, 1:])
        wrong = weights[:, self.negative]
        total = good[:, -1]
        above = total[:, None] - (good[:, self.left] + good[:, self.right]) / 2
        pairs = total * wrong.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = np.where(pairs > 0, (above * wrong).sum(axis=1) / pairs, np.nan)
        return found
