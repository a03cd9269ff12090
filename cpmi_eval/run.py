"""The one loop: task -> labeler -> store -> metrics, with one meter over all of it."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from cpmi_eval import cost
from cpmi_eval.config import RunConfig
from cpmi_eval.description import ModelDescription
from cpmi_eval.description import read as read_model
from cpmi_eval.errors import DataError, StoreError, UnknownNameError, UsageError
from cpmi_eval.execution.local import Batch, Executor, InProcess, Opener, open_backend
from cpmi_eval.execution.workers import Workers
from cpmi_eval.manifest import open_manifest, start_session
from cpmi_eval.metrics import thresholds
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.thresholds import Decisions, Threshold
from cpmi_eval.plan import Plan, prepare
from cpmi_eval.protocols import LoadOptions, SeesAll
from cpmi_eval.records import build, unscored
from cpmi_eval.seeding import derive_seed
from cpmi_eval.store import Store, write_json
from cpmi_eval.summary import summarize
from cpmi_eval.types import JSON, Item, Scored, StepScores, TaskData, TraceFailure

log = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 4  # a guess, used only to size batches
TRACES_WITHOUT_MODEL = 256  # traces per batch where no model runs


class Sized(Protocol):
    """What says how large a batch should be: a backend, or a :class:`cpmi_eval.execution.local.Budget`."""

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that make a good batch."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands: traces done of all; tokens put through the model and seconds spent on it in this session."""

    done: int
    total: int
    phase: str
    computed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class RunResult:
    """A finished run. ``summary`` is the content of results.json, ``rows`` that of samples.jsonl in task order."""

    path: Path
    summary: JSON
    rows: tuple[JSON, ...]

    @property
    def results(self) -> Mapping[str, Mapping[str, Metric]]:
        """Metrics by task (``processbench/gsm8k``, and ``processbench`` for the mean over subsets)."""
        return {
            task: {name: Metric.from_dict(entry) for name, entry in metrics.items()}
            for task, metrics in self.summary["results"].items()
        }

    @property
    def model(self) -> ModelDescription | None:
        """The model that was used; ``None`` where none was."""
        return read_model(self.summary["model"], self.path / "results.json")

    @property
    def failed(self) -> int:
        """Rows that errored; traces without a reference answer are the data's matter and not counted."""
        return sum(n for kind, n in self.summary["errors"].items() if kind != "no_reference")


def run(
    config: RunConfig,
    *,
    fresh: bool = False,
    progress: Callable[[Progress], None] | None = None,
    opener: Opener = open_backend,
    workers: Workers | None = None,
) -> RunResult:
    """Carry out a run, or finish one that was interrupted in the same directory.

    Args:
        config: what to run.
        fresh: set an earlier run in the directory aside instead of resuming it.
        progress: called after each phase and batch.
        opener: returns the loaded backend; several runs may share one.
        workers: who scores, if not this process. Not part of what the run is: another session may have others.

    Raises:
        UsageError: nothing was scored, or scoring had to stop; what was scored is kept and the same call goes on.
    """
    setup = prepare(config)
    executor = _executor(setup, opener, workers)
    report = progress or (lambda _: None)
    meter = cost.Meter()
    with meter.phase("load_data"):
        data = _load(setup)
    _check_threshold(setup, data)
    with Store(setup.path) as store:
        if fresh and (aside := store.set_aside()):
            log.info("the earlier run is now in %s", aside)
        manifest = open_manifest(store, config, data)
        texts = list(_trace_rows(data, config.task))
        store.write_traces(texts)
        keys = {_key(item, config.task): item for item in data.items}
        rows = {(row["task"], row["id"]): row for row in store.rows()}
        if not rows.keys() <= keys.keys():
            raise StoreError(f"{store.samples_path} has rows of other traces than this run's; start anew with --fresh")
        if len(rows) == len(keys):
            log.info("%s is complete: nothing is scored again; --fresh repeats the run", store.path)
        else:
            report(Progress(len(rows), len(keys), "loading the model"))
            store.drop_rollouts(rows.keys())
            try:
                model = executor.open(meter)
                start_session(store, manifest, model, meter)
                _record(store, manifest, executor)
                try:
                    for row in _score(setup, data, executor, rows, store, report):
                        rows[row["task"], row["id"]] = row
                        _record(store, manifest, executor)
                finally:
                    _record(store, manifest, executor)
            finally:
                executor.close()
        ordered, decided = _finished(setup, [rows[key] for key in keys], texts, store)
        summary = summarize(config, setup.task, setup.labeler, decided, data, build(ordered, texts), manifest)
        write_json(store.results_path, summary)
        if config.log_samples and not store.rollouts_path.exists():
            log.warning("%s draws no samples with these settings: log_samples kept nothing", config.labeler)
    return RunResult(setup.path, summary, ordered)


