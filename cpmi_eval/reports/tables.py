"""The tables that ``run`` and ``show`` print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.record.results import Coverage, Metric, Results, Rule, Total
from cpmi_eval.record.run import Run
from cpmi_eval.reports import best_of_n
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import BLANK, Cell, Column, Grid, Line, fact

COVERAGE = {"traces": "traces", "scored": "scored", "no_reference": "no ref.", "failed": "failed"}


def run_report(run: Run) -> list[Grid | Line]:
    """Say everything of one run: quality, cost, failures, and what the numbers rest on."""
    parts = (*best_of_n.tables(run.results), *_failures(run))
    return [_quality(run.results), *parts, BLANK, *_cost(run.results.cost), BLANK, *_basis(run)]


def _quality(found: Results) -> Grid:
    config, parts, results = found.config, found.coverage, found.results
    names = found.columns([found.task])
    headings = (*(spec_of(name).heading for name in names), *COVERAGE.values())
    columns = (Column("task", fold=True), *(Column(one, right=True, fold=True) for one in headings))
    counts = {name: [getattr(one, key) for key in COVERAGE] for name, one in parts.items()}
    sections = [tuple(_row(part, results[part], names, counts[part]) for part in results if part in parts)]
    if len(parts) > 1:
        total = [sum(column) for column in zip(*counts.values(), strict=True)]
        sections.append((_row(f"{found.task} (mean)", results[found.task], names, total),))
    known = any(one.interval for metrics in results.values() for one in metrics.values())
    note = (Line.of("in brackets: 95% interval, bootstrap over problems", "dim"),) if known else ()
    title = f"{config.labeler} on {found.task}" + (" (synthetic data)" if found.synthetic else "")
    return Grid(columns, tuple(sections), title, note, boxed=True)


def _row(name: str, metrics: Mapping[str, Metric], names: Sequence[str], counts: Sequence[int]) -> list[str | Cell]:
    found = [(spec_of(one).unit, metrics.get(one, Metric(None, 0))) for one in names]
    values = [Cell(fmt.in_unit(unit, one.value), beneath=fmt.interval(unit, one.interval)) for unit, one in found]
    alarms = [key in ("no_reference", "failed") and n > 0 for key, n in zip(COVERAGE, counts, strict=True)]
    cells = (Cell(fmt.count(n), "bold red" if bad else "") for n, bad in zip(counts, alarms, strict=True))
    return [name, *values, *cells]


def _cost(cost: Total) -> Iterator[Line]:
    tokens, wall = cost.tokens, cost.wall_seconds
    scoring = wall.get("score", 0.0)
    sessions = f" (over {cost.sessions} sessions)" if cost.sessions > 1 else ""
    loading = fmt.seconds(wall["total"] - scoring)
    yield fact(
        "wall time", f"{fmt.seconds(wall['total'])} = scoring {fmt.seconds(scoring)} + loading {loading}{sessions}"
    )
    if scoring and cost.waited_seconds is not None:
        share = cost.waited_seconds / scoring
        yield fact("device", f"waited {fmt.seconds(cost.waited_seconds)} of scoring for the host ({share:.0%})")
    if cost.workers is not None:
        lost = f"; {cost.worker_restarts} lost, {cost.retried_batches} batches given out again"
        yield fact("workers", f"{cost.workers}{lost if cost.worker_restarts else ''}")
    shared = ""
    if tokens.computed and scoring:
        shared = f" ({tokens.requested / tokens.computed:.1f}x fewer; {tokens.computed / scoring:,.0f} per second)"
    yield fact(
        "tokens",
        f"{tokens.requested:,} requested, {tokens.computed:,} computed{shared}, {tokens.generated:,} generated",
    )
    yield fact("memory", f"{fmt.memory(cost.peak_memory_bytes)} at peak")


def _failures(run: Run) -> Iterator[Grid | Line]:
    if not run.results.errors:
        return
    examples = {one.error.kind: one for one in reversed(run.records) if one.error}
    yield BLANK
    yield failures(
        "traces without a score (counted as misses)",
        [
            (kind, n, f"{examples[kind].id}: {error.message}")
            for kind, n in run.results.errors.items()
            if (error := examples[kind].error)
        ],
    )


def failures(title: str, kinds: Iterable[tuple[str, int, str]]) -> Grid:
    """Failures by kind: how many there are, and one of them."""
    columns = tuple(Column(heading, fold=True) for heading in ("reason", "traces", "for instance"))
    return Grid(columns, (tuple([kind, fmt.count(n), example] for kind, n, example in kinds),), title, boxed=True)


def _basis(run: Run) -> Iterator[Line]:
    """Yield the lines that say what the numbers depend on."""
    results, config = run.results, run.results.config
    facts = {
        "labeler": fmt.scorer(config.labeler, config.labeler_args)
        + (" – uses the reference answer" if results.labeler.uses_reference else ""),
        "threshold": "" if results.selects else _rule(results.threshold),
        **best_of_n.facts(results),
        "model": _model(run.model),
        "data": "; ".join(f"{one.name} @ {(one.revision or one.sha256 or '')[:12]}" for one in results.data),
        "labels": _annotated(results.coverage),
        "answers": _references(results.coverage),
        "seed": str(config.seed) + (f", limit {config.limit} per subset" if config.limit is not None else ""),
        "run": str(run.path),
    }
    for name, text in facts.items():
        if text:
            yield fact(name, text)


def _model(model: ModelDescription | None) -> str:
    if model is None:
        return "none"
    name = " ".join(filter(None, [model.model, model.version[:12]]))
    way = {"trie": "prefix sharing on", "pairwise": "prefix sharing off"}.get(model.scorer or "", model.scorer)
    return ", ".join(filter(None, [name, model.dtype, model.device, way]))


def _rule(rule: Rule) -> str:
    """Say how scores became predictions, with the cuts that were chosen."""
    cuts = [cut for part in rule.cuts.values() for cut in part]
    if rule.value is not None and not cuts:
        cuts = [rule.value]
    if not cuts:
        return f"{rule.protocol} (no decision, so no F1)"
    below = f"{min(cuts):g}" if min(cuts) == max(cuts) else f"{min(cuts):g} to {max(cuts):g}, by part and fold,"
    where = f"; chosen on {rule.held_out}, which is not reported" if rule.held_out else ""
    ceiling = "; chosen on the traces it is reported on: a ceiling" if rule.protocol == "oracle" else ""
    return f"{rule.protocol} (a step below {below} is called wrong{where}{ceiling})"


def _annotated(coverage: Mapping[str, Coverage]) -> str:
    """Say how many traces the metrics stand on, for data that is not annotated throughout."""
    return "; ".join(
        f"{name}: {one.annotated:,} of {one.traces:,} traces are annotated; metrics leave out the others"
        for name, one in coverage.items()
        if one.annotated is not None
    )


def _references(coverage: Mapping[str, Coverage]) -> str:
    """Say where reference answers came from, for tasks that join them."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{n:,} {origin.replace('_', ' ')}" for origin, n in one.references.items() if n)
        for name, one in coverage.items()
        if one.references
    )
