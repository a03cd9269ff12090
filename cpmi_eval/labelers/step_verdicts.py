r"""Generative PRMs: a written verdict for every step, all in one critique or one step at a time.

``steps`` follows ThinkPRM (arXiv 2504.16828): one critique goes through the solution and closes its view of each step
with a verdict in ``\boxed{}``; it may stop at the first wrong step. A step's score is 1 or 0, or with several votes the
mean over the critiques that can be read.

``verify`` follows GenPRM (arXiv 2504.00891): for each step an analysis is written up to where its box opens; the score
is the probability of the positive verdict there against the negative one,

    p(positive) / (p(positive) + p(negative)),

with several votes the mean over analyses. An analysis that never comes to its box is given one; how many of them
were cut off by their length is kept in the details.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpmi_eval.labelers.prompts import fill
from cpmi_eval.protocols import LanguageModel
from cpmi_eval.seeding import derive_seed
from cpmi_eval.types import (
    JSON,
    Completion,
    Failure,
    Generation,
    LogProb,
    Sampling,
    Scored,
    ScoreRequest,
    StepScores,
    Tokens,
    Trace,
    TraceFailure,
)

STEPS_PROMPT = r"""Here is a problem and someone's solution to it, cut into steps.

Problem:

{problem}

Solution:

{steps}

Check the steps one after the other: the mathematics, the logic, and the use of what the problem says. Close your
view of each step with \boxed{{positive}} or \boxed{{negative}}. Stop after the first step that is wrong.

"""
VERIFY_PROMPT = r"""Here is a problem and the beginning of someone's solution to it.

Problem:

{problem}

Solution so far:

{steps}

Is the last step above correct, given the problem and the steps before it? Check it by your own work first, then
end with \boxed{{positive}} or \boxed{{negative}}.

