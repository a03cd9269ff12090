"""Hands batches to workers and takes their results; what a lost worker had is given to another one.

The driver keeps the order, the store and the gold annotations. A worker has at most IN_FLIGHT batches: one that it
scores, one that waits for it, so that memory here does not grow with the run. Ray places the workers, carries batches
and notices what dies; which batch goes where is decided here, because a batch that kills its worker must be found.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cpmi_eval
from cpmi_eval.cost import Meter, Stopwatch
from cpmi_eval.errors import UsageError
from cpmi_eval.execution.local import Batch, Budget, Outcome
from cpmi_eval.execution.session import Session, Share, connect, share
from cpmi_eval.execution.worker import Job, Loaded, Refused, Scores, Started, Worker
from cpmi_eval.execution.workers import Workers
from cpmi_eval.manifest import model_differences, package_versions
from cpmi_eval.plan import RunConfig
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.record.journal import differences
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import JSON, Failure, TraceFailure

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # batches per worker
DEATHS = 3  # of workers, while they scored a batch, until it is given up
START_SECONDS = 300.0  # for Ray to start a worker's process; loading a model is not limited
GRACE_SECONDS = 10.0  # for Ray to say what became of a lost worker's batches
LOOK_SECONDS = 5.0  # between looks at workers that have not started


@dataclass
class _Task:
    """A batch, and how many workers have died over it."""

    batch: Batch
    deaths: int = 0


@dataclass
class _Replica:
    """The driver's view of one worker. ``hello`` and ``opening`` are what it still owes before it can score."""

    number: int
    actor: Any
    hello: Any
    opening: Any
    since: float = field(default_factory=time.monotonic)
    host: str | None = None
    running: deque[tuple[Any, _Task]] = field(default_factory=deque)

    @property
    def ready(self) -> bool:
        return self.opening is None

    @property
    def name(self) -> str:
        return f"worker {self.number}" + (f" on {self.host}" if self.host else "")

    def awaited(self) -> list[Any]:
        """Return what the worker will answer, in order."""
        return [ref for ref in (self.hello, self.opening) if ref is not None] + [ref for ref, _ in self.running]


