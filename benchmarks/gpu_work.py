"""What ``gpu.py`` runs on: models of a published shape with random weights, a tokenizer, traces; no network, no files.

``prepare`` writes the tokenizer and the traces into a folder that travels with the repository. Where there is none, a
tokenizer is trained in place on the embedded synthetic task, which is also where the traces then come from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import items

from cpmi_eval.types import Trace

MOST_BYTES = 10_000_000
TRACES, LONG_CHAINS, LONG_STEPS = 48, 4, 176
WHOLE = re.compile(r"-?\d+")  # answers whose negatives take no library to compare
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2 model; a vocabulary of 0 is the tokenizer's."""

    name: str
    hidden: int
    layers: int
    heads: int
    key_heads: int
    intermediate: int
    vocabulary: int
    tied: bool


QWEN_1_5B = Shape("Qwen2.5-1.5B", 1536, 28, 12, 2, 8960, 151936, tied=True)
QWEN_7B = Shape("Qwen2.5-7B", 3584, 28, 28, 4, 18944, 152064, tied=False)
EXACT = Shape("fp32, 8 layers", 512, 8, 8, 2, 1408, 0, tied=True)
TINY = Shape("tiny", 64, 2, 4, 2, 128, 0, tied=True)


@dataclass(frozen=True)
class Data:
    """Traces as they are (``short``), joined to chains of many steps (``long``), and where all of it came from."""

    tokenizer: Any
    short: list[Trace]
    long: list[Trace]
    source: str

    def chains(self, steps: int, n: int) -> list[Trace]:
        """Return ``n`` chains of exactly ``steps`` steps, the beginnings of long ones."""
        made = [replace(self.long[k % len(self.long)], id=f"chain-{steps}-{k}") for k in range(n)]
        return [replace(one, steps=one.steps[:steps]) for one in made]


# --- models ---------------------------------------------------------------------------------------------------------


def build(shape: Shape, tokenizer: Any, device: str, dtype: torch.dtype) -> Any:
    """Return a random model of this shape, made on the device.

    The rows of tokens that the tokenizer has not, or that end a text, are zero in the output embeddings: under top-k
    they are never drawn, so that every completion is text and goes on to its last token.
    """
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=max(shape.vocabulary, len(tokenizer) + 1),  # a step marker may be added
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model = model.to(device).eval().requires_grad_(requires_grad=False)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # every layer and position matters, and logits are some nats apart
            parameter.normal_(0.0, parameter.shape[1] ** -0.5)
    output = model.get_output_embeddings().weight
    output[len(tokenizer) :] = 0
    output[sorted(token for token in tokenizer.all_special_ids if token < len(output))] = 0
    return model


def decoder_weights(model: Any) -> int:
    """Return the number of weights but those of the embeddings."""
    tables = {
        id(table): table.numel() for table in (model.get_input_embeddings().weight, _head(model)) if table is not None
    }
    return sum(parameter.numel() for parameter in model.parameters()) - sum(tables.values())


def _head(model: Any) -> Any:
    output = model.get_output_embeddings()
    return None if output is None else output.weight


def operations(model: Any, tokens: int, positions: int, pairs: int) -> float:
    """Return the operations that a forward pass cannot do without.

    Args:
        model: a causal language model.
        tokens: put through the decoder: 2 for each weight.
        positions: put through the head.
        pairs: of a query and a key that it sees: 4 for each layer and unit of width.
    """
    config = model.config.get_text_config()
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    head = _head(model)
    per_position = 0 if head is None else 2 * head.numel()
    return (
        2.0 * decoder_weights(model) * tokens
        + per_position * positions
        + 4.0 * pairs * width * config.num_hidden_layers
    )


# --- tokenizer and traces -------------------------------------------------------------------------------------------


def prepare(folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Write the default model's tokenizer and traces into a folder; return what is in it.

    Raises:
        ValueError: it came out larger than it may be.
    """
    from transformers import AutoTokenizer

    from cpmi_eval.backends import models

    source = models.resolve(models.DEFAULT_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(models.loadable(source, source.sha256()))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    short, long = _traces(data_dir)
    with (folder / "traces.jsonl").open("w", encoding="utf-8") as file:
        for kind, traces in (("short", short), ("long", long)):
            for one in traces:
                row = {"kind": kind, "id": one.id, "problem": one.problem, "steps": one.steps, "answer": one.answer}
                file.write(json.dumps(row) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > MOST_BYTES:
        raise ValueError(f"{folder} holds {size:,} bytes, more than {MOST_BYTES:,}; was it empty before?")
    return {"folder": str(folder), "bytes": size, "short": len(short), "long": [len(one.steps) for one in long]}


def load(folder: Path | None) -> Data:
    """Read what :func:`prepare` wrote; where there is no folder, make do with what can be made in place."""
    from transformers import AutoTokenizer

    if folder is not None and (folder / "traces.jsonl").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        traces: dict[str, list[Trace]] = {"short": [], "long": []}
        for line in (folder / "traces.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            trace = Trace(row["id"], row["problem"], tuple(row["steps"]), row["answer"], row["id"])
            traces[row["kind"]].append(trace)
        return Data(tokenizer, traces["short"], traces["long"], f"prepared folder {folder.name}")
    short, long = _traces(None)
    return Data(_trained(short), short, long, "no prepared folder: synthetic task, a tokenizer trained on it in place")


def _traces(data_dir: str | None) -> tuple[list[Trace], list[Trace]]:
    """Return traces as they are, and chains of LONG_STEPS steps that are joined from others."""
    found = items(
        data_dir, 10_000, lambda t: t.answer is not None and bool(WHOLE.fullmatch(t.answer)), ("gsm8k", "math")
    )
    traces = [item.trace for item in found]
    every = max(1, len(traces) // TRACES)
    short = traces[::every][:TRACES]
    steps = [step for trace in traces for step in trace.steps]
    long = []
    for k in range(LONG_CHAINS):
        first = k * len(steps) // LONG_CHAINS
        own = tuple(steps[(first + i) % len(steps)] for i in range(LONG_STEPS))
        long.append(replace(short[k], id=f"long-{k}", steps=own))
    return short, long


def _trained(traces: Sequence[Trace]) -> Any:
    """Return a small byte-level BPE tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator((text for trace in traces for text in (trace.problem, *trace.steps)), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=special[1], eos_token=special[2], pad_token=special[0]
    )
    made.chat_template = CHAT
    return made
