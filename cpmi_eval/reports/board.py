"""Leaderboards as tables: for a terminal and in markdown. What a cell says is decided once for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.leaderboards.board import COSTS, Board, Placed
from cpmi_eval.leaderboards.schema import Row
from cpmi_eval.reports import format as fmt

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

HEADINGS = {"step_auc": "AUC", "outcome_auc": "AUC", "f1": "F1", "acc_error": "acc err.", "acc_correct": "acc corr."}
TOKENS = {"requested": "tokens req.", "computed": "tokens comp.", "generated": "tokens gen."}
BARE = "†"
WORDS = {"no value": "–"}  # where the reason for a missing rank stands in its place, in short


@dataclass(frozen=True)
class Column:
    """A column of a board: what a cell says to a reader (``text``) and to a program (``raw``)."""

    name: str
    heading: str
    text: Callable[[Placed], str]
    raw: Callable[[Placed], Any]
    right: bool = False
    fold: bool = False
    stack: str = ""

    @property
    def head(self) -> Head:
        """How it stands in a table."""
        return Head(self.heading, self.right, self.fold, self.stack)


@dataclass(frozen=True)
class Head:
    """A column of a table. ``fold``: its cells may be broken.

    Where space is short, neighbours of the same ``stack`` share a column.
    """

    heading: str
    right: bool = False
    fold: bool = False
    stack: str = ""


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn: texts by section, row and column; ``notes`` go beneath."""

    title: str
    columns: tuple[Head, ...]
    sections: tuple[tuple[tuple[str, ...], ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A ranked board, cut to what is shown. ``total``: how many rows it has."""

    board: Board
    by: str
    groups: tuple[tuple[Placed, ...], ...]
    total: int

    @property
    def count(self) -> int:
        """How many rows are shown."""
        return sum(map(len, self.groups))

    @property
    def title(self) -> str:
        """What is shown and by what it is ranked."""
        cut = f"; {self.count:,} of {self.total:,} shown" if self.count < self.total else ""
        return f"{self.board.title}; ranked by {HEADINGS.get(self.by, self.by)} within each kind{cut}"


def shown(board: Board, by: str, groups: Sequence[Sequence[Placed]], top: int | None = None) -> Shown:
    """Return a ranked board with at most ``top`` rows of each group."""
    return Shown(board, by, tuple(tuple(group[:top]) for group in groups), sum(map(len, groups)))


# --- columns ---------------------------------------------------------------------------------------------------------


def columns(board: Board, names: Sequence[str] = ()) -> list[Column]:
    """Return the columns of a board by name, or those that are shown if none is asked for.

    Raises:
        UnknownNameError: there is no such column.
    """
    known = {one.name: one for one in (*_about(), *map(_metric, board.metrics), *_costs(), *_basis())}
    for name in names:
        if name not in known:
            raise UnknownNameError("column", name, known)
    return [known[name] for name in names or _default(board)]


def _default(board: Board) -> list[str]:
    selects = any(entry.row.aggregation is not None for entry in board.entries)
    rule = "aggregation" if selects else "threshold"
    costs = ("wall_seconds", "device", "requested", "computed", "generated")
    return ["kind", "rank", "scorer", "model", rule, *board.metrics, "scored", *costs]


def _about() -> list[Column]:
    def of(name: str, raw: Callable[[Row], str | None], text: Callable[[Row], str] | None = None, **how: Any) -> Column:
        write = text or (lambda row: raw(row) or "–")
        return Column(name, name, lambda one: write(one.entry.row), lambda one: raw(one.entry.row), **how)

    return [
        of("kind", lambda row: row.kind),
        Column("rank", "#", _place, lambda one: one.place or None, right=True),
        of("scorer", lambda row: row.scorer, scorer, fold=True, stack="scorer"),
        of("model", lambda row: (row.model or {}).get("name"), _model, fold=True, stack="scorer"),
        of("threshold", lambda row: row.threshold),
        of("aggregation", lambda row: row.aggregation),
    ]


def _place(one: Placed) -> str:
    """Return the rank, or the word that says why there is none."""
    return (one.place + (BARE if one.bare else "")) or WORDS.get(one.reason, one.reason.partition(":")[0])


def scorer(row: Row) -> str:
    """Return a scorer with its settings, marked where it is given the reference answer."""
    return " ".join(filter(None, [row.scorer + ("*" if row.uses_reference else ""), fmt.settings(dict(row.settings))]))


def _model(row: Row) -> str:
    """Return the name of the model; a dash where none ran, or where it is the scorer itself."""
    name = str((row.model or {}).get("name") or "–")
    return "–" if name.rpartition("/")[2] == row.scorer else name


def _metric(name: str) -> Column:
    def text(one: Placed) -> str:
        value = one.entry.metric(name)
        bounds = None if value.low is None or value.high is None else (value.low, value.high)
        return f"{fmt.metric(name, value.value)} {fmt.interval(name, bounds)}".strip()

    return Column(name, HEADINGS.get(name, name), text, lambda one: one.entry.metric(name).value, right=True)


def _costs() -> list[Column]:
    return [_cost(name) for name in COSTS]


def _cost(name: str) -> Column:
    write: Callable[[Any], str] = {
        "wall_seconds": fmt.seconds,
        "device_seconds": fmt.seconds,
        "peak_memory_bytes": fmt.memory,
    }.get(name, fmt.compact)
    heading = {"wall_seconds": "wall", "device_seconds": "CPU/GPU", "peak_memory_bytes": "memory", **TOKENS}[name]
    stack = "tokens" if name in TOKENS else "wall" if name == "wall_seconds" else ""

    def raw(one: Placed) -> Any:
        cost = one.entry.part.cost
        return None if cost is None else getattr(cost, COSTS[name])

    return Column(name, heading, lambda one: "–" if raw(one) is None else write(raw(one)), raw, True, stack=stack)


def _basis() -> list[Column]:
    def of(name: str, raw: Callable[[Row], Any], length: int | None = None, **how: Any) -> Column:
        return Column(
            name, name, lambda one: str(raw(one.entry.row) or "–")[:length], lambda one: raw(one.entry.row), **how
        )

    def traces(one: Placed) -> str:
        found = one.entry.part.traces
        return "–" if found is None else f"{found.scored}/{found.total}"

    return [
        Column("scored", "scored", traces, lambda one: one.entry.part.traces and one.entry.part.traces.scored, True),
        Column("traces", "traces", traces, lambda one: one.entry.part.traces and one.entry.part.traces.total, True),
        of("device", lambda row: (row.hardware or {}).get("device"), stack="wall"),
        of("processor", lambda row: (row.hardware or {}).get("processor")),
        of("platform", lambda row: (row.hardware or {}).get("platform"), fold=True),
        of("dtype", lambda row: (row.model or {}).get("dtype")),
        of("date", lambda row: row.date, 10),
        of("version", lambda row: row.versions.get("cpmi-eval")),
        of("fingerprint", lambda row: row.fingerprint, 12),
    ]


# --- tables ----------------------------------------------------------------------------------------------------------


def board_grid(one: Shown, names: Sequence[str] = ()) -> Grid:
    """Return a ranked board as a table; ``names`` picks its columns.

    Raises:
        UnknownNameError: there is no such column.
    """
    picked = columns(one.board, names)
    return Grid(
        one.title,
        tuple(column.head for column in picked),
        tuple(tuple(tuple(column.text(row) for column in picked) for row in group) for group in one.groups),
        tuple(_notes(one)),
    )


def _notes(one: Shown) -> list[str]:
    """Return what a reader must know of the marks that are in a table."""
    rows = [row for group in one.groups for row in group]
    reasons = dict.fromkeys(row.reason.partition(":")[0] for row in rows if row.reason)
    notes = []
    if any(low != high for row in rows if row.rank is not None for low, high in [row.rank]):
        notes.append(f"a range of ranks: {'tied' if one.by in COSTS else 'not separated from its neighbours'}")
    if any(row.entry.row.uses_reference for row in rows):
        selects = any(row.entry.row.aggregation is not None for row in rows)
        apart = "an oracle where solutions are selected, so never ranked" if selects else "and ranked apart"
        notes.append(f"* is given the reference answer, {apart}")
    if any(row.bare for row in rows):
        notes.append(f"{BARE} has no interval, and is ranked by its bare value where no paired test can decide")
    meaning = {
        "oracle": "it was given what it is judged by",
        "partial": "not every trace was scored",
        "no value": f"no {HEADINGS.get(one.by, one.by)}",
    }
    notes += [f"{WORDS.get(reason, reason)}: not ranked, {meaning[reason]}" for reason in reasons]
    return notes


def published_grid(rows: Sequence[Row], parts: Sequence[str] = ()) -> Grid:
    """Return published results of one task as a table; ``parts`` restricts the columns."""
    task = rows[0].task
    found = [(part, metric) for row in rows for part, one in row.parts.items() for metric in one.metrics]
    pairs = [pair for pair in dict.fromkeys(found) if not parts or pair[0] in parts]
    listed = list(dict.fromkeys(row.source or "" for row in rows))
    several = any(part != task for part, _ in found)
    headings = [_published_heading(task, part, metric, several) for part, metric in pairs]
    lines = []
    for row in rows:
        values = [row.parts[part].metrics.get(metric) if part in row.parts else None for part, metric in pairs]
        cells = [
            _published(metric, None if one is None else one.value)
            for (_, metric), one in zip(pairs, values, strict=True)
        ]
        lines.append((row.kind, scorer(row), *cells, f"[{listed.index(row.source or '') + 1}]"))
    notes = [f"[{number}] {source}" for number, source in enumerate(listed, 1)]
    if any(row.uses_reference for row in rows):
        notes.append("* is given the reference answer")
    notes += dict.fromkeys(row.note for row in rows if row.note)
    columns = (Head("kind"), Head("scorer", fold=True), *(Head(one, right=True) for one in headings), Head("source"))
    title = f"{task}: published, not measured here and not ranked"
    return Grid(title, columns, (tuple(lines),), tuple(notes))


def _published_heading(task: str, part: str, metric: str, several: bool) -> str:
    name = part.removeprefix(task).removeprefix("/")
    heading = HEADINGS.get(metric, metric.replace("_", " "))
    return f"{name or 'mean'} {heading}" if several else heading


def _published(metric: str, value: float | None) -> str:
    """Write a metric as its field does; costs relative to another labeler in percent of it."""
    if value is not None and metric.startswith("relative_"):
        return f"{100 * value:.0f}%"
    return fmt.metric(metric, value)


def tasks_grid(listing: Sequence[Mapping[str, Any]]) -> Grid:
    """Return the tasks that have rows as a table."""
    columns = (Head("task"), Head("measured", right=True), Head("published", right=True), Head("parts", fold=True))
    rows = tuple(
        (
            str(one["task"]),
            fmt.count(one["measured"]),
            fmt.count(one["published"]),
            ", ".join(part.removeprefix(f"{one['task']}/") for part in one["parts"]),
        )
        for one in listing
    )
    return Grid("leaderboards", columns, (rows,), ("`cpmi-eval leaderboard show TASK` shows one",))


def drawing(grid: Grid, console: Console) -> Group:
    """Draw a table for a console; where that is too narrow, with intervals beneath values and costs in stacks."""
    from rich.console import Group
    from rich.text import Text

    table = _drawn(grid if _width(grid) <= console.width else _stacked(grid))
    return Group(Text(grid.title, style="italic"), table, *(Text(note, style="dim") for note in grid.notes), "")


def _width(grid: Grid) -> int:
    """Return the characters that a table takes where nothing is folded."""
    rows = [row for section in grid.sections for row in section]
    cells = [
        max([*map(len, head.heading.split(" ")), *(len(row[at]) for row in rows)])
        for at, head in enumerate(grid.columns)
    ]
    return sum(cells) + 2 * len(cells)


def _drawn(grid: Grid) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in grid.columns:
        heading = Text(head.heading.replace(" ", "\n").replace("@", "\n@"))
        drawn.add_column(heading, justify="right" if head.right else "left", no_wrap=not head.fold, overflow="fold")
    for section in grid.sections:
        for row in section:
            drawn.add_row(*map(Text, row))
        drawn.add_section()
    return drawn


def _stacked(grid: Grid) -> Grid:
    """Return a narrower table: intervals beneath their values, the columns of a stack beneath each other."""
    runs: list[list[int]] = []
    for place, head in enumerate(grid.columns):
        if runs and head.stack and head.stack == grid.columns[runs[-1][-1]].stack:
            runs[-1].append(place)
        else:
            runs.append([place])

    def cell(row: Sequence[str], run: Sequence[int]) -> str:
        said = [row[place] for place in run]
        kept = [text for text in said if text != "–"] or said[:1]
        return "\n".join(kept).replace(" [", "\n[")

    sections = tuple(tuple(tuple(cell(row, run) for run in runs) for row in section) for section in grid.sections)
    return Grid(
        grid.title, tuple(_joined([grid.columns[place] for place in run]) for run in runs), sections, grid.notes
    )


def _joined(heads: Sequence[Head]) -> Head:
    """Return one column in place of several; a word that all their headings begin with is said once."""
    first, words = heads[0], [head.heading.split(" ") for head in heads]
    if len(heads) > 1 and all(len(one) > 1 and one[0] == words[0][0] for one in words):
        words = [words[0][:1], *(one[1:] for one in words)]
    return Head(" ".join(" ".join(one) for one in words), first.right, first.fold, first.stack)


def markdown(grid: Grid) -> str:
    """Return a table in markdown, its title above it and its notes beneath."""
    lines = [f"**{_escaped(grid.title)}**", ""]
    lines.append(_line(head.heading for head in grid.columns))
    lines.append(_line("---:" if head.right else "---" for head in grid.columns))
    lines += [_line(row) for section in grid.sections for row in section]
    return "\n".join([*lines, "", *(f"{_escaped(note)}  " for note in grid.notes)]).rstrip()


def _line(cells: Any) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    for mark in "\\|*_[":
        if mark in text:
            text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