def _load(setup: Plan) -> TaskData:
    config = setup.config
    data_dir = Path(config.data_dir) if config.data_dir else None
    data = setup.task.load(LoadOptions(tuple(config.subset), data_dir, config.seed, config.task_args))
    if not data.items:
        raise DataError(f"the task {config.task!r} has no traces with these settings")
    repeated = [name for name, n in Counter(item.trace.id for item in data.items).items() if n > 1]
    if repeated:
        raise DataError(f"the task {config.task!r} repeats trace ids: {', '.join(repeated[:5])}; they must be unique")
    if config.limit is None:
        return data
    everything = (*data.items, *data.empty)
    kept = _limited(everything, config.limit, config.seed, getattr(setup.task, "selects", False))
    items, empty = (tuple(one for one in part if one.trace.id in kept) for part in (data.items, data.empty))
    return replace(data, items=items, empty=empty)


def _check_threshold(setup: Plan, data: TaskData) -> None:
    """Refuse a protocol that these traces give nothing to fit to, before any of them is scored."""
    if setup.protocol.fitted:
        records = [unscored(item, *_key(item, setup.config.task)) for item in data.items]
        thresholds.decide(setup.protocol, None, records, setup.config.seed)


def _limited(items: Sequence[Item], limit: int | float, seed: int, problems: bool) -> set[str]:
    """Choose ``limit`` traces of each subset at random under the seed; a smaller limit is part of a larger one.

    Not the first ones: benchmark files are sorted (ProcessBench lists erroneous traces first). ``problems``: choose
    that many problems instead, each with all its traces.
    """
    by_subset: dict[str, dict[str, list[str]]] = {}
    for item in items:
        unit = item.trace.cluster if problems else item.trace.id
        by_subset.setdefault(item.subset, {}).setdefault(unit, []).append(item.trace.id)
    kept: set[str] = set()
    for units in by_subset.values():
        ordered = sorted(units, key=lambda one: derive_seed(seed, "limit", one))
        count = limit if isinstance(limit, int) else max(1, math.ceil(limit * len(ordered)))
        kept.update(name for unit in ordered[:count] for name in units[unit])
    return kept


def _trace_rows(data: TaskData, task: str) -> Iterator[JSON]:
    """Return the texts of the run's traces, so that a run directory can be read without its data."""
    for item in data.items:
        key, name = _key(item, task)
        yield {"id": name, "task": key, **{k: v for k, v in asdict(item.trace).items() if k != "id"}}


def _key(item: Item, task: str) -> tuple[str, str]:
    return f"{task}/{item.subset}", item.trace.id


def _executor(setup: Plan, opener: Opener, workers: Workers | None) -> Executor:
    """Return what scores the run's batches.

    Raises:
        UsageError: workers are asked for, and a model that is loaded in this process.
    """
    if workers is None:
        return InProcess(setup.labeler, setup.backend_class, setup.options, opener)
    if opener is not open_backend:
        raise UsageError("workers load models of their own: leave out either workers or opener")
    from cpmi_eval.execution.driver import OnWorkers

    return OnWorkers(setup.config, None if setup.backend_class is None else setup.options, workers)


def _record(store: Store, manifest: JSON, executor: Executor) -> None:
    """Keep in the manifest what became of the session's workers, whenever that changes."""
    about = executor.record()
    if about is not None and manifest["sessions"] and manifest["sessions"][-1].get("workers") != about:
        manifest["sessions"][-1]["workers"] = about
        write_json(store.manifest_path, manifest)


def _finished(
    setup: Plan, rows: Sequence[JSON], texts: Sequence[JSON], store: Store
) -> tuple[tuple[JSON, ...], Decisions]:
    """Return the rows with their final scores and predictions, where it takes all rows to tell them."""
    scored = list(rows)
    if isinstance(setup.labeler, SeesAll):
        scored = [{**row, "scores": own} for row, own in zip(rows, setup.labeler.finish(rows), strict=True)]
    native = setup.labeler.native_threshold
    decided = thresholds.decide(setup.protocol, native, build(scored, texts), setup.config.seed)
    final = tuple(
        {**row, "prediction": prediction} for row, prediction in zip(scored, decided.predictions, strict=True)
    )
    if final != tuple(rows):
        store.replace_rows(final)
    return final, decided


