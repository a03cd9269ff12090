"""Options as every command declares them: one place for environment variables and value types."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from cpmi_eval import settings
from cpmi_eval.config import parse_limit, read_config_file
from cpmi_eval.errors import UsageError

RENAMED = {"scorer": "prefix_sharing"}  # options of earlier versions, for one more
F = TypeVar("F", bound=Callable[..., Any])


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
        """Return true or false; anything else is wrong usage."""
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
        """Return true or false; anything else is wrong usage."""
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
    """Return an option's name, which may be written with ``-`` or be that of earlier versions."""
    name = token.replace("-", "_")
    return RENAMED.get(name, name)


def settings_of(command: click.Command) -> set[str]:
    """Return the names of the settings that a command takes from the environment, and so from a file too."""
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


def stderr_is_terminal() -> bool:
    """Whether progress may be drawn."""
    return sys.stderr.isatty()
