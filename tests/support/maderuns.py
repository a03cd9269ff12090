"""Finished runs that nothing was scored for: what a test says of one, and plain values for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpmi_eval.record import door
from cpmi_eval.record.model import shaped
from cpmi_eval.record.results import FORMAT, Manifest, Results
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import Run

PLAIN: Mapping[str, Any] = {
    "labeler": {"name": "length", "kind": "baseline", "uses_reference": False},
    "synthetic": False,
    "config": {"labeler": "length", "task": "synthetic"},
    "model": None,
    "data": [],
    "versions": {},
    "results": {},
    "cost": {
        "wall_seconds": {"score": 0.0, "total": 0.0},
        "device_seconds": 0.0,
        "tokens": {"requested": 0, "computed": 0, "reused": 0, "generated": 0},
        "peak_memory_bytes": 0,
        "sessions": 1,
    },
    "coverage": {},
    "errors": {},
    "threshold": {"protocol": "fixed:0.5", "value": 0.5, "undecided": False},
}
COVERAGE = {"traces": 0, "scored": 0, "no_reference": 0, "failed": 0}


def results_of(**said: Any) -> Results:
    """What results.json holds where ``said`` stands in it; objects are completed key by key."""
    whole = {
        key: {**PLAIN[key], **value}
        if isinstance(PLAIN.get(key), dict) and key not in ("results", "threshold")
        else value
        for key, value in {**PLAIN, **said}.items()
    }
    whole["coverage"] = {part: {**COVERAGE, **one} for part, one in whole["coverage"].items()}
    whole["model"] = shaped(whole["model"])
    return door.convert(whole, Results, door.Source("results.json"))


def made(path: Path | str = "run", records: Sequence[Record] = (), **said: Any) -> Run:
    """A run of these records, of which ``said`` stands in results.json."""
    results = results_of(**said)
    manifest = Manifest(
        schema_version=FORMAT,
        created="2026-01-02T03:04:05+00:00",
        config=results.config,
        identity={},
        versions=results.versions,
        machine={"platform": "Linux-6", "processor": "x86_64"},
        data=results.data,
        model=results.model,
        sessions=(),
    )
    return Run(Path(path), manifest, results, tuple(records))
