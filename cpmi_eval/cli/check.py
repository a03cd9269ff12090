"""``cpmi-eval check``: hold a finished run against a baseline, for continuous integration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpmi_eval.cli.options import PAIRS, emit, say, show
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK, DataError, StoreError, UsageError

if TYPE_CHECKING:
    from cpmi_eval.gate.check import Report, Tolerances
    from cpmi_eval.records import Run

HELP = """Check a finished run against a baseline: scores, tokens, quality, speed. Exit code 1 if something moved.

\b
cpmi-eval check runs/x --baseline baseline.json --update         # write the baseline, or replace it
cpmi-eval check runs/x --baseline baseline.json
cpmi-eval check runs/x --baseline baseline.json --tolerance scores=0.01,quality=0.02,speed=off
cpmi-eval check runs/x --baseline baseline.json --format github >> "$GITHUB_STEP_SUMMARY"
"""


@click.command(help=HELP)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--baseline", required=True, metavar="FILE", type=click.Path(path_type=Path), help="What the run is held against."
)
@click.option(
    "--tolerance",
    type=PAIRS,
    default={},
    help="scores=0.001 (absolute, per step), tokens=exact, quality=paired (a paired test; or a drop such as 0.02), "
    "speed=3 (times slower), model=exact (the same weights). These are the defaults; off skips a check.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "github", "junit", "json"]),
    default="text",
    show_default=True,
    help="text; markdown for GitHub's step summary; XML for test reports; one JSON document.",
)
@click.option("--update", is_flag=True, help="Make this run the baseline, and say what that changes.")
@click.option("--allow_failures", is_flag=True, help="With --update: also a run in which traces failed.")
def check(
    run_dir: Path, baseline: Path, tolerance: dict[str, Any], style: str, update: bool, allow_failures: bool
) -> int:
    """Check a finished run against a baseline."""
    from cpmi_eval.gate import baseline as baselines
    from cpmi_eval.gate import check as gate
    from cpmi_eval.records import read_run

    if allow_failures and not update:
        raise UsageError("--allow_failures says which runs --update accepts; give --update too, or leave it out")
    if update and style != "text":
        raise UsageError(f"--update prints text: leave out --format {style}")
    tolerances = gate.Tolerances.parse(tolerance)
    run = read_run(run_dir)
    if update:
        _update(run, baseline, tolerances, allow_failures)
        return EXIT_OK
    report = gate.check(run, baselines.read(baseline), baseline, tolerances)
    _print(report, style)
    return EXIT_FAILED_ROWS if report.failed else EXIT_OK


def _update(run: Run, path: Path, tolerances: Tolerances, allow_failures: bool) -> None:
    """Write the baseline, after saying what that changes of the one that was there."""
    from cpmi_eval.gate import baseline as baselines
    from cpmi_eval.gate import check as gate

    new = baselines.of_run(run)
    if new.failures and not allow_failures:
        raise StoreError(
            f"{run.path}: {len(new.failures):,} of {len(new.traces):,} traces failed (first: {new.failures[0].id}, "
            f"{new.failures[0].error}); mend that, or give --allow_failures to have them expected from now on"
        )
    if path.exists():
        if not baselines.is_baseline(path):
            raise DataError(f"{path} exists and is no baseline, so it is not replaced; give another --baseline")
        try:
            _print(gate.check(run, baselines.read(path), path, tolerances), "update")
        except DataError as error:
            say(f"not compared with what it replaces: {error}", err=True)
    baselines.write(path, new)
    say(f"wrote {path}: {len(new.traces):,} traces of {new.identity['labeler']} on {new.identity['task']}")


def _print(report: Report, style: str) -> None:
    if style == "json":
        emit(report.as_dict())
        return
    from cpmi_eval.reports import gate as reports

    if style == "github":
        click.echo(reports.markdown(report))
    elif style == "junit":
        click.echo(reports.junit(report))
    else:
        show(reports.gate_report(report, update=style == "update"))
