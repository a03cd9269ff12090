"""Tiny random checkpoints of every trained-PRM family, on disk in the layout its authors publish.

Each builder writes config.json (with the published ``architectures``), model.safetensors (with the published tensor
names) and a small tokenizer that has the family's marker, under its published id where the family fixes one. The
returned :class:`Checkpoint` keeps the plain transformers model and the raw head tensors, so that a test can compute
scores without anything of this package.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config

SHEPHERD_TAG, SHEPHERD_PLUS, SHEPHERD_MINUS = 12902, 648, 387
EXTRA_0 = 151651
SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
_LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_PRETOKENS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = [
    "Ada has 12 apples and buys 30 more.\nShe gives 7 to Bo, so 35 are left.\n\nThe answer is: 35.\n",
    "user\n\nassistant\n\nsystem\n\nPlease reason step by step.\n\nSolution: Let's think.\nProblem: 3 * 48 = 144.\n",
]
LLAMA_CHAT = (
    "{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
QWEN_CHAT = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Checkpoint:
    """A family's folder, the plain causal language model in it, the raw head tensors, and the tokenizer."""

    folder: Path
    lm: Any
    head: dict[str, torch.Tensor]
    tokenizer: Any

    @torch.no_grad()
    def logits(self, ids: list[int]) -> torch.Tensor:
        """Return the vocabulary logits of one unpadded sequence, (length, vocabulary)."""
        return self.lm(torch.tensor([ids]), use_cache=False).logits[0]

    @torch.no_grad()
    def hidden(self, ids: list[int]) -> torch.Tensor:
        """Return the last hidden states of one unpadded sequence, (length, hidden)."""
        return self.lm.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]


def sentencepiece_like(bos: bool = True, pad: str = "</s>") -> Any:
    """Return a tokenizer as of Llama 2 and Mistral: bytes at 3-258, "\\n" = 13, a space is put before each text.

    The step tag, "+" and "-" have the ids of Mistral's vocabulary.
    """
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    pieces = ["▁", *map(chr, range(33, 127)), *_LETTERS]
    vocab |= {piece: 259 + place for place, piece in enumerate(pieces)}
    vocab |= {"▁-": SHEPHERD_MINUS, "▁+": SHEPHERD_PLUS, "▁ки": SHEPHERD_TAG}
    merges = [("▁", "-"), ("▁", "+"), ("к", "и"), ("▁", "ки"), ("S", "t"), ("St", "e"), ("Ste", "p"), ("▁", "Step")]
    vocab |= {left + right: 1000 + place for place, (left, right) in enumerate(merges) if left + right not in vocab}
    assert len(set(vocab.values())) == len(vocab)
    vocab |= {f"<unused{place}>": place for place in set(range(SHEPHERD_TAG + 1)) - set(vocab.values())}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    if bos:
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token=pad
    )


def byte_level(specials: dict[str, int | None], bos: str | None = None, **named: Any) -> Any:
    """Return a byte-level BPE tokenizer as of Llama 3 and Qwen2: "+" = 10 and "-" = 12; ".\\n" and "\\n\\n" are tokens.

    Args:
        specials: Special tokens with their ids; ``None``: the next one.
        bos: This token is put before every encoded text.
        **named: What the tokenizer calls them (``eos_token``, ...) and its ``chat_template``.
    """
    raw = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PRETOKENS), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(_CORPUS * 4, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet))
    learnt = json.loads(raw.to_str())["model"]
    vocab = dict(learnt["vocab"])
    for token, place in specials.items():
        vocab[token] = len(vocab) if place is None else place
    raw.model = models.BPE(vocab=vocab, merges=[tuple(pair) for pair in learnt["merges"]])
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if bos:
        raw.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, vocab[bos])])
    template = named.pop("chat_template", None)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **named)
    made.chat_template = template
    return made


