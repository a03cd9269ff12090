"""One sequence per request, right-padded, whole logits: slow, obvious, and right for any causal model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from cpmi_eval.engine.architecture import input_device, rope_kind
from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.scoring import (
    LOGIT_FLOATS,
    Encode,
    Limits,
    cut_of,
    finite_or_failure,
    halving,
    target_logprobs,
    unscorable,
)
from cpmi_eval.types import Failure, LogProb, ScoreRequest, Tokens


class PairwiseScorer:
    """The oracle the trie is tested against, and the path for models that a trie cannot serve."""

    name = "pairwise"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the model and its budgets; models whose RoPE depends on the longest sequence go one by one."""
        self.model = model
        self.limits = limits
        self.busy = 0.0
        self.device = input_device(model)
        self.dynamic = rope_kind(model.config) == "dynamic"
        self.alone = self.dynamic or rope_kind(model.config) == "longrope"

    def score(self, requests: Sequence[ScoreRequest], encode: Encode) -> list[LogProb | Failure]:
        """Return one LogProb or Failure per request, batched by length under the token budget."""
        encoded = encode(requests)
        results: dict[int, LogProb | Failure] = {}
        ready = []
        for index, one in enumerate(encoded):
            failure = unscorable(one, self.limits)
            if failure is not None:
                results[index] = failure
            else:
                ready.append(index)
        ready.sort(key=lambda index: len(encoded[index]))

        def run(batch: Sequence[int]) -> None:
            for index, total in zip(batch, self._totals(batch, requests, encoded), strict=True):
                n = len(encoded[index])
                results[index] = finite_or_failure(
                    total, n - encoded[index].start, Tokens(requested=n - 1, computed=n - 1)
                )

        begun = time.perf_counter()
        for batch in self._batches(ready, encoded):
            halving(run, batch, lambda _: [], results.__setitem__)
        self.busy += time.perf_counter() - begun
        return [results[index] for index in range(len(requests))]

    def _batches(self, ready: Sequence[int], encoded: Sequence[Encoded]) -> Iterator[list[int]]:
        """Group indices sorted by length so that rows x longest stays within the budgets."""
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        budget = min(self.limits.batch_tokens, max(1, 4 * LOGIT_FLOATS // vocabulary))
        batch: list[int] = []
        for index in ready:
            if batch and (self.alone or (len(batch) + 1) * (len(encoded[index]) - 1) > budget):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    @torch.inference_mode()
    def _totals(
        self, batch: Sequence[int], requests: Sequence[ScoreRequest], encoded: Sequence[Encoded]
    ) -> list[float]:
        device = self.device
        longest = max(len(encoded[index]) for index in batch) - 1  # nothing is predicted from the last token
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, index in enumerate(batch):
            n = len(encoded[index])
            ids[row, : n - 1] = torch.from_numpy(encoded[index].ids[:-1])
            mask[row, : n - 1] = 1
        if self.dynamic:
            self.model(input_ids=ids[:1, :1].to(device))  # lets go of the rotation of an earlier, longer sequence
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        totals = []
        for row, index in enumerate(batch):
            start, n = encoded[index].start, len(encoded[index])
            cuts = [cut_of(requests[index])] * (n - start)
            window = logits[row, start - 1 : n - 1]
            window = window if window.dtype == torch.float64 else window.float()
            every = torch.arange(n - start, device=window.device)
            targets = torch.from_numpy(encoded[index].ids[start:]).to(window.device)
            totals.append(target_logprobs(window, every, targets, cuts).sum().item())
        return totals
