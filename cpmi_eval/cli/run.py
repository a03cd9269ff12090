"""``cpmi-eval run``: score a task's traces with a labeler and report quality and cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.cli.options import (
    BATCH_SIZE,
    FLAG,
    INTEGER,
    LIMIT,
    NAMES,
    PAIRS,
    SWITCH,
    F,
    from_config_file,
    option,
    stderr_is_terminal,
)
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_INTERRUPTED, EXIT_OK, UsageError
from cpmi_eval.run import Progress, RunResult, evaluate

HELP = """Score a task's traces with a labeler; report quality, cost and failures.

\b
cpmi-eval run --labeler cpmi --task synthetic --limit 20
cpmi-eval run --labeler cpmi --labeler_args variant=prefix --task processbench --subset gsm8k
cpmi-eval run --prm Qwen/Qwen2.5-Math-PRM-7B --task processbench
cpmi-eval run --prm path/to/checkpoint --task gsm8k --candidates solutions.jsonl
"""
INTERRUPTED = "interrupted; what was scored is kept, and the same command goes on from there"


def setting(name: str, **attributes: Any) -> tuple[str, dict[str, Any]]:
    """Return a line of SETTINGS: an option's name and what click should know about it."""
    return name, attributes


SETTINGS = (
    setting("labeler", metavar="NAME", help="What scores the steps; see `cpmi-eval ls labelers`."),
    setting("task", metavar="NAME", help="What is scored; see `cpmi-eval ls tasks`."),
    setting(
        "labeler_args", type=PAIRS, default={}, help="Settings of the labeler, for instance variant=prefix,sampled=8."
    ),
    setting("task_args", type=PAIRS, default={}, help="Settings of the task, for instance n=500,max_steps=12."),
    setting("subset", type=NAMES, default=(), help="Subsets of the task; all of them if not given."),
    setting(
        "model", metavar="NAME|hub id|path", default=DEFAULT_MODEL, show_default=True, help="See `cpmi-eval ls models`."
    ),
    setting(
        "model_args", type=PAIRS, default={}, help="revision, trust_remote_code, attn_implementation, row_tokens, ..."
    ),
    setting("backend", metavar="NAME", default="hf", show_default=True, help="What runs the model."),
    setting(
        "dtype",
        metavar="auto|float32|...",
        default="auto",
        show_default=True,
        help="auto: bfloat16 where it is native.",
    ),
    setting("device", metavar="auto|cpu|cuda", default="auto", show_default=True, help="Where the model runs."),
    setting("batch_size", type=BATCH_SIZE, default="auto", show_default=True, help="Traces that are scored together."),
    setting(
        "prefix_sharing",
        type=SWITCH,
        metavar="on|off",
        default="on",
        show_default=True,
        help="Read common beginnings once.",
    ),
    setting(
        "threshold",
        metavar="PROTOCOL",
        default="native",
        show_default=True,
        help="native, fixed:x, dev:SUBSET, crossfit:K or oracle; below it a step is wrong.",
    ),
    setting(
        "limit", type=LIMIT, help="Traces per subset, chosen at random under the seed: a number, or a share below 1."
    ),
    setting("seed", type=INTEGER, default=0, show_default=True, help="Of everything random."),
    setting("log_samples", is_flag=True, type=FLAG, help="Keep sampled texts (rollouts, critiques) in rollouts.jsonl."),
    setting("data_dir", metavar="DIR", help="Read <org>/<dataset>/<file> here instead of from the hub."),
    setting(
        "output_path", metavar="DIR", help="Run directory; by default one of this configuration's own under runs/."
    ),
)
SHORTHANDS = (
    setting(
        "prm",
        metavar="NAME|hub id|path",
        help="Score with a trained PRM (`cpmi-eval ls prms`); short for --labeler prm --labeler_args checkpoint=...",
    ),
    setting(
        "prm_spec",
        metavar="NAME|FILE",
        help="How to read that PRM, where its checkpoint does not say; short for --labeler_args spec=...",
    ),
    setting("candidates", metavar="FILE", help="Solutions to select among; short for --task_args candidates=FILE."),
    setting(
        "base_url",
        metavar="URL",
        help="Root of an OpenAI-compatible API, for --backend server; short for --model_args base_url=URL.",
    ),
    setting(
        "trust_remote_code",
        is_flag=True,
        type=FLAG,
        default=None,
        help="Run code that a checkpoint brings; short for --model_args trust_remote_code=true.",
    ),
)
CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=from_config_file,
    help="YAML or JSON with any of these options, or a run's manifest.json.",
)
RESUME = click.option("--resume/--fresh", default=True, help="Go on where this run stopped (default), or set it aside.")


