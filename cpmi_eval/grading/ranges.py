"""Sets of real numbers: two are one if they hold the same of their bounds, of what lies between and of what beyond."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cpmi_eval.grading.values import FINE, Evaluator, UndefinedError, Value

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, "!=": operator.ne}
_NOT_NUMBERS = frozenset({"tuple", "set", "list", "text", "quantity", "percent", "matrix"})
_ROUNDING = 1e-40


def same_set(left: Value, right: Value) -> bool | None:
    """Return whether two sets of real numbers are one; ``None`` if they are not both such sets.

    Raises:
        UndefinedError, UndecidableError: a bound has no value.
    """
    bounds: dict[Value, Any] = {}
    if not (_is_set(left, bounds) and _is_set(right, bounds)):
        return None
    line: list[Any] = []
    for number in sorted(bounds.values()):
        if not line or not _near(line[-1], number):
            line.append(number)
    # Bounds become odd places on the line, what lies between them even ones.
    places = {
        value: 0 if number == -FINE.inf else 2 * len(line) + 2 if number == FINE.inf else 2 * at + 1
        for value, number in bounds.items()
        for at, bound in enumerate(line)
        if _near(bound, number)
    }
    inner = range(2 if -FINE.inf in line else 0, 2 * len(line) + 1 - 2 * (FINE.inf in line))
    return all(_holds(left, place, places) == _holds(right, place, places) for place in inner)


def _near(a: Any, b: Any) -> bool:
    return bool(a == b or (FINE.isfinite(a - b) and abs(a - b) <= _ROUNDING * max(abs(a), abs(b))))


def _is_set(value: Value, bounds: dict[Value, Any]) -> bool:
    """Whether ``value`` is a set of real numbers; its bounds are added to ``bounds``."""
    if value.kind in ("union", "intersection", "difference") or _is_joined(value):
        return all(_is_set(part, bounds) for part in value.parts)
    if value.kind == "relation":
        numbers = [part for part in value.parts if part.kind != "symbol"]
        has_place = len(value.parts) == len(numbers) + 1 and (len(numbers) == 1 or value.parts[1].kind == "symbol")
        if not has_place or len(numbers) > 2 or not set(value.name.split()) <= set(_COMPARISONS):
            return False
    elif value.kind in ("set", "reals") or (value.kind == "tuple" and len(value.parts) == 2):
        numbers = list(value.parts)
    else:
        return False
    if not all(part.is_constant and part.kind not in _NOT_NUMBERS for part in numbers):
        return False
    bounds.update({part: _number(part) for part in numbers})
    return True


def _number(value: Value) -> Any:
    evaluator = Evaluator(FINE, 0)
    number = FINE.convert(evaluator.real(evaluator.value(value)))
    if FINE.im(number) != 0:
        raise UndefinedError
    return FINE.re(number)


def _holds(value: Value, place: int, places: Mapping[Value, int]) -> bool:
    """Return whether what is at ``place`` belongs to a set."""
    if value.kind == "reals":
        return True
    if value.kind == "set":
        return any(place == places[part] for part in value.parts)
    if value.kind == "tuple":
        (low, high), names = value.parts, (value.name[0] == "(", value.name[1] == ")")
        return _chain([places[low], place, places[high]], ["<" if is_open else "<=" for is_open in names])
    if value.kind == "relation":
        return _chain([places.get(part, place) for part in value.parts], value.name.split())
    found = [_holds(part, place, places) for part in value.parts]
    if value.kind == "difference":
        return found[0] and not found[1]
    return all(found) if value.kind == "intersection" or value.name == "and" else any(found)


def _is_joined(value: Value) -> bool:
    """Whether these are bounds joined by "and" or sets joined by "or"."""
    is_bounds = value.name == "and" and all(part.kind == "relation" for part in value.parts)
    return value.kind == "list" and (value.name == "or" or is_bounds)


def _chain(numbers: Sequence[int], names: Sequence[str]) -> bool:
    return all(_COMPARISONS[name](*pair) for name, *pair in zip(names, numbers, numbers[1:], strict=False))
