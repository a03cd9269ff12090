"""What goes wrong between here and a server: with one request, or with the server as a whole."""

from __future__ import annotations

from cpmi_eval.errors import UsageError
from cpmi_eval.types import Failure

OF_THE_REQUEST = frozenset({"too_long", "unaligned", "empty_continuation"})  # the server is well


class RequestError(Exception):
    """A request came to nothing; ``failure`` stands in its place among the results.

    ``status``: the HTTP status, where there was one. ``transient``: whether another attempt may help.
    ``retry_after``: the seconds that the server asks to wait first.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        status: int | None = None,
        transient: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{kind}: {message}")
        self.failure = Failure(kind, message)
        self.status, self.transient, self.retry_after = status, transient, retry_after


class ServerStoppedError(UsageError):
    """A server that does not serve any more. What was scored before is kept; the same command goes on from there."""