def qwen(bos: str | None = None, extra: dict[str, int | None] | None = None, real: bool = False) -> Any:
    """Return a Qwen2 tokenizer; ``real``: its special tokens have the published ids, "<extra_0>" among them."""
    places: list[int | None] = [151643, 151644, 151645, EXTRA_0] if real else [None] * 4
    specials = dict(zip(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"], places, strict=True))
    named: dict[str, Any] = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": QWEN_CHAT}
    return byte_level(specials | (extra or {}), **named, **({"bos_token": bos} if bos else {}))


def language_model(config: Any, seed: int = 5) -> Any:
    """Return a random causal language model whose every position and layer matters."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
            elif "norm" in name:
                parameter.uniform_(0.7, 1.3)
    return made.eval()


def _size(tokenizer: Any) -> int:
    return max(tokenizer.get_vocab().values()) + 1


def _head(seed: int = 9, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name.replace("__", "."): torch.randn(shape, generator=generator) * (0.4 if len(shape) > 1 else 0.7)
        for name, shape in shapes.items()
    }


def _write(
    folder: Path, lm: Any, head: dict[str, torch.Tensor], tokenizer: Any, architecture: str, *, keep: bool, **extra: Any
) -> Checkpoint:
    """Write the folder; ``keep``: with the language model's own head beside the family's."""
    folder.mkdir(parents=True, exist_ok=True)
    lm.config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": [architecture]} | extra))
    tensors = {name: t.contiguous().clone() for name, t in lm.state_dict().items() if keep or "lm_head" not in name}
    save_file({**tensors, **head}, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return Checkpoint(folder, lm, head, tokenizer)


def math_shepherd(folder: Path) -> Checkpoint:
    """peiyi9979/math-shepherd-mistral-7b-prm: a Mistral language model, read through its vocabulary."""
    lm = language_model(MistralConfig(**SIZE, vocab_size=SHEPHERD_TAG + 1, sliding_window=None))
    return _write(folder, lm, {}, sentencepiece_like(), "MistralForCausalLM", keep=True)


def rlhflow(folder: Path) -> Checkpoint:
    """RLHFlow/Llama3.1-8B-PRM-*: a Llama 3.1 language model; the tokenizer puts a BOS before encoded text."""
    specials = dict.fromkeys(["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    tokenizer = byte_level(
        specials,
        bos="<|begin_of_text|>",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA_CHAT,
    )
    lm = language_model(LlamaConfig(**SIZE, vocab_size=_size(tokenizer)))
    return _write(folder, lm, {}, tokenizer, "LlamaForCausalLM", keep=True)


def qwen_math_prm(folder: Path, real: bool = True) -> Checkpoint:
    """Qwen/Qwen2.5-Math-PRM-7B: Qwen2 with a two-layer head of two labels, and remote code that is not needed."""
    tokenizer = qwen(real=real)
    lm = language_model(Qwen2Config(**SIZE, vocab_size=_size(tokenizer)))
    head = _head(score__0__weight=(16, 16), score__0__bias=(16,), score__2__weight=(2, 16), score__2__bias=(2,))
    code = {
        "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
    }
    return _write(folder, lm, head, tokenizer, "Qwen2ForProcessRewardModel", keep=True, auto_map=code)


def skywork(folder: Path) -> Checkpoint:
    """Skywork/Skywork-o1-Open-PRM-Qwen-2.5-*: Qwen2 with its language-model head and TRL's value head beside it."""
    tokenizer = qwen(bos="<|endoftext|>")
    lm = language_model(Qwen2Config(**SIZE, vocab_size=_size(tokenizer)))
    head = _head(v_head__summary__weight=(1, 16), v_head__summary__bias=(1,))
    return _write(folder, lm, head, tokenizer, "Qwen2ForPrmModel", keep=True)


def token_classifier(folder: Path, bos: str | None = None, labels: int = 2) -> Checkpoint:
    """What TRL's PRMTrainer saves, and PURE with it: Qwen2ForTokenClassification."""
    tokenizer = qwen(bos=bos)
    lm = language_model(Qwen2Config(**SIZE, vocab_size=_size(tokenizer)))
    head = _head(score__weight=(labels, 16), score__bias=(labels,))
    names = {"id2label": {str(i): f"LABEL_{i}" for i in range(labels)}}
    return _write(folder, lm, head, tokenizer, "Qwen2ForTokenClassification", keep=False, **names)


def reasoneval(folder: Path, bias: bool = True, pad: str = "</s>") -> Checkpoint:
    """GAIR/ReasonEval-*: ``score_head`` of three classes; the padding token separates steps, and is taken out again."""
    lm = language_model(MistralConfig(**SIZE, vocab_size=SHEPHERD_TAG + 1, sliding_window=None))
    shapes: dict[str, tuple[int, ...]] = {"score_head__weight": (3, 16)} | ({"score_head__bias": (3,)} if bias else {})
    tokenizer = sentencepiece_like(pad=pad)
    more = {"score_dimension": 3, "use_bias": bias}
    return _write(folder, lm, _head(**shapes), tokenizer, "ReasonEval_7B", keep=False, **more)


def llemma(folder: Path) -> Checkpoint:
    """ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf: a Llama language model whose logits' mean is the score."""
    lm = language_model(LlamaConfig(**SIZE, vocab_size=SHEPHERD_TAG + 1))
    with torch.no_grad():  # a part common to all rows: the mean of thousands of random rows alone says nothing
        lm.lm_head.weight.add_(torch.randn(16, generator=torch.Generator().manual_seed(3)) * 0.4)
    return _write(folder, lm, {}, sentencepiece_like(), "LlamaForCausalLM", keep=True)


def scalar_head(folder: Path) -> Checkpoint:
    """A decoder with one linear output without bias, the layout of the ``scalar-head`` spec."""
    tokenizer = qwen(bos="<|endoftext|>")
    lm = language_model(Qwen2Config(**SIZE, vocab_size=_size(tokenizer)))
    return _write(folder, lm, _head(score__weight=(1, 16)), tokenizer, "Qwen2ForTokenClassification", keep=False)


def cpmi(folder: Path) -> Checkpoint:
    """What the ``cpmi`` spec describes: Qwen2 with "<RW>" added and a two-layer scalar head."""
    tokenizer = qwen(extra={"<RW>": None})
    lm = language_model(Qwen2Config(**SIZE, vocab_size=_size(tokenizer)))
    head = _head(score__0__weight=(16, 16), score__0__bias=(16,), score__2__weight=(1, 16), score__2__bias=(1,))
    return _write(folder, lm, head, tokenizer, "Qwen2ForCausalLM", keep=True)


def cpmi_code(folder: Path) -> Checkpoint:
    """A checkpoint of the CPMI code, its reward_head.pt put beside the backbone's tensors in model.safetensors."""
    tokenizer = qwen(extra={"<RW>": None})
    lm = language_model(Qwen2Config(**SIZE, vocab_size=_size(tokenizer)))
    head = _head(net__0__weight=(16, 16), net__0__bias=(16,), net__3__weight=(1, 16), net__3__bias=(1,))
    return _write(folder, lm, head, tokenizer, "Qwen2ForCausalLM", keep=True)
