"""Which of a server's tokens are a prompt's, and where in it each ends.

Nothing is assumed of the tokenizer. The tokens' texts must spell the prompt; a token that is part of a character has
no text of its own, and ends somewhere in the run of such tokens that it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.backends.server.replies import Listed, Usage, total
from cpmi_eval.types import LogProb

LONGEST_RUN = 64  # characters that tokens without a text of their own may cover together
_SPECIAL = re.compile(r"<[^<>\s]{1,40}>|\[[A-Z_]{1,20}\]|")


class Bos(NamedTuple):
    """``text``: what leads prompts as a token of its own. ``unlisted``: tokens that are counted and not listed."""

    text: str
    unlisted: int


class Aligned(NamedTuple):
    """The prompt's tokens. Each ends after the first of its ``ends``, at the second at the latest; often equal.

    ``skipped``: tokens before the first of these, such as BOS; ``shift``: characters by which ends are off.
    """

    ends: list[tuple[int, int]]
    skipped: int
    shift: int

    def first_after(self, boundary: int) -> int:
        """Return the index of the first token that ends after a character boundary of the prompt (or straddles it).

        Raises:
            RequestError: the boundary is inside a run of tokens whose ends are not known.
        """
        at = boundary + self.shift
        for index, (low, high) in enumerate(self.ends):
            if high <= at:
                continue
            if low == high or at <= low:
                return index
            raise RequestError("unaligned", "the context ends inside a character that the server cuts into tokens")
        return len(self.ends)


def is_readable(token: str) -> bool:
    """Return whether a token's text is whole: no part of a character, and not empty."""
    return bool(token) and "\ufffd" not in token and not token.startswith("bytes:")


def align(tokens: Sequence[str], text: str, generated: int, unlisted: str = "") -> Aligned:
    """Find the prompt ``text`` in the listed tokens: the prompt's, then some that were generated.

    Args:
        tokens: their texts.
        text: the prompt.
        generated: how many were generated, for where the texts alone do not tell.
        unlisted: a beginning of the prompt that is a token of its own, which the server may leave out of its list.
    """
    spelled = [(text, 0), (f" {text}", 1)]  # a tokenizer may put a space before the first word
    if unlisted and text.startswith(unlisted):
        own = text[len(unlisted) :]
        spelled += [(own, -len(unlisted)), (f" {own}", 1 - len(unlisted))]
    for skipped in (0, 1):
        if skipped and not (tokens and _SPECIAL.fullmatch(tokens[0])):
            break
        for candidate, shift in spelled:
            ends = _walk(tokens[skipped:], candidate, generated)
            if ends is not None:
                return Aligned(ends, skipped, shift)
    if tokens and not tokens[0]:  # a list that does not say what its first token is
        for length in range(1, min(len(text), LONGEST_RUN)):
            ends = _walk(tokens[1:], text[length:], generated)
            if ends is not None:
                return Aligned([(length, length), *((low + length, high + length) for low, high in ends)], 0, 0)
    raise RequestError("unaligned", "the tokens that the server lists do not spell the prompt")


def _walk(tokens: Sequence[str], text: str, generated: int) -> list[tuple[int, int]] | None:
    """The bounds of each token's end, up to the end of ``text``; ``None`` where they do not spell it."""
    ends: list[tuple[int, int]] = []
    at, run = 0, 0
    for token in tokens:
        if at == len(text) and not run:
            return ends
        if not is_readable(token):
            run += 1
            continue
        start = _resume(text, at, token) if run else at
        if start is None or not text.startswith(token, start):
            break
        ends += [(at, start)] * run
        at, run = start + len(token), 0
        ends.append((at, at))
    rest = text[at:]
    if run and rest and len(rest) <= LONGEST_RUN and len(ends) + run >= len(tokens) - generated > len(ends):
        return [*ends, *[(at, len(text))] * (len(tokens) - generated - len(ends))]
    return ends if not rest else None


def _resume(text: str, at: int, token: str) -> int | None:
    """Where ``token`` stands after a run of tokens without text, which cover at least one character."""
    for start in range(at + 1, min(len(text), at + LONGEST_RUN) + 1):
        if text.startswith(token, start) and not text[at:start].isascii():
            return start
    return None


def logprob(found: Listed, text: str, boundary: int, usage: Usage, bos: Bos) -> LogProb:
    """Return the log-probability of what follows ``boundary`` in a prompt whose tokens a server lists.

    Raises:
        RequestError: ``unaligned``, ``non_finite``, or ``bad_response`` where the list cannot be right.
    """
    place = align(found.tokens, text, found.generated, bos.text)
    count = place.skipped + len(place.ends)
    if usage.prompt - count != bos.unlisted:
        raise RequestError(
            "unaligned", f"the server counts {usage.prompt} tokens of the prompt and lists {count + bos.unlisted}"
        )
    first = place.skipped + place.first_after(boundary)
    if first == count:
        raise RequestError("empty_continuation", "the continuation has no tokens")
    if first == 0 and found.logprobs[0] is None:
        raise RequestError(
            "unaligned", "nothing stands before the first token, so the server has no probability for it"
        )
    return LogProb(total(found.logprobs[first:count]), count - first, usage.tokens())
