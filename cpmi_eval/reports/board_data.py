"""Leaderboards for programs: one JSON document, one CSV table, one HTML page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from cpmi_eval.leaderboards import form
from cpmi_eval.leaderboards.board import Placed
from cpmi_eval.leaderboards.schema import Row
from cpmi_eval.records import Run
from cpmi_eval.reports.board import Shown, columns
from cpmi_eval.types import JSON


def document(boards: Sequence[Shown], published: Sequence[Row], names: Sequence[str] = ()) -> str:
    """Return boards and published rows as one JSON document.

    A row holds everything that is known of it, with the results of its board's part; or what ``names``, columns of the
    tables, pick. ``rank`` is ``[best, worst]``, or null where ``reason`` says why there is none.
    """
    content = {"boards": [_board(one, names) for one in boards], "published": [form.as_dict(row) for row in published]}
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _board(one: Shown, names: Sequence[str]) -> JSON:
    if names:
        picked = columns(one.board, names)
        rows: list[JSON] = [
            {column.name: column.raw(row) for column in picked} for group in one.groups for row in group
        ]
    else:
        rows = [_row(row) for group in one.groups for row in group]
    about = {"part": one.board.part, "trace_set": one.board.traces, "title": one.board.title, "ranked_by": one.by}
    return {**about, "total": one.total, "rows": rows}


def _row(one: Placed) -> JSON:
    rank = None if one.rank is None else list(one.rank)
    place = {"rank": rank, "reason": one.reason, "bare": one.bare, "oracle": one.entry.row.oracle}
    return {**place, **form.about(one.entry.row), **form.part_dict(one.entry.part)}


ALWAYS = ("origin", "part", "trace_set", "rank", "reason")


def table(boards: Sequence[Shown], published: Sequence[Row], names: Sequence[str] = ()) -> str:
    """Return one row for every result of every board, and for every part of a published row, in CSV.

    Values are as in results.json: accuracies as fractions, times in seconds. A metric has further columns for the
    bounds of its interval (``f1_low``, ``f1_high``) and for what it is counted over (``f1_n``). ``names`` picks columns
    of the tables.
    """
    groups = [*(list(_lines(one, names)) for one in boards), *([one] for one in _published(published, names))]
    lines = [line for group in groups for line in group]
    header = list(dict.fromkeys([*ALWAYS, *(key for group in groups for key in group[0])]))  # one for all of a board
    stream = io.StringIO()
    writer = csv.DictWriter(stream, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue().rstrip("\n")


def _lines(one: Shown, names: Sequence[str]) -> Iterator[JSON]:
    everything = ("kind", "scorer", "model", "threshold", "aggregation", *one.board.metrics, *_REST)
    picked = [column for column in columns(one.board, names or everything) if column.name != "rank"]
    metrics = set(one.board.metrics)
    for group in one.groups:
        for row in group:
            line: JSON = dict(
                zip(ALWAYS, ("measured", one.board.part, one.board.traces, row.place, row.reason), strict=True)
            )
            for column in picked:
                line[column.name] = column.raw(row)
                if column.name in metrics:
                    line |= _around(column.name, vars(row.entry.metric(column.name)))
                if column.name == "scorer":
                    line |= _scorer(row.entry.row)
            yield line


_REST = (
    *("scored", "traces", "wall_seconds", "device_seconds", "requested", "computed", "generated", "peak_memory_bytes"),
    *("device", "processor", "platform", "dtype", "date", "version", "fingerprint"),
)


def _around(name: str, value: JSON) -> JSON:
    return {f"{name}_{key}": value[key] for key in ("low", "high", "n")}


def _scorer(row: Row) -> JSON:
    settings = json.dumps(row.settings, ensure_ascii=False, allow_nan=False) if row.settings else ""
    return {"settings": settings, "uses_reference": str(row.uses_reference).lower()}


def _published(rows: Sequence[Row], names: Sequence[str]) -> Iterator[JSON]:
    for row in rows:
        for part, found in row.parts.items():
            line: JSON = {"origin": "published", "part": part, "kind": row.kind, "scorer": row.scorer, **_scorer(row)}
            line |= {"threshold": row.threshold}
            line |= {metric: value.value for metric, value in found.metrics.items()}
            further = {"source": row.source, "note": row.note}
            yield {key: one for key, one in line.items() if not names or key in names or key in ALWAYS} | further


def html(title: str, boards: Sequence[Shown], runs: Sequence[Run], published: Sequence[Row]) -> str:
    """Return boards, the runs behind them and published rows as one HTML page."""
    from cpmi_eval.reports import page

    def placed(one: Placed) -> page.Placed:
        return page.Placed(one.entry.row, one.place, one.reason, one.entry.run)

    pages = [
        page.Board(one.board.part, one.title, one.by, tuple(placed(row) for group in one.groups for row in group))
        for one in boards
    ]
    return page.page(title, pages, runs, published)
