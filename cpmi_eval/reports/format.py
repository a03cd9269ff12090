"""Numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(value: float | None) -> str:
    """Return 0.5234 as ``52.3``; a dash where there is no value."""
    return "–" if value is None else f"{100 * value:.1f}"


def auc(value: float | None) -> str:
    """Return 0.6123 as ``0.612``; a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


def metric(name: str, value: float | None) -> str:
    """Return a metric the way its field writes it: AUC as a fraction, accuracies and F1 in percent."""
    return auc(value) if name.endswith("auc") else percent(value)


def interval(name: str, bounds: Sequence[float] | None) -> str:
    """Return the bounds of a metric's interval as ``[17.4, 24.9]``; nothing where there is none."""
    return "" if bounds is None else f"[{metric(name, bounds[0])}, {metric(name, bounds[1])}]"


def count(value: int) -> str:
    """Return 1234567 as ``1,234,567``."""
    return f"{value:,}"


def compact(value: int) -> str:
    """Return 950 as ``950``, 12345 as ``12.3k``, 1234567 as ``1.23M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)


def seconds(value: float) -> str:
    """Return ``0.4 s``, ``12.3 s``, ``4 min 05 s`` or ``2 h 07 min``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(value: int) -> str:
    """Return bytes as ``0.9 GB`` (10^9); a dash where nothing was measured."""
    return "–" if value == 0 else f"{value / 1e9:.1f} GB"


def settings(values: dict[str, object]) -> str:
    """Return ``a=1, b=x``."""
    return ", ".join(f"{key}={value}" for key, value in values.items())
