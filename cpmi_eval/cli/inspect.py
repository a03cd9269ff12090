"""``cpmi-eval ls`` and ``show``: look at what exists, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cpmi_eval import registry
from cpmi_eval.cli.options import PATH, emit, json_option
from cpmi_eval.cli.options import show as shown
from cpmi_eval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from cpmi_eval.store import Store
    from cpmi_eval.types import JSON

KINDS = ("tasks", "labelers", "backends", "models", "prms")
# Of a registered kind: what is listed beside the summary, and the attribute that it is.
LISTED = {
    "tasks": ("subsets", "subsets"),
    "labelers": ("needs", "needs"),
    "backends": ("offers", "capabilities"),
}


@click.command()
@click.argument("kind", metavar="[tasks|labelers|backends|models|prms]", required=False)
@json_option()
def ls(kind: str | None, as_json: bool) -> None:
    """List what can be named: tasks, labelers, backends, models, prms, or all of them."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    others = {"models": _models, "prms": _prms}
    listed = {
        one: others[one]() if one in others else [_entry(one, name) for name in sorted(registry.entries(one))]
        for one in (KINDS if kind is None else (kind,))
    }
    if as_json:
        emit(listed if kind is None else listed[kind])
        return
    from cpmi_eval.reports.grid import Column, Grid

    shown(
        [
            Grid(
                tuple(Column(heading, fold=heading != "name") for heading in rows[0]),
                (tuple(list(row.values()) for row in rows),),
                one if kind is None else "",
                boxed=True,
            )
            for one, rows in listed.items()
        ]
    )


def _entry(kind: str, name: str) -> dict[str, str]:
    """Describe one registered thing; one that cannot be imported is listed with the reason."""
    origin = registry.entries(kind)[name].origin
    extra, attribute = LISTED[kind]
    try:
        thing = registry.load(kind, name)
    except UsageError as error:
        return {"name": name, "summary": str(error), extra: "–", "from": origin}
    names = getattr(thing, attribute)
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
@click.argument("run_dir", type=PATH)
@click.option("--trace", metavar="ID", help="Show one trace: steps coloured by score, prediction beside the label.")
@click.option(
    "--diagnostics",
    is_flag=True,
    help="Show what stands behind the numbers: baselines, error positions, calibration.",
)
@json_option()
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
        emit({"path": str(run_dir), **summary})
        return
    from cpmi_eval.reports.tables import run_report

    shown(run_report(summary, rows, str(run_dir)))


def _show_diagnostics(run_dir: Path, as_json: bool) -> None:
    from cpmi_eval.analysis.diagnostics import diagnose_run
    from cpmi_eval.records import read_run

    found = diagnose_run(read_run(run_dir))
    if as_json:
        emit({"path": str(run_dir), "diagnostics": {part: one.as_dict() for part, one in found.items()}})
        return
    from cpmi_eval.reports.diagnostics import diagnostics_report

    shown(diagnostics_report(found))


def _show_trace(store: Store, rows: list[JSON], name: str, as_json: bool) -> None:
    found = next((row for row in rows if row["id"] == name), None)
    if found is None:
        raise UnknownNameError("trace", name, [row["id"] for row in rows])
    text = store.trace(found["task"], name)
    if as_json:
        emit({**found, "trace": text})
        return
    from cpmi_eval.reports.trace import trace_report

    shown(trace_report(found, text))
