"""``cpmi-eval train``: a process reward model from a file of step labels."""

from __future__ import annotations

from typing import Any

import click

from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.cli.options import (
    CONFIG,
    INTEGER,
    PAIRS,
    RESUME,
    Parsed,
    emit,
    json_option,
    option,
    progress,
    say,
)
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK
from cpmi_eval.export.labels import FORMATS
from cpmi_eval.settings import scalar
from cpmi_eval.training.config import TrainConfig
from cpmi_eval.training.train import LEFT_OUT, Trained, train

INTERRUPTED = "interrupted; the same command goes on from the last checkpoint"
NUMBER = Parsed("number", scalar)


@click.command(name="train")
@option("labels", required=True, metavar="FILE", help="What `cpmi-eval label` wrote, or a file of the same form.")
@click.option("--format", "form", required=True, metavar="|".join(FORMATS), help="Its format.")
@option("to", required=True, metavar="DIR", help="The folder of the PRM.")
@option(
    "model", metavar="NAME|hub id|path", default=DEFAULT_MODEL, show_default=True, help="What the training starts from."
)
@option("prm_spec", metavar="NAME|FILE", default="trl", show_default=True, help="How inputs are built and read.")
@option("threshold", type=NUMBER, help="Make soft labels hard: a step is good from this score on.")
@option("epochs", type=NUMBER, default=1.0, show_default=True, help="Passes over the examples.")
@option("learning_rate", type=NUMBER, help="At its peak.  [default: 5e-5; with --lora 5e-4]")
@option("batch_size", type=INTEGER, default=8, show_default=True, help="Examples per forward pass.")
@option("gradient_accumulation", type=INTEGER, default=1, show_default=True, help="Forward passes per update.")
@option("warmup", type=NUMBER, default=0.05, show_default=True, help="Share of the updates.")
@option("weight_decay", type=NUMBER, default=0.0, show_default=True, help="Of AdamW.")
@option("max_length", type=INTEGER, help="Tokens; longer examples are left out and listed.  [default: the model's]")
@option("eval_share", type=NUMBER, default=0.1, show_default=True, help="Share of the problems to evaluate on.")
@option("lora", type=PAIRS, default={}, help="Train adapters only: r=16,alpha=32,dropout=0; merged at the end.")
@option("save_steps", type=INTEGER, default=100, show_default=True, help="Updates between checkpoints.")
@option("dtype", metavar="auto|float32|...", default="auto", show_default=True, help="Of the computation.")
@option("device", metavar="auto|cpu|cuda", default="auto", show_default=True, help="Where the model is trained.")
@option("seed", type=INTEGER, default=0, show_default=True, help="Of head, order and split.")
@CONFIG
@RESUME
@json_option(" instead of a summary")
def train_command(resume: bool, as_json: bool, **options: Any) -> int:
    """Train a PRM on labelled steps; `cpmi-eval run --prm DIR` needs nothing else.

    \b
    cpmi-eval train --labels scores.jsonl --format scores --to my-prm
    cpmi-eval train --labels labels.jsonl --format trl --lora r=16 --epochs 2 --to my-prm

    A two-class head is fitted at the position after each step. Inputs are built by the spec that is saved with it. Soft
    labels (--format scores) must be between 0 and 1, or are made hard by --threshold. A killed training goes on from
    its last checkpoint when the same command is given again.
    """
    config = TrainConfig(**options)
    with progress(_fields, INTERRUPTED) as told:
        trained = train(config, fresh=not resume, progress=told)
    if as_json:
        emit({"path": str(trained.path), **trained.about})
    else:
        _print(trained)
    return EXIT_FAILED_ROWS if trained.left_out else EXIT_OK


def _fields(phase: str, done: int, total: int) -> dict[str, Any]:
    return {"description": phase, "completed": done, "total": total or None}


def _print(trained: Trained) -> None:
    about = trained.about
    examples, fitted = about["examples"], about["fit"]
    say(
        f"{trained.path}: trained on {examples['trained']:,} traces ({about['tokens']['steps']:,} steps), "
        f"{fitted['steps']:,} updates in {fitted['seconds']:.0f} s"
    )
    for when in ("before", "after"):
        one = about["evaluation"][when]
        if one["steps"]:
            auc = "–" if one["step_auc"] is None else f"{one['step_auc']:.3f}"
            say(
                f"{when:<6} on {one['problems']} held-out problems, {one['steps']} steps: loss {one['loss']:.3f}, "
                f"accuracy {100 * one['accuracy']:.1f}, AUC {auc} (against the labels)"
            )
    for one in trained.left_out[:3]:
        say(f"left out: line {one['line']}: {one['message']}")
    if trained.left_out:
        say(f"{len(trained.left_out)} examples were left out, listed in {trained.path / LEFT_OUT}")
    say(f"cpmi-eval run --prm {trained.path} --task processbench")
