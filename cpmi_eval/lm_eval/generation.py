"""lm-eval's generation arguments as what the shared generator understands, with the results of lm-eval's ``hf``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cpmi_eval.engine.encode import Encoder
from cpmi_eval.engine.trie import IntArray
from cpmi_eval.errors import UsageError
from cpmi_eval.settings import optional_flag
from cpmi_eval.types import Sampling

log = logging.getLogger(__name__)

APPLIED = {"do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "until", "max_gen_toks"}
# What transformers' generate would apply and the shared generator does not, each with the values that do nothing.
UNAPPLIED: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("num_beams", "num_return_sequences", "encoder_repetition_penalty", "guidance_scale"), (None, 1)),
    **dict.fromkeys(
        ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), (None, 0)
    ),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), (None, [])),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "forced_bos_token_id", "forced_eos_token_id"), (None,)),
    "exponential_decay_length_penalty": (None,),
}
UNAPPLIED_DRAWS: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("min_p", "epsilon_cutoff", "eta_cutoff"), (None, 0)),
    "typical_p": (None, 1),
}
TOP_K = 50  # what transformers samples from where neither the request nor the checkpoint says


@dataclass(frozen=True)
class Plan:
    """How the requests with the same generation arguments are decoded.

    ``room``: tokens of a prompt that leave enough for the completion. ``ends``: ids of special tokens that end one,
    because their text is a stop string: special tokens leave no text in a completion.
    """

    sampling: Sampling
    room: int
    ends: frozenset[int]


class PromptEncoder(Encoder):
    """Encodes prompts as lm-eval does (``encode``; ``first`` stands for none); too long ones lose their beginning."""

    def __init__(self, tokenizer: Any, encode: Callable[[str], list[int]], first: int) -> None:
        super().__init__(tokenizer)
        self._encode = encode
        self._empty = [first]
        self.room: int | None = None

    def encode_prompts(self, texts: Sequence[str]) -> list[IntArray]:
        """Return the last ``room`` ids of each prompt."""
        return [np.array(self._kept(text), dtype=np.int64) for text in texts]

    def _kept(self, text: str) -> list[int]:
        ids = self._encode(text) or self._empty
        if self.room is not None and len(ids) > self.room:
            lost = len(ids) - self.room
            log.warning("a prompt of %d tokens loses its first %d: there is room for %d", len(ids), lost, self.room)
            ids = ids[-self.room :]
        return ids


def plan(asked: Mapping[str, Any], model: Any, tokenizer: Any, max_length: int, default_length: int) -> Plan:
    """Return how to decode requests with the generation arguments ``asked``.

    What they leave open is taken from the checkpoint's ``generation_config``, as transformers does.

    Raises:
        UsageError: an argument that would not be applied, or no room for a prompt.
    """
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

    args = dict(normalize_gen_kwargs(dict(asked), default_length))
    until = handle_stop_sequences(args.pop("until"), eos=tokenizer.decode(tokenizer.eos_token_id))
    if "" in until:
        raise UsageError("an empty stop string (until) would end every completion at its first token; leave it out")
    length = int(args.pop("max_gen_toks"))
    draws = optional_flag("do_sample", args.pop("do_sample", None)) or False
    config = model.generation_config
    _refuse(args, config, draws)
    room = max_length - length
    if room < 1:
        raise UsageError(f"max_gen_toks={length} leaves no room for a prompt: the model takes {max_length} tokens")
    penalty = float(_first(args.get("repetition_penalty"), config.repetition_penalty, 1.0))
    sampling = Sampling(length, temperature=0.0, repetition_penalty=penalty, stop=tuple(effective(until)))
    if draws:
        sampling = replace(
            sampling,
            temperature=float(args.get("temperature", 0.0)),
            top_p=float(_first(args.get("top_p"), config.top_p, 1.0)),
            top_k=int(_first(args.get("top_k"), config.top_k, TOP_K)),
        )
        if sampling.temperature <= 0:
            raise UsageError("do_sample=True needs a temperature above 0; add it to --gen_kwargs")
    special = set(tokenizer.all_special_tokens)
    ends = frozenset(int(tokenizer.convert_tokens_to_ids(mark)) for mark in until if mark in special)
    return Plan(sampling, room, ends)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _refuse(args: Mapping[str, Any], config: Any, draws: bool) -> None:
    """Refuse what would change the text and is not applied here, whether asked for or set by the checkpoint."""
    unapplied = {**UNAPPLIED, **UNAPPLIED_DRAWS} if draws else UNAPPLIED
    for key in args:
        if key not in APPLIED and key not in UNAPPLIED and key not in UNAPPLIED_DRAWS:
            raise UsageError(
                f"cpmi-hf does not apply the generation argument {key}; it knows {', '.join(sorted(APPLIED))}. "
                "lm-eval's own model, --model hf, hands it to transformers"
            )
    for key, neutral in unapplied.items():
        value = args[key] if key in args else getattr(config, key, None)
        if value not in neutral:
            where = "is asked for" if key in args else "is set by the checkpoint's generation_config"
            raise UsageError(f"{key}={value!r} {where}, and cpmi-hf does not apply it; use lm-eval's own --model hf")


def effective(until: list[str]) -> list[str]:
    """Return the stop strings that can have an effect where lm-eval cuts at one after the other.

    One that contains an earlier one is never found: the earlier one has cut the text inside it. What is left is cut at
    the first to begin; only where two that overlap in part are completed by the same token may lm-eval cut elsewhere.
    """
    return [mark for at, mark in enumerate(until) if not any(earlier in mark for earlier in until[:at])]
