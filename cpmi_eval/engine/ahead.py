"""The host's work on what comes next, done while the device works on what is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield what ``items`` yields, in order, each made in a worker thread while the one before it is used.

    One is made ahead, no more, and whatever making it raises is raised here.
    """
    source, over = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="cpmi-eval-host") as worker:
        coming = worker.submit(next, source, over)
        while True:
            made = coming.result()
            if made is over:
                return
            coming = worker.submit(next, source, over)
            yield made  # type: ignore[misc]
