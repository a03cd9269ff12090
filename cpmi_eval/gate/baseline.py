"""What a finished run is held against: a small JSON file that is committed beside the code it guards.

It keeps what the run was (so that only like is compared with like), every score, token counts, metrics and speed. The
text is a function of the run alone, a line per trace, so that its diff says what moved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from cpmi_eval.cost import read_tokens
from cpmi_eval.description import ModelDescription
from cpmi_eval.errors import DataError, StoreError
from cpmi_eval.metrics import thresholds
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.records import Record, Run, by_part, trace_set
from cpmi_eval.store import read_json, replace_text
from cpmi_eval.types import JSON, Tokens

FORMAT = "cpmi-eval baseline"
SCHEMA_VERSION = 1
DIGITS = 9  # significant ones of each score: more than float32 has
COUNTS = ("requested", "computed", "generated")


@dataclass(frozen=True)
class TraceScores:
    """What a run said of one trace: no ``scores`` where it failed, with ``error`` the kind of failure."""

    id: str
    part: str
    scores: tuple[float, ...] | None
    prediction: int | None
    error: str | None

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the trace in its task."""
        return self.part, self.id


@dataclass(frozen=True)
class Part:
    """One part of the task: the hash and number of its traces, and the tokens that scoring them took."""

    sha256: str
    traces: int
    tokens: Tokens


@dataclass(frozen=True)
class Speed:
    """How fast a run scored: ``value`` in ``unit`` per second over ``seconds`` of wall time, without loading."""

    unit: str
    value: float
    seconds: float


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
    """Reduce a finished run to what is checked.

    Raises:
        StoreError: its files lack what a finished run has, or hold a score that is not a finite number.
    """
    try:
        return _of_run(run, read_json(run.path / "manifest.json"))
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{run.path} lacks what a check needs ({error!r}); running its command again with --fresh writes it anew"
        ) from error


def _of_run(run: Run, manifest: JSON) -> Baseline:
    summary, config = run.summary, run.summary["config"]
    several = len(run.parts) > 1
    metrics = {
        name: {
            key: Metric(None if one["value"] is None else rounded(one["value"]), one["n"])
            for key, one in own.items()
            if not one.get("detail", False)
        }
        for name, own in summary["results"].items()
        if name in run.parts or several
    }
    return Baseline(
        identity=_identity(summary, run.model, manifest),
        chosen={name: config[name] for name in ("task_args", "subset", "limit")},
        parts={name: Part(trace_set(own), len(own), _tokens(own)) for name, own in by_part(run.records).items()},
        metrics=metrics,
        speed=_speed(run),
        origin=_origin(summary, run.model, manifest),
        traces=tuple(_scores(run, record) for record in run.records),
    )


def _identity(summary: JSON, model: ModelDescription | None, manifest: JSON) -> JSON:
    """Return what two comparable runs have in common. Traces are compared by content, files and weights by hash."""
    config, rule = summary["config"], summary["threshold"]
    files: JSON = manifest["identity"].get("files", {})
    named = _models(model) if model else set()
    hashed = {
        *files,
        *(key for key, value in config["labeler_args"].items() if isinstance(value, str) and value in named),
    }
    common: JSON = {
        "task": config["task"],
        "labeler": config["labeler"],
        "labeler_args": {key: value for key, value in config["labeler_args"].items() if key not in hashed},
        "files": files,
        "seed": config["seed"],
        "threshold": rule["protocol"],
        "threshold_value": None if thresholds.parse(rule["protocol"]).fitted else rule["value"],
    }
    if model is None:
        return common
    ran = {name: config[name] for name in ("backend", "model_args", "batch_size", "scorer")}
    return {**common, **ran, "dtype": model.dtype, "model": _weights(model)}


def _models(model: ModelDescription) -> set[str]:
    """Return the names, or paths, of a run's models: what weights are compared instead of."""
    return {model.model}.union(*map(_models, model.others.values()))


def _weights(model: ModelDescription) -> JSON:
    """Return which weights ran: by hash where there is one, else by name and revision; those of others beside it."""
    own = {"sha256": model.sha256} if model.sha256 else {"model": model.model, "revision": model.revision}
    others = {role: _weights(one) for role, one in model.others.items()}
    return {**own, **({"others": others} if others else {})}


def _origin(summary: JSON, model: ModelDescription | None, manifest: JSON) -> JSON:
    machine = manifest["machine"]
    return {
        "model": None if model is None else model.model,
        "device": None if model is None else model.device,
        "system": machine["platform"].partition("-")[0],  # the whole of it changes with every update of a kernel
        "processor": machine["processor"],
        "versions": summary["versions"],
    }


def _tokens(records: tuple[Record, ...]) -> Tokens:
    return sum((read_tokens(one.cost["tokens"]) for one in records), Tokens())


def _speed(run: Run) -> Speed:
    seconds = rounded(sum(one.cost.get("wall_seconds", one.cost["seconds"]) for one in run.records))
    computed = _tokens(run.records).computed
    unit, amount = ("tokens", computed) if computed else ("traces", len(run.records))
    return Speed(unit, rounded(amount / seconds) if seconds else 0.0, seconds)


