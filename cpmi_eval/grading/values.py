r"""What an answer can be, and what an expression is worth.

A :class:`Value` is a small tree: exact numbers and symbols, the terms of expressions above them, and above those what
answers are made of. An expression is worth a fraction where it is rational, else a number of 30 and one of 60 digits,
at fixed points; two are equal if they are at every point. Points depend on the names of symbols alone and every
operation is bounded in the size of its numbers, so a result is the same on any machine at any load.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import combinations, permutations
from typing import Any, TypeAlias

from mpmath import MPContext

from cpmi_eval.grading.units import UNITS, Unit

Number: TypeAlias = Any  # Fraction, or a real or complex number of a context

MAX_BITS = 1 << 14  # of a fraction; what is larger goes on as a floating-point number
MAX_EXPONENT = 10**12
MAX_ARGUMENT = 10**12  # of functions: what is larger would need more digits than there are
MAX_FACTORIAL = 2000
POINTS = 4


class UndecidableError(Exception):
    """More work than a comparison may take."""


class UndefinedError(ArithmeticError):
    """Division by zero, or something that has no value."""


@dataclass(frozen=True, slots=True)
class Value:
    r"""A node. ``kind`` says what it is made of ``parts``; ``name``, ``number`` and ``unit`` are of the kinds below.

    number: ``number``, exact. symbol, constant: ``name``. infinity. dots.
    Terms: ``+ * / inv neg ^ ! ° pm mp abs floor ceil sqrt binom det``, and apply: the function ``name`` of the parts.
    quantity: one part and its ``unit``; percent: one part. numeral: digits and base in ``name``. clock: ``name``.
    list, tuple, set: parts; a tuple's brackets are its ``name``. matrix: parts, each a row. reals: all of them.
    union, intersection, difference: two parts. ratio: parts. chain: parts, relations in ``name``.
    text: ``name``.
    """

    kind: str
    parts: tuple[Value, ...] = ()
    name: str = ""
    number: Fraction = Fraction(0)
    unit: Unit | None = None

    def walk(self) -> Iterator[Value]:
        """Yield this node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def is_constant(self) -> bool:
        """Whether no symbol occurs in it."""
        return all(node.kind != "symbol" for node in self.walk())


def number(value: Fraction | int) -> Value:
    """Return an exact number."""
    return Value("number", number=Fraction(value))


def exact(node: Value) -> Fraction | None:
    """Return the value of a constant that is rational and of moderate size, else ``None``."""
    try:
        value = Evaluator(ROUGH, 0).value(node) if node.is_constant else None
    except UndefinedError:
        return None
    return value if isinstance(value, Fraction) else None


def same(left: Value, right: Value) -> bool:
    """Return whether two expressions have the same value at every point.

    Raises:
        UndefinedError: one of them has no value, or is no expression.
        UndecidableError: they are too large, or rational and too close to tell apart.
    """
    if left.is_constant and right.is_constant:
        return _same_at(left, right, 0) is not False
    found = [_same_at(left, right, point) for point in range(POINTS)]
    if set(found) == {None} or any(node.name == "i" for side in (left, right) for node in side.walk()):
        found = [_same_at(left, right, point, is_complex=True) for point in range(POINTS)]
    return False not in found


def _same_at(left: Value, right: Value, point: int, is_complex: bool = False) -> bool | None:
    """Return whether two expressions agree at a point; ``None`` if one is not real there and that is not asked for."""
    rough, fine = Evaluator(ROUGH, point), Evaluator(FINE, point)
    a, b = rough.value(left), rough.value(right)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = rough.real(a), rough.real(b)
    if not is_complex and point and (ROUGH.im(a) or ROUGH.im(b)):
        return None
    if ROUGH.isinf(a) or ROUGH.isinf(b):
        return bool(a == b)
    if abs(a - b) > 1e-8 * max(abs(a), abs(b)) and max(abs(a), abs(b)) > 1e-8:
        return False
    x, y = fine.real(fine.value(left)), fine.real(fine.value(right))
    # What is zero but for rounding shrinks with the precision; what is small does not.
    is_same = abs(x - y) <= 1e-45 * max(abs(x), abs(y)) or abs(x - y) < 1e-20 * FINE.mpf(abs(a - b))
    if is_same and (rough.is_rounded or fine.is_rounded):
        raise UndecidableError
    return bool(is_same)


