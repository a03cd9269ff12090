"""The ``prm`` labeler: the step scores of a trained process reward model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from cpmi_eval import settings
from cpmi_eval.prm import detect
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.types import Scored, Trace


class PRM:
    """A checkpoint that scores steps, read the way its family's spec says; it never sees the reference answer."""

    name: ClassVar[str] = "prm"
    summary: ClassVar[str] = "a trained process reward model (checkpoint=...): its own score of every step"
    kind: ClassVar[Literal["labeler", "prm", "critic", "baseline"]] = "prm"
    needs: ClassVar[frozenset[str]] = frozenset()
    capabilities: frozenset[Capability] = frozenset({"step_scores"})

    def __init__(self, checkpoint: str, spec: str | None = None, revision: str | None = None) -> None:
        """Find out what family the checkpoint (a folder, or a hub id or the last part of one) is of. Loads no weights.

        Raises:
            UsageError: nothing says how the checkpoint is to be read, or ``spec`` (a name or a file) is not valid.
        """
        self.checkpoint = detect.hub_id(settings.text("checkpoint", checkpoint))
        self.given = None if spec is None else settings.text("spec", spec)
        self.revision = None if revision is None else settings.text("revision", revision)
        self.spec = detect.resolve(self.checkpoint, self.given, self.revision)
        self.native_threshold: float | None = self.spec.native_threshold
        self.aggregation = self.spec.aggregation

    def brings(self, options: BackendOptions) -> tuple[str, BackendOptions]:
        """Return the ``prm`` backend and what it is to load, with the run's dtype, device and prefix sharing."""
        own = {"spec": self.given, "revision": self.revision}
        args = {**options.model_args, **{key: value for key, value in own.items() if value is not None}}
        return "prm", replace(options, model=self.checkpoint, model_args=args)

    def score(self, traces: Sequence[Trace], backend: Any) -> Iterable[Scored]:
        """Return the model's scores of each trace."""
        scored: list[Scored] = backend.step_scores(traces)
        return scored
