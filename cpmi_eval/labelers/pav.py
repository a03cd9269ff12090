"""PAV: process advantage verifiers' labels (Setlur et al., Rewarding Progress, arXiv 2410.08146).

    reward_i = Q(s_1..s_i) + alpha * (Q_mu(s_1..s_i) - Q_mu(s_1..s_i-1))

Q is the share of the policy's rollouts that reach the reference answer, Q_mu that of a prover mu, whose progress a step
is rewarded for. Defaults are those of the baseline in the CPMI paper (arXiv 2604.10660): alpha = 1, 8 rollouts of the
policy and 4 of the prover. The run's model is the policy, and the prover too unless another is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from cpmi_eval import settings
from cpmi_eval.description import ModelDescription
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.results import answered, failed
from cpmi_eval.labelers.rollouts import Drawn, Point, RolloutSettings, scored
from cpmi_eval.protocols import Capability, LanguageModel
from cpmi_eval.types import Failure, Scored, Trace

POSITIVE = 1e-9  # rewards are sums of fractions; rounding is far below this, any true reward far above


class PAV:
    """The policy's value of a prefix plus the prover's progress at its last step."""

    name: ClassVar[str] = "pav"
    summary: ClassVar[str] = "value plus a prover's progress, from rollouts (arXiv 2410.08146); uses the reference"
    kind: ClassVar[Literal["labeler"]] = "labeler"
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})
    passes_on: ClassVar[type] = RolloutSettings
    batch_factor: ClassVar[int] = 4

    def __init__(
        self,
        n: int = 8,
        prover_n: int = 4,
        alpha: float = 1.0,
        prover: str | None = None,
        seed: int = 0,
        **drawing: Any,
    ) -> None:
        """Check the settings (docs/labelers.md)."""
        how = settings.construct(f"{self.name} labeler", RolloutSettings, drawing)
        self.n = settings.integer("n", n, 1)
        self.prover_n = settings.integer("prover_n", prover_n, 1)
        self.alpha = settings.number("alpha", alpha)
        if prover is not None and how.rollouts is not None:
            raise UsageError("rollouts=FILE runs no model, so prover would do nothing; give one of the two")
        self.prover = prover
        self.policy_source = how.source(seed, "policy")
        self.prover_source = how.source(seed, "prover")
        self.capabilities: frozenset[Capability] = frozenset(() if how.rollouts is not None else {"generate"})
        # Its own decision: a step without a positive reward is wrong.
        self.native_threshold: float | None = POSITIVE
        self._prover: LanguageModel | None = None

    def load(self, backend: LanguageModel | None) -> dict[str, ModelDescription]:
        """Load the prover if it is another model than the run's."""
        if backend is None or self.prover is None:
            return {}
        self._prover = backend.another(str(self.prover))
        self._prover.prepare(self.capabilities)
        return {"prover": self._prover.describe()}

    def score(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Yield one result per trace: the rewards, or why there are none."""
        if self.prover is not None and self._prover is None:
            self.load(backend)
        able, without = answered(traces)
        yield from without
        policy = [Point(trace, i) for trace in able for i in range(1, len(trace.steps) + 1)]
        prover = [Point(trace, i) for trace in able for i in range(len(trace.steps) + 1)]
        values = iter(self.policy_source.draw(policy, self.n, backend))
        progress = iter(self.prover_source.draw(prover, self.prover_n, self._prover or backend))
        for trace in able:
            own, provers = [next(values) for _ in trace.steps], [next(progress) for _ in (None, *trace.steps)]
            yield self._rewarded(trace, own, provers)

    def _rewarded(self, trace: Trace, policy: Sequence[Drawn | Failure], prover: Sequence[Drawn | Failure]) -> Scored:
        value, progress = ([one.share for one in part if isinstance(one, Drawn)] for part in (policy, prover))

        def rewards() -> list[float]:
            steps = zip(value, progress[:-1], progress[1:], strict=True)
            return [own + self.alpha * (after - before) for own, before, after in steps]

        every = [*policy, *prover]
        details = {} if failed(every) else {"policy_values": value, "prover_values": progress}
        return scored(trace, every, details, rewards)
