"""Reference rows as a table of their own, under the boards of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from cpmi_eval.leaderboards.published import Published, columns
from cpmi_eval.reports import format as fmt


def published_table(rows: Sequence[Published], tasks: Sequence[str] = ()) -> Table:
    """Return published results by row; ``tasks`` (``processbench/gsm8k``) restricts the columns."""
    board = rows[0].task
    title = f"{board}: published, not measured here"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("kind", no_wrap=True)
    table.add_column("name", overflow="fold")
    pairs = columns(rows, tasks)
    for task, metric in pairs:
        table.add_column(_heading(board, task, metric), justify="right")
    table.add_column("source", overflow="fold")
    sources = list(dict.fromkeys(row.source for row in rows))
    for row in rows:
        values = [row.results.get(task, {}).get(metric) for task, metric in pairs]
        cells = [_cell(metric, value) for (_, metric), value in zip(pairs, values, strict=True)]
        table.add_row(row.kind, Text(row.name), *cells, f"[{sources.index(row.source) + 1}]".replace("[", r"\["))
    notes = [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    notes += dict.fromkeys(row.note for row in rows if row.note)
    table.caption, table.caption_justify = Text("\n".join(notes)), "left"
    return table


def _heading(board: str, task: str, metric: str) -> str:
    part = task.removeprefix(board).removeprefix("/")
    named = metric.replace("_", "\n")
    return f"{part}\n{metric}" if part else (f"mean\n{metric}" if board == "processbench" else named)


def _cell(metric: str, value: float | None) -> str:
    """Write a metric as the field does; costs relative to another labeler in percent of it."""
    if value is not None and metric.startswith("relative_"):
        return f"{100 * value:.0f}%"
    return fmt.metric(metric, value)
