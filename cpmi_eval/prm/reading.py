"""Hidden states at wanted positions of many traces: through token tries, or every prefix on its own.

The trie way puts every trace through the decoder once, and what several traces begin with once for all of them. The
pairwise way is the oracle it is tested against, and the path for models that a trie cannot serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine import encode as packed
from cpmi_eval.engine.architecture import input_device, rope_kind
from cpmi_eval.engine.forward import refusal, settled, trial
from cpmi_eval.engine.reader import PackedReader, Values, Wanted, together
from cpmi_eval.engine.scoring import Limits, halving
from cpmi_eval.errors import ModelError
from cpmi_eval.prm.encode import Encoded
from cpmi_eval.types import Failure

Apply: TypeAlias = Callable[[Tensor], Tensor]
TRUSTED = {torch.float64: 1e-8, torch.float32: 1e-3}  # relative; what is more than that is not rounding
TRUSTED_HALF = 0.1
ROOT_TOKENS = 32  # traces that begin alike for as long are taken to share more


class Reader(Protocol):
    """Applies a head to the hidden states at the read positions of encoded traces."""

    name: str

    @property
    def busy(self) -> float: ...  # noqa: D102

    def read(self, encoded: Sequence[Encoded], apply: Apply) -> list[Values | Failure]:
        """Return one result per trace, in their order."""


def too_long(one: Encoded, limits: Limits) -> Failure | None:
    """Return a failure for a trace that does not fit; nothing is ever truncated to make it fit."""
    length = one.reads[-1] + 1
    if limits.max_length is None or length <= limits.max_length:
        return None
    return Failure("too_long", f"{length:,} tokens; the model takes {limits.max_length:,}")


class TrieReader:
    """All steps of a trace in one forward pass, traces with a common beginning packed into token tries."""

    name = "trie"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the budgets.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--prefix_sharing off``.
        """
        self.packed = PackedReader(model, limits)
        self.model = model
        self.limits = limits

    @property
    def busy(self) -> float:
        """Seconds in which the device had work."""
        return self.packed.busy

    def read(self, encoded: Sequence[Encoded], apply: Apply) -> list[Values | Failure]:
        """Return one result per trace. A shared node is paid for by one of those that share it."""
        limit = self.packed.rope_threshold if self.packed.rope == "longrope" else None
        failures: dict[int, Failure] = {}
        parts: list[tuple[int, Wanted]] = []  # a trace goes through the model as itself, or as two parts
        for index, one in enumerate(encoded):
            failure = too_long(one, self.limits) or self.packed.beyond_rope(one.reads[-1] + 1)
            if failure is not None:
                failures[index] = failure
                continue
            ids = packed.Encoded(one.ids, 0)
            # A prefix up to longrope's threshold is rotated in another way than one beyond it, whatever follows.
            sides = [[r for r in one.reads if (limit is not None and r + 1 > limit) == far] for far in (False, True)]
            parts += [(index, Wanted(ids, side)) for side in sides if side]
        found: dict[int, list[tuple[int, Values]]] = {}
        for part, values in self.packed.read(self._groups(parts), lambda hidden, rows, *_: apply(hidden)[rows]):
            index = parts[part][0]
            if isinstance(values, Failure):
                failures[index] = values
            else:
                found.setdefault(index, []).append((part, values))
        return [failures.get(index) or _joined(found[index]) for index in range(len(encoded))]

    def _groups(self, parts: Sequence[tuple[int, Wanted]]) -> Iterator[dict[int, Wanted]]:
        """Group parts by how they begin."""
        begins = ((tuple(wanted.encoded.tail[:ROOT_TOKENS]), wanted.length) for _, wanted in parts)
        for places in together(begins, 2 * self.limits.batch_tokens):
            yield {place: parts[place][1] for place in places}


def _joined(parts: list[tuple[int, Values]]) -> Values:
    """Join the parts of a trace, in the order of its reads."""
    values = [one for _, one in sorted(parts, key=lambda part: part[0])]
    return Values(torch.cat([one.values for one in values]), sum(one.computed for one in values))


