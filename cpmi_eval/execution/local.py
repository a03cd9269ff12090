"""The seam between a run, which owns order and store, and what scores its batches: this process, or many workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from cpmi_eval.cost import Meter, Stopwatch
from cpmi_eval.execution.guard import score_batch
from cpmi_eval.protocols import Backend, BackendOptions, Labeler, LoadsModels, TellsBusy
from cpmi_eval.record.model import ModelDescription, checked
from cpmi_eval.types import JSON, Item, Scored

Opener: TypeAlias = Callable[[type[Backend], BackendOptions], Backend]


def open_backend(backend_class: type[Backend], options: BackendOptions) -> Backend:
    """Load a model."""
    return backend_class.open(options)


@dataclass(frozen=True)
class Batch:
    """Traces that are scored together; ``owed`` are those of them whose rows are not in the store yet."""

    items: tuple[Item, ...]
    owed: tuple[Item, ...]


@dataclass(frozen=True)
class Outcome:
    """A scored batch: a result for each of its traces by id, the seconds it took where it ran, the peak memory there.

    ``peak_memory_bytes`` is 0 where no model runs.
    """

    batch: Batch
    scored: Mapping[str, Scored]
    watch: Stopwatch
    peak_memory_bytes: int


@dataclass(frozen=True)
class Budget:
    """Tokens of trace text that make a good batch; what :func:`cpmi_eval.run.batches` needs to know of a backend."""

    batch_tokens: int


class Executor(Protocol):
    """What scores the batches of one run; opened once, closed whatever happens."""

    @property
    def parallel(self) -> bool:
        """Whether several batches are scored at a time, so that their seconds do not add up to time passed."""

    @property
    def budget(self) -> Budget | None:
        """The size of a batch, known once it is open; ``None`` where no model runs."""

    def open(self, meter: Meter) -> ModelDescription | None:
        """Load what the labeler needs; return what the manifest says of the model, ``None`` where there is none."""

    def score(self, batches: Iterable[Batch]) -> Iterator[Outcome]:
        """Score the batches, taking them as they are needed; yield each once, in the order in which they finish."""

    def record(self) -> JSON | None:
        """Return what the manifest says of this session's workers; ``None`` where there are none."""

    def close(self) -> None:
        """Let go of everything that was opened."""


class InProcess:
    """Scores batch after batch in this process."""

    parallel = False

    def __init__(
        self, labeler: Labeler, backend_class: type[Backend] | None, options: BackendOptions, opener: Opener
    ) -> None:
        """Load nothing yet; ``backend_class`` is ``None`` for a labeler that runs without a model."""
        self.labeler = labeler
        self.backend: Backend | None = None
        self._to_open = (backend_class, options, opener)
        self._gpu = False

    @property
    def budget(self) -> Budget | None:
        """The size of a batch that suits the loaded model."""
        return None if self.backend is None else Budget(self.backend.batch_tokens)

    def open(self, meter: Meter) -> ModelDescription | None:
        """Load and warm up what the labeler needs; return the model's description, others beside it."""
        backend_class, options, opener = self._to_open
        if backend_class is None:
            return None
        with meter.phase("load_model"):
            self.backend = backend = opener(backend_class, options)
            others = self.labeler.load(backend) if isinstance(self.labeler, LoadsModels) else {}
        with meter.phase("warm_up"):
            backend.prepare(self.labeler.capabilities)
        about = checked(backend.describe(), f"the backend {backend.name!r}")
        self._gpu = about.on_gpu
        of = f"the labeler {self.labeler.name!r}"
        return replace(about, others={role: checked(one, of) for role, one in others.items()})

    def score(self, batches: Iterable[Batch]) -> Iterator[Outcome]:
        """Score one batch after the other, in their order."""
        for batch in batches:
            with Stopwatch(self._gpu, self._busy) as watch:
                scored = score_batch(self.labeler, [item.trace for item in batch.items], self.backend)
            peak = 0 if self.backend is None else self.backend.peak_memory_bytes()
            yield Outcome(batch, scored, watch, peak)

    def _busy(self) -> float | None:
        return self.backend.busy_seconds() if isinstance(self.backend, TellsBusy) else None

    def record(self) -> JSON | None:
        """There are no workers."""
        return None

    def close(self) -> None:
        """The backend may be shared with other runs: it is left to whoever opened it."""
