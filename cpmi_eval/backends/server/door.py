"""Where a server's bytes become objects: bounded, checked and free of secrets before anything looks at them.

Not through :mod:`cpmi_eval.record.door`: what comes is nobody's file, its size has a bound while it is read, and what
it says must lose its secrets before any message can repeat it.
"""

from __future__ import annotations

import json
import math
from typing import Any

from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.backends.server.redaction import Redaction
from cpmi_eval.types import JSON

MOST_BYTES = 16 * 2**20  # of a reply; the log-probabilities of a prompt of 100,000 tokens take less
DEEPEST = 64  # levels of nesting; replies have six
LARGEST = 2**63  # a whole number beyond it counts nothing
ERROR_BYTES = 10_000  # of a reply that is no JSON: more than is ever shown


async def body_of(response: Any) -> bytes:
    """Return the body of a response of the HTTP client as it is read from the network.

    Compression is not asked for, and refused: what it unfolds to has no bound.

    Raises:
        RequestError: it is compressed, or larger than :data:`MOST_BYTES`; the rest is not read.
    """
    status: int = response.status_code
    if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise RequestError("bad_response", "the reply is compressed, which it was asked not to be", status)
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MOST_BYTES:
            raise RequestError("bad_response", f"the reply is larger than {MOST_BYTES:,} bytes", status)
    return bytes(body)


def value_of(body: bytes, hide: Redaction) -> Any:
    """Return what a body says, without secrets.

    Raises:
        RequestError: ``bad_response``: it is no JSON, or holds what JSON from a server has no use for (too deep, a
            lone surrogate, a number without end); ``non_finite``: NaN or an infinity.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        start = " ".join(text_of(body, hide)[:200].split())
        raise RequestError("bad_response", f"the reply is not JSON: {start or 'empty'}") from None
    return _checked(value, hide, DEEPEST)


def text_of(body: bytes, hide: Redaction) -> str:
    """Return the beginning of a body as text, without secrets."""
    return hide(body[:ERROR_BYTES].decode("utf-8", errors="replace"))


def object_of(body: bytes, hide: Redaction) -> JSON:
    """Return the JSON object that a body holds; raises as :func:`value_of`, also where it is none."""
    value = value_of(body, hide)
    if not isinstance(value, dict):
        raise RequestError("bad_response", f"the reply is not a JSON object but a {type(value).__name__}")
    return value


def _checked(value: Any, hide: Redaction, levels: int) -> Any:
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise RequestError("bad_response", "the reply holds half a character (a lone surrogate)")
        return hide(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError("non_finite", f"the reply holds {value}, which is no number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise RequestError("bad_response", "the reply holds a whole number of more than 19 digits")
    if not isinstance(value, list | dict):
        return value
    if not levels:
        raise _too_deep()
    if isinstance(value, list):
        return [_checked(one, hide, levels - 1) for one in value]
    return {_checked(name, hide, 1): _checked(one, hide, levels - 1) for name, one in value.items()}


def _too_deep() -> RequestError:
    return RequestError("bad_response", f"the reply is nested more than {DEEPEST} levels deep")
