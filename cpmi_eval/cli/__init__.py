"""The command line: parse, call, print. Heavy imports happen inside the commands that need them."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence

import click

from cpmi_eval import __version__, registry
from cpmi_eval.cli.check import check
from cpmi_eval.cli.compare import compare_command
from cpmi_eval.cli.export import export_command
from cpmi_eval.cli.generate import generate_command
from cpmi_eval.cli.inspect import ls, show
from cpmi_eval.cli.label import label
from cpmi_eval.cli.leaderboard import leaderboard_group
from cpmi_eval.cli.options import canonical, say
from cpmi_eval.cli.paired import paired_command
from cpmi_eval.cli.rescore import rescore_command
from cpmi_eval.cli.run import run
from cpmi_eval.cli.train import train_command
from cpmi_eval.cli.validate import validate_command
from cpmi_eval.errors import EXIT_INTERRUPTED, EXIT_USAGE, UsageError
from cpmi_eval.reports import escape


class _Verbs(click.Group):
    """The program's own commands, then those of plug-ins, which are imported when they are listed or called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in registry.entries("verbs") if name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in registry.entries("verbs"):
            return own
        try:
            loaded: click.Command = registry.load("verbs", cmd_name)
        except UsageError as error:
            return _broken(cmd_name, error)
        return loaded


def _broken(name: str, error: UsageError) -> click.Command:
    """A command in the place of one that cannot be imported: it is listed, and says why when it is called."""

    def refuse() -> None:
        raise error

    return click.Command(name, callback=refuse, short_help="cannot be imported; call it to see why")


@click.group(
    cls=_Verbs,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": canonical,
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="cpmi-eval")
def cli() -> None:
    """Evaluate step-level reward labelers and process reward models: quality, cost, leaderboards.

    Options may be written with - or _. Settings of a run can also come from the environment (CPMI_EVAL_<OPTION>) or
    from a --config file. Exit codes: 0 done, 1 rows or a check failed, 2 wrong usage or missing data, 130 interrupted.
    """


for command in (
    *(run, compare_command, check, label, generate_command, train_command, ls, show),
    *(rescore_command, paired_command, export_command, leaderboard_group, validate_command),
):
    cli.add_command(command)


class _Escaped(logging.Formatter):
    """Messages may hold words of a model, a server or a file."""

    def format(self, record: logging.LogRecord) -> str:
        return escape.terminal(super().format(record))


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    ours = logging.getLogger("cpmi_eval")  # not the root logger: libraries print their own messages already
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Escaped())
        ours.addHandler(handler)
    try:
        code = cli.main(args=args, prog_name="cpmi-eval", standalone_mode=False)
    except click.ClickException as error:
        error.show(told := io.StringIO())
        say(told.getvalue().rstrip("\n"), err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    except UsageError as error:
        say(f"Error: {error}", err=True)
        code = EXIT_USAGE
    sys.exit(code if isinstance(code, int) else 0)
