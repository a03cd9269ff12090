"""The command line: parse, call, print. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import click

from cpmi_eval import __version__
from cpmi_eval.cli.check import check
from cpmi_eval.cli.compare import compare_command
from cpmi_eval.cli.export import export_command
from cpmi_eval.cli.generate import generate_command
from cpmi_eval.cli.inspect import ls, show
from cpmi_eval.cli.label import label
from cpmi_eval.cli.leaderboard import leaderboard_group
from cpmi_eval.cli.options import canonical
from cpmi_eval.cli.paired import paired_command
from cpmi_eval.cli.rescore import rescore_command
from cpmi_eval.cli.run import run
from cpmi_eval.cli.train import train_command
from cpmi_eval.cli.validate import validate_command
from cpmi_eval.errors import EXIT_INTERRUPTED, EXIT_USAGE, UsageError


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": canonical,
        "max_content_width": 110,
    }
)
@click.version_option(__version__, prog_name="cpmi-eval")
def cli() -> None:
    """Evaluate step-level reward labelers and process reward models: quality, cost, leaderboards.

    Options may be written with - or _. Settings of a run can also come from the environment (CPMI_EVAL_<OPTION>) or
    from a --config file. Exit codes: 0 done, 1 rows or a check failed, 2 wrong usage or missing data, 130 interrupted.
    """


cli.add_command(run)
cli.add_command(compare_command)
cli.add_command(check)
cli.add_command(label)
cli.add_command(generate_command)
cli.add_command(train_command)
cli.add_command(ls)
cli.add_command(show)
cli.add_command(rescore_command)
cli.add_command(paired_command)
cli.add_command(export_command)
cli.add_command(leaderboard_group)
cli.add_command(validate_command)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    ours = logging.getLogger("cpmi_eval")  # not the root logger: libraries print their own messages already
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())
    try:
        code = cli.main(args=args, prog_name="cpmi-eval", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    except UsageError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_USAGE
    sys.exit(code if isinstance(code, int) else 0)
