"""The document itself: template, style and script filled in, data embedded so that no text in it can run."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from cpmi_eval.reports.page.boards import board_data, check, metric_forms, published_data, scorer_name
from cpmi_eval.reports.page.runs import run_data

if TYPE_CHECKING:
    from cpmi_eval.leaderboards import schema
    from cpmi_eval.records import Run
    from cpmi_eval.reports.page import Board

SCRIPTS = ("dom.js", "board.js", "scatter.js", "plots.js", "run.js", "traces.js", "page.js")
SPECIAL = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


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
        title=html.escape(printable(title)),
        style=style,
        script=script,
        style_hash=_digest(style),
        script_hash=_digest(script),
        data=embed(data),
    )


def embed(data: Any) -> str:
    """Return JSON that an HTML parser cannot take for markup, a script for a line break, or UTF-8 refuse.

    What could end or open an element, the two line separators of Unicode and lone surrogates are escaped.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return SPECIAL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printable(text: str) -> str:
    """Return the text with lone surrogates, which no encoding can write, replaced by U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _resource(name: str) -> str:
    return files("cpmi_eval.reports.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
