"""Forward passes over token forests: chunks, masks, positions and the head, as the model itself would apply them.

A forest goes through the decoder in chunks of consecutive nodes. From one chunk to the next only the keys and values of
the path that leads on are kept, so that no prefix is computed twice, and masks and memory do not grow with the square
of a long chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from cpmi_eval.engine import masks
from cpmi_eval.engine.architecture import input_device, rope_kind, rope_threshold, scaled
from cpmi_eval.engine.trie import Forest, IntArray
from cpmi_eval.errors import ModelError

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
SHAPE_STEP = 32
MASK_BYTES = 1 << 26  # of one dense mask: 64 MB
COMPILED_SHAPES = 64
FLEX_FROM = 2048  # nodes: below, a dense mask is faster on a GPU
TRUSTED_DIFFERENCE = {torch.float64: 1e-6, torch.float32: 1e-2}


def padded(size: int, step: int = SHAPE_STEP) -> int:
    """Round up, so that few distinct shapes occur: oneDNN compiles and keeps a kernel for each (hundreds of MB)."""
    return -(-size // step) * step


class Stack(Cache):  # type: ignore[misc]
    """As a transformers cache: per layer the keys and values of a path, and of the chunk that is being read.

    ``keep``: hold on to those of all nodes, per layer in chunks.
    """

    def __init__(self, keep: bool = False) -> None:
        super().__init__(layers=[])
        self.kept: list[tuple[list[Tensor], list[Tensor]]] = []
        self._states: list[tuple[Tensor, Tensor]] = []  # [1, heads, path + chunk, width]
        self._path = torch.empty(0, dtype=torch.long)  # which of these the next chunk begins with
        self._keep = keep
        self._nodes = 0

    def begin(self, path: IntArray, nodes: int) -> None:
        """Go on to a chunk of ``nodes`` real nodes, after the columns ``path`` of what is held."""
        self._path = torch.from_numpy(path)
        self._nodes = nodes

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Take a layer's keys and values of the chunk; return them behind those of the path."""
        if self._keep:
            if layer_idx == len(self.kept):
                self.kept.append(([], []))
            for kept, one in zip(self.kept[layer_idx], (key, value), strict=True):
                kept.append(one[0, :, : self._nodes])
        if layer_idx == len(self._states):
            self._states.append((key, value))
            return key, value
        if len(self._path):
            path = self._path.to(key.device)
            past = (one.index_select(2, path) for one in self._states[layer_idx])
            key, value = (torch.cat([old, new], 2) for old, new in zip(past, (key, value), strict=True))
        self._states[layer_idx] = (key, value)
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The length of the path."""
        return len(self._path)


class PackedForward:
    """A causal model's decoder and head, run on forests in which a prefix that several sequences share occurs once."""

    def __init__(self, model: Any) -> None:
        """Read the model's decoder, head and mask conventions.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--prefix_sharing off``.
        """
        config = model.config.get_text_config()
        layers = set(getattr(config, "layer_types", None) or ())
        unknown = layers - KNOWN_LAYERS
        if model.config.is_encoder_decoder:
            raise refusal(model, "it is an encoder-decoder")
        if unknown:
            raise refusal(model, f"it has layers of type {', '.join(sorted(unknown))}")
        if getattr(config, "use_bidirectional_attention", None):
            raise refusal(model, "its attention looks ahead")
        self.model = model
        window: int | None = getattr(config, "sliding_window", None)
        # By layer type, ``None`` for full attention; a model that does not tell its layers apart takes one mask.
        self.windows = {kind: window if kind == "sliding_attention" else None for kind in sorted(layers)}
        self.windows = self.windows or {"all": window}
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        self.device = input_device(model)
        self.mask_bytes = MASK_BYTES
        self.rope = rope_kind(model.config)
        self.rope_limit = None if self.rope == "fixed" else rope_threshold(model.config)
        kernel = getattr(config, "_attn_implementation", None)
        on_gpu = self.device.type == "cuda" and kernel == "sdpa" and getattr(model, "_supports_flex_attn", False)
        self.flex_from: int | None = 0 if kernel == "flex_attention" else FLEX_FROM if on_gpu else None
        if self.device.type == "cuda" and self.flex_from is not None:
            # Each shape of a chunk may compile anew; past the limit, which is 8, torch goes on without a kernel.
            from torch._dynamo import config as limits

            name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
            setattr(limits, name, max(COMPILED_SHAPES, getattr(limits, name)))

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head to selected positions [n, width] as the model itself would; fp32 or better."""
        logits: Tensor = self.head(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return scaled(logits, self.model.config)  # type: ignore[no-any-return]

    def hidden(
        self, forest: Forest, dense_nodes: int, block_nodes: int, stack: Stack | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Run the decoder over a forest, chunk by chunk; call in inference mode.

        A chunk has at most ``dense_nodes`` under a dense mask (fewer where that would take more than ``mask_bytes``),
        ``block_nodes`` under one of blocks. ``stack`` is given every layer's keys and values.

        Yields:
            The place of a chunk's first node, and the final hidden states of its nodes [nodes, width].
        """
        flex = self.flex_from is not None and len(forest) >= self.flex_from
        whole = len(forest) <= (block_nodes if flex else self._dense(0, dense_nodes))
        if stack is None and not whole:
            stack = Stack()
        above: IntArray = np.empty(0, dtype=np.int64)
        columns: IntArray = above  # of what the stack holds: the path above, padded
        start = 0
        while start < len(forest):
            size = block_nodes if flex else self._dense(len(above), dense_nodes)
            stop = min(len(forest), start + size)
            yield start, self._chunk(forest, start, stop, above, columns, stack, flex)[: stop - start]
            if stop < len(forest):
                path = forest.path(int(forest.parent[stop]))
                held = np.where(path < start, np.searchsorted(above, path), path - start + len(columns))
                room = padded(len(path), masks.BLOCK) if flex else len(path)
                above, columns = path, np.pad(held, (0, room - len(path)))
            start = stop

    def _dense(self, above: int, nodes: int) -> int:
        cells = self.mask_bytes / self.model.dtype.itemsize
        most = int((np.sqrt(above**2 + 4 * cells) - above) / 2)
        return max(1, min(nodes, max(most - most % SHAPE_STEP, SHAPE_STEP) - (self.rope == "longrope")))

    def _chunk(
        self, forest: Forest, start: int, stop: int, above: IntArray, columns: IntArray, stack: Stack | None, flex: bool
    ) -> Tensor:
        nodes = stop - start
        # A padding token at the deepest position keeps longrope's rotation that of the whole; see rope_threshold.
        width = padded(nodes + (self.rope == "longrope"), masks.BLOCK if flex else SHAPE_STEP)
        rest = width - nodes
        last = len(forest)
        query = np.concatenate([np.arange(start, stop), np.arange(last, last + rest)])
        depth = np.pad(forest.depth[start:stop], (0, rest), constant_values=int(forest.depth.max()))
        empty = len(columns) - len(above)
        view = masks.View(
            query,
            depth,
            np.concatenate([above, np.zeros(empty, dtype=np.int64), query]),
            np.concatenate([forest.depth[above], np.zeros(empty, dtype=np.int64), depth]),
            np.concatenate([forest.end[above], np.full(empty, -1), forest.end[start:stop], query[nodes:] + 1]),
        )
        tokens = np.pad(forest.tokens[start:stop], (0, rest))
        if stack is not None:
            stack.begin(columns, nodes)
        made = {
            kind: masks.blocks(view, window, self.device)
            if flex
            else masks.additive(view, window, self.model.dtype, self.device)
            for kind, window in self.windows.items()
        }
        with attention_of(self.model, "flex_attention" if flex else None):
            output = self.decoder(
                input_ids=torch.from_numpy(tokens)[None].to(self.device),
                attention_mask=made.get("all", made),
                position_ids=torch.from_numpy(depth)[None].to(self.device),
                past_key_values=stack,
                use_cache=stack is not None,
            )
        states: Tensor = output.last_hidden_state[0]
        return states


@contextmanager
def attention_of(model: Any, name: str | None) -> Iterator[None]:
    """Let a model attend by the named function meanwhile; ``None``: by its own."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = name or before
    try:
        yield
    finally:
        config._attn_implementation = before


def trusted_difference(model: Any) -> float:
    """The difference per token, in nats, that is taken for rounding; 0.25 in half precision or quantized."""
    return 0.25 if getattr(model, "is_quantized", False) else TRUSTED_DIFFERENCE.get(model.dtype, 0.25)


def refusal(model: Any, why: str) -> ModelError:
    """The error for a model that a trie cannot serve."""
    return ModelError(
        f"{model.config.model_type} models cannot be scored through a token trie: {why}. Use --prefix_sharing off."
    )


def reason(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
