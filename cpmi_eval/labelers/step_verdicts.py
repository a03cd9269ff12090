r"""Generative PRMs: a written verdict for every step, all in one critique or one step at a time.

``steps`` follows ThinkPRM (arXiv 2504.16828): one critique goes through the solution and closes its view of each step
with a verdict in ``\boxed{}``; it may stop at the first wrong step. A step's score is 1 or 0, or with several votes the
mean over the critiques that can be read.

``verify`` follows GenPRM (arXiv 2504.00891) without its code execution: an analysis of each step is written up to where
a box opens on its verdict. The score is the probability of the positive verdict there against the negative one,

    p(positive) / (p(positive) + p(negative)),

with several votes the mean over the analyses. A box around something else (the solution's final answer, quoted) is not
taken for the verdict. An analysis that ends or is cut off before it comes to one is given a box after it, as GenPRM
does; how many of them is kept in the details (``forced``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cpmi_eval.labelers.prompts import fill
from cpmi_eval.labelers.verdicts import Words, parse_step_verdicts, until_verdict
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

STEPS_PROMPT = r"""Here is a problem and someone's solution to it.
The solution is cut into steps. Each stands between tags that carry its index; the first index is 0.

Problem:

{problem}

Solution:

{steps}

Check the steps in order, one by one: the mathematics, the logic, and the use of what the problem says. Close your view
of each step with its verdict, \boxed{{positive}} or \boxed{{negative}}, and put nothing else into a box.
Stop after the first step that is wrong.

"""
VERIFY_PROMPT = r"""Here is a problem and the beginning of someone's solution to it.
The solution is cut into steps. Each stands between tags that carry its index; the first index is 0.

Problem:

{problem}

Solution so far:

{steps}

Is the last step above correct, given the problem and the steps before it? Check it by work of your own first, then end
with your verdict, \boxed{{positive}} or \boxed{{negative}}, and put nothing else into a box.

