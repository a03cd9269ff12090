"""Forward passes over packed token tries: masks, positions and the head, as the model itself would apply them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpmi_eval.engine import trie
from cpmi_eval.errors import ModelError

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
SHAPE_STEP = 32
TRUSTED_DIFFERENCE = {torch.float64: 1e-6, torch.float32: 1e-2}


def padded(size: int) -> int:
    """Round up, so that few distinct shapes occur: oneDNN compiles and keeps a kernel for each (hundreds of MB)."""
    return -(-size // SHAPE_STEP) * SHAPE_STEP


class PackedForward:
    """A causal model's decoder and head, run on rows in which a prefix that several sequences share occurs once."""

    def __init__(self, model: Any) -> None:
        """Read the model's decoder, head and mask conventions.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--scorer pairwise``.
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
        self.layers = layers
        self.window: int | None = getattr(config, "sliding_window", None)
        self.decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        # Cohere multiplies its logits, Granite divides them.
        self.scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        self.flex = getattr(config, "_attn_implementation", None) == "flex_attention"

    @property
    def windows(self) -> list[int | None]:
        """The windows of its layers, ``None`` for full attention."""
        if not self.layers:
            return [self.window]
        return [self.window if kind == "sliding_attention" else None for kind in sorted(self.layers)]

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head to selected positions [n, width] as the model itself would; fp32 or better."""
        logits: Tensor = self.head(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        logits = logits * self.scale if self.scale != 1.0 else logits
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def hidden(self, rows: Sequence[trie.Row], width: int, cache: Any = None) -> Tensor:
        """Run the decoder over rows padded to ``width``; return final hidden states [rows, width, hidden].

        ``cache``: a transformers cache that is given every layer's keys and values.
        """
        tokens = torch.zeros((len(rows), width), dtype=torch.long)
        depth = torch.zeros((len(rows), width), dtype=torch.long)
        end = torch.arange(1, width + 1).repeat(len(rows), 1)  # padding sees itself alone
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.from_numpy(row.tokens)
            depth[i, : len(row)] = torch.from_numpy(row.depth)
            end[i, : len(row)] = torch.from_numpy(row.end)
        device = self.model.device
        depth, end = depth.to(device), end.to(device)
        output = self.decoder(
            input_ids=tokens.to(device),
            attention_mask=self._masks(depth, end),
            position_ids=depth,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        states: Tensor = output.last_hidden_state
        return states

    def _masks(self, depth: Tensor, end: Tensor) -> Any:
        """Return what the decoder takes as attention_mask: one mask, or one per layer type."""
        build = _block_mask if self.flex else self._additive_mask
        if not self.layers:
            return build(depth, end, self.window)
        return {kind: build(depth, end, self.window if kind == "sliding_attention" else None) for kind in self.layers}

    def _additive_mask(self, depth: Tensor, end: Tensor, window: int | None) -> Tensor:
        """Return a [rows, 1, n, n] mask to add to attention scores; eager and sdpa both take it."""
        index = torch.arange(depth.shape[1], device=depth.device)
        visible = (index[None, :, None] >= index[None, None, :]) & (index[None, :, None] < end[:, None, :])
        if window is not None:
            visible &= depth[:, :, None] - depth[:, None, :] < window
        dtype = self.model.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=depth.device)
        return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def _block_mask(depth: Tensor, end: Tensor, window: int | None) -> Any:
    """Return the same visibility as a FlexAttention block mask, whose cost follows the blocks that are not empty."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (key <= query) & (query < end[batch, key])
        return seen if window is None else seen & (depth[batch, query] - depth[batch, key] < window)

    rows, width = depth.shape
    return create_block_mask(visible, B=rows, H=None, Q_LEN=width, KV_LEN=width, device=str(depth.device))


def trusted_difference(dtype: torch.dtype) -> float:
    """Return the difference per token, in nats, that is taken for rounding; 0.25 in half precision."""
    return TRUSTED_DIFFERENCE.get(dtype, 0.25)


def refusal(model: Any, reason: str) -> ModelError:
    """Return the error for a model that a trie cannot serve."""
    return ModelError(
        f"{model.config.model_type} models cannot be scored through a token trie: {reason}. Use --scorer pairwise."
    )
