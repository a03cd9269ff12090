"""Drawing tokens from logits, reproducibly per completion: what every way of generating shares.

A completion's ``t``-th token is a function of its logits and of the ``t``-th number of a stream that belongs to the
completion's seed alone. So neither the other rows of a batch nor their order matter, up to the last bits of the logits.
To keep these bits from mattering, a number picks a token by its place among the candidates *by token id*, not by
probability: tokens that are (nearly) tied may swap ranks from one batch to the next, their ids do not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpmi_eval.types import Completion, Failure, Sampling

NUCLEUS = 256  # candidates that are looked at before a whole vocabulary is sorted
NOTHING = -1  # what is drawn from logits that are not numbers
NON_FINITE = Failure("non_finite", "the model gave logits that are not numbers; try --dtype float32")


def uniforms(seed: int, n: int) -> NDArray[np.float64]:
    """The first ``n`` numbers in [0, 1) of the stream of ``seed``; the same on every machine."""
    return np.random.Generator(np.random.Philox(key=seed)).random(n)


def penalized(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits [rows, vocabulary] of tokens marked in ``seen`` (same shape, bool).

    The repetition penalty of CTRL (arXiv 1909.05858), as transformers applies it.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(logits: Tensor, sampling: Sampling, numbers: Tensor) -> Tensor:
    """One token id per row of fp32 ``logits`` [rows, vocabulary], given a number in [0, 1) per row.

    Greedy where the temperature is 0; of tied tokens the lowest id. Tokens tied with the last one that top-k or top-p
    keeps are kept too. A row whose highest logit is no finite number gives :data:`NOTHING`.
    """
    chosen = logits.argmax(dim=-1) if sampling.temperature <= 0 else _sampled(logits, sampling, numbers)
    return chosen.masked_fill(~logits.amax(dim=-1).isfinite(), NOTHING)  # amax hands NaN on


def _sampled(logits: Tensor, sampling: Sampling, numbers: Tensor) -> Tensor:
    vocabulary = logits.shape[-1]
    if sampling.top_k <= 0 and sampling.top_p >= 1.0:
        ids = torch.arange(vocabulary, device=logits.device).expand_as(logits)
        return _pick(logits / sampling.temperature, ids, torch.ones_like(logits, dtype=torch.bool), numbers)
    total = None if sampling.top_k > 0 else (logits / sampling.temperature).logsumexp(dim=-1, keepdim=True)
    width = min(vocabulary, 2 * sampling.top_k if sampling.top_k > 0 else NUCLEUS)
    while True:
        values, ids = logits.topk(width, dim=-1)  # in descending order
        values = values / sampling.temperature
        lowest, settled = _lowest_kept(values, total, sampling)
        if width == vocabulary or settled:
            break
        width = min(vocabulary, 16 * width)
    return _pick(values, ids, values >= lowest, numbers)


def _lowest_kept(values: Tensor, total: Tensor | None, sampling: Sampling) -> tuple[Tensor, bool]:
    """The lowest logit that stays in, per row, and whether the given candidates are sure to hold all of them.

    ``values`` [rows, width] are the highest logits in descending order; ``total`` [rows, 1] is the log of all mass,
    which top-p alone needs.
    """
    lowest, inside, reached = values[:, -1:], torch.ones_like(values, dtype=torch.bool), True
    if sampling.top_k > 0:
        lowest = values[:, : sampling.top_k][:, -1:]
        inside = values >= lowest
        total = values.masked_fill(~inside, -torch.inf).logsumexp(dim=-1, keepdim=True)
    if sampling.top_p < 1.0:
        assert total is not None
        mass = (values - total).exp().masked_fill(~inside, 0.0)
        before = mass.cumsum(dim=-1) - mass
        inside &= before < sampling.top_p  # up to and including the token that reaches top_p
        lowest = values.masked_fill(~inside, torch.inf).min(dim=-1, keepdim=True).values
        reached = sampling.top_k > 0 or bool((before[:, -1] + mass[:, -1] >= sampling.top_p).all())
    return lowest, reached and not bool((values[:, -1:] >= lowest).any())  # nor any tied beyond


def _pick(values: Tensor, ids: Tensor, keep: Tensor, numbers: Tensor) -> Tensor:
    """Pick by cumulative probability over the kept candidates in order of their ids."""
    order = ids.argsort(dim=-1) if ids.stride(0) else None
    if order is not None:
        values, ids, keep = values.gather(1, order), ids.gather(1, order), keep.gather(1, order)
    cumulative = values.masked_fill(~keep, -torch.inf).softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    everything = cumulative[:, -1:]
    target = torch.minimum(numbers.to(cumulative)[:, None] * everything, everything.nextafter(everything.new_zeros(1)))
    place = torch.searchsorted(cumulative, target, right=True)  # the first to exceed it, hence a kept one
    return ids.gather(1, place.clamp(max=ids.shape[1] - 1)).squeeze(1)  # past the end: they are NaN


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end a completion."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}


def completion(
    tokens: Sequence[int], ends: set[int], tokenizer: Any, stop: Sequence[str], sample: int = 0
) -> Completion:
    """Cut decoded tokens at their end of sequence or first stop string; count the tokens that were decoded."""
    end = next((i for i, token in enumerate(tokens) if token in ends), None)
    kept = tokens if end is None else tokens[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    cut = min((at for at in (text.find(mark) for mark in stop) if at >= 0), default=None)
    if cut is not None:
        n_tokens = bisect_left(range(len(kept)), True, key=lambda n: _holds(tokenizer, kept[:n], stop))
        return Completion(text[:cut], n_tokens, "stop", sample)
    return Completion(text, len(tokens) if end is None else end + 1, "length" if end is None else "stop", sample)


def stopped(tokenizer: Any, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the last of a completion's tokens may have completed a stop string; looks at the last few only."""
    # Every token but special ones and parts of a character adds a character, so a stop string is in these.
    return bool(stop) and _holds(tokenizer, tokens[-(max(map(len, stop)) * 4 + 4) :], stop)


def _holds(tokenizer: Any, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return any(mark in text for mark in stop)
