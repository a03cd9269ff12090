"""``cpmi-eval label``: run a labeler over traces, or take a finished run, and write a training set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cpmi_eval.cli.options import PATH, emit, json_option, progress, say, show
from cpmi_eval.cli.run import INTERRUPTED, check_labeler, expand, fields, run_options
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK, UsageError
from cpmi_eval.export import labels
from cpmi_eval.export.labels import Labelling, TrainingSet
from cpmi_eval.labelers.normalize import NORMALIZE
from cpmi_eval.plan import RunConfig, prepare
from cpmi_eval.run import run as carry_out

OWN = ("form", "to", "rule", "normalize", "finished", "as_json")  # what --from goes together with


@click.command()
@click.option("--traces", type=PATH, help="Short for --task traces --task_args path=FILE.")
@click.option("--from", "finished", metavar="RUN_DIR", type=PATH, help="Take this finished run; run nothing.")
@click.option("--format", "form", required=True, metavar="|".join(labels.FORMATS), help="What trains on it.")
@click.option("--to", required=True, metavar="FILE", type=PATH, help="The training set.")
@click.option(
    "--threshold", "rule", metavar="native|fixed:x", help="From here on a step is good. Not for the format scores."
)
@click.option("--normalize", metavar="|".join(NORMALIZE), help="Put all scores onto (0, 1) first.")
@run_options(threshold=None)
@json_option(" instead of a summary")
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
    """Run a labeler over traces and write a training set.

    \b
    cpmi-eval label --labeler cpmi --task synthetic --format trl --threshold native --to labels.jsonl
    cpmi-eval label --labeler cpmi --traces mine.jsonl --format scores --to scores.jsonl
    cpmi-eval label --from runs/X --format math-shepherd --threshold fixed:0.5 --normalize zsig --to labels.jsonl

    A step is labelled good if its score is at least the threshold. What could not be labelled is listed in
    FILE.failed.jsonl (exit code 1); FILE.json says how the set was made. The run behind it is an ordinary one: the same
    command goes on where it stopped, and another format or threshold scores nothing again.
    """
    labelling = Labelling(form, rule, normalize)
    labels.check_target(to)
    if finished is None:
        config = RunConfig(**_with_traces(expand(options), traces))
        with progress(fields, INTERRUPTED) as told:
            labelling.rule(config.labeler, prepare(config).rule.value)  # its scores can be turned into labels
            finished = carry_out(config, fresh=not resume, progress=told).path
    else:
        _refuse_settings(ctx)
    made = labels.label_run(finished, labelling)
    made.save(to)
    if as_json:
        emit({"path": str(to), **made.about})
    else:
        _print(made, to)
    return EXIT_FAILED_ROWS if made.failures else EXIT_OK


def _with_traces(options: Mapping[str, Any], traces: Path | None) -> dict[str, Any]:
    """Add what ``--traces`` stands for.

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


def _print(made: TrainingSet, to: Path) -> None:
    counts, rule, normalize = made.about["counts"], made.about["threshold"], made.about["normalize"]
    verdicts = "" if rule is None else f": {counts['good']:,} good, {counts['steps'] - counts['good']:,} wrong"
    say(f"{to}: {counts['labelled']:,} of {counts['traces']:,} traces, {counts['steps']:,} steps{verdicts}")
    basis = f"scores normalised by {normalize}" if normalize else "raw scores"
    if rule is not None:
        basis += f", threshold {rule['protocol']} (good from {rule['value']:g} on)"
    say(f"format {made.about['format']}, {basis}; made from {made.about['run']}")
    if made.failures:
        from cpmi_eval.reports.tables import failures

        examples = {one["reason"]: f"{one['id']}: {one['message']}" for one in reversed(made.failures)}
        kinds = [(reason, n, examples[reason]) for reason, n in counts["failed"].items()]
        show([failures(f"traces without labels, listed in {labels.failed_path(to)}", kinds)])
