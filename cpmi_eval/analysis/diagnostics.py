"""What stands behind a run's headline numbers: where it is right, what cheap rules reach, what its scores mean.

Everything is computed from the records of one part of a task, without a model. What is not defined on the data is
``None`` with ``n`` = 0; nothing is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias

from cpmi_eval.labelers.baselines import LengthBaseline
from cpmi_eval.metrics import first_error, ranking, thresholds
from cpmi_eval.metrics.best_of_n import AGGREGATIONS
from cpmi_eval.metrics.calibration import Calibration, calibration, share
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.within import Within, WithinAUC, within_position
from cpmi_eval.record.results import Form
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import Run, outcome
from cpmi_eval.types import JSON, StepScores, Trace

POSITIONS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, None))
LENGTHS = ((1, 3), (4, 6), (7, 9), (10, None))
Scores: TypeAlias = tuple[float, ...]


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
class Quality:
    """The metrics of a scorer. ``oracle``: its threshold was fitted to these very traces, so F1 is a ceiling.

    F1 and accuracies are over annotated traces, the two AUCs over annotated steps of traces that the run scored.
    """

    f1: Metric
    acc_error: Metric
    acc_correct: Metric
    step_auc: Metric
    within_position_auc: Within
    oracle: bool = False
    threshold: float | None = None


@dataclass(frozen=True)
class Found:
    """Where the first error of erroneous traces was called. Counts are ``None`` where the scorer decides nothing."""

    exact: Metric
    too_early: int | None = None
    too_late: int | None = None
    missed: int | None = None
    no_prediction: int | None = None


@dataclass(frozen=True)
class AtPosition:
    """Traces whose first error is at index ``first`` to ``last`` (``None``: or later), and the AUC at these indices."""

    first: int
    last: int | None
    errors: Found
    within_position_auc: Within


@dataclass(frozen=True)
class OfLength:
    """Traces of ``first`` to ``last`` steps (``None``: or more). ``correct``: share of correct ones left alone."""

    first: int
    last: int | None
    errors: Found
    correct: Metric


@dataclass(frozen=True)
class RightAnswer:
    """Traces that have an error and end in the right answer: its exact place, and who calls them correct."""

    n: int
    exact: Metric
    called_correct: Metric


@dataclass(frozen=True)
class StepDiagnostics:
    """Step scores against annotated first errors.

    ``at_oracle``: the scorer itself with the best threshold on these traces, which is what the baselines with such a
    threshold compare with. ``baselines``: ``all_correct``, ``last_step``, ``position`` (later = worse), ``length``
    (longer = worse).
    """

    scorer: Quality
    at_oracle: Quality
    baselines: Mapping[str, Quality]
    calibration: Calibration
    right_answer: RightAnswer
    by_position: tuple[AtPosition, ...]
    by_length: tuple[OfLength, ...]


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
    """Aggregated step scores of scored solutions against final answers.

    ``aggregations``: of step scores, without the product where a score is negative. ``baselines``: ``fewer_steps`` and
    ``shorter`` (fewer characters), the more the better.
    """

    aggregations: Mapping[str, SolutionScores]
    baselines: Mapping[str, SolutionScores]


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
        """The fields by name, ``None`` for what the task does not have."""
        found: JSON = plain(self)
        return found


def plain(value: Any) -> Any:
    """As what JSON holds: dataclasses by their fields, without an interval where there is none."""
    if isinstance(value, Form):
        return value.as_dict()
    if is_dataclass(value):
        known = {one.name: getattr(value, one.name) for one in fields(value)}
        return {name: plain(one) for name, one in known.items() if (name, one) not in _LEFT_OUT}
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


_LEFT_OUT = (("interval", None), ("detail", False))


def diagnose_run(run: Run) -> dict[str, Diagnostics]:
    """Diagnose each reported part of a finished run."""
    return {part: diagnose(records, run.undecided) for part, records in run.parts.items()}


def diagnose(records: Sequence[Record], undecided: bool) -> Diagnostics:
    """Diagnose one part of a task.

    Args:
        records: its traces; those without any step, which nobody could score, are none of them.
        undecided: the scorer makes no decision: accuracies and counts of decisions are ``None``.
    """
    selects = any(one.gold.candidate is not None for one in records)
    judged = records if selects else [one for one in records if one.gold.first_error is not None]
    good, names = (is_right, ("wrong", "right")) if selects else (_is_correct, ("erroneous", "correct"))
    classes = {name: [one for one in judged if good(one) == place] for place, name in enumerate(names)}
    unscored = {name: [one for one in group if one.scores is None] for name, group in classes.items()}
    coverage = Coverage(
        traces=len(records),
        scored=sum(one.scores is not None for one in records),
        failures=dict(Counter(one.error.kind for one in records if one.error is not None)),
        unscored={name: share(len(unscored[name]), len(group)) for name, group in classes.items()},
    )
    return Diagnostics(
        coverage,
        {name: last_minimum(group) for name, group in {"all": records, **classes}.items()},
        steps=None if selects else _steps(records, judged, classes["erroneous"], classes["correct"], undecided),
        solutions=_solutions(records) if selects else None,
    )


def _is_correct(record: Record) -> bool:
    return record.gold.first_error is not None and record.gold.first_error < 0


def is_right(record: Record) -> bool:
    """Whether a solution counts as right: it has a readable answer, and that is correct."""
    candidate = record.gold.candidate
    return record.gold.final_answer_correct is True and candidate is not None and candidate.answer is not None


def last_minimum(records: Sequence[Record]) -> LastMinimum:
    """How often the lowest score is on the last step, of the records that have scores."""
    scores = [one.scores for one in records if one.scores]
    if not scores:
        return LastMinimum(0, None, None)
    hits = [one.count(one[-1]) ** -1 if one[-1] == min(one) else 0.0 for one in scores]
    return LastMinimum(len(scores), sum(hits) / len(scores), sum(1 / len(one) for one in scores) / len(scores))


def _length_scores(records: Sequence[Record]) -> list[Scores]:
    """The step scores of the labeler ``length``."""
    traces = [Trace(one.id, one.problem, one.steps) for one in records]
    return [one.values for one in LengthBaseline().score(traces, None) if isinstance(one, StepScores)]


# --- steps -----------------------------------------------------------------------------------------------------------


def _steps(
    records: Sequence[Record],
    annotated: Sequence[Record],
    erroneous: Sequence[Record],
    correct: Sequence[Record],
    undecided: bool,
) -> StepDiagnostics:
    outcomes = [outcome(one) for one in annotated]
    areas, steps = within_position(outcomes), ranking.compute(outcomes)
    deepest = max((len(one.steps) for one in annotated), default=0)
    lucky = [one for one in erroneous if one.gold.final_answer_correct]
    later = [tuple(-float(place) for place in range(len(one.steps))) for one in annotated]
    return StepDiagnostics(
        scorer=_quality(annotated, undecided, interval=True),
        at_oracle=_at_oracle(annotated, [one.scores for one in annotated]),
        baselines={  # rules that know nothing of the text but its layout
            "all_correct": _rule(annotated, lambda n: (0.0,) * n, lambda n: -1),
            "last_step": _rule(annotated, lambda n: (1.0,) * (n - 1) + (0.0,), lambda n: n - 1),
            "position": _at_oracle(annotated, later),
            "length": _at_oracle(annotated, _length_scores(annotated), interval=True),
        },
        calibration=calibration(
            steps.labels.tolist(), steps.scores.tolist(), [score for one in records for score in one.scores or ()]
        ),
        right_answer=RightAnswer(len(lucky), _found(lucky, undecided).exact, _called_correct(lucky, undecided)),
        by_position=tuple(
            AtPosition(
                first,
                last,
                _found([one for one in erroneous if _within(one.gold.first_error, first, last)], undecided),
                areas.only(range(first, deepest if last is None else last + 1)).summary(),
            )
            for first, last in POSITIONS
        ),
        by_length=tuple(
            OfLength(
                first,
                last,
                _found([one for one in erroneous if _within(len(one.steps), first, last)], undecided),
                _called_correct([one for one in correct if _within(len(one.steps), first, last)], undecided),
            )
            for first, last in LENGTHS
        ),
    )


def _within(value: int | None, first: int, last: int | None) -> bool:
    return value is not None and value >= first and (last is None or value <= last)


def _quality(
    records: Sequence[Record],
    undecided: bool = False,
    *,
    oracle: bool = False,
    threshold: float | None = None,
    interval: bool = False,
) -> Quality:
    """The metrics of the records' own scores and predictions; ``interval``: whether it is worth having one."""
    outcomes = [outcome(one, undecided=undecided) for one in records]
    within = within_position(outcomes)
    return Quality(
        **first_error.compute(outcomes).metrics(),
        **ranking.compute(outcomes).metrics(),
        within_position_auc=within.with_interval([one.cluster for one in records]) if interval else within.summary(),
        oracle=oracle,
        threshold=threshold,
    )


