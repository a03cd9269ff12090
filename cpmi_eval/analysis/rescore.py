"""Another threshold, or fewer traces, for a finished run: from its stored scores, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import UNSET

from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.metrics import thresholds
from cpmi_eval.record.journal import differences
from cpmi_eval.record.results import Manifest, Results
from cpmi_eval.record.rows import Record, Row, TraceText, join, trace_set
from cpmi_eval.record.run import Run, read_run
from cpmi_eval.record.store import Store
from cpmi_eval.run import RunResult
from cpmi_eval.summary import reduce


def rescore(
    path: Path,
    threshold: str | None = None,
    *,
    only: Sequence[Path] = (),
    output_path: Path | None = None,
    fresh: bool = False,
) -> RunResult:
    """Write a finished run anew under another threshold protocol, or restricted to traces that other runs have too.

    Args:
        path: the run; it is left as it is.
        threshold: the protocol; by default the run's own.
        only: finished runs: traces that one of them lacks, or has with another text or annotation, are left out.
        output_path: the new run's directory; by default the run's name with what is changed.
        fresh: set what is in that directory aside.

    Raises:
        UsageError: an unknown protocol, or one that these traces give nothing to fit to; no shared traces.
        StoreError: no finished run, or the directory holds a different one.
    """
    run = read_run(path)
    protocol = thresholds.parse(threshold or run.results.threshold.protocol)
    records = _shared(run, only)
    native = _native(run, protocol)
    decided = thresholds.decide(protocol, native, _with_decisions(run, records), run.results.config.seed)
    manifest = _changed(run, records, str(protocol))
    known = run.results.replaced(config=manifest.config, labeler=run.results.labeler.replaced(native_threshold=native))
    if len(records) < len(run.records):
        clusters = {(one.part, one.cluster) for one in records}
        known = known.replaced(empty=tuple(one for one in known.empty if (one.task, one.cluster) in clusters))
    judged = [replace(one, prediction=own) for one, own in zip(records, decided.predictions, strict=True)]
    final = {(one.part, one.id): one.prediction for one in judged}
    references = {part: one.references for part, one in run.results.coverage.items() if one.references}
    if len(records) < len(run.records):
        references = {}  # they count all traces
    results = reduce(known, decided, judged, manifest.sessions, references)
    source = Store(path)
    texts = [one for one in source.texts() if one.key in final]
    rows = {row.key: row for row in source.samples.read()}
    ordered = tuple(replace(rows[key], prediction=prediction) for key, prediction in final.items())
    target = output_path or _default(path, protocol, restricted=bool(only))
    _write(target, manifest, ordered, texts, results, fresh=fresh)
    return RunResult(Run(target, manifest, results, join(ordered, texts, source.samples_path)), ordered)


def _shared(run: Run, only: Sequence[Path]) -> tuple[Record, ...]:
    """Return the run's records whose traces all of the other runs have, with the same texts and annotations."""
    records = run.records
    for other in only:
        theirs = {_content(one) for one in read_run(other).records}
        records = tuple(one for one in records if _content(one) in theirs)
        if not records:
            raise UsageError(f"{run.path} and {other} share no traces, so nothing would be left")
    return records


def _content(record: Record) -> tuple[str, str]:
    return record.part, trace_set([record])


def _native(run: Run, protocol: thresholds.Protocol) -> float | None:
    recorded, own = run.results.threshold, run.results.labeler.native_threshold
    if recorded.protocol == "native":
        return recorded.value
    if own is not UNSET:
        return own
    if protocol.name != "native":
        return None
    raise UsageError(
        f"{run.path} was run with --threshold {recorded.protocol} and does not say what is native to its labeler; use "
        "fixed:x"
    )


def _with_decisions(run: Run, records: Sequence[Record]) -> Sequence[Record]:
    """Return the records with the scorer's own decisions, which native runs of earlier versions kept as predictions."""
    if run.results.threshold.protocol != "native":
        return records
    return [one if one.scores is None else replace(one, decision=one.prediction) for one in records]


def _changed(run: Run, records: Sequence[Record], protocol: str) -> Manifest:
    manifest = run.manifest
    identity = {**manifest.identity, "threshold": protocol}
    if len(records) < len(run.records):
        identity["only"] = trace_set(records)
    changed: Manifest = manifest.replaced(config=manifest.config.replaced(threshold=protocol), identity=identity)
    return changed


def _default(path: Path, protocol: thresholds.Protocol, *, restricted: bool) -> Path:
    name = f"{path.name}-{str(protocol).replace(':', '-')}" + ("-shared" if restricted else "")
    return path.resolve().parent / name


def _write(
    target: Path, manifest: Manifest, rows: Sequence[Row], texts: Sequence[TraceText], results: Results, *, fresh: bool
) -> None:
    with Store(target) as store:
        if fresh:
            store.set_aside()
        there = store.manifest()
        if there is not None:
            theirs, ours = there.identity, manifest.identity
            differ = differences(theirs, ours, sorted({*theirs, *ours}))
            if differ:
                raise StoreError(f"{target} holds a different run ({differ}). Use another --output_path, or --fresh")
        store.keep(manifest)
        store.write_texts(texts)
        store.replace_rows(rows)
        store.write_results(results)
