"""Another threshold, or fewer traces, for a finished run: from its stored scores, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.manifest import differences
from cpmi_eval.metrics import thresholds
from cpmi_eval.records import Record, Run, read_run, trace_set
from cpmi_eval.run import RunResult
from cpmi_eval.store import SCHEMA_VERSION, Store, parse_rows, read_json, write_json
from cpmi_eval.summary import reduce
from cpmi_eval.types import JSON


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
    manifest = read_json(path / "manifest.json")
    protocol = thresholds.parse(threshold or str(run.summary["threshold"]["protocol"]))
    records = _shared(run, only)
    seed = run.summary["config"]["seed"]
    native = _native(run, protocol)
    decided = thresholds.decide(protocol, native, _with_decisions(run, records), seed)
    manifest = _changed(manifest, run, records, str(protocol))
    known = {**run.summary, "schema_version": SCHEMA_VERSION, "config": manifest["config"]}
    known["labeler"] = {**known["labeler"], "native_threshold": native}
    if len(records) < len(run.records):
        clusters = {(one.part, one.cluster) for one in records}
        known["empty"] = [one for one in known.get("empty", ()) if (one["task"], one["cluster"]) in clusters]
    final = {
        (one.part, one.id): replace(one, prediction=prediction)
        for one, prediction in zip(records, decided.predictions, strict=True)
    }
    references = _references(run.summary) if len(records) == len(run.records) else {}  # they count all traces
    summary = reduce(known, decided, list(final.values()), manifest["sessions"], references)
    source = Store(path)
    texts = [one for line in source.traces_path.read_bytes().splitlines() if _key(one := json.loads(line)) in final]
    rows = {
        _key(row): {**row, "prediction": final[_key(row)].prediction}
        for row in parse_rows(source.samples_path.read_bytes(), source.samples_path)
        if _key(row) in final
    }
    ordered = tuple(rows[key] for key in final)
    target = output_path or _default(path, protocol, restricted=bool(only))
    _write(target, manifest, ordered, texts, summary, fresh=fresh)
    return RunResult(target, summary, ordered)


def _key(row: JSON) -> tuple[str, str]:
    return row["task"], row["id"]


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
    recorded, labeler = run.summary["threshold"], run.summary["labeler"]
    if recorded["protocol"] == "native":
        value = recorded["value"]
    elif protocol.name != "native" or "native_threshold" in labeler:
        value = labeler.get("native_threshold")
    else:
        raise UsageError(
            f"{run.path} was run with --threshold {recorded['protocol']} and does not say what is native to its "
            "labeler; use fixed:x"
        )
    return None if value is None else float(value)


def _with_decisions(run: Run, records: Sequence[Record]) -> Sequence[Record]:
    """Return the records with the scorer's own decisions, which native runs of earlier versions kept as predictions."""
    if run.summary["threshold"]["protocol"] != "native":
        return records
    return [one if one.scores is None else replace(one, decision=one.prediction) for one in records]


def _changed(manifest: JSON, run: Run, records: Sequence[Record], protocol: str) -> JSON:
    config = {**manifest["config"], "threshold": protocol}
    identity = {**manifest["identity"], "threshold": protocol}
    if len(records) < len(run.records):
        identity["only"] = trace_set(records)
    return {**manifest, "schema_version": SCHEMA_VERSION, "config": config, "identity": identity}


def _references(summary: JSON) -> JSON:
    """Return where the run's reference answers came from, by part."""
    return {part: one["references"] for part, one in summary["coverage"].items() if "references" in one}


def _default(path: Path, protocol: thresholds.Protocol, *, restricted: bool) -> Path:
    name = f"{path.name}-{str(protocol).replace(':', '-')}" + ("-shared" if restricted else "")
    return path.resolve().parent / name


def _write(
    target: Path, manifest: JSON, rows: Sequence[JSON], traces: Sequence[JSON], summary: JSON, *, fresh: bool
) -> None:
    with Store(target) as store:
        if fresh:
            store.set_aside()
        there = store.manifest()
        if there is not None:
            theirs, ours = there.get("identity", {}), manifest["identity"]
            differ = differences(theirs, ours, sorted({*theirs, *ours}))
            if differ:
                raise StoreError(f"{target} holds a different run ({differ}). Use another --output_path, or --fresh")
        write_json(store.manifest_path, manifest)
        store.write_traces(traces)
        store.replace_rows(rows)
        write_json(store.results_path, summary)
