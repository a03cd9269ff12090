"""What a metric sees of a trace, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from cpmi_eval.types import JSON, Gold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Outcome:
    """One trace's gold annotation beside what was scored and predicted.

    ``scores`` is ``None`` where scoring failed. ``prediction`` is the index of the first step called wrong, -1 for
    none, ``None`` where there is no prediction. ``undecided``: the scorer ranks but decides nothing; that is no miss.
    ``aggregation``: how the scorer's step scores become one of the solution (``min``, ``last``, ...). ``cluster``: the
    problem, for resampling.
    """

    gold: Gold
    scores: tuple[float, ...] | None
    prediction: int | None
    undecided: bool = False
    aggregation: str = "min"
    cluster: str = ""


@dataclass(frozen=True)
class Metric:
    """A value over ``n`` things (traces, problems, labelled steps). ``None``: not defined on this data.

    ``detail``: one of many that belong together; shown in a table of their own rather than as a column beside others.
    ``interval``: bounds of the 95% interval, where there is one.
    """

    value: float | None
    n: int
    detail: bool = False
    interval: tuple[float, float] | None = None

    def as_dict(self) -> JSON:
        """What results.json holds; ``detail`` only where it is true, ``interval`` where there is one."""
        entry: JSON = {"value": self.value, "n": self.n}
        if self.detail:
            entry["detail"] = True
        if self.interval is not None:
            entry["interval"] = list(self.interval)
        return entry

    @classmethod
    def from_dict(cls, entry: JSON) -> Metric:
        """Read what :meth:`as_dict` wrote."""
        bounds = entry.get("interval")
        interval = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        return cls(entry["value"], entry["n"], entry.get("detail", False), interval)


@runtime_checkable
class Statistics(Protocol):
    """Per-trace sufficient statistics: the values of some metrics under any weighting of the traces, without scores.

    What intervals and paired tests need; a metric that is a plain function of the outcomes has neither.
    """

    def metrics(self) -> dict[str, Metric]:
        """The metrics of the traces as they are."""

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        """The metrics that are no details, for each of several weightings.

        Args:
            weights: (draws, traces); how often each trace counts, in the order of the outcomes.

        Returns:
            By name, an array (draws,); NaN where a metric is not defined on a draw.
        """


MetricFunction: TypeAlias = Callable[[Sequence[Outcome]], "Statistics | Mapping[str, Metric]"]


def metrics_of(found: Statistics | Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics of what a metric function returned."""
    return found.metrics() if isinstance(found, Statistics) else dict(found)
