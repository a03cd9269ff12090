r"""Judge: a language model is asked where a solution goes wrong, in words or by the odds of a one-word verdict.

``generate`` is the critic protocol of ProcessBench (Zheng et al., arXiv 2412.06559): one user turn shows the problem
and the solution with its steps indexed from 0, and asks for the index of the first wrong step, or -1, in ``\boxed{}``.
One greedy critique decides, or the majority of several sampled ones. The score of step i is one minus the share of
readable critiques that name it.

``logit`` asks after every step whether it is right and generates nothing. With c_i = problem, steps up to i, question,

    score_i = log p(positive | c_i) - log p(negative | c_i)

summed over the tokens of the two verdicts. The question comes last, so that c_i and c_i+1 share all but their ends.

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
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.prompts import check_chat, fill, read_prompt, uses_chat
from cpmi_eval.labelers.results import failed, spent
from cpmi_eval.labelers.verdicts import parse_step_verdicts, parse_verdict, until_verdict
from cpmi_eval.protocols import Capability, LanguageModel
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
    Trace,
    TraceFailure,
)

_SHOWN = """Here is a problem and someone's solution to it.
The solution is cut into steps. Each stands between tags that carry its index; the first index is 0.

Problem:

{problem}

Solution:

{steps}
"""
_SHOWN_SO_FAR = _SHOWN.replace("and someone's", "and the beginning of someone's").replace(
    "Solution:", "Solution so far:"
)
CRITIC_PROMPT = (
    _SHOWN
    + r"""
Go through the steps in order and check each of them: the mathematics, the logic, and the use of what the problem says.
As soon as you find a step that is wrong, stop and report its index. If you find none, report -1.
End your reply with the number you report, and nothing else, in \boxed{}.

"""
)
STEPS_PROMPT = (
    _SHOWN
    + r"""
Check the steps in order, one by one: the mathematics, the logic, and the use of what the problem says. Close your view
of each step with its verdict, \boxed{{positive}} or \boxed{{negative}}, and put nothing else into a box.
Stop after the first step that is wrong.

"""
)
VERIFY_PROMPT = (
    _SHOWN_SO_FAR
    + r"""
Is the last step above correct, given the problem and the steps before it? Check it by work of your own first, then end
with your verdict, \boxed{{positive}} or \boxed{{negative}}, and put nothing else into a box.

"""
)
VERDICT_PROMPT = """Problem:

{problem}

Solution so far:

{steps}

