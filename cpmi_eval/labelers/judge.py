r"""Judge: a language model is asked where a solution goes wrong, in words or by the odds of a one-word verdict.

``generate`` is the critic protocol of ProcessBench (Zheng et al., arXiv 2412.06559): one user turn shows the problem
and the solution with its steps indexed from 0, and asks for the index of the first wrong step, or -1, in ``\boxed{}``.
One greedy critique decides, or the majority of several sampled ones. The score of step i is one minus the share of
readable critiques that name it.

``logit`` asks after every step whether it is right and generates nothing. With c_i = problem, steps up to i, question,

    score_i = log p(positive | c_i) - log p(negative | c_i)

summed over the tokens of the two verdicts. The question comes last, so that c_i and c_i+1 share all but their ends.

``steps`` and ``verify`` are the two kinds of generative PRM; see :mod:`cpmi_eval.labelers.step_verdicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.prompts import check_chat, fill, read_prompt, uses_chat
from cpmi_eval.labelers.step_verdicts import STEPS_PROMPT, VERIFY_PROMPT, StepCritic, tagged, unparsed
from cpmi_eval.labelers.verdicts import Unparsed, parse_verdict
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
    Tokens,
    Trace,
    TraceFailure,
)

CRITIC_PROMPT = r"""Here is a problem and someone's solution to it.
The solution is cut into steps. Each stands between tags that carry its index; the first index is 0.

Problem:

{problem}

Solution:

{steps}

Go through the steps in order and check each of them: the mathematics, the logic, and the use of what the problem says.
As soon as you find a step that is wrong, stop and report its index. If you find none, report -1.
End your reply with the number you report, and nothing else, in \boxed{}.

"""
VERDICT_PROMPT = """Problem:

{problem}

Solution so far:

{steps}

