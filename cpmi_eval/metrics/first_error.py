"""ProcessBench's metric (arXiv 2412.06559): is the first wrong step found, and are correct traces left alone?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpmi_eval.metrics.outcome import Floats, Metric, Outcome
from cpmi_eval.metrics.spec import MetricSpec, describes


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), and 0 where both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


@dataclass(frozen=True)
class FirstError:
    """Per-trace counts (traces, 4): erroneous, found exactly, correct, left alone; each 0 or 1.

    ``undecided``: the scorer makes no decision, so nothing is defined.
    """

    counts: Floats
    undecided: bool

    def metrics(self) -> dict[str, Metric]:
        """``f1``, ``acc_error`` and ``acc_correct``."""
        erroneous, _, correct, _ = (int(total) for total in self.counts.sum(axis=0))
        sizes = {"f1": erroneous + correct, "acc_error": erroneous, "acc_correct": correct}
        values = {name: float(one[0]) for name, one in self.resampled(np.ones((1, len(self.counts)))).items()}
        return {name: Metric(None if math.isnan(values[name]) else values[name], n) for name, n in sizes.items()}

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The three of them for each weighting; F1 is that of the draw's two accuracies."""
        erroneous, found, correct, alone = (weights @ self.counts).T
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.where(erroneous > 0, found / erroneous, np.nan)
            clean = np.where(correct > 0, alone / correct, np.nan)
            f1 = np.where(error + clean == 0, 0.0, 2 * error * clean / (error + clean))
        if self.undecided:
            error, clean, f1 = (np.full(len(weights), np.nan) for _ in range(3))
        return {"f1": f1, "acc_error": error, "acc_correct": clean}


@describes(
    MetricSpec("f1", "F1", "F1", "F1 (harmonic mean of acc_error and acc_correct)", headline=True, decides=True),
    MetricSpec(
        "acc_error",
        "acc err.",
        "accuracy, erroneous",
        "First error found, of erroneous traces",
        part_of="f1",
        decides=True,
    ),
    MetricSpec(
        "acc_correct",
        "acc corr.",
        "accuracy, correct",
        "No error claimed, of correct traces",
        part_of="f1",
        decides=True,
    ),
)
def compute(outcomes: Sequence[Outcome]) -> FirstError:
    """acc_error (exact matches among erroneous traces), acc_correct (among correct ones) and their F1.

    A trace without a prediction is a miss; one without an annotation is left out. F1 is undefined where one of the two
    classes is absent or the scorer makes no decision.
    """
    counts = np.zeros((len(outcomes), 4))
    for row, one in zip(counts, outcomes, strict=True):
        gold = one.gold.first_error
        if gold is not None:
            at = 0 if gold >= 0 else 2
            row[at], row[at + 1] = 1, gold == one.prediction
    return FirstError(counts, any(one.undecided for one in outcomes))
