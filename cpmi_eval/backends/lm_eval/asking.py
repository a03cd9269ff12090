"""How lm-eval's classes are asked: with token ids by the rule of this program, and a failed request found among many.

lm-eval's own ``_encode_pair`` moves white space from the end of a context into the continuation. Here a class is handed
ids, so that nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from cpmi_eval.backends.loading import brief
from cpmi_eval.engine.encode import Encoder
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.types import Failure

T = TypeVar("T")
R = TypeVar("R")

GIVE_UP_AFTER = 16  # requests in a row that fail, each asked alone


class ClassEncoder(Encoder):
    """Encodes for a class of lm-eval. ``add_bos``: whether BOS leads every text; ``None``: as the tokenizer wants it.

    ``first``: what stands before a text that nothing else leads; ``None``: BOS, else the end of a text.
    """

    def __init__(self, tokenizer: Any, add_bos: bool | None, first: int | None) -> None:
        super().__init__(tokenizer)
        if add_bos is False:
            self.prefix = []
        elif add_bos and not self.prefix:
            self.prefix = [super()._first()]
        self.first = first

    def _first(self) -> int:
        return super()._first() if self.first is None else self.first


class Asker:
    """Asks a model of class ``name`` for many things at once; where that fails, finds out which of them it fails on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = 0

    def each(self, items: Sequence[T], ask: Callable[[Sequence[T]], Sequence[R]]) -> list[R | Failure]:
        """Return the answer to each item, or a Failure in its place; ModelError once too many failed in a row."""
        if not items:
            return []
        try:
            answers = ask(items)
            if len(answers) != len(items):
                raise ValueError(f"{len(answers)} answers to {len(items)} requests")
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - a foreign class fails in its own ways, on one request or on all
            full = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
            if full:
                import torch

                torch.cuda.empty_cache()  # nothing without a GPU
            if len(items) == 1:
                return [self._alone(error, full)]
        else:
            self.failed = 0
            return list(answers)
        half = len(items) // 2
        return [*self.each(items[:half], ask), *self.each(items[half:], ask)]

    def _alone(self, error: Exception, full: bool) -> Failure:
        if full:
            return Failure("out_of_memory", "one request is too much for this device; try a smaller dtype or model")
        self.failed += 1
        if self.failed >= GIVE_UP_AFTER:
            raise ModelError(
                f"lm-eval's class {self.name!r} failed on {self.failed} requests in a row, at last with "
                f"{brief(error)}; what was scored is kept, and the same command goes on from there"
            ) from error
        return Failure("exception", f"lm-eval's class {self.name!r}: {brief(error)}")


def instance(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Return a request in lm-eval's form; of no task, so that nothing of one is kept."""
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
