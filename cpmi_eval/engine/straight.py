"""Every sequence in a plain forward pass, right-padded: slow, obvious, and right for any causal model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cpmi_eval.engine.architecture import input_device, rope_kind
from cpmi_eval.engine.reader import Apply, PackedReader, Values, Wanted
from cpmi_eval.engine.scoring import LOGIT_FLOATS, OUT_OF_MEMORY, Limits, is_out_of_memory
from cpmi_eval.types import Failure

log = logging.getLogger(__name__)
Batch: TypeAlias = list[tuple[int, Wanted]]


class StraightReader:
    """The oracle that the packed reader is tested against, and the path for models whose prefixes cannot be shared."""

    name = "pairwise"

    def __init__(self, model: Any, limits: Limits, *, logits: bool = True) -> None:
        """Keep the model and its budgets, of which ``batch_tokens`` bounds a pass.

        ``logits``: what is read are the model's own logits, rather than its decoder's hidden states.
        """
        self.limits = limits
        self.busy = 0.0
        self.device = input_device(model)
        self._run = model if logits else model.base_model
        self._states = "logits" if logits else "last_hidden_state"
        # Where RoPE depends on the longest sequence of a pass, each goes alone.
        self._dynamic = rope_kind(model.config) == "dynamic"
        self._alone = self._dynamic or rope_kind(model.config) == "longrope"
        self.vocabulary: int = model.get_output_embeddings().weight.shape[0] if logits else 1
        self._budget = min(limits.batch_tokens, max(1, 4 * LOGIT_FLOATS // self.vocabulary))

    def head(self, logits: Tensor) -> Tensor:
        """Logits in fp32 or better."""
        return logits if logits.dtype == torch.float64 else logits.float()

    def refuses(self, length: int) -> None:
        """Take any length."""

    def prefixes(self, wanted: Wanted) -> list[Wanted]:
        """A part for each read, so that nothing behind it is there."""
        return [Wanted(wanted.encoded, (read,)) for read in wanted.reads]

    def read(self, groups: Iterable[dict[int, Wanted]], apply: Apply) -> Iterator[tuple[int, Values | Failure]]:
        """Yield each sequence's index and result; see :class:`cpmi_eval.engine.reader.PackedReader`."""
        for group in groups:
            begun = time.perf_counter()
            done = [one for batch in self._batches(group) for one in self._attempt(batch, apply)]
            self.busy += time.perf_counter() - begun
            yield from done

    def _batches(self, group: dict[int, Wanted]) -> Iterator[Batch]:
        """Cut a group, sorted by length, so that rows x longest stays within the budget."""
        batch: Batch = []
        for index, one in sorted(group.items(), key=lambda item: item[1].length):
            if batch and (self._alone or (len(batch) + 1) * one.length > self._budget):
                yield batch
                batch = []
            batch.append((index, one))
        if batch:
            yield batch

    def _attempt(self, batch: Batch, apply: Apply) -> Sequence[tuple[int, Values | Failure]]:
        """Run a batch; on out-of-memory its halves. One that is too much on its own fails alone."""
        try:
            return self._pass(batch, apply)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # out here, where the error no longer holds what was computed
        if len(batch) == 1:
            log.warning("out of memory on a single row; giving it up")
            return [(batch[0][0], OUT_OF_MEMORY)]
        log.warning("out of memory on %d rows; retrying as halves", len(batch))
        half = len(batch) // 2
        return [*self._attempt(batch[:half], apply), *self._attempt(batch[half:], apply)]

    @torch.inference_mode()
    def _pass(self, batch: Batch, apply: Apply) -> list[tuple[int, Values]]:
        ids = torch.zeros((len(batch), max(one.length for _, one in batch)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (_, one) in enumerate(batch):
            ids[row, : one.length] = torch.from_numpy(one.encoded.ids[: one.length])
            mask[row, : one.length] = 1
        if self._dynamic:
            self._run(input_ids=ids[:1, :1].to(self.device))  # lets go of the rotation of an earlier, longer sequence
        output = self._run(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False)
        reads = [len(one.reads) for _, one in batch]
        at = [torch.tensor(one.reads) for _, one in batch]
        states = output[self._states]
        states = states[torch.repeat_interleave(torch.tensor(reads)).to(states.device), torch.cat(at).to(states.device)]
        items = np.repeat([index for index, _ in batch], reads)
        values = apply(states, np.arange(len(items)), items, np.concatenate([np.arange(n) for n in reads])).cpu()
        parts = torch.split(values, reads)
        return [(index, Values(mine, one.length)) for (index, one), mine in zip(batch, parts, strict=True)]


Reader: TypeAlias = PackedReader | StraightReader
