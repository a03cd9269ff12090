"""Many requests at a time, never more than allowed; results reach the caller's own thread as they come in.

Requests run on an event loop in a thread of their own, so that a caller may have a loop itself. What the caller does
with a result (grading, for one) happens in its thread, while further requests are under way.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from cpmi_eval.backends.serving.client import Client, Request, Sleep
from cpmi_eval.backends.serving.config import ServerSettings
from cpmi_eval.backends.serving.faults import OF_THE_REQUEST, RequestError, ServerStoppedError
from cpmi_eval.types import JSON, Failure

log = logging.getLogger(__name__)
T = TypeVar("T")
Arrived: TypeAlias = Callable[[int, T | Failure], bool]


@dataclass(frozen=True)
class Job(Generic[T]):
    """A request, what reads its reply (raising RequestError), and the group that it may be dropped with."""

    request: Request
    read: Callable[[JSON], T]
    group: int


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class Pool:
    """Sends jobs. ``failed_in_a_row``: requests, over all calls; ``failed``: those of the last call."""

    def __init__(self, own: ServerSettings, key: str, sleep: Sleep, clock: Callable[[], float]) -> None:
        """Keep the settings."""
        self._settings = own
        self._key = key
        self._sleep = sleep
        self._clock = clock
        self.failed_in_a_row = 0
        self.failed = 0

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Put one question to the server and wait for the answer; raises what it raises."""
        answers: list[T] = []

        async def once() -> None:
            async with self._client() as client:
                answers.append(await question(client))

        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        thread = _Thread(once(), inbox)
        try:
            _raise_from(inbox.get())
        finally:
            thread.end()
        return answers[0]

    def run(self, jobs: Sequence[Job[T]], arrived: Arrived[T]) -> None:
        """Send jobs in their order.

        Args:
            jobs: what to send.
            arrived: told each result with its place among the jobs, in the order in which they come in; once it returns
                True, what is left of the job's group is not sent, and what is under way is dropped.

        Raises:
            ServerStoppedError: too many failed in a row.
        """
        self.failed = 0
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sending = _Sending(jobs, inbox, self._settings.concurrency, self._client)
        thread = _Thread(sending.all(), inbox)
        try:
            while not isinstance(message := inbox.get(), _End):
                index, result = message
                self._count(result)
                if arrived(index, result):
                    thread.call(sending.drop, jobs[index].group)
            _raise_from(message)
        finally:
            thread.end()
        if sending.dropped:
            log.info("%d requests were dropped while under way; what they cost is not known", sending.dropped)

    def _count(self, result: object) -> None:
        if not isinstance(result, Failure) or result.kind in OF_THE_REQUEST:
            self.failed_in_a_row = 0
            return
        self.failed += 1
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= self._settings.give_up:
            raise ServerStoppedError(
                stopped(self._settings, f"{self.failed_in_a_row} requests in a row failed", result)
            )

    def _client(self) -> Client:
        return Client(self._settings, self._key, self._sleep, self._clock)


def stopped(own: ServerSettings, what: str, last: Failure) -> str:
    """Say that the run stops, why, and how it goes on."""
    return (
        f"{own.base_url}: {what}, the last with {last.kind}: {last.message}\n"
        "What was scored is kept. Once the server is well, the same command goes on from there"
    )


class _Sending(Generic[T]):
    """The loop's side of :meth:`Pool.run`; all of it runs in the loop's thread."""

    def __init__(
        self, jobs: Sequence[Job[T]], inbox: queue.SimpleQueue[Any], concurrency: int, client: Callable[[], Client]
    ) -> None:
        self._jobs = jobs
        self._inbox = inbox
        self._concurrency = concurrency
        self._open = client
        self._todo = iter(range(len(jobs)))
        self._over: set[int] = set()
        self._running: dict[int, asyncio.Task[T | Failure]] = {}
        self.dropped = 0

    async def all(self) -> None:
        """Send everything, ``concurrency`` jobs at a time."""
        async with self._open() as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._concurrency, len(self._jobs))):
                        group.create_task(self._some(client))
            finally:  # before the client closes
                left = list(self._running.values())
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)

    async def _some(self, client: Client) -> None:
        """Send one job after the other."""
        for index in self._todo:
            job = self._jobs[index]
            if job.group in self._over:
                continue
            task = self._running[index] = asyncio.create_task(self._one(client, job))
            await asyncio.wait([task])  # does not raise where the task was dropped
            del self._running[index]
            if task.cancelled():
                self.dropped += 1
                continue
            self._inbox.put((index, task.result()))

    async def _one(self, client: Client, job: Job[T]) -> T | Failure:
        try:
            return job.read(await client.send(job.request))
        except RequestError as error:
            return error.failure

    def drop(self, group: int) -> None:
        """Send nothing more of a group, and let go of what is under way."""
        self._over.add(group)
        for index, task in self._running.items():
            if self._jobs[index].group == group:
                task.cancel()


class _Thread:
    """A thread with an event loop that runs one coroutine; its end, or its error, is put into the inbox."""

    def __init__(self, main: Coroutine[Any, Any, None], inbox: queue.SimpleQueue[Any]) -> None:
        self._main = main
        self._inbox = inbox
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="cpmi-eval-server", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._guarded())
        except BaseException as raised:  # noqa: BLE001 - it is raised again in the caller's thread
            error = raised
        self._inbox.put(_End(error))

    async def _guarded(self) -> None:
        self._task = asyncio.current_task()
        try:
            await self._main
        except BaseExceptionGroup as group:
            raise _first(group) from None

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have the loop call a function; nothing where it has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def end(self) -> None:
        """Cancel what still runs and wait for the thread."""
        if self._thread.is_alive():
            self.call(self._cancel)
            self._thread.join()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _first(error: BaseException) -> BaseException:
    """Return the first error inside groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _raise_from(end: _End) -> None:
    if end.error is not None:
        raise end.error
