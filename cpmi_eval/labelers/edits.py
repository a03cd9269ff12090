r"""Edits of the numbers in an answer: each number, fraction and root in it, moved a little, the rest kept verbatim.

The rules follow Lee, Hong and Lee (ACL 2026, arXiv 2604.10660): numbers move by 2, 10 or a tenth or are rounded,
parts of fractions by 1 or 2, radicands by up to 4, and signs flip. Unlike there, an edit happens *inside* the answer,
so that a negative keeps the units, separators, decimals and LaTeX of its reference and only its value tells it apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple

_MAX_EDITS = 12
ENOUGH = 4

# --- where an answer can be edited ------------------------------------------------------------------------------

_THOUSANDS = r"[1-9]\d{{0,2}}(?:(?:{separators})\d{{3}})+(?!\d)"
_SAFE_SEPARATORS = r"\{,\}|,\\!\s*|\\,"


def _number_pattern(separators: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{_THOUSANDS.format(separators=separators)}|\d+)(?:\.\d+)?|\.\d+")


_NUMBER = _number_pattern(_SAFE_SEPARATORS + "|,")
_NUMBER_IN_LIST = _number_pattern(_SAFE_SEPARATORS)
_INTEGER = re.compile(r"-?\d+")
_DIGIT = re.compile(r"\d")
_BARE_ARGUMENT = re.compile(r"\\[A-Za-z]+|.", re.DOTALL)
_SLASHED = re.compile(r"(\d+)(\s*/\s*)(\d+)(?![\d.,/])")
_FRAC = re.compile(r"\\[dtc]?frac(?![A-Za-z])")
_ROOT = re.compile(r"\\sqrt(?![A-Za-z])")
_SCRIPT = re.compile(r"[\^_]")
_OPAQUE = re.compile(
    r"\\(?:begin|end)\s*\{[^{}]*\}|\\(?:text[a-z]*|mbox|mathrm|operatorname)\s*\{[^{}]*\}(?:\s*\^\s*\{?\d\}?)?"
    r"|\\[A-Za-z]+|\\."
)
_OPEN_BEFORE = re.compile(
    r"(?:^|[(\[,=&:<>|]|\\\{|\\\\|\\(?:[lg]eq?|lt|gt|in|cup|to|neq?)|\\(?:text|mbox|begin)\s*\{[^{}]*\})$"
)
_OPERATOR_BEFORE = re.compile(r"([-+])\s*$")
_EQUATION_BEFORE = re.compile(r"\w.*\w\s*=\s*$", re.DOTALL)
_POWER_AFTER = re.compile(r"\s*\^\s*\{?[\dA-Za-z-]")
_TIMES_BEFORE = re.compile(r"(?:\\times|\\cdot|[×*·])\s*$")
_NOT_AFTER_ZERO = re.compile(r"\s*(?:\\[dtc]?frac|[-+/])")
_UNIT_AFTER = re.compile(r"(?:[cmk]m|kg|mg|m[lL]|lbs?|oz|ft|mph)(?![A-Za-z])")
_FACTOR_AFTER = re.compile(
    r"\s*(?:\\(?:sqrt|pi|theta|alpha|beta|sin|cos|tan|log|ln)(?![A-Za-z])|\((?=.*[A-Za-z])|[A-Za-z](?![A-Za-z]{2}))"
)


class Edit(NamedTuple):
    """Replace ``answer[start:end]`` by ``text``."""

    start: int
    end: int
    text: str

    def apply(self, answer: str) -> str:
        """Make this edit."""
        return answer[: self.start] + self.text + answer[self.end :]


class _Argument(NamedTuple):
    """The argument of a LaTeX command: ``start``/``end`` enclose its content; ``bare`` means it has no braces."""

    start: int
    end: int
    bare: bool

    @property
    def after(self) -> int:
        return self.end if self.bare else self.end + 1


def _argument(answer: str, position: int) -> _Argument | None:
    while position < len(answer) and answer[position].isspace():
        position += 1
    if position == len(answer):
        return None
    if answer[position] != "{":
        bare = _BARE_ARGUMENT.match(answer, position)
        return _Argument(position, bare.end(), bare=True) if bare else None
    depth = 0
    for end in range(position, len(answer)):
        depth += (answer[end] == "{") - (answer[end] == "}")
        if depth == 0:
            return _Argument(position + 1, end, bare=False)
    return None


class _Editor:
    """Walks once over an answer and collects, for every number, fraction and root in it, the edits of that place."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.sites: list[list[Edit]] = []
        self.exponents: list[list[Edit]] = []
        self.number = _NUMBER_IN_LIST if re.search(r"[(\[{]\s*[-\d.]", answer.replace("{,}", "")) else _NUMBER
        self.signed = ":" not in answer

    def walk(self, position: int, end: int, nonzero: bool = False) -> None:
        """Collect the edits from ``position`` to ``end``; ``nonzero``: a lone number here is a denominator."""
        while position < end:
            position = self._step(position, end, nonzero)

    def _step(self, position: int, end: int, nonzero: bool) -> int:
        if match := _FRAC.match(self.answer, position):
            return self._fraction(position, match.end())
        if match := _ROOT.match(self.answer, position):
            return self._root(position, match.end())
        if match := _SCRIPT.match(self.answer, position):
            return self._script(position)
        if match := _OPAQUE.match(self.answer, position):
            return match.end()
        if match := _SLASHED.match(self.answer, position, end):
            self._add_fraction(position, match.end(), match.group(1), match.group(3), "", match.group(2), "")
            return match.end()
        if match := self.number.match(self.answer, position, end):
            self._number(match, bare=False, nonzero=nonzero)
            return match.end()
        return position + 1

    def _fraction(self, start: int, position: int) -> int:
        top = _argument(self.answer, position)
        bottom = _argument(self.answer, top.after) if top else None
        if top is None or bottom is None:
            return position
        over, under = self._content(top), self._content(bottom)
        if _INTEGER.fullmatch(over) and _INTEGER.fullmatch(under):
            self._add_fraction(start, bottom.after, over, under, self.answer[start:position] + "{", "}{", "}")
        else:
            self._inner(top, nonzero=False)
            self._inner(bottom, nonzero=True)
            self.sites.append(self._negation(start))
        return bottom.after

    def _root(self, start: int, position: int) -> int:
        if self.answer.startswith("[", position):
            position = self.answer.find("]", position) + 1 or len(self.answer)
        radicand = _argument(self.answer, position)
        if radicand is None:
            return position
        content = self._content(radicand)
        if not content.isascii() or not content.isdigit():
            self._inner(radicand, nonzero=False)
            return radicand.after
        # Squares are left out, since nobody leaves the root of a square standing.
        near = (int(content) + step for step in (1, -1, 2, -2, 3, -3, 4, -4))
        found = [value for value in near if value > 1 and math.isqrt(value) ** 2 != value]
        self.sites.append([*(self._replaced(radicand, str(value)) for value in found), *self._negation(start)])
        return radicand.after

    def _script(self, position: int) -> int:
        """Move small exponents a little; subscripts name things and stay."""
        argument = _argument(self.answer, position + 1)
        if argument is None:
            return position + 1
        content = self._content(argument)
        if self.answer[position] == "_":
            return argument.after
        if content.isascii() and content.isdigit():
            near = (int(content) + step for step in (1, -1, 2, -2))
            self.exponents.append([self._replaced(argument, str(value)) for value in near if value >= 2])
        else:
            self._inner(argument, nonzero=False)
        return argument.after

    def _inner(self, argument: _Argument, nonzero: bool) -> None:
        if not argument.bare:
            self.walk(argument.start, argument.end, nonzero)
        elif match := _DIGIT.match(self.answer, argument.start):
            self._number(match, bare=True, nonzero=nonzero)

    def _content(self, argument: _Argument) -> str:
        return self.answer[argument.start : argument.end].strip()

    def _replaced(self, argument: _Argument, text: str) -> Edit:
        needs_braces = argument.bare and len(text) > 1
        return Edit(argument.start, argument.end, f"{{{text}}}" if needs_braces else text)

    def _number(self, match: re.Match[str], bare: bool, nonzero: bool) -> None:
        form = Form.of(match.group())
        minus = None if bare else self._unary_minus(match.start())
        start = match.start() if minus is None else minus
        before, after = self.answer[:start], self.answer[match.end() :]
        is_base = bool(_POWER_AFTER.match(after))
        if is_base and match.group() == "10" and _TIMES_BEFORE.search(before):
            return  # scientific notation
        if not form.value and _EQUATION_BEFORE.search(before):
            return  # "2x - y = 0" says that only by convention; "b = 0" says it
        is_factor = bool(_FACTOR_AFTER.match(after)) and not _UNIT_AFTER.match(after)
        signed = self.signed and not (bare or nonzero or is_base) and (minus is not None or self._is_open(start))
        excluded = {-1, 0, 1} if nonzero or is_base else set()
        if is_factor or not signed or _NOT_AFTER_ZERO.match(after):
            excluded.add(0)
        edits = []
        for value in form.nearby(-form.value if minus is not None else form.value):
            if value in excluded or (value < 0 and (not signed or form.width)):
                continue
            text = form.write(value, implicit_one=is_factor)
            # A coefficient of one goes together with the space after it.
            gap = len(after) - len(after.lstrip()) if not text.strip("-") else 0
            edits.append(Edit(start, match.end() + gap, f"{{{text}}}" if bare and len(text) > 1 else text))
        operator = _OPERATOR_BEFORE.search(before)
        self.sites.append(edits + (self._negation(start) if operator else []))

    def _add_fraction(self, start: int, end: int, over: str, under: str, head: str, middle: str, tail: str) -> None:
        pairs = [(str(top), str(bottom)) for top, bottom in _fractions(int(over), int(under))]
        if over.startswith("-"):
            pairs.append((over[1:], under))
        edits = [Edit(start, end, f"{head}{top}{middle}{bottom}{tail}") for top, bottom in pairs]
        self.sites.append(edits if over.startswith("-") else [*edits, *self._negation(start)])

    def _is_open(self, position: int) -> bool:
        """Whether a minus sign at ``position`` would be unary."""
        return bool(_OPEN_BEFORE.search(self.answer[:position].rstrip()))

    def _unary_minus(self, position: int) -> int | None:
        operator = _OPERATOR_BEFORE.search(self.answer[:position])
        if operator and operator.group(1) == "-" and self._begins(operator.start()):
            return operator.start()
        return None

    def _begins(self, position: int) -> bool:
        """Whether a term begins here: where a minus sign would be unary, or inside braces."""
        return self._is_open(position) or self.answer[:position].rstrip().endswith("{")

    def _negation(self, position: int) -> list[Edit]:
        """Flip the sign of the term that starts at ``position``, if it starts a term."""
        operator = _OPERATOR_BEFORE.search(self.answer[:position])
        if operator is None:
            return [Edit(position, position, "-")] if self.signed and self._is_open(position) else []
        start = operator.start()
        if self._begins(start):
            return [Edit(start, position, "")]
        return [Edit(start, start + 1, "-" if operator.group(1) == "+" else "+")]


