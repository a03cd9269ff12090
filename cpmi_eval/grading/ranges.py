"""Sets of real numbers as disjoint ranges: intervals, unions, inequalities in one unknown, a line without points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from cpmi_eval.grading.numeric import FINE, Evaluator, UndefinedError
from cpmi_eval.grading.values import Value

Edge: TypeAlias = tuple[Any, int]  # a number of the line, and -1, 0 or 1 for just below it, at it, just above it
Range: TypeAlias = tuple[Edge, Edge]  # from, to; both included

_LOW: Edge = (-FINE.inf, 1)
_HIGH: Edge = (FINE.inf, -1)
_ROUNDING = 1e-40


def ranges(value: Value) -> list[Range] | None:
    """Return the ranges that ``value`` is made of, in order; ``None`` if it is no set of numbers.

    Raises:
        UndefinedError, UndecidableError: a bound has no value.
    """
    if value.kind == "reals":
        return [(_LOW, _HIGH)]
    if value.kind == "set":
        return None if not all(map(_is_number, value.parts)) else _united([_point(part) for part in value.parts])
    if value.kind == "tuple" and len(value.parts) == 2 and all(map(_is_number, value.parts)):
        low, high = map(_number, value.parts)
        return _united([((low, value.name[0] == "("), (high, -(value.name[1] == ")")))])
    if value.kind == "relation":
        return _of_relation(value)
    if value.kind in ("union", "intersection", "difference") or (value.kind == "list" and value.name == "or"):
        parts = [ranges(part) for part in value.parts]
        sets = [part for part in parts if part is not None]
        if len(sets) < len(parts):
            return None
        if value.kind == "intersection":
            return _complement(_united([one for part in sets for one in _complement(part)]))
        if value.kind == "difference":
            return _complement(_united([*_complement(sets[0]), *sets[1]]))
        return _united([one for part in sets for one in part])
    return None


def equal(left: Sequence[Range], right: Sequence[Range]) -> bool:
    """Return whether two sets of numbers are one."""
    return len(left) == len(right) and all(
        one[1] == other[1] and _near(one[0], other[0])
        for pair in zip(left, right, strict=True)
        for one, other in zip(*pair, strict=True)
    )


def _near(a: Any, b: Any) -> bool:
    return bool(a == b or (FINE.isfinite(a - b) and abs(a - b) <= _ROUNDING * max(abs(a), abs(b))))


def _is_number(value: Value) -> bool:
    return value.is_constant and value.kind not in ("tuple", "set", "list", "text", "quantity", "percent", "matrix")


def _number(value: Value) -> Any:
    evaluator = Evaluator(FINE, 0)
    number = FINE.convert(evaluator.real(evaluator.value(value)))
    if FINE.im(number) != 0:
        raise UndefinedError
    return FINE.re(number)


def _point(value: Value) -> Range:
    number = _number(value)
    return (number, 0), (number, 0)


def _of_relation(value: Value) -> list[Range] | None:
    """Read ``x < 3``, ``2 <= x``, ``0 < x < 5``, ``x != 2``: one symbol, bounds that are numbers."""
    names, parts = value.name.split(), value.parts
    at = next((place for place, part in enumerate(parts) if part.kind == "symbol"), None)
    if at is None or len(parts) > 3 or not all(_is_number(part) for place, part in enumerate(parts) if place != at):
        return None
    if names == ["!="]:
        return _complement([_point(parts[1 - at])])
    if not set(names) <= {"<", "<="} or (len(parts) == 3 and at != 1):
        return None
    low, high = _LOW, _HIGH
    if at:
        low = _number(parts[at - 1]), int(names[at - 1] == "<")
    if at + 1 < len(parts):
        high = _number(parts[at + 1]), -int(names[at] == "<")
    return _united([(low, high)])


def _united(found: Sequence[Range]) -> list[Range]:
    """Sort, drop what is empty and join what touches."""
    joined: list[Range] = []
    for low, high in sorted(one for one in found if one[0] <= one[1]):
        if joined and low <= (joined[-1][1][0], joined[-1][1][1] + 1):
            joined[-1] = joined[-1][0], max(joined[-1][1], high)
        else:
            joined.append((low, high))
    return joined


def _complement(found: Sequence[Range]) -> list[Range]:
    edges = [(-FINE.inf, 0), *(edge for one in found for edge in one), (FINE.inf, 0)]
    holes = [((low[0], low[1] + 1), (high[0], high[1] - 1)) for low, high in list(pairwise(edges))[::2]]
    return [(low, high) for low, high in holes if low <= high]
