"""Log-probabilities from lm-eval's models, and how a failed request is told from a failed model.

Source of the request forms: lm_eval 0.4.13, ``api/model.py`` (``TemplateLM._loglikelihood_tokens``,
``LM.loglikelihood``, ``LM.generate_until``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cpmi_eval.backends.lm_eval_models import Loaded, PairEncoder, boundary_is_plain, quiet, told
from cpmi_eval.engine.encode import Encoded
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.types import Failure, LogProb, ScoreRequest, Tokens

T = TypeVar("T")
R = TypeVar("R")

GIVE_UP_AFTER = 16  # requests in a row that fail, each asked alone
GIVE_UP_ON_SERVER = 3  # the same where a server does not answer; lm-eval has tried each several times
SERVER_PART = 64  # requests that are handed to a server's class at a time, per concurrent one
IMPOSSIBLE = 0.01  # a log-probability above this is no rounding error
CHAT = frozenset({"LocalChatCompletion", "AnthropicChat"})
OTHER_ANSWERS = CHAT | {"SGLANGGENERATEAPI"}  # made of LocalCompletionsAPI, with answers of another form


class Asker:
    """Asks a model for many things at once; where that fails, finds out which of them it fails on."""

    def __init__(self, name: str) -> None:
        """Take the name of the model's class."""
        self.name = name
        self.failed = 0

    def each(self, items: Sequence[T], ask: Callable[[Sequence[T]], Sequence[R]]) -> list[R | Failure]:
        """Return the answer to each item, or a Failure in its place.

        Raises:
            ModelError: too many failed in a row; the model, not a request, is what is wrong.
        """
        try:
            answers = ask(items)
            if len(answers) != len(items):
                raise ValueError(f"{len(answers)} answers to {len(items)} requests")
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - a foreign class fails in its own ways, on one request or on all
            if len(items) == 1:
                return [self._alone(error)]
            # A server that is gone fails on every part: ask for little first, not for halves of everything.
            cut = 1 if _no_answer(error) else len(items) // 2
            _release(error)
        else:
            self.failed = 0
            return list(answers)
        return [*self.each(items[:cut], ask), *self.each(items[cut:], ask)]

    def _alone(self, error: Exception) -> Failure:
        if _out_of_memory(error):
            _release(error)
            return Failure("out_of_memory", "one request is too much for this device; try a smaller dtype or model")
        self.failed += 1
        if self.failed >= (GIVE_UP_ON_SERVER if _no_answer(error) else GIVE_UP_AFTER):
            raise ModelError(
                f"lm-eval's class {self.name!r} failed on {self.failed} requests in a row, at last with {told(error)}; "
                "what was scored is kept, and the same command goes on from there"
            ) from error
        return Failure("exception", f"lm-eval's class {self.name!r}: {told(error)}")


def _no_answer(error: BaseException) -> bool:
    """Return whether a server is unreachable, too slow, refuses this client, or is broken: not the request's fault."""
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "status", None))
    if isinstance(status, int):
        return status in (401, 403, 404, 408, 429) or status >= 500
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(
        ("requests.", "urllib3.", "aiohttp.")
    )


