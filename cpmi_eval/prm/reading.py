"""Hidden states at wanted positions of many traces: through token tries, or every prefix on its own.

The trie way puts every trace through the decoder once, and what several traces begin with once for all of them. The
pairwise way is the oracle it is tested against, and the path for models that a trie cannot serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine import trie
from cpmi_eval.engine.architecture import rope_kind, rope_threshold
from cpmi_eval.engine.forward import PackedForward, padded, refusal
from cpmi_eval.engine.scoring import Limits, halving
from cpmi_eval.errors import ModelError
from cpmi_eval.prm.encode import Encoded
from cpmi_eval.types import Failure

Apply: TypeAlias = Callable[[Tensor], Tensor]
TRUSTED = {torch.float64: 1e-8, torch.float32: 1e-3}  # relative; what is more than that is not rounding
TRUSTED_HALF = 0.1


@dataclass(frozen=True)
class Values:
    """What was read at a trace's positions [reads, outputs], and how many tokens went through the model for it."""

    values: Tensor
    computed: int


class Reader(Protocol):
    """Applies a head to the hidden states at the read positions of encoded traces."""

    name: str

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
            ModelError: the configuration rules a trie out; the message says to use ``--scorer pairwise``.
        """
        self.forward = PackedForward(model)
        self.model = model
        self.limits = limits
        self.rope = rope_kind(model.config)
        self.rope_threshold = rope_threshold(model.config)

    def read(self, encoded: Sequence[Encoded], apply: Apply) -> list[Values | Failure]:
        """Return one result per trace. A shared node is paid for by one of those that share it."""
        failures: dict[int, Failure] = {}
        owners: list[int] = []
        parts: list[Encoded] = []
        for index, one in enumerate(encoded):
            failure = too_long(one, self.limits) or self._beyond_rope(one)
            if failure is not None:
                failures[index] = failure
                continue
            for part in self._parts(one):
                owners.append(index)
                parts.append(part)
        found: dict[int, Values] = {}

        def run(batch: Sequence[_Job]) -> None:
            for job, read in zip(batch, self._read(batch, parts, apply), strict=True):
                for member, values in read.items():
                    found[job.parts[member]] = Values(values, int(np.count_nonzero(job.row.owner == member)))

        def split(job: _Job) -> list[_Job]:
            half = max(1, len(job.row) // 2)
            jobs = _jobs(list(job.parts.values()), parts, half, half)
            return jobs if len(jobs) > 1 else []

        def give_up(job: _Job, failure: Failure) -> None:
            failures.update((owners[part], failure) for part in job.parts.values())

        for group in self._groups(parts):
            for batch in self._batches(_jobs(group, parts, self.limits.row_tokens)):
                halving(run, batch, split, give_up)
        own: dict[int, list[int]] = {}
        for place, owner in enumerate(owners):
            own.setdefault(owner, []).append(place)
        return [failures.get(i) or _joined([found[place] for place in own[i]]) for i in range(len(encoded))]

    def _beyond_rope(self, one: Encoded) -> Failure | None:
        """Past its threshold dynamic RoPE rotates every length differently: nothing can be shared there."""
        length = one.reads[-1] + 1
        if self.rope != "dynamic" or self.rope_threshold is None or length <= self.rope_threshold:
            return None
        return Failure(
            "too_long",
            f"{length:,} tokens, past the {self.rope_threshold:,} within which this model's dynamic RoPE lets "
            "prefixes be shared; use --scorer pairwise",
        )

    def _parts(self, one: Encoded) -> list[Encoded]:
        """Return what a trace goes through the model as: itself, or the two sides of longrope's threshold.

        A prefix up to the threshold is rotated in another way than one beyond it, whatever follows.
        """
        limit = self.rope_threshold
        if self.rope != "longrope" or limit is None:
            return [one]
        sides = [[read for read in one.reads if (read + 1 > limit) == beyond] for beyond in (False, True)]
        return [Encoded(one.ids, tuple(reads)) for reads in sides if reads]

    def _groups(self, parts: Sequence[Encoded]) -> list[list[int]]:
        """Return the indices of parts that may share a forward pass: longrope's two sides are never mixed."""
        limit = self.rope_threshold
        if self.rope != "longrope" or limit is None:
            return [list(range(len(parts)))] if parts else []
        sides: tuple[list[int], list[int]] = ([], [])
        for index, part in enumerate(parts):
            sides[part.reads[-1] + 1 > limit].append(index)
        return [group for group in sides if group]

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
    def _read(self, batch: Sequence[_Job], parts: Sequence[Encoded], apply: Apply) -> list[dict[int, Tensor]]:
        """Return, for each row of the batch, the values [reads, outputs] of each of its sequences."""
        width = padded(max(len(job.row) for job in batch))
        hidden = self.forward.hidden([job.row for job in batch], width)
        found = []
        for place, job in enumerate(batch):
            nodes = [path[list(parts[job.parts[member]].reads)] for member, path in job.row.paths.items()]
            where = torch.from_numpy(np.concatenate(nodes)).to(hidden.device)
            values = torch.split(apply(hidden[place, where]).cpu(), [len(one) for one in nodes])
            found.append(dict(zip(job.row.paths, values, strict=True)))
        return found


