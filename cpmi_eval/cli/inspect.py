"""``cpmi-eval ls``, ``show`` and ``leaderboard``: look at what exists, without a model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpmi_eval import registry
from cpmi_eval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from cpmi_eval.store import Store
    from cpmi_eval.types import JSON

KINDS = ("tasks", "labelers", "backends", "models", "prms")


def _emit(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


@click.command()
@click.argument("kind", metavar="[tasks|labelers|backends|models|prms]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def ls(kind: str | None, as_json: bool) -> None:
    """List what can be named: tasks, labelers, backends, models, prms, or all of them."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    kinds = KINDS if kind is None else (kind,)
    others = {"models": _models, "prms": _prms}
    listed = {
        one: others[one]() if one in others else [_entry(one, name) for name in sorted(registry.entries(one))]
        for one in kinds
    }
    if as_json:
        _emit(listed if kind is None else listed[kind])
        return
    from rich.table import Table
    from rich.text import Text

    from cpmi_eval.reports.console import stdout

    for one, rows in listed.items():
        table = Table(title=one if kind is None else None, title_justify="left")
        for heading in rows[0]:
            table.add_column(heading, overflow="fold", no_wrap=heading == "name")
        for row in rows:
            table.add_row(*map(Text, row.values()))
        stdout().print(table)


def _entry(kind: str, name: str) -> dict[str, str]:
    """Describe one registered thing; one that cannot be imported is listed with the reason."""
    origin = registry.entries(kind)[name].origin
    extra = {"tasks": "subsets", "labelers": "needs", "backends": "offers"}[kind]
    try:
        thing = registry.load(kind, name)
    except UsageError as error:
        return {"name": name, "summary": str(error), extra: "–", "from": origin}
    listed = {"tasks": "subsets", "labelers": "needs", "backends": "capabilities"}[kind]
    names = getattr(thing, listed)
    words = ", ".join(names if kind == "tasks" else sorted(names)) or "–"
    return {"name": name, "summary": str(thing.summary), extra: words, "from": origin}


def _models() -> list[dict[str, str]]:
    from cpmi_eval.backends.models import DEFAULT_MODEL, PRESETS, where

    return [
        {"name": name + (" (default)" if name == DEFAULT_MODEL else ""), "summary": preset.summary, "from": where(name)}
        for name, preset in PRESETS.items()
    ] + [{"name": "org/name, folder or file.gguf", "summary": "any causal language model", "from": "hub or disk"}]


def _prms() -> list[dict[str, str]]:
    """Describe the families of process reward models that are read without a spec of the user's own."""
    from cpmi_eval.prm import specs

    return [
        {
            "name": spec.name,
            "summary": spec.summary,
            "read": f"{spec.read.at.replace('_', ' ')}, {spec.read.transform.kind}",
            "checkpoints": ", ".join(spec.checkpoints) or "–",
        }
        for spec in map(specs.load, specs.names())
    ]


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--trace", metavar="ID", help="Show one trace: steps coloured by score, prediction beside the label.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(run_dir: Path, trace: str | None, as_json: bool) -> None:
    """Show a finished run's tables, or one of its traces."""
    from cpmi_eval.store import Store, parse_rows, read_json, read_results

    store = Store(run_dir)
    read_json(store.manifest_path)
    data = store.samples_path.read_bytes() if store.samples_path.exists() else b""
    rows = parse_rows(data[: data.rfind(b"\n") + 1], store.samples_path)
    if trace is not None:
        _show_trace(store, rows, trace, as_json)
        return
    summary = read_results(run_dir)
    if as_json:
        _emit({"path": str(run_dir), **summary})
        return
    from cpmi_eval.reports.console import stdout
    from cpmi_eval.reports.tables import run_report

    stdout().print(run_report(summary, rows, str(run_dir)))


def _show_trace(store: Store, rows: list[JSON], name: str, as_json: bool) -> None:
    found = next((row for row in rows if row["id"] == name), None)
    if found is None:
        raise UnknownNameError("trace", name, [row["id"] for row in rows])
    text = store.trace(found["task"], name)
    if as_json:
        _emit({**found, "trace": text})
        return
    from cpmi_eval.reports.console import stdout
    from cpmi_eval.reports.trace import trace_report

    stdout().print(trace_report(found, text))


@click.command()
@click.argument("run_dirs", type=click.Path(path_type=Path), nargs=-1, metavar="[RUN_DIR...]")
@click.option(
    "--sort",
    metavar="NAME",
    help="A metric, or wall_seconds, computed, generated.  [default: f1, or bon@N where solutions are selected]",
)
@click.option("--published", is_flag=True, help="Add results that others published, with their sources; never ranked.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def leaderboard(run_dirs: tuple[Path, ...], sort: str | None, published: bool, as_json: bool) -> None:
    """Rank finished runs; runs over other traces or data get a board of their own.

    With --published also what others report on the same tasks; without runs, all that is known of it.
    """
    from cpmi_eval.leaderboards.board import boards, main_metric, ranked, read_row
    from cpmi_eval.leaderboards.published import names, read

    if not run_dirs and not published:
        raise UsageError("name the runs to rank (RUN_DIR...), or ask for --published results")
    groups = boards(read_row(path) for path in run_dirs)
    orders = [sort or main_metric(group) for group in groups]
    wanted = dict.fromkeys(group[0].task for group in groups) if groups else names()
    references = [rows for name in wanted if (rows := read(name))] if published else []
    if as_json:
        measured = [
            [{"rank": rank, **asdict(row), "oracle": row.oracle} for rank, row in ranked(group, by)]
            for group, by in zip(groups, orders, strict=True)
        ]
        _emit({"boards": measured, "published": [list(map(asdict, rows)) for rows in references]})
        return
    from cpmi_eval.reports.console import stdout
    from cpmi_eval.reports.published import published_table
    from cpmi_eval.reports.tables import leaderboard as table

    for group, by in zip(groups, orders, strict=True):
        stdout().print(table(group, by))
    for rows in references:
        stdout().print(published_table(rows))
