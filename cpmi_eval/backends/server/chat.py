"""Chat turns without a template: a prompt that says which part of it is the user's and which the assistant's.

A backend without a tokenizer cannot render a chat template; the server does. ``chat_prompt`` therefore returns the
user's text behind a header that gives its length, in characters that no text contains. Whatever a labeler appends to
it (the first steps of a solution) begins the assistant's turn.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEADER = re.compile("\ue000chat:([0-9]+)\ue001")


class Turns(NamedTuple):
    """One user turn, and how the assistant's begins (empty: from nothing)."""

    user: str
    begun: str

    def messages(self) -> list[dict[str, str]]:
        """Return them as the chat API takes them."""
        own = [{"role": "user", "content": self.user}]
        return own if not self.begun else [*own, {"role": "assistant", "content": self.begun}]


def mark(user: str) -> str:
    """Return ``user`` as the marked beginning of a prompt."""
    return f"\ue000chat:{len(user)}\ue001{user}"


def read(prompt: str) -> Turns | None:
    """Return the turns of a prompt that begins with :func:`mark`'s result; ``None`` for any other prompt."""
    header = _HEADER.match(prompt)
    if header is None:
        return None
    end = header.end() + int(header[1])
    return Turns(prompt[header.end() : end], prompt[end:])
