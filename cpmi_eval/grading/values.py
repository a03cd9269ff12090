r"""What an answer can be.

A :class:`Value` is a small tree. Its leaves are exact numbers and symbols; above them are the terms of an expression,
and above those what answers are made of: quantities, lists, tuples, sets, intervals, matrices, relations, ratios,
clock times, numerals with a base. What cannot be read to its end is text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from cpmi_eval.grading.units import Unit


@dataclass(frozen=True, slots=True)
class Value:
    r"""A node. ``kind`` says what it is made of ``parts``; ``name``, ``number`` and ``unit`` are of the kinds below.

    number: ``number``, exact. symbol, constant: ``name``. infinity. dots.
    Terms: ``+ * / inv neg ^ ! ° pm mp abs floor ceil sqrt binom det``, and apply: the function ``name`` of the parts.
    quantity: one part and its ``unit``; percent: one part. numeral: digits and base in ``name``. clock: ``name``.
    list, tuple, set: parts; a tuple's brackets are its ``name``. matrix: rows, which are lists. reals: all of them.
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


class UnreadableError(Exception):
    """The text is no mathematics that the reader knows."""


def number(value: Fraction | int) -> Value:
    """Return an exact number."""
    return Value("number", number=Fraction(value))


def many(kind: str, parts: Sequence[Value]) -> Value:
    """Return a sum, product or the like; of one part, that part."""
    return parts[0] if len(parts) == 1 else Value(kind, tuple(parts))
