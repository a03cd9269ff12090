"""Completions from lm-eval's models, one per seed as far as a class can be seeded.

Source of the request form: lm_eval 0.4.13, ``api/model.py`` (``LM.generate_until``).
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cpmi_eval.backends.lm_eval_models import Loaded, PairEncoder, quiet, redacted
from cpmi_eval.backends.lm_eval_scoring import CHAT, Asker, instance
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.types import Completion, Enough, Failure, Generation, Sampling, Tokens

SEEDED_BY_REQUEST = frozenset({"LocalCompletionsAPI", "VLLM"})
UNSEEDED = frozenset({"AnthropicChat", "LiteLLMChatCompletion", "SGLANGGENERATEAPI"})  # made of the former


@dataclass(frozen=True)
class Drawn:
    """What is known of one completion beyond its text: tokens of prompt and completion, and why it ended."""

    prompt_tokens: int | None = None
    n_tokens: int | None = None
    finish: str | None = None
    ids: tuple[int, ...] | None = None


class LMEvalGenerator:
    """Completions, each from its own seed: set in this process, or handed on to the class."""

    def __init__(self, loaded: Loaded, encoder: PairEncoder | None, asker: Asker) -> None:
        """Take a model and what encodes for it."""
        self.lm, self.bases, self.name = loaded.lm, loaded.bases, loaded.name
        self.encoder = encoder
        self.asker = asker
        self.in_process = "HFLM" in self.bases
        self.chat = bool(self.bases & CHAT)
        self.server_adds = _bos_of_server(self.lm, encoder) if "TemplateAPI" in self.bases else ""
        self.seen = threading.local()
        self.workers = max(1, int(getattr(self.lm, "_concurrent", 1))) if "TemplateAPI" in self.bases else 1
        if self.in_process:
            _plain_sampling(self.lm)
            self._keep_tokens()
        elif "TemplateAPI" in self.bases:
            self._keep_usage()
            if "add_bos_token" not in loaded.passed and encoder is not None:
                _lead_with_bos(self.lm, encoder)

    @property
    def seeding(self) -> str | None:
        """How a completion is tied to its seed; ``None``: not at all, so that only greedy text can be had."""
        if self.in_process:
            return "set in this process before each completion"
        if self.bases & SEEDED_BY_REQUEST and not self.bases & UNSEEDED:
            return "handed on with each request"
        return None

    def probe(self) -> None:
        """Make one short completion.

        Raises:
            ModelError: that fails.
        """
        prompt = chat_messages("1 + 1 =") if self.chat else "1 + 1 ="
        (made,) = self.generate([prompt], Sampling(max_new_tokens=2, temperature=0.0), [[0]], None)
        if isinstance(made, Failure):
            raise ModelError(f"lm-eval's class {self.name!r} cannot generate: {made.message} ({made.kind})")

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None
    ) -> list[Generation | Failure]:
        """Return the completions of each prompt, one per seed; in rounds where the caller may have enough before.

        Greedy text is made once, and given as often as it is asked for.

        Raises:
            UsageError: the class cannot sample as asked.
            ModelError: it does not answer any more.
        """
        self._check(sampling)
        greedy = sampling.temperature <= 0
        failed = {place: self._refused(prompt, sampling) for place, prompt in enumerate(prompts)}
        parts: dict[int, list[tuple[Completion, int]]] = {place: [] for place in failed}
        left = {place: list(range(len(seeds[place]))) for place, failure in failed.items() if failure is None}
        while left := {place: samples for place, samples in left.items() if samples}:
            many = None if enough is None and not greedy else 1  # all that are left, or the next one
            wanted = [(place, sample) for place, samples in left.items() for sample in samples[:many]]
            draws = [(prompts[place], seeds[place][sample]) for place, sample in wanted]
            left = {place: [] if greedy or many is None else samples[1:] for place, samples in left.items()}
            for (place, sample), one in zip(wanted, self._draw(draws, sampling), strict=True):
                if isinstance(one, Failure):
                    failed[place], left[place] = failed[place] or one, []
                    continue
                parts[place].append((replace(one[0], sample=sample), one[1]))
                if enough is not None and enough(place, parts[place][-1][0]):
                    left[place] = []
        return [
            failure or _together(parts[place], len(seeds[place]) if greedy else 0) for place, failure in failed.items()
        ]

    def _check(self, sampling: Sampling) -> None:
        if sampling.temperature > 0 and self.seeding is None:
            raise UsageError(
                f"lm-eval's class {self.name!r} takes no seed, so that a sampled completion could not be had again; "
                "set the labeler's temperature=0, or use another class or --backend hf"
            )
        if self.seeding is None and sampling.repetition_penalty != 1.0:
            raise UsageError(
                f"lm-eval's class {self.name!r} is not known to take a repetition penalty; set the labeler's "
                "repetition_penalty=1, or use --backend hf"
            )

    def _refused(self, prompt: str, sampling: Sampling) -> Failure | None:
        if self.chat:
            return _no_turn(prompt)
        longest = getattr(self.lm, "max_length", None)
        if self.encoder is None or not isinstance(longest, int):
            return None
        n = len(self.encoder.prompt(prompt))
        if n + sampling.max_new_tokens <= longest:
            return None
        return Failure(
            "too_long",
            f"{n:,} prompt + {sampling.max_new_tokens:,} new tokens; lm-eval's class {self.name!r} takes {longest:,} "
            "(its argument max_length) and would cut the prompt",
        )

    def _draw(self, draws: Sequence[tuple[str, int]], sampling: Sampling) -> list[tuple[Completion, int] | Failure]:
        """Return a completion and its prompt's tokens for each prompt and seed."""
        if not draws:
            return []
        with quiet():
            if self.workers == 1:
                if "VLLM" in self.bases:  # it runs requests beside each other, each under its own seed
                    return self.asker.each(draws, lambda some: self._ask(some, sampling))
                return [one for draw in draws for one in self._single(draw, sampling)]
            with ThreadPoolExecutor(min(self.workers, len(draws))) as pool:
                try:
                    return [one for part in pool.map(lambda d: self._single(d, sampling), draws) for one in part]
                except BaseException:  # an interrupt, too: what waits must not be asked first
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    def _single(self, draw: tuple[str, int], sampling: Sampling) -> list[tuple[Completion, int] | Failure]:
        return self.asker.each([draw], lambda one: self._ask(one, sampling))

    def _ask(self, draws: Sequence[tuple[str, int]], sampling: Sampling) -> list[tuple[Completion, int]]:
        requests = [
            instance("generate_until", (self._sent(prompt), self._arguments(sampling, seed))) for prompt, seed in draws
        ]
        self.seen.drawn = None
        if self.in_process and sampling.temperature > 0:
            with _seeded(draws[0][1]):
                texts = self.lm.generate_until(requests)
        else:
            texts = self.lm.generate_until(requests)
        known = self.seen.drawn if len(draws) == 1 else None
        return [
            self._completion(prompt, text, known or Drawn(), sampling)
            for (prompt, _), text in zip(draws, texts, strict=True)
        ]

    def _sent(self, prompt: str) -> Any:
        if not self.chat:
            return prompt.removeprefix(self.server_adds)
        from lm_eval.models.api_models import JsonChatStr

        return JsonChatStr(prompt)

    def _arguments(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Return the settings of one completion under lm-eval's names; idle ones only where a class has its own."""
        given: dict[str, Any] = {"until": list(sampling.stop), "max_gen_toks": sampling.max_new_tokens}
        if sampling.repetition_penalty != 1.0:
            given["repetition_penalty"] = sampling.repetition_penalty
        if sampling.temperature <= 0:
            return {**given, "do_sample": False, "temperature": 0.0}
        given.update(do_sample=True, temperature=sampling.temperature)
        if self.in_process or sampling.top_p < 1.0:
            given["top_p"] = sampling.top_p
        if self.in_process or sampling.top_k > 0:
            given["top_k"] = sampling.top_k
        if not self.in_process:
            given["seed"] = seed % 2**31  # what every server takes
        return given

    def _completion(self, prompt: str, text: Any, known: Drawn, sampling: Sampling) -> tuple[Completion, int]:
        if not isinstance(text, str):
            raise ValueError(f"a completion that is {type(text).__name__}, not text")
        cut = min((at for at in (text.find(mark) for mark in sampling.stop) if at >= 0), default=None)
        n_tokens, n_prompt = known.n_tokens, known.prompt_tokens
        if n_tokens is None or n_prompt is None:
            if self.encoder is None:
                raise ValueError("the server states no usage, and the class has no tokenizer to count tokens with")
            n_tokens = len(self.encoder.ids(text)) if n_tokens is None else n_tokens
            n_prompt = len(self.encoder.prompt(prompt)) if n_prompt is None else n_prompt
        finish = known.finish or ("length" if n_tokens >= sampling.max_new_tokens else "stop")
        if known.ids is not None:
            made = self._ended(known.ids, sampling)
            n_tokens, finish = made.n_tokens, made.finish
        elif cut is not None:
            finish = "stop"
        kept = text if cut is None else text[:cut]
        kept = kept if self.in_process else redacted(kept)  # a server may repeat the key that it was sent
        return Completion(kept, n_tokens, "length" if finish == "length" else "stop"), n_prompt

    def _ended(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        """Return where decoded tokens end and why, by the rule of every backend here."""
        from cpmi_eval.engine.sampling import completion, end_tokens

        return completion(ids, end_tokens(self.lm.model, self.lm.tokenizer), self.lm.tokenizer, sampling.stop)

    def _keep_tokens(self) -> None:
        """Keep the tokens of each completion that is decoded in this process: lm-eval returns only their text."""
        original = self.lm._model_generate

        def generate(context: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(context, *args, **kwargs)
            if context.shape[0] == 1:
                n = int(context.shape[1])
                ids = tuple(output[0, n:].tolist())
                self.seen.drawn = Drawn(n, len(ids), None, ids)
            return output

        self.lm._model_generate = generate

    def _keep_usage(self) -> None:
        """Keep what a server says of each completion: lm-eval returns only its text."""
        original = self.lm.parse_generations

        def parse(outputs: Any, **kwargs: Any) -> Any:
            every = outputs if isinstance(outputs, list) else [outputs]
            if len(every) == 1 and isinstance(every[0], dict):
                self.seen.drawn = _usage(every[0])
            return original(outputs=outputs, **kwargs)

        self.lm.parse_generations = parse


def chat_messages(user: str) -> str:
    """Return one user turn as the messages that a chat endpoint takes, in JSON."""
    return json.dumps([{"role": "user", "content": user}], ensure_ascii=False)


def _no_turn(prompt: str) -> Failure | None:
    """Return why a prompt is no whole turn of a chat, or None."""
    try:
        _, end = json.JSONDecoder().raw_decode(prompt)
    except ValueError:
        end = 0
    if end == len(prompt) and prompt.startswith("["):
        return None
    why = "cannot continue an answer that is begun" if end else "takes turns of a chat only (the labeler's chat=true)"
    return Failure("chat_only", f"a chat endpoint {why}; use a class for completions, such as local-completions")


def _usage(output: dict[str, Any]) -> Drawn:
    """Read how a completion ended and what it cost from a server's answer, where it says so."""
    usage, choices = output.get("usage") or {}, output.get("choices") or [{}]
    reason = choices[0].get("finish_reason") or output.get("stop_reason")
    prompt, made = (usage.get(one) for one in ("prompt_tokens", "completion_tokens"))
    finish = None if reason is None else "length" if reason in ("length", "max_tokens") else "stop"
    return Drawn(prompt if isinstance(prompt, int) else None, made if isinstance(made, int) else None, finish)


def _together(parts: Sequence[tuple[Completion, int]], copies: int) -> Generation:
    """Return a prompt's completions and what they cost; each reads the prompt, and its last token is not read again.

    ``copies``: the one greedy completion is given that often, and was made once.
    """
    ordered = sorted(parts, key=lambda part: part[0].sample)
    read = [n_prompt + max(one.n_tokens - 1, 0) for one, n_prompt in ordered]
    made = tuple(one for one, _ in ordered)
    generated = sum(one.n_tokens for one in made)
    if copies > 1 and made:
        made = tuple(replace(made[0], sample=sample) for sample in range(copies))
        return Generation(made, Tokens(copies * read[0], read[0], generated))
    return Generation(made, Tokens(sum(read), sum(read), generated))


def _lead_with_bos(lm: Any, encoder: PairEncoder) -> None:
    """Have prompts tokenized with exactly one BOS where one belongs; lm-eval's API classes add none of their own."""

    def tok_encode(string: Any, **_: Any) -> Any:
        return encoder.prompt(string) if isinstance(string, str) else [encoder.prompt(one) for one in string]

    if lm.tokenized_requests:
        lm.tok_encode = tok_encode


def _bos_of_server(lm: Any, encoder: PairEncoder | None) -> str:
    """Return the BOS that a server puts before a prompt which it is sent as text; empty where it gets tokens."""
    wanted = encoder is not None and bool(getattr(encoder, "prefix", None))
    return (getattr(lm.tokenizer, "bos_token", None) or "") if wanted and not lm.tokenized_requests else ""


def _plain_sampling(lm: Any) -> None:
    """Let go of a checkpoint's own sampling settings, which would change what is asked for; keep its special tokens."""
    from transformers import GenerationConfig

    own = getattr(lm.model, "generation_config", None)
    if own is None:
        return
    kept = {name: getattr(own, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    lm.model.generation_config = GenerationConfig(**kept)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what can be drawn from in this process, and put it back afterwards."""
    import numpy as np
    import torch

    state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)
