"""Replies of an OpenAI-compatible server, read with distrust: what is amiss is a typed failure of that request."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.types import JSON, Tokens

SHOWN_CHARACTERS = 200
# llama-cpp-python goes on beyond max_tokens until a character is whole; of random bytes it made 20 tokens of 12.
TIMES_TOKENS, MORE_TOKENS = 4, 64
TEMPLATE_TOKENS = 65_536  # that a chat template may add to a prompt
TOO_LONG = ("context length", "context window", "context size", "maximum context", "too long", "exceeds the available")
FINISHES: dict[str, Literal["stop", "length"]] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence"), "stop"),
    "length": "length",
}
NO_PROBABILITY = -9998.0  # servers write -9999 for minus infinity, which JSON lacks


class Usage(NamedTuple):
    """Tokens as the server counts them; ``cached`` of the prompt's were not computed."""

    prompt: int
    cached: int
    completion: int

    def tokens(self) -> Tokens:
        """Return them as the meter counts: the last token of a completion is not read again."""
        requested = self.prompt + max(self.completion - 1, 0)
        return Tokens(requested, requested - self.cached, self.completion)


class Written(NamedTuple):
    """The text of one completion."""

    text: str
    finish: Literal["stop", "length"]
    usage: Usage


class Listed(NamedTuple):
    """Tokens of a text and their log-probabilities; ``None`` where the server gives none.

    ``generated``: how many of them at the end were generated.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    generated: int


def quoted(value: object) -> str:
    """Return the representation of a value, shortened where it is long or deep."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = SHOWN_CHARACTERS
    return brief.repr(value)


def shown(value: object) -> str:
    """Return a value in few words, for a message."""
    text = " ".join((value if isinstance(value, str) else quoted(value))[: 10 * SHOWN_CHARACTERS].split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def is_too_long(message: str) -> bool:
    """Return whether a server's complaint is about the length of a prompt."""
    return any(words in message.casefold() for words in TOO_LONG)


def choice_of(reply: JSON, model: str | None) -> JSON:
    """Return the first choice of a reply; RequestError where there is none, or ``model`` is not who answers."""
    if error := reply.get("error"):
        message = error.get("message", error) if isinstance(error, dict) else error
        kind = "too_long" if is_too_long(str(message)) else "server_error"
        raise RequestError(kind, f"an error with 200: {shown(message)}")
    if model is not None and reply.get("model") != model:
        raise RequestError("wrong_model", f"{quoted(reply.get('model'))} answered where {model!r} was asked")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RequestError("bad_response", f"a reply without choices: {shown(reply)}")
    return choices[0]


def check_counts(reply: JSON, asked: JSON) -> None:
    """Refuse (RequestError) a reply that counts more tokens than can be: they would be booked as its cost.

    ``asked``: the fields of the request. A completion may be longer than was allowed, but not by far; a prompt has no
    more tokens than bytes.
    """
    usage = reply.get("usage")
    texts = [asked["prompt"]] if "prompt" in asked else [one["content"] for one in asked["messages"]]
    for name, limit in (
        ("prompt_tokens", sum(len(text.encode()) for text in texts) + TEMPLATE_TOKENS),
        ("completion_tokens", TIMES_TOKENS * asked["max_tokens"] + MORE_TOKENS),
    ):
        count = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(count, int) and count > limit:
            raise RequestError("no_usage", f"the reply counts {count} {name}, of at most {limit}, which cannot be")


def usage_of(reply: JSON) -> Usage:
    """Return the usage of a reply; RequestError where there is none, or one that cannot be."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        raise RequestError("no_usage", "the reply does not say how many tokens it took; costs would be unknown")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts: Any = (usage.get("prompt_tokens"), 0 if cached is None else cached, usage.get("completion_tokens", 0))
    whole = all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
    if not whole or counts[0] == 0 or counts[1] > counts[0]:
        raise RequestError("no_usage", f"the reply counts its tokens as {shown(usage)}, which cannot be")
    return Usage(*counts)


def written(reply: JSON, model: str | None, stop: Sequence[str] = ()) -> Written:
    """Return the text of a reply, cut at the first of ``stop`` where the server has not done so.

    Raises:
        RequestError: see :func:`choice_of` and :func:`usage_of`; or no text, or an end that was not reached.
    """
    choice, usage = choice_of(reply, model), usage_of(reply)
    message, reason = choice.get("message"), choice.get("finish_reason")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is None and isinstance(message, dict) and reason == "length":
        text = ""  # cut off while it was still thinking, in a field of its own
    if not isinstance(text, str):
        raise RequestError("bad_response", f"a completion without text: {shown(choice)}")
    finish = FINISHES.get(str(reason))
    if finish is None:
        raise RequestError("bad_response", f"a completion that finished with {quoted(reason)}")
    if text and usage.completion == 0:
        raise RequestError("no_usage", f"the reply counts 0 tokens for a completion of {len(text)} characters")
    ends = [at for at in (text.find(one) for one in stop) if at >= 0]
    return Written(text[: min(ends)], "stop", usage) if ends else Written(text, finish, usage)


def listed(choice: JSON, generated: int) -> Listed:
    """Return the tokens and log-probabilities in a choice of the completions API; RequestError where there are none.

    ``generated``: how many tokens were generated, as the usage says.
    """
    given = choice.get("logprobs")
    if not isinstance(given, dict):
        raise RequestError("bad_response", "the reply carries no log-probabilities")
    tokens, values = given.get("tokens"), given.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        raise RequestError("bad_response", f"log-probabilities without a token each: {shown(given)}")
    return Listed(tuple(map(str, tokens)), tuple(map(_number, values)), generated)


def listed_prompt(choice: JSON) -> Listed:
    """Return the same from vLLM's ``prompt_logprobs``: per token, ``{id: {logprob, decoded_token}}``.

    Its first entry is ``None``: it does not say what the first token is, which may be BOS. Its text is empty here.
    """
    given = choice.get("prompt_logprobs")
    if not isinstance(given, list) or not given:
        raise RequestError("bad_response", "the reply carries no prompt_logprobs")
    tokens: list[str] = [""]
    values: list[float | None] = [None]
    for entry in given[1:]:
        (only,) = entry.values() if isinstance(entry, dict) and len(entry) == 1 else (None,)
        if not isinstance(only, dict):
            raise RequestError("bad_response", f"prompt_logprobs with an entry {shown(entry)}")
        tokens.append(str(only.get("decoded_token") or ""))
        values.append(_number(only.get("logprob")))
    return Listed(tuple(tokens), tuple(values), 0)


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError("bad_response", f"a log-probability of {shown(value)}")
    return float(value)


def total(values: Sequence[float | None]) -> float:
    """Return the sum of log-probabilities; RequestError where one is missing or none that a probability can have."""
    found: list[float] = []
    for value in values:
        if value is None:
            raise RequestError("non_finite", "a token of the continuation without a log-probability")
        if not math.isfinite(value) or value < NO_PROBABILITY:
            raise RequestError("non_finite", f"the server gave a log-probability of {value}")
        if value > 1e-3:
            raise RequestError("bad_response", f"a log-probability of {value}, above 0")
        found.append(value)
    return float(sum(found))
