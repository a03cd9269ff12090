"""Diagnostics on a terminal: the tables of each part of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cpmi_eval.analysis.diagnostics import (
    AtPosition,
    Coverage,
    Diagnostics,
    Found,
    LastMinimum,
    OfLength,
    Quality,
    RightAnswer,
    SolutionDiagnostics,
    SolutionScores,
    StepDiagnostics,
)
from cpmi_eval.metrics.calibration import Calibration
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.within import Within
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import BLANK, Grid, Line, table

RULES = {
    "all_correct": "every trace is correct",
    "last_step": "the last step is wrong",
    "position": "later steps are worse",
    "length": "longer steps are worse",
    "fewer_steps": "fewer steps are better",
    "shorter": "fewer characters are better",
}
CLASSES = {
    "all": "all",
    "erroneous": "erroneous",
    "correct": "correct",
    "wrong": "wrong answer",
    "right": "right answer",
}
CALLS = ("errors", "exact, %", "too early", "too late", "missed", "no pred.")


def diagnostics_report(found: Mapping[str, Diagnostics]) -> list[Grid | Line]:
    """Say what stands behind the numbers, part by part."""
    return [line for part, one in found.items() for line in _part(part, one)]


def _part(part: str, found: Diagnostics) -> Iterator[Grid | Line]:
    yield Line.of(part, "bold")
    yield _coverage(found.coverage)
    for section in _sections(found):
        yield BLANK
        yield section
    yield BLANK


def _sections(found: Diagnostics) -> Iterator[Grid | Line]:
    if (steps := found.steps) is not None:
        yield _quality(steps)
        yield _by_position(steps.by_position)
        yield _by_length(steps.by_length)
        yield _right_answer(steps.right_answer)
        yield _calibration(steps.calibration)
    if found.solutions is not None:
        yield _solutions(found.solutions)
    yield _last_minimum(found.last_minimum)


def _coverage(found: Coverage) -> Line:
    text = f"{found.scored:,} of {found.traces:,} traces scored"
    if not found.failures:
        return Line.of(text)
    classes = ", ".join(
        f"{fmt.percent(one.value)}% of {one.n:,} {CLASSES[name]}" for name, one in found.unscored.items() if one.n
    )
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in found.failures.items())
    return Line.of(f"{text}; not scored: {kinds} ({classes or 'none of them annotated'})")


def _notes(*texts: str) -> list[Line]:
    return [Line.of(text, "dim") for text in texts]


def _quality(steps: StepDiagnostics) -> Grid:
    own = [["this scorer", *_measures(steps.scorer)], ["this scorer †", *_measures(steps.at_oracle)]]
    rules = [[RULES[name] + (" †" if one.oracle else ""), *_measures(one)] for name, one in steps.baselines.items()]
    return table(
        "beside rules that read nothing",
        ["", "F1", "acc err.", "acc corr.", "AUC", "AUC within position"],
        own,
        rules,
        notes=_notes(
            "† threshold fitted to these very traces: a ceiling, never a result",
            f"AUC: over {steps.scorer.step_auc.n:,} annotated steps of scored traces; within position: over the "
            f"{steps.scorer.within_position_auc.pairs:,} pairs of a good step and a first error of the same index; in "
            "brackets the 95% interval",
        ),
    )


def _measures(one: Quality) -> list[str]:
    shares = (fmt.percent(metric.value) for metric in (one.f1, one.acc_error, one.acc_correct))
    return [*shares, fmt.auc(one.step_auc.value), _between(one.within_position_auc, fmt.auc)]


def _between(one: Metric | Within, form: Callable[[float | None], str] = fmt.percent) -> str:
    """A value with the bounds of its interval, ``15.9 [11.6, 21.5]``; without them where there is none."""
    text = form(one.value)
    return text if one.interval is None else f"{text} [{', '.join(map(form, one.interval))}]"


def _last_minimum(found: Mapping[str, LastMinimum]) -> Grid:
    return table(
        "traces whose lowest score is on the last step",
        ["", "traces", "share, %", "if on any alike, %"],
        [
            [CLASSES[name], fmt.count(one.n), fmt.percent(one.share), fmt.percent(one.expected)]
            for name, one in found.items()
        ],
        notes=_notes(
            "of tied lowest steps each counts in part; if on any alike: what chance would give on these lengths"
        ),
    )


def _calls(one: Found) -> list[str]:
    counts = (one.too_early, one.too_late, one.missed, one.no_prediction)
    return [fmt.count(one.exact.n), _between(one.exact), *map(fmt.count, counts)]


def _range(one: AtPosition | OfLength) -> str:
    return (
        f"{one.first}+" if one.last is None else str(one.first) if one.first == one.last else f"{one.first}–{one.last}"
    )


def _by_position(rows: tuple[AtPosition, ...]) -> Grid:
    return table(
        "erroneous traces by index of the first error",
        ["index", *CALLS, "AUC there", "pairs"],
        [
            [
                _range(one),
                *_calls(one.errors),
                fmt.auc(one.within_position_auc.value),
                fmt.count(one.within_position_auc.pairs),
            ]
            for one in rows
        ],
        notes=_notes(
            "missed: called correct; no pred.: without a prediction, as where scoring failed; in brackets the 95% "
            "interval (Wilson)"
        ),
    )


def _by_length(rows: tuple[OfLength, ...]) -> Grid:
    return table(
        "traces by number of steps",
        ["steps", *CALLS, "correct", "left alone, %"],
        [[_range(one), *_calls(one.errors), fmt.count(one.correct.n), _between(one.correct)] for one in rows],
    )


def _right_answer(found: RightAnswer) -> Line:
    head = f"right answer, wrong process: {found.n:,} traces"
    if found.exact.value is None:
        return Line.of(head)
    return Line.of(f"{head}; called correct, %: {_between(found.called_correct)}; exact, %: {_between(found.exact)}")


def _calibration(found: Calibration) -> Grid | Line:
    if found.reason is not None:
        return Line.of(f"calibration: none, {found.reason}")
    return table(
        "scores as probabilities of a good step",
        ["score", "steps", "mean score", "good, %"],
        [
            [f"{one.low:.1f}–{one.high:.1f}", fmt.count(one.good.n), fmt.auc(one.mean_score), _between(one.good)]
            for one in found.bins
        ],
        notes=_notes(
            f"calibration error (ECE) {fmt.auc(found.ece)}; Brier score {fmt.auc(found.brier)}, and "
            f"{fmt.auc(found.brier_of_share)} if every step were given the share of good ones, "
            f"{fmt.auc(found.share_good)}; over annotated steps, so none after a first error",
            "intervals take steps to be independent; those of one trace are not, so they are too narrow",
        ),
    )


def _solutions(found: SolutionDiagnostics) -> Grid:
    return table(
        "solutions by their aggregated step scores",
        ["", "AUC", "AUC within problem", "pairs", "ECE", "Brier"],
        [[name, *_solution(one)] for name, one in found.aggregations.items()],
        [[RULES[name], *_solution(one)] for name, one in found.baselines.items()],
        notes=_notes(
            "AUC: are right solutions scored above wrong ones, over all and over pairs from the same problem; in "
            "brackets the 95% interval",
            "ECE, Brier: the score as a probability of being right; –: it is none",
        ),
    )


def _solution(one: SolutionScores) -> list[str]:
    ece, brier = (None, None) if one.calibration is None else (one.calibration.ece, one.calibration.brier)
    within = one.within_problem_auc
    return [
        fmt.auc(one.outcome_auc.value),
        _between(within, fmt.auc),
        fmt.count(within.pairs),
        fmt.auc(ece),
        fmt.auc(brier),
    ]
