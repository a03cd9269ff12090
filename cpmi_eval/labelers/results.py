"""What labelers ask of any list of results: what they cost, and whether one of them failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from cpmi_eval.types import Failure, Tokens, Trace, TraceFailure

NO_REFERENCE = Failure("no_reference", "no reference answer is known for this problem")


class Costly(Protocol):
    """Anything that says what it cost."""

    @property
    def tokens(self) -> Tokens:
        """What it cost."""


def spent(results: Iterable[Costly | Failure]) -> Tokens:
    """Return what results cost together; failures cost nothing."""
    return sum((one.tokens for one in results if not isinstance(one, Failure)), Tokens())


def failed(results: Iterable[object]) -> Failure | None:
    """Return the first failure."""
    return next((one for one in results if isinstance(one, Failure)), None)


def answered(traces: Sequence[Trace]) -> tuple[list[Trace], list[TraceFailure]]:
    """Part the traces with a reference answer from the others, which have failed."""
    able = [trace for trace in traces if trace.answer is not None]
    return able, [TraceFailure(trace.id, NO_REFERENCE) for trace in traces if trace.answer is None]
