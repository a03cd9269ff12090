"""AUC within strata: only pairs of a good and a wrong thing from the same stratum are compared.

Of steps within their position: a scorer that merely rates late steps lower has an AUC above a half, for errors are not
spread evenly over positions; within a position it is at 0.5. Of solutions within their problem: what selecting among
them depends on, without credit for telling easy problems from hard ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cpmi_eval.metrics import ranking
from cpmi_eval.metrics.areas import Area
from cpmi_eval.metrics.outcome import Floats, Metric, Outcome
from cpmi_eval.metrics.uncertainty import Interval, intervals

NAME = "within_auc"
Stratum: TypeAlias = int | str


@dataclass(frozen=True)
class Within:
    """An AUC over ``pairs`` from ``strata`` strata that have pairs, with its 95% interval where there is one."""

    value: float | None
    pairs: int
    strata: int
    interval: Interval | None = None


@dataclass(frozen=True)
class WithinAUC:
    """The areas of the strata that hold a good and a wrong thing; each counts by its pairs."""

    areas: Mapping[Stratum, Area]

    @classmethod
    def of(cls, strata: Sequence[Stratum] | Any, labels: Any, scores: Any, owners: Any) -> WithinAUC:
        """Arrange things by stratum, all arguments of one length.

        Args:
            strata: where each thing belongs.
            labels: 1 good, 0 wrong.
            scores: higher = better.
            owners: the place of the trace that each is part of.
        """
        members: dict[Stratum, list[int]] = {}
        for place, stratum in enumerate(strata):
            members.setdefault(stratum, []).append(place)
        values, good, traces = np.array(scores, dtype=float), np.array(labels) == 1, np.array(owners, dtype=np.intp)
        areas = {name: Area.of(values[own], good[own], traces[own]) for name, own in members.items()}
        return cls({name: one for name, one in areas.items() if len(one.positive) and len(one.negative)})

    def summary(self, interval: Interval | None = None) -> Within:
        """The concordant share of all pairs; a tie counts a half."""
        pairs = {stratum: len(area.positive) * len(area.negative) for stratum, area in self.areas.items()}
        total = sum(pairs.values())
        concordant = sum((area.value() or 0.0) * pairs[stratum] for stratum, area in self.areas.items())
        return Within(concordant / total if total else None, total, len(pairs), interval)

    def only(self, strata: Sequence[Stratum]) -> WithinAUC:
        """What is left of it in these strata."""
        return WithinAUC({stratum: self.areas[stratum] for stratum in strata if stratum in self.areas})

    def with_interval(self, clusters: Sequence[str]) -> Within:
        """The same with its interval by bootstrap over problems; ``clusters``: each trace's problem."""
        bounds, _ = intervals({"": [self]}, {"": clusters}) if self.areas else ({}, {})
        return self.summary(bounds.get("", {}).get(NAME))

    def metrics(self) -> dict[str, Metric]:
        """It under its name; ``n`` counts the pairs."""
        found = self.summary()
        return {NAME: Metric(found.value, found.pairs)}

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """It for each weighting of the traces: a pair counts by the product of its two traces' weights."""
        concordant, total = np.zeros(len(weights)), np.zeros(len(weights))
        for area in self.areas.values():
            pairs = weights[:, area.positive].sum(axis=1) * weights[:, area.negative].sum(axis=1)
            concordant += np.nan_to_num(area.resampled(weights)) * pairs
            total += pairs
        with np.errstate(invalid="ignore", divide="ignore"):
            return {NAME: np.where(total > 0, concordant / total, np.nan)}


def within_position(outcomes: Sequence[Outcome]) -> WithinAUC:
    """The annotated steps of scored traces by their index: good ones against first errors of that index."""
    steps = ranking.compute(outcomes)
    return WithinAUC.of(steps.indices.tolist(), steps.labels, steps.scores, steps.owners)
