"""Token sequences laid out so that a prefix which several share appears once.

A forest of token tries is laid out depth-first: node ``k``'s subtree occupies ``k .. end[k]-1``, so "is an ancestor of"
is the interval test ``k <= q < end[k]``, and a node's position in its own sequence is its depth. From any node on, all
that later nodes need of earlier ones is the path that leads to it: a forest can be read in chunks, with the keys and
values of one path in between. Building takes time and memory in the number of nodes, however long the sequences are
that end in them. Nothing here knows about models or tensors; see :mod:`cpmi_eval.engine.forward`.

For completions, which branch off a part of a forest whose keys and values all stay, it is cut into rows. Attention
over a row costs the square of its size, and a cut repeats the prefix that its two sides share; where to cut is chosen
so that the sum is least.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]

ATTENTION_SHARE = 0.25
ROW_OVERHEAD = 64.0  # what a row costs besides its nodes, in tokens: shorter rows than some hundred gain nothing
_TOKENS = 1 << 32  # more than any vocabulary


@dataclass(frozen=True, eq=False)
class Segment:
    """Token ids ``own`` that follow those of ``before``; ``length`` counts both. Shared by all that begin alike."""

    own: list[int]
    before: Segment | None = None
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.own) + (self.before.length if self.before else 0))


@dataclass(frozen=True)
class Forest:
    """``n`` nodes in depth-first order; all arrays are of shape [n] and dtype int64.

    ``parent`` is -1 for a first token. ``owner`` is the index of the sequence on whose behalf a node is there first: it
    pays for the node. ``ends`` maps a sequence's index to the node of its last token.
    """

    tokens: IntArray
    depth: IntArray
    end: IntArray
    parent: IntArray
    owner: IntArray
    ends: dict[int, int]

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, node: int) -> IntArray:
        """The nodes from a first token to ``node`` [depth + 1]; -1 has none."""
        if node < 0:
            return np.empty(0, dtype=np.int64)
        # In depth-first order the last node of a depth before ``node`` is its ancestor there.
        latest = np.zeros(int(self.depth[: node + 1].max()) + 1, dtype=np.int64)
        latest[self.depth[: node + 1]] = np.arange(node + 1)
        return latest[: self.depth[node] + 1]


class Builder:
    """Grows a forest sequence by sequence, then lays it out.

    What a sequence adds is a run of nodes, each the first child of the one before; other children begin runs of their
    own. Work beyond copying tokens is per run, not per node. Children are in order of first appearance rather than of
    tokens, so that replacing one branch's tokens by others moves no other branch: its scores then stay the same to the
    last bit.
    """

    def __init__(self) -> None:
        self._tokens = [-1]  # node 0 stands before all first tokens and is a run of its own
        self._first = [0]  # of each run
        self._parent = [-1]  # of each run's first node
        self._heads: dict[int, int] = {}  # parent * _TOKENS + token -> run
        self._stems: dict[Segment, int] = {}
        self._ends: list[int] = []

    def add(self, tail: Sequence[int], stem: Segment | None = None) -> list[int]:
        """Add the sequence of a stem's tokens and then ``tail``.

        Returns:
            Its nodes, as they are numbered before the layout: the stem's last one, then those of ``tail``.
        """
        for one in lineage(stem, self._stems):
            nodes = [0 if one.before is None else self._stems[one.before]]
            self._grow(one.own, nodes)
            self._stems[one] = nodes[-1]
        made = [0 if stem is None else self._stems[stem]]
        self._grow(list(tail), made)
        self._ends.append(made[-1])
        return made

    def _grow(self, tokens: list[int], made: list[int]) -> None:
        """Follow ``tokens`` from the last node of ``made``, adding what is missing; append the nodes to ``made``."""
        at, node = 0, made[-1]
        while at < len(tokens):
            run = bisect_right(self._first, node) - 1
            stop = self._first[run + 1] if run + 1 < len(self._first) else len(self._tokens)
            stop = min(stop, node + 1 + len(tokens) - at)
            same = common_prefix(tokens[at : at + stop - node - 1], self._tokens[node + 1 : stop])
            if same:
                made += range(node + 1, node + 1 + same)
                node, at = node + same, at + same
                continue
            head = self._heads.get(node * _TOKENS + tokens[at])
            if head is None:
                first = len(self._tokens)
                self._heads[node * _TOKENS + tokens[at]] = len(self._first)
                self._first.append(first)
                self._parent.append(node)
                self._tokens += tokens[at:]
                made += range(first, len(self._tokens))
                return
            node, at = self._first[head], at + 1
            made.append(node)

    def layout(self) -> tuple[Forest, IntArray]:
        """Return the forest, and for each node as :meth:`add` numbers it its place there (-1 for node 0)."""
        n = len(self._tokens)
        first = np.array([*self._first, n], dtype=np.int64)
        length = np.diff(first).tolist()
        parent = self._parent
        owner_run = (np.searchsorted(first, parent, side="right") - 1).tolist()  # the run that a run hangs off
        branches: list[list[int]] = [[] for _ in length]
        for run in range(1, len(length)):
            branches[owner_run[run]].append(run)
        size = list(length)
        for run in range(len(length) - 1, 0, -1):
            size[owner_run[run]] += size[run]
        place = np.empty(n, dtype=np.int64)  # one more than in the forest, for node 0
        end = np.empty(n, dtype=np.int64)
        depth = np.empty(n, dtype=np.int64)
        base = [0] * len(length)
        for run, (start, count) in enumerate(zip(self._first, length, strict=True)):
            own = slice(start, start + count)
            place[own] = np.arange(base[run], base[run] + count)
            above = depth[parent[run]] + 1 if run else 0
            depth[own] = np.arange(above, above + count)
            free = base[run] + count
            end[own] = free
            # depth-first: past the run come the branches of its last node, then those of the node before, ...
            for branch in sorted(branches[run], key=lambda one: -parent[one]):
                base[branch] = free
                free += size[branch]
                end[start : parent[branch] + 1] = free
        order = np.argsort(place)[1:]
        before = np.arange(-1, n - 1)
        before[first[:-1]] = parent
        place -= 1
        ends = place[np.array(self._ends, dtype=np.int64)]
        by_place = np.argsort(ends, kind="stable")  # nodes between two ends lead to the second
        forest = Forest(
            np.array(self._tokens, dtype=np.int64)[order],
            depth[order] - 1,
            end[order] - 1,
            place[before[order]],
            by_place[np.searchsorted(ends[by_place], np.arange(n - 1))],
            dict(enumerate(ends.tolist())),
        )
        return forest, place


def lineage(one: Any, known: Container[Any] = ()) -> list[Any]:
    """``one`` and what is ``before`` it, the first first, as far back as none is ``known``."""
    found = []
    while one is not None and one not in known:
        found.append(one)
        one = one.before
    return found[::-1]


def common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the longest common prefix, by comparing halves rather than items; strings too."""
    low, high = 0, min(len(a), len(b))
    if high and a[0] != b[0]:
        return 0
    while low < high:
        middle = high if low == 0 else (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def forest_of(sequences: Sequence[IntArray]) -> Forest:
    """The forest of some non-empty token sequences."""
    builder = Builder()
    for sequence in sequences:
        builder.add(sequence.tolist())
    return builder.layout()[0]


def rows(sequences: Mapping[int, IntArray], row_tokens: int, max_nodes: int | None = None) -> list[Forest]:
    """Lay non-empty sequences out in rows, cut from the forest of all so that the sum of :func:`row_cost` is least.

    A row that begins at sequence ``i`` repeats the ``shared[i]`` nodes it has in common with the row before. With
    ``fresh`` the nodes each sequence adds to the one before it, a row ``i..j-1`` has shared[i] + sum(fresh[i:j]) nodes;
    that falls as ``i`` grows, so one left-to-right pass over the end points finds the best chain of rows.

    Args:
        sequences: by the index that rows know them by.
        row_tokens: the row size at which attention costs ATTENTION_SHARE of everything else.
        max_nodes: bound on a row that only one longer sequence goes past; else 4 x ``row_tokens`` or twice the longest.

    Returns:
        Forests in which every sequence ends once, with its whole path.
    """
    indices, whole = np.array(list(sequences), dtype=np.int64), forest_of(list(sequences.values()))
    ends = np.array(list(whole.ends.values()), dtype=np.int64)
    order = np.argsort(ends, kind="stable")
    indices, ends = indices[order], ends[order]
    lengths = whole.depth[ends] + 1
    # Between one end and the next lie only nodes that lead to the next: the first of them hangs off what both share.
    following = np.minimum(ends[:-1] + 1, len(whole) - 1)
    shared = np.concatenate([[0], np.where(ends[1:] == ends[:-1], lengths[1:], whole.depth[following])])
    bound = max_nodes or max(4 * row_tokens, 2 * int(lengths.max()))
    before = np.concatenate([[0], np.cumsum(lengths - shared)])
    best = np.zeros(len(ends) + 1)
    origin = np.zeros(len(ends) + 1, dtype=np.int64)
    low = 0
    for stop in range(1, len(ends) + 1):
        while low < stop - 1 and shared[low] + before[stop] - before[low] > bound:
            low += 1
        nodes = (shared[low:stop] + before[stop] - before[low:stop]).astype(np.float64)
        costs = best[low:stop] + row_cost(nodes, row_tokens)
        choice = int(costs.argmin())
        best[stop], origin[stop] = costs[choice], low + choice
    made: list[Forest] = []
    stop = len(ends)
    while stop > 0:
        own = indices[origin[stop] : stop]
        row = forest_of([sequences[index] for index in own.tolist()])
        ends_of = dict(zip(own.tolist(), row.ends.values(), strict=True))
        made.append(replace(row, owner=own[row.owner], ends=ends_of))
        stop = int(origin[stop])
    return made[::-1]


def row_cost(nodes: NDArray[np.float64], row_tokens: int) -> NDArray[np.float64]:
    """The cost of rows of ``nodes`` nodes, in tokens: linear work, attention, and a fixed part."""
    cost: NDArray[np.float64] = nodes + ATTENTION_SHARE * nodes**2 / row_tokens + ROW_OVERHEAD
    return cost
