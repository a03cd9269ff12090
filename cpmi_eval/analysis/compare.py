"""Several labelers on one meter: the same traces, one loaded model, and costs relative to one of them.

A comparison is a directory of ordinary run directories, one per labeler, and of ``compare.json``, which is written
again after each of them. What is finished is not run again, so a comparison can be interrupted, and can grow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cpmi_eval import registry, settings
from cpmi_eval.errors import StoreError, UnknownNameError, UsageError
from cpmi_eval.manifest import model_differences
from cpmi_eval.plan import RunConfig, backend_of, make_labeler, prepare
from cpmi_eval.protocols import Backend, BackendOptions, Labeler, LoadOptions
from cpmi_eval.record import door
from cpmi_eval.record.journal import differences
from cpmi_eval.record.results import Manifest, Total
from cpmi_eval.record.rows import Row as Scored
from cpmi_eval.record.store import Store
from cpmi_eval.run import Progress, RunResult, run
from cpmi_eval.types import JSON

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FILE = "compare.json"
REFERENCE = "mc"
COMPLETE_ERRORS = {"unparsed"}  # all was generated, but it names no step: what it cost is known
NOT_COMMON = {"labeler", "labeler_args", "threshold"}
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_SPEC = re.compile(
    rf"""\s*(?P<text>(?P<name>[^\s,()="]+)(?:\s*\((?P<inside>(?:{_QUOTED}|[^"()])*)\))?)\s*(?:,|$)""", re.DOTALL
)


@dataclass(frozen=True)
class Spec:
    """A labeler and its settings, and how they were written."""

    name: str
    args: Mapping[str, Any]
    text: str

    @property
    def key(self) -> str:
        """What two ways to write the same labeler have in common."""
        return self.name + json.dumps(self.args, sort_keys=True)

    @property
    def slug(self) -> str:
        """A folder name of this labeler's own."""
        words = [self.name, *(f"{name}-{value}" for name, value in sorted(self.args.items()))]
        readable = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(words)).strip("-")[:60]
        return readable if readable == self.name else f"{readable}-{hashlib.sha256(self.key.encode()).hexdigest()[:6]}"


def parse_specs(text: str) -> tuple[Spec, ...]:
    """Parse ``name,name(k=v,k=v),...``; values that hold commas or parentheses are put in double quotes.

    Raises:
        UsageError: not of that form, the same labeler twice, or no labeler at all.
    """
    specs: list[Spec] = []
    at, text = 0, text.strip()
    while at < len(text):
        match = _SPEC.match(text, at)
        if match is None:
            raise UsageError(
                f"expected NAME or NAME(k=v,...), with commas between them and double quotes around values that hold "
                f"parentheses; stopped at {text[at:]!r} of {text!r}"
            )
        try:
            specs.append(Spec(match["name"], settings.parse_pairs((match["inside"] or "").strip()), match["text"]))
        except UsageError as error:
            raise UsageError(f"labeler {match['text']!r}: {error}") from error
        if specs[-1].key in {spec.key for spec in specs[:-1]}:
            raise UsageError(f"the labeler {match['text']!r} is given twice; drop it, or change its settings")
        at = match.end()
    if not specs:
        raise UsageError("no labelers are given; see `cpmi-eval ls labelers`")
    return tuple(specs)


class Pool:
    """Opens each model once and gives it to every run that asks for the same; one that cannot be opened is not retried.

    Use it as the ``opener`` of :func:`cpmi_eval.run.run`.
    """

    def __init__(self) -> None:
        """Open nothing yet."""
        self._opened: list[tuple[type[Backend], BackendOptions, Backend | UsageError]] = []

    def __call__(self, backend_class: type[Backend], options: BackendOptions) -> Backend:
        """Return the loaded model.

        Raises:
            UsageError: it cannot be loaded, now or when it was first asked for.
        """
        known = (found for *key, found in self._opened if key == [backend_class, options])
        found = next(known, None) or self._open(backend_class, options)
        if isinstance(found, UsageError):
            raise found
        return found

    def _open(self, backend_class: type[Backend], options: BackendOptions) -> Backend | UsageError:
        found: Backend | UsageError
        try:
            found = backend_class.open(options)
        except UsageError as error:
            found = error
        self._opened.append((backend_class, options, found))
        return found


