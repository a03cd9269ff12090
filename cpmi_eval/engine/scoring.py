"""Budgets, the out-of-memory rule, and log-probabilities from logits: what readers and generators share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from cpmi_eval.types import Enough, Failure, Generation, Sampling

log = logging.getLogger(__name__)
K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
Batch: TypeAlias = Sequence[tuple[K, V]]

OUT_OF_MEMORY = Failure(
    "out_of_memory", "one sequence is too much for this device; try --dtype bfloat16, a smaller model, more memory"
)
LOGIT_FLOATS = 1 << 25  # logits in flight at a time: 128 MB of fp32


class Generator(Protocol):
    """Samples completions of prompts; see :meth:`cpmi_eval.protocols.Backend.generate`."""

    name: str

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None = None
    ) -> list[Generation | Failure]:
        """Return one Generation or Failure per prompt."""


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


def halving(run: Callable[[Batch[K, V]], list[tuple[K, R]]], batch: Batch[K, V]) -> list[tuple[K, R | Failure]]:
    """Run a batch of keyed elements; on out-of-memory its halves. One that is too much on its own fails alone."""
    try:
        return [*run(batch)]
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(batch) == 1:
        log.warning("out of memory on a single row; giving it up")
        return [(batch[0][0], OUT_OF_MEMORY)]
    log.warning("out of memory on %d rows; retrying as halves", len(batch))
    return [one for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]) for one in halving(run, half)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's memory is exhausted."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Truncation:
    """Renormalise over the ``top_k`` likeliest tokens / the smallest set of mass ``top_p``, and the target itself."""

    top_k: int
    top_p: float

    @property
    def active(self) -> bool:
        """Whether this changes anything."""
        return self.top_k > 0 or self.top_p < 1.0


WHOLE = Truncation(0, 1.0)


def truncated_logprob(logprobs: Tensor, targets: Tensor, cut: Truncation) -> Tensor:
    """Return log-probabilities of ``targets`` [n] under truncated rows of ``logprobs`` [n, vocabulary].

    As in sampling, top-k is applied first and top-p to what it leaves, renormalised. The target is always kept, so a
    target outside the support has a small probability rather than none.
    """
    ordered = logprobs.sort(dim=-1, descending=True).values
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if cut.top_k:
        keep[:, cut.top_k :] = False
    if cut.top_p < 1.0:
        mass = ordered.masked_fill(~keep, -torch.inf).softmax(dim=-1)
        keep &= mass.cumsum(dim=-1) - mass < cut.top_p  # up to and including the token that reaches top_p
    kept = ordered.masked_fill(~keep, -torch.inf).logsumexp(dim=-1)
    chosen = logprobs.gather(1, targets[:, None]).squeeze(1)
    lowest = ordered.masked_fill(~keep, torch.inf).min(dim=-1).values
    return chosen - torch.where(chosen >= lowest, kept, torch.logaddexp(kept, chosen))


def target_logprobs(logits: Tensor, rows: Tensor, targets: Tensor, cuts: Sequence[Truncation]) -> Tensor:
    """Return the log-probability of ``targets[i]`` under ``logits[rows[i]]``, shape [n], for logits [m, vocabulary]."""
    result = logits[rows, targets] - logits.logsumexp(dim=-1)[rows]
    for cut in {cut for cut in cuts if cut.active}:
        where = torch.tensor([i for i, other in enumerate(cuts) if other == cut], device=logits.device)
        logprobs = logits[rows[where]].log_softmax(dim=-1)
        result[where] = truncated_logprob(logprobs, targets[where], cut)
    return result
