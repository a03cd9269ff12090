"""Numbers as a person reads them; a dash where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cpmi_eval.metrics.spec import spec_of


def percent(value: float | None) -> str:
    """0.5234 is ``52.3``."""
    return "–" if value is None else f"{100 * value:.1f}"


def auc(value: float | None) -> str:
    """0.6123 is ``0.612``."""
    return "–" if value is None else f"{value:.3f}"


def metric(name: str, value: float | None) -> str:
    """A metric in its unit: areas as fractions, accuracies in percent, multiples in percent of what they are of."""
    return in_unit(spec_of(name).unit, value)


def in_unit(unit: str, value: float | None) -> str:
    """A value of a metric of this unit."""
    if unit == "multiple" and value is not None:
        return f"{100 * value:.0f}%"
    return auc(value) if unit == "fraction" else percent(value)


def interval(unit: str, bounds: Sequence[float | None] | None) -> str:
    """Bounds of an interval, ``[17.4, 24.9]``; nothing where there are none."""
    if bounds is None or None in bounds:
        return ""
    return f"[{in_unit(unit, bounds[0])}, {in_unit(unit, bounds[1])}]"


def count(value: int | None) -> str:
    """1234567 is ``1,234,567``."""
    return "–" if value is None else f"{value:,}"


def compact(value: float) -> str:
    """950 is ``950``, 12345 is ``12.3k``, 1234567 is ``1.23M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)


def seconds(value: float) -> str:
    """``0.4 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 07 min``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(value: float) -> str:
    """Bytes as ``0.9 GB`` (10^9)."""
    return "–" if value == 0 else f"{value / 1e9:.1f} GB"


def settings(values: Mapping[str, object] | None) -> str:
    """``a=1, b=x``."""
    return ", ".join(f"{key}={value}" for key, value in (values or {}).items())


def scorer(name: str, values: Mapping[str, object] | None, uses_reference: bool = False) -> str:
    """A scorer with its settings, marked where it is given the reference answer."""
    return " ".join(filter(None, [name + ("*" if uses_reference else ""), settings(values)]))
