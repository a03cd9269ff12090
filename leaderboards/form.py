"""The form of a leaderboard row, as the object that a line of a file holds: strict on what comes in and goes out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, NoReturn

from cpmi_eval.errors import DataError
from cpmi_eval.leaderboards.schema import KINDS, SCHEMA_VERSION, Cost, Part, Row, TraceSet, Value
from cpmi_eval.record.signature import portable
from cpmi_eval.types import JSON

MEASURED = ("fingerprint", "uses_reference", "threshold", "hardware", "versions", "date")
MODEL = ("name", "revision", "sha256", "dtype", "backend", "args", "others")
HARDWARE = ("device", "platform", "processor")
TOLERANCE = 1e-9  # of a value at the bound of its interval, for rounding

_USUAL = float, float, float, int, 4  # the types and the number of a value's fields
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def _names(kind: type, required: bool) -> frozenset[str]:
    return frozenset(
        one.name for one in fields(kind) if (one.default is MISSING and one.default_factory is MISSING) or not required
    )


_KEYS: dict[type, tuple[frozenset[str], frozenset[str]]] = {
    kind: (_names(kind, True), _names(kind, False)) for kind in (Row, Part, TraceSet, Cost, Value)
}
_DEFAULTS = {one.name: one.default for one in fields(Row) if one.default is not MISSING}


class InvalidError(Exception):
    """A field and what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        """Name the ``field`` by its path (``parts.t.metrics.f1``) and say what the ``problem`` is."""
        super().__init__(field, problem)
        self.field, self.problem = field, problem

    def inside(self, path: str) -> InvalidError:
        """Return the error as it is seen from outside of ``path``."""
        return InvalidError(f"{path}.{self.field}" if self.field else path, self.problem)


def fail(field: str, problem: str) -> NoReturn:
    """Refuse a field."""
    raise InvalidError(field, problem)


def _object(data: Any, kind: type) -> Mapping[str, Any]:
    """Return an object that has all it needs of a class's fields, and no others."""
    if not isinstance(data, dict):
        fail("", f"must be an object, not {_show(data)}")
    required, known = _KEYS[kind]
    keys = data.keys()
    if not required <= keys:
        fail(min(required - keys), "is missing")
    if not keys <= known:
        fail(min(keys - known), f"is not known here; known: {', '.join(sorted(known))}")
    return data


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(data: Mapping[str, Any], name: str) -> float | None:
    """Return a finite number; ``None`` where there is none."""
    value = data.get(name)
    if value is None:
        return None
    kind = type(value)
    if (kind is not float and kind is not int) or not math.isfinite(value):
        fail(name, f"must be a finite number, not {_show(value)}")
    return value  # type: ignore[no-any-return]


def _amount(data: Mapping[str, Any], name: str) -> float:
    value = data.get(name)
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    value = _number(data, name)
    if value is None or value < 0:
        fail(name, f"must be a number of at least 0, not {_show(value)}")
    return float(value)


