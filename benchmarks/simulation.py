"""Do 95% intervals hold 95% of the time, and do paired tests reject what is true no more often than they say?

    python benchmarks/simulation.py --trials 1000

Simulated benchmarks of 400 traces, one to three per problem. A step's score is the quality of the step plus an effect
of the problem, an effect of the trace and noise; two scorers share a part of all three. True values are those of the
same design at 200,000 traces. Rates come with their Monte-Carlo standard errors. Last, a bootstrap is timed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported: the arrays are small

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cpmi_eval.metrics import first_error, ranking
from cpmi_eval.metrics.outcome import MetricFunction, Outcome
from cpmi_eval.metrics.permutation import permutation
from cpmi_eval.metrics.uncertainty import intervals
from cpmi_eval.types import Gold

TRACES = 400
POPULATION = 200_000
LONGEST = 9
ALPHA = 0.05
FUNCTIONS: dict[str, MetricFunction] = {"f1": first_error.compute, "step_auc": ranking.compute}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scorer:
    """How a scorer behaves: ``signal`` between good and wrong steps, spreads of its effects, and its threshold.

    ``shared``: the share of each effect's variance that it has in common with the other scorer. ``scale`` stretches
    its scores by a monotone function, which changes no ranking.
    """

    signal: float = 1.2
    problem: float = 0.4
    trace: float = 0.5
    noise: float = 1.0
    shared: float = 0.5
    threshold: float = -1.0
    scale: float = 0.0


@dataclass(frozen=True)
class Design:
    """The traces: which problem each belongs to, its length, its first error (-1: none), and common effects."""

    problem: NDArray[np.int64]
    length: NDArray[np.int64]
    first: NDArray[np.int64]
    effects: tuple[Floats, Floats, Floats]


@dataclass(frozen=True)
class Figure:
    """One simulation: ``truth`` is the true value, or difference of two; all others are rates over ``trials``.

    ``covers``: its 95% interval holds it. ``rejects``: the test's p is at most 5%. ``tells``: it rejects, and 0 is
    outside the interval, which is when a difference is told.
    """

    what: str
    metric: str
    truth: float
    trials: int
    covers: float
    rejects: float | None = None
    tells: float | None = None


def design(rng: np.random.Generator, traces: int = TRACES) -> Design:
    """Draw traces, whole problems of one to three until there are enough."""
    sizes = rng.integers(1, 4, traces)
    problem = np.repeat(np.arange(traces), sizes)[:traces]
    difficulty = rng.normal(size=traces)[problem]
    length = rng.integers(3, LONGEST + 1, traces)
    wrong = rng.random(traces) < 1 / (1 + np.exp(-difficulty))
    first = np.where(wrong, rng.integers(0, length), -1)
    return Design(problem, length, first, _effects(rng, problem))


def _effects(rng: np.random.Generator, problem: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    traces = len(problem)
    return (
        rng.normal(size=traces)[problem][:, None],
        rng.normal(size=(traces, 1)),
        rng.normal(size=(traces, LONGEST)),
    )


def scores(rng: np.random.Generator, of: Design, scorer: Scorer) -> Floats:
    """Draw a scorer's scores, (traces, LONGEST); those beyond a trace's length mean nothing."""
    own = _effects(rng, of.problem)
    spreads = (scorer.problem, scorer.trace, scorer.noise)
    common, rest = np.sqrt(scorer.shared), np.sqrt(1 - scorer.shared)
    good = np.arange(LONGEST) != of.first[:, None]
    total = scorer.signal * (good - 1.0)
    for spread, theirs, mine in zip(spreads, of.effects, own, strict=True):
        total = total + spread * (common * theirs + rest * mine)
    return np.exp(scorer.scale * total) if scorer.scale else total


def predictions(of: Design, values: Floats, threshold: float) -> NDArray[np.int64]:
    """Return the first step of each trace below the threshold, -1 if there is none."""
    below = (values < threshold) & (np.arange(LONGEST) < of.length[:, None])
    return np.where(below.any(axis=1), below.argmax(axis=1), -1)


def outcomes(of: Design, values: Floats, threshold: float) -> list[Outcome]:
    """Return what metrics see."""
    called = predictions(of, values, threshold).tolist()
    rows = zip(of.first.tolist(), of.length.tolist(), of.problem.tolist(), values.tolist(), called, strict=True)
    return [
        Outcome(Gold(first), tuple(row[:length]), prediction, cluster=str(problem))
        for first, length, problem, row, prediction in rows
    ]


def f1_at(of: Design, values: Floats, threshold: float) -> float:
    """Return the F1 of a threshold, computed apart from the package's statistics."""
    hits = predictions(of, values, threshold) == of.first
    error, clean = hits[of.first >= 0].mean(), hits[of.first < 0].mean()
    return float(2 * error * clean / (error + clean))


