r"""Decide whether two answers are one: by the same text, as plain numbers, else by what kind of value each is.

A unit may be missing on one side but must not differ; ``5%`` equals both ``5`` and ``0.05``, since problems ask for
either; ``symbol = value`` (either way round) names the value; lists and sets have no order. All else is exact.

Work is bounded, never time: texts in their length and depth, numbers in their size, and nothing loops beyond these.
A verdict is therefore the same on every machine at every load.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from cpmi_eval.grading.notation import tidy, tokens
from cpmi_eval.grading.ranges import same_set
from cpmi_eval.grading.reader import read
from cpmi_eval.grading.units import UNITS, vocabulary
from cpmi_eval.grading.values import UndecidableError, UndefinedError, Value, exact, factor, number, same

MAX_CHARS = 300  # of an answer that is evaluated

_OPPOSITES = tuple(
    tuple(vocabulary(words) for words in group.split("; "))
    for group in (
        "more older; less fewer younger",
        "left; right",
        "up; down",
        "above; below",
        "before; after",
        "north; south; east; west",
        r"\vec \overrightarrow; \overline \bar; \overleftrightarrow; \widehat \hat; \angle; \triangle",
    )
)
_PLAIN = re.compile(r"(-?)0*([0-9]*)(?<=[0-9])(?:\.([0-9]*?)0*)?")
_DECORATION = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\?\$|\\[()\[\]!]|\s+")


def verdict(a: str, b: str) -> bool | None:
    """Return whether two answers are mathematically equal; ``None`` where that cannot be decided in bounded work.

    Symmetric; never raises. Texts of more than 300 characters are equal only as text.
    """
    if a == b or a.strip() == b.strip():
        return True
    if (left := _PLAIN.fullmatch(a)) and (right := _PLAIN.fullmatch(b)):
        return _digits(left) == _digits(right)
    if max(len(a), len(b)) > MAX_CHARS:
        return True if _DECORATION.sub(" ", a).split() == _DECORATION.sub(" ", b).split() else None
    return _verdict(*sorted((a, b)))


def is_number(answer: str) -> bool:
    """Return whether an answer is one rational number, with or without a unit or a percent sign."""
    try:
        found = _form(answer) if len(answer) <= MAX_CHARS else Value("text")
    except UndecidableError:
        return False
    return exact(found.parts[0] if found.kind in ("quantity", "percent") else found) is not None


def _digits(plain: re.Match[str]) -> tuple[str, str, str]:
    """Return sign, digits and decimals of a number, which is exact at any length."""
    sign, whole, decimals = plain.group(1), plain.group(2), plain.group(3) or ""
    return sign if whole or decimals else "", whole, decimals


@lru_cache(maxsize=1 << 16)
def _verdict(a: str, b: str) -> bool | None:
    try:
        if _spelling(a) == _spelling(b):
            return bool(_spelling(a))
        return not _contradict(a, b) and _equal(_form(a), _form(b))
    except UndefinedError:
        return False
    except UndecidableError:
        return None


@lru_cache(maxsize=1 << 14)
def _spelling(answer: str) -> tuple[str, ...]:
    return tuple(token.text for token in tokens(tidy(answer)))


def _contradict(a: str, b: str) -> bool:
    """Return whether two answers say opposite things in words or marks that their values leave out."""
    one, other = ({word.casefold() for word in _spelling(answer)} for answer in (a, b))
    return any(
        group[at] & one and not group[at] & other and any(other & rest for rest in group[:at] + group[at + 1 :])
        for group in _OPPOSITES
        for at in range(len(group))
    )


@lru_cache(maxsize=1 << 14)
def _form(answer: str) -> Value:
    """Return the normal form of an answer; :class:`UndecidableError` as for :func:`read`."""
    try:
        return _normal(read(answer))
    except UndefinedError:
        return Value("text", name=" ".join(_spelling(answer)))


# --- normal forms -----------------------------------------------------------------------------------------------


def _normal(value: Value) -> Value:
    """Return ``value`` with plus-minus written out as a list and relations read as names, equations or bounds."""
    if value.kind == "chain":
        return _relation(value)
    if value.kind in ("list", "set", "tuple", "matrix", "row", "union", "intersection", "difference"):
        parts = [_normal(part) for part in value.parts]
        if value.kind in ("list", "set"):
            parts = [inner for part in parts for inner in (part.parts if part.kind == "list" else (part,))]
            if value.kind == "list" and (named := _same_name(parts)):
                return named
            if value.name == "or" and all(part.is_constant for part in parts) and _all_same(parts):
                return parts[0]
        return replace(value, parts=tuple(parts))
    if value.kind == "+" and value.parts[0].kind == "reals" and value.parts[-1].kind == "neg":
        return Value("difference", (value.parts[0], value.parts[-1].parts[0]))
    if value.kind == "neg" and value.parts[0].kind == "numeral":
        return replace(value.parts[0], name=f"-{value.parts[0].name}")
    kinds = {node.kind for node in value.walk()}
    if kinds & {"pm", "mp"}:
        return Value("list", (_signed(value, "pm"), _signed(value, "mp")))
    return value


def _signed(value: Value, plus: str) -> Value:
    parts = tuple(_signed(part, plus) for part in value.parts)
    if value.kind not in ("pm", "mp"):
        return replace(value, parts=parts)
    last = parts[-1] if value.kind == plus else Value("neg", (parts[-1],))
    return last if len(parts) == 1 else Value("+", (parts[0], last))


def _same_name(parts: Sequence[Value]) -> Value | None:
    """Read ``x = 1, x = 2`` and ``x = 1, 2`` as values of one name."""
    first, *others = parts
    if first.kind != "named" or not others:
        return None
    if not all(part.name == first.name if part.kind == "named" else part.is_constant for part in others):
        return None
    values = (part.parts[0] if part.kind == "named" else part for part in parts)
    return replace(first, parts=(Value("list", tuple(values)),))


def _name(value: Value) -> str | None:
    """Return what a side of an equation is called, if it is a name or several."""
    if value.kind == "symbol":
        return value.name
    if value.kind == "abs" and value.parts[0].kind == "symbol" and value.parts[0].name.isupper():
        return value.parts[0].name if len(value.parts[0].name) > 1 else None
    if value.kind in ("tuple", "ratio", "list"):
        names = [_name(part) for part in value.parts]
        return None if None in names else f"({','.join(map(str, names))})"
    return None


def _relation(value: Value) -> Value:
    names, parts = value.name.split(), [_normal(part) for part in value.parts]
    if set(names) == {"="}:
        return _equation(parts)
    if names == ["in"]:
        return parts[1] if _name(parts[0]) else replace(value, kind="relation", parts=tuple(parts))
    if set(names) <= {">", ">="}:
        names, parts = [name.replace(">", "<") for name in reversed(names)], parts[::-1]
    if len(parts) == 2 and parts[0].kind == "abs" and parts[0].parts[0].kind == "symbol" and parts[1].is_constant:
        symbol, low = parts[0].parts[0], Value("neg", (parts[1],))
        return Value("relation", (low, symbol, parts[1]), f"{names[0]} {names[0]}")
    return Value("relation", tuple(parts), " ".join(names))


def _equation(parts: Sequence[Value]) -> Value:
    """Read a chain of equals: a named value, a calculation that holds, or an equation, which is no value."""
    first, last = parts[0], parts[-1]
    if name := _name(first):
        if len(parts) == 2 or last.is_constant or _all_same(parts[1:]):
            return Value("named", (last,), name)
    elif len(parts) == 2 and (name := _name(last)):
        return Value("named", (first,), name)
    elif all(part.is_constant for part in parts) and _all_same(parts):
        return last
    return Value("equation", tuple(parts))


def _all_same(parts: Sequence[Value]) -> bool:
    return all(_equal(parts[0], part) for part in parts[1:])


# --- equality by kind -------------------------------------------------------------------------------------------


def _equal(left: Value, right: Value) -> bool:
    """Compare normal forms.

    Raises:
        UndefinedError: one has no value, and so equals nothing.
        UndecidableError: the numbers are too large.
    """
    if left.kind == "named" or right.kind == "named":
        return _equal_named(left, right)
    if (_is_range(left) or _is_range(right)) and (found := same_set(left, right)) is not None:
        return found and (left.kind != right.kind or left.kind != "relation" or _symbols(left) == _symbols(right))
    if left.kind in ("list", "set") or right.kind in ("list", "set"):
        return _equal_sets(left, right)
    if left.kind == right.kind and left.kind in _BY_KIND:
        return _BY_KIND[left.kind](left, right)
    if "ratio" in (left.kind, right.kind) and len(left.parts if left.kind == "ratio" else right.parts) == 2:
        left, right = (Value("/", one.parts) if one.kind == "ratio" else one for one in (left, right))
    if "clock" in (left.kind, right.kind):
        return _is_hour(left, right) or _is_hour(right, left)
    return _equal_quantities(left, right)


def _is_range(value: Value) -> bool:
    """Whether this is a set of reals; ``(3, 2)`` may be a point, and is a range only beside another."""
    is_interval = value.kind == "tuple" and value.name != "()"
    is_bounds = value.kind == "list" and all(part.kind == "relation" for part in value.parts)
    return is_interval or is_bounds or value.kind in ("reals", "union", "intersection", "difference", "relation")


def _equal_parts(left: Value, right: Value) -> bool:
    return left.name == right.name and len(left.parts) == len(right.parts) and all(map(_equal, left.parts, right.parts))


def _symbols(value: Value) -> set[str]:
    return {node.name for node in value.walk() if node.kind == "symbol"}


def _equal_named(left: Value, right: Value) -> bool:
    if left.kind == right.kind and left.name == right.name:
        return _equal(left.parts[0], right.parts[0])
    if left.kind == right.kind or "equation" in (left.kind, right.kind):
        return _equal_equations(_as_equation(left), _as_equation(right))
    named, other = (left, right) if left.kind == "named" else (right, left)
    return _equal(named.parts[0], other)


def _as_equation(value: Value) -> Value:
    return Value("equation", (Value("symbol", name=value.name), *value.parts)) if value.kind == "named" else value


def _equal_equations(left: Value, right: Value) -> bool:
    return len(left.parts) == len(right.parts) == 2 and _factor(left, right) is not None


def _equal_relations(left: Value, right: Value) -> bool:
    if left.name != right.name or len(left.parts) != len(right.parts) or len(left.parts) > 2:
        return _equal_parts(left, right)
    ratio = _factor(left, right)
    return ratio is not None and (ratio > 0 or left.name == "!=")


def _factor(left: Value, right: Value) -> float | None:
    """Return the constant by which the difference of one relation's sides differs from that of the other's."""
    sides = [Value("+", (side.parts[0], Value("neg", (side.parts[1],)))) for side in (left, right)]
    is_about_one = _symbols(sides[0]) and _symbols(sides[0]) == _symbols(sides[1])
    return factor(*sides) if is_about_one else None


def _equal_sets(left: Value, right: Value) -> bool:
    """Compare lists and sets: without order, unless they go on with dots."""
    if left.kind == right.kind == "list" and "land" in {left.name, right.name} and left.name != right.name:
        return False
    a, b = (list(side.parts) if side.kind in ("list", "set") else [side] for side in (left, right))
    if any(part.kind == "dots" for part in (*a, *b)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if left.kind == right.kind == "set":
        return all(any(_is_one(one, other) for other in rest) for all_, rest in ((a, b), (b, a)) for one in all_)
    for one in a:
        at = next((place for place, other in enumerate(b) if _is_one(one, other)), None)
        if at is None:
            return False
        del b[at]
    return not b


def _is_one(left: Value, right: Value) -> bool:
    """Return whether two items are equal; what has no value equals nothing."""
    try:
        return _equal(left, right)
    except UndefinedError:
        return False


def _equal_ratios(left: Value, right: Value) -> bool:
    """Compare ratios by their quotients; with dots in them, part by part."""
    if len(left.parts) != len(right.parts) or any(part.kind == "dots" for part in (*left.parts, *right.parts)):
        return _equal_parts(left, right)
    (a, *others), (b, *counterparts) = left.parts, right.parts
    pairs = zip(others, counterparts, strict=True)
    return all(same(Value("*", (a, other)), Value("*", (b, one))) for one, other in pairs)


def _equal_operations(left: Value, right: Value) -> bool:
    """Compare unions and intersections of named sets, which have no order."""
    return _equal_sets(*(Value("set", _operands(side, side.kind)) for side in (left, right)))


def _operands(value: Value, kind: str) -> tuple[Value, ...]:
    return tuple(one for part in value.parts for one in _operands(part, kind)) if value.kind == kind else (value,)


def _equal_clocks(left: Value, right: Value) -> bool:
    """Compare times of day; the half of the day may be left out on one side."""
    return left.number == right.number and (left.name == right.name or "m" in (left.name, right.name))


def _is_hour(clock: Value, other: Value) -> bool:
    return clock.kind == "clock" and clock.name != "m" and exact(other) in (clock.number / 60 or 12, 12)


def _equal_quantities(left: Value, right: Value) -> bool:
    """Compare expressions, with their units or percent signs if they have any."""
    a, b = (side.parts[0] if side.kind in ("percent", "quantity") else side for side in (left, right))
    if left.unit is not None and right.unit is not None:
        a, b = (_times(value, unit.scale) for value, unit in ((a, left.unit), (b, right.unit)))
        return left.kind == right.kind and left.unit.agrees(right.unit) and same(a, b)
    if "percent" not in (left.kind, right.kind) or left.kind == right.kind:
        return same(a, b) or _equal_angles(left, right) or _equal_angles(right, left)
    share, whole = (b, a) if left.kind == "percent" else (a, b)
    return "quantity" not in (left.kind, right.kind) and (same(a, b) or same(whole, _times(share, Fraction(100))))


def _equal_angles(degrees: Value, radians: Value) -> bool:
    """Compare an angle in degrees with one that is a multiple of pi and names no unit."""
    if degrees.unit != UNITS["°"] or radians.unit or all(node.name != "pi" for node in radians.walk()):
        return False
    return same(_times(degrees.parts[0], Fraction(1, 180)), Value("/", (radians, Value("constant", name="pi"))))


def _times(value: Value, scale: Fraction) -> Value:
    return value if scale == 1 else Value("*", (value, number(scale)))


_BY_KIND: Mapping[str, Callable[[Value, Value], bool]] = {
    **dict.fromkeys(("difference", "dots", "matrix", "numeral", "row", "text", "tuple"), _equal_parts),
    "clock": _equal_clocks,
    "equation": _equal_equations,
    "intersection": _equal_operations,
    "ratio": _equal_ratios,
    "relation": _equal_relations,
    "union": _equal_operations,
}
