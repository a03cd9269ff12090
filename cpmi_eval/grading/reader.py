r"""Answers: lists of relations between sets, ratios and quantities; what cannot be read as these is text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from cpmi_eval.grading import units
from cpmi_eval.grading.expressions import FUNCTIONS, INFINITY, RELATIONS, SEPARATORS, SET_OPERATIONS, Expressions
from cpmi_eval.grading.notation import Token, has_text, tidy, tokens
from cpmi_eval.grading.spoken import SCALES, names_number, share
from cpmi_eval.grading.units import Unit, vocabulary
from cpmi_eval.grading.values import UnreadableError, Value, number

_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*(?:([ap])\s*\.?\s*m\b\s*\.?)?", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+(?:[-'.,/() \s]+[^\W\d_]+)*[.)]*|\([^\W\d_]+\)")
_PLAIN_WORDS = vocabulary("yes no none true false even odd left right up down dne")


def read(answer: str) -> Value:
    r"""Read an answer; what cannot be read as mathematics is text.

    Raises:
        UndecidableError: it nests too deep, or is a sum, integral or limit, which are not evaluated.
    """
    text = tidy(answer)
    clock = _CLOCK.fullmatch(text)
    if clock and (clock[2] or clock[3]) and int(clock[1]) < 25:
        return _clock(int(clock[1]), int(clock[2] or 0), clock[3] or "")
    found = tokens(text)
    if text.casefold() in ("all real numbers", "all reals", "the real numbers", "real numbers"):
        return Value("reals")
    if re.fullmatch(r"no (?:real )?solutions?", text, re.IGNORECASE):
        return Value("set")
    if not _is_verbal(text):
        try:
            return _Answers(found).answer()
        except UnreadableError:
            pass
    return Value("text", name=_said(text, found))


def words(answer: str) -> str | None:
    r"""Return a verbal answer (``\text{Tuesday}``, ``yes``) without LaTeX, else ``None``."""
    text = tidy(answer)
    return text if _is_verbal(text) or (has_text(answer) and _WORDS.fullmatch(text)) else None


def _is_verbal(text: str) -> bool:
    """Whether the text is words, none of which stand for a number or a letter of the alphabet."""
    if not _WORDS.fullmatch(text):
        return False
    found = [word.casefold() for word in re.findall(r"[^\W\d_]+", text)]
    if len(found[0]) == 1 and found[0] not in "ai":
        return False  # "x units"
    if any(map(names_number, found)) or text in INFINITY:
        return False
    return any(len(word) > 3 or word in _PLAIN_WORDS for word in found) and not set(FUNCTIONS) & set(found)


def _said(text: str, found: Sequence[Token]) -> str:
    """Return a normal form of text: of words without case and punctuation, those of a list in order."""
    if re.search(r"\d|\\", text):
        return " ".join(token.text for token in found if token.text not in (",", "st", "nd", "rd", "th"))
    items = re.split(r",|\band\b|&", text.casefold())
    return ", ".join(sorted(filter(None, (" ".join(re.findall(r"[^\W_]+|[^\w\s.()]", item)) for item in items))))


def _clock(hour: int, minute: int, half: str) -> Value:
    if not half and (hour > 12 or hour == 0):
        half = "a" if hour % 24 == 0 else "p"
    return Value("clock", name=f"{half.lower()}m", number=Fraction(60 * (hour % 12) + minute))


class _Answers(Expressions):
    def answer(self) -> Value:
        while self.peek() in (r"\therefore", "=", r"\approx"):
            self.at += 1
        found = self.items()
        if self.at < len(self.tokens):
            raise UnreadableError
        return found

    def items(self) -> Value:
        """Read a list up to a closing bracket; what is alone is no list."""
        found, joints = [self.relation()], set()
        while self.peek().casefold() in SEPARATORS:
            while self.peek().casefold() in SEPARATORS:
                joints.add(SEPARATORS[self.take().casefold()])
            found.append(self.relation())
        return found[0] if len(found) == 1 else Value("list", tuple(found), *(joints if len(joints) == 1 else ()))

    def relation(self) -> Value:
        parts, names = [self.ratio()], []
        while self.peek() in RELATIONS:
            names.append(RELATIONS[self.take()])
            parts.append(self.ratio())
        return parts[0] if not names else Value("chain", tuple(parts), " ".join(names))

    def ratio(self) -> Value:
        parts = [self.operation()]
        while self.peek() == ":":
            self.at += 1
            parts.append(self.operation())
        return parts[0] if len(parts) == 1 else Value("ratio", tuple(parts))

    def operation(self) -> Value:
        left = self.quantity()
        while self.peek() in SET_OPERATIONS:
            kind = SET_OPERATIONS[self.take()]
            left = Value(kind, (left, self.quantity()))
        return left

    def quantity(self) -> Value:
        """Read an expression with what follows it in words: a scale, a percent sign, a unit."""
        self.begin_quantity()
        left = self.sum()
        currency = self.currency
        left = self.scaled(left)
        sign, inner = (left.kind == "neg", left.parts[0]) if left.kind == "neg" else (False, left)
        if inner.kind == "°":
            angle = Value("neg", inner.parts) if sign else inner.parts[0]
            return Value("quantity", (angle,), unit=units.UNITS["°"])
        if self.peek() == "%" or self.peek().casefold() in ("percent", "pct", "percentage"):
            self.at += 1
            return Value("percent", (left,), unit=self.unit(left))
        unit = self.unit(left)
        if currency is not None and unit != currency:
            unit = currency if unit is None else Unit(*_product(currency, unit))
        if unit is None:
            return left
        found = Value("quantity", (left,), unit=unit)
        return self.compound(found) if currency is None else found

    def compound(self, left: Value) -> Value:
        """Add a smaller unit of the same kind: ``5 ft 6 in``, ``2 hours and 30 minutes``."""
        start = self.at
        self.at += self.peek().casefold() in ("and", ",")
        if self.token().number is not None and left.unit is not None:
            right = self.quantity()
            if right.unit is not None and right.unit.dimension == left.unit.dimension:
                if right.unit.scale < left.unit.scale:
                    parts = (
                        Value("*", (side.parts[0], number(side.unit.scale))) for side in (left, right) if side.unit
                    )
                    return Value("quantity", (Value("+", tuple(parts)),), unit=Unit(left.unit.dimension))
        self.at = start
        return left

    def scaled(self, left: Value) -> Value:
        while True:
            word = self.peek().casefold()
            following = self.peek(1).casefold()
            part = share(word)
            if word in SCALES and left.is_constant:
                left = Value("*", (left, number(SCALES[word])))
            elif part is not None and left.is_constant:
                left = Value("*", (left, Value("number", number=part)))
            elif word in ("squared", "cubed") and left.kind != "quantity":
                left = Value("^", (left, number(2 if word == "squared" else 3)))
            elif word == "factorial":
                left = Value("!", (left,))
            elif word == "and" and following in ("a", "an", "one") and (extra := share(self.peek(2).casefold())):
                self.at += 2
                left = Value("+", (left, Value("number", number=extra)))
            else:
                return left
            self.at += 1

    def unit(self, left: Value) -> Unit | None:
        """Take the unit that follows, if there is one: up to the end or the next item of a list."""
        found = self.unit_ahead(left)
        if found is None:
            return None
        unit, self.at = found
        return unit if unit.dimension else None


def _product(left: Unit, right: Unit) -> tuple[tuple[tuple[str, int], ...], Fraction]:
    powers = dict(left.dimension)
    for name, power in right.dimension:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power)), left.scale * right.scale