def _population(scorer: Scorer, seed: int = 1) -> tuple[Design, Floats]:
    rng = np.random.default_rng(seed)
    of = design(rng, POPULATION)
    return of, scores(rng, of, scorer)


def population(scorer: Scorer) -> dict[str, float]:
    """Return the true F1 and step AUC, from a very large sample, computed apart from the package's statistics."""
    from scipy.stats import rankdata

    of, values = _population(scorer)
    steps = np.arange(LONGEST)
    seen = steps <= np.where(of.first < 0, of.length - 1, of.first)[:, None]
    good = (steps != of.first[:, None])[seen]
    ranks, n = rankdata(values[seen]), int(good.sum())
    area = (ranks[good].sum() - n * (n + 1) / 2) / (n * (len(good) - n))
    return {"f1": f1_at(of, values, scorer.threshold), "step_auc": float(area)}


def solve(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that changes sign once between the bounds does so."""
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=1e-3))


def pairs(trials: int, a: Scorer, b: Scorer, seed: int) -> Iterator[tuple[list[Outcome], list[Outcome]]]:
    """Yield the outcomes of two scorers on one simulated benchmark after the other."""
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        of = design(rng)
        sides = [outcomes(of, scores(rng, of, one), one.threshold) for one in (a, b)]
        yield sides[0], sides[1]


def coverage(what: str, scorer: Scorer, trials: int, draws: int, seed: int = 2) -> list[Figure]:
    """Return how often the intervals of F1 and AUC hold the true value."""
    truth = population(scorer)
    hits: dict[str, list[bool]] = {metric: [] for metric in FUNCTIONS}
    for trial, (sample, _) in enumerate(pairs(trials, scorer, scorer, seed)):
        statistics = {"": [function(sample) for function in FUNCTIONS.values()]}
        bounds, _ = intervals(statistics, {"": [one.cluster for one in sample]}, resamples=draws, seed=trial)
        for metric, held in hits.items():
            low, high = bounds[""][metric]
            held.append(low <= truth[metric] <= high)
    return [Figure(what, metric, truth[metric], trials, float(np.mean(held))) for metric, held in hits.items()]


def comparison(what: str, metric: str, a: Scorer, b: Scorer, trials: int, draws: int, seed: int = 3) -> Figure:
    """Return how often the test of two scorers rejects, and what its interval holds."""
    truth = population(a)[metric] - population(b)[metric]
    seen = np.zeros((trials, 3), dtype=bool)
    for trial, (one, other) in enumerate(pairs(trials, a, b, seed)):
        found = permutation(one, other, FUNCTIONS[metric], metric, draws=draws, seed=trial)
        low, high = found.interval or (-np.inf, np.inf)
        rejects = found.p <= ALPHA
        seen[trial] = low <= truth <= high, rejects, rejects and not low <= 0 <= high
    return Figure(what, metric, truth, trials, *(float(rate) for rate in seen.mean(axis=0)))


def opposite(scorer: Scorer, share: float = 0.85) -> tuple[Scorer, Scorer]:
    """Return a scorer with two thresholds, one low and one high, that give the same F1: ``share`` of the best."""
    of, values = _population(scorer)
    cuts = np.linspace(-3, 0.5, 36)
    known = [f1_at(of, values, cut) for cut in cuts]
    best = int(np.argmax(known))
    ends = ((float(cuts[0]), float(cuts[best])), (float(cuts[best]), float(cuts[-1])))
    low, high = (solve(lambda cut: f1_at(of, values, cut) - share * known[best], *bounds) for bounds in ends)
    return replace(scorer, threshold=low), replace(scorer, threshold=high)


def unlike(scorer: Scorer) -> Scorer:
    """Return another scorer of the same AUC, whose errors lie in whole traces rather than in single steps."""
    other = replace(scorer, trace=1.2, noise=0.7)
    target = population(scorer)["step_auc"]
    return replace(
        other,
        signal=solve(lambda signal: population(replace(other, signal=signal))["step_auc"] - target, 0.3, 4.0),
    )


def bootstrap_seconds(resamples: int = 2000, traces: int = 3400, subsets: int = 4) -> float:
    """Return what the intervals of F1 and AUC together take, over several subsets, from statistics on."""
    rng = np.random.default_rng(0)
    samples = {}
    for place in range(subsets):
        of = design(rng, traces // subsets)
        samples[str(place)] = outcomes(of, scores(rng, of, Scorer()), Scorer().threshold)
    begin = time.perf_counter()
    statistics = {part: [function(sample) for function in FUNCTIONS.values()] for part, sample in samples.items()}
    clusters = {part: [one.cluster for one in sample] for part, sample in samples.items()}
    intervals(statistics, clusters, resamples=resamples)
    return time.perf_counter() - begin


def figures(trials: int, draws: int) -> Iterator[Figure]:
    """Yield the simulations' results, one after the other."""
    typical, weak = Scorer(), Scorer(signal=0.4, threshold=-0.3)
    better = replace(typical, signal=1.5)
    yield from coverage("one scorer", typical, trials, draws)
    yield from coverage("one weak scorer", weak, trials, draws)
    for what, metric, a, b in (
        ("two alike", "f1", typical, typical),
        ("two alike", "step_auc", typical, typical),
        ("two alike, on other scales", "step_auc", typical, replace(typical, scale=2.0)),
        ("equal AUC, unlike in kind", "step_auc", typical, unlike(typical)),
        ("equal F1, opposite thresholds", "f1", *opposite(typical)),
        ("one better", "f1", better, typical),
        ("one better", "step_auc", better, typical),
    ):
        yield comparison(what, metric, a, b, trials, draws)


def table(found: Sequence[Figure]) -> Table:
    """Return the results as a table."""
    title = f"{TRACES} traces, one to three per problem; percent of {found[0].trials:,} trials ± standard error"
    made = Table(title=title, title_justify="left")
    for heading in ("scorers", "metric", "true value or difference", "interval holds it", "test rejects", "is told"):
        made.add_column(heading, justify="left" if heading in ("scorers", "metric") else "right")
    for one in found:
        rates = (_rate(rate, one.trials) for rate in (one.covers, one.rejects, one.tells))
        made.add_row(
            one.what, one.metric, f"{one.truth:+.3f}" if one.rejects is not None else f"{one.truth:.3f}", *rates
        )
    return made


def _rate(rate: float | None, trials: int) -> str:
    return "" if rate is None else f"{100 * rate:.1f} ± {100 * np.sqrt(rate * (1 - rate) / trials):.1f}"


def main() -> None:
    """Simulate and print one table; ``--json`` for the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=999, help="resamples and swaps in each trial")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = list(figures(options.trials, options.draws))
    seconds = min(bootstrap_seconds() for _ in range(3))
    if options.json:
        print(json.dumps({"figures": [asdict(one) for one in found], "bootstrap_seconds": seconds}, indent=2))
        return
    console = Console(width=120)
    console.print(table(found))
    console.print(f"intervals of F1 and AUC, 2,000 resamples of 3,400 traces in 4 subsets: {seconds:.2f} s (best of 3)")


if __name__ == "__main__":
    main()
