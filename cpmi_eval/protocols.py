"""What a task, a labeler and a backend must offer. Plug-ins match these by shape; nothing to inherit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from cpmi_eval.types import (
    JSON,
    Failure,
    Generation,
    LogProb,
    Sampling,
    Scored,
    ScoreRequest,
    TaskData,
    Trace,
)

Capability: TypeAlias = Literal["loglikelihood", "generate"]


@dataclass(frozen=True)
class LoadOptions:
    """What a task is told when it loads.

    ``subsets`` empty means all of the task's. ``data_dir`` stands in for the hub (``<org>/<dataset>/<file>``);
    ``None`` loads from the hub at the task's pinned revision. ``args`` are the task's own settings.
    """

    subsets: tuple[str, ...] = ()
    data_dir: Path | None = None
    seed: int = 0
    args: Mapping[str, Any] | None = None


@runtime_checkable
class Task(Protocol):
    """A benchmark: ``load`` yields items; ``metrics`` names the metrics it reports."""

    name: ClassVar[str]
    summary: ClassVar[str]
    subsets: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]]
    synthetic: ClassVar[bool]

    def load(self, options: LoadOptions) -> TaskData:
        """Return the items of the chosen subsets; raise DataError rather than drop a row."""


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is told when it opens a model; ``model_args`` are the backend's own settings."""

    model: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    device: str = "auto"
    scorer: str = "trie"


@runtime_checkable
class Backend(Protocol):
    """A loaded model. Results come back in the order of the requests; a failed request is a Failure in its place."""

    name: ClassVar[str]
    summary: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings (UsageError) before anything heavy is imported or loaded."""

    @classmethod
    def open(cls, options: BackendOptions) -> Backend:
        """Load the model."""

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that make a good batch for this model and device."""

    def describe(self) -> JSON:
        """Return what the manifest should say about the model: identity, dtype, device, scorer, budgets."""

    def peak_memory_bytes(self) -> int:
        """Return the peak memory so far, of the device that holds the model."""

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return the summed log-probability of each continuation given its context."""

    def generate(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> list[Generation | Failure]:
        """Sample completions of each prompt, reproducibly from the prompt's own seed."""

    def chat_prompt(self, user: str) -> str:
        """Render one user turn through the model's chat template, up to where the assistant begins."""


@runtime_checkable
class Labeler(Protocol):
    """Gives every step of a trace a number, higher = better step.

    A labeler is constructed with its settings as keyword arguments, plus ``seed``. ``needs`` names the trace
    fields it uses beyond problem and steps; ``capabilities`` what it asks of a backend (empty: it runs without
    a model). ``native_threshold``: a step scored below it is called wrong; ``None``: it makes no such decision.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    kind: ClassVar[Literal["labeler", "prm", "critic", "baseline"]]
    needs: ClassVar[frozenset[str]]
    capabilities: frozenset[Capability]
    native_threshold: float | None

    def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterable[Scored]:
        """Return one result per trace, in any order: scores, or a typed failure."""
