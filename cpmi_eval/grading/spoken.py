"""Numbers in words: twenty-one, three million, two fifths, half."""

from __future__ import annotations

from fractions import Fraction

from cpmi_eval.grading.units import vocabulary

SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
}  # fmt: skip
_SMALL = vocabulary(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = vocabulary("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBERS = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * tens for tens, word in enumerate(_TENS, start=2)
}
_PARTS = {
    word: Fraction(1, size)
    for size, name in (
        (2, "half halve"), (3, "third"), (4, "fourth quarter"), (5, "fifth"), (6, "sixth"), (7, "seventh"),
        (8, "eighth"), (9, "ninth"), (10, "tenth"), (11, "eleventh"), (12, "twelfth"), (20, "twentieth"),
        (100, "hundredth"), (1000, "thousandth"), (10**6, "millionth"),
    )
    for word in name.split()
}  # fmt: skip

POSTFIXES = frozenset({"squared", "cubed", "factorial", "percent", "pct", "percentage"})


def share(word: str) -> Fraction | None:
    """Return what one of several parts is: a fifth, tenths."""
    return _PARTS.get(word) or _PARTS.get(word.removesuffix("s"))


def names_number(word: str) -> bool:
    """Return whether a word, in lower case, stands for a number or a part of one."""
    return word in NUMBERS or word in SCALES or share(word) is not None
