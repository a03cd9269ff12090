"""``cpmi-eval compare``: several labelers on the same traces and one loaded model, side by side."""

from __future__ import annotations

from typing import Any

import click

from cpmi_eval.analysis.compare import REFERENCE, compare
from cpmi_eval.cli.options import Parsed, emit, format_option, json_option, option, progress, show
from cpmi_eval.cli.run import INTERRUPTED, expand, fields, run_options
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK, UsageError


@click.command(name="compare")
@option(
    "labelers",
    type=Parsed("SPEC,...", lambda text: text),  # a file may also hold a list
    required=True,
    metavar="SPEC,...",
    help="Names, with settings in parentheses: 'cpmi,mc(n=8,top_p=0.9)'.",
)
@run_options(
    **dict.fromkeys(("labeler", "labeler_args", "prm", "prm_spec", "threshold")),
    task={"required": True},
    output_path={"help": "Holds a run directory per labeler and compare.json; by default one of its own under runs/."},
)
@option("relative_to", metavar="SPEC", help=f"The labeler that costs are relative to.  [default: {REFERENCE}]")
@format_option("rich", "markdown", of="Of the table.")
@json_option(" instead of a table")
def compare_command(resume: bool, style: str, as_json: bool, **options: Any) -> int:
    """Run several labelers on the same traces; set quality and cost side by side.

    Costs are also given relative to one labeler, over the traces that all of them finished. A labeler that cannot be
    run is a row that says why. More labelers can be added later: what is finished is not run again.

    \b
    cpmi-eval compare --labelers 'cpmi,cpmi(sampled=8),mc(n=8)' --task processbench --subset gsm8k --limit 50
    """
    if as_json and style != "rich":
        raise UsageError(f"--json and --format {style} ask for different things; drop one of them")
    options = expand(options)
    with progress(fields, INTERRUPTED) as told:
        comparison = compare(**options, fresh=not resume, progress=told)
    if as_json:
        emit(comparison.as_dict())
    else:
        from cpmi_eval.reports.compare import compare_report

        show(compare_report(comparison), style)
    return EXIT_FAILED_ROWS if comparison.failed else EXIT_OK
