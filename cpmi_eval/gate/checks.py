"""The checks of :mod:`cpmi_eval.gate.check` that need no statistics: is it the same thing, and what of it has moved?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from cpmi_eval.gate.baseline import COUNTS, Baseline, Speed, TraceScores
from cpmi_eval.types import JSON

Verdict: TypeAlias = Literal["pass", "fail", "skipped"]

SHOWN = 5  # traces that are named one by one
LEAST_SECONDS = 1.0  # what took less says nothing about speed
WEIGHTS = "model"


@dataclass(frozen=True)
class Check:
    """One check: its verdict, what moved and by how much in a sentence and in lines, and the numbers behind it."""

    name: str
    verdict: Verdict
    summary: str
    lines: tuple[str, ...] = ()
    numbers: JSON = field(default_factory=dict)


def comparable(then: Baseline, now: Baseline, *, weights: bool) -> Check:
    """Compare what was run, on which traces; ``weights``: whether with the same weights."""
    settled = list(differences(then.identity, now.identity, () if weights else (WEIGHTS,)))
    traces = list(_trace_differences(then, now))
    if traces:
        traces += differences(then.chosen, now.chosen)
    if not settled and not traces:
        compared = (
            "labeler, settings, threshold and weights" if WEIGHTS in now.identity else "labeler, settings and threshold"
        )
        if not weights:
            compared = f"labeler, settings and threshold; weights are not looked at (--tolerance {WEIGHTS}=off)"
        return Check("comparable", "pass", f"the same {counted(len(now.traces), 'trace')}, {compared}")
    what = " and ".join(["other traces"] * bool(traces) + ["other settings or weights"] * bool(settled))
    lines = (*traces, *settled, f"next: {_next_step(then, now, traces)}")
    return Check("comparable", "fail", f"not the same thing was run: {what}", lines, {"differences": lines[:-1]})


def _next_step(then: Baseline, now: Baseline, traces: Sequence[str]) -> str:
    alike = {**then.identity, **{name: now.identity.get(name) for name in ("threshold", "threshold_value")}}
    if not traces and alike == now.identity:
        rule = then.identity["threshold"]
        return f"cpmi-eval rescore RUN_DIR --threshold {rule} applies the baseline's, without a model"
    return "repeat the run as the baseline's was, or make it the new baseline with --update"


def differences(then: JSON, now: JSON, ignored: Sequence[str] = ()) -> Iterator[str]:
    """Yield what is not the same of two documents, by dotted name."""
    before, after = _flat(then, ignored), _flat(now, ignored)
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield f"{name}: {_shown(before, name)} in the baseline, {_shown(after, name)} now"


def _flat(document: JSON, ignored: Sequence[str] = (), prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        if prefix + name not in ignored:
            found |= _flat(value, ignored, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _shown(document: Mapping[str, Any], name: str) -> str:
    return repr(document[name]) if name in document else "not set"


def _trace_differences(then: Baseline, now: Baseline) -> Iterator[str]:
    """Yield how the traces of two runs differ, part by part."""
    for part in dict.fromkeys((*then.parts, *now.parts)):
        before, after = then.parts.get(part), now.parts.get(part)
        own = [[one.id for one in side.traces if one.part == part] for side in (then, now)]
        same = before is not None and after is not None and before.sha256 == after.sha256
        if not same or set(own[0]) != set(own[1]):
            missing, added = ([name for name in a if name not in set(b)] for a, b in (own, own[::-1]))
            lost = f"{counted(len(missing), 'trace')} of the baseline missing ({_listed(missing)})" if missing else ""
            new = f"{counted(len(added), 'trace')} not in the baseline ({_listed(added)})" if added else ""
            yield f"{part}: {'; '.join(filter(None, (lost, new))) or 'same ids, but other texts or annotations'}"


def counted(number: int, word: str) -> str:
    """Return ``1 trace``, ``2 traces``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


@dataclass(frozen=True)
class _Move:
    """How one trace's scores moved: by ``size`` at most, at ``step``; ``why``: what moved that is no number."""

    then: TraceScores
    now: TraceScores
    size: float = 0.0
    step: int = 0
    why: str = ""

    @property
    def line(self) -> str:
        """What there is to say of it."""
        name = f"{self.now.part} {self.now.id}"
        if self.why:
            return f"{name}: {self.why}"
        before, after = (one.scores[self.step] if one.scores else math.nan for one in (self.then, self.now))
        return f"{name}, step {self.step}: {before:.9g} -> {after:.9g} ({after - before:+.3g})"