@dataclass(frozen=True)
class Costs:
    """What scoring some traces cost. ``device_seconds``: of all CPU cores, or of the GPU."""

    seconds: float
    device_seconds: float
    requested: int
    computed: int
    generated: int
    peak_memory_bytes: int

    @classmethod
    def of(cls, rows: Iterable[Scored]) -> Costs:
        """Add up rows of a run."""
        total = Total.of([row.cost for row in rows], ())
        counts = (total.tokens.requested, total.tokens.computed, total.tokens.generated)
        return cls(total.wall_seconds["score"], total.device_seconds, *counts, total.peak_memory_bytes)


@dataclass(frozen=True)
class Row:
    """One labeler of a comparison.

    ``failure``: why it was not run to its end; what follows is missing then. ``metrics``: the task's, means over its
    subsets, by name, each with ``value`` and ``n``. ``errors`` counts traces without a score by kind; ``failed`` are
    those of them that errored, rather than lack a reference answer. ``costs`` are of all traces; ``relative`` are
    multiples of the reference labeler's over the traces that all labelers finished. ``device``: cpu or gpu.
    """

    labeler: str
    name: str
    settings: Mapping[str, Any]
    kind: str
    uses_reference: bool
    path: Path
    failure: str | None
    traces: int = 0
    scored: int = 0
    failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: str | None = None
    costs: Costs | None = None
    relative: Mapping[str, float | None] | None = None


