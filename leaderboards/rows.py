"""From a finished run to its leaderboard row: results, cost, and everything that they rest on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

from cpmi_eval.leaderboards.schema import Cost, Kind, Part, Row, TraceSet, Value
from cpmi_eval.record.results import Metric
from cpmi_eval.record.rows import Record, trace_set
from cpmi_eval.record.run import Run


def row_of(run: Run) -> Row:
    """Return the measured row of a finished run.

    Its parts are those that results.json reports on, and the task's mean over them. No path of the machine that it was
    made on is in it: models and files are known by their names and hashes.
    """
    results, signature = run.results, run.signature
    return Row(
        task=results.task,
        origin="measured",
        scorer=signature.scorer,
        kind=cast(Kind, results.labeler.kind),
        parts=_parts(run, results.task, signature.limit),
        settings=signature.settings,
        uses_reference=results.labeler.uses_reference,
        model=signature.model_row(),
        threshold=signature.threshold,
        aggregation=signature.aggregation,
        synthetic=results.synthetic,
        hardware=signature.hardware,
        versions=results.versions,
        fingerprint=signature.fingerprint,
        date=run.manifest.created,
    )


def _parts(run: Run, task: str, limit: float | None) -> dict[str, Part]:
    """Return the parts that results are reported on, and the mean over them."""
    reported = run.results.results
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


def _metrics(metrics: Mapping[str, Metric]) -> dict[str, Value]:
    """The metrics that are no details."""
    found = {}
    for name, one in metrics.items():
        if not one.detail:
            low, high = one.interval or (None, None)
            found[name] = Value(one.value, low, high, one.n)
    return found


def _cost(records: Sequence[Record]) -> Cost:
    return _sum(
        [
            Cost(
                seconds=one.cost.passed,
                device_seconds=one.cost.device_seconds,
                peak_memory_bytes=one.cost.peak_memory_bytes,
                requested=one.cost.tokens.requested,
                computed=one.cost.tokens.computed,
                generated=one.cost.tokens.generated,
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