def scores(then: Baseline, now: Baseline, tolerance: float) -> Check:
    """Compare every score, which traces failed, and predictions that changed though their scores did not."""
    fixed = then.identity.get("threshold_value") is not None
    before = then.by_key
    moves = [_move(before[one.key], one, fixed) for one in now.traces]
    odd = [one for one in moves if one.why]
    moved = sorted((one for one in moves if one.size > 0), key=lambda one: -one.size)
    beyond = [one for one in moved if one.size > tolerance]
    flipped = sum(one.then.prediction != one.now.prediction for one in moves)
    worst = moved[0].size if moved else 0.0
    parts = [
        f"the largest deviation is {worst:.3g}" if moved else "no score moved",
        f"{len(beyond):,} of {counted(len(moves), 'trace')} beyond {tolerance:g}" if moved else "",
        f"{counted(len(odd), 'trace')} changed otherwise" if odd else "",
        f"{counted(flipped, 'prediction')} changed" if flipped else "",
    ]
    numbers = {
        "tolerance": tolerance,
        "max_deviation": worst,
        "traces": len(moves),
        "moved": len(moved),
        "beyond": len(beyond),
        "changed": [one.now.id for one in odd],
        "predictions_changed": flipped,
        "worst": {"part": moved[0].now.part, "id": moved[0].now.id, "step": moved[0].step} if moved else None,
    }
    named = (*(one.line for one in odd[:SHOWN]), *(one.line for one in (beyond or moved[:1])[:SHOWN]))
    rest = max(len(odd) - SHOWN, 0) + max(len(beyond) - SHOWN, 0)
    lines = (*named, *([f"and {rest:,} more"] if rest else []))
    return Check("scores", "fail" if beyond or odd else "pass", ", ".join(filter(None, parts)), lines, numbers)


def _move(then: TraceScores, now: TraceScores, fixed: bool) -> _Move:
    """Compare what two runs said of a trace; ``fixed``: the threshold does not depend on other traces' scores."""
    if then.error != now.error or (then.scores is None) != (now.scores is None):
        return _Move(then, now, why=f"{_state(then)} in the baseline, {_state(now)} now")
    if then.scores is None or now.scores is None:
        return _Move(then, now)
    if len(then.scores) != len(now.scores):
        return _Move(then, now, why=f"{len(then.scores)} scores in the baseline, {len(now.scores)} now")
    deviations = [abs(a - b) for a, b in zip(then.scores, now.scores, strict=True)]
    size = max(deviations, default=0.0)
    if size == 0 and fixed and then.prediction != now.prediction:
        return _Move(
            then, now, why=f"same scores, but prediction {then.prediction} in the baseline, {now.prediction} now"
        )
    return _Move(then, now, size, deviations.index(size) if deviations else 0)


def _state(trace: TraceScores) -> str:
    return f"failed ({trace.error})" if trace.error else ("no scores" if trace.scores is None else "scored")


def tokens(then: Baseline, now: Baseline) -> Check:
    """Compare token counts, which must be the same."""
    rows = [
        {
            "part": part,
            "kind": kind,
            "baseline": getattr(then.parts[part].tokens, kind),
            "run": getattr(own.tokens, kind),
        }
        for part, own in now.parts.items()
        for kind in COUNTS
    ]
    differing = [row for row in rows if row["baseline"] != row["run"]]
    totals = {kind: sum(row["run"] for row in rows if row["kind"] == kind) for kind in COUNTS}
    lines = tuple(
        f"{row['part']} {row['kind']}: {row['baseline']:,} -> {row['run']:,} ({_change(row['baseline'], row['run'])})"
        for row in differing
    )
    same = ", ".join(f"{total:,} {kind}" for kind, total in totals.items()) if any(totals.values()) else "no tokens"
    summary = f"{len(differing)} of {len(rows)} counts differ" if differing else f"the same counts: {same}"
    return Check("tokens", "fail" if differing else "pass", summary, lines, {"counts": rows})


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.2g}%" if before else f"{after - before:+,}"


def speed(then: Speed, now: Speed, tolerance: float) -> Check:
    """Compare how fast scoring was; ``tolerance``: how many times slower it may be."""
    numbers: JSON = {"tolerance": tolerance, "baseline": then.value, "run": now.value, "unit": f"{now.unit}/s"}
    if then.unit != now.unit:
        return Check("speed", "skipped", f"measured in {then.unit} in the baseline, in {now.unit} now", (), numbers)
    if max(then.seconds, now.seconds) < LEAST_SECONDS or not then.value or not now.value:
        took = f"scoring took {then.seconds:.2g} s in the baseline and {now.seconds:.2g} s now"
        return Check("speed", "skipped", f"{took}: too short to say anything", (), numbers)
    slower = then.value / now.value
    word = f"{slower:.2f}x slower" if slower >= 1.005 else f"{1 / slower:.2f}x faster" if slower < 0.995 else "as fast"
    summary = (
        f"{then.value:,.0f} -> {now.value:,.0f} {now.unit} per second, {word} (up to {tolerance:g}x slower passes)"
    )
    return Check("speed", "fail" if slower > tolerance else "pass", summary, (), {**numbers, "times_slower": slower})
