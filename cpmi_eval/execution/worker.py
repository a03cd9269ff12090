"""One worker: a process with a replica of the model and the labeler, and what it and the driver tell each other.

A request that cannot be carried out comes back as a :class:`Refused`, not as an exception: exceptions with arguments of
their own do not survive the way between processes.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cpmi_eval
from cpmi_eval.cost import Meter, Stopwatch
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.execution.local import Batch, InProcess, open_backend
from cpmi_eval.plan import RunConfig
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import Gold, Item, Scored, Trace

SAID_AT_MOST = 20  # messages per batch


@dataclass(frozen=True)
class Started:
    """A worker's first word: where it runs, and which versions of cpmi-eval and torch."""

    host: str
    pid: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Loaded:
    """The model's description as for the manifest, ``None`` where there is none; tokens that make a good batch."""

    model: ModelDescription | None
    batch_tokens: int | None


@dataclass(frozen=True)
class Scores:
    """The results of one batch by trace, what it took, and what was logged on the way, with levels."""

    scored: Mapping[str, Scored]
    watch: Stopwatch
    peak_memory_bytes: int
    said: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Refused:
    """A UsageError as it crosses between processes."""

    message: str
    of_model: bool

    @classmethod
    def of(cls, error: UsageError) -> Refused:
        """Take an error along."""
        return cls(str(error), isinstance(error, ModelError))

    def error(self, where: str) -> UsageError:
        """Return it as an error again; ``where`` names the worker."""
        return (ModelError if self.of_model else UsageError)(f"{where}: {self.message}")


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told.

    ``options``: what its backend is to load, ``None`` for a labeler that runs without a model. ``threads``: of torch
    on a CPU; ``None`` leaves them as they are. ``folder``: where relative paths begin, if the machine has it.
    """

    config: RunConfig
    options: BackendOptions | None
    threads: int | None
    folder: str


class Worker:
    """Loads what a run needs, once, and scores batches. An actor of Ray's; nothing in here knows of Ray."""

    def __init__(self, job: Job) -> None:
        """Keep what is to be done; nothing is loaded yet."""
        self.job = job
        self.executor: InProcess | None = None
        self._said = _Said()

    def hello(self) -> Started:
        """Say that the worker has started."""
        from cpmi_eval.manifest import package_versions

        return Started(socket.gethostname(), os.getpid(), {**package_versions(), "cpmi-eval": cpmi_eval.__version__})

    def open(self) -> Loaded | Refused:
        """Construct the labeler, load and warm up the model; or say why that cannot be."""
        from cpmi_eval import registry
        from cpmi_eval.plan import backend_of, make_labeler

        logging.getLogger("cpmi_eval").addHandler(self._said)
        if Path(self.job.folder).is_dir():
            os.chdir(self.job.folder)
        if self.job.options is not None and self.job.threads is not None:
            import torch

            torch.set_num_threads(self.job.threads)
        try:
            labeler = make_labeler(self.job.config)
            name, options = backend_of(labeler, self.job.config)
            backend_class = None if self.job.options is None else registry.load("backends", name)
            self.executor = InProcess(labeler, backend_class, self.job.options or options, open_backend)
            model = self.executor.open(Meter())
        except UsageError as error:
            return Refused.of(error)
        budget = self.executor.budget
        return Loaded(model, None if budget is None else budget.batch_tokens)

    def score(self, traces: Sequence[Trace]) -> Scores | Refused:
        """Score one batch."""
        if self.executor is None:
            raise RuntimeError("a worker scores only after it was opened")
        items = tuple(Item("", trace, Gold(None)) for trace in traces)  # the gold annotation stays with the driver
        try:
            (outcome,) = self.executor.score([Batch(items, items)])
        except UsageError as error:
            return Refused.of(error)
        scored = outcome.scored
        if not self.job.config.log_samples:
            scored = {name: replace(result, samples=()) for name, result in scored.items()}
        return Scores(scored, outcome.watch, outcome.peak_memory_bytes, self._said.take())


class _Said(logging.Handler):
    """Keeps what is logged until the driver hears of it: a worker's own streams are files of Ray's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[tuple[int, str]] = []
        self._more = 0

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._messages) < SAID_AT_MOST:
            self._messages.append((record.levelno, record.getMessage()))
        else:
            self._more += 1

    def take(self) -> tuple[tuple[int, str], ...]:
        """Return what was said since the last time."""
        more = [(logging.WARNING, f"and {self._more} more messages")] if self._more else []
        taken, self._messages, self._more = (*self._messages, *more), [], 0
        return taken