@dataclass(frozen=True)
class _Job:
    """A packed row, and for each of its sequences the index of its part."""

    row: trie.Row
    parts: dict[int, int]


def _joined(values: Sequence[Values]) -> Values:
    """Join the parts of a trace, in the order of its reads."""
    return Values(torch.cat([one.values for one in values]), sum(one.computed for one in values))


def _jobs(
    indices: Sequence[int], parts: Sequence[Encoded], row_tokens: int, max_nodes: int | None = None
) -> list[_Job]:
    """Pack the given parts, each up to its last read: what follows changes nothing."""
    sequences = [np.array(parts[index].ids[: parts[index].reads[-1] + 1], dtype=np.int64) for index in indices]
    rows = trie.pack(sequences, row_tokens, max_nodes)
    return [_Job(row, {member: indices[member] for member in row.paths}) for row in rows]


class PairwiseReader:
    """Every step's prefix in a plain forward pass of its own, right-padded."""

    name = "pairwise"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the model and its budgets; models whose RoPE depends on the longest sequence go one by one."""
        self.model = model
        self.limits = limits
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

        for batch in self._batches(prefixes, encoded):
            halving(run, batch, lambda _: [], give_up)
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
        device, decoder = self.model.device, self.model.base_model
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

    A stem, one branch that fills half a row, then a second branch: a model whose attention depends on indices, or that
    carries state from token to token, gives the second branch other states than it has on its own.

    Raises:
        ModelError: the difference is more than rounding, or the model does not take the mask.
    """
    rng = np.random.default_rng(0)
    room = (reader.limits.max_length or 1 << 30) - 16
    long = max(1, min(reader.limits.row_tokens // 2, room))
    stem, first, second = (rng.integers(0, vocabulary, n).tolist() for n in (16, long, max(1, min(24, room))))
    occupied = Encoded((*stem, *first), (len(stem) + long - 1,))
    branch = Encoded((*stem, *second), tuple(range(len(stem), len(stem) + len(second))))

    def whole(hidden: Tensor) -> Tensor:
        return hidden.double()

    try:
        ours = reader.read([occupied, branch], whole)[1]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise refusal(reader.model, f"it does not run with the mask a trie needs ({reason[:200]})") from error
    theirs = PairwiseReader(reader.model, reader.limits).read([branch], whole)[0]
    if isinstance(ours, Failure) or isinstance(theirs, Failure):
        failure = ours if isinstance(ours, Failure) else theirs
        raise ModelError(f"the model cannot be tried out: {failure.message if isinstance(failure, Failure) else ''}")
    difference = float((ours.values - theirs.values).norm() / theirs.values.norm())
    trusted = TRUSTED.get(reader.model.dtype, TRUSTED_HALF)
    if not difference <= trusted:
        raise refusal(
            reader.model,
            f"hidden states of a second branch are {difference:.3g} away from what they are alone (limit {trusted:g})",
        )
    return difference
