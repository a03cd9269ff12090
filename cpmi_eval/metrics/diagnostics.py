"""What stands behind a run's headline numbers: where it is right, what cheap rules reach, what its scores mean.

Everything is computed from the records of one part of a task, without a model. What is not defined on the data is
``None`` with ``n`` = 0; nothing is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from cpmi_eval.metrics.calibration import Calibration, share
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.solutions import SolutionDiagnostics, diagnose_solutions, is_right
from cpmi_eval.metrics.steps import StepDiagnostics, diagnose_steps, is_erroneous
from cpmi_eval.metrics.within import Within
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import Run
from cpmi_eval.types import JSON


@dataclass(frozen=True)
class Coverage:
    """How many traces there are and how many have scores; ``failures``: the others by kind.

    ``unscored``: the share without scores among traces of each class; they are misses there.
    """

    traces: int
    scored: int
    failures: Mapping[str, int]
    unscored: Mapping[str, Metric]


@dataclass(frozen=True)
class LastMinimum:
    """The share of ``n`` traces whose lowest score is on their last step; of tied lowest steps each counts in part.

    ``expected``: what it would be if the lowest score fell on any step alike.
    """

    n: int
    share: float | None
    expected: float | None


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of one part of a task: of ``steps``, or of ``solutions`` where the task selects among these.

    Classes of traces are ``erroneous`` and ``correct`` ones by their annotated steps, or ``wrong`` and ``right``
    solutions by their answers. ``last_minimum``: of ``all`` scored traces, and of each class.
    """

    coverage: Coverage
    last_minimum: Mapping[str, LastMinimum]
    steps: StepDiagnostics | None
    solutions: SolutionDiagnostics | None

    def as_dict(self) -> JSON:
        """Return what results.json holds: the fields by name, ``None`` for what the task does not have."""
        found: JSON = plain(self)
        return found


def diagnose(records: Sequence[Record], undecided: bool) -> Diagnostics:
    """Return the diagnostics of one part of a task.

    Args:
        records: its traces; those without any step, which nobody could score, are none of them.
        undecided: the scorer makes no decision: accuracies and counts of decisions are ``None``.
    """
    selects = any(one.gold.candidate is not None for one in records)
    if selects:
        classes = {
            "wrong": [one for one in records if not is_right(one)],
            "right": [one for one in records if is_right(one)],
        }
    else:
        annotated = [one for one in records if one.gold.first_error is not None]
        classes = {
            "erroneous": [one for one in annotated if is_erroneous(one)],
            "correct": [one for one in annotated if not is_erroneous(one)],
        }
    return Diagnostics(
        coverage=_coverage(records, classes),
        last_minimum={name: last_minimum(group) for name, group in {"all": records, **classes}.items()},
        steps=None if selects else diagnose_steps(records, undecided),
        solutions=diagnose_solutions(records) if selects else None,
    )


def diagnose_run(run: Run) -> dict[str, Diagnostics]:
    """Return the diagnostics of each reported part of a finished run."""
    return {part: diagnose(records, run.undecided) for part, records in run.parts.items()}


def _coverage(records: Sequence[Record], classes: Mapping[str, Sequence[Record]]) -> Coverage:
    """Return how many of the records are scored, and of each class the share that is not."""
    unscored = {name: [one for one in group if one.scores is None] for name, group in classes.items()}
    return Coverage(
        traces=len(records),
        scored=sum(one.scores is not None for one in records),
        failures=dict(Counter((one.error or {}).get("kind", "unknown") for one in records if one.scores is None)),
        unscored={name: share(len(unscored[name]), len(group)) for name, group in classes.items()},
    )


def last_minimum(records: Sequence[Record]) -> LastMinimum:
    """Return how often the lowest score is on the last step, of the records that have scores."""
    scores = [one.scores for one in records if one.scores]
    if not scores:
        return LastMinimum(0, None, None)
    hits = [one.count(one[-1]) ** -1 if one[-1] == min(one) else 0.0 for one in scores]
    return LastMinimum(len(scores), sum(hits) / len(scores), sum(1 / len(one) for one in scores) / len(scores))


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and tuples as what JSON holds; what has an ``as_dict`` of its own by that."""
    if isinstance(value, Metric | Within | Calibration):
        return value.as_dict()
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple) else value
