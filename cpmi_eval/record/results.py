"""What manifest.json and results.json hold, as types. Their fields are the format of the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cpmi_eval.cost import Share
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import JSON, Gold, Provenance, Tokens

FORMAT = 2  # of run directories; 2: reused tokens and device seconds


class Form(msgspec.Struct, frozen=True, omit_defaults=True):
    """A frozen record; a field that is at its default is left out of the file."""

    def as_dict(self) -> JSON:
        """The record as JSON values."""
        found: JSON = msgspec.json.decode(msgspec.json.encode(self))
        return found

    def replaced(self, **changes: Any) -> Any:
        """A copy with other values."""
        return msgspec.structs.replace(self, **changes)


class Metric(Form, frozen=True):
    """A value over ``n`` things (traces, problems, labelled steps). ``None``: not defined on this data.

    ``detail``: one of many that belong together; shown in a table of their own rather than as a column beside others.
    ``interval``: bounds of the 95% interval, where there is one.
    """

    value: float | None
    n: int
    detail: bool = False
    interval: tuple[float, float] | None = None


class Config(Form, frozen=True, kw_only=True, omit_defaults=False):
    """The settings of a run, named as the flags; ``scorer``: ``trie`` where prefixes are shared, else ``pairwise``."""

    labeler: str
    task: str
    labeler_args: Mapping[str, Any] = {}
    task_args: Mapping[str, Any] = {}
    subset: tuple[str, ...] = ()
    model: str = ""
    model_args: Mapping[str, Any] = {}
    backend: str = "hf"
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | str = "auto"
    scorer: str = "trie"
    threshold: str = "native"
    limit: int | float | None = None
    seed: int = 0
    log_samples: bool = False
    data_dir: str | None = None
    output_path: str | None = None


class Scorer(Form, frozen=True, kw_only=True):
    """The labeler or PRM that scored. ``native_threshold``: its own cut; ``None``: it decides nothing."""

    name: str
    kind: str
    uses_reference: bool
    native_threshold: float | msgspec.UnsetType | None = msgspec.UNSET
    aggregation: str | None = None  # of step scores to one of the solution, where the task selects


class Rule(Form, frozen=True, kw_only=True):
    """How scores became predictions: the protocol, its one cut or those that were fitted, by part.

    ``undecided``: the scorer makes no decision, which is no miss. ``held_out``: the part that only served to choose
    the cut and is not reported.
    """

    protocol: str
    value: float | None
    undecided: bool | None = None
    cuts: Mapping[str, tuple[float, ...]] = {}
    held_out: str | None = None

    @property
    def decides(self) -> bool:
        """Whether there are predictions."""
        return not (self.value is None if self.undecided is None else self.undecided)


class Coverage(Form, frozen=True, kw_only=True):
    """How many traces of a part were scored, and why the others were not; of candidates, their problems too.

    ``empty``: candidates without any step. ``annotated``: only where not all are. ``references``: where the traces'
    reference answers came from.
    """

    traces: int
    scored: int
    no_reference: int
    failed: int
    problems: int | None = None
    of_problems: int | None = None
    candidates: int | None = None
    empty: int | None = None
    annotated: int | None = None
    references: Mapping[str, int] = {}


class Blank(Form, frozen=True, kw_only=True):
    """A trace without any step: nobody could score it."""

    task: str
    id: str
    cluster: str
    gold: Gold


class Counts(Form, frozen=True, kw_only=True):
    """Token counts; see :class:`cpmi_eval.types.Tokens`."""

    requested: int
    computed: int
    reused: int
    generated: int


class Total(Form, frozen=True, kw_only=True):
    """What a run cost over all its sessions: seconds of wall time by phase, of the device, tokens, bytes.

    ``waited_seconds``: in which the device waited for the host, where some backend could tell. ``workers``: the most
    that a session had, beside what became of their batches.
    """

    wall_seconds: Mapping[str, float]
    device_seconds: float
    tokens: Counts
    waited_seconds: float | None = None
    peak_memory_bytes: int
    sessions: int
    workers: int | None = None
    worker_restarts: int | None = None
    retried_batches: int | None = None

    @classmethod
    def of(cls, costs: Sequence[Share], sessions: Sequence[Session]) -> Total:
        """Add up: scoring from the costs of the rows, other phases from the sessions."""
        phases: dict[str, float] = {}
        for session in sessions:
            for name, seconds in session.seconds.items():
                phases[name] = phases.get(name, 0.0) + seconds
        phases["score"] = sum(one.passed for one in costs)
        tokens = sum((one.tokens for one in costs), Tokens())
        waited = [one.waited_seconds for one in costs if one.waited_seconds is not None]
        workers = [session.workers for session in sessions if session.workers is not None]
        return cls(
            wall_seconds={**phases, "total": sum(phases.values())},
            device_seconds=sum(one.device_seconds for one in costs),
            tokens=Counts(**tokens.as_dict()),
            waited_seconds=sum(waited) if waited else None,
            peak_memory_bytes=max((one.peak_memory_bytes for one in costs), default=0),
            sessions=len(sessions),
            workers=max(one["count"] for one in workers) if workers else None,
            worker_restarts=sum(one["restarts"] for one in workers) if workers else None,
            retried_batches=sum(one["retried_batches"] for one in workers) if workers else None,
        )


class Session(Form, frozen=True, kw_only=True):
    """One process that worked on a run: when it began, its seconds by phase, versions, and its workers if any."""

    started: str
    seconds: Mapping[str, float]
    versions: Mapping[str, str] = {}
    workers: Mapping[str, Any] | None = None


class Manifest(Form, frozen=True, kw_only=True, omit_defaults=False):
    """manifest.json: what a run is and who worked on it. ``identity``: whatever can change a result."""

    schema_version: int
    created: str
    config: Config
    identity: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    data: tuple[Provenance, ...]
    model: ModelDescription | None
    sessions: tuple[Session, ...]

    def as_dict(self) -> JSON:
        """The content of the file."""
        return _with_model(super().as_dict(), self.model)


class Results(Form, frozen=True, kw_only=True, omit_defaults=False):
    """results.json: metrics by part and, under the task's name, their mean; cost, coverage, and what they rest on.

    ``groups``: by part, the metrics of what candidates can be grouped by. ``errors``: failed traces by kind. ``notes``:
    what the task says of its data, by subset.
    """

    schema_version: int = FORMAT
    selects: bool = False
    notes: Mapping[str, Any] = {}
    empty: tuple[Blank, ...] = ()
    labeler: Scorer
    synthetic: bool
    config: Config
    model: ModelDescription | None
    data: tuple[Provenance, ...]
    versions: Mapping[str, str]
    results: Mapping[str, Mapping[str, Metric]]
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Metric]]]] = {}
    cost: Total
    coverage: Mapping[str, Coverage]
    errors: Mapping[str, int]
    threshold: Rule

    def as_dict(self) -> JSON:
        """The content of the file."""
        found = _with_model(super().as_dict(), self.model)
        return {**found, "empty": [{**one.as_dict(), "gold": one.gold.as_dict()} for one in self.empty]}

    @property
    def task(self) -> str:
        """The registered name of the task, under which the mean over parts stands."""
        return self.config.task

    @property
    def aggregation(self) -> str:
        """How step scores become one of the solution."""
        return self.labeler.aggregation or "min"

    @property
    def failed(self) -> int:
        """Traces that errored; those without a reference answer are the data's matter and not counted."""
        return sum(n for kind, n in self.errors.items() if kind != "no_reference")

    def columns(self, names: Iterable[str]) -> list[str]:
        """The metrics of some parts that are no details, in order."""
        return list(dict.fromkeys(key for name in names for key, one in self.results[name].items() if not one.detail))


def _with_model(content: JSON, model: ModelDescription | None) -> JSON:
    return {**content, "model": None if model is None else model.as_dict()}
