"""Leaderboards: as tables for a reader, as one document, one table or one page for a program."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.leaderboards import schema
from cpmi_eval.leaderboards.board import COSTS, Board, Placed
from cpmi_eval.leaderboards.schema import Row
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.reports import escape, grid
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import Cell, Column, Grid, Line
from cpmi_eval.types import JSON

if TYPE_CHECKING:
    from cpmi_eval.record.run import Run

BARE = "†"
WORDS = {"no value": "–"}  # where the reason for a missing rank stands in its place, in short
COST_COLUMNS: Mapping[str, tuple[str, Callable[[float], str], str]] = {  # heading, form, stack
    "wall_seconds": ("wall", fmt.seconds, "wall"),
    "device_seconds": ("CPU/GPU", fmt.seconds, ""),
    "requested": ("tokens req.", fmt.compact, "tokens"),
    "computed": ("tokens comp.", fmt.compact, "tokens"),
    "generated": ("tokens gen.", fmt.compact, "tokens"),
    "peak_memory_bytes": ("memory", fmt.memory, ""),
}
ALWAYS = ("origin", "part", "trace_set", "rank", "reason")  # columns of every CSV table


@dataclass(frozen=True)
class Shown:
    """A ranked board, cut to what is shown. ``total``: how many rows it has."""

    board: Board
    by: str
    groups: tuple[tuple[Placed, ...], ...]
    total: int

    @property
    def rows(self) -> list[Placed]:
        """The rows that are shown, group by group."""
        return [row for group in self.groups for row in group]

    @property
    def title(self) -> str:
        """What is shown and by what it is ranked."""
        count = len(self.rows)
        cut = f"; {count:,} of {self.total:,} shown" if count < self.total else ""
        return f"{self.board.title}; ranked by {_heading(self.by)} within each kind{cut}"


def shown(board: Board, by: str, groups: Sequence[Sequence[Placed]], top: int | None = None) -> Shown:
    """Cut a ranked board to at most ``top`` rows of each group."""
    return Shown(board, by, tuple(tuple(group[:top]) for group in groups), sum(map(len, groups)))


def _heading(name: str) -> str:
    return name if name in COSTS else spec_of(name).heading


# --- columns ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoardColumn:
    """A column of a board: what stands over it, what a row's cell says to a reader, and to a program."""

    column: Column
    text: Callable[[Placed], str]
    value: Callable[[Placed], Any]


def columns(board: Board, names: Sequence[str] = ()) -> list[BoardColumn]:
    """Look up the columns of a board by name, or those that are shown if none is asked for.

    Raises:
        UnknownNameError: there is no such column.
    """
    known = {one.column.name: one for one in (*_about(), *map(_metric, board.metrics), *map(_cost, COSTS), *_basis())}
    for name in names:
        if name not in known:
            raise UnknownNameError("column", name, known)
    return [known[name] for name in names or _default(board)]


def _default(board: Board) -> list[str]:
    selects = any(entry.row.aggregation is not None for entry in board.entries)
    rule = "aggregation" if selects else "threshold"
    costs = ("wall_seconds", "device", "requested", "computed", "generated")
    return ["kind", "rank", "scorer", "model", rule, *board.metrics, "scored", *costs]


def _of(name: str, read: Callable[[Row], Any], write: Callable[[Row], str] | None = None, **how: Any) -> BoardColumn:
    """A column of what a row says of itself, a dash where it says nothing."""
    text = write or (lambda row: str(read(row) or "–"))
    return BoardColumn(Column(name, name=name, **how), lambda one: text(one.entry.row), lambda one: read(one.entry.row))


def _about() -> Iterator[BoardColumn]:
    yield _of("kind", lambda row: row.kind)
    yield BoardColumn(Column("#", right=True, name="rank"), _place, lambda one: one.place or None)
    yield _of("scorer", lambda row: row.scorer, scorer, fold=True, stack="scorer")
    yield _of("model", lambda row: (row.model or {}).get("name"), _model, fold=True, stack="scorer")
    yield _of("threshold", lambda row: row.threshold)
    yield _of("aggregation", lambda row: row.aggregation)


def _place(one: Placed) -> str:
    """The rank, or the word that says why there is none."""
    return (one.place + (BARE if one.bare else "")) or WORDS.get(one.reason, one.reason.partition(":")[0])


