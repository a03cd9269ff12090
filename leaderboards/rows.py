"""From a finished run to its leaderboard row: results, cost, and everything that they rest on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpmi_eval.description import ModelDescription
from cpmi_eval.description import read as read_model
from cpmi_eval.errors import StoreError
from cpmi_eval.leaderboards.schema import Cost, Part, Row, TraceSet, Value, portable
from cpmi_eval.records import Record, Run, trace_set
from cpmi_eval.store import Store, read_json
from cpmi_eval.types import JSON

PRM = "prm"  # the labeler that is a checkpoint: its row bears the checkpoint's name


def row_of(run: Run) -> Row:
    """Return the measured row of a finished run.

    Its parts are those that results.json reports on, and the task's mean over them. No path of the machine that it was
    made on is in it: models and files are known by their names and hashes.

    Raises:
        StoreError: the run's files lack what a row needs; the message names it.
    """
    manifest = read_json(Store(run.path).manifest_path)
    try:
        return _row(run, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{run.path} lacks what a leaderboard needs: {error!r}; run it again with --fresh") from error


def _row(run: Run, manifest: JSON) -> Row:
    summary = run.summary
    config, labeler, model = summary["config"], summary["labeler"], run.model
    named = _names(_used(manifest))
    scorer, settings = labeler["name"], _renamed(config["labeler_args"], named)
    if scorer == PRM and model is not None:
        scorer = _model(model)["name"].rpartition("/")[2]
        settings = {name: value for name, value in settings.items() if name != "checkpoint"}
    return Row(
        task=config["task"],
        origin="measured",
        scorer=scorer,
        kind=labeler["kind"],
        parts=_parts(run, config["task"], _limit(run, manifest)),
        settings=settings,
        uses_reference=labeler["uses_reference"],
        model=None if model is None else _described(model, config),
        threshold=summary["threshold"]["protocol"],
        aggregation=labeler["aggregation"] if summary.get("selects") else None,
        synthetic=summary["synthetic"],
        hardware={"device": None if model is None else model.device, **manifest["machine"]},
        versions=summary["versions"],
        fingerprint=fingerprint(manifest, summary["threshold"]["protocol"]),
        date=manifest["created"],
    )


def fingerprint(manifest: Mapping[str, Any], threshold: str) -> str:
    """Return the SHA-256 of what a run is: its configuration, data, files and model, wherever these are kept.

    ``threshold``: the protocol that its results stand on; scores can be judged again by another one.
    """
    identity, model = manifest["identity"], _used(manifest)
    what = {
        "identity": {**_renamed(identity, _names(model)), "threshold": threshold},
        "model": None if model is None else _model(model),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _used(manifest: Mapping[str, Any]) -> ModelDescription | None:
    return read_model(manifest["model"], Path("manifest.json"))


def _model(model: ModelDescription) -> JSON:
    """Return what identifies a model: its name (of a folder or a file, the last part) and a hash or a revision."""
    found: JSON = {"name": portable(model.model)}
    if model.sha256 is not None:
        found["name"] = found["name"].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    known = {"sha256": model.sha256, "revision": model.revision}
    found |= {key: value for key, value in known.items() if value is not None}
    if model.others:
        found["others"] = {role: _model(one) for role, one in model.others.items()}
    return found


def _described(model: ModelDescription, config: Mapping[str, Any]) -> JSON:
    args = portable(config["model_args"])
    dtype = {} if model.dtype is None else {"dtype": model.dtype}
    return {**_model(model), **dtype, "backend": model.backend, **({"args": args} if args else {})}


def _names(model: ModelDescription | None) -> dict[str, str]:
    """Return the local models by the names they were given, each with the name it has in a row."""
    models = [] if model is None else [model, *model.others.values()]
    return {one.model: _model(one)["name"] for one in models if one.sha256 is not None}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Return settings in which local models and files have the names that they have in a row."""
    if isinstance(value, Mapping):
        return {key: _renamed(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(one, names) for one in value]
    return names.get(value, portable(value)) if isinstance(value, str) else value


def _limit(run: Run, manifest: JSON) -> float | None:
    """Return what the run was restricted to: its limit, or as many traces as it was left with to match other runs."""
    limit: float | None = run.summary["config"]["limit"]
    return len(run.records) if limit is None and "only" in manifest["identity"] else limit


def _parts(run: Run, task: str, limit: float | None) -> dict[str, Part]:
    """Return the parts that results are reported on, and the mean over them."""
    reported = run.summary["results"]
    parts = {
        name: Part(
            _metrics(metrics),
            TraceSet(trace_set(records), len(records), sum(one.scores is not None for one in records), limit),
            _cost(records),
        )
        for name, metrics in reported.items()
        if name != task and (records := run.parts[name])
    }
    sets = [part.traces for _, part in sorted(parts.items()) if part.traces is not None]
    costs = [part.cost for part in parts.values() if part.cost is not None]
    digest = hashlib.sha256("\n".join(one.sha256 for one in sets).encode()).hexdigest()
    traces = TraceSet(digest, sum(one.total for one in sets), sum(one.scored for one in sets), limit)
    return {**parts, task: Part(_metrics(reported[task]), traces, _sum(costs))}


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Value]:
    """Return the metrics that are no details."""
    found = {}
    for name, one in metrics.items():
        if not one.get("detail", False):
            low, high = one.get("interval") or (None, None)
            found[name] = Value(one["value"], low, high, one["n"])
    return found


def _cost(records: Sequence[Record]) -> Cost:
    return _sum(
        [
            Cost(
                seconds=one.cost.get("wall_seconds", one.cost["seconds"]),
                device_seconds=one.cost["device_seconds"],
                peak_memory_bytes=one.cost["peak_memory_bytes"],
                **{name: one.cost["tokens"][name] for name in ("requested", "computed", "generated")},
            )
            for one in records
        ]
    )


def _sum(costs: Sequence[Cost]) -> Cost:
    """Add costs up; of peaks the highest counts."""
    return Cost(
        seconds=sum(one.seconds for one in costs),
        device_seconds=sum(one.device_seconds for one in costs),
        requested=sum(one.requested for one in costs),
        computed=sum(one.computed for one in costs),
        generated=sum(one.generated for one in costs),
        peak_memory_bytes=max((one.peak_memory_bytes for one in costs), default=0),
    )
