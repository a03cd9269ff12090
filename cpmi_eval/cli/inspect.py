"""``cpmi-eval ls`` and ``show``: look at what exists, without a model."""

from __future__ import annotations

import json
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
@click.option(
    "--diagnostics",
    is_flag=True,
    help="Show what stands behind the numbers: baselines, error positions, calibration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(run_dir: Path, trace: str | None, diagnostics: bool, as_json: bool) -> None:
    """Show a finished run's tables, its diagnostics, or one of its traces."""
    if diagnostics and trace is not None:
        raise UsageError("--diagnostics is of a whole run and --trace of one of its traces; give one of the two")
    if diagnostics:
        _show_diagnostics(run_dir, as_json)
        return
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


def _show_diagnostics(run_dir: Path, as_json: bool) -> None:
    from cpmi_eval.metrics.diagnostics import diagnose_run
    from cpmi_eval.records import read_run

    found = {part: one.as_dict() for part, one in diagnose_run(read_run(run_dir)).items()}
    if as_json:
        _emit({"path": str(run_dir), "diagnostics": found})
        return
    from cpmi_eval.reports.console import stdout
    from cpmi_eval.reports.diagnostics import report

    stdout().print(report(found))


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
