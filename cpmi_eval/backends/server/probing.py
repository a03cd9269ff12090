"""What a server offers, found out by asking it: nothing is taken from its name alone where it can be tried.

* Does it answer as the model that was asked for, and say what that took? (:func:`answer`)
* Whose fields does it take for what the API has no name for? (:func:`dialect`)
* Does it sample, and does a seed give the same text again among other requests? (:func:`sampling`)
* Does it go on with an assistant's turn that is given to it, rather than begin another? (:func:`prefill`)
* Does it list a prompt's tokens with their log-probabilities, and do these belong to them? (:func:`scoring`)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from cpmi_eval.backends.server import dialects, replies
from cpmi_eval.backends.server.alignment import align
from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.backends.server.replies import Listed, choice_of, quoted, shown, usage_of, written
from cpmi_eval.backends.server.requests import Request, ServerSettings
from cpmi_eval.errors import ModelError
from cpmi_eval.types import JSON, Failure, Sampling

QUESTION = "1 + 1 ="
STORY = "Once upon a time, there was a"
TEXT = "Problem: 12 apples and 30 more make how many?\n\nStep-by-step solution:\n\n12 + 30 ="
SEEDS = (1, 2, 1, 3, 1, 4)  # those of the sampling probe: the first comes three times
TOLERANCE = 0.25  # nats between two ways to the same log-probability; the wrong token's is off by far more
MODES = ("echo", "prompt_logprobs")
MISPLACED = "those of prompts belong to other tokens"
LONGEST_NAME = 500  # characters
CONTINUE: JSON = {"continue_final_message": True, "add_generation_prompt": False}

Ask: TypeAlias = Callable[[Request], JSON]
AskAll: TypeAlias = Callable[[Sequence[Request]], list[JSON | Failure]]


@dataclass(frozen=True)
class Sampled:
    """``samples``: different seeds give different texts. ``honours_seeds``: the same seed gives the same text."""

    samples: bool
    honours_seeds: bool


@dataclass(frozen=True)
class Scoring:
    """How prompts are scored (one of MODES), or ``None`` and, by mode, why not.

    ``unlisted``: tokens of every prompt that the server counts and does not list (BOS).
    """

    mode: str | None
    reasons: JSON
    unlisted: int = 0


def plain(own: ServerSettings, text: str, max_tokens: int, temperature: float = 0.0) -> JSON:
    """Return the fields of a request to continue (in a chat: to answer) a text."""
    asked: JSON = {"model": own.model, "max_tokens": max_tokens, "temperature": temperature}
    if own.api == "chat":
        return {**asked, "messages": [{"role": "user", "content": text}]}
    return {**asked, "prompt": own.bos + text}


def canary(own: ServerSettings) -> Request:
    """Return the smallest request that a server which is well must be able to answer."""
    return Request(own.api, plain(own, QUESTION, 1))


def answer(own: ServerSettings, reply: JSON) -> str | None:
    """Return the name that the server answers :func:`canary` as (``None``: it gives none); RequestError where amiss."""
    written(reply, None)
    name = reply.get("model")
    if name is None:
        return None
    exact = (f"{own.model}@", f"{own.model}-", f"{own.model}:")
    if not isinstance(name, str) or (name != own.model and not name.startswith(exact)) or len(name) > LONGEST_NAME:
        raise RequestError(
            "wrong_model", f"asked for {own.model!r}, it answers as {quoted(name)}; if that is the one, name it so"
        )
    return name


def dialect(own: ServerSettings, owner: object, ask: Ask) -> str:
    """Return whose fields the server takes: those it accepts, and refuses when their values make no sense.

    ``owner``: whom it names as the owner of its models.
    """
    if own.extra != "auto":
        return own.extra
    known = dialects.OWNERS.get(str(owner).casefold())
    return known or next((name for name in dialects.PROBED if _takes(own, name, ask)), "none")


def _takes(own: ServerSettings, name: str, ask: Ask) -> bool:
    def refusal(extra: JSON) -> RequestError | None:
        try:
            written(ask(Request(own.api, plain(own, QUESTION, 1), extra)), None)
        except RequestError as fault:
            return fault
        return None

    sensible = dialects.fields(name, Sampling(1, temperature=0.0))
    if refusal(sensible):
        return False
    for wrong in dialects.NONSENSE[name]:
        fault = refusal({**sensible, **wrong})
        if fault is None or fault.status is None:  # not every server says 422; some say 500
            return False
    return refusal(sensible) is None  # it was the fields, not the server


def sampling(own: ServerSettings, chosen: str, ask_all: AskAll) -> Sampled:
    """Draw short texts under SEEDS at the same time; RequestError where one fails."""
    extra = dialects.fields(chosen, Sampling(12, temperature=1.5))
    fields = plain(own, STORY, 12, temperature=1.5)
    texts: list[str] = []
    for reply in ask_all([Request(own.api, {**fields, "top_p": 1.0, "seed": seed}, extra) for seed in SEEDS]):
        if isinstance(reply, Failure):
            raise RequestError(reply.kind, reply.message)
        texts.append(written(reply, None).text)
    first = {text for text, seed in zip(texts, SEEDS, strict=True) if seed == SEEDS[0]}
    return Sampled(len(set(texts)) > 1, len(first) == 1 and len(set(texts)) > 1)


def prefill(own: ServerSettings, ask: Ask) -> JSON | None:
    """Return the fields under which the server goes on with an assistant's turn; ``None``: it begins a new one.

    Told by the server's count of the prompt: a begun turn adds its own tokens, a finished one also an end of turn and
    the header of the next. How many tokens the text itself has is seen from the same text in the user's turn.
    """
    user, begun = "Count to five.", "1, 2, 3,"
    try:
        alone = usage_of(ask(Request("chat", plain(own, user, 1)))).prompt
        longer = usage_of(ask(Request("chat", plain(own, f"{user} {begun}", 1)))).prompt
    except RequestError:
        return None
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": begun}]
    fields = {**plain(own, user, 1), "messages": turns}
    for extra in (CONTINUE, {}):
        try:
            both = usage_of(ask(Request("chat", fields, extra))).prompt
        except RequestError:
            continue
        if alone < both <= longer:
            return extra
    return None


def scored(own: ServerSettings, mode: str, text: str) -> Request:
    """Return the request for a prompt's log-probabilities; one token is generated, as not every server allows none."""
    fields: JSON = {"model": own.model, "prompt": text, "max_tokens": 1, "temperature": 0.0}
    if mode == "echo":
        return Request("completions", {**fields, "echo": True, "logprobs": 1})
    return Request("completions", fields, {"prompt_logprobs": 0})


