"""The tables that ``run`` and ``show`` print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cpmi_eval.description import ModelDescription
from cpmi_eval.description import read as read_model
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.reports import best_of_n
from cpmi_eval.reports import format as fmt
from cpmi_eval.reports.grid import BLANK, Cell, Column, Grid, Line, fact
from cpmi_eval.types import JSON

COVERAGE = {"traces": "traces", "scored": "scored", "no_reference": "no ref.", "failed": "failed"}


def run_report(summary: JSON, rows: Sequence[JSON], path: str) -> list[Grid | Line]:
    """Say everything of one run: quality, cost, failures, and what the numbers rest on."""
    parts = (*best_of_n.tables(summary), *_failures(summary, rows))
    return [_quality(summary), *parts, BLANK, *_cost(summary), BLANK, *_basis(summary, path)]


def _quality(summary: JSON) -> Grid:
    config, parts, results = summary["config"], summary["coverage"], summary["results"]
    names = [name for name, metric in results[config["task"]].items() if not metric.get("detail")]
    headings = (*(spec_of(name).heading for name in names), *COVERAGE.values())
    columns = (Column("task", fold=True), *(Column(one, right=True, fold=True) for one in headings))
    sections = [tuple(_row(part, results[part], names, parts[part]) for part in results if part in parts)]
    if len(parts) > 1:
        total = {key: sum(one[key] for one in parts.values()) for key in COVERAGE}
        sections.append((_row(f"{config['task']} (mean)", results[config["task"]], names, total),))
    known = any("interval" in one for metrics in results.values() for one in metrics.values())
    note = (Line.of("in brackets: 95% interval, bootstrap over problems", "dim"),) if known else ()
    title = f"{config['labeler']} on {config['task']}" + (" (synthetic data)" if summary["synthetic"] else "")
    return Grid(columns, tuple(sections), title, note, boxed=True)


def _row(name: str, metrics: JSON, names: Sequence[str], coverage: JSON) -> list[str | Cell]:
    found = [(spec_of(one).unit, metrics.get(one, {})) for one in names]
    values = [
        Cell(fmt.in_unit(unit, one.get("value")), beneath=fmt.interval(unit, one.get("interval")))
        for unit, one in found
    ]
    alarms = {key: key in ("no_reference", "failed") and coverage[key] > 0 for key in COVERAGE}
    return [name, *values, *(Cell(fmt.count(coverage[key]), "bold red" if bad else "") for key, bad in alarms.items())]


def _cost(summary: JSON) -> Iterator[Line]:
    cost = summary["cost"]
    tokens, wall = cost["tokens"], cost["wall_seconds"]
    requested, computed, generated = tokens["requested"], tokens["computed"], tokens["generated"]
    scoring = wall.get("score", 0.0)
    sessions = f" (over {cost['sessions']} sessions)" if cost["sessions"] > 1 else ""
    loading = fmt.seconds(wall["total"] - scoring)
    yield fact(
        "wall time", f"{fmt.seconds(wall['total'])} = scoring {fmt.seconds(scoring)} + loading {loading}{sessions}"
    )
    if scoring and cost.get("waited_seconds") is not None:
        waited = cost["waited_seconds"]
        yield fact("device", f"waited {fmt.seconds(waited)} of scoring for the host ({waited / scoring:.0%})")
    if "workers" in cost:
        lost = f"; {cost['worker_restarts']} lost, {cost['retried_batches']} batches given out again"
        yield fact("workers", f"{cost['workers']}{lost if cost['worker_restarts'] else ''}")
    shared = ""
    if computed and scoring:
        shared = f" ({requested / computed:.1f}x fewer; {computed / scoring:,.0f} per second)"
    yield fact("tokens", f"{requested:,} requested, {computed:,} computed{shared}, {generated:,} generated")
    yield fact("memory", f"{fmt.memory(cost['peak_memory_bytes'])} at peak")


def _failures(summary: JSON, rows: Sequence[JSON]) -> Iterator[Grid | Line]:
    if not summary["errors"]:
        return
    examples = {
        kind: next(row for row in rows if row["error"] and row["error"]["kind"] == kind) for kind in summary["errors"]
    }
    yield BLANK
    yield failures(
        "traces without a score (counted as misses)",
        [
            (kind, n, f"{examples[kind]['id']}: {examples[kind]['error']['message']}")
            for kind, n in summary["errors"].items()
        ],
    )


def failures(title: str, kinds: Iterable[tuple[str, int, str]]) -> Grid:
    """Failures by kind: how many there are, and one of them."""
    columns = tuple(Column(heading, fold=True) for heading in ("reason", "traces", "for instance"))
    return Grid(columns, (tuple([kind, fmt.count(n), example] for kind, n, example in kinds),), title, boxed=True)


def _basis(summary: JSON, path: str) -> Iterator[Line]:
    """Yield the lines that say what the numbers depend on."""
    config, rule = summary["config"], summary["threshold"]
    facts = {
        "labeler": fmt.scorer(config["labeler"], config["labeler_args"])
        + (" – uses the reference answer" if summary["labeler"]["uses_reference"] else ""),
        "threshold": "" if summary.get("selects") else _rule(rule),
        **best_of_n.facts(summary),
        "model": _model(read_model(summary["model"], Path(path) / "results.json")),
        "data": "; ".join(_source(one) for one in summary["data"]),
        "labels": _annotated(summary["coverage"]),
        "answers": _references(summary["coverage"]),
        "seed": str(config["seed"]) + (f", limit {config['limit']} per subset" if config["limit"] is not None else ""),
        "run": path,
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


def _rule(rule: JSON) -> str:
    """Say how scores became predictions, with the cuts that were chosen."""
    if rule["value"] is None and not rule.get("cuts"):
        return f"{rule['protocol']} (no decision, so no F1)"
    cuts = [cut for part in rule.get("cuts", {}).values() for cut in part] or [rule["value"]]
    below = f"{min(cuts):g}" if min(cuts) == max(cuts) else f"{min(cuts):g} to {max(cuts):g}, by part and fold,"
    where = f"; chosen on {rule['held_out']}, which is not reported" if rule.get("held_out") else ""
    ceiling = "; chosen on the traces it is reported on: a ceiling" if rule["protocol"] == "oracle" else ""
    return f"{rule['protocol']} (a step below {below} is called wrong{where}{ceiling})"


def _annotated(coverage: JSON) -> str:
    """Say how many traces the metrics stand on, for data that is not annotated throughout."""
    return "; ".join(
        f"{name}: {counts['annotated']:,} of {counts['traces']:,} traces are annotated; metrics leave out the others"
        for name, counts in coverage.items()
        if "annotated" in counts
    )


def _references(coverage: JSON) -> str:
    """Say where reference answers came from, for tasks that join them."""
    parts = [
        f"{name}: " + ", ".join(f"{n:,} {origin.replace('_', ' ')}" for origin, n in counts["references"].items() if n)
        for name, counts in coverage.items()
        if "references" in counts
    ]
    return "; ".join(parts)


def _source(one: JSON) -> str:
    mark = one["revision"] or one["sha256"] or ""
    return f"{one['name']} @ {mark[:12]}"
