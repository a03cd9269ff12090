"""Budgets, the out-of-memory rule, and log-probabilities from logits: what readers and generators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from cpmi_eval.types import Failure

Cut: TypeAlias = tuple[int, float]  # top_k, top_p

OUT_OF_MEMORY = Failure(
    "out_of_memory", "one sequence is too much for this device; try --dtype bfloat16, a smaller model, more memory"
)
LOGIT_FLOATS = 1 << 25  # logits in flight at a time: 128 MB of fp32


@dataclass(frozen=True)
class Limits:
    """Budgets. ``row_tokens``: nodes of a chunk with a dense mask; ``batch_tokens``: with block masks.

    ``slots``: completions that are decoded at a time, as long as they fit into ``cache_tokens`` together.
    """

    row_tokens: int
    batch_tokens: int
    max_length: int | None
    slots: int = 128
    cache_tokens: int = 65536

    def slots_for(self, max_new_tokens: int) -> int:
        """How many completions of up to ``max_new_tokens`` are decoded at a time."""
        return max(1, min(self.slots, self.cache_tokens // max_new_tokens))

    def too_long(self, length: int, unread: int = 0) -> Failure | None:
        """Say why a sequence is too long, its last ``unread`` tokens left aside; nothing is ever truncated to fit."""
        if self.max_length is None or length - unread <= self.max_length:
            return None
        return Failure("too_long", f"{length:,} tokens; the model takes {self.max_length:,}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's memory is exhausted."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def truncated_logprob(logprobs: Tensor, targets: Tensor, cut: Cut) -> Tensor:
    """Log-probabilities of ``targets`` [n] under rows of ``logprobs`` [n, vocabulary], renormalised over a support.

    The ``top_k`` likeliest tokens (0: all), and of these the smallest set of mass ``top_p``, as in sampling. The target
    is always kept, so one outside the support has a small probability rather than none.
    """
    top_k, top_p = cut
    ordered = logprobs.sort(dim=-1, descending=True).values
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k:
        keep[:, top_k:] = False
    if top_p < 1.0:
        mass = ordered.masked_fill(~keep, -torch.inf).softmax(dim=-1)
        keep &= mass.cumsum(dim=-1) - mass < top_p  # up to and including the token that reaches top_p
    kept = ordered.masked_fill(~keep, -torch.inf).logsumexp(dim=-1)
    chosen = logprobs.gather(1, targets[:, None]).squeeze(1)
    lowest = ordered.masked_fill(~keep, torch.inf).min(dim=-1).values
    return chosen - torch.where(chosen >= lowest, kept, torch.logaddexp(kept, chosen))


def target_logprobs(logits: Tensor, rows: Tensor, targets: Tensor, cuts: Sequence[Cut]) -> Tensor:
    """The log-probability of ``targets[i]`` under ``logits[rows[i]]``, shape [n], for logits [m, vocabulary]."""
    result = logits[rows, targets] - logits.logsumexp(dim=-1)[rows]
    for cut in {(top_k, top_p) for top_k, top_p in cuts if top_k > 0 or top_p < 1.0}:
        where = torch.tensor([i for i, other in enumerate(cuts) if other == cut], device=logits.device)
        logprobs = logits[rows[where]].log_softmax(dim=-1)
        result[where] = truncated_logprob(logprobs, targets[where], cut)
    return result
