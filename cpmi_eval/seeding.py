"""Seeds that belong to one thing (a trace, a subset), so that results do not depend on order or batching."""

from __future__ import annotations

import hashlib
import random


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that is a function of ``parts`` alone, the same on every machine and Python."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derive_rng(*parts: object) -> random.Random:
    """Return a generator seeded by :func:`derive_seed`."""
    return random.Random(derive_seed(*parts))
