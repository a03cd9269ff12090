r"""Read the verdicts of a critic in its boxes: one index for the whole solution, or a word for every step.

ProcessBench (arXiv 2412.06559) reads an integer, the index of the first wrong step or -1, in the last ``\boxed{...}``
and counts everything else as wrong. ThinkPRM (arXiv 2504.16828) boxes ``correct`` or ``incorrect`` after each step,
GenPRM (arXiv 2504.00891) ``Yes`` or ``No`` after the analysis of one step. These readers allow for the ways in which
models dress a verdict up (``\boxed{\text{Step 2}}``), but never guess between two readings.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from cpmi_eval.grading.finding import last_boxed

Unparsed: TypeAlias = Literal["no_box", "unclosed_box", "empty_box", "ambiguous", "not_an_index", "out_of_range"]
Miscounted: TypeAlias = Literal["no_box", "no_verdict", "too_few", "too_many"]
Words: TypeAlias = tuple[str, str]  # the positive and the negative verdict

LONGEST = 100  # characters of a box that may hold an index; also keeps the patterns below away from long input
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_MINUS = re.compile("[‐‑‒–—―−﹣－]")
_ESCAPED = re.compile(r"\\([_#<>])")
_FONT = re.compile(r"\\(?:text[a-z]*|math[a-z]*|mbox|emph|bm|boldsymbol|bf)(?![A-Za-z])")
_DRESSING = re.compile(r"\\(?:quad|[,;:! ])|\\?[()\[\]{}]|[$*`~\"']")
_FILLED = re.compile(r"\\(?:boxed|fbox)[ \t]*\{((?:[^{}]|\{[^{}]{0,100}\}){0,100})\}")
_THOUGHT = "</think>"  # what a reasoning model writes after it is its reply
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_INDEX = re.compile(
    r"(?:<?/?(?:step|paragraph|index)(?:[\s_:#=]+|(?=\d)))?(?P<sign>[+-]?)\s?(?P<digits>\d+)(?:\.0+)?>?", re.IGNORECASE
)


def parse_verdict(text: str, n_steps: int) -> int | Unparsed:
    r"""Return the index in the last complete box of ``text``, or one word for why there is none.

    Read as an index: a whole number, signed or not, also as ``2.0``; alone or after "step", "paragraph" or "index";
    in any font, bracket or tag. Refused: two numbers (``ambiguous``: ``1, 2`` and ``1,000`` alike), anything else
    (``not_an_index``: ``2.5``, ``none``, ``step-1``), a number that is neither -1 nor a step (``out_of_range``).
    """
    content = last_boxed(text)
    if content is None:
        return "unclosed_box" if _BOX.search(text) else "no_box"
    if len(content) > LONGEST:
        return "not_an_index"
    plain = _undress(content)
    if not plain:
        return "empty_box"
    index = _INDEX.fullmatch(plain)
    if index is None:
        return "ambiguous" if len(_NUMBER.findall(plain)) > 1 else "not_an_index"
    value = int(index["sign"] + index["digits"])
    return value if -1 <= value < n_steps else "out_of_range"


def parse_step_verdicts(text: str, n_steps: int, words: Words) -> tuple[bool, ...] | Miscounted:
    r"""Return a verdict for every step from the boxes of a critique, or one word for why there is none.

    Boxes that hold neither word (a number in an analysis) are passed over. A critique may stop at the first wrong step;
    the steps after it then count as wrong. Any other number of verdicts than of steps is refused (``too_few``,
    ``too_many``). Of a text with thoughts (``</think>``) the reply after them counts, where that has verdicts.
    ``words`` are compared without case.
    """
    thoughts, _, reply = text.rpartition(_THOUGHT)
    verdicts = _boxed_words(reply, words) or _boxed_words(thoughts, words)
    if not verdicts:
        return "no_verdict" if _BOX.search(text) else "no_box"
    if len(verdicts) > n_steps:
        return "too_many"
    left = n_steps - len(verdicts)
    if left and verdicts != [True] * (len(verdicts) - 1) + [False]:
        return "too_few"
    return (*verdicts, *(False,) * left)


def _boxed_words(text: str, words: Words) -> list[bool]:
    positive, negative = map(_plain, words)
    contents = map(_plain, _FILLED.findall(text))
    return [content == positive for content in contents if content in (positive, negative)]


def _plain(word: str) -> str:
    return (_undress(word) or word).casefold()


def until_verdict(text: str, words: Words) -> str | None:
    r"""Return an analysis up to and with the ``{`` of the first box that holds one of the words; None if there is none.

    A text that was stopped at ``{word}`` lacks the rest of the box. Words are compared without case.
    """
    either = "|".join(map(re.escape, words))
    opening = r"\\(?:boxed|fbox)[ \t]*(?:\{[ \t]*\\(?:text|math)[a-z]*[ \t]*)?"
    found = re.search(rf"({opening})(?:\{{\s*(?:{either})[\s.]*\}}|\Z)", text, re.IGNORECASE)
    return None if found is None else text[: found.end(1)] + "{"


def _undress(content: str) -> str:
    """Drop fonts, brackets, spacing and closing punctuation; a bracket leaves a space, so that ``1(2)`` is no 12."""
    content = _ESCAPED.sub(r"\1", _MINUS.sub("-", content))
    content = _DRESSING.sub(" ", _FONT.sub(" ", content))
    return " ".join(content.split()).rstrip(" .,:;")