def _out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _release(error: BaseException) -> None:
    """Give a GPU's cached memory back after it ran out."""
    if _out_of_memory(error):
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class LMEvalScorer:
    """Log-probabilities: token ids where the class takes them, else text that no convention can shift."""

    def __init__(self, loaded: Loaded, encoder: PairEncoder | None, asker: Asker) -> None:
        """Take a model and what encodes for it."""
        self.lm, self.bases, self.name = loaded.lm, loaded.bases, loaded.name
        self.encoder = encoder
        self.asker = asker
        self.by_tokens = "TemplateLM" in self.bases
        self.misaligned: dict[tuple[int, ...], str] = {}
        if "LocalCompletionsAPI" in self.bases and not self.bases & OTHER_ANSWERS:
            _watch_logprobs(self.lm, self.misaligned)

    @property
    def at_once(self) -> int:
        """Requests handed over at a time: to a server in parts, since one that fails takes its part with it."""
        return SERVER_PART * max(1, int(getattr(self.lm, "_concurrent", 1))) if "TemplateAPI" in self.bases else 1 << 30

    @property
    def room(self) -> int | None:
        """Tokens of the longest request that the class does not cut, first token included; ``None``: it never says."""
        longest = getattr(self.lm, "max_length", None)
        if not isinstance(longest, int):
            return None
        if "HFLM" in self.bases:
            return longest + 1  # nothing is predicted from the last token
        return longest if "TemplateAPI" in self.bases else longest - 1  # engines want room for one new token

    def probe(self) -> None:
        """Find out whether the class gives log-probabilities at all.

        Raises:
            ModelError: it does not, or its first answer is no log-probability.
        """
        request = ScoreRequest("1 + 1 =", " 2")
        if self.encoder is None and not self.bases & CHAT:
            raise ModelError(
                f"lm-eval's class {self.name!r} has no tokenizer here, and without one nothing can be normalised by "
                "length; use local-completions with --model_args tokenizer=HUB_ID_OR_FOLDER,"
                "tokenizer_backend=huggingface, or --backend server"
            )
        try:
            with quiet():
                self.lm.loglikelihood([instance("loglikelihood", (request.context, request.continuation))])
        except Exception as error:  # classes say in many ways that they cannot
            if _no_answer(error):
                raise ModelError(f"lm-eval's class {self.name!r} gets no answer: {told(error)}") from error
            raise ModelError(
                f"lm-eval's class {self.name!r} gives no log-probabilities ({told(error)}); this labeler needs them: "
                "use another class, or --backend hf"
            ) from error
        (answer,) = self.score([request])
        if isinstance(answer, Failure):
            raise ModelError(f"lm-eval's class {self.name!r} cannot score: {answer.message} ({answer.kind})")

    def score(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return one LogProb or Failure per request, in their order; nothing is cut to fit.

        Raises:
            UsageError: truncated distributions are asked for, which no class of lm-eval gives.
            ModelError: the class does not answer any more.
        """
        if any(request.top_k > 0 or request.top_p < 1.0 for request in requests):
            raise UsageError(
                "the labeler's settings top_k and top_p need whole distributions, and lm-eval's classes return one "
                "log-probability per request; leave them out, or use --backend hf"
            )
        assert self.encoder is not None
        encoded = self.encoder.pairs(requests)
        results: dict[int, LogProb | Failure] = {}
        ready: list[tuple[int, Encoded]] = []
        for place, one in enumerate(encoded):
            refused = one if isinstance(one, Failure) else self._refused(requests[place], one)
            if isinstance(one, Failure) or refused is not None:
                results[place] = refused  # type: ignore[assignment]
            else:
                ready.append((place, one))

        def ask(batch: Sequence[tuple[int, Encoded]]) -> Sequence[tuple[float, bool]]:
            return self._ask([requests[place] for place, _ in batch], [one for _, one in batch])

        answers: list[tuple[float, bool] | Failure] = []
        with quiet():
            for first in range(0, len(ready), self.at_once):
                answers += self.asker.each(ready[first : first + self.at_once], ask)
        for (place, one), answer in zip(ready, answers, strict=True):
            results[place] = answer if isinstance(answer, Failure) else self._result(one, answer)
        self.misaligned.clear()
        return [results[place] for place in range(len(requests))]

    def _refused(self, request: ScoreRequest, one: Encoded) -> Failure | None:
        assert self.encoder is not None
        n = len(one.ids)
        if one.start == n:
            return Failure("empty_continuation", "the continuation has no tokens")
        if self.room is not None and n > self.room:
            return Failure(
                "too_long", f"{n:,} tokens; lm-eval's class {self.name!r} takes {self.room:,} and would cut the context"
            )
        if not self.by_tokens and not boundary_is_plain(self.encoder, request):
            return Failure(
                "unaligned",
                f"lm-eval's class {self.name!r} takes text only, and by lm-eval's convention whitespace at the end of "
                "the context, or a token across its end, would be scored with the continuation",
            )
        return None

    def _ask(self, requests: Sequence[ScoreRequest], encoded: Sequence[Encoded]) -> Sequence[tuple[float, bool]]:
        texts = [(request.context, request.continuation) for request in requests]
        if not self.by_tokens:
            answers = self.lm.loglikelihood([instance("loglikelihood", text) for text in texts])
        else:
            ids = [one.ids.tolist() for one in encoded]
            rows = zip(texts, ids, encoded, strict=True)
            answers = self.lm._loglikelihood_tokens([(t, i[: e.start], i[e.start :]) for t, i, e in rows])
        return list(answers)

    def _result(self, one: Encoded, answer: tuple[float, bool]) -> LogProb | Failure:
        total, n = float(answer[0]), len(one.ids)
        amiss = self.misaligned.get(tuple(one.ids.tolist()))
        if amiss is not None:
            return Failure("unaligned", amiss)
        if not math.isfinite(total):
            return Failure("non_finite", f"the model gave a log-probability of {total}; try dtype=float32")
        if total > IMPOSSIBLE:
            return Failure("bad_output", f"the model gave a log-probability of {total}, above 0")
        return LogProb(total, n - one.start, Tokens(requested=n - 1, computed=n - 1))


def instance(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Return a request in lm-eval's form; of no task, so that nothing of one is kept."""
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def _watch_logprobs(lm: Any, misaligned: dict[tuple[int, ...], str]) -> None:
    """Compare what a server echoes with what it was sent, which lm-eval does not: it sums up by place alone.

    One log-probability per token sent and one for the token that it makes must come back. A server that adds a BOS,
    cuts a prompt, or tokenizes text in another way gives another number, and the sum would be that of other tokens.
    """
    original = lm.parse_logprobs

    def parse(outputs: Any, tokens: Any = None, ctxlens: Any = None, **more: Any) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = original(outputs=outputs, tokens=tokens, ctxlens=ctxlens, **more)
        every = outputs if isinstance(outputs, list) else [outputs]
        choices = [one for output in every for one in sorted(output["choices"], key=lambda one: one["index"])]
        for place, (choice, sent) in enumerate(zip(choices, tokens, strict=True)):
            got = len(choice["logprobs"]["token_logprobs"])
            if got != len(sent) + 1:
                misaligned[tuple(sent)] = (
                    f"{len(sent)} tokens were sent, and {got - 1} came back before the new one: the server adds, cuts "
                    "or tokenizes in its own way"
                )
                answers[place] = (math.nan, False)
        return answers

    lm.parse_logprobs = parse
