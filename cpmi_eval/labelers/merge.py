"""CPMI-Merge: the first step's label from Monte-Carlo rollouts, those of the others from CPMI, on one scale.

The best row of the CPMI paper (arXiv 2604.10660). A first step is where CPMI knows least and rollouts cost least. The
two kinds of label are each brought to (0, 1) over all traces of the run: by a robust z-score and a sigmoid, or by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.labelers.monte_carlo import MonteCarlo
from cpmi_eval.labelers.normalize import NORMALIZE
from cpmi_eval.labelers.results import answered
from cpmi_eval.labelers.rollouts import Drawn, counts
from cpmi_eval.protocols import Capability, LanguageModel
from cpmi_eval.types import JSON, Failure, Scored, Trace, TraceFailure


class CPMIMerge:
    """First step from ``mc``, the rest from ``cpmi``; scores are final once all traces are scored."""

    name: ClassVar[str] = "cpmi-merge"
    summary: ClassVar[str] = "first step from mc, the others from cpmi, on one scale; uses the reference answer"
    kind: ClassVar[Literal["labeler"]] = "labeler"
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})
    batch_factor: ClassVar[int] = 8

    def __init__(
        self,
        cpmi: str | Mapping[str, Any] = "",
        mc: str | Mapping[str, Any] = "",
        scale: str = "zsig",
        seed: int = 0,
    ) -> None:
        """Check the settings (docs/labelers.md)."""
        self.cpmi = settings.construct("cpmi labeler", CPMI, _pairs("cpmi", cpmi), seed=seed)
        self.mc = settings.construct("mc labeler", MonteCarlo, _pairs("mc", mc), seed=seed)
        if self.mc.schedule == "binary":
            raise UsageError("schedule=binary searches a whole trace; cpmi-merge asks mc about first steps alone")
        self.scale = settings.choice("scale", scale, tuple(NORMALIZE))
        self.capabilities: frozenset[Capability] = self.cpmi.capabilities | self.mc.capabilities
        self.native_threshold: float | None = 0.5

    def score(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Yield one result per trace with both kinds of label as they are; :meth:`finish` brings them together."""
        able, _ = answered(traces)
        first = {trace.id: drawn for trace, drawn in zip(able, self.mc.first_step(able, backend), strict=True)}
        for result in self.cpmi.score(traces, backend):
            yield self._merged(result, first[result.trace_id]) if result.trace_id in first else result

    def _merged(self, result: Scored, first: Drawn | Failure) -> Scored:
        """Put a trace's first-step rollouts beside its CPMI rewards."""
        if isinstance(first, Failure):
            return TraceFailure(result.trace_id, first, result.tokens, result.details)
        tokens = result.tokens + first.tokens
        if isinstance(result, TraceFailure):
            return replace(result, tokens=tokens, samples=first.samples)
        label = self.mc.value(first)
        details = {**result.details, "cpmi": list(result.values), "mc_first": label, **counts([first])}
        return replace(
            result, values=(label, *result.values[1:]), tokens=tokens, details=details, samples=first.samples
        )

    def finish(self, rows: Sequence[JSON]) -> list[list[float] | None]:
        """Return final scores: each kind of label on (0, 1) over all scored rows."""
        scored = [row["details"] for row in rows if row["scores"] is not None]
        normalize = NORMALIZE[self.scale]
        first = iter(normalize(np.array([one["mc_first"] for one in scored])).tolist())
        rest = iter(normalize(np.array([value for one in scored for value in one["cpmi"][1:]])).tolist())
        return [
            None if row["scores"] is None else [next(first), *(next(rest) for _ in row["details"]["cpmi"][1:])]
            for row in rows
        ]


def _pairs(name: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, str):
        raise UsageError(f'{name} must be settings such as {name}="n=8", not {value!r}')
    return settings.parse_pairs(value)
