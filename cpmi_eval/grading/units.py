r"""Units of measure: which words name one, what they measure and how much of it.

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

_TABLE = """
m meter metre = 1 length
cm centimeter centimetre = 1/100 length
mm millimeter millimetre = 1/1000 length
km kilometer kilometre = 1000 length
in inch inche " = 254/10000 length
ft foot feet ' = 3048/10000 length
sqft = 9290304/100000000 length^2
yd yard = 9144/10000 length
mi mile = 1609344/1000 length
g gm gram gramme = 1 mass
kg kilo kilogram = 1000 mass
mg milligram = 1/1000 mass
lb pound = 45359237/100000 mass
oz ounce = 45359237/1600000 mass
s sec second = 1 time
min minute = 60 time
h hr hour = 3600 time
day = 86400 time
week wk = 604800 time
month mo = 1 months
year yr = 12 months
decade = 120 months
century century = 1200 months
l liter litre = 1/1000 length^3
ml milliliter millilitre cc = 1/1000000 length^3
gal gallon = 3785411784/1000000000000 length^3
qt quart = 946352946/1000000000000 length^3
pt pint = 473176473/1000000000000 length^3
mph = 1609344/3600000 length time^-1
kph kmph kmh = 1000/3600 length time^-1
n newton = 1 mass length time^-2
j joule = 1 mass length^2 time^-2
w watt = 1 mass length^2 time^-3
v volt = 1 volt
hz hertz = 1 time^-1
° degree deg = 1 degree
rad radian = 1 radian
kb kilobyte = 1/1000 megabyte
mb megabyte = 1 megabyte
gb gigabyte = 1000 megabyte
celsius = 1 celsius
fahrenheit = 1 fahrenheit
k kelvin = 1 kelvin
$ usd us$ dollar buck = 1 dollar
¢ cent penny pennie = 1/100 dollar
nickel = 5/100 dollar
dime = 10/100 dollar
€ eur euro = 1 euro
£ gbp = 1 sterling
₹ inr rs rupee = 1 rupee
¥ jpy yen = 1 yen
person people = 1 person
child children = 1 child
man men = 1 man
woman women = 1 woman
"""


@dataclass(frozen=True)
class Unit:
    """What is measured (names with their exponents, sorted; nouns name themselves) and the scale to its base."""

    dimension: tuple[tuple[str, int], ...]
    scale: Fraction = Fraction(1)

    def agrees(self, other: Unit) -> bool:
        """Return whether both measure one thing; degrees may be of an angle or of either thermometer."""
        if self.dimension == other.dimension:
            return True
        names = {self.dimension, other.dimension}
        return (("degree", 1),) in names and bool(names & {(("celsius", 1),), (("fahrenheit", 1),)})


def _read_table() -> dict[str, Unit]:
    found: dict[str, Unit] = {}
    for line in _TABLE.strip().splitlines():
        names, _, meaning = line.partition(" = ")
        scale, *dimension = meaning.split()
        powers = [part.partition("^") for part in dimension]
        unit = Unit(tuple(sorted((name, int(power or 1)) for name, _, power in powers)), Fraction(scale))
        found |= dict.fromkeys(names.split(), unit)
    return found


def vocabulary(words: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(words.split())


UNITS = MappingProxyType(_read_table())
CURRENCIES = frozenset({"$", "€", "£", "₹", "¥", "USD", "EUR", "GBP", "INR", "JPY", "Rs", "US$"})
LETTERS = frozenset("mgshLNJWV")  # single letters that are units where a number and a space precede them
ATTACHED = vocabulary("cm km mm kg mg ml mL lb lbs oz ft mph am pm AM PM min sec hrs hr cc st nd rd th")
_NO_UNIT = vocabulary(
    "to plus minus over than remainder mod is are was if where when which because since that not at for with "
    "from by less_than or and R r base"
)
FILLERS = vocabulary(
    "of a an the more less fewer times left old older total altogether each in_all remaining away long wide "
    "tall high deep apart only own different ways way about integers integer units unit approximately possible"
)
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_RAISED = {"squared": 2, "cubed": 3}
_ORDINAL = re.compile(r"st|nd|rd|th")


def stem(word: str) -> str:
    """Return a noun without case and plural."""
    word = word.casefold()
    if word in UNITS:
        return word
    if len(word) < 3 or word.endswith("ss"):
        return word
    return re.sub(r"ies$", "y", re.sub(r"(?<=[sxz])es$|(?<=[cs]h)es$|(?<!ie)s$", "", word))


def lookup(word: str) -> Unit | None:
    """Return the unit that a word names in the table, singular or plural."""
    return UNITS.get(word.casefold()) or UNITS.get(stem(word))


def of_words(words: Sequence[str]) -> Unit | None:
    """Read what follows a number: words, ``per``, ``/``, ``*``, and exponents written as ``^2``.

    ``None`` if it is no unit but a statement ("to 7", "plus", "remainder 3"). Fillers alone measure nothing.
    """
    powers: Counter[str] = Counter()
    scale, sign, power = Fraction(1), 1, 1
    last: tuple[Unit, int] | None = None
    is_unitless = True
    before = ""
    for word in words:
        lower = word.casefold()
        if before == "of" and len(word) == 1 and lower != "a":
            return None
        if lower == "in" and before and before not in (*POWERS, "per", "/", "."):
            break  # "7 dollars in change": where, not inches
        before = lower
        if lower in _NO_UNIT or word == "R":
            return None
        if lower in ("per", "/"):
            sign = -1
        elif lower in POWERS:
            power = POWERS[lower]
        elif word.startswith("^") or lower in _RAISED:
            if last is None:
                return None
            extra = (_RAISED.get(lower) or int(word[1:])) - 1
            unit, at = last
            scale *= unit.scale ** (at * extra)
            powers.update({name: count * at * extra for name, count in unit.dimension})
            last = None
        elif word in ("*", "-", ".") or (lower in FILLERS and (not lower.startswith("unit") or len(words) == 1)):
            continue
        elif not _ORDINAL.fullmatch(lower):
            unit = lookup(word) or Unit(((stem(word), 1),))
            last = unit, sign * power
            scale *= unit.scale ** (sign * power)
            powers.update({name: count * sign * power for name, count in unit.dimension})
            power, is_unitless = 1, False
    dimension = tuple(sorted((name, count) for name, count in powers.items() if count))
    return NOTHING if is_unitless or not dimension else Unit(dimension, scale)


NOTHING = Unit(())
