"""The gate of continuous integration: did a change move what a run says, what it costs, or how good it is?

Five checks of a run against a baseline, each with a verdict of its own:

``comparable``  the same traces, labeler, settings, threshold and weights; the other checks make sense only then
``scores``      every score of every trace within a numerical tolerance, and the same traces failing in the same way
``tokens``      exact counts of requested, computed and generated tokens, part by part
``quality``     no metric significantly worse (paired permutation test, one-sided, Holm over metrics, 5%), or, with a
                number as tolerance, none lower by more than that
``speed``       not slower by more than a factor
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cpmi_eval import settings
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.gate import checks, quality
from cpmi_eval.gate.baseline import Baseline, of_run
from cpmi_eval.gate.checks import Check
from cpmi_eval.record.run import Run
from cpmi_eval.types import JSON

SCHEMA_VERSION = 1
PAIRED: Literal["paired"] = "paired"


@dataclass(frozen=True)
class Tolerances:
    """How far a run may move; ``None`` or ``False``: that check is off.

    ``scores``: of each step's score, absolute. ``quality``: ``"paired"``, or by how much a metric may drop, absolute
    (0.02 is two points of F1). ``speed``: how many times slower. ``model``: whether the weights must be the same.
    """

    scores: float | None = 1e-3
    tokens: bool = True
    quality: float | Literal["paired"] | None = "paired"
    speed: float | None = 3.0
    model: bool = True

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Tolerances:
        """Read ``--tolerance``: a number by name, or ``off``.

        Raises:
            UsageError: an unknown name, or a value that makes no sense.
        """
        found: dict[str, Any] = {}
        for name, value in given.items():
            if name not in _TOLERANCES:
                raise UnknownNameError("tolerance", name, _TOLERANCES)
            found[name] = _TOLERANCES[name](name, value)
        return cls(**found)


def _amount(name: str, value: Any) -> float | None:
    return None if value == "off" else settings.number(f"the tolerance {name} (or off)", value, 0)


def _factor(name: str, value: Any) -> float | None:
    return None if value == "off" else settings.number(f"the tolerance {name} (times slower, or off)", value, 1)


def _quality(name: str, value: Any) -> float | str | None:
    return PAIRED if value == PAIRED else _amount(f"{name}: paired, a drop", value)


def _switch(name: str, value: Any) -> bool:
    if value not in ("exact", "off") or isinstance(value, bool):
        raise UsageError(f"the tolerance {name} must be exact or off, not {value!r}")
    return bool(value == "exact")


_TOLERANCES = {"scores": _amount, "tokens": _switch, "quality": _quality, "speed": _factor, "model": _switch}


@dataclass(frozen=True)
class Report:
    """All checks of a run against a baseline. ``notes``: what else is not the same, for information."""

    run: Path
    baseline: Path
    checks: tuple[Check, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(one.name for one in self.checks if one.verdict == "fail")

    @property
    def update(self) -> str:
        """The command that makes this run the baseline."""
        return f"cpmi-eval check {self.run} --baseline {self.baseline} --update"

    def as_dict(self) -> JSON:
        """Return it as a JSON document."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": str(self.run),
            "baseline": str(self.baseline),
            "passed": not self.failed,
            "checks": [
                {"name": one.name, "verdict": one.verdict, "summary": one.summary, "lines": one.lines, **one.numbers}
                for one in self.checks
            ],
            "notes": list(self.notes),
        }


def check(run: Run, baseline: Baseline, path: Path, tolerances: Tolerances | None = None) -> Report:
    """Check a finished run against a baseline.

    Args:
        run: the run.
        baseline: what it is held against.
        path: where that was read from, for messages.
        tolerances: the defaults if not given.

    Raises:
        UsageError: the run's files are damaged, or its task is not installed.
    """
    allowed = tolerances or Tolerances()
    now = of_run(run)
    return Report(
        run=run.path,
        baseline=path,
        checks=tuple(_checks(run, baseline, now, allowed)),
        notes=tuple(checks.differences(baseline.origin, now.origin)),
    )


def _checks(run: Run, then: Baseline, now: Baseline, allowed: Tolerances) -> Iterator[Check]:
    first = checks.comparable(then, now, weights=allowed.model)
    yield first
    makers: dict[str, Callable[[], Check]] = {}
    if allowed.scores is not None:
        makers["scores"] = partial(checks.scores, then, now, allowed.scores)
    if allowed.tokens:
        makers["tokens"] = partial(checks.tokens, then, now)
    if allowed.quality is not None:
        drop = None if allowed.quality == PAIRED else allowed.quality
        makers["quality"] = partial(quality.quality, run, then, now, drop)
    if allowed.speed is not None:
        makers["speed"] = partial(checks.speed, then.speed, now.speed, allowed.speed)
    for name in ("scores", "tokens", "quality", "speed"):
        if name not in makers:
            yield Check(name, "skipped", f"switched off by --tolerance {name}=off")
        elif first.verdict == "fail":
            yield Check(name, "skipped", "the run and the baseline are not comparable")
        else:
            yield makers[name]()
