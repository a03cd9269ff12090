"""The packing, against brute force: what a node may see is exactly its own prefix."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmi_eval.engine.trie import depth_first_order, pack, row_cost

SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=25)


def arrays(sequences: list[list[int]]) -> list[np.ndarray]:
    return [np.array(sequence, dtype=np.int64) for sequence in sequences]


@given(SEQUENCES, st.integers(1, 60))
def test_every_sequence_is_in_one_row_and_sees_exactly_its_own_prefix(sequences, max_nodes):
    rows = pack(arrays(sequences), max_nodes)
    assert sorted(index for row in rows for index in row.paths) == list(range(len(sequences)))
    for row in rows:
        nodes = np.arange(len(row))
        for index, path in row.paths.items():
            assert row.tokens[path].tolist() == sequences[index]
            assert row.depth[path].tolist() == list(range(len(path)))
            for place, node in enumerate(path):
                visible = nodes[(nodes <= node) & (node < row.end)]
                assert visible.tolist() == path[: place + 1].tolist()


@given(SEQUENCES, st.integers(1, 60))
def test_rows_keep_the_bound_unless_one_sequence_is_longer(sequences, max_nodes):
    for row in pack(arrays(sequences), 40, max_nodes):
        longest = max(len(sequences[index]) for index in row.paths)
        assert len(row) <= max(max_nodes, longest)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8), st.integers(1, 12))
def test_no_other_way_of_cutting_is_cheaper(sequences, row_tokens):
    """All 2^(n-1) ways to cut the depth-first order, priced by what their rows hold."""
    bound = max(4 * row_tokens, 2 * max(map(len, sequences)))
    order = [sequences[index] for index in depth_first_order(arrays(sequences))]

    def price(groups):
        total = 0.0
        for group in groups:
            nodes = len({tuple(s[: n + 1]) for s in group for n in range(len(s))})
            if nodes > bound and len(group) > 1:
                return float("inf")
            total += row_cost(np.array(nodes), row_tokens)
        return total

    ways = []
    for cuts in itertools.product([False, True], repeat=len(order) - 1):
        groups = [[order[0]]]
        for sequence, cut in zip(order[1:], cuts, strict=True):
            groups.append([sequence]) if cut else groups[-1].append(sequence)
        ways.append(price(groups))
    got = pack(arrays(sequences), row_tokens)
    assert price([[sequences[i] for i in row.paths] for row in got]) == pytest.approx(min(ways))


@given(SEQUENCES)
def test_one_row_holds_each_distinct_prefix_once(sequences):
    (row,) = pack(arrays(sequences), 10_000)
    prefixes = {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}
    assert len(row) == len(prefixes)


@given(SEQUENCES, st.integers(1, 60))
def test_owners_pay_for_every_node_once_and_only_for_their_own(sequences, max_nodes):
    for row in pack(arrays(sequences), max_nodes):
        for index in row.paths:
            owned = np.flatnonzero(row.owner == index)
            assert set(owned) <= set(row.paths[index].tolist())
        assert set(row.owner.tolist()) <= set(row.paths)


@given(SEQUENCES, st.data())
@settings(max_examples=50)
def test_replacing_a_branch_by_another_of_its_length_moves_no_other(sequences, data):
    """Bit-for-bit equality of the other branches' scores rests on this."""
    stem = [9, 9]
    family = [[*stem, 10 + i, *sequence] for i, sequence in enumerate(sequences)]
    chosen = data.draw(st.integers(0, len(family) - 1))
    other = [list(sequence) for sequence in family]
    other[chosen][2:] = [1000 + token for token in other[chosen][2:]]
    for before, after in zip(pack(arrays(family), 30), pack(arrays(other), 30), strict=True):
        assert before.paths.keys() == after.paths.keys()
        assert all((before.paths[i] == after.paths[i]).all() for i in before.paths)


def test_order_is_depth_first_with_children_as_they_first_appear():
    sequences = arrays([[5, 1], [3], [5, 0], [3, 2], [5], [3, 2]])
    assert depth_first_order(sequences) == [4, 0, 2, 1, 3, 5]


def test_a_cut_is_made_where_little_is_shared():
    """Two problems of 400 tokens with four branches each: rows of about 400 must not be cut inside one of them."""
    stems = list(range(1000, 1400)), list(range(2000, 2400))
    sequences = arrays([[*stem, branch] for stem in stems for branch in range(4)])
    assert [sorted(row.paths) for row in pack(sequences, 400)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("row_tokens", [128, 256, 512])
def test_a_long_chain_with_a_branch_at_every_step_is_not_repeated_at_every_branch(row_tokens):
    """The prefix variant on a long trace, in rows much shorter than the trace."""
    chain = list(range(100, 1000))
    sequences = arrays([[*chain[:n], *range(9, -1, -1)] for n in range(60, 901, 60) for _ in range(5)])
    packed = sum(len(row) for row in pack(sequences, row_tokens))
    alone = sum(len(sequence) for sequence in sequences)
    distinct = len({sequence[: n + 1].tobytes() for sequence in sequences for n in range(len(sequence))})
    assert packed <= 3 * distinct < alone