def prompt_list(mode: str, reply: JSON, model: str | None) -> Listed:
    """Return the tokens that the reply to :func:`scored` lists; raises RequestError where it lists none."""
    choice = choice_of(reply, model)
    return replies.listed(choice, usage_of(reply).completion) if mode == "echo" else replies.listed_prompt(choice)


def scoring(own: ServerSettings, ask: Ask) -> Scoring:
    """Find a way to a prompt's log-probabilities that gives what generating the same tokens gives."""
    if own.api == "chat":
        return Scoring(None, {"chat": "the chat API scores no prompt; api=completions may"})
    text = own.bos + TEXT
    fields = {"model": own.model, "prompt": text, "max_tokens": 6, "temperature": 0.0, "logprobs": 1}
    try:
        reply = ask(Request("completions", fields))
        spoken = written(reply, None).text
        made = prompt_list("echo", reply, None)
    except RequestError as fault:
        return Scoring(None, {"logprobs": shown(fault.failure.message)})
    reasons: JSON = {}
    for mode in MODES:
        try:
            whole = ask(scored(own, mode, text + spoken))
            found = prompt_list(mode, whole, None)
            unlisted = _compare(found, made, text, spoken, usage_of(whole).prompt, own.bos)
        except RequestError as fault:
            reasons[mode] = shown(fault.failure.message)
        else:
            return Scoring(mode, reasons, unlisted)
    return Scoring(None, reasons)


def _compare(found: Listed, made: Listed, text: str, spoken: str, counted: int, bos: str) -> int:
    """How many tokens of the prompt are not listed; RequestError where generating them gave other log-probabilities."""
    place = align(found.tokens, text + spoken, found.generated, bos)
    end = place.skipped + len(place.ends)
    unlisted = counted - end
    if unlisted not in (0, 1):
        raise RequestError("unaligned", f"of {counted} tokens in the prompt, {unlisted} are missing from the list")
    start = place.skipped + place.first_after(len(text))
    compared = 0
    pairs = zip(found.tokens[start:], found.logprobs[start:], made.tokens, made.logprobs, strict=False)
    for token, value, other, expected in islice(pairs, end - start):
        if token != other:
            break
        if abs(replies.total([value]) - replies.total([expected])) > TOLERANCE:
            numbers = f"{value:.3f} when it is read and {expected:.3f} when it is generated"
            raise RequestError("unaligned", f"{quoted(token)} has log-probability {numbers}: {MISPLACED}")
        compared += 1
    if not compared:
        cut = "is cut into other tokens when it is read than when generated"
        raise RequestError("unaligned", f"{quoted(spoken)} {cut}")
    return unlisted


def no_scoring(own: ServerSettings, found: Scoring) -> ModelError:
    """Return the error for a run that needs log-probabilities of prompts from a server that has none to offer."""
    tried = "; ".join(f"{mode}: {reason}" for mode, reason in found.reasons.items())
    hint = ""
    if MISPLACED in tried and not own.bos:
        hint = (
            "\nllama-cpp-python lists them a token late where a model adds no BOS of its own: model_args bos=TEXT, "
            "with the text of its BOS token, gives right ones, of prompts that BOS leads"
        )
    return ModelError(
        f"{own.base_url} gives no usable log-probabilities of prompts ({tried}). Labelers that need loglikelihood run "
        "on servers that do, through api=completions: vLLM, SGLang, llama-cpp-python (--logits_all true); or on "
        f"--backend hf. What only generates (mc, pav, judge) runs here{hint}"
    )
