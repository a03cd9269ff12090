"""``cpmi-eval label``: run a labeler over traces, or take a finished run, and write a training set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cpmi_eval import labels
from cpmi_eval.cli.run import INTERRUPTED, check_labeler, drawn_progress, expand, run_options
from cpmi_eval.config import RunConfig
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_INTERRUPTED, EXIT_OK, UsageError
from cpmi_eval.labelers.normalize import NORMALIZE
from cpmi_eval.labels import Labelling, TrainingSet
from cpmi_eval.run import prepare
from cpmi_eval.run import run as carry_out

if TYPE_CHECKING:
    from rich.table import Table

HELP = """Run a labeler over traces and write a training set.

\b
cpmi-eval label --labeler cpmi --task synthetic --format trl --threshold native --to labels.jsonl
cpmi-eval label --labeler cpmi --traces mine.jsonl --format scores --to scores.jsonl
cpmi-eval label --from runs/X --format math-shepherd --threshold fixed:0.5 --normalize zsig --to labels.jsonl

A step is labelled good if its score is at least the threshold. What could not be labelled is listed in
FILE.failed.jsonl (exit code 1); FILE.json says how the set was made. The run behind it is an ordinary one: the same
command goes on where it stopped, and another format or threshold scores nothing again.
"""
OWN = ("form", "to", "rule", "normalize", "finished", "as_json")  # what --from goes together with


@click.command(help=HELP)
@click.option("--traces", type=click.Path(path_type=Path), help="Short for --task traces --task_args path=FILE.")
@click.option(
    "--from",
    "finished",
    metavar="RUN_DIR",
    type=click.Path(path_type=Path),
    help="Take this finished run; run nothing.",
)
@click.option("--format", "form", required=True, metavar="|".join(labels.FORMATS), help="What trains on it.")
@click.option("--to", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The training set.")
@click.option(
    "--threshold", "rule", metavar="native|fixed:x", help="From here on a step is good. Not for the format scores."
)
@click.option("--normalize", metavar="|".join(NORMALIZE), help="Put all scores onto (0, 1) first.")
@run_options(threshold=None)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a summary.")
@click.pass_context
def label(
    ctx: click.Context,
    /,
    traces: Path | None,
    finished: Path | None,
    form: str,
    to: Path,
    rule: str | None,
    normalize: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Run a labeler over traces and write a training set."""
    labelling = Labelling(form, rule, normalize)
    labels.check_target(to)
    if finished is None:
        config = RunConfig(**_with_traces(expand(options), traces))
        try:
            finished = _run(config, labelling, fresh=not resume)
        except KeyboardInterrupt:
            click.echo(INTERRUPTED, err=True)
            return EXIT_INTERRUPTED
    else:
        _refuse_settings(ctx)
    made = labels.label_run(finished, labelling)
    made.save(to)
    _print(made, to, as_json)
    return EXIT_FAILED_ROWS if made.failures else EXIT_OK


def _with_traces(options: Mapping[str, Any], traces: Path | None) -> dict[str, Any]:
    """Return the settings of the run, with what ``--traces`` stands for.

    Raises:
        UsageError: not said, or said twice, what is to be labelled or by what.
    """
    if (traces is None) == (options["task"] is None):
        raise UsageError("say what to label with one of --task NAME, --traces FILE and --from RUN_DIR")
    check_labeler(options)
    if traces is None:
        return dict(options)
    if options["task_args"]:
        raise UsageError("--traces FILE stands for --task traces --task_args path=FILE; leave out --task_args")
    return {**options, "task": "traces", "task_args": {"path": str(traces)}}


def _refuse_settings(ctx: click.Context) -> None:
    """Refuse settings of a run beside ``--from``, where they would do nothing."""
    given = [
        "/".join((*parameter.opts, *parameter.secondary_opts))
        for parameter in ctx.command.params
        if parameter.name not in OWN and ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(f"--from takes a finished run as it is; leave out {', '.join(given)}")


def _run(config: RunConfig, labelling: Labelling, fresh: bool) -> Path:
    """Carry out the run, having made sure that its scores can be turned into labels."""
    labelling.rule(config.labeler, prepare(config).rule.value)
    with drawn_progress() as progress:
        return carry_out(config, fresh=fresh, progress=progress).path


def _print(made: TrainingSet, to: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"path": str(to), **made.about}, indent=2, ensure_ascii=False))
        return
    counts, rule = made.about["counts"], made.about["threshold"]
    verdicts = "" if rule is None else f": {counts['good']:,} good, {counts['steps'] - counts['good']:,} wrong"
    click.echo(f"{to}: {counts['labelled']:,} of {counts['traces']:,} traces, {counts['steps']:,} steps{verdicts}")
    click.echo(f"format {made.about['format']}, {_basis(made)}; made from {made.about['run']}")
    if made.failures:
        from cpmi_eval.reports.console import stdout

        stdout().print(_failures(made, to))


def _basis(made: TrainingSet) -> str:
    rule, normalize = made.about["threshold"], made.about["normalize"]
    scale = f"scores normalised by {normalize}" if normalize else "raw scores"
    return scale if rule is None else f"{scale}, threshold {rule['protocol']} (good from {rule['value']:g} on)"


def _failures(made: TrainingSet, to: Path) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = Text(f"traces without labels, listed in {labels.failed_path(to)}")
    table = Table(title=title, title_justify="left")
    for heading in ("reason", "traces", "for instance"):
        table.add_column(heading, overflow="fold")
    for reason, n in made.about["counts"]["failed"].items():
        example = next(failure for failure in made.failures if failure["reason"] == reason)
        table.add_row(reason, f"{n:,}", Text(f"{example['id']}: {example['message']}"))
    return table
