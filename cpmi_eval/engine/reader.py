"""Hidden states at wanted positions of many sequences, and what a head makes of them: the one packed reader.

Log-probabilities, greedy checks and the heads of process reward models are three ways to apply a head; forests, chunks,
the rule for longrope, what is done when memory runs out, and the overlap of host and device are the same for all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.forward import SHAPE_STEP, PackedForward
from cpmi_eval.engine.scoring import OUT_OF_MEMORY, Limits, is_out_of_memory
from cpmi_eval.engine.trie import Builder, Forest, IntArray
from cpmi_eval.types import Failure

log = logging.getLogger(__name__)
T = TypeVar("T")


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


# A head: makes of hidden states [n, width] what each use asks of them, [uses, outputs]. Given are, for each use, the
# row of its hidden state, the sequence on whose behalf it is, and the how many-th read of that sequence it is.
Apply: TypeAlias = Callable[[Tensor, IntArray, IntArray, IntArray], Tensor]


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
    """Reads forests of sequences whose common beginnings go through the model once.

    ``busy``: seconds so far in which the device had work. ``vocabulary``: how many logits there are.
    """

    name = "trie"

    def __init__(self, model: Any, limits: Limits) -> None:
        """Keep the budgets.

        Raises:
            ModelError: the configuration rules a trie out; the message says to use ``--prefix_sharing off``.
        """
        self.forward = PackedForward(model)
        self.vocabulary: int = 1 if self.forward.head is None else self.forward.head.weight.shape[0]
        self.limits = limits
        self.busy = 0.0
        # What a GPU has read is taken from it only when it has its next work.
        self.deferred: bool = self.forward.device.type == "cuda"

    def head(self, states: Tensor) -> Tensor:
        """Logits [n, vocabulary], fp32 or better, of hidden states [n, width]."""
        return self.forward.logits(states)

    def read(self, groups: Iterable[dict[int, Wanted]], apply: Apply) -> Iterator[tuple[int, Values | Failure]]:
        """Yield each sequence's index and result. A shared node is paid for by one of those that share it.

        Each group is packed together; the next one is made and packed in a thread while one is read.
        """
        sides = (  # never mixed, since longrope rotates them differently
            {index: one for index, one in group.items() if self._far(one.length) == far}
            for group in groups
            for far in (False, True)
        )
        packed = (_Group.of(side) for side in sides if side)
        waiting: Iterator[tuple[int, Values | Failure]] = iter(())
        for group in chain(ahead(packed), [None]):
            begun = time.perf_counter()
            fresh = iter(()) if group is None else self._attempt(group, apply)
            done = list(waiting)
            waiting = fresh
            if not self.deferred:
                done += waiting
            self.busy += time.perf_counter() - begun
            yield from done

    def refuses(self, length: int) -> Failure | None:
        """Past its threshold dynamic RoPE rotates every length differently: nothing can be shared there."""
        limit = self.forward.rope_limit
        if self.forward.rope != "dynamic" or limit is None or length <= limit:
            return None
        return Failure(
            "too_long",
            f"{length:,} tokens, past the {limit:,} within which this model's dynamic RoPE lets "
            "prefixes be shared; use --prefix_sharing off",
        )

    def _far(self, length: int) -> bool:
        """Whether longrope rotates a sequence in the way it has past its threshold."""
        limit = self.forward.rope_limit
        return self.forward.rope == "longrope" and limit is not None and length > limit

    def prefixes(self, wanted: Wanted) -> list[Wanted]:
        """A prefix up to longrope's threshold is rotated in another way than one beyond it, whatever follows."""
        sides = [[read for read in wanted.reads if self._far(read + 1) == far] for far in (False, True)]
        return [Wanted(wanted.encoded, side) for side in sides if side]

    def _attempt(self, group: _Group, apply: Apply, shrink: int = 1) -> Iterator[tuple[int, Values | Failure]]:
        """Read a group in chunks of ``1 / shrink`` of the usual size; results are taken from the device when asked for.

        Where memory runs out, smaller chunks are tried, then the group's halves; a sequence that is too much on its
        own fails alone.
        """
        try:
            return self._taken(group, self._read(group, apply, shrink))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # out here, where the error no longer holds what was computed
        members = list(group.wanted)
        if self.limits.row_tokens // (2 * shrink) >= SHAPE_STEP:
            log.warning("out of memory; retrying with chunks of half the size")
            return iter(list(self._attempt(group, apply, 2 * shrink)))
        if len(members) == 1:
            log.warning("out of memory on a single sequence; giving it up")
            return iter([(members[0], OUT_OF_MEMORY)])
        log.warning("out of memory on %d sequences; retrying as halves", len(members))
        halves = (members[: len(members) // 2], members[len(members) // 2 :])
        parts = (_Group.of({index: group.wanted[index] for index in half}) for half in halves)
        return iter([one for part in parts for one in self._attempt(part, apply, shrink)])

    def _read(self, group: _Group, apply: Apply, shrink: int) -> list[Tensor]:
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
        values = torch.cat([part.cpu() for part in parts])
        order = torch.from_numpy(np.lexsort((group.nth, group.items)))
        paid = np.bincount(group.forest.owner, minlength=len(group.wanted)).tolist()
        computed = dict(zip(group.wanted, paid, strict=True))
        indices = sorted(group.wanted)
        own = torch.split(values[order], [len(group.wanted[index].reads) for index in indices])
        for index, mine in zip(indices, own, strict=True):
            yield index, Values(mine, computed[index])


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield what ``items`` yields, in order, each made in a worker thread while the one before it is used.

    One is made ahead, no more, and whatever making it raises is raised here.
    """
    source, over = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="cpmi-eval-host") as worker:
        coming = worker.submit(next, source, over)
        while True:
            made = coming.result()
            if made is over:
                return
            coming = worker.submit(next, source, over)
            yield made  # type: ignore[misc]


def together(sizes: Iterable[tuple[Any, int]], enough: int) -> list[list[int]]:
    """Group items by what they begin with, and join such groups in order of appearance until there is ``enough``.

    ``sizes``: per item, what it begins with (hashable), and its size. Returns the items' places, group by group; what
    begins alike is never parted.
    """
    alike: dict[Any, list[tuple[int, int]]] = {}
    for place, (key, size) in enumerate(sizes):
        alike.setdefault(key, []).append((place, size))
    groups: list[list[int]] = []
    total = enough
    for items in alike.values():
        if total >= enough:
            groups.append([])
            total = 0
        groups[-1] += [place for place, _ in items]
        total += sum(size for _, size in items)
    return groups
