"""``cpmi-eval export``: a finished run in the form of another program."""

from __future__ import annotations

from pathlib import Path

import click

HELP = """Write a finished run in the form of another program; print the names of the files.

A file that is there already and holds something else is left alone.

\b
cpmi-eval export RUN_DIR --format lm-eval --to results
cpmi-eval export RUN_DIR --format model-index --to metadata.yaml
"""


@click.command(name="export", help=HELP)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["lm-eval", "model-index", "eval-results"]),
    required=True,
    metavar="lm-eval|model-index|eval-results",
    help="lm-eval's results and samples files; a model card's metadata; the hub's .eval_results.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to write into; of model-index the file.",
)
@click.option("--source_url", metavar="URL", help="Where a reader finds more; for model-index and eval-results.")
def export_command(run_dir: Path, form: str, to: Path, source_url: str | None) -> None:
    """Write a finished run in the form of another program; print the names of the files."""
    from cpmi_eval.interchange.export import export

    for path in export(run_dir, form, to, source_url):
        click.echo(path)