"""
BOX = r"\boxed{"
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*([^{}]*?)\s*\}")


def parse_step_verdicts(text: str, n_steps: int, words: tuple[str, str]) -> tuple[bool, ...] | str:
    r"""Return a verdict for every step from the boxes of a critique, or one word for why there is none.

    Boxes that hold neither word (a number in an analysis) are passed over. Fewer verdicts than steps are complete only
    if the last is negative: the critique stopped there, and the steps after it count as wrong.

    Args:
        text: what the critic wrote.
        n_steps: how many steps the trace has.
        words: the positive and the negative verdict; compared without case.
    """
    positive, negative = (word.casefold() for word in words)
    found = [content for content in map(str.casefold, _BOXED.findall(text)) if content in (positive, negative)]
    verdicts = [content == positive for content in found]
    if not verdicts:
        return "no_verdicts"
    if len(verdicts) > n_steps:
        return "too_many"
    if len(verdicts) < n_steps and verdicts[-1]:
        return "too_few"
    return (*verdicts, *(False,) * (n_steps - len(verdicts)))


def tagged(steps: Sequence[str]) -> str:
    """Return steps between tags with their index, from 0."""
    return "\n".join(f"<step_{i}>\n{step}\n</step_{i}>" for i, step in enumerate(steps))


@dataclass(frozen=True)
class StepCritic:
    """How verdicts are asked for: prompt, sampling, number of votes, and the positive and the negative word."""

    template: str
    sampling: Sampling
    votes: int
    words: tuple[str, str]
    seed: int

    def steps(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Yield scores from whole critiques."""
        prompts = [self._prompt(trace, trace.steps, backend, chat) for trace in traces]
        seeds = [[derive_seed(self.seed, "judge-steps", trace.id, k) for k in range(self.votes)] for trace in traces]
        made = backend.generate(prompts, self.sampling, seeds)
        for trace, own, generation in zip(traces, seeds, made, strict=True):
            if isinstance(generation, Failure):
                yield TraceFailure(trace.id, generation)
            else:
                yield self._count(trace, own, generation, chat)

    def _count(self, trace: Trace, seeds: Sequence[int], generation: Generation, chat: bool) -> Scored:
        read = [parse_step_verdicts(one.text, len(trace.steps), self.words) for one in generation.completions]
        votes = [one for one in read if not isinstance(one, str)]
        errors = Counter(one for one in read if isinstance(one, str))
        details = {"mode": "steps", "chat": chat, "votes": len(votes), "unparsed": dict(errors)}
        details["truncated"] = sum(one.finish == "length" for one in generation.completions)
        samples = tuple(
            _sample(one, seeds[one.sample], None, {"error": own if isinstance(own, str) else None})
            for one, own in zip(generation.completions, read, strict=True)
        )
        if not votes:
            listed = ", ".join(f"{reason} {n}" for reason, n in errors.items())
            message = f"none of {len(read)} critiques has a verdict for each of {len(trace.steps)} steps ({listed})"
            return TraceFailure(trace.id, Failure("unparsed", message), generation.tokens, details, samples)
        values = tuple(sum(column) / len(votes) for column in zip(*votes, strict=True))
        return StepScores(trace.id, values, generation.tokens, details, samples=samples)

    def verify(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Yield scores from an analysis of every step; all steps of all traces are written side by side."""
        points = [(trace, n) for trace in traces for n in range(len(trace.steps))]
        prompts = [self._prompt(trace, trace.steps[: n + 1], backend, chat) for trace, n in points]
        seeds = [
            [derive_seed(self.seed, "judge-verify", trace.id, n, k) for k in range(self.votes)] for trace, n in points
        ]
        made = backend.generate(prompts, replace(self.sampling, stop=(BOX,)), seeds)
        requests = [list(self._requests(prompt, one)) for prompt, one in zip(prompts, made, strict=True)]
        results = iter(backend.loglikelihood([request for own in requests for request in own]))
        odds = [[next(results) for _ in own] for own in requests]
        at = 0
        for trace in traces:
            here = slice(at, at + len(trace.steps))
            at += len(trace.steps)
            yield self._verified(trace, seeds[here], made[here], odds[here], chat)

    def _requests(self, prompt: str, generation: Generation | Failure) -> Iterator[ScoreRequest]:
        """Yield both verdicts in the box after each analysis."""
        if isinstance(generation, Generation):
            for one in generation.completions:
                for word in self.words:
                    yield ScoreRequest(prompt + one.text + BOX, word)

    def _verified(
        self,
        trace: Trace,
        seeds: Sequence[Sequence[int]],
        made: Sequence[Generation | Failure],
        odds: Sequence[Sequence[LogProb | Failure]],
        chat: bool,
    ) -> Scored:
        written = [one for one in made if isinstance(one, Generation)]
        scored = [one for own in odds for one in own if isinstance(one, LogProb)]
        tokens = sum((one.tokens for one in written), Tokens()) + sum((one.tokens for one in scored), Tokens())
        completions = [one for generation in written for one in generation.completions]
        cut = sum(one.finish == "length" for one in completions)
        details = {"mode": "verify", "chat": chat, "truncated": cut}
        for failed in (*made, *(one for own in odds for one in own)):
            if isinstance(failed, Failure):
                return TraceFailure(trace.id, failed, tokens, details)
        values: list[float] = []
        samples: list[JSON] = []
        for step, (generation, own) in enumerate(zip(written, odds, strict=True)):
            totals = [one.total for one in own if isinstance(one, LogProb)]
            goods = [_probability(yes, no) for yes, no in zip(totals[::2], totals[1::2], strict=True)]
            values.append(sum(goods) / len(goods))
            samples += [
                _sample(one, seeds[step][one.sample], step, {"score": good})
                for one, good in zip(generation.completions, goods, strict=True)
            ]
        return StepScores(trace.id, tuple(values), tokens, details, samples=tuple(samples))

    def _prompt(self, trace: Trace, steps: Sequence[str], backend: LanguageModel, chat: bool) -> str:
        positive, negative = self.words
        words = {"positive": positive, "negative": negative}
        text = fill(self.template, problem=trace.problem, steps=tagged(steps), **words)
        return backend.chat_prompt(text.strip()) if chat else text


def _probability(positive: float, negative: float) -> float:
    """Return the softmax's first entry of two log-probabilities."""
    return 1.0 / (1.0 + math.exp(min(negative - positive, 700.0)))


def _sample(one: Completion, seed: int, step: int | None, more: Mapping[str, Any]) -> JSON:
    """Return a critique as a row of rollouts.jsonl."""
    text = {"text": one.text, "finish": one.finish, "n_tokens": one.n_tokens}
    return {"role": "critic", "step": step, "sample": one.sample, "seed": seed, **text, **more}
