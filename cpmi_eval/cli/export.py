"""``cpmi-eval export``: a finished run in the form of another program."""

from __future__ import annotations

from pathlib import Path

import click

from cpmi_eval.cli.options import PATH, say


@click.command(name="export")
@click.argument("run_dir", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["lm-eval", "model-index", "eval-results"]),
    required=True,
    metavar="lm-eval|model-index|eval-results",
    help="lm-eval's results and samples files; a model card's metadata; the hub's .eval_results.",
)
@click.option("--to", type=PATH, required=True, help="The folder to write into; of model-index the file.")
@click.option("--source_url", metavar="URL", help="Where a reader finds more; for model-index and eval-results.")
def export_command(run_dir: Path, form: str, to: Path, source_url: str | None) -> None:
    """Write a finished run in the form of another program; print the names of the files.

    A file that is there already and holds something else is left alone.

    \b
    cpmi-eval export RUN_DIR --format lm-eval --to results
    cpmi-eval export RUN_DIR --format model-index --to metadata.yaml
    """
    from cpmi_eval.interchange.export import export

    for path in export(run_dir, form, to, source_url):
        say(path)
