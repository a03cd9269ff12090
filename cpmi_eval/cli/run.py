"""``cpmi-eval run``: score a task's traces with a labeler and report quality and cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

import click
from click.core import ParameterSource

from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.cli.options import (
    BATCH_SIZE,
    CONFIG,
    FLAG,
    INTEGER,
    LIMIT,
    NAMES,
    PAIRS,
    RESUME,
    SWITCH,
    F,
    emit,
    json_option,
    option,
    progress,
    show,
)
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK, UsageError
from cpmi_eval.run import Progress, RunResult, evaluate

INTERRUPTED = "interrupted; what was scored is kept, and the same command goes on from there"


def setting(name: str, about: str, metavar: str | None = None, **attributes: Any) -> tuple[str, dict[str, Any]]:
    """A line of SETTINGS: an option's name and what click should know about it."""
    if attributes.get("default"):
        attributes["show_default"] = True
    return name, {"help": about, "metavar": metavar, **attributes}


SETTINGS = (
    setting("labeler", "What scores the steps; see `cpmi-eval ls labelers`.", "NAME"),
    setting("task", "What is scored; see `cpmi-eval ls tasks`.", "NAME"),
    setting("labeler_args", "Settings of the labeler, for instance variant=prefix,sampled=8.", type=PAIRS, default={}),
    setting("task_args", "Settings of the task, for instance n=500,max_steps=12.", type=PAIRS, default={}),
    setting("subset", "Subsets of the task; all of them if not given.", type=NAMES, default=()),
    setting("model", "See `cpmi-eval ls models`.", "NAME|hub id|path", default=DEFAULT_MODEL),
    setting("model_args", "revision, trust_remote_code, attn_implementation, row_tokens, ...", type=PAIRS, default={}),
    setting("backend", "What runs the model.", "NAME", default="hf"),
    setting("dtype", "auto: bfloat16 where it is native.", "auto|float32|...", default="auto"),
    setting("device", "Where the model runs.", "auto|cpu|cuda", default="auto"),
    setting("batch_size", "Traces that are scored together.", type=BATCH_SIZE, default="auto"),
    setting("prefix_sharing", "Read common beginnings once.", "on|off", type=SWITCH, default="on"),
    setting(
        "threshold",
        "native, fixed:x, dev:SUBSET, crossfit:K or oracle; below it a step is wrong.",
        "PROTOCOL",
        default="native",
    ),
    setting("limit", "Traces per subset, chosen at random under the seed: a number, or a share below 1.", type=LIMIT),
    setting("seed", "Of everything random.", type=INTEGER, default=0, show_default=True),
    setting("log_samples", "Keep sampled texts (rollouts, critiques) in rollouts.jsonl.", is_flag=True, type=FLAG),
    setting("data_dir", "Read <org>/<dataset>/<file> here instead of from the hub.", "DIR"),
    setting("output_path", "Run directory; by default one of this configuration's own under runs/.", "DIR"),
)
SHORTHANDS = (
    setting(
        "prm",
        "Score with a trained PRM (`cpmi-eval ls prms`); short for --labeler prm --labeler_args checkpoint=...",
        "NAME|hub id|path",
    ),
    setting(
        "prm_spec",
        "How to read that PRM, where its checkpoint does not say; short for --labeler_args spec=...",
        "NAME|FILE",
    ),
    setting("candidates", "Solutions to select among; short for --task_args candidates=FILE.", "FILE"),
    setting(
        "base_url",
        "Root of an OpenAI-compatible API, for --backend server; short for --model_args base_url=URL.",
        "URL",
    ),
    setting(
        "trust_remote_code",
        "Run code that a checkpoint brings; short for --model_args trust_remote_code=true.",
        is_flag=True,
        type=FLAG,
        default=None,
    ),
)
# What a shorthand stands for: the setting that it is a part of, and its key there.
STANDS_FOR = {
    "prm": ("labeler_args", "checkpoint"),
    "prm_spec": ("labeler_args", "spec"),
    "candidates": ("task_args", "candidates"),
    "base_url": ("model_args", "base_url"),
    "trust_remote_code": ("model_args", "trust_remote_code"),
}
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
    """Replace SHORTHANDS by what they stand for.

    Raises:
        UsageError: a shorthand beside what it stands for, or one that would do nothing.
    """
    long = {name: value for name, value in options.items() if name not in STANDS_FOR}
    if options.get("prm") is not None:
        _refuse_beside_prm()
        if options.get("labeler") not in (None, "prm"):
            raise UsageError(f"--prm and --labeler {options['labeler']} both say what scores; leave one of them out")
        long["labeler"] = "prm"
    if options.get("prm_spec") is not None and long.get("labeler") != "prm":
        raise UsageError("--prm_spec says how to read a PRM; give --prm too")
    for short, (name, key) in STANDS_FOR.items():
        if (value := options.get(short)) is not None:
            given = long[name]
            if given.get(key, value) != value:
                raise UsageError(f"{key} is given twice: {value!r}, and {given[key]!r} in --{name}")
            long[name] = {**given, key: value}
    return long


def _refuse_beside_prm() -> None:
    """Refuse options that a PRM, which is a model of its own, would make do nothing."""
    context = click.get_current_context(silent=True)
    for name in ("model", "backend"):
        if context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name} would do nothing beside --prm, which names the model; leave it out")


def check_labeler(options: Mapping[str, Any]) -> None:
    """Make sure that it is said what scores.

    Raises:
        UsageError: it is not.
    """
    if options.get("labeler") is None:
        raise UsageError("say what scores the steps: --labeler NAME (see `cpmi-eval ls labelers`) or --prm NAME|path")


@click.command()
@run_options(task={"required": True})
@WORKERS
@RAY_ADDRESS
@json_option(" instead of tables")
def run(resume: bool, as_json: bool, **options: Any) -> int:
    """Score a task's traces with a labeler; report quality, cost and failures.

    \b
    cpmi-eval run --labeler cpmi --task synthetic --limit 20
    cpmi-eval run --labeler cpmi --labeler_args variant=prefix --task processbench --subset gsm8k
    cpmi-eval run --prm Qwen/Qwen2.5-Math-PRM-7B --task processbench
    cpmi-eval run --prm path/to/checkpoint --task gsm8k --candidates solutions.jsonl
    """
    options = expand(options)
    check_labeler(options)
    with progress(fields, INTERRUPTED) as told, _for_results(options["workers"]):
        result = evaluate(**options, fresh=not resume, progress=told)
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
        emit({"path": str(result.path), **result.summary})
        return
    from cpmi_eval.reports.tables import run_report

    show(run_report(result.summary, result.rows, str(result.path)))


def fields(step: Progress) -> dict[str, Any]:
    """What the bar of a run shows."""
    rate = f"{step.computed / step.seconds:,.0f} tokens/s" if step.computed else ""
    return {"completed": step.done, "total": step.total, "description": step.phase, "rate": rate}