@dataclass(frozen=True)
class Comparison:
    """What is known of a comparison when some or all of its labelers are done.

    ``reference`` is the labeler that costs are relative to, ``None`` where none is called ``relative_to``. ``shared``
    of the ``traces`` were finished by every labeler that did not fail. ``loading``: seconds by phase over all runs, in
    which a model that several share was loaded once. ``mixed`` names what is not the same for all runs among machine,
    versions and model: their costs are not on one meter.
    """

    path: Path
    labelers: tuple[str, ...]
    rows: tuple[Row, ...]
    relative_to: str
    reference: str | None
    shared: int
    traces: int
    loading: Mapping[str, float]
    synthetic: bool
    config: JSON
    machine: JSON | None
    versions: JSON | None
    model: JSON | None
    mixed: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether a labeler failed, or a row of one."""
        return any(row.failure is not None or row.failed for row in self.rows)

    def as_dict(self) -> JSON:
        """Return the content of compare.json."""
        rows = [{**asdict(row), "path": str(row.path)} for row in self.rows]
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "path": str(self.path), "rows": rows}


@dataclass(frozen=True)
class _Entry:
    """One labeler before it runs."""

    spec: Spec
    labeler: Labeler
    config: RunConfig


@dataclass(frozen=True)
class _Plan:
    """All that is settled before anything runs."""

    entries: tuple[_Entry, ...]
    common: RunConfig
    path: Path
    relative_to: str
    reference: Spec | None
    synthetic: bool


@dataclass(frozen=True)
class _Done:
    """What became of one labeler: its run, or why there is none; and the manifest it left."""

    entry: _Entry
    result: RunResult | None
    failure: str | None
    manifest: Manifest | None


def compare(
    labelers: str | Sequence[str],
    task: str,
    *,
    relative_to: str | None = None,
    fresh: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Comparison:
    """Run several labelers on one task and set their quality and costs side by side.

    A labeler that the backend cannot serve, or that has to stop, is a row that says why; the others go on.

    Args:
        labelers: names, with settings in parentheses: ``"cpmi,mc(n=8)"`` or ``["cpmi", "mc(n=8)"]``.
        task: a registered task's name.
        relative_to: the labeler that costs are relative to, by name or with its settings; ``mc`` if there is one.
        fresh: set earlier runs in the output directory aside instead of resuming them.
        progress: called after each phase and batch; its ``phase`` names the labeler.
        options: fields of :class:`cpmi_eval.RunConfig` that all runs share; ``output_path`` is the comparison's.

    Raises:
        UsageError: a wrong name or setting, missing data, or a directory of something else. Nothing was run.
    """
    plan = _plan(labelers, task, relative_to, options)
    comparison = _assemble(plan, [])
    _claim(comparison, plan.common, fresh)
    pool = Pool()
    done: list[_Done] = []
    for entry in plan.entries:
        done.append(_attempt(entry, fresh, progress, pool))
        comparison = _assemble(plan, done)
        door.write_json(plan.path / FILE, comparison.as_dict())
    return comparison


def _plan(labelers: str | Sequence[str], task: str, relative_to: str | None, options: Mapping[str, Any]) -> _Plan:
    """Resolve and check all that would be wrong for every labeler, and how each was asked for."""
    known = {item.name for item in fields(RunConfig)} - {*NOT_COMMON, "task"}
    for name in options:
        if name not in known:
            raise UnknownNameError("option of compare", name, known)
    specs = parse_specs(labelers if isinstance(labelers, str) else ",".join(labelers))
    reference = _find_reference(specs, relative_to)
    common = RunConfig(labeler="", task=task, **options)
    path = Path(common.output_path) if common.output_path else default_output(common)
    loaded = registry.load("tasks", task)()
    configs = [replace(common, labeler=one.name, labeler_args=one.args, output_path=path / one.slug) for one in specs]
    entries = tuple(_Entry(spec, _check(config), config) for spec, config in zip(specs, configs, strict=True))
    data_dir = Path(common.data_dir) if common.data_dir else None
    loaded.load(LoadOptions(tuple(common.subset), data_dir, common.seed, common.task_args))  # it would fail them all
    return _Plan(entries, common, path, relative_to or REFERENCE, reference, bool(loaded.synthetic))


def _find_reference(specs: Sequence[Spec], wanted: str | None) -> Spec | None:
    """Return the labeler that costs are relative to; one that was asked for must be there."""
    name = wanted or REFERENCE
    keys = [spec.key for spec in parse_specs(name)]
    found = [spec for spec in specs if spec.name == name] or [spec for spec in specs if [spec.key] == keys]
    if wanted and not found:
        raise UnknownNameError("labeler to be relative to", wanted, [spec.text for spec in specs])
    return found[0] if found else None


def _check(config: RunConfig) -> Labeler:
    """Return the labeler of a run whose names and settings are right."""
    labeler = make_labeler(config)
    backend, _ = backend_of(labeler, config)
    if labeler.capabilities <= registry.load("backends", backend).capabilities:  # else its row will say so
        prepare(config)
    return labeler


def _common_identity(config: RunConfig) -> JSON:
    """Return what can change the results of any labeler."""
    return {key: value for key, value in config.identity().items() if key not in NOT_COMMON}


def default_output(common: RunConfig) -> Path:
    """Return a directory for all comparisons with these common settings, so that labelers can be added to it."""
    digest = hashlib.sha256(json.dumps(_common_identity(common), sort_keys=True, default=str).encode()).hexdigest()
    model = Path(common.model).name.removesuffix(".gguf").lower()
    return Path("runs") / f"compare-{common.task}-{model}-{digest[:8]}"


def _claim(comparison: Comparison, common: RunConfig, fresh: bool) -> None:
    """Create the comparison's directory, or check that the one that is there holds this comparison.

    Raises:
        StoreError: it holds something else, or a comparison under other settings.
    """
    path, file = comparison.path, comparison.path / FILE
    if file.exists() and not fresh:
        ours = _common_identity(common)
        differ = differences(door.read_json(file, dict).get("config", {}), ours, ours)
        if differ:
            raise StoreError(f"{path} holds a different comparison ({differ}). Use another --output_path, or --fresh")
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not file.exists() and any(not one.name.startswith(f".{FILE}.") for one in path.iterdir()):
            raise StoreError(f"{path} is not empty and holds no comparison; choose another --output_path")
        door.write_json(file, comparison.as_dict())
    except FileExistsError:
        raise StoreError(f"{path} is a file; --output_path takes a directory") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def _attempt(entry: _Entry, fresh: bool, progress: Callable[[Progress], None] | None, pool: Pool) -> _Done:
    """Run one labeler, or say why it cannot be run."""

    def report(step: Progress) -> None:
        if progress is not None:
            progress(replace(step, phase=f"{entry.spec.text}: {step.phase}"))

    result, failure = None, None
    try:
        result = run(entry.config, fresh=fresh, progress=report, opener=pool)
    except UsageError as error:
        failure = str(error)
        log.warning("%s failed: %s", entry.spec.text, failure)
    return _Done(entry, result, failure, _manifest(entry.config))


def _manifest(config: RunConfig) -> Manifest | None:
    try:
        return Store(Path(str(config.output_path))).manifest()
    except StoreError:
        return None  # a damaged one has failed the run already, with this reason


def _assemble(plan: _Plan, done: Sequence[_Done]) -> Comparison:
    """Put together what is known so far."""
    finished = [_finished(one.result) for one in done if one.result is not None]
    shared = set.intersection(*finished) if finished else set()
    reference = next((one.result for one in done if one.entry.spec == plan.reference), None)
    rows = tuple(_row(one, shared, reference) for one in done)
    manifests = [one.manifest for one in done if one.manifest is not None]
    return Comparison(
        path=plan.path,
        labelers=tuple(entry.spec.text for entry in plan.entries),
        rows=rows,
        relative_to=plan.relative_to,
        reference=plan.reference.text if plan.reference else None,
        shared=len(shared),
        traces=max((row.traces for row in rows), default=0),
        loading=_loading(manifests),
        synthetic=plan.synthetic,
        config={key: value for key, value in plan.common.as_dict().items() if key not in NOT_COMMON},
        **_circumstances(manifests),
    )


def _finished(result: RunResult) -> set[tuple[str, str]]:
    """Return the traces whose costs are complete: what failed may have stopped half-way."""
    return {row.key for row in result.scored if row.error is None or row.error.kind in COMPLETE_ERRORS}


def _row(done: _Done, shared: set[tuple[str, str]], reference: RunResult | None) -> Row:
    spec, labeler, result = done.entry.spec, done.entry.labeler, done.result
    row = Row(
        labeler=spec.text,
        name=spec.name,
        settings=spec.args,
        kind=labeler.kind,
        uses_reference="answer" in labeler.needs,
        path=Path(str(done.entry.config.output_path)),
        failure=done.failure,
    )
    if result is None:
        return row
    return replace(
        row,
        traces=len(result.scored),
        scored=sum(part.scored for part in result.run.results.coverage.values()),
        failed=result.failed,
        errors=result.run.results.errors,
        metrics={name: one.as_dict() for name, one in result.results[done.entry.config.task].items()},
        device=_device(result),
        costs=Costs.of(result.scored),
        relative=_relative(result, reference, shared) if reference is not None and shared else None,
    )


def _device(result: RunResult) -> str:
    """Return what ``device_seconds`` are seconds of."""
    model = result.model
    return "gpu" if model is not None and model.on_gpu else "cpu"


def _relative(result: RunResult, reference: RunResult, shared: set[tuple[str, str]]) -> dict[str, float | None]:
    """Return costs over the shared traces as multiples of the reference's; ``None`` where that makes no sense."""
    ours, theirs = (asdict(Costs.of(row for row in one.scored if row.key in shared)) for one in (result, reference))
    comparable = {name for name, value in theirs.items() if value}
    if _device(result) != _device(reference):  # seconds of a CPU and of a GPU are not the same thing
        comparable.discard("device_seconds")
    if not ours["peak_memory_bytes"]:  # nothing was measured
        comparable.discard("peak_memory_bytes")
    return {name: ours[name] / theirs[name] if name in comparable else None for name in ours}


def _loading(manifests: Iterable[Manifest]) -> dict[str, float]:
    """Add up the seconds that are no scoring, over all runs and their sessions."""
    phases: dict[str, float] = {}
    for manifest in manifests:
        for session in manifest.sessions:
            for name, seconds in session.seconds.items():
                phases[name] = phases.get(name, 0.0) + seconds
    return phases


def _circumstances(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Return machine, versions and model of the runs, and which of these are not the same for all."""
    found: dict[str, Any] = {}
    mixed: list[str] = []
    for key in ("machine", "versions"):
        values = [getattr(manifest, key) for manifest in manifests]
        names = sorted({name for value in values for name in value})
        if any(differences(values[0], value, names) for value in values[1:]):
            mixed.append(key)
        found[key] = values[0] if values else None
    used = [one.model for one in manifests]
    models = [replace(one, others={}) for one in used if one is not None]  # each labeler may have others of its own
    if any(model_differences(models[0], one) for one in models[1:]):
        mixed.append("model")
    return {**found, "model": models[0].as_dict() if models else None, "mixed": tuple(mixed)}
