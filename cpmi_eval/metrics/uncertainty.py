"""95% intervals by bootstrap over problems, within subsets.

Traces of one problem are not independent: whole problems are drawn with replacement, within each subset (a stratified
cluster bootstrap), and the metrics are computed from the same draws, so that F1 is that of its two accuracies jointly.
Intervals are bias-corrected and accelerated (BCa, Efron 1987): F1 is concave in its accuracies, so that percentiles
would sit too low for it. They say how far a result would move with other problems of the same kind; not with another
seed, another model, or another choice of a threshold that was fitted.

The correction leaves out every unit that is drawn once, so that its work would grow with the square of their number.
Of more than MAX_GROUPS problems in a part, random groups of equal size are therefore drawn as wholes: as good an
estimate of the spread, itself uncertain by 1 / sqrt(2 MAX_GROUPS), 1.6% of the width.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cpmi_eval.metrics.outcome import Floats, Metric, Statistics

RESAMPLES = 2000
LEVEL = 0.95
BATCH = 250  # resamples at once
MAX_GROUPS = 2000  # drawn from in a part: of more problems, random groups of one size are drawn
MAX_UNDEFINED = 0.05  # of the resamples: beyond it there is no interval

Interval = tuple[float, float]


def intervals(
    statistics: Mapping[str, Sequence[Statistics]],
    clusters: Mapping[str, Sequence[str]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, dict[str, Interval]], dict[str, Interval]]:
    """The intervals of every metric that is no detail: by part, and of the mean over parts.

    Args:
        statistics: by part, those of its metrics.
        clusters: by part, the problem of each trace, in the order of the statistics.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        Bounds by part and metric, and bounds of the means of metrics that every part has. A metric that is undefined
        in more than 5% of the draws has none; where it is in some, or where all draws are alike, the correction is
        undefined and bounds are percentiles of the others.
    """
    from scipy.stats import bootstrap

    parts = [part for part in statistics if len(clusters[part])]
    if not parts:
        return {}, {}
    members = {part: _groups(clusters[part], seed) for part in parts}
    counts = {part: int(members[part].max()) + 1 for part in parts}
    if min(counts.values()) < 2:  # a single problem says nothing of its spread
        return {}, {}
    names: list[tuple[str, str]] = []

    def resampled(*drawn: Any, axis: int) -> Floats:
        """The metrics (metrics, draws) of the parts' drawn problems, each (draws, problems of the part)."""
        rows: dict[tuple[str, str], Floats] = {}
        for part, indices in zip(parts, map(np.atleast_2d, drawn), strict=True):
            weights = multiplicities(indices, counts[part])[:, members[part]]
            for one in statistics[part]:
                rows |= {(part, name): values for name, values in one.resampled(weights).items()}
        for name in dict.fromkeys(name for _, name in rows):
            every = [rows[part, name] for part in parts if (part, name) in rows]
            if len(every) == len(parts):
                rows["", name] = np.mean(every, axis=0)
        names[:] = rows
        found = np.stack(list(rows.values()))
        return found if np.ndim(drawn[0]) > 1 else found[:, 0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined draws and values that do not vary: see below
        result = bootstrap(
            [np.arange(counts[part]) for part in parts],
            resampled,
            n_resamples=resamples,
            batch=BATCH,
            vectorized=True,
            method="BCa",
            confidence_level=LEVEL,
            rng=np.random.default_rng(seed),
        )
    found: dict[str, dict[str, Interval]] = {part: {} for part in ("", *parts)}
    bounds = np.stack([result.confidence_interval.low, result.confidence_interval.high], axis=-1)
    for (part, name), corrected, draws in zip(names, bounds, result.bootstrap_distribution, strict=True):
        one = percentiles(draws) if np.isnan(corrected).any() else (float(corrected[0]), float(corrected[1]))
        if one is not None:
            found[part][name] = one
    return {part: found[part] for part in parts}, found[""]


def _groups(clusters: Sequence[str], seed: int) -> Any:
    """The number of the unit that each trace is drawn with: its problem, or a random group of problems."""
    problems = np.unique(np.array(clusters), return_inverse=True)[1]
    count = int(problems.max()) + 1
    if count <= MAX_GROUPS:
        return problems
    return np.random.default_rng(seed).permutation(count)[problems] % MAX_GROUPS


def multiplicities(drawn: Any, count: int) -> Floats:
    """How often each of ``count`` problems was drawn: (draws, any number of indices) -> (draws, count)."""
    offsets = np.arange(len(drawn))[:, None] * count
    flat = np.bincount((drawn + offsets).ravel(), minlength=len(drawn) * count)
    return flat.reshape(len(drawn), count).astype(float)


def percentiles(values: Floats) -> Interval | None:
    """Bounds of the central 95% of resampled values, without undefined ones; ``None`` if these are many."""
    defined = values[~np.isnan(values)]
    if not len(defined) or len(defined) < (1 - MAX_UNDEFINED) * len(values):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def with_intervals(metrics: Mapping[str, Metric], bounds: Mapping[str, Interval]) -> dict[str, Metric]:
    """Each metric with its interval where there is one."""
    return {name: replace(one, interval=bounds.get(name)) for name, one in metrics.items()}
