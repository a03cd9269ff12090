"""Threshold protocols: how step scores become a prediction, the first step scored below a cut.

``native``      the scorer's own decision
``fixed:x``     x
``dev:SUBSET``  the cut that is best on one subset, which is then not reported
``crossfit:K``  K folds of problems; each fold's cut is the one that is best on the others
``oracle``      the cut that is best on the reported traces themselves: a ceiling, never ranked

The last three choose the cut by F1 and need gold annotations, but no model: they are applied to stored scores. They are
fitted part by part (``crossfit``, ``oracle``) or once (``dev``). Where several cuts are equally good, the lowest is
taken, the one that calls fewest steps wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cpmi_eval.errors import UsageError
from cpmi_eval.seeding import derive_seed
from cpmi_eval.types import JSON

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cpmi_eval.records import Record

FORMS = "native, fixed:x, dev:SUBSET, crossfit:K or oracle"


@dataclass(frozen=True)
class Threshold:
    """A cut that is known before anything is scored: ``native`` or ``fixed:x``.

    ``value`` is ``None`` where the scorer makes no decision.
    """

    protocol: str
    value: float | None

    def predict(self, scores: Sequence[float]) -> int | None:
        """The index of the first step scored below the threshold, -1 if there is none."""
        return None if self.value is None else first_below(scores, self.value)


def first_below(scores: Sequence[float], cut: float) -> int:
    """The index of the first score below ``cut``, -1 if there is none."""
    return next((i for i, score in enumerate(scores) if score < cut), -1)


def threshold(protocol: str, native: float | None) -> Threshold:
    """Resolve ``native`` (the scorer's own decision) or ``fixed:x``.

    Raises:
        UsageError: neither of the two.
    """
    with suppress(UsageError):
        if not (found := parse(protocol)).fitted:
            return found.before(native)
    raise UsageError(f"unknown threshold {protocol!r}; use native or fixed:x (for instance fixed:0.5)")


@dataclass(frozen=True)
class Protocol:
    """A threshold protocol: its name, the ``value`` of ``fixed``, ``subset`` of ``dev``, ``folds`` of ``crossfit``."""

    name: str
    value: float | None = None
    subset: str = ""
    folds: int = 0

    def __str__(self) -> str:
        """As it is written, ``crossfit:5``."""
        if self.name == "fixed":
            return f"fixed:{self.value:g}"
        return self.name + {"dev": f":{self.subset}", "crossfit": f":{self.folds}"}.get(self.name, "")

    @property
    def fitted(self) -> bool:
        """Whether the cut depends on gold annotations, so that it is known only when everything is scored."""
        return self.name in ("dev", "crossfit", "oracle")

    def before(self, native: float | None) -> Threshold:
        """The rule that decides while traces are being scored: none yet, where the cut is fitted."""
        return Threshold(str(self), {"native": native, "fixed": self.value}.get(self.name))


def parse(text: str) -> Protocol:
    """Parse the name of a protocol.

    Raises:
        UsageError: no such protocol, or one without what it needs.
    """
    name, _, detail = text.strip().partition(":")
    if name in ("native", "oracle") and not detail:
        return Protocol(name)
    if name == "fixed":
        with suppress(ValueError):
            if math.isfinite(value := float(detail)):
                return Protocol(name, value=value)
    if name == "dev" and detail:
        return Protocol(name, subset=detail)
    if name == "crossfit" and detail.isascii() and detail.isdigit() and int(detail) >= 2:
        return Protocol(name, folds=int(detail))
    raise UsageError(f"unknown threshold {text!r}; use {FORMS} (for instance fixed:0.5, dev:gsm8k, crossfit:5)")


@dataclass(frozen=True)
class Decisions:
    """What a protocol decided.

    ``predictions``: one per record, in their order; ``None`` where there is none. ``undecided``: the scorer makes no
    decision, which is no miss. ``value``: the one cut, where there is one. ``cuts``: those that were fitted, by part
    (of ``crossfit`` one per fold). ``held_out``: the part that was only used to choose the cut and is not reported.
    """

    protocol: str
    predictions: tuple[int | None, ...]
    undecided: bool
    value: float | None = None
    cuts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    held_out: str | None = None

    def as_dict(self) -> JSON:
        """What results.json says of the threshold."""
        found: JSON = {"protocol": self.protocol, "value": self.value, "undecided": self.undecided}
        if self.cuts:
            found["cuts"] = {part: list(cuts) for part, cuts in self.cuts.items()}
        if self.held_out is not None:
            found["held_out"] = self.held_out
        return found


def decide(protocol: Protocol, native: float | None, records: Sequence[Record], seed: int) -> Decisions:
    """Apply a protocol to scored traces.

    Args:
        protocol: which.
        native: the scorer's own cut; ``None``: it makes no decision.
        records: all traces of a run. A record's ``decision`` is the scorer's own where that is more than a cut.
        seed: of the folds.

    Raises:
        UsageError: nothing to fit a cut to: the subset is absent, or a class of traces is.
    """
    if protocol.name == "dev":
        return _dev(protocol, records)
    if protocol.fitted:
        return _by_part(protocol, records, seed)
    rule = protocol.before(native)
    own = protocol.name == "native"
    predictions = (
        None if one.scores is None else (one.decision if own and one.decision is not None else rule.predict(one.scores))
        for one in records
    )
    return Decisions(str(protocol), tuple(predictions), rule.value is None, rule.value)


def _dev(protocol: Protocol, records: Sequence[Record]) -> Decisions:
    chosen = [one for one in records if one.part.partition("/")[2] == protocol.subset]
    others = {one.part for one in records} - {one.part for one in chosen}
    if not chosen or not others:
        subsets = ", ".join(sorted({one.part.partition("/")[2] or one.part for one in records}))
        raise UsageError(
            f"{protocol} chooses the threshold on {protocol.subset!r} and reports the other subsets; this run has only "
            f"{subsets}"
        )
    cut = fit(chosen)
    predictions = tuple(None if one.scores is None else first_below(one.scores, cut) for one in records)
    part = chosen[0].part
    return Decisions(str(protocol), predictions, False, cut, {part: (cut,)}, held_out=part)


def _by_part(protocol: Protocol, records: Sequence[Record], seed: int) -> Decisions:
    members: dict[str, list[int]] = {}
    for place, one in enumerate(records):
        members.setdefault(one.part, []).append(place)
    predictions: list[int | None] = [None] * len(records)
    cuts: dict[str, tuple[float, ...]] = {}
    oracle = protocol.name == "oracle"
    for part, places in members.items():
        own = [records[place] for place in places]
        folds = [0] * len(own) if oracle else fold_of(own, protocol.folds, seed)
        chosen = {
            fold: fit([one for one, other in zip(own, folds, strict=True) if oracle or other != fold])
            for fold in sorted(set(folds))
        }
        cuts[part] = tuple(chosen.values())
        for place, one, fold in zip(places, own, folds, strict=True):
            predictions[place] = None if one.scores is None else first_below(one.scores, chosen[fold])
    value = next(iter(cuts.values()))[0] if len(cuts) == 1 and oracle else None
    return Decisions(str(protocol), tuple(predictions), False, value, cuts)


def fold_of(records: Sequence[Record], folds: int, seed: int) -> list[int]:
    """Each record's fold: problems are dealt out in a random order, so that folds differ by one at most.

    Raises:
        UsageError: fewer problems than folds.
    """
    problems = sorted({one.cluster for one in records}, key=lambda one: derive_seed(seed, "fold", one))
    if len(problems) < folds:
        raise UsageError(f"crossfit:{folds} needs at least {folds} problems; {records[0].part} has {len(problems)}")
    fold = {problem: place % folds for place, problem in enumerate(problems)}
    return [fold[one.cluster] for one in records]


def fit(records: Sequence[Record]) -> float:
    """The cut with the highest F1 on annotated traces; those without scores are misses whatever it is.

    A correct trace is a hit for cuts up to its lowest score; one whose first error is step e for cuts above the
    score of e and up to the lowest score before it. Between neighbouring scores F1 is constant: all cuts are tried.

    Raises:
        UsageError: no correct or no erroneous trace, so F1 is undefined.
    """
    import numpy as np

    from cpmi_eval.metrics.first_error import harmonic_mean

    spans: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    totals = [0, 0]
    for one in records:
        first = one.gold.first_error
        if first is None:
            continue
        totals[first >= 0] += 1
        if one.scores is None:
            continue
        low = one.scores[first] if first >= 0 else -np.inf
        high = min(one.scores[:first] if first >= 0 else one.scores, default=np.inf)
        if low < high:
            spans[first >= 0].append((low, high))
    if not all(totals):
        raise UsageError(
            f"a threshold cannot be fitted: of {len(records)} traces {totals[0]} are annotated as correct and "
            f"{totals[1]} as erroneous, and both are needed; use native or fixed:x"
        )
    values = np.unique([score for one in records for score in one.scores or ()])
    if not len(values):
        return 0.0
    hits = [_covering(found, values) for found in spans]
    f1 = [harmonic_mean(error / totals[1], correct / totals[0]) for correct, error in zip(*hits, strict=True)]
    best = int(np.argmax(f1))
    between = float(values[best - 1] / 2 + values[best] / 2) if best else float(values[0])
    return between if not best or between > values[best - 1] else float(values[best])


def _covering(spans: Sequence[tuple[float, float]], values: NDArray[Any]) -> NDArray[Any]:
    """How many of the half-open spans (low, high] hold each value."""
    import numpy as np

    ends = np.array(spans, dtype=float).reshape(-1, 2)
    lows, highs = np.sort(ends[:, 0]), np.sort(ends[:, 1])
    return np.asarray(np.searchsorted(lows, values, "left") - np.searchsorted(highs, values, "left"))
