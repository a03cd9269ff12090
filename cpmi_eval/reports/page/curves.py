"""What the page draws of a run: ROC curve, reliability, accuracy by position of the error, and how each trace ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cpmi_eval.metrics.calibration import calibration
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.reports.page.boards import significant
from cpmi_eval.types import JSON

MAX_POINTS = 200
LAST_POSITION = 10
ENDS = (
    *("right", "missed", "false alarm", "too early", "too late", "failed", "no prediction", "no decision"),
    *("answer correct", "answer wrong", "not annotated"),
)


def ending(outcome: Outcome, *, failed: bool) -> str:
    """How a trace ended, one of ``ENDS``.

    ``missed``: an error that was not seen; ``false alarm``: a step called wrong where none is; ``too early`` and
    ``too late``: another step than the first wrong one. ``no decision``: the scorer never makes one. Where the first
    wrong step is not annotated, it is the final answer that counts, if that is.
    """
    gold, prediction = outcome.gold.first_error, outcome.prediction
    if failed:
        return "failed"
    if gold is None:
        return {True: "answer correct", False: "answer wrong", None: "not annotated"}[outcome.gold.final_answer_correct]
    if outcome.undecided:
        return "no decision"
    if prediction is None:
        return "no prediction"
    if prediction == gold:
        return "right"
    if prediction < 0:
        return "missed"
    if gold < 0:
        return "false alarm"
    return "too early" if prediction < gold else "too late"


def roc(labels: Sequence[int], scores: Sequence[float]) -> JSON:
    """The ROC curve of good steps against first errors, thinned to ``MAX_POINTS`` points.

    Returns:
        ``points`` [[share of errors scored at least t, share of good steps scored at least t]], ``area``, and counts
        ``good`` and ``wrong``; or ``why`` there is none.
    """
    good, wrong = sum(labels), len(labels) - sum(labels)
    if not good or not wrong:
        return {"why": f"There is no curve: of the scored and annotated steps, {good:,} are good and {wrong:,} wrong."}
    from sklearn.metrics import auc, roc_curve

    false, true, _ = roc_curve(labels, scores)
    kept = np.unique(np.linspace(0, len(false) - 1, min(MAX_POINTS, len(false))).round().astype(int))
    points = [[significant(float(x)), significant(float(y))] for x, y in zip(false[kept], true[kept], strict=True)]
    return {"points": points, "area": significant(float(auc(false, true))), "good": good, "wrong": wrong}


def reliability(labels: Sequence[int], scores: Sequence[float], others: Sequence[float]) -> JSON:
    """What share of steps is good among those scored alike, for scores that are probabilities.

    Args:
        labels: 1 for a good step, 0 for a first error.
        scores: one for each label.
        others: scores of steps without a label.

    Returns:
        ``bins``: of equal width over [0, 1], each [count, mean score, share of good steps, bounds of its 95% interval]
        (``None`` where it is empty), and ``ece``, the expected calibration error; or ``why`` there is none.
    """
    found = calibration(labels, scores, others)
    if found.reason is not None:
        return {"why": f"There is no plot: {found.reason}."}
    bins: list[list[float | None]] = []
    for one in found.bins:
        bounds = one.good.interval or (None, None)
        bins.append([one.good.n, *map(significant, (one.mean_score, one.good.value, *bounds))])
    return {"bins": bins, "ece": significant(found.ece)}


def by_position(outcomes: Sequence[Outcome]) -> JSON:
    """Exact matches by position of the first error, failed traces being misses.

    Returns:
        ``rows`` [[position, hits, n]], the position counted from 1, ``10+`` for all from there on, ``none`` for traces
        without an error; or ``why`` there are none.
    """
    pairs = [(one.gold.first_error, one.prediction) for one in outcomes if one.gold.first_error is not None]
    if not pairs:
        return {"why": "There is none: no trace is annotated with its first error."}
    if any(outcome.undecided for outcome in outcomes):
        return {"why": "There is none: the scorer ranks steps and makes no decision."}
    counts = Counter(min(gold + 1, LAST_POSITION) for gold, _ in pairs)
    hits = Counter(min(gold + 1, LAST_POSITION) for gold, prediction in pairs if gold == prediction)
    names = {0: "none", LAST_POSITION: f"{LAST_POSITION}+"}
    order = sorted(counts, key=lambda place: (place == 0, place))
    return {"rows": [[names.get(place, str(place)), hits[place], counts[place]] for place in order]}


def scale(outcomes: Sequence[Outcome], threshold: float | None) -> list[float | None]:
    """What the tint of a step is measured by: 5th percentile, middle and 95th percentile of the scores.

    The middle is the threshold below which a step is called wrong where there is a single one, else the median; the
    other two never lie on the wrong side of it. Empty where nothing was scored.
    """
    values = [score for outcome in outcomes for score in outcome.scores or ()]
    if not values:
        return []
    low, median, high = (float(one) for one in np.percentile(values, (5, 50, 95)))
    middle = median if threshold is None else threshold
    return [significant(min(low, middle)), significant(middle), significant(max(high, middle))]
