"""ProcessBench's metric (arXiv 2412.06559): is the first wrong step found, and are correct traces left alone?"""

from __future__ import annotations

from collections.abc import Sequence

from cpmi_eval.metrics.outcome import Metric, Outcome


def harmonic_mean(a: float, b: float) -> float:
    """Return 2ab / (a + b), and 0 where both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def compute(outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    """Return acc_error (exact matches among erroneous traces), acc_correct (among correct ones) and their F1.

    A trace without a prediction is a miss; one without an annotation is left out. F1 is undefined where one of the two
    classes is absent or the scorer makes no decision.
    """
    accuracies: dict[str, Metric] = {}
    undecided = any(outcome.undecided for outcome in outcomes)
    pairs = [(one.gold.first_error, one.prediction) for one in outcomes if one.gold.first_error is not None]
    for name, erroneous in (("acc_error", True), ("acc_correct", False)):
        group = [(gold, prediction) for gold, prediction in pairs if (gold >= 0) == erroneous]
        hits = sum(gold == prediction for gold, prediction in group)
        accuracies[name] = Metric(hits / len(group) if group and not undecided else None, len(group))
    error, correct = accuracies["acc_error"].value, accuracies["acc_correct"].value
    f1 = None if error is None or correct is None else harmonic_mean(error, correct)
    return {"f1": Metric(f1, len(pairs)), **accuracies}