def scorer(row: Row) -> str:
    """A scorer with its settings, marked where it is given the reference answer."""
    return fmt.scorer(row.scorer, row.settings, row.uses_reference)


def _model(row: Row) -> str:
    """The name of the model; a dash where none ran, or where it is the scorer itself."""
    name = str((row.model or {}).get("name") or "–")
    return "–" if name.rpartition("/")[2] == row.scorer else name


def _metric(name: str) -> BoardColumn:
    spec = spec_of(name)

    def text(one: Placed) -> str:
        value = one.entry.metric(name)
        bounds = fmt.interval(spec.unit, (value.low, value.high))
        return f"{fmt.in_unit(spec.unit, value.value)} {bounds}".strip()

    return BoardColumn(Column(spec.heading, right=True, name=name), text, lambda one: one.entry.metric(name).value)


def _cost(name: str) -> BoardColumn:
    heading, write, stack = COST_COLUMNS[name]

    def value(one: Placed) -> Any:
        return one.entry.part.cost and getattr(one.entry.part.cost, COSTS[name])

    def text(one: Placed) -> str:
        return "–" if (found := value(one)) is None else write(found)

    return BoardColumn(Column(heading, right=True, stack=stack, name=name), text, value)


def _basis() -> Iterator[BoardColumn]:
    def traces(name: str, field: str) -> BoardColumn:
        def text(one: Placed) -> str:
            found = one.entry.part.traces
            return "–" if found is None else f"{found.scored}/{found.total}"

        def value(one: Placed) -> Any:
            return one.entry.part.traces and getattr(one.entry.part.traces, field)

        return BoardColumn(Column(name, right=True, name=name), text, value)

    yield traces("scored", "scored")
    yield traces("traces", "total")
    yield _of("device", lambda row: (row.hardware or {}).get("device"), stack="wall")
    yield _of("processor", lambda row: (row.hardware or {}).get("processor"))
    yield _of("platform", lambda row: (row.hardware or {}).get("platform"), fold=True)
    yield _of("dtype", lambda row: (row.model or {}).get("dtype"))
    yield _of("date", lambda row: row.date, lambda row: (row.date or "–")[:10])
    yield _of("version", lambda row: row.versions.get("cpmi-eval"))
    yield _of("fingerprint", lambda row: row.fingerprint, lambda row: (row.fingerprint or "–")[:12])


# --- tables ----------------------------------------------------------------------------------------------------------


def _grid(title: str, heads: Sequence[Column], sections: Sequence[Any], notes: Sequence[str]) -> Grid:
    lines = tuple(Line.of(note, "dim") for note in notes)
    return Grid(tuple(heads), tuple(sections), title, lines, narrow=True, dense=True)


def board_grid(one: Shown, names: Sequence[str] = ()) -> Grid:
    """A ranked board as a table; ``names`` picks its columns.

    Raises:
        UnknownNameError: there is no such column.
    """
    picked = columns(one.board, names)
    sections = [
        tuple([Cell(column.text(row), value=column.value(row)) for column in picked] for row in group)
        for group in one.groups
    ]
    return _grid(one.title, [column.column for column in picked], sections, _notes(one))


def _notes(one: Shown) -> list[str]:
    """Say what a reader must know of the marks that are in a table."""
    rows = one.rows
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
        "no value": f"no {_heading(one.by)}",
    }
    reasons = dict.fromkeys(row.reason.partition(":")[0] for row in rows if row.reason)
    return notes + [f"{WORDS.get(reason, reason)}: not ranked, {meaning[reason]}" for reason in reasons]


def published_grid(rows: Sequence[Row], parts: Sequence[str] = ()) -> Grid:
    """Published results of one task as a table; ``parts`` restricts the columns."""
    task = rows[0].task
    found = dict.fromkeys((part, metric) for row in rows for part, one in row.parts.items() for metric in one.metrics)
    pairs = [pair for pair in found if not parts or pair[0] in parts]
    listed = list(dict.fromkeys(row.source or "" for row in rows))
    several = any(part != task for part, _ in found)

    def heading(part: str, metric: str) -> str:
        text = spec_of(metric).heading.replace("_", " ")
        return f"{part.removeprefix(task).removeprefix('/') or 'mean'} {text}" if several else text

    def value(row: Row, part: str, metric: str) -> str:
        one = row.parts[part].metrics.get(metric) if part in row.parts else None
        return fmt.metric(metric, None if one is None else one.value)

    lines = [
        [row.kind, scorer(row), *(value(row, *pair) for pair in pairs), f"[{listed.index(row.source or '') + 1}]"]
        for row in rows
    ]
    notes = [f"[{number}] {source}" for number, source in enumerate(listed, 1)]
    if any(row.uses_reference for row in rows):
        notes.append("* is given the reference answer")
    notes += dict.fromkeys(row.note for row in rows if row.note)
    values = (Column(heading(*pair), right=True) for pair in pairs)
    heads = [Column("kind"), Column("scorer", fold=True), *values, Column("source")]
    return _grid(f"{task}: published, not measured here and not ranked", heads, [tuple(lines)], notes)


