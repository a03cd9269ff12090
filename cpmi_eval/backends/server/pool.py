"""Many requests at a time, never more than allowed; results reach the caller's own thread as they come in.

Requests run on an event loop in a thread of their own, so that a caller may have a loop itself. What the caller does
with a result (grading, for one) happens in its thread, while further requests are under way.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from cpmi_eval.backends.server.faults import OF_THE_REQUEST, RequestError, ServerStoppedError
from cpmi_eval.backends.server.requests import Request, ServerSettings
from cpmi_eval.types import JSON, Failure

if TYPE_CHECKING:
    from cpmi_eval.backends.server.client import Client

log = logging.getLogger(__name__)
T = TypeVar("T")
Arrived: TypeAlias = Callable[[int, T | Failure], bool]


@dataclass(frozen=True)
class Job(Generic[T]):
    """A request, what reads its reply (raising RequestError), and the group that it may be dropped with."""

    request: Request
    read: Callable[[JSON], T]
    group: int


class Pool:
    """Sends jobs. ``failed_in_a_row``: requests, over all calls; ``failed``: those of the last call."""

    def __init__(self, own: ServerSettings, client: Callable[[], Client]) -> None:
        self._settings = own
        self._client = client
        self.failed_in_a_row = 0
        self.failed = 0

    def ask(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Put one question to the server and wait for the answer; raises what it raises."""

        async def once() -> T:
            async with self._client() as client:
                return await question(client)

        with _loop() as loop:
            return asyncio.run_coroutine_threadsafe(once(), loop).result()

    def run(self, jobs: Sequence[Job[T]], arrived: Arrived[T]) -> None:
        """Send jobs in their order; ServerStoppedError once too many failed in a row.

        ``arrived`` is told each result with its place among the jobs, in the order in which they come in; once it
        returns True, what is left of the job's group is not sent, and what is under way is dropped.
        """
        self.failed = 0
        sending = _Sending(jobs, self._settings.concurrency, self._client)
        with _loop() as loop:
            sent = asyncio.run_coroutine_threadsafe(sending.all(), loop)
            sent.add_done_callback(lambda _: sending.results.put(None))
            while (result := sending.results.get()) is not None:
                self._count(result[1])
                if arrived(*result):
                    loop.call_soon_threadsafe(sending.drop, jobs[result[0]].group)
            sent.result()
        if sending.dropped:
            log.info("%d requests were dropped while under way; what they cost is not known", sending.dropped)

    def collect(self, jobs: Sequence[Job[T]]) -> list[T | Failure]:
        """Send jobs and return their results, in order; raises as :meth:`run`."""
        found: dict[int, T | Failure] = {}

        def arrived(index: int, result: T | Failure) -> bool:
            found[index] = result
            return False

        self.run(jobs, arrived)
        return [found[index] for index in range(len(jobs))]

    def _count(self, result: object) -> None:
        if not isinstance(result, Failure) or result.kind in OF_THE_REQUEST:
            self.failed_in_a_row = 0
            return
        self.failed += 1
        self.failed_in_a_row += 1
        if self.failed_in_a_row >= self._settings.give_up:
            raise stopped(self._settings, f"{self.failed_in_a_row} requests in a row failed", result)


def stopped(own: ServerSettings, what: str, last: Failure) -> ServerStoppedError:
    """Return the error that ends the run, with the reason and how it goes on."""
    return ServerStoppedError(
        f"{own.base_url}: {what}, the last with {last.kind}: {last.message}\n"
        "What was scored is kept. Once the server is well, the same command goes on from there"
    )


class _Sending(Generic[T]):
    """The loop's side of :meth:`Pool.run`; all but ``results`` is used in the loop's thread only."""

    def __init__(self, jobs: Sequence[Job[T]], concurrency: int, client: Callable[[], Client]) -> None:
        self.results: queue.SimpleQueue[tuple[int, T | Failure] | None] = queue.SimpleQueue()
        self.dropped = 0
        self._jobs = jobs
        self._concurrency = concurrency
        self._open = client
        self._todo = iter(range(len(jobs)))
        self._over: set[int] = set()
        self._running: dict[int, asyncio.Task[T | Failure]] = {}

    async def all(self) -> None:
        async with self._open() as client:
            await asyncio.gather(*(self._some(client) for _ in range(min(self._concurrency, len(self._jobs)))))

    async def _some(self, client: Client) -> None:
        for index in self._todo:
            job = self._jobs[index]
            if job.group in self._over:
                continue
            task = self._running[index] = asyncio.create_task(self._one(client, job))
            await asyncio.wait([task])  # does not raise where the task was dropped
            del self._running[index]
            if task.cancelled():
                self.dropped += 1
            else:
                self.results.put((index, task.result()))

    async def _one(self, client: Client, job: Job[T]) -> T | Failure:
        try:
            return job.read(await client.send(job.request))
        except RequestError as error:
            return error.failure

    def drop(self, group: int) -> None:
        self._over.add(group)
        for index, task in self._running.items():
            if self._jobs[index].group == group:
                task.cancel()


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own; what is still under way at the end is cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cpmi-eval-server", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end(loop), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    left: set[asyncio.Task[Any]] = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
