"""What a metric sees of a trace, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass

from cpmi_eval.errors import UsageError
from cpmi_eval.types import JSON, Gold


@dataclass(frozen=True)
class Outcome:
    """One trace's gold annotation beside what was scored and predicted.

    ``scores`` is ``None`` where scoring failed. ``prediction`` is the index of the first step called wrong, -1 for
    none, ``None`` where there is no prediction. ``undecided``: the scorer ranks but decides nothing; that is no miss.
    ``aggregation``: how the scorer's step scores become one of the solution (``min``, ``last``, ...).
    """

    gold: Gold
    scores: tuple[float, ...] | None
    prediction: int | None
    undecided: bool = False
    aggregation: str = "min"


@dataclass(frozen=True)
class Metric:
    """A value over ``n`` things (traces, problems, labelled steps). ``None``: not defined on this data.

    ``detail``: one of many that belong together; shown in a table of their own rather than as a column beside others.
    """

    value: float | None
    n: int
    detail: bool = False

    def as_dict(self) -> JSON:
        """Return what results.json holds; ``detail`` only where it is true."""
        return {"value": self.value, "n": self.n, **({"detail": True} if self.detail else {})}


@dataclass(frozen=True)
class Threshold:
    """The rule that turns step scores into a prediction. ``value`` is ``None`` where the scorer makes no decision."""

    protocol: str
    value: float | None

    def predict(self, scores: tuple[float, ...]) -> int | None:
        """Return the index of the first step scored below the threshold, -1 if there is none."""
        cut = self.value
        if cut is None:
            return None
        return next((i for i, score in enumerate(scores) if score < cut), -1)


def threshold(protocol: str, native: float | None) -> Threshold:
    """Resolve ``native`` (the scorer's own decision) or ``fixed:x``.

    Raises:
        UsageError: neither of the two.
    """
    if protocol == "native":
        return Threshold(protocol, native)
    name, _, text = protocol.partition(":")
    try:
        value = float(text) if name == "fixed" else float("nan")
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise UsageError(f"unknown threshold {protocol!r}; use native or fixed:x (for instance fixed:0.5)")
    return Threshold(f"fixed:{value:g}", value)
