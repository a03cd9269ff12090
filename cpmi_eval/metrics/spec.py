"""What a metric says of itself: how it is named, written and ranked; declared beside its function, found by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import chain
from typing import Any, Literal, TypeVar

from cpmi_eval import registry
from cpmi_eval.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class MetricSpec:
    """One metric, or a family of them: ``bon@*`` stands for every ``bon@N``.

    Args:
        name: as in results.json.
        heading: over a column of a table.
        label: in a few words, where there is more room.
        description: for those who do not know this program.
        unit: how values in [0, 1] are written: in percent, as a fraction, or as a multiple of something else.
        higher_is_better: the direction in which it is ranked.
        headline: it stands for its task where one number must.
        part_of: the metric that it is a part of and that is compared in its stead.
        decides: it depends on decisions, so on a threshold.
        ranks: it ranks scores of different problems against each other.
        needs_scorer: it depends on the scorer at all.
    """

    name: str
    heading: str = ""
    label: str = ""
    description: str = ""
    unit: Literal["percent", "fraction", "multiple"] = "percent"
    higher_is_better: bool = True
    headline: bool = False
    part_of: str = ""
    decides: bool = False
    ranks: bool = False
    needs_scorer: bool = True

    def of(self, name: str) -> MetricSpec:
        """This family's spec of one of its members, with every text filled in."""
        return replace(
            self,
            name=name,
            heading=self.heading or name,
            label=self.label or name.replace("_", " "),
            description=self.description or name,
        )


# What rows hold that no metric function computes here.
OTHERS = (
    MetricSpec("label_auc", unit="fraction"),
    MetricSpec("ece*", unit="fraction", higher_is_better=False),
    MetricSpec("brier*", unit="fraction", higher_is_better=False),
    MetricSpec("relative_*", unit="multiple", higher_is_better=False),
)


def describes(*specs: MetricSpec) -> Callable[[F], F]:
    """Declare what a metric function computes; a plug-in's metric brings its own in the same way."""

    def declare(function: F) -> F:
        function.specs = specs  # type: ignore[attr-defined]
        return function

    return declare


def spec_of(name: str, *functions: Callable[..., Any]) -> MetricSpec:
    """Look up a metric's spec: of these functions, else of all that are registered.

    A metric that nobody describes (an old row's, or one of a plug-in that is not installed) goes by its name, in
    percent, the higher the better.
    """
    declared = chain(*map(specs_of, functions), _registered(tuple(registry.entries("metrics").values())))
    found = next((one for one in declared if fnmatchcase(name, one.name)), MetricSpec(name))
    return found.of(name)


def specs_of(function: Callable[..., Any]) -> tuple[MetricSpec, ...]:
    """What a metric function declares."""
    return getattr(function, "specs", ())


@cache
def _registered(entries: tuple[registry.Entry, ...]) -> tuple[MetricSpec, ...]:
    found = list(OTHERS)
    for entry in entries:
        try:
            found += specs_of(registry.load("metrics", entry.name))
        except UsageError:  # a broken plug-in is an error of the run that needs it, and no reason to show no table
            continue
    return tuple(found)
