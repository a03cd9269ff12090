"""The tables that ``run`` and ``show`` print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cpmi_eval.description import ModelDescription
from cpmi_eval.description import read as read_model
from cpmi_eval.reports import best_of_n
from cpmi_eval.reports import format as fmt
from cpmi_eval.types import JSON

HEADINGS = {"step_auc": "AUC", "outcome_auc": "AUC", "f1": "F1", "acc_error": "acc err.", "acc_correct": "acc corr."}


def run_report(summary: JSON, rows: Sequence[JSON], path: str) -> Group:
    """Return everything one run has to say: quality, cost, failures, and what the numbers rest on."""
    parts = (*best_of_n.tables(summary), *_failures(summary, rows), "", *_cost(summary), "", *_basis(summary, path))
    return Group(_quality(summary), *parts)


def _quality(summary: JSON) -> Table:
    config = summary["config"]
    title = f"{config['labeler']} on {config['task']}" + (" (synthetic data)" if summary["synthetic"] else "")
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    names = [name for name, metric in summary["results"][config["task"]].items() if not metric.get("detail")]
    for name in names:
        table.add_column(HEADINGS.get(name, name), justify="right")
    for heading in ("traces", "scored", "no ref.", "failed"):
        table.add_column(heading, justify="right")
    parts = summary["coverage"]
    for task, metrics in summary["results"].items():
        if task in parts:
            coverage = parts[task]
        elif len(parts) > 1:
            coverage = {key: sum(part[key] for part in parts.values()) for key in _COVERAGE}
            table.add_section()
            task = f"{task} (mean)"
        else:
            continue
        cells = [_with_interval(name, metrics.get(name, {})) for name in names]
        table.add_row(task, *cells, *(_counted(key, coverage[key]) for key in _COVERAGE))
    if any("interval" in one for metrics in summary["results"].values() for one in metrics.values()):
        table.caption, table.caption_justify = "in brackets: 95% interval, bootstrap over problems", "left"
    return table


def _with_interval(name: str, metric: JSON) -> Text:
    """Return a value with its interval beneath."""
    bounds = fmt.interval(name, metric.get("interval"))
    return Text.assemble(fmt.metric(name, metric.get("value")), *([("\n" + bounds, "dim")] if bounds else []))


_COVERAGE = ("traces", "scored", "no_reference", "failed")


def _counted(key: str, value: int) -> Text:
    alarming = key in ("no_reference", "failed") and value > 0
    return Text(fmt.count(value), style="bold red" if alarming else "")


def _cost(summary: JSON) -> Iterator[Text]:
    cost = summary["cost"]
    tokens, wall = cost["tokens"], cost["wall_seconds"]
    requested, computed, generated = tokens["requested"], tokens["computed"], tokens["generated"]
    scoring = wall.get("score", 0.0)
    sessions = f" (over {cost['sessions']} sessions)" if cost["sessions"] > 1 else ""
    loading = fmt.seconds(wall["total"] - scoring)
    yield _fact(
        "wall time", f"{fmt.seconds(wall['total'])} = scoring {fmt.seconds(scoring)} + loading {loading}{sessions}"
    )
    if scoring and cost.get("waited_seconds") is not None:
        waited = cost["waited_seconds"]
        yield _fact("device", f"waited {fmt.seconds(waited)} of scoring for the host ({waited / scoring:.0%})")
    if "workers" in cost:
        lost = f"; {cost['worker_restarts']} lost, {cost['retried_batches']} batches given out again"
        yield _fact("workers", f"{cost['workers']}{lost if cost['worker_restarts'] else ''}")
    shared = ""
    if computed and scoring:
        shared = f" ({requested / computed:.1f}x fewer; {computed / scoring:,.0f} per second)"
    yield _fact("tokens", f"{requested:,} requested, {computed:,} computed{shared}, {generated:,} generated")
    yield _fact("memory", f"{fmt.memory(cost['peak_memory_bytes'])} at peak")


def _fact(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<10}", "dim"), text)


def _failures(summary: JSON, rows: Sequence[JSON]) -> Iterator[Any]:
    if not summary["errors"]:
        return
    table = Table(title="traces without a score (counted as misses)", title_justify="left")
    for heading in ("reason", "traces", "for instance"):
        table.add_column(heading, overflow="fold")
    for kind, n in summary["errors"].items():
        example = next(row for row in rows if row["error"] and row["error"]["kind"] == kind)
        table.add_row(kind, fmt.count(n), Text(f"{example['id']}: {example['error']['message']}"))
    yield ""
    yield table


def _basis(summary: JSON, path: str) -> Iterator[Text]:
    """Yield the lines that say what the numbers depend on."""
    config, rule = summary["config"], summary["threshold"]
    facts = {
        "labeler": " ".join(filter(None, [config["labeler"], fmt.settings(config["labeler_args"])]))
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
            yield _fact(name, text)


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