def _rule(records: Sequence[Record], scores: Callable[[int], Scores], prediction: Callable[[int], int]) -> Quality:
    """The metrics of a rule on the number of steps that decides every trace; its AUCs on those that the run scored."""
    sized = [(one, len(one.steps)) for one in records]
    return _quality(
        [replace(one, scores=one.scores and scores(size), prediction=prediction(size)) for one, size in sized]
    )


def _at_oracle(records: Sequence[Record], scores: Sequence[Scores | None], *, interval: bool = False) -> Quality:
    """The metrics of other scores with the best threshold on these records; undefined without both classes."""
    rescored = [replace(one, scores=own) for one, own in zip(records, scores, strict=True)]
    both = len({_is_correct(one) for one in records}) == 2
    cut = thresholds.fit(rescored) if both and any(scores) else None
    decided = [
        replace(
            new,
            scores=None if old.scores is None else new.scores,
            prediction=None if cut is None or new.scores is None else thresholds.first_below(new.scores, cut),
        )
        for old, new in zip(records, rescored, strict=True)
    ]
    return _quality(decided, undecided=cut is None, oracle=True, threshold=cut, interval=interval)


def _found(erroneous: Sequence[Record], undecided: bool) -> Found:
    if undecided:
        return Found(Metric(None, len(erroneous)))
    kinds = Counter(map(_call, erroneous))
    counts = {kind: kinds[kind] for kind in ("too_early", "too_late", "missed", "no_prediction")}
    return Found(share(kinds["exact"], len(erroneous)), **counts)


