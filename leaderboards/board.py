"""Boards: rows that can be compared, ranked as far as the data separates them.

A board holds the results on the same traces of one part of a task. Within it, rows are ranked within their kind, and
those that are given the reference answer apart from those that are not: they solve different problems. A rank is a
range wherever rows are not separated: ``2–4`` says that one row is shown to be better and that the row is shown to be
better than all from the fifth place on.

On quality, one row is above another where their 95% intervals do not overlap; where both were given as runs, so that
their traces are at hand, also where the paired permutation test tells them apart after Holm's correction over all
pairs of the group. A row without an interval (an older result) counts as its bare value, save against a run beside
which the test can decide. On costs, which have no interval, the smaller value is above, and equal ones are tied.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.leaderboards.schema import KINDS, Part, Row, Value
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.record.run import Run

# By the name to sort by, the field of schema.Cost; the smaller the better.
COSTS = {
    "wall_seconds": "seconds",
    "device_seconds": "device_seconds",
    "requested": "requested",
    "computed": "computed",
    "generated": "generated",
    "peak_memory_bytes": "peak_memory_bytes",
}
NO_VALUE = Value(None)


@dataclass(frozen=True)
class Entry:
    """A row with its results on a board's part. ``run``: the place of the run it was made from among those given."""

    row: Row
    part: Part
    run: int | None = None

    @property
    def group(self) -> tuple[str, bool]:
        """What it is ranked among: its kind, apart by whether it is given the reference answer."""
        return self.row.kind, self.row.uses_reference

    def metric(self, name: str) -> Value:
        """Return a metric; one without a value where there is none."""
        return self.part.metrics.get(name, NO_VALUE)

    def value(self, name: str) -> float | None:
        """Return a metric's value or a cost, by name."""
        if name not in COSTS:
            return self.metric(name).value
        return None if self.part.cost is None else float(getattr(self.part.cost, COSTS[name]))

    def unranked(self, by: str) -> str:
        """Return why it is not ranked by a metric or cost; nothing where it is."""
        traces = self.part.traces
        if self.row.oracle:
            return "oracle"
        if traces is not None and not traces.complete:
            return f"partial: {traces.scored:,} of {traces.total:,} scored"
        return "no value" if self.value(by) is None else ""


@dataclass(frozen=True)
class Placed:
    """An entry in its place: the best and worst rank that the data leaves open, or ``None`` and the ``reason``.

    ``bare``: it is ranked on quality without an interval of its own.
    """

    entry: Entry
    rank: tuple[int, int] | None
    reason: str = ""
    bare: bool = False

    @property
    def place(self) -> str:
        """The rank as it is read: ``1``, ``2–4``, or nothing."""
        if self.rank is None:
            return ""
        low, high = self.rank
        return str(low) if low == high else f"{low}–{high}"


@dataclass(frozen=True)
class Board:
    """Results on the same traces. ``parts_of_mean``: of a mean over parts, their names.

    ``traces``: the SHA-256 of the trace set. ``alone``: whether there is no other board of this part.
    """

    part: str
    traces: str
    entries: tuple[Entry, ...]
    parts_of_mean: tuple[str, ...] = ()
    alone: bool = True

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that any of the rows has, in order."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.part.metrics))

    @property
    def title(self) -> str:
        """What its results stand on: part, number of traces, whether these are a sample or synthetic."""
        sets = [entry.part.traces for entry in self.entries if entry.part.traces is not None]
        name = self.part
        if self.parts_of_mean:
            name += f" (mean over {', '.join(one.removeprefix(f'{self.part}/') for one in self.parts_of_mean)})"
        sample = "sample of " if all(one.limit is not None for one in sets) else ""
        title = f"{name}, {sample}{sets[0].total:,} traces"
        if not self.alone:
            title += f" (trace set {self.traces[:8]})"
        return title + (" (synthetic data)" if any(entry.row.synthetic for entry in self.entries) else "")


def boards(rows: Iterable[tuple[Row, int | None]], parts: Mapping[str, Collection[str]] | None = None) -> list[Board]:
    """Group measured rows into boards: one per part and trace set, a task's mean over parts after these.

    A task's mean is a board only for rows that have more than one part; of others it says nothing new.

    Args:
        rows: each with the place of the run it was made from, if it is at hand.
        parts: by task, the parts to restrict it to; all of them where there are none.
    """
    groups: dict[tuple[str, str], list[Entry]] = {}
    means: dict[tuple[str, str], tuple[str, ...]] = {}
    tasks: dict[str, int] = {}
    first: dict[str, int] = {}
    for row, run in rows:
        tasks.setdefault(row.task, len(tasks))
        wanted = (parts or {}).get(row.task, ())
        below = tuple(name for name in row.parts if name != row.task)
        for name, part in row.parts.items():
            is_mean = name == row.task and bool(below)
            if part.traces is None or (wanted and name not in wanted) or (is_mean and len(below) == 1):
                continue
            key = name, part.traces.sha256
            groups.setdefault(key, []).append(Entry(row, part, run))
            first.setdefault(name, len(first))
            if is_mean:
                means[key] = below
    keys = sorted(groups, key=lambda key: (tasks[key[0].partition("/")[0]], key in means, first[key[0]]))
    names = [name for name, _ in keys]
    return [
        Board(name, traces, tuple(groups[name, traces]), means.get((name, traces), ()), names.count(name) == 1)
        for name, traces in keys
    ]


