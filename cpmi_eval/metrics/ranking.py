"""Step AUC: are good steps scored above the first wrong one?"""

from __future__ import annotations

from collections.abc import Sequence

from cpmi_eval.metrics.outcome import Metric, Outcome


def labelled_steps(outcome: Outcome) -> tuple[list[int], list[float]]:
    """Return labels (1 good, 0 wrong) and scores of a trace's annotated steps.

    Good: every step before the first error. Wrong: the first error. Steps after it are not annotated and left out.
    """
    first = outcome.gold.first_error
    if outcome.scores is None or first is None:
        return [], []
    last = len(outcome.scores) if first < 0 else first + 1
    return [int(i != first) for i in range(last)], list(outcome.scores[:last])


def compute(outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    """Return the area under the ROC curve over all annotated steps of scored traces; ``n`` counts these steps."""
    labels: list[int] = []
    scores: list[float] = []
    for outcome in outcomes:
        more_labels, more_scores = labelled_steps(outcome)
        labels += more_labels
        scores += more_scores
    if len(set(labels)) < 2:
        return {"step_auc": Metric(None, len(labels))}
    from sklearn.metrics import roc_auc_score

    return {"step_auc": Metric(float(roc_auc_score(labels, scores)), len(labels))}
