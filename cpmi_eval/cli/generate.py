"""``cpmi-eval generate``: solutions for scorers to select among."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.cli.options import BATCH_SIZE, INTEGER, PAIRS, Parsed, option, stderr_is_terminal
from cpmi_eval.cli.run import CONFIG, RESUME
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_INTERRUPTED, EXIT_OK
from cpmi_eval.settings import scalar

HELP = """Sample solutions of a benchmark's problems, to select among.

\b
cpmi-eval generate --task gsm8k --n 4 --limit 100 --to solutions.jsonl
cpmi-eval run --prm my-prm --task gsm8k --candidates solutions.jsonl

FILE gets a line per problem, FILE.json says how it was made. A problem that the model cannot be given (too long) has no
candidates and is listed in FILE.failed.jsonl (exit code 1). The same command goes on where it was interrupted.
"""
VALUE = Parsed("value", scalar)


@click.command(name="generate", help=HELP)
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
@option("scorer", metavar="trie|pairwise", default="trie", show_default=True, help="trie shares prefixes.")
@option("batch_size", type=BATCH_SIZE, default="auto", show_default=True, help="Problems that are solved together.")
@option("seed", type=INTEGER, default=0, show_default=True, help="Of everything random.")
@option("data_dir", metavar="DIR", help="Read <org>/<dataset>/<file> here instead of from the hub.")
@CONFIG
@RESUME
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a summary.")
def generate_command(resume: bool, as_json: bool, **options: Any) -> int:
    """Sample solutions of a benchmark's problems, to select among."""
    from cpmi_eval.generate import GenerateConfig, generate

    config = GenerateConfig(**options)
    try:
        with drawn_problems() as progress:
            made = generate(config, fresh=not resume, progress=progress)
    except KeyboardInterrupt:
        click.echo("interrupted; what was drawn is kept, and the same command goes on from there", err=True)
        return EXIT_INTERRUPTED
    if as_json:
        click.echo(json.dumps({"path": str(made.path), **made.about}, indent=2, ensure_ascii=False))
    else:
        _print(str(made.path), made.about)
    return EXIT_FAILED_ROWS if made.failures else EXIT_OK


def _print(path: str, about: dict[str, Any]) -> None:
    counts, tokens, seconds = about["counts"], about["tokens"].get("generated", 0), about["wall_seconds"]
    share = "–" if counts["pass@1"] is None else f"{100 * counts['pass@1']:.1f}"
    cut = counts["cut_off"] / counts["candidates"] if counts["candidates"] else 0.0
    click.echo(f"{path}: {counts['candidates']:,} solutions of {counts['problems']:,} problems, pass@1 {share}")
    click.echo(
        f"{tokens:,} tokens generated in {seconds:.1f} s ({tokens / seconds:,.0f} per second); {100 * cut:.1f}% cut "
        f"off at {about['config']['max_new_tokens']} tokens"
    )
    for kind, n in counts["failed"].items():
        click.echo(f"{n} problems without a solution: {kind}, listed in {path}.failed.jsonl")


@contextmanager
def drawn_problems() -> Iterator[Callable[[int, int, int, float], None] | None]:
    """Draw a bar of problems on stderr, where that is a terminal."""
    if not stderr_is_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sampling", total=None)

        def update(done: int, total: int, tokens: int, seconds: float) -> None:
            bar.update(task, completed=done, total=total, description=f"sampling, {tokens / seconds:,.0f} tokens/s")

        yield update
