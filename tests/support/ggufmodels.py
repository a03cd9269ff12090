"""GGUF files for llama.cpp that hold exactly the weights of a checkpoint: all F32, so that scores can be compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tinymodels
from numpy.typing import NDArray

ALL_F32 = 0  # general.file_type
NORMAL, CONTROL = 1, 3  # tokenizer.ggml.token_type
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def rewritten(source: Path, target: Path, *, add_bos: bool, dequantize: bool = True) -> Path:
    """Write a GGUF file again, with every tensor as F32 unless they are to stay; ``add_bos``: BOS leads every text."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    own = ["general.architecture", "tokenizer.ggml.add_bos_token"] + ["general.file_type"] * dequantize
    for field in reader.fields.values():
        if field.name in own or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)
    writer.add_add_bos_token(add_bos)
    if dequantize:
        writer.add_file_type(ALL_F32)
    for tensor in reader.tensors:
        if dequantize:
            writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    _close(writer)
    return target


def tiny(target: Path, *, bos: bool) -> Path:
    """Write the tiny random llama of :mod:`tinymodels`, with its tokenizer."""
    import gguf

    model = tinymodels.model("llama")
    config, state = model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(ALL_F32)
    _add_tokenizer(writer, tinymodels.tokenizer(bos), config.vocab_size, bos)
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    writer.add_tensor("output.weight", state["lm_head.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in LAYER.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            writer.add_tensor(
                f"blk.{layer}.{ours}.weight", _interleaved(weight, heads[ours]) if ours in heads else weight
            )
    _close(writer)
    return target


def _add_tokenizer(writer: Any, tokenizer: Any, size: int, bos: bool) -> None:
    """Write a byte-level BPE tokenizer; ids beyond its own vocabulary are given names nobody can type."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = {number: name for name, number in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([names.get(i, f"<unused {i}>") for i in range(size)])
    writer.add_token_types([CONTROL if i in special or i not in names else NORMAL for i in range(size)])
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(bos)
    writer.add_chat_template(tokenizer.chat_template)


def _interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key projection: llama.cpp rotates neighbours, transformers the two halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
