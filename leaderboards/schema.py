"""Leaderboard rows: what is said of one scorer on one task. These types are the form of a line of a file.

A file of JSON lines per task; every row carries the version of this form. Rows are ``measured`` (made from a run
directory, with its fingerprint) or ``published`` (with a source). Metric values are in the units of results.json:
accuracies, F1 and AUC as fractions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from cpmi_eval.record.signature import portable
from cpmi_eval.types import JSON

SCHEMA_VERSION = 1
MEASURED = ("fingerprint", "threshold", "hardware", "versions", "date")  # what a measured row has
TOLERANCE = 1e-9  # of a value at the bound of its interval, for rounding

Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Kind = Literal["labeler", "prm", "generative prm", "critic", "baseline"]
Words = Annotated[str, Meta(pattern=r"\S")]
KINDS: tuple[str, ...] = get_args(Kind)


class Form(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A frozen record; a field at its default is left out of the file, one that is not known is refused."""


class Value(Form, frozen=True):
    """A metric: its value over ``n`` things, and the bounds of its 95% interval. ``None``: not known or not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: Count | None = None

    def __post_init__(self) -> None:
        """Refuse an interval that cannot be."""
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{'high' if self.high is None else 'low'} is missing: an interval has two bounds")
        if self.low is None or self.high is None:
            return
        if self.value is None:
            raise ValueError("low and high bound a value that is not there")
        if not self.low - TOLERANCE <= self.value <= self.high + TOLERANCE:
            raise ValueError(f"value {self.value:g} is outside its interval [{self.low:g}, {self.high:g}]")


class TraceSet(Form, frozen=True):
    """Which traces a measured result stands on.

    ``sha256``: of ids, texts and annotations, in any order; results are ranked only where it is the same. ``total``:
    how many there are; ``scored``: how many of them have scores. ``limit``: what the run was restricted to, if it was
    (``None``: all traces of the part).
    """

    sha256: Digest
    total: Count
    scored: Count
    limit: Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if self.scored > self.total:
            raise ValueError(f"scored is {self.scored} of {self.total} traces")

    @property
    def complete(self) -> bool:
        """Whether every trace was scored."""
        return self.scored == self.total


class Cost(Form, frozen=True):
    """What scoring took: seconds of wall and device time, token counts, bytes of peak memory. Loading is left out."""

    seconds: Amount
    device_seconds: Amount
    requested: Count
    computed: Count
    generated: Count
    peak_memory_bytes: Count


class Part(Form, frozen=True):
    """Results on one part of a task (``processbench/gsm8k``, or ``processbench`` for the mean over its subsets)."""

    metrics: Mapping[str, Value]
    traces: TraceSet | None = None
    cost: Cost | None = None


class Model(Form, frozen=True):
    """The form of a row's ``model``, which is kept as plain values: no path of one machine is in it."""

    name: Annotated[str, Meta(min_length=1)]
    revision: str | None = None
    sha256: str | None = None
    dtype: str | None = None
    backend: str | None = None
    args: Mapping[str, Any] | None = None
    others: Mapping[str, Any] | None = None


class Hardware(Form, frozen=True):
    """The form of a row's ``hardware``."""

    device: str | None = None
    platform: str | None = None
    processor: str | None = None


class Row(Form, frozen=True):
    """One scorer on one task.

    ``scorer`` and ``settings``: the labeler or PRM and its settings. ``model``: see :class:`Model`; ``None`` where
    none ran. ``threshold``: the protocol that turned scores into decisions, as it was named (``native``,
    ``crossfit:5``, ...); ``None``: not stated. ``aggregation``: how step scores become one of the solution, for tasks
    that select among solutions. ``fingerprint``: the SHA-256 of a run's identity (configuration, data, files, model).
    ``source`` and ``note``: where a published row comes from, and what else a reader must know. ``date``: when it was
    measured (ISO 8601).
    """

    task: Words
    origin: Literal["measured", "published"]
    scorer: Words
    kind: Kind
    parts: Mapping[str, Part]
    settings: Mapping[str, Any] = {}
    uses_reference: bool = False
    model: Mapping[str, Any] | None = None
    threshold: Words | None = None
    aggregation: Words | None = None
    synthetic: bool = False
    hardware: Mapping[str, Any] | None = None
    versions: Mapping[str, str | None] = {}
    fingerprint: Digest | None = None
    source: Words | None = None
    note: str = ""
    date: Words | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def oracle(self) -> bool:
        """Whether it was given what it is judged by: shown, never ranked.

        A threshold that was fitted to the reported items, or a selection by the answer that selection is judged by.
        """
        return self.threshold == "oracle" or (self.aggregation is not None and self.uses_reference)


def check(row: Row) -> None:
    """Refuse a row that lacks what its origin demands, claims what it cannot have, or names a machine's paths.

    Raises:
        ValueError: says which field is wrong, and how.
    """
    if not row.parts:
        raise ValueError("parts holds no results")
    for name in row.parts:
        if name != row.task and not name.startswith(f"{row.task}/"):
            raise ValueError(f"parts.{name} is no part of {row.task}")
    if row.origin == "published":
        if row.source is None:
            raise ValueError("source is missing: a published row says where it comes from")
        if row.fingerprint is not None:
            raise ValueError("fingerprint is given, but only measured rows have one")
    else:
        lacking = [name for name in MEASURED if not getattr(row, name)]
        lacking += [
            f"parts.{name}.{field}"
            for name, part in row.parts.items()
            for field in ("traces", "cost")
            if getattr(part, field) is None
        ]
        if lacking:
            raise ValueError(f"{lacking[0]} is missing: a measured row has it")
    if row.date is not None:
        datetime.fromisoformat(row.date)
    for name, kind in (("model", Model), ("hardware", Hardware)):
        if (value := getattr(row, name)) is not None:
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                raise ValueError(f"{name}: {error}") from None
    for name in ("settings", "model"):
        if portable(getattr(row, name)) != getattr(row, name):
            raise ValueError(f"{name} holds a path that means something on one machine only")


def as_dict(row: Row) -> JSON:
    """The object that a line holds of a row."""
    return {**about(row), "parts": {name: part_dict(part) for name, part in row.parts.items()}}


def about(row: Row) -> JSON:
    """What a line holds of a row beside its results."""
    found: JSON = {"schema_version": row.schema_version, **msgspec.to_builtins(row)}
    del found["parts"]
    return {**found, "uses_reference": row.uses_reference} if row.origin == "measured" else found


def part_dict(part: Part) -> JSON:
    """What a line holds of the results on one part."""
    found: JSON = msgspec.to_builtins(part)
    return found