def main_metric(board: Board) -> str:
    """Return what a board is ranked by unless something else is asked for.

    The headline among its metrics (F1, the accuracy of best-of-N), else the first of them.
    """
    names = board.metrics
    first = names[0] if names else next(iter(COSTS))
    return next((name for name in names if spec_of(name).headline), first)


def check_sort(board: Board, by: str) -> str:
    """Return ``by`` if a board can be ranked by it.

    Raises:
        UnknownNameError: it is neither a metric of these rows nor a cost.
    """
    known = {*board.metrics, *COSTS}
    if by not in known:
        raise UnknownNameError("column to sort by", by, known)
    return by


def ranked(board: Board, by: str, runs: Sequence[Run] = ()) -> list[list[Placed]]:
    """Rank a board within each group, the best first; what is not ranked comes last, with the reason.

    Args:
        board: the rows.
        by: a metric or a cost.
        runs: those that entries point to.

    Returns:
        The groups, in the order of :data:`cpmi_eval.leaderboards.schema.KINDS`.

    Raises:
        UnknownNameError: ``by`` is neither a metric of these rows nor a cost.
    """
    check_sort(board, by)
    groups: dict[tuple[str, bool], list[Entry]] = {}
    for entry in board.entries:
        groups.setdefault(entry.group, []).append(entry)
    order = sorted(groups, key=lambda group: (KINDS.index(group[0]), group[1]))
    return [_ranked(groups[group], board.part, by, runs) for group in order]


def _ranked(entries: Sequence[Entry], part: str, by: str, runs: Sequence[Run]) -> list[Placed]:
    sign = 1 if by in COSTS or not spec_of(by).higher_is_better else -1
    reasons = [(entry.unranked(by), entry) for entry in entries]
    valued = [(sign * (entry.value(by) or 0.0), entry) for reason, entry in reasons if not reason]
    chosen = [entry for _, entry in sorted(valued, key=itemgetter(0))]
    ranks = _ranks(chosen, part, by, runs)
    bare = [by not in COSTS and entry.metric(by).low is None for entry in chosen]
    placed = [Placed(*one) for one in zip(chosen, ranks, [""] * len(ranks), bare, strict=True)]
    left = [(entry.value(by), reason, entry) for reason, entry in reasons if reason]
    left.sort(key=lambda one: (one[0] is None, sign * (one[0] or 0.0)))
    return placed + [Placed(entry, None, reason) for _, reason, entry in left]


def _ranks(entries: Sequence[Entry], part: str, by: str, runs: Sequence[Run]) -> list[tuple[int, int]]:
    """Return each entry's range of ranks: 1 + those above it, to all less those below it."""
    bounds = [_bounds(entry, by) for entry in entries]  # as if the higher were the better
    lows, highs, n = sorted(low for low, _ in bounds), sorted(high for _, high in bounds), len(bounds)
    above = [n - bisect_right(lows, high) for _, high in bounds]
    below = [bisect_left(highs, low) for low, _ in bounds]
    for i, j, was, now in _corrections(entries, bounds, part, by, runs):
        above[j] += now - was
        below[i] += now - was
    return [(1 + up, n - down) for up, down in zip(above, below, strict=True)]


def _bounds(entry: Entry, by: str) -> tuple[float, float]:
    if by in COSTS:
        value = -(entry.value(by) or 0.0)
        return value, value
    metric, sign = entry.metric(by), 1 if spec_of(by).higher_is_better else -1
    low, high = (metric.value or 0.0 if one is None else one for one in (metric.low, metric.high))
    return min(sign * low, sign * high), max(sign * low, sign * high)


def _corrections(
    entries: Sequence[Entry], bounds: Sequence[tuple[float, float]], part: str, by: str, runs: Sequence[Run]
) -> Iterable[tuple[int, int, bool, bool]]:
    """Yield (i, j, was, now) for pairs of runs: whether i is above j by the bounds, and with the paired test."""
    at_hand = [place for place, entry in enumerate(entries) if entry.run is not None]
    if by in COSTS or len(at_hand) < 2:
        return
    from cpmi_eval.analysis.paired import separated

    pairs = separated([runs[entries[place].run or 0] for place in at_hand], part, by)
    for one, i in enumerate(at_hand):
        for other, j in enumerate(at_hand):
            if i != j:
                was = bounds[i][0] > bounds[j][1]
                both = all(entries[place].metric(by).low is not None for place in (i, j))
                yield i, j, was, (was and both) or (one, other) in pairs
