"""Build leaderboard rows from run directories and rank them.

Runs are compared only within a board: the same task, the same traces and the same data. Within a board they are ranked
within their kind, and those that are given the reference answer apart from those that are not: they solve different
problems. Where a task selects among solutions, one that is given the answer is an oracle: it is shown and not ranked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval.errors import StoreError, UnknownNameError
from cpmi_eval.reports import format as fmt
from cpmi_eval.store import read_results
from cpmi_eval.types import JSON

COSTS = ("wall_seconds", "computed", "generated")  # the smaller the better


@dataclass(frozen=True)
class Row:
    """One run on a board. ``metrics`` are the task's means over subsets; ``settings`` the labeler's own, if any.

    ``aggregation``: how step scores become one of the solution, for tasks that select among solutions; else ``None``.
    """

    path: Path
    task: str
    board: tuple[Any, ...]
    labeler: str
    settings: str
    kind: str
    uses_reference: bool
    synthetic: bool
    model: str | None
    dtype: str | None
    device: str | None
    threshold: str
    metrics: dict[str, float | None]
    traces: int
    scored: int
    wall_seconds: float
    requested: int
    computed: int
    generated: int
    peak_memory_bytes: int
    aggregation: str | None = None

    @property
    def oracle(self) -> bool:
        """Whether it selects by the answer that selection is judged by."""
        return self.aggregation is not None and self.uses_reference

    @property
    def group(self) -> tuple[str, bool]:
        """What a run is ranked among: its kind, apart by whether it is given the reference answer."""
        return self.kind, self.uses_reference

    @property
    def complete(self) -> bool:
        """Whether every trace was scored."""
        return self.scored == self.traces

    def value(self, key: str) -> float | None:
        """Return a metric or a cost by name."""
        return float(getattr(self, key)) if key in COSTS else self.metrics.get(key)


def read_row(path: Path) -> Row:
    """Read one finished run.

    Raises:
        StoreError: no run, or one that is not finished or not readable.
    """
    summary = read_results(path)
    try:
        return _row(path, summary)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path / 'results.json'} lacks what a leaderboard needs: {error}") from error


def _row(path: Path, summary: JSON) -> Row:
    config, cost, model = summary["config"], summary["cost"], summary["model"] or {}
    coverage = summary["coverage"]
    traces = tuple(sorted((name, counts["traces"]) for name, counts in coverage.items()))
    sampled = (config["seed"] if config["limit"] is not None else None, config["limit"])
    data = tuple((one["name"], one["revision"], one["sha256"]) for one in summary["data"])
    return Row(
        path=path,
        task=config["task"],
        board=(config["task"], tuple(sorted(config["task_args"].items())), traces, sampled, data),
        labeler=config["labeler"],
        settings=fmt.settings(config["labeler_args"]),
        kind=summary["labeler"]["kind"],
        uses_reference=summary["labeler"]["uses_reference"],
        synthetic=summary["synthetic"],
        model=model.get("model"),
        dtype=model.get("dtype"),
        device=model.get("device"),
        threshold=summary["threshold"]["protocol"],
        metrics={
            name: entry["value"]
            for name, entry in summary["results"][config["task"]].items()
            if not entry.get("detail", False)
        },
        traces=sum(counts["traces"] for counts in coverage.values()),
        scored=sum(counts["scored"] for counts in coverage.values()),
        wall_seconds=cost["wall_seconds"]["total"],
        peak_memory_bytes=cost["peak_memory_bytes"],
        aggregation=summary["labeler"]["aggregation"] if summary.get("selects") else None,
        **{name: cost["tokens"][name] for name in ("requested", "computed", "generated")},
    )


def boards(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows into boards of comparable runs, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.board, []).append(row)
    return list(groups.values())


def main_metric(rows: Sequence[Row]) -> str:
    """Return what a board is ranked by unless something else is asked for.

    F1 where there is one, the accuracy of best-of-N where solutions are selected, else the task's first metric.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return next((name for name in names if name == "f1" or name.startswith("bon@")), names[0] if names else COSTS[0])


def ranked(rows: Sequence[Row], by: str) -> list[tuple[int | None, Row]]:
    """Order one board by ``by`` and rank within each :attr:`Row.group`; equal values share a rank.

    Runs that did not score every trace or have no value are listed last and unranked, as are oracles.

    Raises:
        UnknownNameError: ``by`` is neither a metric of these rows nor a cost.
    """
    known = {name for row in rows for name in row.metrics} | set(COSTS)
    if by not in known:
        raise UnknownNameError("column to sort by", by, known)
    sign = 1 if by in COSTS else -1

    def order(row: Row) -> tuple[bool, bool, float]:
        value = row.value(by)
        return (value is None or row.oracle, not row.complete, 0.0 if value is None else sign * value)

    result: list[tuple[int | None, Row]] = []
    seen: dict[tuple[str, bool], list[float]] = {}
    for row in sorted(rows, key=order):
        value = row.value(by)
        if value is None or not row.complete or row.oracle:
            result.append((None, row))
            continue
        earlier = seen.setdefault(row.group, [])
        earlier.append(value)
        result.append((earlier.index(value) + 1, row))
    return result
