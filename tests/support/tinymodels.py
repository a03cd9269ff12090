"""Tiny random models of real architectures and a small byte-level BPE tokenizer: numerics in milliseconds."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 400
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other
TEXT = [
    "Problem: Ada has 12 apples and buys 30 more.\n\nShe gives 7 to Bo.\n\nThe answer is: 35\n\n",
    "Question: how many miles in 3 hours at 48 mph?\n\nReasoning:\n\n3 * 48 = 144 miles.\n\nThe answer is: 144",
    "The answer is: \\frac{3}{4}\n\nStep by step, 1,200 dollars and 5% of it.\n\n",
]
_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_HEADS = {**_SIZE, "head_dim": 8}
_LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [2.5] * 4}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_SIZE),
    "qwen2": lambda: Qwen2Config(**_SIZE),
    "qwen3": lambda: Qwen3Config(**_HEADS),
    "mistral": lambda: MistralConfig(**_HEADS, sliding_window=7),
    "gemma2": lambda: Gemma2Config(
        **_HEADS, sliding_window=7, attn_logit_softcapping=2.0, final_logit_softcapping=3.0, query_pre_attn_scalar=8
    ),
    "gemma3": lambda: Gemma3TextConfig(**_HEADS, sliding_window=7, layer_types=_ALTERNATING, query_pre_attn_scalar=8),
    "granite": lambda: GraniteConfig(**_SIZE, logits_scaling=3.0),
    "cohere": lambda: CohereConfig(**_SIZE, logit_scale=0.2),
    "longrope": lambda: Phi3Config(
        **_SIZE,
        original_max_position_embeddings=40,
        pad_token_id=0,
        rope_parameters={**_LONG, "original_max_position_embeddings": 40},
    ),
    "dynamic": lambda: LlamaConfig(
        **{**_SIZE, "max_position_embeddings": 40},
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    ),
    "bloom": lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
    "gpt_neo": lambda: GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=16,
        max_position_embeddings=512,
    ),
}


@cache
def model(name: str, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Any:
    """Return a random model in evaluation mode; weights are large enough that every position matters."""
    torch.manual_seed(7)
    config = CONFIGS[name]()
    kind = attention or ("eager" if name == "gemma2" else None)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=kind)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return made.to(dtype).eval()


@cache
def tokenizer(bos: bool = False) -> Any:
    """Return a fast tokenizer that merges across word boundaries ("\\n\\n" is one token), with BOS if asked."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    special = ["<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(TEXT * 4, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")
    made.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    return made


def save(folder: Path, name: str = "llama", bos: bool = False) -> Path:
    """Write a tiny checkpoint with its tokenizer, as save_pretrained does."""
    model(name).save_pretrained(folder)
    tokenizer(bos).save_pretrained(folder)
    return folder
