"""Hidden states at wanted positions of many sequences, and what a head makes of them: the one packed reader.

Log-probabilities, greedy checks and the heads of process reward models are three ways to apply a head; forests, chunks,
the rule for longrope, what is done when memory runs out, and the overlap of host and device are the same for all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine.ahead import ahead
from cpmi_eval.engine.architecture import rope_kind, rope_threshold
from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.forward import SHAPE_STEP, PackedForward
from cpmi_eval.engine.scoring import OUT_OF_MEMORY, Limits, is_out_of_memory
from cpmi_eval.engine.trie import Builder, Forest, IntArray
from cpmi_eval.types import Failure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """Positions of a sequence, ascending, whose hidden states are to be read; what follows the last is left out."""

    encoded: Encoded
    reads: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens that have to go through the model."""
        return self.reads[-1] + 1


@dataclass(frozen=True)
class Values:
    """What was read at a sequence's positions [reads, outputs], and how many tokens went through the model for it."""

    values: Tensor
    computed: int


class Apply(Protocol):
    """A head: makes of hidden states [n, width] what each use asks of them, [uses, outputs].

    Use ``u`` is of the hidden state ``rows[u]``, on behalf of the ``nth[u]``-th read of the sequence ``items[u]``.
    """

    def __call__(self, hidden: Tensor, rows: IntArray, items: IntArray, nth: IntArray) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class _Group:
    """Sequences that go through the model together, by index; the uses of their reads, sorted by node."""

    wanted: dict[int, Wanted]
    forest: Forest
    nodes: IntArray
    items: IntArray
    nth: IntArray

    @classmethod
    def of(cls, wanted: dict[int, Wanted]) -> _Group:
        """Pack some sequences."""
        builder = Builder()
        nodes: list[int] = []
        items: list[int] = []
        nth: list[int] = []
        for index, one in wanted.items():
            stem = one.encoded.stem
            before = stem.length if stem else 0
            made = builder.add(one.encoded.tail[: one.length - before], stem)
            nodes += [made[read - before + 1] for read in one.reads]
            items += [index] * len(one.reads)
            nth += range(len(one.reads))
        forest, place = builder.layout()
        at = place[np.array(nodes, dtype=np.int64)]
        order = np.argsort(at, kind="stable")
        return cls(wanted, forest, at[order], np.array(items)[order], np.array(nth)[order])


