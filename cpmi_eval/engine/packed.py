"""Scoring through token tries: a prefix that several requests share is computed once, in one masked forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine import trie
from cpmi_eval.engine.architecture import rope_kind, rope_threshold
from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.forward import PackedForward, padded, refusal, trusted_difference
from cpmi_eval.engine.pairwise import PairwiseScorer
from cpmi_eval.engine.scoring import (
    LOGIT_FLOATS,
    Limits,
    Truncation,
    cut_of,
    finite_or_failure,
    halving,
    target_logprobs,
    unscorable,
)
from cpmi_eval.errors import ModelError
from cpmi_eval.types import Failure, LogProb, ScoreRequest, Tokens


@dataclass(frozen=True)
class _Job:
    """A packed row, and for each of its sequences the index of its request."""

    row: trie.Row
    requests: dict[int, int]

    def split(self, encoded: Sequence[Encoded]) -> list[_Job]:
        """Return the row's sequences packed into rows of at most half the size; empty if that gains nothing."""
        half = max(1, len(self.row) // 2)
        jobs = _jobs(list(self.requests.values()), encoded, half, half)
        return jobs if len(jobs) > 1 else []


def _jobs(
    indices: Sequence[int], encoded: Sequence[Encoded], row_tokens: int, max_nodes: int | None = None
) -> list[_Job]:
    """Pack the sequences of the given requests, each without its last token: nothing is predicted from it."""
    rows = trie.pack([encoded[index].ids[:-1] for index in indices], row_tokens, max_nodes)
    return [_Job(row, {member: indices[member] for member in row.paths}) for row in rows]


class TrieScorer:
    """Packs all requests into token tries and reads the wanted positions out of a few forward passes.

    Equal to :class:`PairwiseScorer` up to rounding for causal transformers in which attention depends on content and
    on the positions passed in. :func:`distrust` measures whether a model is one.
    """

    name = "trie"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the budgets.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--scorer pairwise``.
        """
        self.forward = PackedForward(model)
        self.model = model
        self.limits = limits
        self.rope = rope_kind(model.config)
        self.rope_threshold = rope_threshold(model.config)

    def score(self, requests: Sequence[ScoreRequest], encoded: Sequence[Encoded]) -> list[LogProb | Failure]:
        """Return one LogProb or Failure per request. A shared node is paid for by one of those that share it."""
        results: dict[int, LogProb | Failure] = {}
        ready: list[int] = []
        for index, one in enumerate(encoded):
            failure = unscorable(one, self.limits) or self._beyond_rope(one)
            if failure is None:
                ready.append(index)
            else:
                results[index] = failure
        totals = np.zeros(len(encoded))
        computed = np.zeros(len(encoded), dtype=np.int64)

        def run(batch: Sequence[_Job]) -> None:
            indices, logprobs = self._logprobs(batch, requests, encoded)
            np.add.at(totals, indices, logprobs)  # only now: a batch that ran out of memory left no trace
            for job in batch:
                owners, nodes = np.unique(job.row.owner, return_counts=True)
                computed[[job.requests[owner] for owner in owners.tolist()]] += nodes

        def give_up(job: _Job, failure: Failure) -> None:
            results.update(dict.fromkeys(job.requests.values(), failure))

        for group in self._rope_groups(ready, encoded):
            for batch in self._batches(_jobs(group, encoded, self.limits.row_tokens)):
                halving(run, batch, lambda job: job.split(encoded), give_up)
        for index in ready:
            if index in results:
                continue
            n = len(encoded[index].ids)
            cost = Tokens(requested=n - 1, computed=int(computed[index]))
            results[index] = finite_or_failure(float(totals[index]), n - encoded[index].start, cost)
        return [results[index] for index in range(len(requests))]

    def _beyond_rope(self, one: Encoded) -> Failure | None:
        """Past its threshold dynamic RoPE rotates every length differently: nothing can be shared there."""
        if self.rope != "dynamic" or self.rope_threshold is None or len(one.ids) - 1 <= self.rope_threshold:
            return None
        return Failure(
            "too_long",
            f"{len(one.ids):,} tokens, past the {self.rope_threshold:,} within which this model's dynamic RoPE lets "
            "prefixes be shared; use --scorer pairwise",
        )

    def _rope_groups(self, ready: Sequence[int], encoded: Sequence[Encoded]) -> list[list[int]]:
        """Longrope rotates sequences on the two sides of its threshold differently: they are never mixed."""
        limit = self.rope_threshold
        if self.rope != "longrope" or limit is None:
            return [list(ready)] if ready else []
        short = [index for index in ready if len(encoded[index].ids) - 1 <= limit]
        long = [index for index in ready if len(encoded[index].ids) - 1 > limit]
        return [group for group in (short, long) if group]

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
        """Group rows of similar length so that rows x longest stays within the token budget."""
        batch: list[_Job] = []
        for job in sorted(jobs, key=lambda job: -len(job.row)):
            if batch and (len(batch) + 1) * len(batch[0].row) > self.limits.batch_tokens:
                yield batch
                batch = []
            batch.append(job)
        if batch:
            yield batch

    @torch.inference_mode()
    def _logprobs(
        self, batch: Sequence[_Job], requests: Sequence[ScoreRequest], encoded: Sequence[Encoded]
    ) -> tuple[trie.IntArray, np.ndarray[Any, np.dtype[np.float64]]]:
        """Return, for every predicted token of the batch, its request's index and its log-probability."""
        width = padded(max(len(job.row) for job in batch))
        hidden = self.forward.hidden([job.row for job in batch], width).flatten(0, 1)
        nodes, targets, owners = [], [], []
        for place, job in enumerate(batch):
            for member, path in job.row.paths.items():
                index = job.requests[member]
                one = encoded[index]
                nodes.append(path[one.start - 1 :] + place * width)
                targets.append(one.ids[one.start :])
                owners.append(np.full(len(one.ids) - one.start, index))
        node, target, owner = np.concatenate(nodes), np.concatenate(targets), np.concatenate(owners)
        order = np.argsort(node, kind="stable")
        node, target, owner = node[order], target[order], owner[order]
        rows, which = np.unique(node, return_inverse=True)
        cuts = [cut_of(requests[index]) for index in owner.tolist()]
        step = max(1, LOGIT_FLOATS // self.forward.head.weight.shape[0])
        parts: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        for first in range(0, len(rows), step):
            low, high = np.searchsorted(which, [first, first + step])
            read = rows[first : first + step]
            read = np.pad(read, (0, padded(len(read)) - len(read)), mode="edge")
            logits = self.forward.logits(hidden[torch.from_numpy(read).to(hidden.device)])
            parts.append(self._pick(logits, which[low:high] - first, target[low:high], cuts[low:high]))
        return owner, np.concatenate(parts)

    @staticmethod
    def _pick(
        logits: Tensor, which: trie.IntArray, target: trie.IntArray, cuts: Sequence[Truncation]
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        rows = torch.from_numpy(which).to(logits.device)
        wanted = torch.from_numpy(target).to(logits.device)
        return target_logprobs(logits, rows, wanted, cuts).double().cpu().numpy()


def distrust(scorer: TrieScorer, vocabulary: int) -> float:
    """Return how far a trie is from the pairwise way on this model: root mean square over tokens, in nats.

    A stem, one branch that fills half a row, then a second branch: a model whose attention depends on indices, or that
    carries state from token to token, gives the second branch other scores than it has on its own.

    Raises:
        ModelError: the difference is more than rounding, or the model does not take the mask.
    """
    rng = np.random.default_rng(0)
    long = min(scorer.limits.row_tokens // 2, (scorer.limits.max_length or 1 << 30) - 20)
    stem, first, second = (rng.integers(0, vocabulary, n) for n in (16, max(long, 1), 24))
    occupied = Encoded(np.concatenate([stem, first]), len(stem))
    branch = np.concatenate([stem, second])
    encoded = [occupied, *(Encoded(branch, start) for start in range(len(stem), len(branch)))]
    requests = [ScoreRequest("", "")] * len(encoded)
    try:
        ours = scorer.score(requests, encoded)[1:]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refusal(scorer.model, f"it does not run with the mask a trie needs ({reason[:200]})") from error
    theirs = PairwiseScorer(scorer.model, scorer.limits).score(requests[1:], encoded[1:])
    totals = []
    for results in (ours, theirs):
        failure = next((result for result in results if isinstance(result, Failure)), None)
        if failure is not None:
            raise ModelError(f"the model gives no usable log-probabilities: {failure.message}")
        totals.append([result.total for result in results if isinstance(result, LogProb)])
    # Totals from one token to the end: their differences are single tokens.
    per_token = np.diff(np.array(totals), append=0.0)
    difference = float(np.sqrt(np.mean((per_token[0] - per_token[1]) ** 2)))
    trusted = trusted_difference(scorer.model.dtype)
    if difference > trusted:
        raise refusal(
            scorer.model,
            f"tokens of a second branch score {difference:.3g} nats away from what they do alone (limit {trusted:g})",
        )
    return difference
