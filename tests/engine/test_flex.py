"""The FlexAttention path, which GPUs use for long rows, run on the CPU as far as that goes."""

from dataclasses import replace

import numpy as np
import pytest
import tinymodels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine import masks
from cpmi_eval.engine.masks import BLOCK
from cpmi_eval.engine.trie import forest_of
from cpmi_eval.types import ScoreRequest

STEM = "Problem: Ada has 12 apples and buys 30 more.\n\n"
REQUESTS = [
    ScoreRequest(STEM + step, "The answer is: " + answer)
    for step in ("", "12 + 30 = 42.\n\n", "So 35 are left.\n\n")
    for answer in ("42", "35", "354")
]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=150), min_size=1, max_size=12),
    st.sampled_from([None, 7, 200]),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_block_and_dense_masks_show_the_same_and_empty_blocks_are_left_out(sequences, window, data):
    """A chunk somewhere in a forest, with the path that leads to it padded to whole blocks."""
    forest = forest_of([np.array(one) for one in sequences])
    start = data.draw(st.integers(0, len(forest) - 1))
    above = forest.path(int(forest.parent[start]))
    rest = -(len(forest) - start) % masks.BLOCK
    empty = -len(above) % masks.BLOCK
    query = np.arange(start, len(forest) + rest)
    depth = np.pad(forest.depth[start:], (0, rest))
    none = np.zeros(empty, dtype=np.int64)
    end = np.concatenate([forest.end[above], none - 1, forest.end[start:], query[len(query) - rest :] + 1])
    key, key_depth = np.concatenate([above, none, query]), np.concatenate([forest.depth[above], none, depth])
    view = masks.View(query, depth, key, key_depth, end)
    dense = masks.additive(view, window, torch.float32, "cpu")[0, 0] == 0
    block = masks.blocks(view, window, "cpu")
    whole = create_mask(block.mask_mod, 1, 1, len(query), len(key), device="cpu")[0, 0]
    assert (whole == dense).all()
    some = dense.reshape(len(query) // BLOCK, BLOCK, -1, BLOCK).any(3).any(1)
    every = dense.reshape(len(query) // BLOCK, BLOCK, -1, BLOCK).all(3).all(1)
    full, partial = torch.zeros_like(some), torch.zeros_like(some)
    for table, counts, indices in (
        (partial, block.kv_num_blocks, block.kv_indices),
        (full, block.full_kv_num_blocks, block.full_kv_indices),
    ):
        for row, count in enumerate(counts[0, 0].tolist()):
            table[row, indices[0, 0, row, :count].long()] = True
    assert not (full & ~every).any()  # no mask is applied there
    assert not (some & ~(full | partial)).any()  # nothing visible is left out
    for node in range(start, len(forest)):
        seen = forest.path(node) if window is None else forest.path(node)[-window:]
        assert sorted(key[dense[node - start].numpy()].tolist()) == seen.tolist()


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_flex_attention_equals_sdpa(name):
    """Uncompiled: what a GPU compiles is the same function, but torch's CPU code for it does not build everywhere."""
    expected = HFBackend(tinymodels.model(name), tinymodels.tokenizer()).loglikelihood(REQUESTS)
    with torch.compiler.set_stance("force_eager"):
        flex = HFBackend(tinymodels.model(name, attention="flex_attention"), tinymodels.tokenizer())
        assert flex.describe().attention == "flex_attention"
        got = flex.loglikelihood(REQUESTS)
        flex.limits = flex.likelihood.reader.limits = replace(flex.limits, batch_tokens=40)
        chunked = flex.loglikelihood(REQUESTS)
    assert [r.total for r in chunked] == pytest.approx([r.total for r in got], abs=5e-4)
    assert [r.total for r in got] == pytest.approx([r.total for r in expected], abs=5e-4)
