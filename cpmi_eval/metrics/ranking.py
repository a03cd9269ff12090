"""Step AUC: are good steps scored above the first wrong one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpmi_eval.metrics.areas import Area, Integers
from cpmi_eval.metrics.outcome import Floats, Metric, Outcome
from cpmi_eval.metrics.spec import MetricSpec, describes


def labelled_steps(outcome: Outcome) -> tuple[list[int], list[float]]:
    """Labels (1 good, 0 wrong) and scores of a trace's annotated steps.

    Good: every step before the first error. Wrong: the first error. Steps after it are not annotated and left out.
    """
    first = outcome.gold.first_error
    if outcome.scores is None or first is None:
        return [], []
    last = len(outcome.scores) if first < 0 else first + 1
    return [int(i != first) for i in range(last)], list(outcome.scores[:last])


@dataclass(frozen=True)
class StepAUC:
    """The annotated steps of all traces: labels (1 good, 0 wrong), scores, indices, and the places of their traces."""

    labels: Integers
    scores: Floats
    indices: Integers
    owners: Integers

    def metrics(self) -> dict[str, Metric]:
        """``step_auc``; ``n`` counts the steps."""
        from sklearn.metrics import roc_auc_score

        defined = len(set(self.labels.tolist())) == 2
        value = float(roc_auc_score(self.labels, self.scores)) if defined else None
        return {"step_auc": Metric(value, len(self.labels))}

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """``step_auc`` for each weighting."""
        return {"step_auc": Area.of(self.scores, self.labels == 1, self.owners).resampled(weights)}


@describes(MetricSpec("step_auc", "AUC", "step AUC", "ROC AUC of steps", unit="fraction", ranks=True))
def compute(outcomes: Sequence[Outcome]) -> StepAUC:
    """The area under the ROC curve over all annotated steps of scored traces."""
    found = [
        (label, score, index, place)
        for place, outcome in enumerate(outcomes)
        for index, (label, score) in enumerate(zip(*labelled_steps(outcome), strict=True))
    ]
    labels, scores, indices, owners = zip(*found, strict=True) if found else ((), (), (), ())
    good, at, traces = (np.array(one, dtype=np.intp) for one in (labels, indices, owners))
    return StepAUC(good, np.array(scores, dtype=float), at, traces)
