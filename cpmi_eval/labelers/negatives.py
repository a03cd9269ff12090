"""Hard negatives for CPMI: from rules, from a model's samples, or from a file."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cpmi_eval.errors import UsageError
from cpmi_eval.grading import verdict
from cpmi_eval.grading.comparing import MAX_CHARS as MAX_COMPARED
from cpmi_eval.grading.comparing import is_number
from cpmi_eval.grading.finding import clean, last_boxed
from cpmi_eval.grading.reader import words
from cpmi_eval.labelers import alternatives, edits

MAX_CHARS = 64
_BOUNDS = re.compile(r"([(\[])\s*(-?\d+\.?\d*|-?\.\d+)\s*,\s*(-?\d+\.?\d*|-?\.\d+)\s*([)\]])", re.ASCII)


def rule_based(answer: str) -> list[str]:
    """Return wrong answers made from ``answer`` by small edits, the most plausible first.

    None equals ``answer`` or another in value. Composite answers have one number, fraction or root edited at a time.
    Words outside the known closed sets (``yes``/``no``, weekdays, ...) and very long answers give an empty list.
    """
    return list(_distinct(_candidates(answer), answer))


def _candidates(answer: str) -> list[str]:
    if len(answer) > MAX_COMPARED:
        return []
    for special in (alternatives.other_choices, alternatives.other_words, alternatives.other_numerals):
        if others := special(answer):
            return others
    if words(answer) is not None:
        return []
    text = alternatives.TEXT.fullmatch(answer.strip())
    if text and re.search(r"\d", text.group(2)):
        return [f"{text.group(1)}{other}}}" for other in _candidates(text.group(2))]
    found = edits.number_edits(answer)
    if len(found) < edits.ENOUGH:
        found += alternatives.symbolic(answer)
    return [candidate for candidate in found if not _is_backwards(candidate)]


def _is_backwards(answer: str) -> bool:
    """Whether an interval in ``answer`` ends before it begins; a pair in round brackets may be a point."""
    bounds = list(_BOUNDS.finditer(re.sub(r"\\(?:left|right)(?![A-Za-z])", "", answer)))
    is_interval = "\\cup" in answer or any("".join(bound.group(1, 4)) != "()" for bound in bounds)
    return is_interval and any(float(bound.group(2)) >= float(bound.group(3)) for bound in bounds)


def _distinct(candidates: Iterable[str], answer: str, taken: Sequence[str] = ()) -> Iterator[str]:
    kept = [answer, *taken]
    for candidate in candidates:
        if not any(verdict(candidate, other) is True for other in kept):
            kept.append(candidate)
            yield candidate


def pick(answer: str, m: int, rng: random.Random, preferred: Sequence[str] = ()) -> list[str]:
    """Return up to ``m`` negatives: the usable ``preferred`` ones in order, then rule-based ones shuffled by ``rng``.

    Usable: not blank, at most 64 characters, different in value from ``answer`` and from those before.
    """
    usable = (text.strip() for text in preferred if text.strip() and len(text.strip()) <= MAX_CHARS)
    chosen = list(islice(_distinct(usable, answer), m))
    if len(chosen) < m:
        made = list(_candidates(answer))
        rng.shuffle(made)
        chosen += islice(_distinct(made, answer, chosen), m - len(chosen))
    return chosen


# --- negatives from a model -------------------------------------------------------------------------------------

_ANSWER_LABEL = re.compile(r"^.*?\b(?:answer|result|value)\s*(?:is\b|[:=])\s*(?:is\b|[:=])?\s*", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*•]\s+|\(?\d{1,2}[.)]\s+)")
_MATH = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)")
_PLAIN_NUMBER = re.compile(
    r"-?\\?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?(?:\\?%)?|-?\\[dt]?frac\{\d+\}\{\d+\}"
)


def sampling_prompt(problem: str, steps: Sequence[str], answer: str) -> str:
    """Ask a model for one wrong result, with the problem, the worked solution and the reference in view."""
    solution = "\n\n".join(steps)
    return (
        "Below are a math problem, a worked solution and the correct final answer. Imagine a careful student who makes "
        "one slip in an intermediate step (a sign, an arithmetic error, a wrong formula, a forgotten case) and carries "
        "it through to the end. Write the wrong final answer that this student would report.\n\n"
        f"Problem:\n{problem}\n\n"
        f"Worked solution:\n{solution}\n\n"
        f"Correct final answer: {answer}\n\n"
        "Reply with the wrong final answer alone, on one line, written in the same form as the correct one. "
        "It must not be equal to the correct answer. Do not explain.\n\n"
        "Wrong final answer:"
    )


def parse_sample(text: str, answer: str) -> str | None:
    """Return the answer that a model's completion of :func:`sampling_prompt` proposes, if there is a usable one.

    Where the reference is a plain number, only a number will do.
    """
    boxed = last_boxed(text)
    first_line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    proposed = boxed if boxed is not None else _proposal(first_line)
    if is_number(answer) and not is_number(proposed):
        number = _PLAIN_NUMBER.search(proposed)
        proposed = number.group() if number and is_number(number.group()) else ""
    proposed = " ".join(proposed.split())
    is_usable = len(proposed) <= MAX_CHARS and any(char.isalnum() for char in proposed)
    return proposed if is_usable else None


def _proposal(line: str) -> str:
    """Take the answer out of a line: after a label, without a bullet; of a sentence, its first formula."""
    line = clean(_BULLET.sub("", _ANSWER_LABEL.sub("", line), count=1)).strip("\"'“”`* ")
    formula = _MATH.search(line)
    if formula and words(line[: formula.start()].strip()) is not None:
        return (formula.group(1) or formula.group(2)).strip()
    return clean(line)


# --- negatives from a file --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    id: str
    negatives: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.negatives or not all(map(str.strip, self.negatives)):
            raise ValueError("negatives: expected at least one text, and none that is blank")


def read_file(path: Path) -> dict[str, tuple[str, ...]]:
    """Read negatives by trace id from JSON lines: ``{"id": "...", "negatives": ["...", ...]}``.

    Raises:
        UsageError: the file is missing or not UTF-8, or a line is malformed or repeats an id.
    """
    from cpmi_eval.record import door  # not at the top: where models run on a bare machine, msgspec is missing

    file = door.Source(str(path), UsageError, 'a line is {"id": "...", "negatives": ["...", ...]}')
    found: dict[str, tuple[str, ...]] = {}
    for row in door.read_lines(path, _Row, file):
        if row.id in found:
            raise file.fault(f"has the id {row.id!r} twice; give its negatives in one line")
        found[row.id] = row.negatives
    return found
