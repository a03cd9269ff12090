"""Sampling completions with transformers' generate, reproducibly per prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cpmi_eval.backends.encode import Encoder
from cpmi_eval.types import Completion, Failure, Generation, Sampling, Tokens


def sample(
    model: Any, encoder: Encoder, prompt: str, sampling: Sampling, seed: int, max_length: int | None
) -> Generation | Failure:
    """Sample ``sampling.n`` completions of one prompt.

    One prompt at a time under its own seed, so the completions depend on neither order nor batch. Prompt tokens count
    as computed once per completion, because generate expands the prompt before it is read.
    """
    ids = encoder.encode_prompt(prompt)
    if max_length is not None and len(ids) + sampling.max_new_tokens > max_length:
        return Failure(
            "too_long", f"{len(ids):,} prompt + {sampling.max_new_tokens:,} new tokens; the model takes {max_length:,}"
        )
    tokenizer = encoder.tokenizer
    settings: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens, "num_return_sequences": sampling.n}
    if sampling.temperature > 0:
        # What is off must be said: a checkpoint's generation_config may hold others.
        settings |= {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": 1.0,
        }
    else:
        settings |= {"do_sample": False, "num_return_sequences": 1}
    if sampling.stop:
        settings |= {"stop_strings": list(sampling.stop), "tokenizer": tokenizer}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    inputs = torch.tensor([ids], device=model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(inputs, attention_mask=torch.ones_like(inputs), pad_token_id=pad, **settings)
    ends = _end_tokens(model, tokenizer)
    done = [_completion(row[len(ids) :].tolist(), ends, tokenizer, sampling.stop) for row in output.cpu()]
    if sampling.temperature <= 0:
        done *= sampling.n  # greedy: every sample is the same text, decoded once
    generated = sum(one.n_tokens for one in done[: len(output)])
    prompts = len(ids) * len(output)
    return Generation(tuple(done), Tokens(len(ids) * sampling.n, prompts + generated, generated))


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}


def _completion(tokens: Sequence[int], ends: set[int], tokenizer: Any, stop: Sequence[str]) -> Completion:
    """Cut a decoded row at its end of sequence or first stop string; count the tokens that were decoded."""
    end = next((i for i, token in enumerate(tokens) if token in ends), None)
    kept = tokens if end is None else tokens[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    cut = min((at for at in (text.find(mark) for mark in stop) if at >= 0), default=None)
    n_tokens = len(tokens) if end is None else end + 1
    if cut is not None:
        kept_tokens = next(
            n for n in range(len(kept) + 1) if len(tokenizer.decode(kept[:n], skip_special_tokens=True)) > cut
        )
        return Completion(text[:cut], kept_tokens, "stop")
    return Completion(text, n_tokens, "length" if end is None else "stop")
