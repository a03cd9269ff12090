"""Generation through transformers' own ``generate``, a prompt at a time: slow, obvious, right for any causal model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from cpmi_eval.engine.architecture import input_device
from cpmi_eval.engine.encode import Encoder
from cpmi_eval.engine.sampling import NON_FINITE, completion, draw, end_tokens, penalized, stopped, uniforms
from cpmi_eval.types import Completion, Enough, Failure, Generation, Sampling, Tokens


@dataclass(eq=False)
class _SeededDraw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token per row, drawn under the row's own seed, so that greedy decoding picks it."""

    sampling: Sampling
    numbers: Tensor  # [rows, new tokens]
    prompt_length: int
    finite: bool = True

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float()
        if self.sampling.repetition_penalty != 1.0:
            seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, input_ids, True)
            logits = penalized(logits, seen, self.sampling.repetition_penalty)
        place = input_ids.shape[1] - self.prompt_length
        chosen = draw(logits, self.sampling, self.numbers[:, place].to(logits.device))
        self.finite = self.finite and bool((chosen >= 0).all())
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.clamp(min=0)[:, None], 0.0)


@dataclass(eq=False)
class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends rows at a stop string of the completion. That of transformers would let one begin in the prompt."""

    tokenizer: Any
    stop: Sequence[str]
    prompt_length: int

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        made = input_ids[:, self.prompt_length :].tolist()
        return torch.tensor([stopped(self.tokenizer, row, self.stop) for row in made], device=input_ids.device)


@dataclass(eq=False)
class PlainGenerator:
    """The oracle that shared rollouts are tested against, and the path for models whose prefixes cannot be shared."""

    name: ClassVar[str] = "plain"

    model: Any
    encoder: Encoder
    max_length: int | None

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None = None
    ) -> list[Generation | Failure]:
        """Sample completions of each prompt; one at a time where the caller may have enough before the last.

        Greedy text is decoded once, and given as often as it is asked for.
        """
        made: list[Generation | Failure] = []
        for index, (prompt, own) in enumerate(zip(prompts, seeds, strict=True)):
            ids = self.encoder.encode_prompt(prompt)
            failure = too_long(len(ids), sampling, self.max_length)
            made.append(failure or self._until(ids, sampling, own, partial(enough, index) if enough else None))
        return made

    def _until(
        self, ids: Sequence[int], sampling: Sampling, seeds: Sequence[int], enough: Callable[[Completion], bool] | None
    ) -> Generation | Failure:
        parts: list[Generation] = []
        together = 1 if enough and sampling.temperature > 0 else max(1, len(seeds))
        for first in range(0, len(seeds), together):
            part = self._sample(ids, sampling, seeds[first : first + together], first)
            if isinstance(part, Failure):
                return part
            parts.append(part)
            if enough and enough(part.completions[0]):
                break
        return Generation(
            tuple(one for part in parts for one in part.completions), sum((part.tokens for part in parts), Tokens())
        )

    def _sample(self, ids: Sequence[int], sampling: Sampling, seeds: Sequence[int], first: int) -> Generation | Failure:
        tokenizer = self.encoder.tokenizer
        ends = end_tokens(self.model, tokenizer)
        rows = [0] * len(seeds) if sampling.temperature <= 0 else list(range(len(seeds)))  # greedy: decoded once
        distinct = sorted(set(rows))
        numbers = np.stack([uniforms(seeds[row], sampling.max_new_tokens) for row in distinct])
        seeded = _SeededDraw(sampling, torch.from_numpy(numbers), len(ids))
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        inputs = torch.tensor([list(ids)] * len(distinct), device=input_device(self.model))
        with torch.inference_mode():
            output = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=sampling.max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=sorted(ends) or None,
                repetition_penalty=1.0,  # a checkpoint's generation_config may hold another; ours is in the draw
                logits_processor=[seeded],
                stopping_criteria=[_Stopped(tokenizer, sampling.stop, len(ids))] if sampling.stop else [],
            )
        if not seeded.finite:
            return NON_FINITE
        texts = output[:, len(ids) :].tolist()
        done = [completion(texts[row], ends, tokenizer, sampling.stop, first + i) for i, row in enumerate(rows)]
        return Generation(tuple(done), cost_alone(len(ids), done, distinct=len(distinct)))


def too_long(prompt: int, sampling: Sampling, max_length: int | None) -> Failure | None:
    """Why a prompt of so many tokens leaves no room for a completion, or None."""
    if max_length is None or prompt + sampling.max_new_tokens <= max_length:
        return None
    return Failure(
        "too_long", f"{prompt:,} prompt + {sampling.max_new_tokens:,} new tokens; the model takes {max_length:,}"
    )


def cost_alone(prompt: int, completions: Sequence[Completion], distinct: int) -> Tokens:
    """What completions cost where each reads the whole prompt; the last token of each is not read again."""
    read = [prompt + max(one.n_tokens - 1, 0) for one in completions]
    return Tokens(sum(read), sum(read[:distinct]), sum(one.n_tokens for one in completions[:distinct]))
