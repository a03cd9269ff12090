"""The meter: wall time by phase, tokens, peak memory. Costs of interrupted sessions add up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cpmi_eval.types import Tokens


@dataclass
class Meter:
    """Wall seconds of this session by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to phase ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Share:
    """What one row cost: its part of its batch's time, its tokens, and the peak memory when it was written.

    ``seconds`` is wall time where its batch was scored. ``device_seconds`` is what occupied the device: processor time
    over all cores where the model runs on the CPU, wall time per GPU where it runs there. ``wall_seconds``, where
    several workers score at a time: the row's part of the time that passed meanwhile; over all rows it adds up to the
    run's. ``None``: that is ``seconds``. ``waited_seconds``: the part of ``seconds`` in which the device had no work,
    since the host was not done with what comes next; ``None`` where the backend cannot tell.
    """

    seconds: float
    device_seconds: float
    tokens: Tokens
    peak_memory_bytes: int
    wall_seconds: float | None = None
    waited_seconds: float | None = None

    @classmethod
    def nothing(cls) -> Share:
        """What a trace cost that nobody has scored."""
        return cls(0.0, 0.0, Tokens(), 0)

    @property
    def passed(self) -> float:
        """Seconds of the run's wall time that the row accounts for."""
        return self.seconds if self.wall_seconds is None else self.wall_seconds

    def as_dict(self) -> dict[str, Any]:
        """Return it under the names used in run files."""
        return {
            "seconds": self.seconds,
            "device_seconds": self.device_seconds,
            "tokens": self.tokens.as_dict(),
            "peak_memory_bytes": self.peak_memory_bytes,
            **({} if self.wall_seconds is None else {"wall_seconds": self.wall_seconds}),
            **({} if self.waited_seconds is None else {"waited_seconds": self.waited_seconds}),
        }


@dataclass
class Stopwatch:
    """Wall and device seconds spent inside ``with``; ``gpu``: whether the model runs on one.

    ``busy`` tells for how long the device has had work so far; ``waited`` is for how long it had none inside ``with``.
    """

    gpu: bool
    busy: Callable[[], float | None] = field(default=lambda: None, repr=False)
    wall: float = 0.0
    device: float = 0.0
    waited: float | None = None

    def __enter__(self) -> Stopwatch:
        """Start."""
        self._start = time.perf_counter(), time.process_time(), self.busy()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what only this process can tell: workers send what they measured."""
        return {"gpu": self.gpu, "wall": self.wall, "device": self.device, "waited": self.waited}

    def __exit__(self, *_: object) -> None:
        """Stop."""
        wall, process, busy = self._start
        self.wall = time.perf_counter() - wall
        self.device = self.wall if self.gpu else time.process_time() - process
        now = self.busy()
        self.waited = None if busy is None or now is None else max(0.0, self.wall - (now - busy))


class Lap:
    """Cuts the time since it was made into stretches that add up to it."""

    def __init__(self) -> None:
        """Begin the first stretch."""
        self._last = time.perf_counter()

    def next(self) -> float:
        """End a stretch, begin another; return the seconds that the one took."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def shares(
    watch: Stopwatch, tokens: Sequence[Tokens], peak_memory_bytes: int, passed: float | None = None
) -> list[Share]:
    """Split a batch's time over its traces by tokens put through the model, evenly where there were none.

    Args:
        watch: stopped, where the batch was scored.
        tokens: of each trace.
        peak_memory_bytes: when the batch was done.
        passed: seconds of the run that these rows account for, where several batches are scored at a time.
    """
    total = sum(one.computed for one in tokens)
    parts = [one.computed / total if total else 1 / len(tokens) for one in tokens]
    return [
        Share(
            watch.wall * part,
            watch.device * part,
            one,
            peak_memory_bytes,
            None if passed is None else passed * part,
            None if watch.waited is None else watch.waited * part,
        )
        for part, one in zip(parts, tokens, strict=True)
    ]
