"""Completions from lm-eval's models, one per seed as far as a class can be seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cpmi_eval.backends.lm_eval.asking import Asker, ClassEncoder, instance
from cpmi_eval.backends.lm_eval.classes import Loaded, quiet
from cpmi_eval.errors import UsageError
from cpmi_eval.types import Completion, Enough, Failure, Generation, Sampling, Tokens


class LMEvalGenerator:
    """Completions, each from its own seed: set in this process, or handed on to the class.

    ``seeding``: how a completion is tied to its seed; ``None``: not at all, so that only greedy text can be had.
    """

    def __init__(self, loaded: Loaded, encoder: ClassEncoder, asker: Asker) -> None:
        self.lm, self.name = loaded.lm, loaded.name
        self.encoder, self.asker = encoder, asker
        self.by_hand = "HFLM" in loaded.bases
        self.seeding = "handed on with each request" if "VLLM" in loaded.bases else None
        if self.by_hand:
            self.seeding = "set in this process before each completion"
        self._decoded: tuple[int, list[int]] | None = None
        if self.by_hand:
            _plain_sampling(self.lm)
            self._keep_tokens()

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None
    ) -> list[Generation | Failure]:
        """Return the completions of each prompt, one per seed; in rounds where the caller may have enough before.

        Greedy text is made once, and given as often as it is asked for.
        """
        if self.seeding is None and sampling.temperature > 0:
            raise UsageError(
                f"lm-eval's class {self.name!r} takes no seed, so that a sampled completion could not be had again; "
                "set the labeler's temperature=0, or use another class or --backend hf"
            )
        if self.seeding is None and sampling.repetition_penalty != 1.0:
            raise UsageError(
                f"lm-eval's class {self.name!r} is not known to take a repetition penalty; set the labeler's "
                "repetition_penalty=1, or use --backend hf"
            )
        greedy = sampling.temperature <= 0
        many = None if enough is None and not greedy else 1  # all that are left, or the next one
        failed = {place: self._refused(prompt, sampling) for place, prompt in enumerate(prompts)}
        parts: dict[int, list[tuple[Completion, int]]] = {place: [] for place in failed}
        left = {place: list(range(len(seeds[place]))) for place, failure in failed.items() if failure is None}
        while left := {place: samples for place, samples in left.items() if samples}:
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

    def _refused(self, prompt: str, sampling: Sampling) -> Failure | None:
        longest = getattr(self.lm, "max_length", None)
        n = len(self.encoder.encode_prompt(prompt))
        if not isinstance(longest, int) or n + sampling.max_new_tokens <= longest:
            return None
        return Failure(
            "too_long",
            f"{n:,} prompt + {sampling.max_new_tokens:,} new tokens; lm-eval's class {self.name!r} takes {longest:,} "
            "(its argument max_length) and would cut the prompt",
        )

    def _draw(self, draws: Sequence[tuple[str, int]], sampling: Sampling) -> list[tuple[Completion, int] | Failure]:
        """A completion and its prompt's tokens for each prompt and seed; one at a time where seeds are set."""
        parts = [[draw] for draw in draws] if self.by_hand else [draws]
        with quiet():
            return [one for part in parts for one in self.asker.each(part, lambda some: self._ask(some, sampling))]

    def _ask(self, draws: Sequence[tuple[str, int]], sampling: Sampling) -> list[tuple[Completion, int]]:
        requests = [instance("generate_until", (prompt, self._arguments(sampling, seed))) for prompt, seed in draws]
        self._decoded = None
        if self.by_hand and sampling.temperature > 0:
            with _seeded(draws[0][1]):
                texts = self.lm.generate_until(requests)
        else:
            texts = self.lm.generate_until(requests)
        return [self._completion(prompt, text, sampling) for (prompt, _), text in zip(draws, texts, strict=True)]

    def _arguments(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """The settings of one completion under lm-eval's names; idle ones only where a class has its own."""
        drawn = sampling.temperature > 0
        given: dict[str, Any] = {"until": list(sampling.stop), "max_gen_toks": sampling.max_new_tokens}
        given |= {"do_sample": drawn, "temperature": max(sampling.temperature, 0.0)}
        if sampling.repetition_penalty != 1.0:
            given["repetition_penalty"] = sampling.repetition_penalty
        if drawn and (self.by_hand or sampling.top_p < 1.0):
            given["top_p"] = sampling.top_p
        if drawn and (self.by_hand or sampling.top_k > 0):
            given["top_k"] = sampling.top_k
        return {**given, "seed": seed % 2**31} if drawn and not self.by_hand else given

    def _completion(self, prompt: str, text: Any, sampling: Sampling) -> tuple[Completion, int]:
        if not isinstance(text, str):
            raise ValueError(f"a completion that is {type(text).__name__}, not text")
        cut = min((at for at in (text.find(mark) for mark in sampling.stop) if at >= 0), default=None)
        kept = text if cut is None else text[:cut]
        if self._decoded is not None:
            from cpmi_eval.engine.sampling import completion, end_tokens

            n_prompt, ids = self._decoded
            made = completion(ids, end_tokens(self.lm.model, self.lm.tokenizer), self.lm.tokenizer, sampling.stop)
            return replace(made, text=kept), n_prompt
        n = len(self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
        finished = cut is not None or n < sampling.max_new_tokens
        return Completion(kept, n, "stop" if finished else "length"), len(self.encoder.encode_prompt(prompt))

    def _keep_tokens(self) -> None:
        """Keep the tokens of each completion that is decoded in this process: lm-eval returns only their text."""
        original = self.lm._model_generate

        def generate(context: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(context, *args, **kwargs)
            n = int(context.shape[1])
            self._decoded = (n, output[0, n:].tolist()) if context.shape[0] == 1 else None
            return output

        self.lm._model_generate = generate


def _together(parts: Sequence[tuple[Completion, int]], copies: int) -> Generation:
    """A prompt's completions and what they cost; each reads the prompt, and its last token is not read again.

    ``copies``: the one greedy completion is given that often, and was made once.
    """
    ordered = sorted(parts, key=lambda part: part[0].sample)
    read = sum(n_prompt + max(one.n_tokens - 1, 0) for one, n_prompt in ordered)
    tokens = Tokens(max(copies, 1) * read, read, sum(one.n_tokens for one, _ in ordered))
    made = tuple(one for one, _ in ordered)
    return Generation(tuple(replace(made[0], sample=k) for k in range(copies)) if made and copies else made, tokens)


def _plain_sampling(lm: Any) -> None:
    """Let go of a checkpoint's own sampling settings, which would change what is asked for; keep its special tokens."""
    from transformers import GenerationConfig

    own = getattr(lm.model, "generation_config", None)
    if own is not None:
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