# --- nearby values ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """How a number is written, so that another can be written alike; ``width`` is that of one with leading zeros."""

    value: Fraction
    places: int
    separator: str
    leading_zero: bool
    width: int

    @classmethod
    def of(cls, text: str) -> Form:
        """Read off how a number is written."""
        whole, _, decimals = text.partition(".")
        separator, digits = re.search(r"\D+", whole), re.sub(r"\D", "", whole)
        value, width = Fraction(f"{digits or 0}.{decimals or 0}"), len(digits) * (digits[:1] == "0" and len(digits) > 1)
        return cls(value, len(decimals), separator.group() if separator else "", bool(digits), width)

    def nearby(self, value: Fraction) -> list[Fraction]:
        """Return the edits of ``value`` that this form can express, nearest first.

        A change of sign is easily told from the reference, so it only makes up for missing ones.
        """
        moved = [value + 2, value - 2, value * Fraction(11, 10), value * Fraction(9, 10), value + 10, value - 10]
        if value.denominator > 1:
            moved += [Fraction(whole) for whole in (math.ceil(value), math.floor(value)) if whole]
        rounded = dict.fromkeys(map(self._round, moved))
        nearest = sorted((near for near in rounded if near != value), key=lambda near: abs(near - value))
        same_sign = [near for near in nearest if near * value >= 0]
        opposite = [near for near in nearest if near * value < 0]
        return same_sign + opposite[: max(0, ENOUGH - len(same_sign))]

    def _round(self, value: Fraction) -> Fraction:
        scaled = abs(value) * 10**self.places
        units = math.floor(scaled + Fraction(1, 2))
        return Fraction(units if value >= 0 else -units, 10**self.places)

    def write(self, value: Fraction, implicit_one: bool = False) -> str:
        """Write ``value`` in this form; as a coefficient, one is left out."""
        sign = "-" if value < 0 else ""
        if implicit_one and abs(value) == 1 and not self.places:
            return sign
        whole, rest = divmod(int(abs(value) * 10**self.places), 10**self.places)
        text = f"{whole:,}".replace(",", self.separator) if self.separator else str(whole).zfill(self.width)
        return sign + (text if whole or self.leading_zero else "") + (f".{rest:0{self.places}d}" if self.places else "")


def _fractions(over: int, under: int) -> Iterator[tuple[int, int]]:
    """Yield nearby fractions. Signs and being in lowest terms are kept; whole numbers are left out as giveaways."""
    top, bottom = abs(over), abs(under)
    signs = (-1 if over < 0 else 1), (-1 if under < 0 else 1)
    moves = (1, -1, 2, -2)
    near = [(top + step, bottom) for step in moves] + [(top, bottom + step) for step in moves] + [(bottom, top)]
    for one, other in near:
        divisor = math.gcd(one, other) if math.gcd(top, bottom) == 1 else 1
        if one > 0 and other > divisor:
            yield signs[0] * one // divisor, signs[1] * other // divisor


def number_edits(answer: str) -> list[str]:
    """Return ``answer`` with one number, fraction or root edited at a time, the best edit of every place first.

    Exponents are edited only where there is too little else.
    """
    editor = _Editor(answer)
    editor.walk(0, len(answer))
    found: list[str] = []
    for sites in (editor.sites, editor.exponents):
        if len(found) < ENOUGH:
            edits = [edit for rank in zip_longest(*sites) for edit in rank if edit is not None]
            found += [edit.apply(answer) for edit in edits[:_MAX_EDITS]]
    return found
