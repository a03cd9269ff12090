"""``cpmi-eval validate``: check tasks, PRM specs and leaderboard files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from cpmi_eval.cli.leaderboard import DIRECTORY, ENVIRONMENT
from cpmi_eval.cli.options import emit, json_option, say
from cpmi_eval.errors import EXIT_FAILED_ROWS, EXIT_OK


@click.command(name="validate")
@click.argument("specs", nargs=-1, metavar="[SPEC_FILE...]")
@click.option(
    "--boards",
    type=DIRECTORY,
    envvar=ENVIRONMENT,
    help="Leaderboard files beside those that come with the package.  [default: leaderboards, if there]",
)
@json_option()
def validate_command(specs: tuple[str, ...], boards: Path | None, as_json: bool) -> int:
    """Check every task, PRM spec and leaderboard file; exit code 1 if anything is wrong.

    SPEC_FILE: PRM specs of your own, checked like those that come with the package.
    """
    from cpmi_eval.gate.validate import everything

    found = list(everything(specs, boards))
    if as_json:
        emit([{**asdict(one), "ok": one.ok} for one in found])
    else:
        for one in found:
            said = f"ok ({one.about})" if one.ok else one.problem.replace("\n", "\n    ")
            say(f"{one.kind} {one.name}: {said}")
    return EXIT_OK if all(one.ok for one in found) else EXIT_FAILED_ROWS
