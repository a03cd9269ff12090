"""What a model's configuration says about sharing prefixes: layer types, windows, RoPE, lengths, row size."""

from __future__ import annotations

from typing import Any

from cpmi_eval.engine.trie import ATTENTION_SHARE

ROW_TOKENS = (512, 8192)


def _rope(config: Any) -> list[dict[str, Any]]:
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return nested or [parameters]


def rope_kind(config: Any) -> str:
    """``dynamic`` or ``longrope`` where the rotation depends on the longest sequence, else ``fixed``."""
    kinds = {parameters.get("rope_type", "default") for parameters in _rope(config)}
    return next((kind for kind in ("dynamic", "longrope") if kind in kinds), "fixed")


def rope_threshold(config: Any) -> int | None:
    """The length beyond which dynamic or longrope RoPE changes its rotation."""
    text = config.get_text_config()
    for parameters in _rope(config):
        original = parameters.get("original_max_position_embeddings")
        if original:
            return int(original)
    limit = getattr(text, "max_position_embeddings", None)
    return int(limit) if limit else None


def max_length(config: Any) -> int | None:
    """The longest sequence the model takes, in tokens; ``None`` if it sets no bound."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not limit:
        return None
    stretch = max(float(parameters.get("factor") or 1.0) for parameters in _rope(config))
    return int(limit * stretch) if rope_kind(config) == "dynamic" else int(limit)


def scaled(logits: Any, config: Any) -> Any:
    """Logits as the model gives them: Cohere multiplies what its head gives, Granite divides it, Gemma caps it."""
    config = config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    logits = logits * scale if scale != 1.0 else logits
    return logits if softcap is None else softcap * (logits / softcap).tanh()


def input_device(model: Any) -> Any:
    """The device that takes a model's token ids; accelerate brings what follows to wherever a layer lies."""
    embeddings = model.get_input_embeddings()
    device = embeddings.weight.device
    if device.type != "meta":
        return device
    import torch

    return torch.device(getattr(getattr(embeddings, "_hf_hook", None), "execution_device", None) or "cpu")  # offloaded


def devices(model: Any) -> list[Any]:
    """The devices that hold a model's weights, the one that takes its token ids first."""
    found = [input_device(model), *(weight.device for weight in model.parameters())]
    return list(dict.fromkeys(one for one in found if one.type != "meta"))


def cache_tokens(model: Any) -> int:
    """How many tokens' keys and values the completions being decoded may hold together.

    2 GB of them on a CPU; on a GPU half of what the weights leave free.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    width = key_heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    per_token = 2 * config.num_hidden_layers * width * model.dtype.itemsize
    budget = 2e9
    device = input_device(model)
    if device.type == "cuda":
        import torch

        budget = (torch.cuda.get_device_properties(device).total_memory - model.get_memory_footprint()) / 2
    return max(1, int(budget / per_token))


def row_tokens(model: Any) -> int:
    """A good size for a packed row: small models pay more for attention, so their rows are shorter.

    Per token and layer a forward pass takes about 2 N operations for N weights and 4 T d for T attended positions of
    width d; the row length T that makes the second ATTENTION_SHARE of the first is ATTENTION_SHARE N / (2 d).
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not heads:  # no attention to pay for
        return ROW_TOKENS[0]
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())  # a bare decoder has no output ones
    tables = [embedding.weight for embedding in embeddings if embedding is not None]
    weights = sum(p.numel() for p in model.parameters()) - sum({id(t): t.numel() for t in tables}.values())
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    ideal = ATTENTION_SHARE * weights / config.num_hidden_layers / (2 * width)
    return int(min(max(ideal, ROW_TOKENS[0]), ROW_TOKENS[1]))
