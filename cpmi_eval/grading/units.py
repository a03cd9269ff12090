r"""Words after a number and in its place: units of measure, scales, numbers that are spelled out.

An own table rather than a library: scales are exact fractions (``5.4 cents`` is ``\$0.054``), any noun is a unit too
("5 apples" are not "5 oranges"), and nothing is imported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

# What is measured: how much of its base, and the names of that; singular, in lower case.
_TABLE = """
length: 1 m meter metre, 1/100 cm centimeter centimetre, 1/1000 mm millimeter millimetre, 1000 km kilometer kilometre
length: 0.0254 in inch inche ", 0.3048 ft foot feet ', 0.9144 yd yard, 1609.344 mi mile
length^2: 0.09290304 sqft
length^3: 1/1000 l liter litre, 1/1000000 ml milliliter millilitre cc
length^3: 0.003785411784 gal gallon, 0.000946352946 qt quart, 0.000473176473 pt pint
mass: 1 g gm gram gramme, 1000 kg kilo kilogram, 1/1000 mg milligram, 453.59237 lb pound, 28.349523125 oz ounce
time: 1 s sec second, 60 min minute, 3600 h hr hour, 86400 day, 604800 week wk
months: 1 month mo, 12 year yr, 120 decade, 1200 century century
length time^-1: 0.44704 mph, 1000/3600 kph kmph kmh
mass length time^-2: 1 n newton
mass length^2 time^-2: 1 j joule
mass length^2 time^-3: 1 w watt
volt: 1 v volt
time^-1: 1 hz hertz
degree: 1 ° degree deg
radian: 1 rad radian
megabyte: 1/1000 kb kilobyte, 1 mb megabyte, 1000 gb gigabyte
celsius: 1 celsius
fahrenheit: 1 fahrenheit
kelvin: 1 k kelvin
dollar: 1 $ usd us$ dollar buck, 1/100 ¢ cent penny pennie, 5/100 nickel, 10/100 dime
euro: 1 € eur euro
sterling: 1 £ gbp
rupee: 1 ₹ inr rs rupee
yen: 1 ¥ jpy yen
person: 1 person people
child: 1 child children
man: 1 man men
woman: 1 woman women
"""


@dataclass(frozen=True)
class Unit:
    """What is measured (names with their exponents, sorted; nouns name themselves) and the scale to its base."""

    dimension: tuple[tuple[str, int], ...]
    scale: Fraction = Fraction(1)

    def agrees(self, other: Unit) -> bool:
        """Return whether both measure one thing; degrees may be of an angle or of either thermometer."""
        names = {self.dimension, other.dimension}
        return len(names) == 1 or names in ({_DEGREE, (("celsius", 1),)}, {_DEGREE, (("fahrenheit", 1),)})

    def times(self, other: Unit, power: int = 1) -> Unit:
        """Return this unit times a power of another."""
        powers = Counter(dict(self.dimension))
        powers.update({name: count * power for name, count in other.dimension})
        dimension = tuple(sorted((name, count) for name, count in powers.items() if count))
        return Unit(dimension, self.scale * other.scale**power)


_DEGREE = (("degree", 1),)
NOTHING = Unit(())


def _read_table() -> dict[str, Unit]:
    found: dict[str, Unit] = {}
    for line in _TABLE.strip().splitlines():
        measured, _, units = line.partition(": ")
        powers = [part.partition("^") for part in measured.split()]
        dimension = tuple(sorted((name, int(power or 1)) for name, _, power in powers))
        for scale, *names in map(str.split, units.split(", ")):
            found |= dict.fromkeys(names, Unit(dimension, Fraction(scale)))
    return found


def vocabulary(words: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(words.split())


UNITS = MappingProxyType(_read_table())
CURRENCIES = frozenset({"$", "€", "£", "₹", "¥", "USD", "EUR", "GBP", "INR", "JPY", "Rs", "US$"})
LETTERS = frozenset("mgshLNJWV")  # single letters that are units where a number and a space precede them
ATTACHED = vocabulary("cm km mm kg mg ml mL lb lbs oz ft mph am pm AM PM min sec hrs hr cc st nd rd th")
_PREFIXED = re.compile(r"([mM])(m|g|s|W|J|N|V|Hz)")
_NO_UNIT = vocabulary(
    "to plus minus over than remainder mod is are was if where when which because since that not at for with from by "
    "less_than or and r base"
)
FILLERS = vocabulary(
    "of a an the more less fewer left right old older total altogether each in_all remaining away long wide tall high "
    "deep apart only own different ways way about integers integer unit units approximately possible"
)
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
RAISED = {"squared": 2, "cubed": 3}


def _stem(word: str) -> str:
    """Return a noun without case and plural."""
    word = word.casefold()
    if word in UNITS or len(word) < 3 or word.endswith("ss"):
        return word
    return re.sub(r"ies$", "y", re.sub(r"(?<=[sxz])es$|(?<=[cs]h)es$|(?<!ie)s$", "", word))


def lookup(word: str) -> Unit | None:
    """Return the unit that a word names in the table, singular or plural."""
    if found := _PREFIXED.fullmatch(word):  # mm and Mm, mW and MW
        base = UNITS[found[2].lower()]
        return Unit(base.dimension, base.scale * (Fraction(1, 1000) if found[1] == "m" else 10**6))
    return UNITS.get(_stem(word))


def of_words(words: Sequence[str]) -> Unit | None:
    """Read what follows a number: words, ``per``, ``/``, ``*``, and exponents written as ``^2``.

    ``None`` if it is no unit but a statement ("to 7", "plus", "remainder 3"). Fillers alone measure nothing.
    """
    found, last = NOTHING, NOTHING
    sign = power = 1
    before = ""
    for word in words:
        lower = word.casefold()
        if lower == "in" and before and before not in (*POWERS, "per", "/", "."):
            break  # "7 dollars in change": where, not inches
        if lower in _NO_UNIT or (before == "of" and len(word) == 1 and lower != "a"):
            return None
        before = lower
        if lower in ("per", "/"):
            sign = -1
        elif lower in POWERS:
            power = POWERS[lower]
        elif word.startswith("^") or lower in RAISED:
            found = found.times(last, (RAISED.get(lower) or int(word[1:])) - 1)
        elif word in ("*", "-", ".", "st", "nd", "rd", "th") or (
            lower in FILLERS and (lower not in ("unit", "units") or len(words) == 1)
        ):
            continue
        else:
            last = NOTHING.times(lookup(word) or Unit(((_stem(word), 1),)), sign * power)
            found, power = found.times(last), 1
    return found


# --- numbers in words -------------------------------------------------------------------------------------------

SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: 10 * tens for tens, word in enumerate(_TENS.split(), start=2)
}
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_PARTS = {word: Fraction(1, size) for size, word in enumerate(_ORDINALS.split(), start=3)} | {
    word: Fraction(1, size)
    for word, size in (("half", 2), ("halve", 2), ("quarter", 4), ("twentieth", 20), ("hundredth", 100),
                       ("thousandth", 1000), ("millionth", 10**6))
}  # fmt: skip


def share(word: str) -> Fraction | None:
    """Return what one of several parts is: a fifth, tenths."""
    return _PARTS.get(word) or _PARTS.get(word.removesuffix("s"))


def names_number(word: str) -> bool:
    """Return whether a word, in lower case, stands for a number or a part of one."""
    return word in NUMBERS or word in SCALES or share(word) is not None