class PackedReader:
    """Reads forests; ``busy`` counts the seconds in which the device had work."""

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the budgets.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--prefix_sharing off``.
        """
        self.forward = PackedForward(model)
        self.limits = limits
        self.rope = rope_kind(model.config)
        self.rope_threshold = rope_threshold(model.config)
        self.busy = 0.0

    def read(self, groups: Iterable[dict[int, Wanted]], apply: Apply) -> Iterator[tuple[int, Values | Failure]]:
        """Yield each sequence's index and result. A shared node is paid for by one of those that share it.

        Args:
            groups: sequences by index, in groups that are packed together; the next group is made and packed in a
                thread while one is read.
            apply: the head.
        """
        packed = (_Group.of(part) for group in groups for part in self._sides(group) if part)
        waiting: tuple[_Group, list[Tensor]] | None = None
        for group in ahead(packed):
            begun = time.perf_counter()
            read = self._attempt(group, apply)
            # The one before is taken from the device only now, when that has its next work.
            results: list[tuple[int, Values | Failure]] = list(self._taken(*waiting)) if waiting else []
            waiting = None
            if isinstance(read, list):
                waiting = group, read
            else:
                results += read.items()
            if waiting and self.forward.device.type != "cuda":
                results += self._taken(*waiting)
                waiting = None
            self.busy += time.perf_counter() - begun
            yield from results
        if waiting:
            begun = time.perf_counter()
            results = list(self._taken(*waiting))
            self.busy += time.perf_counter() - begun
            yield from results

    def beyond_rope(self, length: int) -> Failure | None:
        """Past its threshold dynamic RoPE rotates every length differently: nothing can be shared there."""
        if self.rope != "dynamic" or self.rope_threshold is None or length <= self.rope_threshold:
            return None
        return Failure(
            "too_long",
            f"{length:,} tokens, past the {self.rope_threshold:,} within which this model's dynamic RoPE lets "
            "prefixes be shared; use --prefix_sharing off",
        )

    def _sides(self, group: dict[int, Wanted]) -> list[dict[int, Wanted]]:
        """Longrope rotates sequences on the two sides of its threshold differently: they are never mixed."""
        limit = self.rope_threshold
        if self.rope != "longrope" or limit is None:
            return [group]
        return [
            {index: one for index, one in group.items() if (one.length > limit) == beyond} for beyond in (False, True)
        ]

    def _attempt(self, group: _Group, apply: Apply, shrink: int = 1) -> list[Tensor] | dict[int, Values | Failure]:
        """Read a group in chunks of ``1 / shrink`` of the usual size; what was read is still on the device.

        Where memory runs out, smaller chunks are tried, then the group's halves; a sequence that is too much on its
        own fails alone. The results are then complete.
        """
        try:
            return self._read(group, apply, shrink)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.limits.row_tokens // (2 * shrink) >= SHAPE_STEP:
            log.warning("out of memory; retrying with chunks of half the size")
            again = self._attempt(group, apply, 2 * shrink)
            return dict(self._taken(group, again)) if isinstance(again, list) else again
        members = list(group.wanted)
        if len(members) == 1:
            log.warning("out of memory on a single sequence; giving it up")
            return {members[0]: OUT_OF_MEMORY}
        log.warning("out of memory on %d sequences; retrying as halves", len(members))
        results: dict[int, Values | Failure] = {}
        for half in (members[: len(members) // 2], members[len(members) // 2 :]):
            part = _Group.of({index: group.wanted[index] for index in half})
            again = self._attempt(part, apply, shrink)
            results.update(self._taken(part, again) if isinstance(again, list) else again)
        return results

    def _read(self, group: _Group, apply: Apply, shrink: int) -> list[Tensor]:
        """Return what the head makes of the group's uses, in pieces, in their order."""
        parts = []
        dense, block = (max(1, size // shrink) for size in (self.limits.row_tokens, self.limits.batch_tokens))
        with torch.inference_mode():
            for start, hidden in self.forward.hidden(group.forest, dense, block):
                low, high = np.searchsorted(group.nodes, [start, start + len(hidden)])
                if low == high:
                    continue
                nodes, rows = np.unique(group.nodes[low:high], return_inverse=True)
                states = hidden[torch.from_numpy(nodes - start).to(hidden.device)]
                parts.append(apply(states, rows, group.items[low:high], group.nth[low:high]))
        return parts

    @staticmethod
    def _taken(group: _Group, parts: Sequence[Tensor]) -> Iterator[tuple[int, Values]]:
        """Take values from the device and give each sequence its own."""
        values = torch.cat([part.cpu() for part in parts])
        order = torch.from_numpy(np.lexsort((group.nth, group.items)))
        owners, nodes = np.unique(group.forest.owner, return_counts=True)
        members = list(group.wanted)
        computed = dict(zip((members[owner] for owner in owners.tolist()), nodes.tolist(), strict=True))
        indices = sorted(members)
        own = torch.split(values[order], [len(group.wanted[index].reads) for index in indices])
        for index, mine in zip(indices, own, strict=True):
            yield index, Values(mine, computed.get(index, 0))


def together(sizes: Iterable[tuple[Any, int]], enough: int) -> list[list[int]]:
    """Group items by what they begin with, and join such groups in order of appearance until there is ``enough``.

    Args:
        sizes: per item, what it begins with (hashable), and its size.
        enough: a group takes no more once its size has come to this.

    Returns:
        The items' places, group by group; what begins alike is never parted.
    """
    alike: dict[Any, list[int]] = {}
    weight: dict[Any, int] = {}
    for place, (key, size) in enumerate(sizes):
        alike.setdefault(key, []).append(place)
        weight[key] = weight.get(key, 0) + size
    groups: list[list[int]] = [[]]
    total = 0
    for key, places in alike.items():
        if total >= enough:
            groups.append([])
            total = 0
        groups[-1] += places
        total += weight[key]
    return [group for group in groups if group]