def _count(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if type(value) is not int or value < 0:
        fail(name, f"must be a whole number of at least 0, not {_show(value)}")
    return value


def _text(data: Mapping[str, Any], name: str, *, optional: bool = False) -> str | None:
    value = data.get(name)
    if value is None and optional:
        return None
    if type(value) is not str or not value.strip():
        fail(name, f"must be a text, not {_show(value)}")
    return value


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if type(value) is not bool:
        fail(name, f"must be true or false, not {_show(value)}")
    return value


def _digest(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if type(value) is not str or not _DIGEST.match(value):
        fail(name, f"must be a SHA-256 in 64 hexadecimal digits, not {_show(value)}")
    return value


def _mapping(data: Mapping[str, Any], name: str, known: Collection[str] = ()) -> dict[str, Any] | None:
    value = data.get(name)
    if value is None:
        return None
    if type(value) is not dict:
        fail(name, f"must be an object, not {_show(value)}")
    if known and not value.keys() <= set(known):
        fail(f"{name}.{min(value.keys() - set(known))}", f"is not known here; known: {', '.join(known)}")
    return value


def _each(name: str, data: Any, parse: Callable[[Any], Any]) -> dict[str, Any]:
    """Parse every value of an object; errors name its key."""
    if type(data) is not dict:
        fail(name, f"must be an object, not {_show(data)}")
    found, key = {}, ""
    try:
        for key, value in data.items():
            found[key] = parse(value)
    except InvalidError as error:
        raise error.inside(f"{name}.{key}") from None
    return found


def _within(name: str, data: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(data)
    except InvalidError as error:
        raise error.inside(name) from None


def _value(data: Any) -> Value:
    try:  # what nearly all are like, checked at once; the differences of infinities and NaN are not below infinity
        value, low, high, n = data["value"], data["low"], data["high"], data["n"]
        usual = (type(value), type(low), type(high), type(n), len(data)) == _USUAL
        if usual and low <= value <= high and high - low < math.inf and n >= 0:
            return Value(value, low, high, n)
    except (KeyError, TypeError):
        pass
    return _checked_value(data)


def _checked_value(data: Any) -> Value:
    one = _object(data, Value)
    value, low, high = _number(one, "value"), _number(one, "low"), _number(one, "high")
    if (low is None) != (high is None):
        fail("high" if high is None else "low", "is missing: an interval has two bounds")
    if low is not None and high is not None:
        if value is None:
            fail("low", "bounds a value that is not there")
        if not low - TOLERANCE <= value <= high + TOLERANCE:
            fail("value", f"{value:g} is outside its interval [{low:g}, {high:g}]")
    return Value(value, low, high, None if one.get("n") is None else _count(one, "n"))


def _traces(data: Any) -> TraceSet:
    one = _object(data, TraceSet)
    total, scored, limit = _count(one, "total"), _count(one, "scored"), _number(one, "limit")
    if scored > total:
        fail("scored", f"is {scored} of {total} traces")
    if limit is not None and limit <= 0:
        fail("limit", f"must be above 0, not {limit:g}")
    return TraceSet(_digest(one, "sha256"), total, scored, limit)


def _cost(data: Any) -> Cost:
    one = _object(data, Cost)
    return Cost(
        _amount(one, "seconds"),
        _amount(one, "device_seconds"),
        _count(one, "requested"),
        _count(one, "computed"),
        _count(one, "generated"),
        _count(one, "peak_memory_bytes"),
    )


def _part(data: Any) -> Part:
    one = _object(data, Part)
    metrics, traces, cost = one["metrics"], one.get("traces"), one.get("cost")
    return Part(
        _each("metrics", metrics, _value),
        None if traces is None else _within("traces", traces, _traces),
        None if cost is None else _within("cost", cost, _cost),
    )


def parse(data: Any) -> Row:
    """Return the row that an object describes.

    Raises:
        DataError: it is not a valid row; the message names the field.
    """
    try:
        return checked(data)
    except InvalidError as error:
        raise DataError(f"{error.field} {error.problem}".strip()) from None


def checked(data: Any) -> Row:
    """Return the row that an object describes.

    Raises:
        InvalidError: it is not a valid row.
    """
    if isinstance(data, dict) and data.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        version = _show(data["schema_version"])
        fail("schema_version", f"is {version}; this version of cpmi-eval reads and writes {SCHEMA_VERSION}")
    one = _object(data, Row)
    if "schema_version" not in one:
        fail("schema_version", "is missing")
    origin, kind = one["origin"], one["kind"]
    if origin not in ("measured", "published"):
        fail("origin", f"must be measured or published, not {_show(origin)}")
    if kind not in KINDS:
        fail("kind", f"must be one of {', '.join(KINDS)}, not {_show(kind)}")
    note = one.get("note", "")
    if type(note) is not str:
        fail("note", f"must be a text, not {_show(note)}")
    row = Row(
        task=str(_text(one, "task")),
        origin=origin,
        scorer=str(_text(one, "scorer")),
        kind=kind,
        parts=_each("parts", one["parts"], _part),
        settings=_mapping(one, "settings") or {},
        uses_reference=_flag(one, "uses_reference"),
        model=_model(one),
        threshold=_text(one, "threshold", optional=True),
        aggregation=_text(one, "aggregation", optional=True),
        synthetic=_flag(one, "synthetic"),
        hardware=_texts(one, "hardware", HARDWARE),
        versions=_texts(one, "versions") or {},
        fingerprint=None if one.get("fingerprint") is None else _digest(one, "fingerprint"),
        source=_text(one, "source", optional=True),
        note=note,
        date=_date(one),
    )
    _check_parts(row)
    _check_origin(row, one)
    if portable(row.settings) != row.settings:
        fail("settings", "hold a path that means something on one machine only")
    return row


def _model(one: Mapping[str, Any]) -> dict[str, Any] | None:
    model = _mapping(one, "model", MODEL)
    if model is not None:
        if type(model.get("name")) is not str or not model["name"]:
            fail("model.name", f"must be a text, not {_show(model.get('name'))}")
        for name in ("revision", "sha256", "dtype", "backend"):
            if model.get(name) is not None and type(model[name]) is not str:
                fail(f"model.{name}", f"must be a text, not {_show(model[name])}")
        for name in ("args", "others"):
            if model.get(name) is not None and portable(_mapping(model, name)) != model[name]:
                fail(f"model.{name}", "hold a path that means something on one machine only")
        if portable(model["name"]) != model["name"]:
            fail("model.name", "is a path; a model is recorded by its folder's name and sha256")
    return model


def _texts(one: Mapping[str, Any], name: str, known: Collection[str] = ()) -> dict[str, Any] | None:
    """Return an object of texts (or nulls)."""
    found = _mapping(one, name, known)
    for key, value in (found or {}).items():
        if value is not None and type(value) is not str:
            fail(f"{name}.{key}", f"must be a text, not {_show(value)}")
    return found


def _date(one: Mapping[str, Any]) -> str | None:
    date = _text(one, "date", optional=True)
    if date is not None:
        try:
            datetime.fromisoformat(date)
        except ValueError:
            fail("date", f"must be an ISO 8601 date, not {_show(date)}")
    return date


def _check_parts(row: Row) -> None:
    if not row.parts:
        fail("parts", "holds no results")
    for name in row.parts:
        if name != row.task and not name.startswith(f"{row.task}/"):
            fail(f"parts.{name}", f"is no part of {row.task}")


def _check_origin(row: Row, one: Mapping[str, Any]) -> None:
    """Refuse a row that lacks what its origin demands, or claims what it cannot have."""
    if row.origin == "published":
        if row.source is None:
            fail("source", "is missing: a published row says where it comes from")
        if row.fingerprint is not None:
            fail("fingerprint", "is given, but only measured rows have one")
        return
    for name in MEASURED:
        if one.get(name) is None:
            fail(name, "is missing: a measured row has it")
    for name, part in row.parts.items():
        for field in ("traces", "cost"):
            if getattr(part, field) is None:
                fail(f"parts.{name}.{field}", "is missing: a measured row has it")


def as_dict(row: Row) -> JSON:
    """Return a row as the object that a line holds; :func:`parse` reads it back."""
    return {**about(row), "parts": {name: part_dict(part) for name, part in row.parts.items()}}


def about(row: Row) -> JSON:
    """Return what a line holds of a row beside its results."""
    found: JSON = {"schema_version": row.schema_version}
    for name, value in vars(row).items():
        if name in ("parts", "schema_version") or (name in _DEFAULTS and value == _DEFAULTS[name]) or value == {}:
            continue
        found[name] = dict(value) if isinstance(value, Mapping) else value
    if row.origin == "measured":
        found["uses_reference"] = row.uses_reference
    return found


def part_dict(part: Part) -> JSON:
    """Return what a line holds of the results on one part."""
    found: JSON = {"metrics": {name: _given(vars(value), "value") for name, value in part.metrics.items()}}
    if part.traces is not None:
        found["traces"] = _given(vars(part.traces))
    if part.cost is not None:
        found["cost"] = dict(vars(part.cost))
    return found


def _given(values: Mapping[str, Any], *always: str) -> JSON:
    return {name: value for name, value in values.items() if value is not None or name in always}
