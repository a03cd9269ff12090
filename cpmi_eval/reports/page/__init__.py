"""Leaderboards and the runs behind them as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpmi_eval.leaderboards import schema
    from cpmi_eval.record.run import Run


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
    """Return a self-contained HTML document that shows boards, runs and their traces.

    Args:
        title: what the page is about, shown as its heading.
        boards: the boards, in the order they are shown.
        runs: finished runs whose traces can be browsed; rows point to them through ``Placed.run``.
        published: results that others report; shown in tables of their own, never ranked.

    Returns:
        The document. It holds style, script and data, and forbids itself every connection.
    """
    from cpmi_eval.reports.page.document import render

    return render(title, boards, runs, published)
