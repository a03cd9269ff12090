"""The one loop: task -> labeler -> store -> metrics, with one meter over all of it."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from cpmi_eval import cost
from cpmi_eval.errors import DataError, StoreError, UnknownNameError, UsageError
from cpmi_eval.execution.local import Batch, Executor, InProcess, Opener, open_backend
from cpmi_eval.execution.workers import Workers
from cpmi_eval.manifest import open_manifest, start_session, with_workers
from cpmi_eval.metrics import thresholds
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.thresholds import Decisions, Threshold
from cpmi_eval.plan import Plan, RunConfig, prepare
from cpmi_eval.protocols import LoadOptions, SeesAll
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.record.rows import Key, Record, Row, TraceText, check, join, part_of, rollouts_of
from cpmi_eval.record.run import Run
from cpmi_eval.record.store import Store
from cpmi_eval.seeding import derive_seed
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
    """A finished run, and its rows in the order of the task."""

    run: Run
    scored: tuple[Row, ...]

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.run.path

    @property
    def summary(self) -> JSON:
        """The content of results.json."""
        return self.run.summary

    @cached_property
    def rows(self) -> tuple[JSON, ...]:
        """The lines of samples.jsonl."""
        return tuple(row.as_dict() for row in self.scored)

    @property
    def results(self) -> Mapping[str, Mapping[str, Metric]]:
        """Metrics by task (``processbench/gsm8k``, and ``processbench`` for the mean over subsets)."""
        return self.run.results.results

    @property
    def model(self) -> ModelDescription | None:
        """The model that was used; ``None`` where none was."""
        return self.run.model

    @property
    def failed(self) -> int:
        """Rows that errored; traces without a reference answer are the data's matter and not counted."""
        return self.run.results.failed


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
        texts = [TraceText.of(item, config.task) for item in data.items]
        store.write_texts(texts)
        rows = _finished_rows(store, {text.key: item for text, item in zip(texts, data.items, strict=True)})
        if len(rows) == len(texts):
            log.info("%s is complete: nothing is scored again; --fresh repeats the run", store.path)
        else:
            report(Progress(len(rows), len(texts), "loading the model"))
            store.drop_rollouts(rows.keys())
            try:
                manifest = start_session(store, manifest, executor.open(meter), meter)
                manifest = with_workers(store, manifest, executor.record())
                try:
                    for row in _score(setup, data, executor, rows, store, report):
                        rows[row.key] = row
                        manifest = with_workers(store, manifest, executor.record())
                finally:
                    manifest = with_workers(store, manifest, executor.record())
            finally:
                executor.close()
        ordered, decided = _finished(setup, [rows[text.key] for text in texts], texts, store)
        records = join(ordered, texts, store.samples_path)
        results = summarize(setup.task, setup.labeler, decided, data, records, manifest)
        store.write_results(results)
        if config.log_samples and not store.rollouts_path.exists():
            log.warning("%s draws no samples with these settings: log_samples kept nothing", config.labeler)
    return RunResult(Run(setup.path, manifest, results, records), ordered)


def _finished_rows(store: Store, items: Mapping[Key, Item]) -> dict[Key, Row]:
    """The rows that are in the store.

    Raises:
        StoreError: one is of another trace, does not fit its trace, or has another annotation than the data.
    """
    rows = {row.key: row for row in store.samples.read()}
    if not rows.keys() <= items.keys():
        raise StoreError(f"{store.samples_path} has rows of other traces than this run's; start anew with --fresh")
    for key, row in rows.items():
        check(row, len(items[key].trace.steps), store.samples_path)
        if row.gold != items[key].gold:
            raise StoreError(
                f"{store.samples_path}: the trace {row.id} of {row.task} has another annotation than the data; "
                "start anew with --fresh"
            )
    return rows


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
        records = [Record.unscored(item, setup.config.task) for item in data.items]
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


def _finished(
    setup: Plan, rows: Sequence[Row], texts: Sequence[TraceText], store: Store
) -> tuple[tuple[Row, ...], Decisions]:
    """Return the rows with their final scores and predictions, where it takes all rows to tell them."""
    scored = list(rows)
    if isinstance(setup.labeler, SeesAll):
        final = setup.labeler.finish(rows)
        scored = [
            replace(row, scores=None if own is None else tuple(own)) for row, own in zip(rows, final, strict=True)
        ]
    native = setup.labeler.native_threshold
    decided = thresholds.decide(setup.protocol, native, join(scored, texts, store.samples_path), setup.config.seed)
    done = tuple(replace(row, prediction=own) for row, own in zip(scored, decided.predictions, strict=True))
    if done != tuple(rows):
        store.replace_rows(done)
    return done, decided


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
    finished: Mapping[Key, Row],
    store: Store,
    report: Callable[[Progress], None],
) -> Iterator[Row]:
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
        owed = {item.trace.id for item in batch.owed}
        tokens = [scored[item.trace.id].tokens for item in batch.owed]
        tokens[0] = sum((one.tokens for name, one in scored.items() if name not in owed), tokens[0])
        passed = lap.next() if executor.parallel else None
        shares = cost.shares(outcome.watch, tokens, outcome.peak_memory_bytes, passed)
        fresh = [
            _row(task, item, scored[item.trace.id], setup.rule, share)
            for item, share in zip(batch.owed, shares, strict=True)
        ]
        kept = (one for row in fresh for one in rollouts_of(row, scored[row.id].samples))
        store.append(fresh, kept if setup.config.log_samples else ())
        yield from fresh
        done += len(fresh)
        computed += sum(one.computed for one in tokens)
        spent += outcome.watch.wall if passed is None else passed
        report(Progress(done, len(data.items), "scoring", computed, spent))


def _owing(setup: Plan, data: TaskData, executor: Executor, finished: Container[Key]) -> Iterator[Batch]:
    """Yield the batches that have rows to come; they are made as they are taken."""
    factor = getattr(setup.labeler, "batch_factor", 1)
    for items in batches(data.items, setup.config.batch_size, executor.budget, factor):
        owed = tuple(item for item in items if (part_of(item, setup.config.task), item.trace.id) not in finished)
        if owed:
            yield Batch(tuple(items), owed)


def _row(task: str, item: Item, result: Scored, rule: Threshold, share: cost.Share) -> Row:
    own = (item.trace.id, part_of(item, task))
    if isinstance(result, TraceFailure):
        return Row(*own, None, None, item.gold, result.failure, share, dict(result.details))
    predicted = _prediction(result, rule)
    return Row(*own, result.values, predicted, item.gold, None, share, dict(result.details), result.prediction)


def _prediction(result: StepScores, rule: Threshold) -> int | None:
    own = result.prediction if rule.protocol == "native" else None
    return rule.predict(result.values) if own is None else own


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
