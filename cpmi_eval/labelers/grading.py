"""Is the answer that a rollout ends in the right one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cpmi_eval.grading import final_answer, verdict
from cpmi_eval.grading.finding import stated_answer


@dataclass(frozen=True)
class Grade:
    """The answer read from a rollout and whether it is right. ``correct`` is ``None`` where ``error`` says why.

    ``error``: ``unchecked`` (equality cannot be decided in bounded work, which is no success), else ``None``.
    """

    answer: str | None
    correct: bool | None
    error: str | None = None


def rollout_answer(steps: Sequence[str], text: str, is_complete: bool) -> str | None:
    r"""Return the final answer of a solution whose first ``steps`` were given and which goes on with ``text``.

    What the continuation states (``\boxed{}``, ``####``, "the answer is") comes before what the given steps state;
    only then the last number counts, of the continuation before that of the steps. A continuation that was cut off
    (``is_complete`` false) has not come to its answer: in it nothing counts but a statement, if that is whole ("the
    answer is 1" may have been about to become 12).
    """
    if not is_complete:
        return stated_answer(text, is_cut=True)
    stated = stated_answer(text)
    if stated is not None:
        return stated
    given = "\n\n".join(steps)
    return stated_answer(given) or final_answer(text) or final_answer(given)


def grade(reference: str, steps: Sequence[str], text: str, is_complete: bool) -> Grade:
    """Compare a rollout's answer with the reference, mathematically (see :mod:`cpmi_eval.grading`)."""
    answer = rollout_answer(steps, text, is_complete)
    if answer is None:
        return Grade(None, False)
    correct = verdict(answer, reference)
    return Grade(answer, correct, "unchecked" if correct is None else None)
