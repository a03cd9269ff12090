"""The quality check of :mod:`cpmi_eval.gate.check`: is any metric worse than in the baseline?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cpmi_eval import registry
from cpmi_eval.errors import UsageError
from cpmi_eval.gate.baseline import Baseline
from cpmi_eval.gate.checks import Check, counted
from cpmi_eval.metrics.outcome import Metric, MetricFunction, Outcome, metrics_of
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.record.run import Run
from cpmi_eval.types import JSON

LEVEL = 0.05
ROUNDING = 1e-9


@dataclass(frozen=True)
class _Moved:
    """A metric before and after. ``p``: adjusted, small where it is worse; ``None`` where that was not tested.

    Of a tested metric the values are those that the test saw, on the traces that both sides have scores for.
    """

    part: str
    metric: str
    then: float | None
    now: float | None
    p: float | None = None
    remark: str = ""
    failed: bool = False

    @property
    def drop(self) -> float:
        """By how much it is worse."""
        if self.then is None or self.now is None:
            return 0.0
        return self.then - self.now if spec_of(self.metric).higher_is_better else self.now - self.then

    def as_dict(self) -> JSON:
        """Return what the JSON document says of it."""
        values = {"baseline": self.then, "run": self.now, "p": self.p}
        return {"part": self.part, "metric": self.metric, **values, "worse": self.failed}

    @property
    def line(self) -> str:
        """What there is to say of it."""
        before, after = ("not defined" if one is None else f"{one:.4f}" for one in (self.then, self.now))
        change = "" if self.then is None or self.now is None else f" ({self.now - self.then:+.4f})"
        p = f", p = {self.p:.2g}" if self.p is not None else ""
        marked = "worse: " if self.failed else "better: " if self.drop < 0 else ""
        return f"{marked}{self.part} {self.metric}: {before} -> {after}{change}{p}{self.remark and f', {self.remark}'}"


def quality(run: Run, then: Baseline, now: Baseline, drop: float | None) -> Check:
    """Compare every metric that has a value, part by part.

    Args:
        run: the run that ``now`` was made from, for the annotations of its traces.
        then: the baseline.
        now: the run.
        drop: by how much a metric may be lower; ``None``: it may not be significantly worse, by a paired test.
    """
    pairs = [
        _Moved(part, name, one.value, now.metrics.get(part, {}).get(name, Metric(None, 0)).value)
        for part, own in then.metrics.items()
        for name, one in own.items()
    ]
    new = [
        f"new: {part} {name}: {one.value:.4f}"
        for part, own in now.metrics.items()
        for name, one in own.items()
        if one.value is not None and name not in then.metrics.get(part, {})
    ]
    known = [one for one in pairs if one.then is not None or one.now is not None]
    if not known:
        return Check("quality", "skipped", "the baseline and the run have no metric with a value", tuple(new))
    judged = _by_test(run, then, now, known) if drop is None else _by_drop(known, drop)
    judged = [_recomputed(run, then, now, one) for one in judged]
    return _verdict(judged, drop, new)


def _verdict(judged: Sequence[_Moved], drop: float | None, new: Sequence[str]) -> Check:
    worse, better = [one for one in judged if one.failed], [one for one in judged if one.drop < 0]
    lower = [one for one in judged if one.drop > 0 and not one.failed]
    untested = [one for one in judged if one.remark and not one.failed and drop is None and one.p is None]
    if drop is None:
        tests = sum(one.p is not None for one in judged)
        how = f"paired permutation test, one-sided at {LEVEL:.0%}, Holm over {tests}"
        method: JSON = {"method": "paired permutation test", "level": LEVEL}
    else:
        how, method = f"lower by more than {drop:g} fails", {"method": "drop", "tolerance": drop}
    groups = {"worse": worse, "lower, but not by that": lower, "better": better, "not tested": untested}
    said = ", ".join(f"{len(group)} {word}" for word, group in groups.items() if group) or "unchanged"
    silent = (one for one in untested if one.drop == 0 and not one.failed)
    return Check(
        "quality",
        "fail" if worse else "skipped" if len(untested) == len(judged) else "pass",
        f"{len(judged)} metrics: {said} ({how})",
        (*(one.line for one in (*worse, *lower, *better, *silent)), *new),
        {**method, "metrics": [one.as_dict() for one in judged]},
    )


def _gone(one: _Moved) -> bool:
    """Whether a metric has lost its value."""
    return one.then is not None and one.now is None


def _recomputed(run: Run, then: Baseline, now: Baseline, one: _Moved) -> _Moved:
    """Fail a metric that moved, up or down, though no score or prediction of its part did: it is another metric now."""
    moved = one.then is not None and one.now is not None and abs(one.drop) > ROUNDING
    if not moved or one.part not in run.parts or _outcomes(run, then, one.part) != _outcomes(run, now, one.part):
        return one
    return replace(one, failed=True, remark="with the same scores: the metric itself has changed")


def _by_drop(pairs: Sequence[_Moved], tolerance: float) -> list[_Moved]:
    return [replace(one, failed=_gone(one) or one.drop > tolerance + ROUNDING) for one in pairs]


def _by_test(run: Run, then: Baseline, now: Baseline, pairs: Sequence[_Moved]) -> list[_Moved]:
    """Test each metric of each part, adjust for their number; the means over parts follow from these."""
    from cpmi_eval.metrics.permutation import holm

    judged = [_tested(run, then, now, one) for one in pairs if one.part in run.parts]
    places = [place for place, one in enumerate(judged) if one.p is not None]
    adjusted = holm([one.p for one in judged if one.p is not None])
    for place, p in zip(places, adjusted, strict=True):
        judged[place] = replace(judged[place], p=p, failed=p < LEVEL)
    return judged


def _tested(run: Run, then: Baseline, now: Baseline, one: _Moved) -> _Moved:
    """Return a metric with the p-value of its being worse than in the baseline, or with why there is none."""
    from cpmi_eval.metrics.permutation import permutation

    if one.then is None or one.now is None:
        return replace(one, failed=_gone(one))
    before, after = _outcomes(run, then, one.part), _outcomes(run, now, one.part)
    if before == after:
        return replace(one, p=1.0)
    function = _function(run, after, one.metric)
    if function is None:
        return replace(one, remark="not tested: no metric of the task gives it; use --tolerance quality=0.02")
    try:
        found = permutation(after, before, function, one.metric)
    except UsageError as error:
        return replace(one, remark=f"not tested: {error}; use --tolerance quality=0.02")
    remark = f"without {counted(found.left_out, 'trace')} that lack scores" if found.left_out else ""
    return replace(one, then=found.value_b, now=found.value_a, p=found.p_worse, remark=remark)


def _outcomes(run: Run, side: Baseline, part: str) -> list[Outcome]:
    """Return what metrics see of one side: the run's annotations with the scores that the baseline format keeps."""
    own, records, outcomes = side.by_key, run.parts[part], run.outcomes(part)
    scored = [
        replace(outcome, scores=own[part, record.id].scores, prediction=own[part, record.id].prediction)
        for outcome, record in zip(outcomes[: len(records)], records, strict=True)
    ]
    return scored + outcomes[len(records) :]  # those without any step, which nobody scores


def _function(run: Run, outcomes: Sequence[Outcome], metric: str) -> MetricFunction | None:
    """Return the task's metric function that gives a metric."""
    task = registry.load("tasks", run.results.config.task)()
    functions: list[MetricFunction] = [registry.load("metrics", name) for name in task.metrics]
    return next((one for one in functions if metric in metrics_of(one(outcomes))), None)
