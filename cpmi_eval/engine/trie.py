"""Packing many token sequences into few rows in which a shared prefix appears once.

A row is a forest of token tries laid out depth-first: node ``k``'s subtree occupies ``k .. end[k]-1``, so
"is an ancestor of" is the interval test ``k <= q < end[k]``, and a node's position in its own sequence is its
depth. Nothing here knows about models or tensors; see :mod:`cpmi_eval.engine.packed` for the forward pass.

Attention over a packed row costs the square of its size, and a cut repeats the prefix that its two sides share; where
to cut is chosen so that the sum is least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]

ATTENTION_SHARE = 0.25
ROW_OVERHEAD = 64.0  # what a row costs besides its nodes, in tokens: shorter rows than some hundred gain nothing


@dataclass(frozen=True)
class Row:
    """One packed row of ``n`` nodes: all arrays are of shape [n] and dtype int64.

    ``owner`` is the index of the sequence on whose behalf a node was first added: it pays for the node.
    ``paths`` maps a sequence's index to its path, the node indices of its tokens in order.
    """

    tokens: IntArray
    depth: IntArray
    end: IntArray
    owner: IntArray
    paths: dict[int, IntArray]

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.tokens)


def common_prefix(a: IntArray, b: IntArray) -> int:
    """Return the length of the longest common prefix of two token arrays."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def depth_first_order(sequences: Sequence[IntArray]) -> list[int]:
    """Return the sequences' indices in depth-first order of their trie, children in order of first appearance.

    First appearance rather than token order, so that replacing one branch's tokens by others moves no other
    branch: its scores then stay the same to the last bit.
    """
    children: list[dict[int, int]] = [{}]
    leaf_of: list[int] = []
    path = [0]
    previous: IntArray = np.empty(0, dtype=np.int64)
    for sequence in sequences:
        shared = common_prefix(previous, sequence)  # walking on from here skips most look-ups
        del path[shared + 1 :]
        node = path[-1]
        for token in sequence[shared:].tolist():
            following = children[node].get(token)
            if following is None:
                following = len(children)
                children[node][token] = following
                children.append({})
            node = following
            path.append(node)
        leaf_of.append(node)
        previous = sequence
    rank = [0] * len(children)
    stack, visited = [0], 0
    while stack:
        node = stack.pop()
        rank[node] = visited
        visited += 1
        stack.extend(reversed(children[node].values()))
    return sorted(range(len(sequences)), key=lambda index: rank[leaf_of[index]])


def pack(sequences: Sequence[IntArray], row_tokens: int, max_nodes: int | None = None) -> list[Row]:
    """Pack non-empty token sequences into rows, at the least cost by :func:`row_cost`.

    Args:
        sequences: token ids; equal ones and prefixes of others are welcome.
        row_tokens: the row size at which attention costs ATTENTION_SHARE of everything else.
        max_nodes: hard bound on a row, which only a single longer sequence goes past; if not given, 4 x ``row_tokens``
            or twice the longest sequence.

    Returns:
        Rows in which every sequence occurs once, whole.
    """
    order = depth_first_order(sequences)
    lengths = np.array([len(sequences[index]) for index in order])
    shared = np.zeros(len(order), dtype=np.int64)  # with the sequence before it in depth-first order
    for place in range(1, len(order)):
        shared[place] = common_prefix(sequences[order[place - 1]], sequences[order[place]])
    bound = max_nodes or max(4 * row_tokens, 2 * int(lengths.max()))
    starts = [*cheapest_cuts(lengths, shared, row_tokens, bound), len(order)]
    return [_row(order[start:stop], sequences) for start, stop in pairwise(starts)]


def row_cost(nodes: NDArray[np.float64], row_tokens: int) -> NDArray[np.float64]:
    """Return the cost of rows of ``nodes`` nodes, in tokens: linear work, attention, and a fixed part."""
    cost: NDArray[np.float64] = nodes + ATTENTION_SHARE * nodes**2 / row_tokens + ROW_OVERHEAD
    return cost


def cheapest_cuts(lengths: IntArray, shared: IntArray, row_tokens: int, max_nodes: int) -> list[int]:
    """Return where rows begin so that their summed cost is least.

    A row that begins at sequence ``i`` repeats the ``shared[i]`` nodes it has in common with the row before. With
    ``fresh`` the nodes each sequence adds to the one before it, a row ``i..j-1`` has shared[i] + sum(fresh[i:j]) nodes;
    that falls as ``i`` grows, so one left-to-right pass over the end points finds the best chain of rows.
    """
    before = np.concatenate([[0], np.cumsum(lengths - shared)])
    best = np.zeros(len(lengths) + 1)
    origin = np.zeros(len(lengths) + 1, dtype=np.int64)
    low = 0
    for stop in range(1, len(lengths) + 1):
        while low < stop - 1 and shared[low] + before[stop] - before[low] > max_nodes:
            low += 1
        nodes = (shared[low:stop] + before[stop] - before[low:stop]).astype(np.float64)
        costs = best[low:stop] + row_cost(nodes, row_tokens)
        choice = int(costs.argmin())
        best[stop], origin[stop] = costs[choice], low + choice
    starts: list[int] = []
    stop = len(lengths)
    while stop > 0:
        stop = int(origin[stop])
        starts.append(stop)
    return starts[::-1]


def _row(members: Sequence[int], sequences: Sequence[IntArray]) -> Row:
    """Lay out the given sequences, already in depth-first order, as one row."""
    tokens: list[IntArray] = []
    depth: list[IntArray] = []
    owner: list[IntArray] = []
    total = sum(len(sequences[index]) for index in members)
    end = np.zeros(total, dtype=np.int64)
    paths: dict[int, IntArray] = {}
    path: IntArray = np.empty(0, dtype=np.int64)
    previous: IntArray = np.empty(0, dtype=np.int64)
    size = 0
    for index in members:
        sequence = sequences[index]
        shared = common_prefix(previous, sequence)
        end[path[shared:]] = size  # the subtrees left behind are complete
        fresh = len(sequence) - shared
        tokens.append(sequence[shared:])
        depth.append(np.arange(shared, len(sequence)))
        owner.append(np.full(fresh, index))
        path = np.concatenate([path[:shared], np.arange(size, size + fresh)])
        paths[index] = path
        size += fresh
        previous = sequence
    end[path] = size
    return Row(np.concatenate(tokens), np.concatenate(depth), end[:size], np.concatenate(owner), paths)
