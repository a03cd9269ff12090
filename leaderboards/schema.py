"""Leaderboard rows: what is said of one scorer on one task, and the form it is kept in.

A file of JSON lines per task; every row carries the version of this form. Rows are ``measured`` (made from a run
directory, with its fingerprint) or ``published`` (with a source). Metric values are in the units of results.json:
accuracies, F1 and AUC as fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1
KINDS = ("labeler", "prm", "generative prm", "critic", "baseline")


@dataclass(frozen=True)
class Value:
    """A metric: its value over ``n`` things, and the bounds of its 95% interval. ``None``: not known or not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class TraceSet:
    """Which traces a measured result stands on.

    ``sha256``: of ids, texts and annotations, in any order; results are ranked only where it is the same. ``total``:
    how many there are; ``scored``: how many of them have scores. ``limit``: what the run was restricted to, if it was
    (``None``: all traces of the part).
    """

    sha256: str
    total: int
    scored: int
    limit: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every trace was scored."""
        return self.scored == self.total


@dataclass(frozen=True)
class Cost:
    """What scoring took: seconds of wall and device time, token counts, bytes of peak memory. Loading is left out."""

    seconds: float
    device_seconds: float
    requested: int
    computed: int
    generated: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class Part:
    """Results on one part of a task (``processbench/gsm8k``, or ``processbench`` for the mean over its subsets)."""

    metrics: Mapping[str, Value]
    traces: TraceSet | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class Row:
    """One scorer on one task.

    ``scorer`` and ``settings``: the labeler or PRM and its settings. ``model``: ``name``, and where measured
    ``revision`` or ``sha256``, ``dtype``, ``backend``; ``None`` where none ran. ``threshold``: the protocol that turned
    scores into decisions, as it was named (``native``, ``crossfit:5``, ...); ``None``: not stated. ``aggregation``: how
    step scores become one of the solution, for tasks that select among solutions. ``hardware``: ``device``,
    ``platform``, ``processor``. ``fingerprint``: the SHA-256 of a run's identity (configuration, data, files, model).
    ``source`` and ``note``: where a published row comes from, and what else a reader must know. ``date``: when it was
    measured (ISO 8601).
    """

    task: str
    origin: Literal["measured", "published"]
    scorer: str
    kind: str
    parts: Mapping[str, Part]
    settings: Mapping[str, Any] = field(default_factory=dict)
    uses_reference: bool = False
    model: Mapping[str, Any] | None = None
    threshold: str | None = None
    aggregation: str | None = None
    synthetic: bool = False
    hardware: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str | None = None
    source: str | None = None
    note: str = ""
    date: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def oracle(self) -> bool:
        """Whether it was given what it is judged by: shown, never ranked.

        A threshold that was fitted to the reported items, or a selection by the answer that selection is judged by.
        """
        return self.threshold == "oracle" or (self.aggregation is not None and self.uses_reference)