def factor(left: Value, right: Value) -> float | None:
    """Return the real constant that ``left`` is times ``right``, if there is one.

    Raises:
        UndefinedError, UndecidableError: as for :func:`same`.
    """
    found = []
    for point in range(POINTS):
        evaluator = Evaluator(FINE, point)
        a, b = evaluator.all((left, right))
        if a == 0 or b == 0 or evaluator.is_rounded:
            raise UndecidableError
        found.append(a / b)
    if all(isinstance(one, Fraction) for one in found):
        return float(found[0]) if len(set(found)) == 1 else None
    first, *others = (Evaluator(FINE, 0).real(one) for one in found)
    return float(FINE.re(first)) if all(abs(one - first) <= 1e-40 * abs(first) for one in others) else None


# --- evaluation -------------------------------------------------------------------------------------------------


def _context(digits: int) -> Any:
    context = MPContext()
    context.dps = digits
    return context


ROUGH, FINE = _context(30), _context(60)


@lru_cache(maxsize=1 << 12)
def _coordinate(name: str, point: int) -> Fraction:
    """Return a fraction between 1/4 and 2; all are positive at the first two points, negative at the third."""
    draw = random.Random(f"{name} {point}")
    sign = (1, 1, -1, draw.choice((1, -1)))[point]
    return sign * Fraction(draw.randrange(260, 2000), 1009)


class Evaluator:
    """Evaluates at one point with one precision. ``is_rounded``: a rational number was too large to stay exact."""

    def __init__(self, context: Any, point: int) -> None:
        self.context = context
        self.point = point
        self.is_rounded = False
        self.in_angle = False

    def value(self, node: Value) -> Number:
        """Return what ``node`` is worth.

        Raises:
            UndefinedError: it has no value.
            UndecidableError: its numbers are too large.
        """
        if node.kind not in _KINDS:
            raise UndefinedError
        try:
            value = self.bounded(_KINDS[node.kind](self, node))
        except (ZeroDivisionError, ValueError, OverflowError, TypeError) as error:
            raise UndefinedError from error
        if node.kind not in ("infinity", "neg") and self.context.isinf(value):
            raise UndefinedError  # there is no arithmetic with infinity
        return value

    def bounded(self, value: Number) -> Number:
        """Return a value that is fit to go on with: not too long, and a number."""
        if isinstance(value, int):
            return Fraction(value)
        if isinstance(value, Fraction):
            if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
                self.is_rounded = True
                return self.real(value)
        elif self.context.isnan(value):
            raise UndefinedError
        return value

    def real(self, value: Number) -> Number:
        """Return a value as one of the context's."""
        return self.context.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value

    def all(self, nodes: tuple[Value, ...]) -> list[Number]:
        """Return the values of nodes, all exact or none."""
        values = [self.value(part) for part in nodes]
        is_exact = all(isinstance(value, Fraction) for value in values)
        return values if is_exact else [self.real(value) for value in values]

    def folded(self, compute: Callable[[Number, Number], Number], node: Value) -> Number:
        """Return the values of the parts, joined by an operation."""
        return reduce(lambda left, right: self.bounded(compute(left, right)), self.all(node.parts))

    def power(self, base: Number, exponent: Number) -> Number:
        """Return a power: exact while it is short, a real root of a negative number where there is one."""
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            whole = int(exponent)
            if isinstance(base, Fraction):
                size = max(base.numerator.bit_length(), base.denominator.bit_length())
                if size * abs(whole) <= 2 * MAX_BITS or base in (0, 1, -1):
                    return base ** (whole if base not in (1, -1) else whole % 2)
                self.is_rounded = True
            if abs(whole) > MAX_EXPONENT:
                raise UndecidableError
            return self.real(base) ** whole
        if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator < 100:
            return self.power(self.root(base, exponent.denominator), Fraction(exponent.numerator))
        base, exponent = self.real(base), self.real(exponent)
        if base == 0:
            return base if self.context.re(exponent) > 0 else 1 / base
        if abs(exponent * self.context.log(abs(base))) > MAX_EXPONENT:
            raise UndecidableError
        return base**exponent

    def root(self, base: Number, degree: int) -> Number:
        """Return the real root where there is one, exactly where it is rational."""
        if self.context.im(self.real(base)) == 0 and self.context.re(self.real(base)) < 0 and degree % 2:
            return -self.root(-base if isinstance(base, Fraction) else -base.real, degree)
        if isinstance(base, Fraction):
            top, bottom = (_whole_root(part, degree) for part in (base.numerator, base.denominator))
            if top is not None and bottom is not None:
                return Fraction(top, bottom)
        base = self.real(base)
        return self.context.sqrt(base) if degree == 2 else base ** (self.context.one / degree)

    def apply(self, node: Value) -> Number:
        """Return the value of a function."""
        if several := _OF_SEVERAL.get(node.name):
            values = [self.value(part) for part in node.parts]
            if any(not isinstance(value, Fraction) or value.denominator > 1 for value in values):
                raise UndefinedError
            return Fraction(several(*map(int, values)))
        was, self.in_angle = self.in_angle, node.name in ("sin", "cos", "tan", "cot", "sec", "csc")
        argument = self.real(self.value(node.parts[0]))
        self.in_angle = was
        if abs(argument) > MAX_ARGUMENT:
            raise UndecidableError
        if node.name in ("log", "ln"):
            default = self.context.e if node.name == "ln" else self.context.mpf(10)
            base = self.real(self.value(node.parts[1])) if len(node.parts) > 1 else default
            return self.context.log(argument) / self.context.log(base)
        return getattr(self.context, node.name.replace("arc", "a"))(argument)


