"""``cpmi-eval generate``: solutions for scorers to select among."""

from __future__ import annotations

from typing import Any

import click

from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.cli.options import (
    BATCH_SIZE,
    CONFIG,
    INTEGER,
    PAIRS,
    RESUME,
    SWITCH,
    Parsed,
    emit,
    json_option,
    option,
    progress,
    say,
)
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK
from cpmi_eval.settings import scalar

INTERRUPTED = "interrupted; what was drawn is kept, and the same command goes on from there"
VALUE = Parsed("value", scalar)


@click.command(name="generate")
@option("task", required=True, metavar="NAME", help="Whose problems: gsm8k, math or a plug-in.")
@option("to", required=True, metavar="FILE", help="The file of candidates.")
@option("subset", default="test", show_default=True, help="gsm8k: test, train; math: test, math500.")
@option("n", type=INTEGER, default=4, show_default=True, help="Solutions per problem.")
@option("limit", type=INTEGER, help="That many problems, chosen at random under the seed.")
@option("shots", type=INTEGER, default=0, show_default=True, help="Solved problems of the training split put first.")
@option(
    "chat", type=VALUE, metavar="auto|true|false", default="auto", show_default=True, help="Through the chat template."
)
@option("prompt", metavar="FILE", help="A text with {problem} instead of the built-in request.")
@option("temperature", type=VALUE, default=0.7, show_default=True, help="0 is greedy.")
@option("top_p", type=VALUE, default=0.95, show_default=True, help="Of nucleus sampling.")
@option("top_k", type=INTEGER, default=0, show_default=True, help="0 is off.")
@option("repetition_penalty", type=VALUE, default=1.0, show_default=True, help="1 is off.")
@option("max_new_tokens", type=INTEGER, default=1024, show_default=True, help="Longest solution.")
@option("model", metavar="NAME|hub id|path", default=DEFAULT_MODEL, show_default=True, help="What solves them.")
@option("model_args", type=PAIRS, default={}, help="revision, trust_remote_code, attn_implementation, slots, ...")
@option("backend", metavar="NAME", default="hf", show_default=True, help="What runs the model.")
@option("dtype", metavar="auto|float32|...", default="auto", show_default=True, help="Of the model.")
@option("device", metavar="auto|cpu|cuda", default="auto", show_default=True, help="Where the model runs.")
@option(
    "prefix_sharing",
    type=SWITCH,
    metavar="on|off",
    default="on",
    show_default=True,
    help="Read common beginnings once.",
)
@option("batch_size", type=BATCH_SIZE, default="auto", show_default=True, help="Problems that are solved together.")
@option("seed", type=INTEGER, default=0, show_default=True, help="Of everything random.")
@option("data_dir", metavar="DIR", help="Read <org>/<dataset>/<file> here instead of from the hub.")
@CONFIG
@RESUME
@json_option(" instead of a summary")
def generate_command(resume: bool, as_json: bool, **options: Any) -> int:
    """Sample solutions of a benchmark's problems, to select among.

    \b
    cpmi-eval generate --task gsm8k --n 4 --limit 100 --to solutions.jsonl
    cpmi-eval run --prm my-prm --task gsm8k --candidates solutions.jsonl

    FILE gets a line per problem, FILE.json says how it was made. A problem that the model cannot be given (too long)
    has no candidates and is listed in FILE.failed.jsonl (exit code 1). The same command goes on where it was
    interrupted.
    """
    from cpmi_eval.generate import GenerateConfig, generate

    config = GenerateConfig(**options)
    with progress(_fields, INTERRUPTED) as told:
        made = generate(config, fresh=not resume, progress=told)
    if as_json:
        emit({"path": str(made.path), **made.about})
    else:
        _print(str(made.path), made.about)
    return EXIT_FAILED_ROWS if made.failures else EXIT_OK


def _fields(done: int, total: int, tokens: int, seconds: float) -> dict[str, Any]:
    rate = f"{tokens / seconds:,.0f} tokens/s"
    return {"completed": done, "total": total, "description": "sampling", "rate": rate}


def _print(path: str, about: dict[str, Any]) -> None:
    counts, tokens, seconds = about["counts"], about["tokens"].get("generated", 0), about["wall_seconds"]
    share = "–" if counts["pass@1"] is None else f"{100 * counts['pass@1']:.1f}"
    cut = counts["cut_off"] / counts["candidates"] if counts["candidates"] else 0.0
    say(f"{path}: {counts['candidates']:,} solutions of {counts['problems']:,} problems, pass@1 {share}")
    say(
        f"{tokens:,} tokens generated in {seconds:.1f} s ({tokens / seconds:,.0f} per second); {100 * cut:.1f}% cut "
        f"off at {about['config']['max_new_tokens']} tokens"
    )
    for kind, n in counts["failed"].items():
        say(f"{n} problems without a solution: {kind}, listed in {path}.failed.jsonl")
