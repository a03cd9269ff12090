"""``cpmi-eval leaderboard add`` and ``show``: results side by side, ranked as far as the data separates them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpmi_eval.cli.options import NAMES, say
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.reports import escape

if TYPE_CHECKING:
    from cpmi_eval.leaderboards.gather import Gathered
    from cpmi_eval.leaderboards.schema import Row
    from cpmi_eval.reports.board import Shown
    from cpmi_eval.reports.grid import Grid

ENVIRONMENT = "CPMI_EVAL_LEADERBOARDS"
DIRECTORY = click.Path(path_type=Path, file_okay=False)
TOP = 50  # rows of a group that a terminal is given


@click.group(name="leaderboard")
def leaderboard_group() -> None:
    """Keep results in leaderboard files (add) and rank them (show)."""


@leaderboard_group.command()
@click.argument("run_dirs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN_DIR...")
@click.option(
    "--to",
    "folder",
    type=DIRECTORY,
    envvar=ENVIRONMENT,
    default="leaderboards",
    show_default=True,
    help="Holds a file of rows per task.",
)
def add(run_dirs: tuple[Path, ...], folder: Path) -> None:
    """Add finished runs to leaderboard files; a row of the same run is replaced."""
    from cpmi_eval.leaderboards import files
    from cpmi_eval.leaderboards.rows import row_of
    from cpmi_eval.record.run import read_run
    from cpmi_eval.reports.board import scorer

    rows = [row_of(read_run(path)) for path in run_dirs]
    for path, row, done in zip(run_dirs, rows, files.add(folder, rows), strict=True):
        model = f" with {row.model['name']}" if row.model else ""
        data = ", synthetic data" if row.synthetic else ""
        what = f"{scorer(row)}{model} on {row.task} ({row.threshold}{data})"
        say(f"{done} {what} in {folder / row.task}{files.SUFFIX}: {(row.fingerprint or '')[:12]} from {path}")


@leaderboard_group.command()
@click.argument("what", nargs=-1, metavar="[TASK|RUN_DIR...]")
@click.option(
    "--sort",
    metavar="NAME",
    help="A metric, or wall_seconds, device_seconds, requested, computed, generated, peak_memory_bytes.  [default: f1, "
    "or bon@N where solutions are selected]",
)
@click.option("--kind", "kinds", type=NAMES, metavar="A,B", help="Of these kinds only: labeler, prm, critic, ...")
@click.option(
    "--columns",
    type=NAMES,
    metavar="A,B",
    help="Pick columns: rank, kind, scorer, model, threshold, metrics and costs by their names, scored, device, dtype, "
    "date, fingerprint, ...",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["rich", "markdown", "csv", "json", "html"]),
    default="rich",
    show_default=True,
    help="Of the result.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--published/--no-published",
    default=None,
    help="Results that others published, in a table of their own, never ranked.  [default: if a TASK is named]",
)
@click.option(
    "--top", type=click.IntRange(1), metavar="N", help=f"At most N rows of a group.  [default: {TOP} for rich]"
)
@click.option(
    "--boards",
    "folder",
    type=DIRECTORY,
    envvar=ENVIRONMENT,
    help="Leaderboard files beside those that come with the package.  [default: leaderboards, if there]",
)
@click.option("--to", type=click.Path(path_type=Path, dir_okay=False), help="Write the result to this file.")
def show(
    what: tuple[str, ...], style: str, as_json: bool, folder: Path | None, to: Path | None, **options: Any
) -> None:
    """Rank results within each kind: of tasks, parts of them, or runs.

    Names are tasks, parts of them (processbench/gsm8k) or run directories; without any, the tasks that have rows are
    listed. Only results on the same traces are on one board. A rank is a range where rows are not separated: by their
    95% intervals, or, between runs, by a paired test.
    """
    if as_json and style not in ("rich", "json"):
        raise UsageError(f"--json and --format {style} ask for different things; drop one of them")
    style = "json" if as_json else style
    from cpmi_eval.leaderboards.files import uncollected

    with uncollected():
        text = _boards(what, style, folder, to, **options) if what else _tasks(folder, style, to, options)
    text = text if text.endswith("\n") else text + "\n"
    if to is None:
        click.echo(text, nl=False)
    else:
        to.write_text(text, encoding="utf-8")


def _tasks(folder: Path | None, style: str, to: Path | None, options: Mapping[str, Any]) -> str:
    """List the tasks that have rows."""
    from cpmi_eval.leaderboards.gather import listing
    from cpmi_eval.reports.board import tasks_grid

    given = sorted(name for name, value in options.items() if value is not None)
    if given or style in ("csv", "html"):
        flag = f"--{given[0].replace('kinds', 'kind')}" if given else f"--format {style}"
        raise UsageError(f"{flag} needs something to show: name tasks or run directories")
    found = listing(folder)
    return escape.json(found, indent=2) if style == "json" else _text([tasks_grid(found)], style, to)


def _boards(
    what: Sequence[str],
    style: str,
    folder: Path | None,
    to: Path | None,
    *,
    sort: str | None,
    kinds: tuple[str, ...] | None,
    columns: tuple[str, ...] | None,
    published: bool | None,
    top: int | None,
) -> str:
    from cpmi_eval.leaderboards.gather import gather
    from cpmi_eval.leaderboards.schema import KINDS
    from cpmi_eval.reports import board

    for kind in kinds or ():
        if kind not in KINDS:
            raise UnknownNameError("kind", kind, KINDS)
    if style == "html" and columns:
        raise UsageError("--columns does nothing to --format html, whose tables choose their columns themselves")
    found = gather(what, folder, kinds or ())
    others = _others(found, sort, published)
    boards = _ranked(
        found, None if others and not found.rows else sort, TOP if top is None and style == "rich" else top
    )
    if not boards and not others:
        raise UsageError(f"there are no rows to show of {', '.join(what)} with these options")
    if style == "html":
        tasks = dict.fromkeys(row.task for row in (*(row for row, _ in found.rows), *others))
        return board.html(f"Leaderboard: {', '.join(tasks)}", boards, found.runs, others)
    if style == "json":
        return board.document(boards, others, columns or ())
    if style == "csv":
        return board.table(boards, others, columns or ())
    return _text(_grids(found, boards, others, columns or ()), style, to)


def _ranked(found: Gathered, sort: str | None, top: int | None) -> list[Shown]:
    from cpmi_eval.leaderboards.board import boards, check_sort, main_metric, ranked
    from cpmi_eval.reports.board import shown

    groups = boards(found.rows, found.parts)
    orders = [check_sort(group, sort or main_metric(group)) for group in groups]
    return [shown(group, by, ranked(group, by, found.runs), top) for group, by in zip(groups, orders, strict=True)]


def _others(found: Gathered, sort: str | None, published: bool | None) -> tuple[Row, ...]:
    """The published rows to show, by the metric to sort by where they have it."""
    from cpmi_eval.metrics.spec import spec_of

    if not (found.named if published is None else published):
        return ()
    rows = [row for row in found.published if not found.parts.get(row.task) or found.parts[row.task] & set(row.parts)]
    known = {name for row in rows for part in row.parts.values() for name in part.metrics}
    if sort is None or sort not in known:
        if sort is not None and rows and not found.rows:
            raise UnknownNameError("column to sort by", sort, known)
        return tuple(rows)

    def best(row: Row) -> float:
        parts = found.parts.get(row.task) or {row.task, *row.parts}
        part = row.task if row.task in parts and row.task in row.parts else min(parts & set(row.parts))
        value = row.parts[part].metrics.get(sort)
        if value is None or value.value is None:
            return -math.inf
        return value.value if spec_of(sort).higher_is_better else -value.value

    return tuple(sorted(rows, key=best, reverse=True))


def _grids(found: Gathered, boards: Sequence[Shown], others: Sequence[Row], columns: Sequence[str]) -> list[Grid]:
    from cpmi_eval.reports.board import board_grid, published_grid

    tasks = dict.fromkeys(row.task for row in others)
    published = [
        published_grid([row for row in others if row.task == task], sorted(found.parts.get(task, ()))) for task in tasks
    ]
    return [board_grid(one, columns) for one in boards] + published


def _text(grids: Sequence[Grid], style: str, to: Path | None) -> str:
    """Tables as text: for the terminal that they are printed on, for a file, or in markdown."""
    from cpmi_eval.reports import console, grid

    if style == "markdown":
        return "\n\n".join(grid.markdown([one]) for one in grids)
    return console.text([part for one in grids for part in (one, grid.BLANK)], for_file=to is not None)
