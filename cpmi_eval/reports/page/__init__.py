"""Leaderboards and the runs behind them as one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from cpmi_eval.errors import UsageError
from cpmi_eval.reports import escape

if TYPE_CHECKING:
    from cpmi_eval.leaderboards import schema
    from cpmi_eval.record.run import Run

SCRIPTS = ("dom.js", "board.js", "scatter.js", "plots.js", "run.js", "traces.js", "page.js")


@dataclass(frozen=True)
class Placed:
    """A row in its place on a board.

    ``rank``: ``1``, a range such as ``2–4`` where neighbours are not separated, or empty where the row is not ranked;
    ``reason`` then says why. ``run``: the place of the run it was made from among the runs given to :func:`page`,
    ``None`` where its traces are not at hand.
    """

    row: schema.Row
    rank: str = ""
    reason: str = ""
    run: int | None = None


@dataclass(frozen=True)
class Board:
    """Rows that can be compared: results on the same traces of one ``part``, ranked by ``metric`` within a kind."""

    part: str
    title: str
    metric: str
    rows: tuple[Placed, ...]


def page(title: str, boards: Sequence[Board], runs: Sequence[Run] = (), published: Sequence[schema.Row] = ()) -> str:
    """A self-contained HTML document that shows boards, runs and their traces.

    It holds style, script and data, in which no text can run, and forbids itself every connection.

    Args:
        title: what the page is about, shown as its heading.
        boards: the boards, in the order they are shown.
        runs: finished runs whose traces can be browsed; rows point to them through ``Placed.run``.
        published: results that others report; shown in tables of their own, never ranked.

    Raises:
        UsageError: a row lacks the part its board is about, or points to a run that is not among ``runs``.
    """
    from cpmi_eval import __version__
    from cpmi_eval.reports.page.boards import board_data, metric_forms, published_data, scorer_name
    from cpmi_eval.reports.page.runs import run_data

    for board in boards:
        for one in board.rows:
            where = f"the row of {one.row.scorer} on board {board.title!r}"
            if board.part not in one.row.parts:
                known = ", ".join(one.row.parts) or "none"
                raise UsageError(f"{where} has no part {board.part!r}; it has {known}")
            if one.run is not None and not 0 <= one.run < len(runs):
                raise UsageError(f"{where} points to run {one.run}, but the page was given {len(runs)}")
    names = {one.run: scorer_name(one.row) for board in boards for one in board.rows if one.run is not None}
    data = {
        "title": title,
        "version": __version__,
        "metrics": metric_forms(boards, runs, published),
        "boards": list(map(board_data, boards)),
        "published": published_data(published),
        **run_data(runs, names),
    }
    style, script = _resource("page.css"), "\n".join(map(_resource, SCRIPTS))
    return Template(_resource("page.html")).substitute(
        title=escape.html(title),
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
        data=escape.json(data, markup=False),
    )


def _resource(name: str) -> str:
    return files("cpmi_eval.reports.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
