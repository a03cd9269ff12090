"""The packing, against brute force: what a node may see is exactly its own prefix."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpmi_eval.engine.trie import Builder, Segment, common_prefix, forest_of, row_cost, rows

SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=25)


def arrays(sequences: list[list[int]]) -> list[np.ndarray]:
    return [np.array(sequence, dtype=np.int64) for sequence in sequences]


def pack(sequences, row_tokens, max_nodes=None):
    return rows(dict(enumerate(sequences)), row_tokens, max_nodes)


def depth_first_order(sequences):
    ends = forest_of(arrays(sequences)).ends
    return sorted(ends, key=ends.__getitem__)


def shows_each_its_prefix(forest, sequences):
    nodes = np.arange(len(forest))
    for index, last in forest.ends.items():
        path = forest.path(last)
        assert forest.tokens[path].tolist() == list(sequences[index])
        assert forest.depth[path].tolist() == list(range(len(path)))
        for place, node in enumerate(path):
            visible = nodes[(nodes <= node) & (node < forest.end)]
            assert visible.tolist() == path[: place + 1].tolist()
            assert forest.parent[node] == (path[place - 1] if place else -1)


@given(SEQUENCES, st.integers(1, 60))
def test_every_sequence_is_in_one_row_and_sees_exactly_its_own_prefix(sequences, max_nodes):
    packed = pack(arrays(sequences), max_nodes)
    assert sorted(index for row in packed for index in row.ends) == list(range(len(sequences)))
    for row in packed:
        shows_each_its_prefix(row, sequences)


@given(SEQUENCES)
def test_a_forest_holds_each_distinct_prefix_once(sequences):
    forest = forest_of(arrays(sequences))
    shows_each_its_prefix(forest, sequences)
    assert len(forest) == len({tuple(s[: n + 1]) for s in sequences for n in range(len(s))})


def test_tuples_share_with_lists():
    builder = Builder()
    builder.add([1, 2, 3])
    builder.add((1, 2, 4))
    assert len(builder.layout()[0]) == 4


@given(SEQUENCES, st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 3), max_size=5)), max_size=12))
def test_sequences_that_continue_shared_stems_are_where_they_would_be_whole(stems, tails):
    """Stems continue each other at random; with or without them the forest is the same, nodes included."""
    made: list[Segment] = []
    for place, own in enumerate(stems):
        made.append(Segment(own, made[place // 2] if place % 3 else None))
    chosen = [(made[which % len(made)], tail) for which, tail in tails]
    whole = []
    for stem, tail in chosen:
        pieces, one = [tail], stem
        while one is not None:
            pieces.append(one.own)
            one = one.before
        whole.append([token for piece in reversed(pieces) for token in piece])
        assert stem.length + len(tail) == len(whole[-1])
    one, other = Builder(), Builder()
    nodes = [one.add(tail, stem) for stem, tail in chosen]
    for sequence in whole:
        other.add(sequence)
    if not chosen:
        return
    (forest, place), (expected, _) = one.layout(), other.layout()
    for name in ("tokens", "depth", "end", "parent", "owner"):
        assert (getattr(forest, name) == getattr(expected, name)).all()
    assert forest.ends == expected.ends
    for index, (mine, (_, tail)) in enumerate(zip(nodes, chosen, strict=True)):
        assert place[mine].tolist() == forest.path(forest.ends[index])[-len(tail) - 1 :].tolist()


@given(SEQUENCES)
def test_from_any_node_on_earlier_nodes_matter_only_on_the_path_to_it(sequences):
    """What reading in chunks rests on."""
    forest = forest_of(arrays(sequences))
    for start in range(1, len(forest)):
        seen = {k for k in range(start) if forest.end[k] > start}
        assert seen == set(forest.path(int(forest.parent[start])).tolist())


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40))
def test_common_prefix(a, b):
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(a, b) == expected


@given(SEQUENCES, st.integers(1, 60))
def test_rows_keep_the_bound_unless_one_sequence_is_longer(sequences, max_nodes):
    for row in pack(arrays(sequences), 40, max_nodes):
        longest = max(len(sequences[index]) for index in row.ends)
        assert len(row) <= max(max_nodes, longest)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=8), st.integers(1, 12))
def test_no_other_way_of_cutting_is_cheaper(sequences, row_tokens):
    """All 2^(n-1) ways to cut the depth-first order, priced by what their rows hold."""
    bound = max(4 * row_tokens, 2 * max(map(len, sequences)))
    order = [sequences[index] for index in depth_first_order(sequences)]

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
    assert price([[sequences[i] for i in row.ends] for row in got]) == pytest.approx(min(ways))


@given(SEQUENCES, st.integers(1, 60))
def test_owners_pay_for_every_node_once_and_only_for_their_own(sequences, max_nodes):
    for row in pack(arrays(sequences), max_nodes):
        for index, last in row.ends.items():
            owned = np.flatnonzero(row.owner == index)
            assert set(owned) <= set(row.path(last).tolist())
        assert set(row.owner.tolist()) <= set(row.ends)


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
        assert before.ends == after.ends
        assert (before.parent == after.parent).all()


def test_order_is_depth_first_with_children_as_they_first_appear():
    assert depth_first_order([[5, 1], [3], [5, 0], [3, 2], [5], [3, 2]]) == [4, 0, 2, 1, 3, 5]


def test_a_cut_is_made_where_little_is_shared():
    """Two problems of 400 tokens with four branches each: rows of about 400 must not be cut inside one of them."""
    stems = list(range(1000, 1400)), list(range(2000, 2400))
    sequences = arrays([[*stem, branch] for stem in stems for branch in range(4)])
    assert [sorted(row.ends) for row in pack(sequences, 400)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("row_tokens", [128, 256, 512])
def test_a_long_chain_with_a_branch_at_every_step_is_not_repeated_at_every_branch(row_tokens):
    """The prefix variant on a long trace, in rows much shorter than the trace."""
    chain = list(range(100, 1000))
    sequences = arrays([[*chain[:n], *range(9, -1, -1)] for n in range(60, 901, 60) for _ in range(5)])
    packed = sum(len(row) for row in pack(sequences, row_tokens))
    alone = sum(len(sequence) for sequence in sequences)
    distinct = len({sequence[: n + 1].tobytes() for sequence in sequences for n in range(len(sequence))})
    assert packed <= 3 * distinct < alone
