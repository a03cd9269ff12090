"""CPMI: how much a step raises the log-probability of the right answer over that of hard negatives.

Lee, Hong, Lee: Efficient Process Reward Modeling via Contrastive Mutual Information (ACL 2026, arXiv 2604.10660).

l(X | C) is the mean token log-probability of the target "The answer is: X" after context C, averaged over K prompt
templates. The reward of step i is D_i(A) - weight * mean_m D_i(N_m), for the reference answer A and negatives N_m, with

    marginal  D_i(X) = l(X | q, s_i)       - l(X | q)
    prefix    D_i(X) = l(X | q, s_1..s_i)  - l(X | q, s_1..s_i-1)
    loo       D_i(X) = l(X | q, all steps) - l(X | q, all steps but s_i)

A context is a template filled with the problem, then each step followed by the step separator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers import negatives
from cpmi_eval.labelers.results import answered, failed, spent
from cpmi_eval.protocols import Capability, LanguageModel
from cpmi_eval.seeding import derive_rng, derive_seed
from cpmi_eval.types import (
    Failure,
    Generation,
    LogProb,
    Sampling,
    Scored,
    ScoreRequest,
    StepScores,
    Text,
    Tokens,
    Trace,
    TraceFailure,
)

TEMPLATES = (
    "Problem: {problem}\n\nStep-by-step solution:\n\n",
    "Read the question and reason it through before you state the result.\n\nQuestion: {problem}\n\nReasoning:\n\n",
    "{problem}\n\nLet us work this out one step at a time.\n\n",
    "Exercise\n{problem}\n\nWorked solution\n\n",
)
VARIANTS = ("marginal", "prefix", "loo")
NORMALIZE = ("target", "answer", "none")


def contexts(variant: str, base: Text, steps: Sequence[str]) -> Iterator[Text]:
    """Yield the contexts that ``variant`` compares for a trace: n + 1 of them, as texts that share what they can."""
    prefixes = [base]
    for step in steps:
        prefixes.append((base if variant == "marginal" else prefixes[-1]) + step)
    if variant != "loo":
        yield from prefixes
        return
    yield prefixes[-1]
    for left_out in range(len(steps)):
        one = prefixes[left_out]
        for step in steps[left_out + 1 :]:
            one = one + step
        yield one


def compared(variant: str, n: int) -> list[tuple[int, int]]:
    """Return per step of ``n`` the places of the two contexts that are compared: with the step, and without it."""
    if variant == "loo":
        return [(0, i + 1) for i in range(n)]
    return [(i + 1, 0 if variant == "marginal" else i) for i in range(n)]


@dataclass(frozen=True)
class _Plan:
    """The requests of one trace: template-major, then context, then answer (the reference first)."""

    trace: Trace
    answers: tuple[str, ...]
    sampled: int
    requests: tuple[ScoreRequest, ...]
    spent: Tokens


class CPMI:
    """Contrastive pointwise mutual information between a step and the answer."""

    name: ClassVar[str] = "cpmi"
    summary: ClassVar[str] = "contrastive pointwise mutual information (arXiv 2604.10660); uses the reference answer"
    kind: ClassVar[Literal["labeler"]] = "labeler"
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})

    def __init__(
        self,
        variant: str = "marginal",
        templates: str | None = None,
        step_separator: str = "\\n\\n",
        target: str = "The answer is: {answer}",
        n_negatives: int = 4,
        sampled: int = 0,
        negatives_file: str | None = None,
        weight: float = 1.0,
        normalize: str = "target",
        top_k: int = 0,
        top_p: float = 1.0,
        chat: bool = False,
        seed: int = 0,
    ) -> None:
        """Check the settings (docs/labelers.md)."""
        self.variant = settings.choice("variant", variant, VARIANTS)
        self.templates = TEMPLATES if templates is None else read_templates(Path(str(templates)))
        self.separator = settings.text("step_separator", step_separator)
        before, mark, after = str(target).partition("{answer}")
        if not mark:
            raise UsageError(f"target must hold {{answer}}, not {target!r}")
        self.target = (before, after)
        self.n_negatives = settings.integer("n_negatives", n_negatives, 1)
        self.sampled = settings.integer("sampled", sampled, 0)
        self.from_file = None if negatives_file is None else negatives.read_file(Path(str(negatives_file)))
        if self.from_file is not None and self.sampled:
            raise UsageError("negatives_file replaces sampled negatives; give one of the two")
        self.weight = settings.number("weight", weight)
        self.normalize = settings.choice("normalize", normalize, NORMALIZE)
        self.top_k = settings.integer("top_k", top_k, 0)
        self.top_p = settings.number("top_p", top_p, 1e-6, 1.0)
        self.chat = settings.flag("chat", chat)
        self.seed = seed
        self.capabilities: frozenset[Capability] = frozenset(
            ("loglikelihood", "generate") if self.sampled else ("loglikelihood",)
        )
        self.native_threshold: float | None = 0.0
        self.batch_factor = 4 if self.sampled else 1

    def score(self, traces: Sequence[Trace], backend: LanguageModel | None) -> Iterator[Scored]:
        """Yield one result per trace: the rewards, or why there are none."""
        if backend is None:
            raise UsageError("cpmi needs a model")
        able, without = answered(traces)
        yield from without
        plans = [self._plan(*pair, backend) for pair in zip(able, self._sample(able, backend), strict=True)]
        requests = [request for plan in plans if isinstance(plan, _Plan) for request in plan.requests]
        results = iter(backend.loglikelihood(requests))
        for plan in plans:
            yield self._reduce(plan, [next(results) for _ in plan.requests]) if isinstance(plan, _Plan) else plan

    def _sample(self, traces: Sequence[Trace], backend: LanguageModel) -> Sequence[Generation | Failure]:
        """Ask the model for wrong results, per trace under its own seed."""
        if not self.sampled:
            return [Generation(())] * len(traces)
        prompts = [negatives.sampling_prompt(trace.problem, trace.steps, trace.answer or "") for trace in traces]
        if self.chat:
            prompts = [backend.chat_prompt(prompt) for prompt in prompts]
        sampling = Sampling(max_new_tokens=24, temperature=1.05, top_p=0.9)
        seeds = [[derive_seed(self.seed, "negatives", trace.id, i) for i in range(self.sampled)] for trace in traces]
        return backend.generate(prompts, sampling, seeds)

    def _plan(self, trace: Trace, generation: Generation | Failure, backend: LanguageModel) -> _Plan | TraceFailure:
        """Choose the negatives and lay out the requests."""
        if isinstance(generation, Failure):
            return TraceFailure(trace.id, generation)
        answer = trace.answer or ""
        proposed = (negatives.parse_sample(one.text, answer) for one in generation.completions)
        preferred = [text for text in proposed if text is not None]
        if self.from_file is None:
            chosen = negatives.pick(answer, self.n_negatives, derive_rng(self.seed, "rules", trace.id), preferred)
            hint = f"no rule edits the answer {answer!r}; try sampled=8 or negatives_file=FILE"
        else:
            chosen = list(self.from_file.get(trace.id, ()))
            hint = "the negatives file has no line for this trace"
        if not chosen:
            return TraceFailure(trace.id, Failure("no_negatives", hint), generation.tokens)
        requests = tuple(self._requests(trace, (answer, *chosen), backend))
        return _Plan(trace, (answer, *chosen), sum(one in preferred for one in chosen), requests, generation.tokens)

    def _requests(self, trace: Trace, answers: Sequence[str], backend: LanguageModel) -> Iterator[ScoreRequest]:
        before, after = self.target
        steps = [step + self.separator for step in trace.steps]
        for template in self.templates:
            base = template.replace("{problem}", trace.problem)
            if self.chat:
                base = backend.chat_prompt(base)
            for context in contexts(self.variant, Text(base), steps):
                for answer in answers:
                    alone = self.normalize == "answer"
                    asked = (context + before, answer) if alone else (context, before + answer + after)
                    yield ScoreRequest(*asked, self.top_k, self.top_p)

    def _reduce(self, plan: _Plan, results: Sequence[LogProb | Failure]) -> Scored:
        """Turn log-probabilities into rewards; see the module's formulas."""
        tokens = plan.spent + spent(results)
        if failure := failed(results):
            return TraceFailure(plan.trace.id, failure, tokens)
        scored = [one for one in results if isinstance(one, LogProb)]
        values = [one.total if self.normalize == "none" else one.total / one.n_tokens for one in scored]
        shape = (len(self.templates), len(plan.trace.steps) + 1, len(plan.answers))
        mean = np.array(values).reshape(shape).mean(axis=0)  # [contexts, answers], averaged over templates
        pairs = compared(self.variant, len(plan.trace.steps))
        terms = np.array([mean[with_] - mean[without] for with_, without in pairs])
        rewards = terms[:, 0] - self.weight * terms[:, 1:].mean(axis=1)
        details = {
            "answer": plan.answers[0],
            "negatives": list(plan.answers[1:]),
            "sampled_negatives": plan.sampled,
            "gold_terms": terms[:, 0].tolist(),
            "negative_terms": terms[:, 1:].tolist(),
        }
        return StepScores(plan.trace.id, tuple(rewards.tolist()), tokens, details)


def read_templates(path: Path) -> tuple[str, ...]:
    """Read prompt templates from a YAML list of strings, each with ``{problem}``.

    Raises:
        UsageError: no such file, not YAML, not such a list.
    """
    from cpmi_eval.record import door  # not at the top: where models run on a bare machine, msgspec is missing

    file = door.Source(f"templates file {path}", UsageError, "it must be a YAML list of strings with {problem}")
    templates = door.parse_yaml(door.read_bytes(path, file), tuple[str, ...], file)
    if not templates:
        raise file.fault("is empty")
    for place, template in enumerate(templates, 1):
        if "{problem}" not in template:
            raise file.fault(f"has no {{problem}} in entry {place}")
    return templates
