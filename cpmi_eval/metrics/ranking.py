"""Step AUC: are good steps scored above the first wrong one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpmi_eval.metrics.areas import Area
from cpmi_eval.metrics.outcome import Floats, Metric, Outcome
from cpmi_eval.metrics.spec import MetricSpec, describes


def labelled_steps(outcome: Outcome) -> tuple[list[int], list[float]]:
    """Return labels (1 good, 0 wrong) and scores of a trace's annotated steps.

    Good: every step before the first error. Wrong: the first error. Steps after it are not annotated and left out.
    """
    first = outcome.gold.first_error
    if outcome.scores is None or first is None:
        return [], []
    last = len(outcome.scores) if first < 0 else first + 1
    return [int(i != first) for i in range(last)], list(outcome.scores[:last])


@dataclass(frozen=True)
class StepAUC:
    """The annotated steps of all traces: labels (1 good, 0 wrong), scores, and the place of each one's trace."""

    labels: np.ndarray
    scores: Floats
    owners: np.ndarray

    def metrics(self) -> dict[str, Metric]:
        """Return step_auc; ``n`` counts the steps."""
        from sklearn.metrics import roc_auc_score

        defined = len(set(self.labels.tolist())) == 2
        return {
            "step_auc": Metric(float(roc_auc_score(self.labels, self.scores)) if defined else None, len(self.labels))
        }

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """Return step_auc for each weighting."""
        return {"step_auc": Area.of(self.scores, self.labels == 1, self.owners).resampled(weights)}


@describes(MetricSpec("step_auc", "AUC", "step AUC", "ROC AUC of steps", unit="fraction", ranks=True))
def compute(outcomes: Sequence[Outcome]) -> StepAUC:
    """Return the area under the ROC curve over all annotated steps of scored traces."""
    labels: list[int] = []
    scores: list[float] = []
    owners: list[int] = []
    for place, outcome in enumerate(outcomes):
        more_labels, more_scores = labelled_steps(outcome)
        labels += more_labels
        scores += more_scores
        owners += [place] * len(more_labels)
    return StepAUC(np.array(labels, dtype=int), np.array(scores, dtype=float), np.array(owners, dtype=int))
