"""Secrets kept out of what others say: a server may repeat the key that it was sent, whole, cut, or encoded."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

SHORTEST = 8  # characters; what is shorter (EMPTY, none) stands in for a key, or tells too little of one
HIDDEN = "***"
_USER = re.compile(r"://[^/\s?#@]*@")
_PARAMETER = re.compile(
    r"([?&;][\w.~-]*(?:key|token|secret|passw|pwd|auth|credential)[\w.~-]*=)[^&;#\s\"'<>]+", re.IGNORECASE
)


class Redaction:
    """Hides secrets, and any :data:`SHORTEST` characters in a row of one, as they are, in URLs and in base64.

    Also user and password in a URL, and what a URL passes as a key, a token or the like, whoever they belong to.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        """Prepare to hide ``secrets``; those shorter than :data:`SHORTEST` are none."""
        spelled = {form for one in secrets if len(one) >= SHORTEST for form in _spellings(one)}
        self._pieces = {form[at : at + SHORTEST] for form in spelled for at in range(len(form) - SHORTEST + 1)}
        # Any piece holds one of these whole, wherever it begins: most texts are cleared by looking for a few of them.
        half = SHORTEST // 2
        self._marks = sorted({form[at : at + half] for form in spelled for at in range(0, len(form) - half + 1, half)})

    def __call__(self, text: str) -> str:
        """Return ``text`` without secrets."""
        if len(text) >= SHORTEST and any(mark in text for mark in self._marks):
            text = "".join(self._parts(text))
        if "://" in text:
            text = _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text))
        return text

    def _parts(self, text: str) -> Iterator[str]:
        """Yield what is between secrets, and :data:`HIDDEN` for each of them."""
        kept = at = 0
        while at <= len(text) - SHORTEST:
            if text[at : at + SHORTEST] not in self._pieces:
                at += 1
                continue
            yield text[kept:at]
            yield HIDDEN
            while text[at : at + SHORTEST] in self._pieces:
                at += 1
            kept = at = at + SHORTEST - 1
        yield text[kept:]


def _spellings(secret: str) -> Iterator[str]:
    """Yield how a secret may be written: plainly, percent-encoded, and within base64 of more, at each alignment."""
    yield secret
    encoded = quote(secret, safe="")
    yield encoded
    yield re.sub("%..", lambda found: found[0].lower(), encoded)
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")
        own = whole[(0, 2, 3)[before] : len(whole) - ((before + len(secret.encode())) % 3 != 0)]
        yield own
        yield own.translate(str.maketrans("+/", "-_"))
