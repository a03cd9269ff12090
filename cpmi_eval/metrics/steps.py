"""Step scores against annotated first errors: beside cheap rules, by position and length, and as probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from cpmi_eval.labelers.baselines import LengthBaseline
from cpmi_eval.metrics import first_error, ranking, thresholds
from cpmi_eval.metrics.calibration import Calibration, calibration, share
from cpmi_eval.metrics.outcome import Metric, metrics_of
from cpmi_eval.metrics.within import Within, with_interval, within_position
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import outcome
from cpmi_eval.types import StepScores, Trace

POSITIONS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, None))
LENGTHS = ((1, 3), (4, 6), (7, 9), (10, None))
Scores: TypeAlias = tuple[float, ...]


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
    too_early: int | None
    too_late: int | None
    missed: int | None
    no_prediction: int | None


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
    """Diagnostics of step scores, over annotated traces.

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


def diagnose_steps(records: Sequence[Record], undecided: bool) -> StepDiagnostics:
    """Return the diagnostics of one part's traces; those that are not annotated are left out.

    Args:
        records: the traces.
        undecided: the scorer makes no decision: what depends on one is ``None``.
    """
    annotated = [one for one in records if one.gold.first_error is not None]
    erroneous = [one for one in annotated if is_erroneous(one)]
    correct = [one for one in annotated if not is_erroneous(one)]
    return StepDiagnostics(
        scorer=_quality(annotated, undecided, interval=True),
        at_oracle=_at_oracle(annotated, [one.scores for one in annotated]),
        baselines=_baselines(annotated),
        calibration=_calibration(records),
        right_answer=_right_answer(erroneous, undecided),
        by_position=_by_position(annotated, undecided),
        by_length=_by_length(erroneous, correct, undecided),
    )


def is_erroneous(record: Record) -> bool:
    """Return whether a record is annotated with a first error."""
    return record.gold.first_error is not None and record.gold.first_error >= 0


def _quality(
    records: Sequence[Record],
    undecided: bool = False,
    *,
    oracle: bool = False,
    threshold: float | None = None,
    interval: bool = False,
) -> Quality:
    """Return the metrics of the records' own scores and predictions; ``interval``: whether it is worth having one."""
    outcomes = [outcome(one, undecided=undecided) for one in records]
    found = metrics_of(first_error.compute(outcomes)) | metrics_of(ranking.compute(outcomes))
    within = within_position(outcomes)
    return Quality(
        f1=found["f1"],
        acc_error=found["acc_error"],
        acc_correct=found["acc_correct"],
        step_auc=found["step_auc"],
        within_position_auc=with_interval(within, [one.cluster for one in records]) if interval else within.summary(),
        oracle=oracle,
        threshold=threshold,
    )


def _baselines(records: Sequence[Record]) -> dict[str, Quality]:
    """Return rules that know nothing of the text but its layout, applied to the same traces."""
    later = [tuple(-float(place) for place in range(len(one.steps))) for one in records]
    return {
        "all_correct": _rule(records, lambda one: (0.0,) * len(one.steps), lambda one: -1),
        "last_step": _rule(records, _last_is_worst, lambda one: len(one.steps) - 1),
        "position": _at_oracle(records, later),
        "length": _at_oracle(records, length_scores(records), interval=True),
    }


def _last_is_worst(record: Record) -> Scores:
    return (1.0,) * (len(record.steps) - 1) + (0.0,)


def length_scores(records: Sequence[Record]) -> list[Scores]:
    """Return the step scores of the labeler ``length``."""
    traces = [Trace(one.id, one.problem, one.steps) for one in records]
    return [one.values for one in LengthBaseline().score(traces, None) if isinstance(one, StepScores)]


def _rule(
    records: Sequence[Record], scores: Callable[[Record], Scores], prediction: Callable[[Record], int]
) -> Quality:
    """Return the metrics of a rule that decides every trace; its AUCs on those that the run scored."""
    decided = [
        replace(one, scores=None if one.scores is None else scores(one), prediction=prediction(one)) for one in records
    ]
    return _quality(decided)


def _at_oracle(records: Sequence[Record], scores: Sequence[Scores | None], *, interval: bool = False) -> Quality:
    """Return the metrics of other scores with the best threshold on these records; undefined without both classes."""
    rescored = [replace(one, scores=own) for one, own in zip(records, scores, strict=True)]
    both = len({is_erroneous(one) for one in records}) == 2
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


def _calibration(records: Sequence[Record]) -> Calibration:
    labels: list[int] = []
    scores: list[float] = []
    for one in records:
        own_labels, own_scores = ranking.labelled_steps(outcome(one))
        labels += own_labels
        scores += own_scores
    return calibration(labels, scores, [score for one in records for score in one.scores or ()])


def _found(erroneous: Sequence[Record], undecided: bool) -> Found:
    if undecided:
        return Found(Metric(None, len(erroneous)), None, None, None, None)
    kinds = Counter(map(_call, erroneous))
    return Found(
        exact=share(kinds["exact"], len(erroneous)),
        too_early=kinds["too_early"],
        too_late=kinds["too_late"],
        missed=kinds["missed"],
        no_prediction=kinds["no_prediction"],
    )


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


def _right_answer(erroneous: Sequence[Record], undecided: bool) -> RightAnswer:
    group = [one for one in erroneous if one.gold.final_answer_correct]
    return RightAnswer(len(group), _found(group, undecided).exact, _called_correct(group, undecided))


def _by_position(annotated: Sequence[Record], undecided: bool) -> tuple[AtPosition, ...]:
    areas = within_position([outcome(one) for one in annotated])
    deepest = max((len(one.steps) for one in annotated), default=0)
    rows = []
    for first, last in POSITIONS:
        group = [one for one in annotated if _within(one.gold.first_error, first, last)]
        auc = areas.only(range(first, deepest if last is None else last + 1)).summary()
        rows.append(AtPosition(first, last, _found(group, undecided), auc))
    return tuple(rows)


def _by_length(erroneous: Sequence[Record], correct: Sequence[Record], undecided: bool) -> tuple[OfLength, ...]:
    return tuple(
        OfLength(
            first,
            last,
            _found([one for one in erroneous if _within(len(one.steps), first, last)], undecided),
            _called_correct([one for one in correct if _within(len(one.steps), first, last)], undecided),
        )
        for first, last in LENGTHS
    )


def _within(value: int | None, first: int, last: int | None) -> bool:
    return value is not None and value >= first and (last is None or value <= last)
