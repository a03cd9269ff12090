"""What a head makes of the hidden states at the steps of many traces, by either reader of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.reader import PackedReader, Values, Wanted, together
from cpmi_eval.engine.scoring import Limits
from cpmi_eval.engine.straight import Reader, StraightReader
from cpmi_eval.engine.trust import distrust
from cpmi_eval.prm.encode import EncodedTrace
from cpmi_eval.types import Failure

Apply: TypeAlias = Callable[[Tensor], Tensor]
TRUSTED = {torch.float64: 1e-8, torch.float32: 1e-3}  # relative; what is more than that is not rounding
TRUSTED_HALF = 0.1
ROOT_TOKENS = 32  # traces that begin alike for as long are taken to share more


class TraceReader:
    """Every trace through the decoder once, common beginnings once for all; or every step's prefix on its own."""

    def __init__(self, model: Any, limits: Limits, *, prefix_sharing: bool = True) -> None:
        """Choose the engine's reader, and try a packed one out: ``difference`` is how far it is from the straight one.

        Raises:
            ModelError: prefixes cannot be shared on this model; the message says to use ``--prefix_sharing off``.
        """
        straight = StraightReader(model, limits, logits=False)
        self.limits = limits
        self.reader: Reader = straight
        self.difference: float | None = None
        if prefix_sharing:
            self.reader = PackedReader(model, limits)
            rounded = getattr(model, "is_quantized", False)
            trusted = TRUSTED_HALF if rounded else TRUSTED.get(model.dtype, TRUSTED_HALF)
            self.difference = distrust(
                self.reader,
                straight,
                lambda *_: lambda hidden, rows, *_: hidden.double()[rows],
                lambda ours, theirs: float((ours - theirs).norm() / theirs.norm()),
                trusted,
                "hidden states",
            )

    def read(self, traces: Sequence[EncodedTrace], apply: Apply) -> list[Values | Failure]:
        """One result per trace, in their order; a shared token is paid for by one of those that share it."""
        results: dict[int, Values | Failure] = {}
        parts: list[tuple[int, Wanted]] = []
        for index, one in enumerate(traces):
            failure = self.limits.too_long(one.length) or self.reader.refuses(one.length)
            if failure is None:
                parts += [(index, part) for part in self.reader.prefixes(Wanted(Encoded(one.ids, 0), one.reads))]
            else:
                results[index] = failure
        begins = ((tuple(wanted.encoded.tail[:ROOT_TOKENS]), wanted.length) for _, wanted in parts)
        groups = (
            {place: parts[place][1] for place in places} for places in together(begins, 2 * self.limits.batch_tokens)
        )
        read = dict(self.reader.read(groups, lambda hidden, rows, *_: apply(hidden)[rows]))
        for place, (index, _) in enumerate(parts):
            before, values = results.get(index), read[place]
            if before is None or isinstance(values, Failure):
                results[index] = values
            elif isinstance(before, Values):
                joined = torch.cat([before.values, values.values])
                results[index] = Values(joined, before.computed + values.computed)
        return [results[index] for index in range(len(traces))]
