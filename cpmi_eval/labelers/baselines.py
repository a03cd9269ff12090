"""Labelers that know nothing: the floor under every table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from cpmi_eval.protocols import Capability
from cpmi_eval.seeding import derive_rng
from cpmi_eval.types import Scored, StepScores, Trace


class ConstantBaseline:
    """The same score for every step; natively it calls every trace correct."""

    name: ClassVar[str] = "constant"
    summary: ClassVar[str] = "baseline: every step equally good, no step ever called wrong"
    kind: ClassVar[Literal["baseline"]] = "baseline"
    needs: ClassVar[frozenset[str]] = frozenset()
    capabilities: frozenset[Capability] = frozenset()
    native_threshold: float | None = 0.5

    def score(self, traces: Sequence[Trace], backend: object) -> Iterator[Scored]:
        """Yield one result per trace."""
        return (StepScores(trace.id, tuple(self._values(trace))) for trace in traces)

    def _values(self, trace: Trace) -> Iterator[float]:
        return (1.0 for _ in trace.steps)


class RandomBaseline(ConstantBaseline):
    """A uniform number per step, seeded by the trace's id; a step below 0.5 is called wrong."""

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "baseline: a uniform random score per step"

    def __init__(self, seed: int = 0) -> None:
        """Remember the run's seed."""
        self.seed = seed

    def _values(self, trace: Trace) -> Iterator[float]:
        rng = derive_rng(self.seed, "random", trace.id)
        return (rng.random() for _ in trace.steps)


class LengthBaseline(ConstantBaseline):
    """Minus the number of characters: longer steps are likelier wrong. It has no threshold of its own."""

    name: ClassVar[str] = "length"
    summary: ClassVar[str] = "baseline: the longer a step, the worse (AUC only; F1 needs --threshold fixed:x)"
    native_threshold: float | None = None

    def _values(self, trace: Trace) -> Iterator[float]:
        return (-float(len(step)) for step in trace.steps)
