"""What commands share: options and their values, progress, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cpmi_eval import settings
from cpmi_eval.errors import EXIT_INTERRUPTED, UsageError
from cpmi_eval.plan import parse_limit, read_config_file
from cpmi_eval.reports import escape

if TYPE_CHECKING:
    from cpmi_eval.reports.grid import Report

RENAMED = {"scorer": "prefix_sharing"}  # options of earlier versions, for one more
F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """A value parsed by a function of ours; values from a config file are already parsed."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        """Name the type (for usage messages) and its parser."""
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; pass anything else on."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Flag(click.types.BoolParamType):
    """On or off: ``true`` or ``false`` in the environment or a file, where click takes ``yes``, ``1`` and more."""

    name = "true|false"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """Take true or false; anything else is wrong usage."""
        try:
            return settings.flag("it", settings.scalar(value) if isinstance(value, str) else value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def parse_batch_size(text: str) -> int | str:
    """Parse ``auto`` or a whole number."""
    value = settings.scalar(text)
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int)):
        raise UsageError(f"batch size must be auto or a whole number, not {text!r}")
    return value  # type: ignore[no-any-return]


class Switch(click.ParamType):  # type: ignore[type-arg]
    """``on`` or ``off``."""

    name = "on|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """Take true or false; anything else is wrong usage."""
        try:
            return settings.switch(str(param and param.name), value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


FLAG = Flag()
SWITCH = Switch()
PAIRS = Parsed("k=v,...", settings.parse_pairs)
NAMES = Parsed("a,b", lambda text: tuple(part.strip() for part in text.split(",") if part.strip()))
LIMIT = Parsed("N|fraction", parse_limit)
BATCH_SIZE = Parsed("auto|N", parse_batch_size)
INTEGER = Parsed("integer", settings.scalar)  # RunConfig checks it; click's own would truncate a file's 1.5


def option(name: str, **attributes: Any) -> Callable[[F], F]:
    """Declare ``--name``, also readable from ``CPMI_EVAL_<NAME>``, and both by the name of earlier versions."""
    names = [name, *(old for old, new in RENAMED.items() if new == name)]
    return click.option(f"--{name}", envvar=[f"CPMI_EVAL_{one.upper()}" for one in names], **attributes)


def canonical(token: str) -> str:
    """An option's name, which may be written with ``-`` or be that of earlier versions."""
    name = token.replace("-", "_")
    return RENAMED.get(name, name)


def json_option(instead: str = "") -> Callable[[F], F]:
    """Declare ``--json``, which takes the place of what a command prints otherwise."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print one JSON document{instead}.")


def format_option(*styles: str, of: str = "Of the result.") -> Callable[[F], F]:
    """Declare ``--format``; the first style is the default."""
    return click.option("--format", "style", type=click.Choice(styles), default=styles[0], show_default=True, help=of)


def settings_of(command: click.Command) -> set[str]:
    """The names of the settings that a command takes from the environment, and so from a file too."""
    return {str(parameter.name) for parameter in command.params if parameter.envvar is not None}


def from_config_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Make a config file's values the defaults of this command."""
    if value is None:
        return
    try:
        content: Mapping[str, Any] = read_config_file(value, settings_of(ctx.command))
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    ctx.default_map = {**(ctx.default_map or {}), **content}


CONFIG = click.option(
    "--config",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=from_config_file,
    help="YAML or JSON with any of these options, or a run's manifest.json.",
)
RESUME = click.option("--resume/--fresh", default=True, help="Go on where this run stopped (default), or set it aside.")


def say(text: object, *, err: bool = False) -> None:
    """Print a text that may hold words of a model or a file."""
    click.echo(escape.terminal(str(text)), err=err)


def emit(document: Any) -> None:
    """Print one JSON document."""
    click.echo(escape.json(document, indent=2))


def show(report: Report, style: str = "rich") -> None:
    """Print a report on the terminal, or in markdown."""
    if style == "markdown":
        from cpmi_eval.reports.grid import markdown

        click.echo(markdown(report))
        return
    from cpmi_eval.reports import console

    console.show(report)


def stderr_is_terminal() -> bool:
    """Whether progress may be drawn."""
    return sys.stderr.isatty()


@contextmanager
def progress(fields: Callable[..., Mapping[str, Any]], interrupted: str) -> Iterator[Callable[..., None] | None]:
    """Draw a bar with rate and remaining time on stderr, where that is a terminal, while something runs.

    Args:
        fields: makes ``description``, ``completed``, ``total`` and ``rate`` of what the progress callback is told.
        interrupted: what is said where the user stops it.
    """
    try:
        if not stderr_is_terminal():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        texts = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rate]}", markup=False)
        columns = (texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None, rate="")
            yield lambda *told: bar.update(task, **fields(*told))
    except KeyboardInterrupt:
        click.echo(interrupted, err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
