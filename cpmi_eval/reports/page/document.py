"""The document itself: template, style and script filled in, data embedded so that no text in it can run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from cpmi_eval.reports import escape
from cpmi_eval.reports.page.boards import board_data, check, metric_forms, published_data, scorer_name
from cpmi_eval.reports.page.runs import run_data

if TYPE_CHECKING:
    from cpmi_eval.leaderboards import schema
    from cpmi_eval.records import Run
    from cpmi_eval.reports.page import Board

SCRIPTS = ("dom.js", "board.js", "scatter.js", "plots.js", "run.js", "traces.js", "page.js")


def render(title: str, boards: Sequence[Board], runs: Sequence[Run], published: Sequence[schema.Row]) -> str:
    """Return the document; see :func:`cpmi_eval.reports.page.page`.

    Raises:
        UsageError: a row lacks the part its board is about, or points to a run that is not among ``runs``.
    """
    from cpmi_eval import __version__

    check(boards, runs)
    placed = [one for board in boards for one in board.rows]
    names = {one.run: scorer_name(one.row) for one in placed if one.run is not None}
    data = {
        "title": title,
        "version": __version__,
        "metrics": metric_forms(boards, runs, published),
        "boards": [board_data(board) for board in boards],
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
