"""Rollouts: completions of solution prefixes, drawn from a model or read back from a run, and graded.

A rollout belongs to (role, trace, number of steps given, sample). Its seed is a function of these and the run's seed,
so that it is the same, up to rounding, whatever else is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.grading import Grade, grade
from cpmi_eval.labelers.prompts import check_chat, fill, read_prompt, uses_chat
from cpmi_eval.labelers.results import failed, spent
from cpmi_eval.protocols import LanguageModel
from cpmi_eval.seeding import derive_seed
from cpmi_eval.types import JSON, Completion, Failure, Sampling, Scored, StepScores, Tokens, Trace, TraceFailure

CHAT_PROMPT = (
    "{problem}\n\nSolve this step by step, with a blank line after every step. Put the final answer into \\boxed{}."
)
PLAIN_PROMPT = "Problem:\n{problem}\n\nStep-by-step solution, which ends in the final answer as \\boxed{}:\n\n"
PLAIN_STOP = ("\nProblem:",)  # a model without chat turns goes on with the next problem


@dataclass(frozen=True)
class Point:
    """Where rollouts start: after the first ``steps`` steps of a trace; 0 is the bare problem."""

    trace: Trace
    steps: int


@dataclass(frozen=True)
class Rollout:
    """One graded completion of a point, as a row of rollouts.jsonl holds it (which adds the trace's id).

    ``answer``, ``correct`` and ``error`` are those of :class:`cpmi_eval.labelers.grading.Grade`.
    """

    role: str
    step: int
    sample: int
    seed: int
    text: str
    finish: str
    n_tokens: int
    answer: str | None
    correct: bool | None
    error: str | None


@dataclass(frozen=True)
class Drawn:
    """The rollouts of one point, in order of sample, and what they cost."""

    rollouts: tuple[Rollout, ...]
    tokens: Tokens = field(default_factory=Tokens)

    @property
    def successes(self) -> int:
        """How many reached the reference answer."""
        return sum(one.correct is True for one in self.rollouts)

    @property
    def share(self) -> float:
        """The share that did: Q of the point."""
        return self.successes / len(self.rollouts)

    @property
    def samples(self) -> tuple[JSON, ...]:
        """The rollouts as rows of rollouts.jsonl."""
        return tuple(map(asdict, self.rollouts))


def counts(drawn: Sequence[Drawn]) -> JSON:
    """Return counts over rollouts that a reader of a row should see: cut off, without an answer, undecidable."""
    every = [one for part in drawn for one in part.rollouts]
    return {
        "rollouts": len(every),
        "truncated": sum(one.finish == "length" for one in every),
        "unanswered": sum(one.answer is None for one in every),
        "unchecked": sum(one.error is not None for one in every),
    }


def scored(
    trace: Trace, drawn: Sequence[Drawn | Failure], details: JSON, values: Callable[[], Iterable[float]]
) -> Scored:
    """Return the result that a trace's rollouts make; ``values`` is called if none of them failed."""
    made = [one for one in drawn if isinstance(one, Drawn)]
    details, samples = {**details, **counts(made)}, tuple(sample for one in made for sample in one.samples)
    failure = failed(drawn)
    if failure is not None:
        return TraceFailure(trace.id, failure, spent(made), details, samples)
    return StepScores(trace.id, tuple(values()), spent(made), details, samples=samples)


class Draws(Protocol):
    """Where rollouts come from."""

    def draw(
        self, points: Sequence[Point], n: int, backend: LanguageModel | None, until_success: bool = False
    ) -> list[Drawn | Failure]:
        """Return ``n`` rollouts of each point, or those up to a first success where that is enough."""


@dataclass(frozen=True)
class RolloutSettings:
    """How rollouts are prompted and sampled: the settings that ``mc`` and ``pav`` share (docs/labelers.md)."""

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    repetition_penalty: float = 1.05
    max_new_tokens: int = 2048
    chat: bool | str = "auto"
    prompt: str | None = None
    step_separator: str = "\\n\\n"
    stop: str | None = None
    rollouts: str | None = None

    def source(self, seed: int, role: str) -> Draws:
        """Check the settings and return what draws rollouts (from the file ``rollouts`` if there is one).

        Raises:
            UsageError: a wrong value, or one that does nothing beside ``rollouts``.
        """
        if self.rollouts is not None:
            changed = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
            if idle := [name for name in changed if name != "rollouts"]:
                raise UsageError(f"rollouts=FILE draws nothing, so {' and '.join(idle)} would do nothing")
            return RecordedRollouts(Path(str(self.rollouts)), role)
        prompt = None if self.prompt is None else read_prompt(Path(str(self.prompt)), ("problem",))
        stop = None if self.stop is None else tuple(filter(None, [settings.text("stop", self.stop)]))
        sampling = Sampling(
            settings.integer("max_new_tokens", self.max_new_tokens, 1),
            settings.number("temperature", self.temperature, 0.0),
            settings.number("top_p", self.top_p, 1e-6, 1.0),
            settings.integer("top_k", self.top_k, 0),
            settings.number("repetition_penalty", self.repetition_penalty, 1e-6),
        )
        separator = settings.text("step_separator", self.step_separator)
        return SampledRollouts(sampling, check_chat(self.chat), prompt, separator, stop, seed, role)


@dataclass(frozen=True)
class SampledRollouts:
    """Draws rollouts from a model."""

    sampling: Sampling
    chat: Any
    prompt: str | None
    separator: str
    stop: tuple[str, ...] | None
    seed: int
    role: str

    def draw(
        self, points: Sequence[Point], n: int, backend: LanguageModel | None, until_success: bool = False
    ) -> list[Drawn | Failure]:
        """Draw for all points in one call, so that the backend can share prefixes; grade as they finish."""
        if backend is None:
            raise UsageError("rollouts need a model")
        chat = uses_chat(self.chat, backend)
        stop = (() if chat else PLAIN_STOP) if self.stop is None and self.prompt is None else self.stop or ()
        sampling = replace(self.sampling, stop=stop)
        prompts = [self._text(point, backend, chat) for point in points]
        seeds = [
            [derive_seed(self.seed, self.role, point.trace.id, point.steps, sample) for sample in range(n)]
            for point in points
        ]
        grades: dict[tuple[int, int], Grade] = {}

        def graded(place: int, made: Completion) -> Grade:
            if (place, made.sample) not in grades:
                trace, given = points[place].trace, points[place].trace.steps[: points[place].steps]
                grades[place, made.sample] = grade(trace.answer or "", given, made.text, made.finish == "stop")
            return grades[place, made.sample]

        def succeeded(place: int, made: Completion) -> bool:
            return graded(place, made).correct is True

        def rollout(place: int, made: Completion) -> Rollout:
            own = (made.sample, seeds[place][made.sample], made.text, made.finish, made.n_tokens)
            found = graded(place, made)
            return Rollout(self.role, points[place].steps, *own, found.answer, found.correct, found.error)

        generated = backend.generate(prompts, sampling, seeds, succeeded if until_success else None)
        return [
            made
            if isinstance(made, Failure)
            else Drawn(tuple(rollout(place, one) for one in made.completions), made.tokens)
            for place, made in enumerate(generated)
        ]

    def _text(self, point: Point, backend: LanguageModel, chat: bool) -> str:
        template = self.prompt or (CHAT_PROMPT if chat else PLAIN_PROMPT)
        asked = fill(template, problem=point.trace.problem)
        start = backend.chat_prompt(asked.strip()) if chat else asked
        return start + "".join(step + self.separator for step in point.trace.steps[: point.steps])


class RecordedRollouts:
    """Takes the rollouts of an earlier run (``--log_samples``) instead of drawing any; needs no model."""

    def __init__(self, path: Path, role: str) -> None:
        """Read the file.

        Raises:
            UsageError: it is missing, or a line is no rollout.
        """
        from cpmi_eval.record import door  # not at the top: where models run on a bare machine, msgspec is missing

        self.path, self.role = path, role
        self.kept: dict[tuple[str, int], dict[int, Rollout]] = {}
        file = door.Source(str(path), UsageError, "it must hold the rollouts of a run with --log_samples")
        for number, row in enumerate(door.read_lines(path, JSON, file), 1):
            if row.get("role", role) == role:
                one = door.convert(row, Rollout, file.line(number))
                trace = door.convert(row.get("id"), str, file.line(number))
                self.kept.setdefault((trace, one.step), {})[one.sample] = one

    def draw(
        self, points: Sequence[Point], n: int, backend: LanguageModel | None, until_success: bool = False
    ) -> list[Drawn | Failure]:
        """Return the first ``n`` recorded rollouts of each point; a Failure where not all of them were recorded."""
        return [self._one(point, n, until_success) for point in points]

    def _one(self, point: Point, n: int, until_success: bool) -> Drawn | Failure:
        recorded = self.kept.get((point.trace.id, point.steps), {})
        found = [recorded[sample] for sample in range(n) if sample in recorded]
        if len(found) == n or (until_success and any(one.correct for one in found)):
            return Drawn(tuple(found))
        return Failure(
            "missing_rollouts",
            f"{self.path} has {len(found)} of {n} {self.role} rollouts after step {point.steps}; "
            "draw them anew, or ask for fewer",
        )