def batches(
    items: Sequence[Item], batch_size: int | str, backend: Sized | None, factor: int = 1
) -> Iterator[Sequence[Item]]:
    """Cut the items into batches: of a given number of traces, or by ``factor`` times the backend's budget of text."""
    if isinstance(batch_size, int) or backend is None:
        size = batch_size if isinstance(batch_size, int) else TRACES_WITHOUT_MODEL
        yield from (items[start : start + size] for start in range(0, len(items), size))
        return
    budget = backend.batch_tokens * CHARACTERS_PER_TOKEN * factor
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item.trace.problem) + sum(map(len, item.trace.steps))
        if size >= budget:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _score(
    setup: Plan,
    data: TaskData,
    executor: Executor,
    finished: Mapping[tuple[str, str], JSON],
    store: Store,
    report: Callable[[Progress], None],
) -> Iterator[JSON]:
    """Score what is not finished, store it batch by batch, yield the new rows.

    Batches are the same whether or not the run was interrupted, and one that was cut short is scored again as a whole
    (its finished rows stay as they are), so that a resumed run gives the same numbers to the last bit. What that costs
    is added to the first row that is owed: nothing that was computed goes uncounted.
    """
    done, computed, spent = len(finished), 0, 0.0
    task = setup.config.task
    lap = cost.Lap()
    for outcome in executor.score(_owing(setup, data, executor, finished)):
        batch, scored = outcome.batch, outcome.scored
        tokens = [scored[item.trace.id].tokens for item in batch.owed]
        tokens[0] = sum((scored[item.trace.id].tokens for item in batch.items if item not in batch.owed), tokens[0])
        passed = lap.next() if executor.parallel else None
        shares = cost.shares(outcome.watch, tokens, outcome.peak_memory_bytes, passed)
        fresh = [
            _row(task, item, scored[item.trace.id], setup.rule, share)
            for item, share in zip(batch.owed, shares, strict=True)
        ]
        store.append(fresh, _rollouts(task, batch.owed, scored) if setup.config.log_samples else ())
        yield from fresh
        done += len(fresh)
        computed += sum(one.computed for one in tokens)
        spent += outcome.watch.wall if passed is None else passed
        report(Progress(done, len(data.items), "scoring", computed, spent))


def _owing(
    setup: Plan, data: TaskData, executor: Executor, finished: Mapping[tuple[str, str], JSON]
) -> Iterator[Batch]:
    """Yield the batches that have rows to come; they are made as they are taken."""
    factor = getattr(setup.labeler, "batch_factor", 1)
    for items in batches(data.items, setup.config.batch_size, executor.budget, factor):
        owed = tuple(item for item in items if _key(item, setup.config.task) not in finished)
        if owed:
            yield Batch(tuple(items), owed)


def _row(task: str, item: Item, result: Scored, rule: Threshold, share: cost.Share) -> JSON:
    scores = list(result.values) if isinstance(result, StepScores) else None
    own = result.prediction if isinstance(result, StepScores) else None
    return {
        "id": item.trace.id,
        "task": f"{task}/{item.subset}",
        "scores": scores,
        "prediction": _prediction(result, rule) if isinstance(result, StepScores) else None,
        **({"decision": own} if own is not None else {}),
        "gold": item.gold.as_dict(),
        "error": asdict(result.failure) if isinstance(result, TraceFailure) else None,
        "cost": share.as_dict(),
        "details": dict(result.details),
    }


def _prediction(result: StepScores, rule: Threshold) -> int | None:
    own = result.prediction if rule.protocol == "native" else None
    return rule.predict(result.values) if own is None else own


def _rollouts(task: str, items: Sequence[Item], scored: Mapping[str, Scored]) -> Iterator[JSON]:
    """Return the texts behind the scores of ``items``, each with its trace."""
    for item in items:
        key, name = _key(item, task)
        yield from ({"task": key, "id": name, **sample} for sample in scored[name].samples)


def evaluate(
    labeler: str,
    task: str,
    *,
    fresh: bool = False,
    progress: Callable[[Progress], None] | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    **options: Any,
) -> RunResult:
    """Run ``labeler`` on ``task`` and return the result; the Python face of ``cpmi-eval run``.

    Args:
        labeler: a registered labeler's name.
        task: a registered task's name.
        fresh: set an earlier run in the output directory aside instead of resuming it.
        progress: called after each batch.
        workers: score on this many Ray workers, each with a model of its own, instead of in this process.
        ray_address: of a Ray cluster that is running (``host:port``, or ``auto`` for the one on this machine); by
            default one is started on this machine for the run.
        options: the other fields of :class:`cpmi_eval.RunConfig`, named as the command line's flags.

    Raises:
        UsageError: the request cannot be carried out; the message says what to do.
    """
    known = {item.name for item in fields(RunConfig)}
    for name in options:
        if name not in known:
            raise UnknownNameError("option of evaluate", name, known)
    config = RunConfig(labeler=labeler, task=task, **options)
    return run(config, fresh=fresh, progress=progress, workers=Workers.asked(workers, ray_address))
