"""Who sees whom in a chunk of a token forest, as a model's attention takes it: a dense mask, or a mask of blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine.trie import IntArray

BLOCK = 128  # FlexAttention's


class View(NamedTuple):
    """The queries of a chunk and the keys before and in it, by their places in the forest.

    Key ``k`` is visible to query ``q`` iff ``key[k] <= query[q] < end[k]`` and, in a layer with a window, the
    difference of their depths is less than that. A key that is mere padding ends at -1; a query that is, stands past
    all nodes and sees itself.
    """

    query: IntArray  # [queries]
    query_depth: IntArray
    key: IntArray  # [keys]
    key_depth: IntArray
    end: IntArray


def additive(view: View, window: int | None, dtype: torch.dtype, device: Any) -> Tensor:
    """Return a mask [1, 1, queries, keys] to add to attention scores; eager and sdpa both take it."""
    query, query_depth, key, key_depth, end = (torch.from_numpy(one).to(device) for one in view)
    visible = (key[None, :] <= query[:, None]) & (query[:, None] < end[None, :])
    if window is not None:
        visible &= query_depth[:, None] - key_depth[None, :] < window
    mask = torch.zeros(visible.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]


def blocks(view: View, window: int | None, device: Any) -> Any:
    """Return the same visibility as a FlexAttention block mask; queries and keys are multiples of BLOCK.

    Attention's cost follows the blocks in which anything is visible. Which those are is told from each block's
    extremes, so that nothing of the size queries x keys is ever made.
    """
    from torch.nn.attention.flex_attention import BlockMask

    query, query_depth, key, key_depth, end = (one.reshape(-1, BLOCK) for one in view)
    first, last = query.min(1)[:, None], query.max(1)[:, None]
    real = end >= 0
    some = (np.where(real, key, last.max() + 1).min(1) <= last) & (end.max(1) > first)
    every = (key.max(1) <= first) & (end.min(1) > last)
    if window is not None:
        every &= query_depth.max(1)[:, None] - key_depth.min(1)[None, :] < window
    partial = some & ~every

    tensors = [torch.from_numpy(one).to(device) for one in view]
    q, q_depth, k, k_depth, k_end = tensors

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (k[key] <= q[query]) & (q[query] < k_end[key])
        return seen if window is None else seen & (q_depth[query] - k_depth[key] < window)

    return BlockMask.from_kv_blocks(
        *_listed(partial, device), *_listed(every, device), BLOCK_SIZE=BLOCK, mask_mod=visible
    )


def _listed(chosen: np.ndarray[Any, np.dtype[np.bool_]], device: Any) -> tuple[Tensor, Tensor]:
    counts = chosen.sum(1).astype(np.int32)
    order = np.argsort(~chosen, axis=1, kind="stable").astype(np.int32)
    return torch.from_numpy(counts)[None, None].to(device), torch.from_numpy(order)[None, None].to(device)