class OnWorkers:
    """Scores batches on workers; see :class:`cpmi_eval.execution.local.Executor`."""

    parallel = True

    def __init__(self, config: RunConfig, options: BackendOptions | None, workers: Workers) -> None:
        """Start nothing yet; ``options`` is what a worker's backend is to load, ``None`` where no model runs."""
        self.config = config
        self.options = options
        self.workers = workers
        self.budget: Budget | None = None
        self._session: Session | None = None
        self._share = Share(1, 0)
        self._job: Job | None = None
        self._replicas: list[_Replica] = []
        self._again: deque[_Task] = deque()
        self._source: Iterator[Batch] | None = None
        self._first: Loaded | None = None
        self._opened = False
        self._hosts: set[str] = set()
        self._restarts = self._retried = self._in_a_row = 0
        self._stop: Exception | None = None

    # --- from open to close -----------------------------------------------------------------------------------------

    def open(self, meter: Meter) -> ModelDescription | None:
        """Start the workers and wait until each has loaded the same model; return its description.

        Raises:
            UsageError: no Ray, no room for the workers, or one that cannot load the model.
        """
        with meter.phase("start_workers"):
            self._session = connect(self.workers.address)
            self._share = share(
                self._session.nodes(), self.workers.count, None if self.options is None else self.options.device
            )
            self._job = Job(self.config, self._placed(), _threads(self._share), str(Path.cwd()))
            self._replicas = [self._start(number) for number in range(1, self.workers.count + 1)]
            self._until(lambda replica: replica.host is not None)
        with meter.phase("load_model"):
            self._until(lambda replica: replica.ready)
        self._opened = True
        assert self._first is not None
        tokens = self._first.batch_tokens
        self.budget = None if tokens is None else Budget(tokens)
        return self._first.model

    def record(self) -> JSON | None:
        """Return who the workers are and what became of them, for the manifest."""
        return {
            "count": self.workers.count,
            "address": self.workers.address,
            "machines": len(self._hosts),
            "cpus_each": self._share.cpus,
            "gpus_each": self._share.gpus,
            "restarts": self._restarts,
            "retried_batches": self._retried,
        }

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        import ray

        replicas, self._replicas = self._replicas, []
        try:
            if ray.is_initialized():
                for replica in replicas:
                    ray.kill(replica.actor)
        finally:
            if self._session is not None:
                self._session.close()
        if self._restarts:
            log.warning("workers lost: %d; batches given out again: %d", self._restarts, self._retried)

    def _placed(self) -> BackendOptions | None:
        """Return what a worker loads: never a GPU that Ray did not set aside for it."""
        if self.options is None or self._share.gpus or self.options.device != "auto":
            return self.options
        return replace(self.options, device="cpu")

    def _start(self, number: int) -> _Replica:
        import ray

        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=self._share.cpus,
                num_gpus=self._share.gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote(self._job)
        )
        return _Replica(number, actor, actor.hello.remote(), actor.open.remote())

    def _until(self, reached: Callable[[_Replica], bool]) -> None:
        """Wait for all workers to have come so far."""
        while not all(map(reached, self._replicas)):
            self._turn()
            if self._stop is not None:
                raise self._stop

    # --- batches ----------------------------------------------------------------------------------------------------

    def score(self, batches: Iterable[Batch]) -> Iterator[Outcome]:
        """Score the batches; yield each as it finishes.

        Raises:
            UsageError: too many workers were lost, or a worker said that the run cannot go on. What the others were
                scoring by then is waited for and yielded first.
        """
        self._source = iter(batches)
        while True:
            self._hand_out()
            if not any(replica.running for replica in self._replicas):
                if self._stop is not None:
                    raise self._stop
                if self._none_left():
                    return
            yield from self._turn()

    def _hand_out(self) -> None:
        """Fill up the workers that are ready, each with a first batch before any gets a second one."""
        for depth in range(IN_FLIGHT):
            for replica in self._replicas:
                if not replica.ready or len(replica.running) > depth:
                    continue
                task = self._next()
                if task is None:
                    return
                traces = [item.trace for item in task.batch.items]
                replica.running.append((replica.actor.score.remote(traces), task))

    def _none_left(self) -> bool:
        return self._source is None and not self._again

    def _next(self) -> _Task | None:
        """Return what is to be scored next: what was lost, then what comes."""
        if self._stop is not None:
            return None
        if self._again:
            return self._again.popleft()
        batch = None if self._source is None else next(self._source, None)
        if batch is None:
            self._source = None
            return None
        return _Task(batch)

    def _turn(self) -> list[Outcome]:
        """Wait until something happens, and see to it; return what was scored."""
        import ray
        from ray.exceptions import RayError

        replicas = {ref: replica for replica in self._replicas for ref in replica.awaited()}
        try:
            ready, _ = ray.wait(list(replicas), num_returns=1, timeout=LOOK_SECONDS)
        except RayError as error:
            raise UsageError(f"the connection to Ray was lost ({error}); the same command goes on") from error
        outcomes = [one for ref in ready for one in self._answered(replicas[ref], ref)]
        self._look_for_starting()
        return outcomes

    def _answered(self, replica: _Replica, ref: Any) -> list[Outcome]:
        """See to what a worker answered."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = ray.get(ref)
        except RayTaskError as error:  # a bug of ours, a backend's or Python's; nobody else would fare better
            return self._failed(replica, ref, error)
        except RayError as error:
            return self._lost(replica, error)
        if isinstance(answer, Refused):
            return self._failed(replica, ref, answer.error(replica.name))
        if isinstance(answer, Started):
            replica.hello = None
            self._started(replica, answer)
        elif isinstance(answer, Loaded):
            replica.opening = None
            self._loaded(replica, answer)
        elif isinstance(answer, Scores):
            return [self._scored(replica, ref, answer)]
        return []

    def _failed(self, replica: _Replica, ref: Any, error: Exception) -> list[Outcome]:
        """Stop the run for a reason that is not one trace's: nothing is handed out any more."""
        self._stop = self._stop or error
        if ref in (replica.hello, replica.opening):
            self._end(replica)
        else:
            replica.running = deque(one for one in replica.running if one[0] != ref)
        return []

    def _scored(self, replica: _Replica, ref: Any, scores: Scores) -> Outcome:
        task = next(task for own, task in replica.running if own == ref)
        replica.running = deque(one for one in replica.running if one[0] != ref)
        self._in_a_row = 0
        for level, message in scores.said:
            log.log(level, "%s: %s", replica.name, message)
        return Outcome(task.batch, scores.scored, scores.watch, scores.peak_memory_bytes)

    # --- workers come and go ----------------------------------------------------------------------------------------

    def _started(self, replica: _Replica, started: Started) -> None:
        replica.host = started.host
        self._hosts.add(started.host)
        ours = package_versions()
        if started.versions["cpmi-eval"] != cpmi_eval.__version__:
            self._stop = UsageError(
                f"{replica.name} has cpmi-eval {started.versions['cpmi-eval']}, this machine {cpmi_eval.__version__}; "
                "install the same on all machines"
            )
        elif differ := differences(started.versions, ours, sorted(ours)):
            log.warning("%s has other versions (%s): scores may differ in the last digits", replica.name, differ)

    def _loaded(self, replica: _Replica, loaded: Loaded) -> None:
        """Hold a worker's model to the first one's."""
        first = self._first = self._first or loaded
        differ = model_differences(first.model, loaded.model)
        if differ or first.batch_tokens != loaded.batch_tokens:
            self._stop = UsageError(
                f"{replica.name} loaded another model or runs on another device than the first worker "
                f"({differ or 'batch_tokens differ'}); give all machines the same files, and workers of one kind"
            )

    def _lost(self, replica: _Replica, error: Exception) -> list[Outcome]:
        """Give out again what a lost worker had; start another in its place. Return what it had finished before."""
        import ray
        from ray.exceptions import RayError

        self._end(replica)
        outcomes, lost = [], []
        for ref, task in list(replica.running):
            try:
                answer = ray.get(ref, timeout=GRACE_SECONDS)
            except RayError:
                lost.append(task)
                continue
            if isinstance(answer, Scores):
                outcomes.append(self._scored(replica, ref, answer))
            else:
                self._failed(replica, ref, answer.error(replica.name))
        reason = _reason(error)
        log.warning("%s was lost with %d batches: %s", replica.name, len(lost), reason)
        if lost:
            lost[0].deaths += 1  # workers score in order: it had begun no other
        outcomes += [one for task in reversed(lost) for one in self._retry(task, reason)]
        self._restarts += 1
        self._in_a_row += 1
        if self._in_a_row > self.workers.max_restarts:
            self._stop = self._stop or UsageError(
                f"{self._in_a_row} workers were lost one after another, the last because {reason}; what was scored is "
                "kept, and the same command goes on from there"
            )
        if self._stop is None:
            self._replicas.append(self._start(replica.number))
        return outcomes

    def _retry(self, task: _Task, reason: str) -> list[Outcome]:
        """Put a batch in front of all others: whole, then trace by trace; in the end it is a failure."""
        if task.deaths < DEATHS:
            self._again.appendleft(task)
        elif len(task.batch.items) > 1:
            log.warning("%d workers died over a batch; its traces are scored one by one", task.deaths)
            self._again.extendleft(_Task(Batch((item,), (item,))) for item in reversed(task.batch.owed))
        else:
            failure = Failure("worker_died", f"{task.deaths} workers died while they scored it, the last: {reason}")
            name = task.batch.items[0].trace.id
            return [Outcome(task.batch, {name: TraceFailure(name, failure)}, Stopwatch(False), 0)]
        self._retried += 1
        return []

    def _end(self, replica: _Replica) -> None:
        import ray

        ray.kill(replica.actor)
        self._replicas.remove(replica)

    def _look_for_starting(self) -> None:
        """Stop when nobody works and those who should have not started for long: there is no room for them."""
        waiting = [replica for replica in self._replicas if replica.hello is not None]
        late = [one for one in waiting if time.monotonic() - one.since > START_SECONDS]
        if late and (not self._opened or len(waiting) == len(self._replicas)):
            self._stop = self._stop or UsageError(
                f"Ray started {len(self._replicas) - len(waiting)} of {len(self._replicas)} workers in "
                f"{START_SECONDS:.0f} s; is the cluster busy or a machine gone? What was scored is kept, and the same "
                "command goes on, also with fewer workers"
            )


def _threads(share: Share) -> int | None:
    """Return how many threads torch gets: the worker's CPUs, or fewer if the environment says so."""
    if share.gpus:
        return None
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share.cpus, int(asked)) if asked.isdecimal() and int(asked) else share.cpus


def _reason(error: Exception) -> str:
    """Return the part of Ray's message that says why, on one line."""
    text = " ".join(str(error).split())
    for start in ("The actor is dead because", "The actor died because"):
        _, found, rest = text.partition(start)
        if found:
            return rest.strip()[:160]
    return f"{type(error).__name__}: {text[:160]}"