"""
FORCED = "\n\n\\boxed{"
EXCERPT = 80  # characters from the end of a critique, where its verdict should be


def tagged(steps: Sequence[str]) -> str:
    """Return steps between tags with their index, from 0."""
    return "\n".join(f"<step_{i}>\n{step}\n</step_{i}>" for i, step in enumerate(steps))


def unparsed(completions: Sequence[Completion], errors: Sequence[str], longest: int) -> Failure:
    """Return the failure that says how many critiques could not be read, why, and how the first one ends.

    Args:
        completions: all of them.
        errors: why each could not be read.
        longest: the limit on their tokens.
    """
    listed = ", ".join(f"{reason} {n}" for reason, n in Counter(errors).items())
    cut = sum(one.finish == "length" for one in completions)
    limit = f"; {cut} cut off at max_new_tokens={longest}, which can be raised" if cut else ""
    text = completions[0].text.strip() if completions else ""
    shown = text if len(text) <= EXCERPT else f"...{text[-EXCERPT:]}"
    what = f"none of {len(completions)} critiques has a readable verdict"
    return Failure("unparsed", f"{what} ({listed}{limit}); the first ends in {shown!r}")


@dataclass(frozen=True)
class StepCritic:
    """How verdicts are asked for: prompt, sampling, number of votes, and the positive and the negative word."""

    template: str
    sampling: Sampling
    votes: int
    words: Words
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
        """Turn critiques into scores."""
        read = [parse_step_verdicts(one.text, len(trace.steps), self.words) for one in generation.completions]
        votes = [one for one in read if not isinstance(one, str)]
        errors = [one for one in read if isinstance(one, str)]
        firsts = [None if isinstance(one, str) else _first_wrong(one) for one in read]
        details = {
            "mode": "steps",
            "chat": chat,
            "votes": firsts,
            "unparsed": dict(Counter(errors)),
            "truncated": sum(one.finish == "length" for one in generation.completions),
        }
        samples = tuple(
            _sample(one, seeds[one.sample], None, {"prediction": first, "error": own if isinstance(own, str) else None})
            for one, own, first in zip(generation.completions, read, firsts, strict=True)
        )
        if not votes:
            failure = unparsed(generation.completions, errors, self.sampling.max_new_tokens)
            return TraceFailure(trace.id, failure, generation.tokens, details, samples)
        values = tuple(sum(column) / len(votes) for column in zip(*votes, strict=True))
        return StepScores(trace.id, values, generation.tokens, details, samples=samples)

    def verify(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Yield scores from an analysis of every step; all steps of all traces are written side by side."""
        points = [(trace, n) for trace in traces for n in range(len(trace.steps))]
        prompts = [self._prompt(trace, trace.steps[: n + 1], backend, chat) for trace, n in points]
        seeds = [
            [derive_seed(self.seed, "judge-verify", trace.id, n, k) for k in range(self.votes)] for trace, n in points
        ]
        stop = tuple(f"{{{word}}}" for word in self.words)  # with its brace: "incorrect" ends in "correct"
        made = backend.generate(prompts, replace(self.sampling, stop=stop), seeds)
        requests = [list(self._requests(prompt, one)) for prompt, one in zip(prompts, made, strict=True)]
        results = iter(backend.loglikelihood([request for own in requests for request in own]))
        odds = [[next(results) for _ in own] for own in requests]
        at = 0
        for trace in traces:
            here = slice(at, at + len(trace.steps))
            at += len(trace.steps)
            yield self._verified(trace, seeds[here], made[here], odds[here], chat)

    def _requests(self, prompt: str, generation: Generation | Failure) -> Iterator[ScoreRequest]:
        """Yield both verdicts in the box of each analysis."""
        if isinstance(generation, Generation):
            for one in generation.completions:
                end = until_verdict(one.text, self.words) or one.text.rstrip() + FORCED
                for word in self.words:
                    yield ScoreRequest(prompt + end, word)

    def _verified(
        self,
        trace: Trace,
        seeds: Sequence[Sequence[int]],
        made: Sequence[Generation | Failure],
        odds: Sequence[Sequence[LogProb | Failure]],
        chat: bool,
    ) -> Scored:
        """Turn the log-probabilities after the analyses of each step (positive and negative in turn) into scores."""
        written = [one for one in made if isinstance(one, Generation)]
        results = [one for own in odds for one in own]
        tokens = sum((one.tokens for one in [*written, *results] if not isinstance(one, Failure)), Tokens())
        for failed in (*made, *results):
            if isinstance(failed, Failure):
                return TraceFailure(trace.id, failed, tokens, {"mode": "verify", "chat": chat})
        votes: list[list[float]] = []
        samples: list[JSON] = []
        for step, (generation, own) in enumerate(zip(written, odds, strict=True)):
            totals = [one.total for one in own if isinstance(one, LogProb)]
            votes.append([_probability(yes, no) for yes, no in zip(totals[::2], totals[1::2], strict=True)])
            for one, score in zip(generation.completions, votes[-1], strict=True):
                forced = until_verdict(one.text, self.words) is None
                samples.append(_sample(one, seeds[step][one.sample], step, {"score": score, "forced": forced}))
        details = {
            "mode": "verify",
            "chat": chat,
            "votes": votes,
            "forced": sum(one["forced"] for one in samples),
            "truncated": sum(one["finish"] == "length" for one in samples),
        }
        values = tuple(sum(own) / len(own) for own in votes)
        return StepScores(trace.id, values, tokens, details, samples=tuple(samples))

    def _prompt(self, trace: Trace, steps: Sequence[str], backend: LanguageModel, chat: bool) -> str:
        positive, negative = self.words
        words = {"positive": positive, "negative": negative}
        text = fill(self.template, problem=trace.problem, steps=tagged(steps), **words)
        return backend.chat_prompt(text.strip()) if chat else text


def _first_wrong(verdicts: Sequence[bool]) -> int:
    """Return the index of the first wrong step, -1 if there is none."""
    return list(verdicts).index(False) if False in verdicts else -1


def _probability(positive: float, negative: float) -> float:
    """Return the softmax's first entry of two log-probabilities."""
    return 1.0 / (1.0 + math.exp(min(negative - positive, 700.0)))


def _sample(one: Completion, seed: int, step: int | None, more: Mapping[str, Any]) -> JSON:
    """Return a critique as a row of rollouts.jsonl; ``step`` is the index of the step that it is about."""
    text = {"text": one.text, "finish": one.finish, "n_tokens": one.n_tokens}
    return {"role": "critic", "step": step, "sample": one.sample, "seed": seed, **text, **more}
