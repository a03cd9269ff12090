"""Attention of many growing sequences over few shared prefixes: keys and values of a prefix are kept and read once.

A *trunk* is a packed token trie (:mod:`cpmi_eval.engine.trie`) whose keys and values were computed in one pass. A
*branch* is a sequence that goes on from a path in a trunk: it owns a slot, in which its own keys and values grow. A
decoding step reads a trunk once for all its branches (one matrix product instead of one per branch), as Hydragen
(arXiv 2402.05099) does.

Own keys live in blocks of growing size, block ``b`` for all slots whose branch is long enough to need it. Slots are
sorted by length now and then (:meth:`Branches.keep`), so that a few long branches do not make all others pay for their
length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, Cache

from cpmi_eval.engine.forward import Stack, padded
from cpmi_eval.engine.trie import Forest, IntArray

ATTENTION = "cpmi_eval_branches"
FIRST_BLOCK = 64
# Sizes are rounded up, so that few shapes occur: oneDNN compiles a kernel for each.
TRUNK_STEP = 64
SLOT_STEP = 8
HIDDEN = -torch.inf


@dataclass(eq=False)
class Trunk:
    """Keys and values of a packed row, per layer [heads, nodes, width], and its nodes' depths [nodes].

    Padded on the right with nodes that are on nobody's path.
    """

    keys: list[Tensor]
    values: list[Tensor]
    depth: Tensor

    @classmethod
    def of(cls, row: Forest, stack: Stack, device: Any) -> Trunk:
        """Take over what a pass over ``row`` has left in ``stack``."""
        width = padded(len(row), TRUNK_STEP)

        def whole(chunks: Sequence[Tensor]) -> Tensor:
            heads, _, size = chunks[0].shape
            return torch.cat([*chunks, chunks[0].new_zeros((heads, width - len(row), size))], dim=1)

        keys, values = ([whole(one[which]) for one in stack.kept] for which in (0, 1))
        depth = np.pad(row.depth, (0, width - len(row)))
        return cls(keys, values, torch.from_numpy(depth).to(device))

    def __len__(self) -> int:
        return len(self.depth)


@dataclass
class _Block:
    """Own keys and values at positions ``start .. start + size - 1``, per layer [slots, heads, size, width]."""

    start: int
    size: int
    keys: list[Tensor]
    values: list[Tensor]


class Branches(Cache):  # type: ignore[misc]
    """The slots of a decoding loop. As a transformers cache it takes in each layer's new keys and values."""

    def __init__(self, device: Any) -> None:
        super().__init__(layers=[])
        self.device = device
        self.trunks: list[Trunk | None] = []
        self.paths: list[IntArray] = []
        self.lengths = np.zeros(0, dtype=np.int64)  # own tokens so far
        self._blocks: list[_Block] = []
        self._groups: list[tuple[Trunk, Tensor]] = []  # trunks and the slots of their branches
        self._visible: Tensor | None = None  # [slots, trunk width] bool
        # What one step reads and writes, the same for every layer.
        self._extents: list[int] = []  # per block, how many leading slots read it
        self._writes: list[tuple[_Block, Tensor, Tensor]] = []  # block, slots, offsets within the block
        self._masks: dict[int | None, Tensor] = {}  # by window: [slots, 1, 1, trunk width + own width], 0 or -inf
        self._scores: Tensor | None = None  # [slots, key heads, query heads per key head, width]

    def __len__(self) -> int:
        return len(self.trunks)

    def extend(self, more: int) -> None:
        """Add free slots at the end."""
        self.trunks += [None] * more
        self.paths += [np.empty(0, dtype=np.int64)] * more
        self.lengths = np.concatenate([self.lengths, np.zeros(more, dtype=np.int64)])
        self._visible = None

    def occupy(self, slot: int, trunk: Trunk, path: IntArray) -> None:
        """Begin a branch in a free slot, after the tokens on ``path`` (node indices of ``trunk``)."""
        self.trunks[slot], self.paths[slot], self.lengths[slot] = trunk, path, 0
        self._visible = None

    def free(self, slot: int) -> None:
        """Give a slot up."""
        self.trunks[slot], self.lengths[slot] = None, 0
        self._visible = None

    def keep(self, slots: Sequence[int]) -> None:
        """Keep these slots only, in this order; give the longest first."""
        index = torch.tensor(slots, dtype=torch.long, device=self.device)
        self.trunks = [self.trunks[slot] for slot in slots]
        self.paths = [self.paths[slot] for slot in slots]
        self.lengths = self.lengths[list(slots)]
        self._visible = None
        longest = int(self.lengths.max(initial=0))
        self._blocks = [block for block in self._blocks if block.start < longest]
        for block in self._blocks:
            needed = index[: int(np.count_nonzero(self.lengths > block.start))]
            for part in (block.keys, block.values):
                for layer, tensor in enumerate(part):
                    part[layer] = tensor[needed]

    def begin_step(self, windows: Sequence[int | None]) -> Tensor:
        """Plan the step that appends one token to every branch; return the tokens' positions [slots, 1]."""
        if self._visible is None:
            self._lay_out()
        assert self._visible is not None
        while not self._blocks or self._blocks[-1].start + self._blocks[-1].size <= self.lengths.max():
            start = sum(block.size for block in self._blocks)
            self._blocks.append(_Block(start, max(FIRST_BLOCK, start), [], []))
        own_width = sum(block.size for block in self._blocks)
        before = torch.tensor([len(path) for path in self.paths], device=self.device)
        length = torch.from_numpy(self.lengths).to(self.device)
        position = before + length
        own = torch.arange(own_width, device=self.device)
        for window in windows:
            trunk, mine = self._visible, own <= length[:, None]
            if window is not None:
                trunk = trunk & (position[:, None] - self._depth < window)
                mine = mine & (length[:, None] - own < window)
            seen = torch.cat([trunk, mine], dim=1)
            mask = torch.zeros(seen.shape, device=self.device).masked_fill_(~seen, HIDDEN)
            self._masks[window] = mask[:, None, None]
        self._writes, self._extents = [], []
        for block in self._blocks:
            (reading,) = np.nonzero(self.lengths >= block.start)
            self._extents.append(min(padded(int(reading[-1]) + 1, SLOT_STEP), len(self)) if len(reading) else 0)
            writing = reading[self.lengths[reading] < block.start + block.size]
            if len(writing):
                places = (writing, self.lengths[writing] - block.start)
                slots, offsets = (torch.from_numpy(one).to(self.device) for one in places)
                self._writes.append((block, slots, offsets))
        return position[:, None]

    def end_step(self) -> None:
        """Count the appended tokens."""
        self.lengths[[trunk is not None for trunk in self.trunks]] += 1
        self._masks, self._scores = {}, None

    def _lay_out(self) -> None:
        """Note which slots branch off which trunk, and which of its nodes each of them sees."""
        members: dict[Trunk, list[int]] = {}
        for slot, trunk in enumerate(self.trunks):
            if trunk is not None:
                members.setdefault(trunk, []).append(slot)
        width = max((len(trunk) for trunk in members), default=0)
        visible = np.zeros((len(self), width), dtype=bool)
        self._depth = torch.zeros((len(self), width), dtype=torch.long, device=self.device)
        self._groups = []
        for trunk, slots in members.items():
            self._depth[slots, : len(trunk)] = trunk.depth
            for slot in slots:
                visible[slot, self.paths[slot]] = True
            filled = slots + slots[-1:] * (padded(len(slots), SLOT_STEP) - len(slots))  # the same twice does no harm
            self._groups.append((trunk, torch.tensor(filled, device=self.device)))
        self._visible = torch.from_numpy(visible).to(self.device)

    # --- what a layer calls: first update, then the attention -------------------------------------------------------

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values, [slots, heads, 1, width], to their places."""
        for block, extent in zip(self._blocks, self._extents, strict=True):
            _grow(block.keys, layer_idx, extent, block.size, key)
            _grow(block.values, layer_idx, extent, block.size, value)
        for block, slots, offsets in self._writes:
            block.keys[layer_idx][slots, :, offsets] = key[slots, :, 0]
            block.values[layer_idx][slots, :, offsets] = value[slots, :, 0]
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given, so nobody needs to derive them from this."""
        return 0

    def attend(self, layer: int, query: Tensor, scaling: float, softcap: float | None, window: int | None) -> Tensor:
        """Return attention outputs [slots, 1, heads, width] for queries [slots, heads, 1, width]."""
        slots, heads, _, width = query.shape
        groups = self._blocks[0].keys[layer].shape[1]
        query = query.reshape(slots, groups, heads // groups, width)
        mask = self._masks[window]
        own = mask.shape[-1] - sum(block.size for block in self._blocks)  # where keys of the branches' own begin
        if self._scores is None:
            exact = torch.promote_types(query.dtype, torch.float32)
            self._scores = torch.zeros((*query.shape[:3], mask.shape[-1]), dtype=exact, device=query.device)
        scores = self._scores  # what a layer leaves unwritten is masked
        for trunk, members in self._groups:
            scores[members, :, :, : len(trunk)] = _by_trunk(query[members], trunk.keys[layer].mT).to(scores.dtype)
        for block, extent in zip(self._blocks, self._extents, strict=True):
            at = slice(own + block.start, own + block.start + block.size)
            scores[:extent, :, :, at] = query[:extent] @ block.keys[layer][:extent].mT
        logits = scores * scaling
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        weights = (logits + mask).softmax(dim=-1).to(query.dtype)
        output = scores.new_zeros((*query.shape[:3], self._blocks[0].values[layer].shape[-1]))
        for trunk, members in self._groups:
            output[members] = _by_trunk(weights[members, :, :, : len(trunk)], trunk.values[layer]).to(output.dtype)
        for block, extent in zip(self._blocks, self._extents, strict=True):
            at = slice(own + block.start, own + block.start + block.size)
            output[:extent] += weights[:extent, :, :, at] @ block.values[layer][:extent]
        return output.to(query.dtype).reshape(slots, 1, heads, -1)


def _by_trunk(rows: Tensor, shared: Tensor) -> Tensor:
    """Multiply [n, groups, per group, a] by [groups, a, b], as one product per group: [n, groups, per group, b]."""
    n, groups, per_group, _ = rows.shape
    product = rows.transpose(0, 1).reshape(groups, n * per_group, -1) @ shared
    return product.reshape(groups, n, per_group, -1).transpose(0, 1)


def _grow(part: list[Tensor], layer: int, slots: int, size: int, like: Tensor) -> None:
    """Give a block's tensor of this layer at least ``slots`` rows."""
    if layer == len(part):
        part.append(like.new_zeros((0, like.shape[1], size, like.shape[3])))
    missing = slots - part[layer].shape[0]
    if missing > 0:
        part[layer] = torch.cat([part[layer], like.new_zeros((missing, *part[layer].shape[1:]))])


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: Branches,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' attention modules call while a :class:`Branches` is decoding; they pass ``branches`` on."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return branches.attend(module.layer_idx, query, scale, softcap, sliding_window), None


AttentionInterface.register(ATTENTION, _attention)