WORKERS = option(
    "workers",
    type=INTEGER,
    metavar="N",
    help="Score on N Ray workers, each with a model of its own: one per GPU, else sharing the CPUs.",
)
RAY_ADDRESS = option(
    "ray_address",
    metavar="auto|host:port",
    help="Ray cluster that the workers run on; by default one on this machine, for the run.",
)


def run_options(**changes: Mapping[str, Any] | None) -> Callable[[F], F]:
    """Declare the settings of a run: for ``run``, and for commands that run something on the way.

    Args:
        changes: attributes in which an option of the command differs, by its name; ``None`` leaves it out.
    """
    declared = [
        option(name, **{**attributes, **(changes.get(name) or {})})
        for name, attributes in (*SETTINGS, *SHORTHANDS)
        if changes.get(name, attributes) is not None
    ]

    def declare(command: F) -> F:
        for one in reversed([*declared, CONFIG, RESUME]):  # decorators apply from the last to the first
            command = one(command)
        return command

    return declare


def expand(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run with what SHORTHANDS stand for.

    Raises:
        UsageError: a shorthand beside what it stands for, or one that would do nothing.
    """
    long = {name: value for name, value in options.items() if name not in dict(SHORTHANDS)}
    prm, spec = options.get("prm"), options.get("prm_spec")
    if prm is not None:
        _refuse_beside_prm()
        if options.get("labeler") not in (None, "prm"):
            raise UsageError(f"--prm and --labeler {options['labeler']} both say what scores; leave one of them out")
        long["labeler"] = "prm"
        long["labeler_args"] = _added(long["labeler_args"], "labeler_args", checkpoint=prm)
    if spec is not None:
        if long.get("labeler") != "prm":
            raise UsageError("--prm_spec says how to read a PRM; give --prm too")
        long["labeler_args"] = _added(long["labeler_args"], "labeler_args", spec=spec)
    if options.get("candidates") is not None:
        long["task_args"] = _added(long["task_args"], "task_args", candidates=options["candidates"])
    if options.get("base_url") is not None:
        long["model_args"] = _added(long["model_args"], "model_args", base_url=options["base_url"])
    if options.get("trust_remote_code") is not None:
        trusted = options["trust_remote_code"]
        long["model_args"] = _added(long["model_args"], "model_args", trust_remote_code=trusted)
    return long


def _refuse_beside_prm() -> None:
    """Refuse options that a PRM, which is a model of its own, would make do nothing."""
    context = click.get_current_context(silent=True)
    for name in ("model", "backend"):
        if context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name} would do nothing beside --prm, which names the model; leave it out")


def _added(given: Mapping[str, Any], name: str, **more: Any) -> dict[str, Any]:
    for key, value in more.items():
        if given.get(key, value) != value:
            raise UsageError(f"{key} is given twice: {value!r}, and {given[key]!r} in --{name}")
    return {**given, **more}


def check_labeler(options: Mapping[str, Any]) -> None:
    """Make sure that it is said what scores.

    Raises:
        UsageError: it is not.
    """
    if options.get("labeler") is None:
        raise UsageError("say what scores the steps: --labeler NAME (see `cpmi-eval ls labelers`) or --prm NAME|path")


@click.command(help=HELP)
@run_options(task={"required": True})
@WORKERS
@RAY_ADDRESS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
def run(resume: bool, as_json: bool, **options: Any) -> int:
    """Score a task's traces with a labeler; report quality, cost and failures."""
    options = expand(options)
    check_labeler(options)
    try:
        with drawn_progress() as progress, _for_results(options["workers"]):
            result = evaluate(**options, fresh=not resume, progress=progress)
    except KeyboardInterrupt:
        click.echo(INTERRUPTED, err=True)
        return EXIT_INTERRUPTED
    print_result(result, as_json)
    return EXIT_FAILED_ROWS if result.failed else EXIT_OK


@contextmanager
def _for_results(workers: int | None) -> Iterator[None]:
    """Keep stdout for results: Ray prints there what it has to say of lost workers."""
    with nullcontext() if workers is None else redirect_stdout(sys.stderr):
        yield


def print_result(result: RunResult, as_json: bool) -> None:
    """Print a run: its tables, or one JSON document."""
    if as_json:
        click.echo(json.dumps({"path": str(result.path), **result.summary}, indent=2, ensure_ascii=False))
        return
    from cpmi_eval.reports.console import stdout
    from cpmi_eval.reports.tables import run_report

    stdout().print(run_report(result.summary, result.rows, str(result.path)))


@contextmanager
def drawn_progress() -> Iterator[Callable[[Progress], None] | None]:
    """Draw a bar with rate and remaining time on stderr, where that is a terminal."""
    if not stderr_is_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None, rate="")

        def update(step: Progress) -> None:
            rate = f"{step.computed / step.seconds:,.0f} tokens/s" if step.computed else ""
            bar.update(task, completed=step.done, total=step.total, description=step.phase, rate=rate)

        yield update
