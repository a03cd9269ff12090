"""The meter: wall time by phase, tokens, peak memory. Costs of interrupted sessions add up."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
    """What one row cost: its part of its batch's wall time, its tokens, and the peak memory when it was written."""

    seconds: float
    tokens: Tokens
    peak_memory_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return it under the names used in run files."""
        return {
            "seconds": self.seconds,
            "tokens": self.tokens.as_dict(),
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def shares(seconds: float, tokens: list[Tokens]) -> list[float]:
    """Split a batch's wall time over its traces by tokens put through the model, evenly where there were none."""
    total = sum(one.computed for one in tokens)
    if total == 0:
        return [seconds / len(tokens)] * len(tokens)
    return [seconds * one.computed / total for one in tokens]


def total(rows: list[dict[str, Any]], sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run's cost over all sessions: scoring from the rows, other phases from the sessions."""
    phases: dict[str, float] = {}
    for session in sessions:
        for name, seconds in session["seconds"].items():
            phases[name] = phases.get(name, 0.0) + seconds
    phases["score"] = sum(row["cost"]["seconds"] for row in rows)
    tokens = {key: sum(row["cost"]["tokens"][key] for row in rows) for key in Tokens().as_dict()}
    peaks = [row["cost"]["peak_memory_bytes"] for row in rows]
    return {
        "wall_seconds": {**phases, "total": sum(phases.values())},
        "tokens": tokens,
        "peak_memory_bytes": max(peaks, default=0),
        "sessions": len(sessions),
    }
