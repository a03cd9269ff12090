"""Monte-Carlo labels: how often does the model reach the reference answer from here?

Wang et al., Math-Shepherd (arXiv 2312.08935): from each prefix s_1..s_i draw N rollouts, c of which end in the
reference answer. The soft label of step i is c / N, its hard label 1 if c > 0, else 0. Sampling defaults are those of
the baseline in the CPMI paper (arXiv 2604.10660): N = 8, temperature 0.6, top-p 0.95, top-k 20, repetition penalty
1.05, up to 2048 new tokens, soft labels.

Schedules for hard labels: ``adaptive`` stops a prefix at its first success, which cannot change its label. ``binary``
searches for the first prefix without a success (OmegaPRM, arXiv 2406.06592), assuming that no later one has any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.results import answered, failed
from cpmi_eval.labelers.rollouts import Drawn, Draws, Point, RolloutSettings, scored
from cpmi_eval.protocols import Capability, LanguageModel
from cpmi_eval.types import Failure, Scored, Trace

LABELS = ("soft", "hard")
SCHEDULES = ("full", "adaptive", "binary")
ASSUMPTION = "after the first prefix without a success no later prefix has one"


class MonteCarlo:
    """The share of rollouts from each prefix that reach the reference answer."""

    name: ClassVar[str] = "mc"
    summary: ClassVar[str] = "Monte-Carlo rollouts from each prefix (Math-Shepherd); uses the reference answer"
    kind: ClassVar[Literal["labeler"]] = "labeler"
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})
    passes_on: ClassVar[type] = RolloutSettings
    batch_factor: ClassVar[int] = 4

    def __init__(self, n: int = 8, label: str = "soft", schedule: str = "full", seed: int = 0, **drawing: Any) -> None:
        """Check the settings (docs/labelers.md)."""
        how = settings.construct(f"{self.name} labeler", RolloutSettings, drawing)
        self.n = settings.integer("n", n, 1)
        self.label = settings.choice("label", label, LABELS)
        self.schedule = settings.choice("schedule", schedule, SCHEDULES)
        if self.label == "soft" and self.schedule != "full":
            raise UsageError(f"schedule={schedule} is for label=hard: a share of successes needs all {n} rollouts")
        self.source: Draws = how.source(seed, "policy")
        self.capabilities: frozenset[Capability] = frozenset(() if how.rollouts is not None else {"generate"})
        # Its own decision: a step is wrong if no rollout succeeds. A soft label is then 0, else at least 1/n.
        self.native_threshold: float | None = 0.5 if self.label == "hard" else 0.5 / self.n

    def score(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Yield one result per trace: the labels, or why there are none."""
        able, without = answered(traces)
        yield from without
        if self.schedule == "binary":
            yield from self._binary(able, backend)
            return
        drawn = iter(self._draw([Point(trace, i) for trace in able for i in range(1, len(trace.steps) + 1)], backend))
        for trace in able:
            yield self._labelled(trace, {i: next(drawn) for i in range(1, len(trace.steps) + 1)})

    def first_step(self, traces: Sequence[Trace], backend: LanguageModel | None) -> list[Drawn | Failure]:
        """Return the rollouts from the first step of each trace (which must have a reference answer)."""
        return self._draw([Point(trace, 1) for trace in traces], backend)

    def _draw(self, points: Sequence[Point], backend: LanguageModel | None) -> list[Drawn | Failure]:
        return self.source.draw(points, self.n, backend, until_success=self.schedule != "full")

    def value(self, drawn: Drawn) -> float:
        """Return the label that rollouts make."""
        return float(drawn.successes > 0) if self.label == "hard" else drawn.share

    def _binary(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Halve the range of each trace's first failing prefix, all traces in step."""
        good = [0] * len(traces)  # prefixes known to succeed; the empty one counts as such
        bad = [len(trace.steps) + 1 for trace in traces]  # the least prefix known or assumed to fail
        drawn: list[dict[int, Drawn | Failure]] = [{} for _ in traces]
        open_ = list(range(len(traces)))
        while open_ := [t for t in open_ if bad[t] - good[t] > 1 and not failed(drawn[t].values())]:
            middle = {t: (good[t] + bad[t]) // 2 for t in open_}
            points = [Point(traces[t], middle[t]) for t in open_]
            for t, result in zip(open_, self._draw(points, backend), strict=True):
                drawn[t][middle[t]] = result
                if isinstance(result, Drawn) and result.successes:
                    good[t] = middle[t]
                else:
                    bad[t] = middle[t]
        for t, trace in enumerate(traces):
            yield self._labelled(trace, drawn[t], first_bad=bad[t])

    def _labelled(self, trace: Trace, drawn: Mapping[int, Drawn | Failure], first_bad: int | None = None) -> Scored:
        """Turn the rollouts of a trace's prefixes into labels; ``first_bad`` is what a search has found."""
        made = {i: one for i, one in drawn.items() if isinstance(one, Drawn)}
        steps = range(1, len(trace.steps) + 1)
        details = {
            "label": self.label,
            "schedule": self.schedule,
            "successes": [made[i].successes if i in made else None for i in steps],
            "draws": [len(made[i].rollouts) if i in made else 0 for i in steps],
            **({} if first_bad is None else {"assumption": ASSUMPTION}),
        }

        def values() -> list[float]:
            return [self.value(made[i]) if first_bad is None else float(i < first_bad) for i in steps]

        return scored(trace, [drawn[i] for i in sorted(drawn)], details, values)
