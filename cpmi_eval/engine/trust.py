"""Whether sharing prefixes serves a model: tried out at every load, against straight passes over the same tokens.

A stem, branches that fill a chunk, then one more: a model whose attention depends on indices, or that carries state
from token to token, gives the last branch other states than it has on its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.forward import reason, refusal
from cpmi_eval.engine.reader import Apply, PackedReader, Wanted
from cpmi_eval.engine.straight import Reader
from cpmi_eval.errors import ModelError
from cpmi_eval.types import Failure

log = logging.getLogger(__name__)
STEM, LAST = 16, 24  # tokens


def distrust(
    packed: PackedReader,
    straight: Reader,
    apply: Callable[[Reader, Mapping[int, Encoded]], Apply],
    difference: Callable[[Tensor, Tensor], float],
    trusted: float,
    what: str,
    unit: str = "",
) -> float:
    """The ``difference`` of what two readers give; without FlexAttention where the model does not bear that.

    ``apply`` makes the head for a reader and the sequences that it is to read. Up to ``trusted`` is taken for rounding.
    ``what`` is read and the ``unit`` are for messages.

    Raises:
        ModelError: the difference is more than rounding, or the model does not run with the mask.
    """
    model = packed.forward.model
    try:
        encoded = _branches(packed)
        *_, last = encoded
        refused = {n: failure for n, one in encoded.items() if (failure := packed.refuses(len(one) - 1))}
        if last in refused:
            raise ModelError(f"the model cannot be tried out: {refused[last].message}")
        reads = {n: range(one.start - 1, len(one) - 1) for n, one in encoded.items() if n not in refused}
        wanted = {n: Wanted(encoded[n], own) for n, own in reads.items()}
        found = []
        for reader, own in ((packed, wanted), (straight, {last: wanted[last]})):
            values = dict(reader.read([own], apply(reader, encoded)))[last]
            if isinstance(values, Failure):
                raise ModelError(f"the model cannot be tried out: {values.message}")
            found.append(values.values)
        far = difference(*found)
        if not found[1].isfinite().all():
            raise ModelError(f"the model gives no usable {what}; try --dtype float32")
        if far <= trusted:
            return far
        away = f"{far:.3g}{unit} away from what they are alone (limit {trusted:g})"
        tried = refusal(model, f"{what} of a second branch are {away}")
    except ModelError as error:
        tried = error
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        tried = refusal(model, f"it does not run with the mask a trie needs ({reason(error)})")
        tried.__cause__ = error
    if not packed.forward.flex_from:  # not used, or asked for by name
        raise tried
    log.warning("FlexAttention does not serve this model; dense masks are used for long rows too: %s", tried)
    packed.forward.flex_from = None
    return distrust(packed, straight, apply, difference, trusted, what, unit)


def _branches(packed: PackedReader) -> dict[int, Encoded]:
    """Branches of random tokens off a stem, the last of them in another chunk.

    Where long rows have a kernel of their own, they are together long enough for that.
    """
    limits, vocabulary = packed.limits, packed.forward.model.get_input_embeddings().weight.shape[0]
    room = max(1, (limits.max_length or 1 << 30) - STEM)
    wanted = max(limits.row_tokens, packed.forward.flex_from or 0)
    long = min(wanted, room)
    rng = np.random.default_rng(0)
    begin = rng.integers(0, vocabulary, STEM).tolist()
    lengths = [long] * -(-wanted // long) + [max(1, min(LAST, room))]
    branches = [begin + rng.integers(0, vocabulary, length).tolist() for length in lengths]
    # Of the last everything after the stem is read, of the others the end.
    starts = [len(one) - 1 for one in branches[:-1]] + [STEM]
    return {n: Encoded(one, start) for n, (one, start) in enumerate(zip(branches, starts, strict=True))}
