r"""Wrong answers for references that are not numbers: choices, words of closed sets, numerals, symbols."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from cpmi_eval.grading.reader import words
from cpmi_eval.labelers.edits import Edit, Form

_WORDS = """
yes no | true false | even odd neither | positive negative zero | increasing decreasing |
always sometimes never | acute right obtuse | equilateral isosceles scalene |
ellipse parabola hyperbola circle line point | north east south west | left right | red blue green yellow |
heads tails | rational irrational | prime composite | finite infinite | convergent divergent |
converges diverges | monday tuesday wednesday thursday friday saturday sunday |
january february march april may june july august september october november december
"""
_CLOSED_SETS = [tuple(one.split()) for one in _WORDS.split("|")]
_CHOICE = re.compile(r"[\s(]*(?:\\(?:text[a-z]*|mbox|mathrm)\s*\{)?[\s(]*([A-E])[\s).}]*")
TEXT = re.compile(r"(\\(?:text[a-z]*|mbox|mathrm)\s*\{)([^{}]*)\}")
_LETTER_LIST = re.compile(r"[A-H](?:\s*(?:,|\band\b|,\s*and\b)\s*[A-H])+")
_BASED = re.compile(r"(-?)([0-9A-Fa-f]+)(\s*_\s*\{?\s*(\d+)\s*\}?)")
_SYMBOLIC = re.compile(r"(.*=\s*)?(.+)", re.DOTALL)
_COMPOSITE = re.compile(
    r"[,;&<>=:{}]|\\(?:cup|cap|in|text|mbox|infty|pm|mp|le|ge|leq|geq|emptyset|varnothing|mathbb)(?![A-Za-z])"
)
_ENDS_A_TERM = re.compile(r"[\w)}\]!|]$")
_SEVERAL_TERMS = re.compile(r"(?<=[\w)}])\s*[-+]")


def other_words(answer: str) -> list[str]:
    """Return the other members of the closed set that a verbal answer belongs to."""
    said = TEXT.sub(r"\2", answer).strip(" .")
    if _LETTER_LIST.fullmatch(said) and said in answer:
        return [answer.replace(said, other) for other in _other_letter_lists(said)]
    for members in _CLOSED_SETS:
        if said.casefold() in members:
            index = members.index(said.casefold())
            others = members[index + 1 :] + members[:index]
            in_case = str.upper if said.isupper() else str.capitalize if said[:1].isupper() else str
            return [answer.replace(said, in_case(other)) for other in others]
    return []


def _other_letter_lists(said: str) -> Iterator[str]:
    """Swap one letter of a list such as ``A, C`` for one that is not in it."""
    letters = re.findall(r"\b[A-H]\b", said)
    missing = [letter for letter in "ABCDEFGH" if letter not in letters and letter <= max(*letters, "E")]
    for place in re.finditer(r"\b[A-H]\b", said):
        for letter in missing:
            yield said[: place.start()] + letter + said[place.end() :]


def other_choices(answer: str) -> list[str]:
    """Swap the letter of a multiple-choice answer for each of the others."""
    match = _CHOICE.fullmatch(answer)
    if not match:
        return []
    return [Edit(*match.span(1), letter).apply(answer) for letter in "ABCDE" if letter != match.group(1)]


def other_numerals(answer: str) -> list[str]:
    """Edit a numeral with a base in that base, so that no digit gives the negative away."""
    match = _BASED.fullmatch(answer.strip())
    if not match or not 2 <= int(match.group(4)[:3]) <= 16:
        return []
    sign, digits, subscript, base = match.groups()
    try:
        value = int(digits, int(base))
    except ValueError:
        return []
    near = Form.of(str(value)).nearby(Fraction(value))
    return [f"{sign}{np.base_repr(int(other), int(base))}{subscript}" for other in near if other > 0]


def symbolic(answer: str) -> list[str]:
    """Negate an expression, double it, add one to it: on the right-hand side of an equation."""
    match = _SYMBOLIC.fullmatch(answer.strip())
    if not match:
        return []
    left, right = match.group(1) or "", match.group(2).strip()
    if (
        words(right) is not None
        or _COMPOSITE.search(re.sub(r"\{[^{}]*\}", "", right))
        or not _ENDS_A_TERM.search(right)
    ):
        return []
    gap = " " if " " in right else ""
    if _SEVERAL_TERMS.search(right):
        edited = [f"-({right})", f"2({right})"]
    elif right.startswith("-"):
        edited = [right[1:].strip()]
    else:
        edited = [f"-{right}"] if right[0].isdigit() else [f"-{right}", f"2{gap}{right}"]
    if not right[-1:].isdigit():
        edited += [f"{right}{gap}+{gap}1", f"{right}{gap}-{gap}1"]
    return [left + other for other in edited]
