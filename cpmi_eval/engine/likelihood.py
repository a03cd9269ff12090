"""Log-probabilities of continuations, by either reader: through shared prefixes, or every sequence on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.forward import padded, trusted_difference
from cpmi_eval.engine.reader import PackedReader, Wanted, together
from cpmi_eval.engine.scoring import LOGIT_FLOATS, Cut, target_logprobs
from cpmi_eval.engine.straight import Reader, StraightReader
from cpmi_eval.engine.trie import IntArray
from cpmi_eval.engine.trust import distrust
from cpmi_eval.types import Failure, LogProb, ScoreRequest, Tokens

Encode: TypeAlias = Callable[[Sequence[ScoreRequest]], Sequence[Encoded]]
Scored: TypeAlias = tuple[LogProb, bool] | Failure  # and whether each token is the likeliest in its place
ROOT_CHARACTERS = 256  # contexts that begin alike for as long are taken to share more
CHARACTERS_PER_TOKEN = 4  # a guess, used only to size groups


@dataclass(frozen=True)
class Targets:
    """The head for log-probabilities: of each use's target token, and whether it is the likeliest one."""

    reader: Reader
    encoded: Mapping[int, Encoded]
    cuts: Mapping[int, Cut]

    def __call__(self, hidden: Tensor, rows: IntArray, items: IntArray, nth: IntArray) -> Tensor:
        """Log-probability and 1 or 0 [uses, 2], in float64."""
        used = [(self.encoded[item], n) for item, n in zip(items.tolist(), nth.tolist(), strict=True)]
        targets = np.array([one.tail[one.start + n - (one.stem.length if one.stem else 0)] for one, n in used])
        cuts = [self.cuts.get(item, (0, 1.0)) for item in items.tolist()]
        step = max(1, LOGIT_FLOATS // self.reader.vocabulary)
        order = np.argsort(rows, kind="stable")
        made = torch.empty((len(rows), 2), dtype=torch.float64, device=hidden.device)
        for first in range(0, len(hidden), step):
            low, high = np.searchsorted(rows, [first, first + step], sorter=order)
            uses = order[low:high]
            read = np.arange(first, min(first + step, len(hidden)))
            read = np.pad(read, (0, padded(len(read)) - len(read)), mode="edge")
            logits = self.reader.head(hidden[torch.from_numpy(read).to(hidden.device)])
            which = torch.from_numpy(rows[uses] - first).to(logits.device)
            wanted = torch.from_numpy(targets[uses]).to(logits.device)
            logprobs = target_logprobs(logits, which, wanted, [cuts[use] for use in uses.tolist()])
            likeliest = logits.argmax(dim=-1)[which] == wanted
            into = torch.from_numpy(uses).to(hidden.device)
            made[into] = torch.stack([logprobs.double(), likeliest.double()], dim=1).to(hidden.device)
        return made


@dataclass
class Likelihood:
    """Scores requests by a reader of hidden states, or of logits."""

    reader: Reader

    def score(self, requests: Sequence[ScoreRequest], encode: Encode) -> list[LogProb | Failure]:
        """One LogProb or Failure per request. A shared token is paid for by one of those that share it."""
        results = self._results(self._parts(requests), encode)
        return [one if isinstance(one, Failure) else one[0] for one in results]

    def score_greedy(self, encoded: Sequence[Encoded]) -> list[Scored]:
        """Each sequence's result, and whether every token of its continuation is the likeliest in its place."""
        return self._results([dict(enumerate([ScoreRequest("", "")] * len(encoded)))], lambda _: encoded)

    def _parts(self, requests: Sequence[ScoreRequest]) -> Iterator[dict[int, ScoreRequest]]:
        def begin(request: ScoreRequest) -> tuple[str, int]:
            given = request.given
            root, new = (given[:ROOT_CHARACTERS], given) if isinstance(given, str) else (given.root, given.piece)
            return root, len(new) + len(request.continuation)

        for places in together(map(begin, requests), 2 * CHARACTERS_PER_TOKEN * self.reader.limits.batch_tokens):
            yield {place: requests[place] for place in places}

    def _results(self, parts: Iterable[dict[int, ScoreRequest]], encode: Encode) -> list[Scored]:
        results: dict[int, Scored] = {}
        encoded: dict[int, Encoded] = {}
        cuts: dict[int, Cut] = {}

        def groups() -> Iterator[dict[int, Wanted]]:
            for part in parts:
                group = {}
                for (index, request), one in zip(part.items(), encode(list(part.values())), strict=True):
                    failure = self.reader.limits.too_long(len(one), unread=1) or self.reader.refuses(len(one) - 1)
                    if one.start == len(one):
                        failure = Failure("empty_continuation", "the continuation has no tokens")
                    if failure is not None:
                        results[index] = failure
                        continue
                    cuts[index] = request.top_k, request.top_p
                    encoded[index] = one
                    group[index] = Wanted(one, range(one.start - 1, len(one) - 1))
                yield group

        for index, values in self.reader.read(groups(), Targets(self.reader, encoded, cuts)):
            one = encoded.pop(index)
            if isinstance(values, Failure):
                results[index] = values
                continue
            total = values.values[:, 0].sum().item()
            if not math.isfinite(total):
                message = f"the model gave a log-probability of {total}; try --dtype float32"
                results[index] = Failure("non_finite", message)
                continue
            cost = Tokens(requested=len(one) - 1, computed=values.computed)
            results[index] = LogProb(total, len(values.values), cost), bool(values.values[:, 1].all())
        return [results[index] for index in range(len(results))]


def distrusted(packed: PackedReader) -> float:
    """How far shared prefixes are from straight passes on this model: root mean square over tokens, in nats.

    Raises:
        ModelError: the difference is more than rounding, or the model does not take the mask.
    """
    model = packed.forward.model

    def difference(ours: Tensor, theirs: Tensor) -> float:
        return float((ours[:, 0] - theirs[:, 0]).square().mean().sqrt())

    straight, trusted = StraightReader(model, packed.limits), trusted_difference(model)
    of = partial(Targets, cuts={})
    return distrust(packed, straight, of, difference, trusted, "log-probabilities", " nats")