def _call(record: Record) -> str:
    called, first = record.prediction, record.gold.first_error
    if called is None or first is None:
        return "no_prediction"
    if called < 0:
        return "missed"
    return "exact" if called == first else "too_early" if called < first else "too_late"


def _called_correct(records: Sequence[Record], undecided: bool) -> Metric:
    if undecided:
        return Metric(None, len(records))
    return share(sum(one.prediction == -1 for one in records), len(records))


# --- solutions -------------------------------------------------------------------------------------------------------


def _solutions(records: Sequence[Record]) -> SolutionDiagnostics:
    kept = [one for one in records if one.scores]
    scores = [one.scores for one in kept if one.scores]
    negative = any(score < 0 for one in scores for score in one)
    labels = [int(is_right(one)) for one in kept]
    aggregated = {
        name: list(map(how, scores)) for name, how in AGGREGATIONS.items() if not (negative and name == "product")
    }
    simple = {
        "fewer_steps": [-float(len(one.steps)) for one in kept],
        "shorter": list(map(sum, _length_scores(kept))),
    }
    return SolutionDiagnostics(
        {name: _scores(kept, labels, values, calibration(labels, values)) for name, values in aggregated.items()},
        {name: _scores(kept, labels, values) for name, values in simple.items()},
    )


def _scores(
    records: Sequence[Record], labels: Sequence[int], values: Sequence[float], agreement: Calibration | None = None
) -> SolutionScores:
    from sklearn.metrics import roc_auc_score

    area = float(roc_auc_score(labels, values)) if len(set(labels)) == 2 else None
    problems = [one.gold.candidate.problem if one.gold.candidate else one.cluster for one in records]
    within = WithinAUC.of(problems, labels, values, range(len(records)))
    return SolutionScores(Metric(area, len(labels)), within.with_interval(problems), agreement)
