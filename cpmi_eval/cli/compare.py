"""``cpmi-eval compare``: several labelers on the same traces and one loaded model, side by side."""

from __future__ import annotations

import json
from typing import Any

import click

from cpmi_eval.cli.options import Parsed, option
from cpmi_eval.cli.run import INTERRUPTED, drawn_progress, expand, run_options
from cpmi_eval.compare import REFERENCE, Comparison, compare
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_INTERRUPTED, EXIT_OK, UsageError

HELP = f"""Run several labelers on the same traces; set quality and cost side by side.

Costs are also given relative to one labeler, over the traces that all of them finished. A labeler that cannot be run is
a row that says why. More labelers can be added later: what is finished is not run again.

\b
cpmi-eval compare --labelers 'cpmi,cpmi(sampled=8),{REFERENCE}(n=8)' --task processbench --subset gsm8k --limit 50
"""


@click.command(name="compare", help=HELP)
@option(
    "labelers",
    type=Parsed("SPEC,...", lambda text: text),  # a file may also hold a list
    required=True,
    metavar="SPEC,...",
    help="Names, with settings in parentheses: 'cpmi,mc(n=8,top_p=0.9)'.",
)
@run_options(
    labeler=None,
    labeler_args=None,
    prm=None,
    prm_spec=None,
    task={"required": True},
    threshold=None,
    output_path={"help": "Holds a run directory per labeler and compare.json; by default one of its own under runs/."},
)
@option("relative_to", metavar="SPEC", help=f"The labeler that costs are relative to.  [default: {REFERENCE}]")
@click.option(
    "--format",
    "style",
    type=click.Choice(["rich", "markdown"]),
    default="rich",
    show_default=True,
    help="Of the table.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def compare_command(resume: bool, style: str, as_json: bool, **options: Any) -> int:
    """Run several labelers on the same traces; set quality and cost side by side."""
    if as_json and style != "rich":
        raise UsageError(f"--json and --format {style} ask for different things; drop one of them")
    options = expand(options)
    try:
        with drawn_progress() as progress:
            comparison = compare(**options, fresh=not resume, progress=progress)
    except KeyboardInterrupt:
        click.echo(INTERRUPTED, err=True)
        return EXIT_INTERRUPTED
    _print(comparison, style, as_json)
    return EXIT_FAILED_ROWS if comparison.failed else EXIT_OK


def _print(comparison: Comparison, style: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(comparison.as_dict(), indent=2, ensure_ascii=False))
        return
    from cpmi_eval.reports.compare import compare_markdown, compare_table
    from cpmi_eval.reports.console import stdout

    if style == "markdown":
        click.echo(compare_markdown(comparison))
    else:
        stdout().print(compare_table(comparison))
