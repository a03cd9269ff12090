"""``cpmi-eval rescore``: another threshold for a finished run, without a model."""

from __future__ import annotations

from pathlib import Path

import click

from cpmi_eval.cli.options import PATH, json_option
from cpmi_eval.errors import UsageError


@click.command(name="rescore")
@click.argument("run_dir", type=PATH)
@click.option(
    "--threshold",
    metavar="native|fixed:x|dev:SUBSET|crossfit:K|oracle",
    help="How scores become predictions.  [default: as in the run]",
)
@click.option("--only", multiple=True, type=PATH, metavar="RUN_DIR", help="Keep the traces of this run only.")
@click.option("--output_path", type=PATH, metavar="DIR", help="Where to.  [default: beside RUN_DIR]")
@click.option("--fresh", is_flag=True, help="Set what is in that directory aside.")
@json_option(" instead of tables")
def rescore_command(
    run_dir: Path, threshold: str | None, only: tuple[Path, ...], output_path: Path | None, fresh: bool, as_json: bool
) -> None:
    """Apply another threshold to the stored scores of a finished run; no model is loaded.

    The run is left as it is: what comes of it is a run directory of its own. --only restricts it to the traces that
    other runs have too, so that runs over different traces can be compared.

    \b
    cpmi-eval rescore runs/X --threshold crossfit:5
    cpmi-eval rescore runs/X --only runs/Y --output_path runs/X-shared
    """
    from cpmi_eval.analysis.rescore import rescore
    from cpmi_eval.cli.run import print_result

    if threshold is None and not only:
        raise UsageError("say what is to change: --threshold PROTOCOL, or --only RUN_DIR for fewer traces")
    print_result(rescore(run_dir, threshold, only=only, output_path=output_path, fresh=fresh), as_json)
