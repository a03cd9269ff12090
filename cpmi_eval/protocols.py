"""What a task, a labeler and a backend must offer. Plug-ins match these by shape; nothing to inherit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from cpmi_eval.description import ModelDescription
from cpmi_eval.types import (
    JSON,
    Enough,
    Failure,
    Generation,
    LogProb,
    Problem,
    Provenance,
    Sampling,
    Scored,
    ScoreRequest,
    TaskData,
    Trace,
)

Capability: TypeAlias = Literal["loglikelihood", "generate", "step_scores"]


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
    """A benchmark: ``load`` yields items; ``metrics`` names the metrics it reports.

    A task whose traces are candidates, among which a scorer selects, sets ``selects = True``: ``limit`` then takes
    whole problems, and a labeler that is given the reference answer is marked as an oracle and never ranked.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    subsets: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]]
    synthetic: ClassVar[bool]

    def load(self, options: LoadOptions) -> TaskData:
        """Return the items of the chosen subsets; raise DataError rather than drop a row."""


@runtime_checkable
class OffersProblems(Task, Protocol):
    """A task whose problems can be given to a model to solve, and whose answers grade the solutions."""

    def problems(self, subset: str, data_dir: Path | None) -> tuple[list[Problem], list[Provenance]]:
        """Return all problems of a subset in the benchmark's order, and where they came from."""


@runtime_checkable
class OffersExamples(Protocol):
    """A task with worked solutions to problems of its own, to show to a model before it solves another."""

    def worked(self, data_dir: Path | None) -> tuple[list[tuple[str, str]], list[Provenance]]:
        """Return problems with their solutions, and where they came from."""


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is told when it opens a model; ``model_args`` are the backend's own settings."""

    model: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    device: str = "auto"
    prefix_sharing: bool = True


@runtime_checkable
class Backend(Protocol):
    """A loaded model. What it can be asked for is named by ``capabilities``, one method each; see the next two."""

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

    def describe(self) -> ModelDescription:
        """Return what the manifest should say about the model, as far as it is known once it is prepared."""

    def peak_memory_bytes(self) -> int:
        """Return the peak memory since :meth:`prepare`, of the device that holds the model."""

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Get ready for the timed part of a run that uses ``capabilities``: warm up, measure peak memory from here."""


@runtime_checkable
class TellsBusy(Protocol):
    """A backend that knows when its device has work, so that a run can say how long it waited for the host."""

    def busy_seconds(self) -> float:
        """Return for how long the device has had work so far."""


@runtime_checkable
class LanguageModel(Backend, Protocol):
    """A backend with ``loglikelihood`` and ``generate``.

    Results come back in the order of the requests; a failed request is a Failure in its place.
    """

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return the summed log-probability of each continuation given its context."""

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        enough: Enough | None = None,
    ) -> list[Generation | Failure]:
        """Sample completions of each prompt, one per seed in ``seeds[i]``, each reproducible from its seed alone.

        ``enough(i, completion)`` is told of completions of prompt ``i`` as they finish; once it returns True, what is
        left of that prompt is not drawn, and what is being drawn is dropped.
        """

    @property
    def has_chat_template(self) -> bool:
        """Whether :meth:`chat_prompt` works."""

    def chat_prompt(self, user: str) -> str:
        """Render one user turn through the model's chat template, up to where the assistant begins."""

    def another(self, model: str) -> LanguageModel:
        """Load a second model beside this one, with the same settings."""


@runtime_checkable
class StepReader(Backend, Protocol):
    """A backend with ``step_scores``: a trained process reward model."""

    def step_scores(self, traces: Sequence[Trace]) -> list[Scored]:
        """Return one result per trace, in their order; whatever is too long for the model is a failure, never cut."""


@runtime_checkable
class Labeler(Protocol):
    """Gives every step of a trace a number, higher = better step.

    A labeler is constructed with its settings as keyword arguments, plus ``seed`` if it takes one. ``needs`` names the
    trace fields it uses beyond problem and steps; ``capabilities`` what it asks of a backend (empty: it runs without
    a model). ``native_threshold``: a step scored below it is called wrong; ``None``: it makes no such decision.

    More methods where a labeler has use for them: :class:`BringsModel`, :class:`LoadsModels`, :class:`SeesAll`. A
    labeler that draws few completions per trace may set ``batch_factor``: how many times the usual text makes a batch
    that keeps the model busy. ``aggregation`` (``min`` if not set) says how its step scores become one of the solution,
    where a task selects among solutions.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    kind: ClassVar[Literal["labeler", "prm", "critic", "baseline"]]
    needs: ClassVar[frozenset[str]]
    capabilities: frozenset[Capability]
    native_threshold: float | None

    def score(self, traces: Sequence[Trace], backend: Any) -> Iterable[Scored]:
        """Return one result per trace, in any order: scores, or a typed failure.

        ``backend`` offers what ``capabilities`` names; it is ``None`` where that is nothing.
        """


@runtime_checkable
class BringsModel(Protocol):
    """A labeler that is a model of its own, rather than a way to use the run's model."""

    def brings(self, options: BackendOptions) -> tuple[str, BackendOptions]:
        """Return the name of the backend that loads it, and what to load; ``options`` are those of the run."""


@runtime_checkable
class LoadsModels(Protocol):
    """A labeler that needs more than the run's model."""

    def load(self, backend: Any) -> Mapping[str, ModelDescription]:
        """Load what else is needed, before anything is timed; return its description for the manifest, by role."""


@runtime_checkable
class SeesAll(Protocol):
    """A labeler whose scores depend on those of all traces, such as ranks among them."""

    def finish(self, rows: Sequence[JSON]) -> list[list[float] | None]:
        """Return the final scores of each row (as in samples.jsonl), from its ``details``; ``None`` where it failed.

        Called on all rows once every trace is scored, and again on the same rows when a finished run is read.
        """
