"""What a finished run is held against: a small JSON file that is committed beside the code it guards.

It keeps what the run was (so that only like is compared with like), every score, token counts, metrics and speed. The
text is a function of the run alone, a line per trace, so that its diff says what moved.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.metrics import thresholds
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.record import door
from cpmi_eval.record.rows import Record, by_part, trace_set
from cpmi_eval.record.run import Run
from cpmi_eval.types import JSON, Tokens

FORMAT = "cpmi-eval baseline"
SCHEMA_VERSION = 1
DIGITS = 9  # significant ones of each score: more than float32 has
COUNTS = ("requested", "computed", "generated")

Amount = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class TraceScores:
    """What a run said of one trace: no ``scores`` where it failed, with ``error`` the kind of failure."""

    id: str
    part: str
    scores: tuple[float, ...] | None
    prediction: Annotated[int, Meta(ge=-1)] | None
    error: str | None

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the trace in its task."""
        return self.part, self.id


@dataclass(frozen=True)
class Part:
    """One part of the task: the hash and number of its traces, and the tokens that scoring them took."""

    sha256: str
    traces: Count
    tokens: Tokens


@dataclass(frozen=True)
class Speed:
    """How fast a run scored: ``value`` in ``unit`` per second over ``seconds`` of wall time, without loading."""

    unit: str
    value: Amount
    seconds: Amount


@dataclass(frozen=True)
class Baseline:
    """A run, reduced to what is checked.

    ``identity``: what must be the same for two runs to be comparable, beside their traces. ``chosen``: how the traces
    were chosen, to explain a difference. ``metrics``: those of each part that are no details, and the means over parts
    under the task's name where there are several. ``origin``: versions and hardware, for information.
    """

    identity: JSON
    chosen: JSON
    parts: Mapping[str, Part]
    metrics: Mapping[str, Mapping[str, Metric]]
    speed: Speed
    origin: JSON
    traces: tuple[TraceScores, ...]

    @property
    def by_key(self) -> dict[tuple[str, str], TraceScores]:
        """The traces by part and id."""
        return {one.key: one for one in self.traces}

    @property
    def failures(self) -> list[TraceScores]:
        """The traces that could not be scored; those without a reference answer are the data's matter."""
        return [one for one in self.traces if one.error not in (None, "no_reference")]

    def as_text(self) -> str:
        """Return the content of a baseline file."""
        head = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "identity": self.identity,
            "chosen": self.chosen,
            "parts": {name: _part_as_dict(part) for name, part in self.parts.items()},
            "metrics": {name: {key: one.as_dict() for key, one in own.items()} for name, own in self.metrics.items()},
            "speed": asdict(self.speed),
            "origin": self.origin,
        }
        lines = ",\n".join(f"    {_dumped(asdict(one))}" for one in self.traces)
        return f'{_dumped(head, indent=2).removesuffix("}").rstrip()},\n  "traces": [\n{lines}\n  ]\n}}\n'


def _dumped(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)


def _part_as_dict(part: Part) -> JSON:
    tokens = {name: getattr(part.tokens, name) for name in COUNTS}
    return {"sha256": part.sha256, "traces": part.traces, "tokens": tokens}


def rounded(value: float) -> float:
    """Return ``value`` to the digits that a baseline keeps."""
    return float(f"{value:.{DIGITS}g}")


# --- from a run -----------------------------------------------------------------------------------------------------


def of_run(run: Run) -> Baseline:
    """Reduce a finished run to what is checked."""
    several, results = len(run.parts) > 1, run.results
    metrics = {
        name: {
            key: Metric(None if one.value is None else rounded(one.value), one.n)
            for key, one in own.items()
            if not one.detail
        }
        for name, own in results.results.items()
        if name in run.parts or several
    }
    return Baseline(
        identity=run.signature.comparable(fitted=thresholds.parse(results.threshold.protocol).fitted),
        chosen={
            "task_args": results.config.task_args,
            "subset": list(results.config.subset),
            "limit": results.config.limit,
        },
        parts={name: Part(trace_set(own), len(own), _tokens(own)) for name, own in by_part(run.records).items()},
        metrics=metrics,
        speed=_speed(run),
        origin=_origin(run),
        traces=tuple(map(_scores, run.records)),
    )