def _scores(run: Run, record: Record) -> TraceScores:
    for step, score in enumerate(record.scores or ()):
        if not _is_number(score):
            raise StoreError(
                f"{run.path / 'samples.jsonl'}: trace {record.id} of {record.part}: the score of step {step} is "
                f"{json.dumps(score)}, not a finite number; repeat the run with --fresh"
            )
    scores = None if record.scores is None else tuple(map(rounded, record.scores))
    return TraceScores(
        record.id, record.part, scores, record.prediction, record.error["kind"] if record.error else None
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline file at once, with the folders it lies in.

    Raises:
        DataError: it cannot be written there.
    """
    text = baseline.as_text()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise DataError(f"the baseline {path} cannot be written: {error}") from error


def is_baseline(path: Path) -> bool:
    """Return whether a file is a baseline of any version, so that it may be replaced by a new one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def read(path: Path) -> Baseline:
    """Read a baseline file.

    Raises:
        DataError: no such file, or a damaged one; names the field and what it must be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise DataError(f"there is no baseline {path}; write one with --update") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"the baseline {path} cannot be read: {error}; restore it, or delete it and use --update"
        ) from error
    whole = _Field(path, "", content)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        whole.refuse(f'a baseline: a JSON object with "format": "{FORMAT}"')
    if content.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"the baseline {path} has schema_version {content.get('schema_version')!r}, and this version of cpmi-eval "
            f"reads {SCHEMA_VERSION}; write it anew with --update"
        )
    return _parsed(whole)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


@dataclass(frozen=True)
class _Field:
    """A value of a baseline file with its place, which every complaint names."""

    path: Path
    place: str
    value: Any

    def refuse(self, wanted: str) -> NoReturn:
        shown = json.dumps(self.value, ensure_ascii=False)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DataError(
            f"the baseline {self.path} is damaged: {self.place or 'the file'} must be {wanted}, not {shown}; "
            "restore it from version control, or delete it and use --update"
        )

    def __getitem__(self, name: str) -> _Field:
        if name not in self.object():
            raise DataError(
                f"the baseline {self.path} is damaged: {f'{self.place}.{name}'.lstrip('.')} is missing; "
                "restore it from version control, or delete it and use --update"
            )
        return _Field(self.path, f"{self.place}.{name}".lstrip("."), self.value[name])

    def object(self) -> JSON:
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return dict(self.value)

    def entries(self) -> Iterator[tuple[str, _Field]]:
        return ((name, self[name]) for name in self.object())

    def members(self) -> Iterator[_Field]:
        if not isinstance(self.value, list):
            self.refuse("a list")
        return (_Field(self.path, f"{self.place}[{at}]", one) for at, one in enumerate(self.value))

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.refuse("a text")
        return str(self.value)

    def number(self, low: float = -math.inf) -> float:
        if not _is_number(self.value) or self.value < low:
            self.refuse("a finite number" if low == -math.inf else f"a finite number of at least {low:g}")
        return float(self.value)

    def integer(self, low: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < low:
            self.refuse(f"a whole number of at least {low}")
        return int(self.value)


def _parsed(whole: _Field) -> Baseline:
    parts = {name: _part(one) for name, one in whole["parts"].entries()}
    metrics = {name: {key: _metric(one) for key, one in own.entries()} for name, own in whole["metrics"].entries()}
    speed = whole["speed"]
    identity = whole["identity"].object()
    if identity.get("dtype") == "None":  # as earlier versions wrote one that was not known
        identity["dtype"] = None
    for name in ("task", "labeler"):
        whole["identity"][name].text()
    traces = tuple(map(_trace, whole["traces"].members()))
    _consistent(whole, parts, traces)
    return Baseline(
        identity=identity,
        chosen=whole["chosen"].object(),
        parts=parts,
        metrics=metrics,
        speed=Speed(speed["unit"].text(), speed["value"].number(0), speed["seconds"].number(0)),
        origin=whole["origin"].object(),
        traces=traces,
    )


def _part(field: _Field) -> Part:
    tokens = Tokens(**{name: field["tokens"][name].integer(0) for name in COUNTS})
    return Part(field["sha256"].text(), field["traces"].integer(0), tokens)


def _metric(field: _Field) -> Metric:
    value = field["value"]
    return Metric(None if value.value is None else value.number(), field["n"].integer(0))


def _trace(field: _Field) -> TraceScores:
    scores, prediction, error = field["scores"], field["prediction"], field["error"]
    return TraceScores(
        field["id"].text(),
        field["part"].text(),
        None if scores.value is None else tuple(one.number() for one in scores.members()),
        None if prediction.value is None else prediction.integer(-1),
        None if error.value is None else error.text(),
    )


def _consistent(whole: _Field, parts: Mapping[str, Part], traces: tuple[TraceScores, ...]) -> None:
    """Refuse a file whose traces are not those that it counts, as one that was merged by hand."""
    counted = dict.fromkeys(parts, 0)
    seen: set[tuple[str, str]] = set()
    for place, one in zip(whole["traces"].members(), traces, strict=True):
        if one.part not in counted:
            place["part"].refuse(f"one of the file's parts ({', '.join(parts)})")
        if one.key in seen:
            place["id"].refuse("an id that no other trace of its part has")
        seen.add(one.key)
        counted[one.part] += 1
    for name, count in counted.items():
        if count != parts[name].traces:
            whole["parts"][name]["traces"].refuse(f"the number of its traces in the file, {count}")
