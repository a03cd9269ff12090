"""What the page shows of leaderboard rows, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpmi_eval.errors import UsageError
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.reports import format as fmt
from cpmi_eval.types import JSON

if TYPE_CHECKING:
    from cpmi_eval.leaderboards import schema
    from cpmi_eval.records import Run
    from cpmi_eval.reports.page import Board, Placed


def check(boards: Sequence[Board], runs: Sequence[Run]) -> None:
    """Check that what boards point to exists.

    Raises:
        UsageError: a row lacks the part its board is about, or points to a run that is not among ``runs``.
    """
    for board in boards:
        for placed in board.rows:
            if board.part not in placed.row.parts:
                known = ", ".join(placed.row.parts) or "none"
                raise UsageError(
                    f"the row of {placed.row.scorer} on board {board.title!r} has no part {board.part!r}; "
                    f"it has {known}"
                )
            if placed.run is not None and not 0 <= placed.run < len(runs):
                raise UsageError(
                    f"the row of {placed.row.scorer} on board {board.title!r} points to run {placed.run}, but the page "
                    f"was given {len(runs)}"
                )


def metric_forms(boards: Sequence[Board], runs: Sequence[Run], published: Sequence[schema.Row]) -> dict[str, JSON]:
    """Return how each metric is named and written, and whether less of it is better, in order of appearance."""
    parts = [placed.row.parts[board.part] for board in boards for placed in board.rows]
    parts += [part for row in published for part in row.parts.values()]
    names: list[str] = [name for part in parts for name in part.metrics]
    names += [name for run in runs for metrics in run.summary["results"].values() for name in metrics]
    return {name: _form(name) for name in dict.fromkeys(names)}


def _form(name: str) -> JSON:
    spec = spec_of(name)
    unit = "plain" if spec.unit == "multiple" else spec.unit
    return {"label": spec.label, "form": unit, "lower": not spec.higher_is_better}


def board_data(board: Board) -> JSON:
    """Return one board; its rows keep their order."""
    names = dict.fromkeys(name for placed in board.rows for name in placed.row.parts[board.part].metrics)
    return {
        "part": board.part,
        "title": board.title,
        "metric": board.metric,
        "metrics": list(names),
        "rows": [_placed(placed, board.part) for placed in board.rows],
    }


def _placed(placed: Placed, part: str) -> JSON:
    row = placed.row
    shown = row.parts[part]
    return {
        **_scorer(row),
        "rank": placed.rank,
        "reason": placed.reason,
        "run": placed.run,
        "metrics": {name: _value(value) for name, value in shown.metrics.items()},
        "traces": None
        if shown.traces is None
        else {"total": shown.traces.total, "scored": shown.traces.scored, "limit": shown.traces.limit},
        "cost": None
        if shown.cost is None
        else {
            "seconds": significant(shown.cost.seconds),
            "device_seconds": significant(shown.cost.device_seconds),
            "requested": shown.cost.requested,
            "computed": shown.cost.computed,
            "generated": shown.cost.generated,
            "memory": shown.cost.peak_memory_bytes,
        },
    }


def scorer_name(row: schema.Row) -> str:
    """A scorer with its settings."""
    return fmt.scorer(row.scorer, row.settings)


def _scorer(row: schema.Row) -> JSON:
    model = row.model or {}
    words = [model.get("name"), model.get("dtype")]
    return {
        "scorer": row.scorer,
        "settings": fmt.settings(row.settings),
        "kind": row.kind,
        "reference": row.uses_reference,
        "oracle": row.oracle,
        "synthetic": row.synthetic,
        "model": " ".join(str(word) for word in words if word),
        "threshold": row.threshold,
        "aggregation": row.aggregation,
        "hardware": ", ".join(str(value) for value in (row.hardware or {}).values() if value),
        "fingerprint": (row.fingerprint or "")[:12],
        "source": row.source,
        "note": row.note,
        "date": row.date,
        "run": None,
    }


def published_data(rows: Iterable[schema.Row]) -> list[JSON]:
    """Return published rows, a table per task with a column for each metric of each part that any of them has."""
    tables: dict[str, list[schema.Row]] = {}
    for row in rows:
        tables.setdefault(row.task, []).append(row)
    return [
        {
            "task": task,
            "columns": [
                list(pair)
                for pair in dict.fromkeys(
                    (name, metric) for row in group for name, part in row.parts.items() for metric in part.metrics
                )
            ],
            "rows": [
                {
                    **_scorer(row),
                    "parts": {
                        name: {metric: _value(value) for metric, value in part.metrics.items()}
                        for name, part in row.parts.items()
                    },
                }
                for row in group
            ],
        }
        for task, group in tables.items()
    ]


def _value(value: schema.Value) -> list[float | int | None]:
    return [significant(value.value, 6), significant(value.low, 6), significant(value.high, 6), value.n]


def entry(metric: Mapping[str, Any]) -> list[float | int | None]:
    """Return a metric of results.json the way the page holds one: value, bounds of the interval, n."""
    low, high = metric.get("interval") or (None, None)
    return [significant(metric["value"], 6), significant(low, 6), significant(high, 6), metric["n"]]


def significant(value: float | None, digits: int = 4) -> float | None:
    """Return a number rounded to some significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")
