"""What a metric sees of a trace, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from cpmi_eval.record.results import Metric
from cpmi_eval.record.rows import Outcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float64]"


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


__all__ = ["Floats", "Metric", "MetricFunction", "Outcome", "Statistics", "metrics_of"]

MetricFunction: TypeAlias = Callable[[Sequence[Outcome]], "Statistics | Mapping[str, Metric]"]


def metrics_of(found: Statistics | Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics of what a metric function returned."""
    return found.metrics() if isinstance(found, Statistics) else dict(found)