def tasks_grid(listing: Sequence[Mapping[str, Any]]) -> Grid:
    """The tasks that have rows as a table."""
    heads = [
        Column("task"),
        Column("measured", right=True),
        Column("published", right=True),
        Column("parts", fold=True),
    ]
    rows = tuple(
        [
            str(one["task"]),
            fmt.count(one["measured"]),
            fmt.count(one["published"]),
            ", ".join(part.removeprefix(f"{one['task']}/") for part in one["parts"]),
        ]
        for one in listing
    )
    return _grid("leaderboards", heads, [rows], ["`cpmi-eval leaderboard show TASK` shows one"])


# --- for programs ----------------------------------------------------------------------------------------------------


def document(boards: Sequence[Shown], published: Sequence[Row], names: Sequence[str] = ()) -> str:
    """Boards and published rows as one JSON document.

    A row holds everything that is known of it, with the results of its board's part; or what ``names``, columns of the
    tables, pick. ``rank`` is ``[best, worst]``, or null where ``reason`` says why there is none.
    """

    def board(one: Shown) -> JSON:
        rows = grid.records(board_grid(one, names)) if names else list(map(_row, one.rows))
        about = {"part": one.board.part, "trace_set": one.board.traces, "title": one.board.title, "ranked_by": one.by}
        return {**about, "total": one.total, "rows": rows}

    return escape.json({"boards": list(map(board, boards)), "published": [schema.as_dict(row) for row in published]})


def _row(one: Placed) -> JSON:
    rank = None if one.rank is None else list(one.rank)
    place = {"rank": rank, "reason": one.reason, "bare": one.bare, "oracle": one.entry.row.oracle}
    return {**place, **schema.about(one.entry.row), **schema.part_dict(one.entry.part)}


def table(boards: Sequence[Shown], published: Sequence[Row], names: Sequence[str] = ()) -> str:
    """One row for every result of every board, and for every part of a published row, in CSV.

    Values are as in results.json: accuracies as fractions, times in seconds. A metric has further columns for the
    bounds of its interval (``f1_low``, ``f1_high``) and for what it is counted over (``f1_n``). ``names`` picks columns
    of the tables.
    """
    groups = [*(list(_lines(one, names)) for one in boards), *([one] for one in _published(published, names))]
    header = dict.fromkeys([*ALWAYS, *(key for group in groups for key in group[0])])  # one for all of a board
    return grid.csv(list(header), [line for group in groups for line in group])


def _lines(one: Shown, names: Sequence[str]) -> Iterator[JSON]:
    scored, traces, *basis = (found.column.name for found in _basis())
    about = ("kind", "scorer", "model", "threshold", "aggregation")
    everything = (*about, *one.board.metrics, scored, traces, *COSTS, *basis)
    picked = [found for found in columns(one.board, names or everything) if found.column.name != "rank"]
    for row in one.rows:
        line: JSON = {"origin": "measured", "part": one.board.part, "trace_set": one.board.traces}
        line |= {"rank": row.place, "reason": row.reason}
        for found in picked:
            name = found.column.name
            line[name] = found.value(row)
            if name in one.board.metrics:
                value = row.entry.metric(name)
                line |= {f"{name}_low": value.low, f"{name}_high": value.high, f"{name}_n": value.n}
            if name == "scorer":
                line |= _scorer(row.entry.row)
        yield line


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
    """Boards, the runs behind them and published rows as one HTML page."""
    from cpmi_eval.reports import page

    pages = [
        page.Board(
            one.board.part,
            one.title,
            one.by,
            tuple(page.Placed(row.entry.row, row.place, row.reason, row.entry.run) for row in one.rows),
        )
        for one in boards
    ]
    return page.page(title, pages, runs, published)
