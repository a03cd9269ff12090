r"""Read the verdict of a critic: the index of the first wrong step, or -1 for none, in the last ``\boxed{...}``.

ProcessBench (arXiv 2412.06559) reads an integer there and counts everything else as wrong. This reader allows for the
ways in which models dress that integer up (``\boxed{\text{Step 2}}``), but never guesses between two readings.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from cpmi_eval.answers import last_boxed

Unparsed: TypeAlias = Literal["no_box", "unclosed_box", "empty_box", "ambiguous", "not_an_index", "out_of_range"]

LONGEST = 100  # characters of a box that may hold an index; also keeps the patterns below away from long input
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_MINUS = re.compile("[‐‑‒–—―−﹣－]")
_ESCAPED = re.compile(r"\\([_#<>])")
_FONT = re.compile(r"\\(?:text[a-z]*|math[a-z]*|mbox|emph|bm|boldsymbol|bf)(?![A-Za-z])")
_DRESSING = re.compile(r"\\(?:quad|[,;:! ])|\\?[()\[\]{}]|[$*`~\"']")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_INDEX = re.compile(
    r"(?:<?/?(?:step|paragraph|index)(?:[\s_:#=]+|(?=\d)))?(?P<sign>[+-]?)\s?(?P<digits>\d+)(?:\.0+)?>?", re.IGNORECASE
)


def parse_verdict(text: str, n_steps: int) -> int | Unparsed:
    r"""Return the index in the last complete box of ``text``, or one word for why there is none.

    Read as an index: a whole number, signed or not, also as ``2.0``; alone or after "step", "paragraph" or "index";
    in any font, bracket or tag. Refused: two numbers (``ambiguous``: ``1, 2`` and ``1,000`` alike), anything else
    (``not_an_index``: ``2.5``, ``none``, ``step-1``), a number that is neither -1 nor a step (``out_of_range``).

    Args:
        text: what the critic wrote.
        n_steps: how many steps the trace has.
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


def _undress(content: str) -> str:
    """Drop fonts, brackets, spacing and closing punctuation; a bracket leaves a space, so that ``1(2)`` is no 12."""
    content = _ESCAPED.sub(r"\1", _MINUS.sub("-", content))
    content = _DRESSING.sub(" ", _FONT.sub(" ", content))
    return " ".join(content.split()).rstrip(" .,:;")
