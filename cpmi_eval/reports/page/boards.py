"""What the page shows of leaderboard rows, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cpmi_eval.metrics.spec import MetricSpec, spec_of
from cpmi_eval.record.results import Metric
from cpmi_eval.reports import format as fmt
from cpmi_eval.types import JSON

if TYPE_CHECKING:
    from cpmi_eval.leaderboards import schema
    from cpmi_eval.record.run import Run
    from cpmi_eval.reports.page import Board, Placed


def metric_forms(boards: Sequence[Board], runs: Sequence[Run], published: Sequence[schema.Row]) -> dict[str, JSON]:
    """How each metric is named and written, and whether less of it is better, in order of appearance."""
    parts = [placed.row.parts[board.part] for board in boards for placed in board.rows]
    parts += [part for row in published for part in row.parts.values()]
    names: list[str] = [name for part in parts for name in part.metrics]
    names += [name for run in runs for metrics in run.results.results.values() for name in metrics]
    return {name: _form(spec_of(name)) for name in dict.fromkeys(names)}


def _form(spec: MetricSpec) -> JSON:
    unit = "plain" if spec.unit == "multiple" else spec.unit
    return {"label": spec.label, "form": unit, "lower": not spec.higher_is_better}


def board_data(board: Board) -> JSON:
    """One board; its rows keep their order."""
    names = dict.fromkeys(name for placed in board.rows for name in placed.row.parts[board.part].metrics)
    return {
        "part": board.part,
        "title": board.title,
        "metric": board.metric,
        "metrics": list(names),
        "rows": [_placed(placed, board.part) for placed in board.rows],
    }


def _placed(placed: Placed, part: str) -> JSON:
    shown = placed.row.parts[part]
    traces, cost = shown.traces, shown.cost
    return {
        **_scorer(placed.row),
        "rank": placed.rank,
        "reason": placed.reason,
        "run": placed.run,
        "metrics": {name: _value(value) for name, value in shown.metrics.items()},
        "traces": traces and {"total": traces.total, "scored": traces.scored, "limit": traces.limit},
        "cost": cost
        and {
            "seconds": significant(cost.seconds),
            "device_seconds": significant(cost.device_seconds),
            "requested": cost.requested,
            "computed": cost.computed,
            "generated": cost.generated,
            "memory": cost.peak_memory_bytes,
        },
    }


def scorer_name(row: schema.Row) -> str:
    """A scorer with its settings."""
    return fmt.scorer(row.scorer, row.settings)


def _scorer(row: schema.Row) -> JSON:
    model = [(row.model or {}).get(name) for name in ("name", "dtype")]
    return {
        "scorer": row.scorer,
        "settings": fmt.settings(row.settings),
        "kind": row.kind,
        "reference": row.uses_reference,
        "oracle": row.oracle,
        "synthetic": row.synthetic,
        "model": " ".join(map(str, filter(None, model))),
        "threshold": row.threshold,
        "aggregation": row.aggregation,
        "hardware": ", ".join(map(str, filter(None, (row.hardware or {}).values()))),
        "fingerprint": (row.fingerprint or "")[:12],
        "source": row.source,
        "note": row.note,
        "date": row.date,
        "run": None,
    }


def published_data(rows: Iterable[schema.Row]) -> list[JSON]:
    """Published rows, a table per task with a column for each metric of each part that any of them has."""
    tables: dict[str, list[schema.Row]] = {}
    for row in rows:
        tables.setdefault(row.task, []).append(row)
    found = []
    for task, group in tables.items():
        parts = [
            {name: {key: _value(value) for key, value in part.metrics.items()} for name, part in row.parts.items()}
            for row in group
        ]
        columns = dict.fromkeys((name, key) for own in parts for name, values in own.items() for key in values)
        lines = [{**_scorer(row), "parts": own} for row, own in zip(group, parts, strict=True)]
        found.append({"task": task, "columns": list(map(list, columns)), "rows": lines})
    return found


def _value(value: schema.Value) -> list[float | int | None]:
    return [significant(value.value, 6), significant(value.low, 6), significant(value.high, 6), value.n]


def entry(metric: Metric) -> list[float | int | None]:
    """A metric of results.json as the page holds one: value, bounds of the interval, n."""
    low, high = metric.interval or (None, None)
    return [significant(metric.value, 6), significant(low, 6), significant(high, 6), metric.n]


def significant(value: float | None, digits: int = 4) -> float | None:
    """A number rounded to some significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")
