"""Calibration: does a step score of 0.8 mean that four steps in five are good? And shares with their intervals.

Equal-width bins and the expected calibration error (Naeini, Cooper, Hauskrecht, AAAI 2015; Guo et al., arXiv
1706.04599), the Brier score, and Wilson's interval for a share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpmi_eval.metrics.outcome import Metric

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The things scored from ``low`` to below ``high`` (the last bin holds its upper edge too).

    ``mean_score``: their mean score; ``good``: the share of good ones with its 95% interval. ``None`` in an empty bin.
    """

    low: float
    high: float
    mean_score: float | None
    good: Metric


@dataclass(frozen=True)
class Calibration:
    """How scores, read as probabilities of being good, agree with what is good, over ``n`` things.

    ``ece``: the mean over bins of the distance between mean score and share of good ones, weighted by count. ``brier``:
    the mean squared distance of score and label; ``brier_of_share``: what scoring everything with ``share_good`` would
    get. Where ``reason`` is set, all else is ``None`` or empty: it says why there is no calibration to speak of.
    """

    n: int
    share_good: float | None = None
    ece: float | None = None
    brier: float | None = None
    brier_of_share: float | None = None
    bins: tuple[Bin, ...] = ()
    reason: str | None = None


def share(hits: int, n: int) -> Metric:
    """``hits`` of ``n`` with Wilson's 95% interval, which takes the ``n`` to be independent; ``None`` where n is 0."""
    if n == 0:
        return Metric(None, 0)
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(hits, n, alpha=0.05, method="wilson")
    return Metric(hits / n, n, interval=(float(low) if hits else 0.0, float(high) if hits < n else 1.0))


def calibration(labels: Sequence[int], scores: Sequence[float], others: Sequence[float] = ()) -> Calibration:
    """The calibration of scores that are probabilities, and elsewhere why there is none.

    Args:
        labels: 1 for good, 0 for not.
        scores: one for each label.
        others: further scores by the same scorer, without a label: they too must be in [0, 1].
    """
    if not len(labels):
        return Calibration(0, reason="nothing that is annotated was scored")
    lowest, highest = (float(edge([*scores, *others])) for edge in (min, max))
    if lowest < 0 or highest > 1:
        return Calibration(0, reason=f"scores range from {lowest:.3g} to {highest:.3g}, and a probability from 0 to 1")
    from sklearn.metrics import brier_score_loss

    n, good = len(labels), int(sum(labels))
    bins = reliability(labels, scores)
    filled = [(one.good.n, one.good.value, one.mean_score) for one in bins]
    distances = [count * abs(value - mean) for count, value, mean in filled if value is not None and mean is not None]
    return Calibration(
        n=n,
        share_good=good / n,
        ece=sum(distances) / n,
        brier=float(brier_score_loss(labels, scores, pos_label=1)),
        brier_of_share=good / n * (1 - good / n),
        bins=bins,
    )


def reliability(labels: Sequence[int], scores: Sequence[float]) -> tuple[Bin, ...]:
    """``BINS`` equal-width bins of scores in [0, 1], empty ones too. A score on an edge is in the upper bin."""
    edges = [place / BINS for place in range(BINS + 1)]  # as written: linspace puts 0.3 above 0.3
    places = np.digitize(scores, edges[1:-1])
    counts, sums, goods = (np.bincount(places, weights=one, minlength=BINS) for one in (None, scores, labels))
    return tuple(
        Bin(
            low=edges[place],
            high=edges[place + 1],
            mean_score=float(sums[place] / counts[place]) if counts[place] else None,
            good=share(round(goods[place]), int(counts[place])),
        )
        for place in range(BINS)
    )
