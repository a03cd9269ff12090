"""The FlexAttention path, which GPUs use for long rows, run on the CPU as far as that goes."""

from __future__ import annotations

import pytest
import tinymodels
import torch

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine.forward import _block_mask
from cpmi_eval.engine.trie import pack
from cpmi_eval.types import ScoreRequest

STEM = "Problem: Ada has 12 apples and buys 30 more.\n\n"
REQUESTS = [
    ScoreRequest(STEM + step, "The answer is: " + answer)
    for step in ("", "12 + 30 = 42.\n\n", "So 35 are left.\n\n")
    for answer in ("42", "35", "354")
]


def test_the_block_mask_shows_each_node_its_own_prefix_within_the_window():
    from torch.nn.attention.flex_attention import create_mask

    encoder = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer()).encoder
    (row,) = pack([one.ids[:-1] for one in encoder.encode(REQUESTS)], 10_000)
    depth, end = torch.from_numpy(row.depth)[None], torch.from_numpy(row.end)[None]
    for window in (None, 7):
        block = _block_mask(depth, end, window)
        dense = create_mask(block.mask_mod, 1, 1, len(row), len(row), device="cpu")[0, 0]
        for path in row.paths.values():
            for place, node in enumerate(path):
                seen = path[: place + 1] if window is None else path[max(0, place + 1 - window) : place + 1]
                assert dense[node].nonzero().flatten().tolist() == seen.tolist()


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_flex_attention_equals_sdpa(name):
    """Uncompiled: what a GPU compiles is the same function, but torch's CPU code for it does not build everywhere."""
    expected = HFBackend(tinymodels.model(name), tinymodels.tokenizer()).loglikelihood(REQUESTS)
    with torch.compiler.set_stance("force_eager"):
        flex = HFBackend(tinymodels.model(name, attention="flex_attention"), tinymodels.tokenizer())
        assert flex.describe()["attention"] == "flex_attention"
        got = flex.loglikelihood(REQUESTS)
    assert [r.total for r in got] == pytest.approx([r.total for r in expected], abs=5e-4)
