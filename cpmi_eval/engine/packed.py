"""Scoring through token tries: a prefix that several requests share is computed once, in one masked forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.forward import PackedForward, padded, refusal, settled, trial, trusted_difference
from cpmi_eval.engine.pairwise import PairwiseScorer
from cpmi_eval.engine.reader import PackedReader, Values, Wanted, together
from cpmi_eval.engine.scoring import (
    LOGIT_FLOATS,
    Encode,
    Limits,
    Truncation,
    cut_of,
    finite_or_failure,
    target_logprobs,
    unscorable,
)
from cpmi_eval.engine.trie import IntArray
from cpmi_eval.errors import ModelError
from cpmi_eval.types import Failure, LogProb, ScoreRequest, Tokens

WHOLE = Truncation(0, 1.0)
ROOT_CHARACTERS = 256  # contexts that begin alike for as long are taken to share more
CHARACTERS_PER_TOKEN = 4  # a guess, used only to size groups


@dataclass(frozen=True)
class _Targets:
    """The head for log-probabilities: of each use's target token, and whether it is the likeliest one."""

    forward: PackedForward
    encoded: Mapping[int, Encoded]
    cuts: Mapping[int, Truncation]

    def __call__(self, hidden: Tensor, rows: IntArray, items: IntArray, nth: IntArray) -> Tensor:
        """Return log-probability and 1 or 0 [uses, 2], in float64."""
        targets = np.array([self._target(i, n) for i, n in zip(items.tolist(), nth.tolist(), strict=True)])
        cuts = [self.cuts.get(item, WHOLE) for item in items.tolist()]
        step = max(1, LOGIT_FLOATS // self.forward.head.weight.shape[0])
        order = np.argsort(rows, kind="stable")
        made = torch.empty((len(rows), 2), dtype=torch.float64, device=hidden.device)
        for first in range(0, len(hidden), step):
            low, high = np.searchsorted(rows, [first, first + step], sorter=order)
            uses = order[low:high]
            read = np.arange(first, min(first + step, len(hidden)))
            read = np.pad(read, (0, padded(len(read)) - len(read)), mode="edge")
            logits = self.forward.logits(hidden[torch.from_numpy(read).to(hidden.device)])
            which = torch.from_numpy(rows[uses] - first).to(logits.device)
            wanted = torch.from_numpy(targets[uses]).to(logits.device)
            logprobs = target_logprobs(logits, which, wanted, [cuts[use] for use in uses.tolist()])
            likeliest = logits.argmax(dim=-1)[which] == wanted
            into = torch.from_numpy(uses).to(hidden.device)
            made[into] = torch.stack([logprobs.double(), likeliest.double()], dim=1).to(hidden.device)
        return made

    def _target(self, item: int, nth: int) -> int:
        one = self.encoded[item]
        return one.tail[one.start + nth - (one.stem.length if one.stem else 0)]


class TrieScorer:
    """Packs requests into token tries and reads the wanted positions out of a few forward passes.

    Equal to :class:`PairwiseScorer` up to rounding for causal transformers in which attention depends on content and
    on the positions passed in. :func:`distrust` measures whether a model is one.
    """

    name = "trie"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the budgets.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--prefix_sharing off``.
        """
        self.reader = PackedReader(model, limits)
        self.forward = self.reader.forward
        self.model = model
        self.limits = limits

    @property
    def busy(self) -> float:
        """Seconds in which the device had work."""
        return self.reader.busy

    def score(self, requests: Sequence[ScoreRequest], encode: Encode) -> list[LogProb | Failure]:
        """Return one LogProb or Failure per request. A shared node is paid for by one of those that share it."""
        results = self._results(self._parts(requests), encode)
        return [results[index][0] for index in range(len(requests))]

    def score_greedy(self, encoded: Sequence[Encoded]) -> list[tuple[LogProb, bool] | Failure]:
        """Return each sequence's result, and whether every token of its continuation is the likeliest in its place."""
        parts = [dict(enumerate([ScoreRequest("", "")] * len(encoded)))]
        results = self._results(parts, lambda _: encoded)
        made: list[tuple[LogProb, bool] | Failure] = []
        for index in range(len(encoded)):
            result, likeliest = results[index]
            made.append(result if isinstance(result, Failure) else (result, likeliest))
        return made

    def _parts(self, requests: Sequence[ScoreRequest]) -> Iterator[dict[int, ScoreRequest]]:
        """Group requests by how their contexts begin."""

        def begin(request: ScoreRequest) -> tuple[str, int]:
            given = request.given
            root, new = (given[:ROOT_CHARACTERS], given) if isinstance(given, str) else (given.root, given.piece)
            return root, len(new) + len(request.continuation)

        enough = 2 * CHARACTERS_PER_TOKEN * self.limits.batch_tokens
        for places in together(map(begin, requests), enough):
            yield {place: requests[place] for place in places}

    def _results(
        self, parts: Iterator[dict[int, ScoreRequest]] | Sequence[dict[int, ScoreRequest]], encode: Encode
    ) -> dict[int, tuple[LogProb | Failure, bool]]:
        """Return each request's result by its index, and whether its continuation is the likeliest."""
        results: dict[int, tuple[LogProb | Failure, bool]] = {}
        all_encoded: dict[int, Encoded] = {}
        cuts: dict[int, Truncation] = {}

        def groups() -> Iterator[dict[int, Wanted]]:
            for part in parts:
                group = {}
                for (index, request), one in zip(part.items(), encode(list(part.values())), strict=True):
                    failure = unscorable(one, self.limits) or self.reader.beyond_rope(len(one) - 1)
                    if failure is not None:
                        results[index] = failure, False
                        continue
                    if (cut := cut_of(request)).active:
                        cuts[index] = cut
                    all_encoded[index] = one
                    group[index] = Wanted(one, range(one.start - 1, len(one) - 1))
                yield group

        for index, values in self.reader.read(groups(), _Targets(self.forward, all_encoded, cuts)):
            results[index] = self._result(all_encoded.pop(index), values)
        return results

    @staticmethod
    def _result(one: Encoded, values: Values | Failure) -> tuple[LogProb | Failure, bool]:
        if isinstance(values, Failure):
            return values, False
        cost = Tokens(requested=len(one) - 1, computed=values.computed)
        total, likeliest = values.values[:, 0].sum().item(), bool(values.values[:, 1].all())
        return finite_or_failure(total, len(values.values), cost), likeliest


def distrust(scorer: TrieScorer, vocabulary: int) -> float:
    """Return how far a trie is from the pairwise way on this model: root mean square over tokens, in nats.

    A stem, branches that fill a chunk, then one more: a model whose attention depends on indices, or that carries
    state from token to token, gives the last branch other scores than it has on its own.

    Raises:
        ModelError: the difference is more than rounding, or the model does not take the mask.
    """
    return settled(scorer.forward, lambda: _difference(scorer, vocabulary))


def _difference(scorer: TrieScorer, vocabulary: int) -> float:
    rng = np.random.default_rng(0)
    branches = trial(rng, vocabulary, scorer.limits, scorer.forward.flex_from, 16, 24)
    stem, last = 16, branches[-1]
    encoded = [Encoded(branch, len(branch) - 1) for branch in branches[:-1]]
    encoded += [Encoded(last, start) for start in range(stem, len(last))]
    tried = [ScoreRequest("", "")] * (len(last) - stem)
    results = scorer.score_greedy(encoded)[-len(tried) :]
    ours = [one if isinstance(one, Failure) else one[0] for one in results]
    theirs = PairwiseScorer(scorer.model, scorer.limits).score(tried, lambda _: encoded[-len(tried) :])
    totals = []
    for own in (ours, theirs):
        failure = next((result for result in own if isinstance(result, Failure)), None)
        if failure is not None:
            raise ModelError(f"the model gives no usable log-probabilities: {failure.message}")
        totals.append([result.total for result in own if isinstance(result, LogProb)])
    # Totals from one token to the end: their differences are single tokens.
    per_token = np.diff(np.array(totals), append=0.0)
    difference = float(np.sqrt(np.mean((per_token[0] - per_token[1]) ** 2)))
    trusted = trusted_difference(scorer.model)
    if difference > trusted:
        raise refusal(
            scorer.model,
            f"tokens of a second branch score {difference:.3g} nats away from what they do alone (limit {trusted:g})",
        )
    return difference
