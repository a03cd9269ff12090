"""Aggregated step scores against final answers, for tasks that select among solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpmi_eval.metrics.best_of_n import AGGREGATIONS
from cpmi_eval.metrics.calibration import Calibration, calibration
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.steps import length_scores
from cpmi_eval.metrics.within import Within, WithinAUC, with_interval
from cpmi_eval.record.rows import Record


@dataclass(frozen=True)
class SolutionScores:
    """One score per solution: its AUC over all of them, that within problems, and as a probability of being right.

    ``calibration`` is ``None`` for baselines, whose scores are none.
    """

    outcome_auc: Metric
    within_problem_auc: Within
    calibration: Calibration | None = None


@dataclass(frozen=True)
class SolutionDiagnostics:
    """Diagnostics over scored solutions.

    ``aggregations``: of step scores, without the product where a score is negative. ``baselines``: ``fewer_steps`` and
    ``shorter`` (fewer characters), the more the better.
    """

    aggregations: Mapping[str, SolutionScores]
    baselines: Mapping[str, SolutionScores]


def is_right(record: Record) -> bool:
    """Return whether a solution counts as right: it has a readable answer, and that is correct."""
    candidate = record.gold.candidate
    return record.gold.final_answer_correct is True and candidate is not None and candidate.answer is not None


def diagnose_solutions(records: Sequence[Record]) -> SolutionDiagnostics:
    """Return the diagnostics of one part's solutions; those without scores are left out."""
    scored = [(one, one.scores) for one in records if one.scores]
    kept = [one for one, _ in scored]
    negative = any(score < 0 for _, scores in scored for score in scores)
    aggregated = {
        name: [how(scores) for _, scores in scored]
        for name, how in AGGREGATIONS.items()
        if not (negative and name == "product")
    }
    simple = {
        "fewer_steps": [-float(len(one.steps)) for one in kept],
        "shorter": [sum(lengths) for lengths in length_scores(kept)],
    }
    labels = [int(is_right(one)) for one in kept]
    return SolutionDiagnostics(
        aggregations={
            name: _scores(kept, labels, values, calibration(labels, values)) for name, values in aggregated.items()
        },
        baselines={name: _scores(kept, labels, values) for name, values in simple.items()},
    )


def _scores(
    records: Sequence[Record], labels: Sequence[int], values: Sequence[float], agreement: Calibration | None = None
) -> SolutionScores:
    from sklearn.metrics import roc_auc_score

    area = float(roc_auc_score(labels, values)) if len(set(labels)) == 2 else None
    problems = [one.gold.candidate.problem if one.gold.candidate else one.cluster for one in records]
    within = WithinAUC.of(problems, labels, values, range(len(records)))
    return SolutionScores(Metric(area, len(labels)), with_interval(within, problems), agreement)