_OF_SEVERAL: Mapping[str, Callable[..., int]] = {"gcd": math.gcd, "lcm": math.lcm, "max": max, "min": min}


def _whole_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(max(value, 0))
    else:
        root = round(value ** (1 / degree)) if 0 <= value < 1e15 else 0
    return root if root**degree == value else None


def _factorial(self: Evaluator, node: Value) -> Number:
    value = self.value(node.parts[0])
    is_whole = isinstance(value, Fraction) and value.denominator == 1
    if is_whole and value <= MAX_FACTORIAL:
        return Fraction(math.factorial(int(value)))
    if abs(value) > MAX_ARGUMENT:
        raise UndecidableError
    self.is_rounded |= is_whole
    return self.context.factorial(self.real(value))


def _binomial(self: Evaluator, node: Value) -> Number:
    top, bottom = self.all(node.parts)
    if abs(top) > MAX_FACTORIAL or abs(bottom) > MAX_FACTORIAL:
        raise UndecidableError
    if not isinstance(bottom, Fraction) or bottom.denominator > 1 or bottom < 0:
        return self.context.binomial(self.real(top), self.real(bottom))
    return reduce(lambda value, step: self.bounded(value * (top - step) / (step + 1)), range(int(bottom)), Fraction(1))


def _degrees(self: Evaluator, node: Value) -> Number:
    if node.unit not in (None, UNITS["°"]):
        raise UndefinedError
    value = self.value(node.parts[0])
    return self.real(value) * self.context.pi / 180 if self.in_angle else value


def _constant(self: Evaluator, node: Value) -> Number:
    return self.context.mpc(0, 1) if node.name == "i" else +getattr(self.context, node.name)


def _root(self: Evaluator, node: Value) -> Number:
    base, degree = (self.value(part) for part in node.parts)
    if isinstance(degree, Fraction) and degree.denominator == 1 and 0 < degree < MAX_ARGUMENT:
        return self.root(base, int(degree))
    return self.power(base, 1 / degree)


def _rounded(self: Evaluator, node: Value) -> Number:
    value = self.value(node.parts[0])
    return Fraction(int(getattr(math if isinstance(value, Fraction) else self.context, node.kind)(value)))


def _determinant(self: Evaluator, node: Value) -> Number:
    """Sum over permutations, of at most five rows."""
    size = len(node.parts)
    if size > 5 or any(len(row.parts) != size for row in node.parts):
        raise UndefinedError
    cells = self.all(tuple(cell for row in node.parts for cell in row.parts))
    orders = list(permutations(range(size)))
    signs = [(-1) ** sum(a > b for a, b in combinations(order, 2)) for order in orders]
    products = [math.prod(cells[size * row + at] for row, at in enumerate(order)) for order in orders]
    return sum(map(operator.mul, signs, products))


_KINDS: Mapping[str, Callable[[Evaluator, Value], Number]] = {
    "number": lambda self, node: node.number,
    "symbol": lambda self, node: _coordinate(node.name, self.point),
    "constant": _constant,
    "infinity": lambda self, node: self.context.inf,
    "neg": lambda self, node: -self.value(node.parts[0]),
    "inv": lambda self, node: 1 / self.value(node.parts[0]),
    "+": lambda self, node: self.folded(operator.add, node),
    "*": lambda self, node: self.folded(operator.mul, node),
    "/": lambda self, node: self.folded(operator.truediv, node),
    "^": lambda self, node: self.power(*(self.value(part) for part in node.parts)),
    "sqrt": _root,
    "abs": lambda self, node: abs(self.value(node.parts[0])),
    "floor": _rounded,
    "ceil": _rounded,
    "!": _factorial,
    "binom": _binomial,
    "°": _degrees,
    "quantity": _degrees,
    "det": _determinant,
    "apply": Evaluator.apply,
}
