"""The trie scorer, told also whether a continuation is what greedy decoding would have written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cpmi_eval.engine import trie
from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.packed import TrieScorer, _Job
from cpmi_eval.engine.scoring import Limits, Truncation
from cpmi_eval.types import Failure, LogProb, ScoreRequest


class GreedyTrieScorer(TrieScorer):
    """Scores sequences of token ids; see :class:`cpmi_eval.engine.packed.TrieScorer`."""

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the budgets; see :class:`cpmi_eval.engine.packed.TrieScorer`."""
        super().__init__(model, limits)
        self._likeliest: NDArray[np.bool_] = np.ones(0, dtype=bool)  # per request of the current call
        self._hits: list[NDArray[np.bool_]] = []  # per predicted token of the current batch

    def score_greedy(self, encoded: Sequence[Encoded]) -> list[tuple[LogProb, bool] | Failure]:
        """Return each sequence's result, and whether every token of its continuation is the likeliest in its place."""
        self._likeliest = np.ones(len(encoded), dtype=bool)
        results = self.score([ScoreRequest("", "")] * len(encoded), encoded)
        return [
            result if isinstance(result, Failure) else (result, bool(likeliest))
            for result, likeliest in zip(results, self._likeliest, strict=True)
        ]

    def _logprobs(
        self, batch: Sequence[_Job], requests: Sequence[ScoreRequest], encoded: Sequence[Encoded]
    ) -> tuple[trie.IntArray, NDArray[np.float64]]:
        self._hits = []
        owners, logprobs = super()._logprobs(batch, requests, encoded)
        # Only now, as in score: a batch that runs out of memory on its way is done again in parts.
        np.logical_and.at(self._likeliest, owners, np.concatenate(self._hits))
        return owners, logprobs

    def _pick(  # type: ignore[override]  # called on the instance only
        self, logits: Tensor, which: trie.IntArray, target: trie.IntArray, cuts: Sequence[Truncation]
    ) -> NDArray[np.float64]:
        best = logits.argmax(dim=-1).cpu().numpy()
        self._hits.append(best[which] == target)
        return TrieScorer._pick(logits, which, target, cuts)