class PairwiseReader:
    """Every step's prefix in a plain forward pass of its own, right-padded."""

    name = "pairwise"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the model and its budgets; models whose RoPE depends on the longest sequence go one by one."""
        self.model = model
        self.limits = limits
        self.busy = 0.0
        self.device = input_device(model)
        self.dynamic = rope_kind(model.config) == "dynamic"
        self.alone = self.dynamic or rope_kind(model.config) == "longrope"

    def read(self, encoded: Sequence[Encoded], apply: Apply) -> list[Values | Failure]:
        """Return one result per trace, prefixes batched by length under the token budget."""
        failures = {index: failure for index, one in enumerate(encoded) if (failure := too_long(one, self.limits))}
        found: dict[tuple[int, int], Tensor] = {}
        prefixes = [(i, step) for i, one in enumerate(encoded) if i not in failures for step in range(len(one.reads))]
        prefixes.sort(key=lambda prefix: encoded[prefix[0]].reads[prefix[1]])

        def run(batch: Sequence[tuple[int, int]]) -> None:
            sequences = [encoded[index].ids[: encoded[index].reads[step] + 1] for index, step in batch]
            found.update(zip(batch, self._last(sequences, apply), strict=True))

        def give_up(prefix: tuple[int, int], failure: Failure) -> None:
            failures[prefix[0]] = failure

        begun = time.perf_counter()
        for batch in self._batches(prefixes, encoded):
            halving(run, batch, lambda _: [], give_up)
        self.busy += time.perf_counter() - begun
        return [
            failures.get(index)
            or Values(
                torch.stack([found[index, step] for step in range(len(one.reads))]), sum(one.reads) + len(one.reads)
            )
            for index, one in enumerate(encoded)
        ]

    def _batches(
        self, prefixes: Sequence[tuple[int, int]], encoded: Sequence[Encoded]
    ) -> Iterator[list[tuple[int, int]]]:
        """Group prefixes sorted by length so that rows x longest stays within the token budget."""
        batch: list[tuple[int, int]] = []
        for index, step in prefixes:
            length = encoded[index].reads[step] + 1
            if batch and (self.alone or (len(batch) + 1) * length > self.limits.batch_tokens):
                yield batch
                batch = []
            batch.append((index, step))
        if batch:
            yield batch

    @torch.inference_mode()
    def _last(self, sequences: Sequence[tuple[int, ...]], apply: Apply) -> Sequence[Tensor]:
        """Return the head's values [outputs] at the last token of each sequence."""
        device, decoder = self.device, self.model.base_model
        longest = max(map(len, sequences))
        ids = torch.zeros((len(sequences), longest), dtype=torch.long)
        mask = torch.zeros((len(sequences), longest), dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        if self.dynamic:
            decoder(input_ids=ids[:1, :1].to(device))  # lets go of the rotation of an earlier, longer sequence
        hidden = decoder(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).last_hidden_state
        ends = torch.tensor([len(sequence) - 1 for sequence in sequences], device=hidden.device)
        rows = torch.arange(len(sequences), device=hidden.device)
        return list(apply(hidden[rows, ends]).cpu())


def distrust(reader: TrieReader, vocabulary: int) -> float:
    """Return how far a trie's hidden states are from the pairwise ones on this model, relative to their size.

    A stem, branches that fill a chunk, then one more: a model whose attention depends on indices, or that carries
    state from token to token, gives the last branch other states than it has on its own.

    Raises:
        ModelError: the difference is more than rounding, or the model does not take the mask.
    """
    return settled(reader.packed.forward, lambda: _difference(reader, vocabulary))


def _difference(reader: TrieReader, vocabulary: int) -> float:
    rng = np.random.default_rng(0)
    *branches, last = trial(rng, vocabulary, reader.limits, reader.packed.forward.flex_from, 16, 24)
    occupied = [Encoded(tuple(branch), (len(branch) - 1,)) for branch in branches]
    branch = Encoded(tuple(last), tuple(range(16, len(last))))

    def whole(hidden: Tensor) -> Tensor:
        return hidden.double()

    ours = reader.read([*occupied, branch], whole)[-1]
    theirs = PairwiseReader(reader.model, reader.limits).read([branch], whole)[0]
    if isinstance(ours, Failure) or isinstance(theirs, Failure):
        failure = ours if isinstance(ours, Failure) else theirs
        raise ModelError(f"the model cannot be tried out: {failure.message if isinstance(failure, Failure) else ''}")
    difference = float((ours.values - theirs.values).norm() / theirs.values.norm())
    rounded = getattr(reader.model, "is_quantized", False)
    trusted = TRUSTED_HALF if rounded else TRUSTED.get(reader.model.dtype, TRUSTED_HALF)
    if not difference <= trusted:
        raise refusal(
            reader.model,
            f"hidden states of a second branch are {difference:.3g} away from what they are alone (limit {trusted:g})",
        )
    return difference