Is the last step above correct, given the problem and the steps before it? Say {positive} or {negative}.
Verdict:"""
PROMPTS = {"generate": CRITIC_PROMPT, "logit": VERDICT_PROMPT, "steps": STEPS_PROMPT, "verify": VERIFY_PROMPT}
ASKS: Mapping[str, frozenset[Capability]] = {
    "generate": frozenset({"generate"}),
    "logit": frozenset({"loglikelihood"}),
    "steps": frozenset({"generate"}),
    "verify": frozenset({"generate", "loglikelihood"}),
}
BATCH_FACTOR = {"generate": 16, "logit": 1, "steps": 16, "verify": 4}
FORCED = "\n\n\\boxed{"
EXCERPT = 80  # characters from the end of a critique, where its verdict should be


def tagged(steps: Sequence[str]) -> str:
    """Return steps between tags with their index, from 0."""
    return "\n".join(f"<step_{i}>\n{step}\n</step_{i}>" for i, step in enumerate(steps))


class Judge:
    """A language model as the critic of a solution, by what it writes or by the odds of its verdicts."""

    name: ClassVar[str] = "judge"
    summary: ClassVar[str] = "asks the model for the first wrong step (arXiv 2412.06559), or for a verdict per step"
    kind: ClassVar[Literal["critic"]] = "critic"
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        mode: str = "generate",
        votes: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        max_new_tokens: int | None = None,
        prompt: str | None = None,
        chat: bool | str = "auto",
        verdicts: str | None = None,
        seed: int = 0,
    ) -> None:
        """Check the settings (docs/labelers.md); one that would do nothing beside the others is refused."""
        self.mode = settings.choice("mode", mode, tuple(PROMPTS))
        self.chat = check_chat(chat)
        self.seed = seed
        drawing = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        if self.mode == "generate":
            _refuse({"verdicts": verdicts}, "in mode=generate; the other modes use them")
        if self.mode == "logit":
            _refuse({"votes": votes, **drawing, "max_new_tokens": max_new_tokens}, "in mode=logit; it writes nothing")
        self.votes = settings.integer("votes", 1 if votes is None else votes, 1)
        length = settings.integer("max_new_tokens", 1024 if max_new_tokens is None else max_new_tokens, 1)
        if self.votes == 1:
            _refuse(drawing, "with votes=1, which is greedy; votes=8 samples")
            self.sampling = Sampling(length, temperature=0.0)
        else:
            self.sampling = Sampling(
                length,
                settings.number("temperature", 1.0 if temperature is None else temperature, 1e-6),
                settings.number("top_p", 0.9 if top_p is None else top_p, 1e-6, 1.0),
                settings.integer("top_k", 0 if top_k is None else top_k, 0),
            )
        usual = "correct|incorrect" if self.mode == "steps" else "Yes|No"
        self.verdicts = _verdict_pair(usual if verdicts is None else verdicts)
        own = None if prompt is None else read_prompt(Path(str(prompt)), ("problem", "steps"))
        self.template = own or PROMPTS[self.mode]
        self.capabilities: frozenset[Capability] = ASKS[self.mode]
        self.native_threshold: float | None = 0.0 if self.mode == "logit" else 0.5
        self.batch_factor = BATCH_FACTOR[self.mode]

    def score(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Yield one result per trace: the scores, or why there are none."""
        if backend is None:
            raise UsageError("judge needs a model")
        ways = {"logit": self._logit, "verify": self._verify}
        yield from ways.get(self.mode, self._written)(traces, backend, uses_chat(self.chat, backend))

    def _prompt(self, trace: Trace, n_steps: int, backend: LanguageModel, chat: bool) -> str:
        """Show the first steps of a trace; in a chat turn without white space around the prompt."""
        words = {} if self.mode == "generate" else dict(zip(("positive", "negative"), self.verdicts, strict=True))
        text = fill(self.template, problem=trace.problem, steps=tagged(trace.steps[:n_steps]), **words)
        return backend.chat_prompt(text.strip()) if chat else text

    def _written(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Ask for critiques of whole solutions, of all traces at once, then read them."""
        prompts = [self._prompt(trace, len(trace.steps), backend, chat) for trace in traces]
        role = "judge" if self.mode == "generate" else "judge-steps"
        seeds = [[derive_seed(self.seed, role, trace.id, k) for k in range(self.votes)] for trace in traces]
        made = backend.generate(prompts, self.sampling, seeds)
        for trace, own, generation in zip(traces, seeds, made, strict=True):
            if isinstance(generation, Failure):
                yield TraceFailure(trace.id, generation)
            else:
                yield self._count(trace, own, generation, chat)

    def _count(self, trace: Trace, seeds: Sequence[int], generation: Generation, chat: bool) -> Scored:
        """Turn critiques into scores; of the first wrong step alone, also into a prediction."""
        written, n = generation.completions, len(trace.steps)
        votes: list[int | None] = []  # the first wrong step of each, None: not to be read
        errors: list[str | None] = []
        verdicts: list[tuple[bool, ...]] = []
        for one in written:
            if self.mode == "generate":
                found: int | str = parse_verdict(one.text, n)
            else:
                read = parse_step_verdicts(one.text, n, self.verdicts)
                found = read if isinstance(read, str) else read.index(False) if False in read else -1
                verdicts += [] if isinstance(read, str) else [read]
            votes.append(None if isinstance(found, str) else found)
            errors.append(found if isinstance(found, str) else None)
        unparsed = dict(Counter(error for error in errors if error is not None))
        details = {
            "mode": self.mode,
            "chat": chat,
            "votes": votes,
            "unparsed": unparsed,
            "truncated": sum(one.finish == "length" for one in written),
        }
        samples = tuple(
            _sample(one, seeds[one.sample], None, {"prediction": vote, "error": error})
            for one, vote, error in zip(written, votes, errors, strict=True)
        )
        named = Counter(vote for vote in votes if vote is not None)
        if not named:
            return TraceFailure(trace.id, self._unparsed(written, unparsed), generation.tokens, details, samples)
        if self.mode == "steps":
            values = tuple(sum(column) / len(verdicts) for column in zip(*verdicts, strict=True))
            return StepScores(trace.id, values, generation.tokens, details, samples=samples)
        values = tuple(1.0 - named[i] / named.total() for i in range(n))
        majority = max(named, key=named.__getitem__)  # of equals the first inserted, hence the first drawn
        return StepScores(trace.id, values, generation.tokens, details, majority, samples)

    def _unparsed(self, written: Sequence[Completion], errors: Mapping[str, int]) -> Failure:
        """Say how many critiques could not be read, why, and how the first one ends."""
        listed = ", ".join(f"{reason} {n}" for reason, n in errors.items())
        cut = sum(one.finish == "length" for one in written)
        limit = f"; {cut} cut off at max_new_tokens={self.sampling.max_new_tokens}, which can be raised" if cut else ""
        text = written[0].text.strip() if written else ""
        shown = text if len(text) <= EXCERPT else f"...{text[-EXCERPT:]}"
        what = f"none of {len(written)} critiques has a readable verdict"
        return Failure("unparsed", f"{what} ({listed}{limit}); the first ends in {shown!r}")

    def _logit(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Score both verdicts after every step of all traces at once."""
        requests = []
        for trace in traces:
            for n in range(1, len(trace.steps) + 1):
                context = self._prompt(trace, n, backend, chat)
                space = "" if context[-1:].isspace() else " "
                requests += [ScoreRequest(context, space + verdict) for verdict in self.verdicts]
        results = iter(backend.loglikelihood(requests))
        for trace in traces:
            own = [next(results) for _ in trace.steps for _ in self.verdicts]
            if failure := failed(own):
                yield TraceFailure(trace.id, failure, spent(own))
                continue
            positive, negative = (_totals(own[start::2]) for start in (0, 1))
            details = {"mode": self.mode, "chat": chat, "positive": positive, "negative": negative}
            values = tuple(yes - no for yes, no in zip(positive, negative, strict=True))
            yield StepScores(trace.id, values, spent(own), details)

    def _verify(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Have an analysis of every step written, all steps of all traces side by side; score the verdicts after it."""
        points = [(trace, n) for trace in traces for n in range(len(trace.steps))]
        prompts = [self._prompt(trace, n + 1, backend, chat) for trace, n in points]
        seeds = [
            [derive_seed(self.seed, "judge-verify", trace.id, n, k) for k in range(self.votes)] for trace, n in points
        ]
        stop = tuple(f"{{{word}}}" for word in self.verdicts)  # with its brace: "incorrect" ends in "correct"
        made = backend.generate(prompts, replace(self.sampling, stop=stop), seeds)
        requests = [list(self._boxes(prompt, one)) for prompt, one in zip(prompts, made, strict=True)]
        results = iter(backend.loglikelihood([request for own in requests for request in own]))
        odds = [[next(results) for _ in own] for own in requests]
        every = zip(seeds, made, odds, strict=True)
        for trace in traces:
            yield self._verified(trace, list(islice(every, len(trace.steps))), chat)

    def _boxes(self, prompt: str, generation: Generation | Failure) -> Iterator[ScoreRequest]:
        """Yield both verdicts in the box of each analysis."""
        if isinstance(generation, Generation):
            for one in generation.completions:
                end = until_verdict(one.text, self.verdicts) or one.text.rstrip() + FORCED
                for word in self.verdicts:
                    yield ScoreRequest(prompt + end, word)

    def _verified(
        self,
        trace: Trace,
        steps: Sequence[tuple[Sequence[int], Generation | Failure, Sequence[LogProb | Failure]]],
        chat: bool,
    ) -> Scored:
        """Turn the log-probabilities after the analyses of each step (positive and negative in turn) into scores."""
        every = [one for _, generation, odds in steps for one in (generation, *odds)]
        if failure := failed(every):
            return TraceFailure(trace.id, failure, spent(every), {"mode": self.mode, "chat": chat})
        votes: list[list[float]] = []
        samples: list[JSON] = []
        for step, (seeds, generation, odds) in enumerate(steps):
            pairs = zip(_totals(odds[::2]), _totals(odds[1::2]), strict=True)
            votes.append([1.0 / (1.0 + math.exp(min(no - yes, 700.0))) for yes, no in pairs])  # a softmax's first entry
            written = generation.completions if isinstance(generation, Generation) else ()
            for one, score in zip(written, votes[-1], strict=True):
                forced = until_verdict(one.text, self.verdicts) is None
                samples.append(_sample(one, seeds[one.sample], step, {"score": score, "forced": forced}))
        details = {
            "mode": self.mode,
            "chat": chat,
            "votes": votes,
            "forced": sum(one["forced"] for one in samples),
            "truncated": sum(one["finish"] == "length" for one in samples),
        }
        values = tuple(sum(own) / len(own) for own in votes)
        return StepScores(trace.id, values, spent(every), details, samples=tuple(samples))


def _totals(results: Sequence[LogProb | Failure]) -> list[float]:
    return [one.total for one in results if isinstance(one, LogProb)]


def _sample(one: Completion, seed: int, step: int | None, more: Mapping[str, Any]) -> JSON:
    """Return a critique as a row of rollouts.jsonl; ``step`` is the index of the step that it is about."""
    text = {"text": one.text, "finish": one.finish, "n_tokens": one.n_tokens}
    return {"role": "critic", "step": step, "sample": one.sample, "seed": seed, **text, **more}


def _verdict_pair(text: object) -> tuple[str, str]:
    """Return the two words of ``positive|negative``."""
    words = [word.strip() for word in text.split("|")] if isinstance(text, str) else []
    if len(words) != 2 or not all(words) or words[0].casefold() == words[1].casefold():
        raise UsageError(f"verdicts must be two different words such as Yes|No, not {text!r}")
    return words[0], words[1]


def _refuse(given: Mapping[str, object], where: str) -> None:
    """Refuse settings that would do nothing."""
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise UsageError(f"{' and '.join(names)} would do nothing {where}")
