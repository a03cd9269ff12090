"""What a call of the command line gives back."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """The exit code, and all that went to stdout and to stderr."""

    code: Any
    out: str
    err: str


Cli = Callable[..., Outcome]
