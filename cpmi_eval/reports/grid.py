"""Tables before they are drawn, and the one way to draw them in each form: terminal, markdown, CSV, JSON.

A report is a sequence of grids and lines. What stands in them is plain text, escaped where it is drawn.
"""

from __future__ import annotations

import csv as _csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from cpmi_eval.reports import escape
from cpmi_eval.types import JSON

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text


@dataclass(frozen=True)
class Column:
    """A column: its heading, how it is aligned, whether its cells may be broken.

    ``stack``: where space is short, neighbours of the same stack share a column. ``name``: its key for programs.
    """

    heading: str
    right: bool = False
    fold: bool = False
    stack: str = ""
    name: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a style of rich for terminals, a text beneath it (in parentheses after it in markdown).

    ``value``: what a program is given.
    """

    text: str
    style: str = ""
    beneath: str = ""
    value: Any = None


@dataclass(frozen=True)
class Line:
    """A line of text between tables, in pieces, each with a style of rich."""

    pieces: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, text: str, style: str = "") -> Line:
        """A line of one piece."""
        return cls(((text, style),))

    @property
    def text(self) -> str:
        """The whole line."""
        return "".join(text for text, _ in self.pieces)


Row: TypeAlias = Sequence[str | Cell]


@dataclass(frozen=True)
class Grid:
    """A table: rows in sections, with a title above and notes beneath.

    ``boxed``: with lines around it. ``narrow``: words of headings go beneath each other. ``dense``: one of several in a
    document; where a terminal is too narrow, intervals and stacks go beneath each other too.
    """

    columns: tuple[Column, ...]
    sections: tuple[tuple[Row, ...], ...]
    title: str = ""
    notes: tuple[Line, ...] = ()
    boxed: bool = False
    narrow: bool = False
    dense: bool = False

    @property
    def rows(self) -> Iterator[list[Cell]]:
        """All rows."""
        return map(cells, chain.from_iterable(self.sections))


def cells(row: Row) -> list[Cell]:
    """A row, every text of it as a cell."""
    return [one if isinstance(one, Cell) else Cell(one) for one in row]


Report: TypeAlias = Sequence[Grid | Line]
BLANK = Line.of("")


def fact(name: str, text: str) -> Line:
    """A line that says one thing of a run, under its name."""
    return Line(((f"{name:<10}", "dim"), (text, "")))


def table(title: str, headings: Sequence[str], *sections: Sequence[Row], notes: Sequence[Line] = ()) -> Grid:
    """A table whose first column names the row and whose others are numbers."""
    columns = tuple(Column(heading, right=place > 0) for place, heading in enumerate(headings))
    return Grid(columns, tuple(tuple(section) for section in sections), title, tuple(notes))


# --- terminal --------------------------------------------------------------------------------------------------------


def drawn(report: Report, width: int) -> Group:
    """Draw for a terminal of this width."""
    from rich.console import Group

    parts = ([_text(one.pieces)] if isinstance(one, Line) else _drawn(one, width) for one in report)
    return Group(*chain.from_iterable(parts))


def _text(pieces: Iterable[tuple[str, str]]) -> Text:
    from rich.text import Text

    return Text.assemble(*((escape.terminal(text), style) for text, style in pieces))


def _drawn(grid: Grid, width: int) -> Iterator[Text | Table]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if grid.dense and _width(grid) > width:
        grid = _stacked(grid)
    if grid.title:
        yield _text([(grid.title, "italic")])
    found = Table(box=box.HEAVY_HEAD) if grid.boxed else Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for one in grid.columns:
        heading = one.heading.replace(" ", "\n").replace("@", "\n@") if grid.narrow else one.heading
        justify, overflow = "right" if one.right else "left", "fold" if one.fold or grid.dense else "ellipsis"
        found.add_column(Text(escape.terminal(heading)), justify=justify, no_wrap=not one.fold, overflow=overflow)  # type: ignore[arg-type]
    for section in grid.sections:
        for row in section:
            found.add_row(
                *(_text([(one.text, one.style), (one.beneath and f"\n{one.beneath}", "dim")]) for one in cells(row))
            )
        found.add_section()
    yield found
    yield from (_text(note.pieces) for note in grid.notes)


def _width(grid: Grid) -> int:
    """The characters that a table takes where nothing is folded."""
    rows = list(grid.rows)
    cells = [
        max([*map(len, one.heading.split(" ")), *(len(row[at].text) for row in rows)])
        for at, one in enumerate(grid.columns)
    ]
    return sum(cells) + 2 * len(cells)


def _stacked(grid: Grid) -> Grid:
    """Put intervals beneath their values, and the columns of a stack beneath each other."""
    runs: list[list[int]] = []
    for place, column in enumerate(grid.columns):
        if runs and column.stack and column.stack == grid.columns[runs[-1][-1]].stack:
            runs[-1].append(place)
        else:
            runs.append([place])

    def cell(row: Sequence[Cell], run: Sequence[int]) -> str:
        said = [row[place].text for place in run]
        kept = [text for text in said if text != "–"] or said[:1]
        return "\n".join(kept).replace(" [", "\n[")

    sections = tuple(
        tuple([cell(row, run) for run in runs] for row in map(cells, section)) for section in grid.sections
    )
    columns = tuple(_joined([grid.columns[place] for place in run]) for run in runs)
    return replace(grid, columns=columns, sections=sections)


def _joined(columns: Sequence[Column]) -> Column:
    """Make one column of several; a word that all their headings begin with is said once."""
    words = [one.heading.split(" ") for one in columns]
    if len(columns) > 1 and all(len(one) > 1 and one[0] == words[0][0] for one in words):
        words = [words[0][:1], *(one[1:] for one in words)]
    return replace(columns[0], heading=" ".join(" ".join(one) for one in words))


# --- markdown --------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Write as GitHub's markdown, in paragraphs."""
    parts = (_markdown(one) if isinstance(one, Grid) else [escape.markdown(one.text)] for one in report)
    return "\n\n".join(filter(None, chain.from_iterable(parts)))


def _markdown(grid: Grid) -> Iterator[str]:
    title = escape.markdown(grid.title)
    yield f"**{title}**" if grid.dense and title else title
    head = [
        [escape.markdown(one.heading) for one in grid.columns],
        ["---:" if one.right else "---" for one in grid.columns],
    ]
    rows = (map(_cell, row) for row in grid.rows)
    yield "\n".join(f"| {' | '.join(row)} |" for row in chain(head, rows))
    notes = [escape.markdown(note.text) for note in grid.notes]
    yield from ["\n".join(f"{note}  " for note in notes).rstrip()] if grid.dense else notes


def _cell(cell: Cell) -> str:
    text = cell.text + (f" ({cell.beneath})" if cell.beneath else "")
    return "<br>".join(escape.markdown(line) for line in text.split("\n"))


# --- programs --------------------------------------------------------------------------------------------------------


def records(grid: Grid) -> list[JSON]:
    """The values of every row, by the names of the columns."""
    return [{one.name: cell.value for one, cell in zip(grid.columns, row, strict=True)} for row in grid.rows]


def csv(header: Sequence[str], rows: Iterable[JSON]) -> str:
    """Write rows as CSV; what a row lacks is empty."""
    stream = io.StringIO()
    writer = _csv.DictWriter(stream, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: escape.csv(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().rstrip("\n")