def _origin(run: Run) -> JSON:
    machine, model = run.manifest.machine, run.model
    return {
        "model": None if model is None else model.model,
        "device": None if model is None else model.device,
        "system": machine["platform"].partition("-")[0],  # the whole of it changes with every update of a kernel
        "processor": machine["processor"],
        "versions": run.results.versions,
    }


def _tokens(records: tuple[Record, ...]) -> Tokens:
    return sum((one.cost.tokens for one in records), Tokens())


def _speed(run: Run) -> Speed:
    seconds = rounded(sum(one.cost.passed for one in run.records))
    computed = _tokens(run.records).computed
    unit, amount = ("tokens", computed) if computed else ("traces", len(run.records))
    return Speed(unit, rounded(amount / seconds) if seconds else 0.0, seconds)


def _scores(record: Record) -> TraceScores:
    scores = None if record.scores is None else tuple(map(rounded, record.scores))
    return TraceScores(
        record.id, record.part, scores, record.prediction, None if record.error is None else record.error.kind
    )


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline file at once, with the folders it lies in.

    Raises:
        DataError: it cannot be written there.
    """
    text = baseline.as_text()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        door.replace_text(path, text)
    except OSError as error:
        raise DataError(f"the baseline {path} cannot be written: {error}") from error


def is_baseline(path: Path) -> bool:
    """Return whether a file is a baseline of any version, so that it may be replaced by a new one."""
    try:
        return door.read_json(path, dict).get("format") == FORMAT
    except UsageError:
        return False


def read(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        DataError: no such file, or a damaged one; names the field and what it must be.
    """
    source = door.Source(
        f"the baseline {path}", DataError, "restore it from version control, or delete it and use --update"
    )
    if not path.exists():
        raise DataError(f"there is no baseline {path}; write one with --update")
    content: JSON = door.read_json(path, dict, source)
    if content.get("format") != FORMAT:
        raise source.fault(f'is none: it must be an object with "format": "{FORMAT}"')
    if content.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"the baseline {path} has schema_version {content.get('schema_version')!r}, and this version of cpmi-eval "
            f"reads {SCHEMA_VERSION}; write it anew with --update"
        )
    found = door.convert(content, Baseline, source)
    for name in ("task", "labeler"):
        if not isinstance(found.identity.get(name), str):
            raise source.fault(f"is not valid: identity.{name} must be a text")
    if found.identity.get("dtype") == "None":  # as earlier versions wrote one that was not known
        found = replace(found, identity={**found.identity, "dtype": None})
    _check(found, source)
    return found


def _check(found: Baseline, source: door.Source) -> None:
    """Refuse a file whose traces are not those that it counts, as one that was merged by hand."""
    counted = Counter(one.part for one in found.traces)
    for place, one in enumerate(found.traces):
        if one.part not in found.parts:
            parts = ", ".join(found.parts)
            raise source.fault(f"is not valid: traces[{place}].part: {one.part!r} is none of its parts ({parts})")
    repeated = [key for key, n in Counter(one.key for one in found.traces).items() if n > 1]
    if repeated:
        raise source.fault(f"is not valid: traces: the id {repeated[0][1]!r} of {repeated[0][0]} is there twice")
    for name, part in found.parts.items():
        if low := [key for key in COUNTS if getattr(part.tokens, key) < 0]:
            raise source.fault(f"is not valid: parts.{name}.tokens.{low[0]}: Expected `int` >= 0")
        if counted[name] != part.traces:
            raise source.fault(f"is not valid: parts.{name}.traces: the file has {counted[name]}, not {part.traces}")
