"""``cpmi-eval paired``: are differences between finished runs more than chance?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cpmi_eval.cli.options import NAMES, PATH, emit, format_option, show
from cpmi_eval.errors import UsageError


@click.command(name="paired")
@click.argument("run_dirs", type=PATH, nargs=-1, metavar="RUN_DIR RUN_DIR...")
@click.option("--against", type=PATH, metavar="RUN_DIR", help="Compare each with this run only.")
@click.option("--part", metavar="NAME", help="A part of the task (processbench/gsm8k).  [default: the mean over all]")
@click.option(
    "--metrics",
    type=NAMES,
    default=(),
    metavar="NAME,...",
    help="What to compare.  [default: f1 and step_auc, or bon@N, wvote@N and outcome_auc]",
)
@click.option("--shared", is_flag=True, help="Compare on the traces that all runs have, where theirs differ.")
@click.option(
    "--draws", type=click.IntRange(1), help="Random swaps and resamples.  [default: 2000, more for many runs]"
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of swaps and resamples.")
@format_option("rich", "markdown", "json")
def paired_command(run_dirs: tuple[Path, ...], against: Path | None, style: str, **options: Any) -> None:
    """Test whether finished runs differ on the same traces: all pairs, or each --against one.

    A permutation test that swaps two runs problem by problem, 95% intervals of the difference, McNemar's test of exact
    matches; p-values are adjusted by Holm's method over all comparisons of the call.
    """
    paths, folders = list(run_dirs), [path.resolve() for path in run_dirs]
    if against is not None and against.resolve() not in folders:
        paths.append(against)
        folders.append(against.resolve())
    if len(paths) < 2:
        raise UsageError("name at least two runs to compare: cpmi-eval paired RUN_DIR RUN_DIR...")
    if len(set(folders)) < len(folders):
        raise UsageError("a run is named twice; name each once")
    from cpmi_eval.analysis.paired import compare_runs
    from cpmi_eval.records import read_run

    other = None if against is None else folders.index(against.resolve())
    found = compare_runs([read_run(path) for path in paths], against=other, **options)
    if style == "json":
        emit(found.as_dict())
        return
    from cpmi_eval.reports.paired import paired_report

    show(paired_report(found), style)