Is the last step above correct, given the problem and the steps before it? Say {positive} or {negative}.
Verdict:"""
MODES = ("generate", "logit", "steps", "verify")
PROMPTS = {"generate": CRITIC_PROMPT, "logit": VERDICT_PROMPT, "steps": STEPS_PROMPT, "verify": VERIFY_PROMPT}
ASKS: Mapping[str, frozenset[Capability]] = {
    "generate": frozenset({"generate"}),
    "logit": frozenset({"loglikelihood"}),
    "steps": frozenset({"generate"}),
    "verify": frozenset({"generate", "loglikelihood"}),
}
BATCH_FACTOR = {"generate": 16, "logit": 1, "steps": 16, "verify": 4}


@dataclass(frozen=True)
class _Vote:
    """One critique, and what was read in it."""

    seed: int
    completion: Completion
    verdict: int | Unparsed

    @property
    def prediction(self) -> int | None:
        return self.verdict if isinstance(self.verdict, int) else None

    @property
    def error(self) -> Unparsed | None:
        return None if isinstance(self.verdict, int) else self.verdict

    def as_sample(self) -> JSON:
        """Return the critique as a row of rollouts.jsonl."""
        return {
            "role": "critic",
            "step": None,
            "sample": self.completion.sample,
            "seed": self.seed,
            "text": self.completion.text,
            "finish": self.completion.finish,
            "n_tokens": self.completion.n_tokens,
            "prediction": self.prediction,
            "error": self.error,
        }


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
        """Check the settings; one that would do nothing beside the others is refused.

        Args:
            mode: ``generate`` (a written critique names the first wrong step), ``logit`` (the odds of a verdict after
                each step), ``steps`` (a written critique with a verdict per step), ``verify`` (a written analysis of
                each step, and the odds of its verdict).
            votes: how many critiques are written (default 1), in mode ``verify`` of each step. One is decoded greedily;
                several are sampled. In mode ``generate`` the majority of those that can be read decides, of equals the
                one that was drawn first; elsewhere their mean does.
            temperature: of several votes; default 1.0.
            top_p: of several votes; default 0.9.
            top_k: of several votes; default 0, which is off.
            max_new_tokens: longest critique; default 1024. Prompt and critique together must fit the model.
            prompt: a text file with ``{problem}`` and ``{steps}`` that replaces the mode's built-in prompt. Where there
                are ``verdicts`` it may also hold ``{positive}`` and ``{negative}``. What modes ``logit`` and ``verify``
                put before the steps is computed once, what comes after them once per step.
            chat: put the prompt into a user turn of the model's chat template; ``auto``: where it has one.
            verdicts: the two words of the modes with a verdict per step, the positive one first; default ``Yes|No``,
                of mode ``steps`` ``correct|incorrect``.
            seed: of the sampled critiques, together with the trace's id.
        """
        self.mode = settings.choice("mode", mode, MODES)
        self.chat = check_chat(chat)
        self.seed = seed
        generates = self.mode != "logit"
        drawing = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        if self.mode == "generate":
            _refuse({"verdicts": verdicts}, "in mode=generate; the other modes use them")
        if not generates:
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
        words = "correct|incorrect" if self.mode == "steps" else "Yes|No"
        self.verdicts = _verdict_pair(words if verdicts is None else verdicts)
        built_in = PROMPTS[self.mode]
        self.template = built_in if prompt is None else read_prompt(Path(str(prompt)), ("problem", "steps"))
        self.capabilities: frozenset[Capability] = ASKS[self.mode]
        self.native_threshold: float | None = 0.5 if generates else 0.0
        self.batch_factor = BATCH_FACTOR[self.mode]

    def score(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Yield one result per trace: the scores, or why there are none."""
        if backend is None:
            raise UsageError("judge needs a model")
        chat = uses_chat(self.chat, backend)
        critic = StepCritic(self.template, self.sampling, self.votes, self.verdicts, self.seed)
        ways = {"generate": self._generate, "logit": self._logit, "steps": critic.steps, "verify": critic.verify}
        yield from ways[self.mode](traces, backend, chat)

    def _generate(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Ask for critiques of all traces at once, then read them."""
        prompts = [_render(self.template, trace.problem, trace.steps, backend, chat) for trace in traces]
        seeds = [[derive_seed(self.seed, "judge", trace.id, k) for k in range(self.votes)] for trace in traces]
        made = backend.generate(prompts, self.sampling, seeds)
        for trace, own, generation in zip(traces, seeds, made, strict=True):
            if isinstance(generation, Failure):
                yield TraceFailure(trace.id, generation)
            else:
                yield self._count(trace, own, generation, chat)

    def _count(self, trace: Trace, seeds: Sequence[int], generation: Generation, chat: bool) -> Scored:
        """Turn critiques into scores and a prediction."""
        votes = [
            _Vote(seeds[one.sample], one, parse_verdict(one.text, len(trace.steps))) for one in generation.completions
        ]
        details = {
            "mode": self.mode,
            "chat": chat,
            "votes": [vote.prediction for vote in votes],
            "unparsed": dict(Counter(vote.error for vote in votes if vote.error is not None)),
            "truncated": sum(vote.completion.finish == "length" for vote in votes),
        }
        samples = tuple(vote.as_sample() for vote in votes)
        named = Counter(vote.prediction for vote in votes if vote.prediction is not None)
        if not named:
            errors = [vote.error for vote in votes if vote.error is not None]
            failure = unparsed([vote.completion for vote in votes], errors, self.sampling.max_new_tokens)
            return TraceFailure(trace.id, failure, generation.tokens, details, samples)
        values = tuple(1.0 - named[i] / named.total() for i in range(len(trace.steps)))
        majority = max(named, key=named.__getitem__)  # of equals the first inserted, hence the first drawn
        return StepScores(trace.id, values, generation.tokens, details, majority, samples)

    def _logit(self, traces: Sequence[Trace], backend: LanguageModel, chat: bool) -> Iterator[Scored]:
        """Score both verdicts after every step of all traces at once."""
        plans = [list(self._requests(trace, backend, chat)) for trace in traces]
        results = iter(backend.loglikelihood([request for plan in plans for request in plan]))
        for trace, plan in zip(traces, plans, strict=True):
            yield self._odds(trace, [next(results) for _ in plan], chat)

    def _requests(self, trace: Trace, backend: LanguageModel, chat: bool) -> Iterator[ScoreRequest]:
        """Yield the positive and the negative verdict after each step."""
        positive, negative = self.verdicts
        for n in range(1, len(trace.steps) + 1):
            steps = trace.steps[:n]
            context = _render(self.template, trace.problem, steps, backend, chat, positive=positive, negative=negative)
            space = "" if context[-1:].isspace() else " "
            for verdict in self.verdicts:
                yield ScoreRequest(context, space + verdict)

    def _odds(self, trace: Trace, results: Sequence[LogProb | Failure], chat: bool) -> Scored:
        """Turn log-probabilities (positive and negative in turn) into log-odds."""
        scored = [result for result in results if isinstance(result, LogProb)]
        tokens = sum((result.tokens for result in scored), Tokens())
        for result in results:
            if isinstance(result, Failure):
                return TraceFailure(trace.id, result, tokens)
        positive, negative = ([one.total for one in scored[start::2]] for start in (0, 1))
        details = {"mode": self.mode, "chat": chat, "positive": positive, "negative": negative}
        values = tuple(yes - no for yes, no in zip(positive, negative, strict=True))
        return StepScores(trace.id, values, tokens, details)


def _render(template: str, problem: str, steps: Sequence[str], backend: LanguageModel, chat: bool, **words: str) -> str:
    """Fill a prompt; in a chat turn without the white space around it."""
    text = fill(template, problem=problem, steps=tagged(steps), **words)
    return backend.chat_prompt(text.strip()) if chat else text


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
