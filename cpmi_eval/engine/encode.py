"""Text to token ids for scoring: the whole string is tokenized at once, and exactly one BOS leads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpmi_eval.engine.trie import IntArray
from cpmi_eval.errors import ModelError
from cpmi_eval.types import ScoreRequest

CHUNK_CHARACTERS = 2_000_000  # offsets take some 20 times the memory of the ids that are kept


@dataclass(frozen=True)
class Encoded:
    """Token ids of ``context + continuation`` (shape [n]); the continuation's tokens are ``ids[start:]``."""

    ids: IntArray
    start: int


class Encoder:
    """Wraps a fast Hugging Face tokenizer.

    Context and continuation are never tokenized apart: a merge across their boundary would then be lost, which
    is another string to the model. The continuation's tokens are those that cover its characters, so a token
    that straddles the boundary belongs to the continuation.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Read from the tokenizer which special tokens it puts before a text.

        Raises:
            ModelError: the tokenizer has no character offsets (a slow tokenizer).
        """
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} gives no character offsets; scoring needs a fast tokenizer "
                "(tokenizer.json). Convert it once with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
        self.tokenizer = tokenizer
        plain = tokenizer("x", add_special_tokens=False)["input_ids"]
        special = tokenizer("x", add_special_tokens=True)["input_ids"]
        self.prefix: list[int] = next(
            (special[:i] for i in range(len(special)) if special[i : i + len(plain)] == plain), []
        )

    def encode(self, requests: Sequence[ScoreRequest]) -> list[Encoded]:
        """Encode each request; a continuation is never empty of tokens unless it is empty of characters."""
        return [one for chunk in _chunks(requests) for one in self._encode_chunk(chunk)]

    def _encode_chunk(self, requests: Sequence[ScoreRequest]) -> Iterator[Encoded]:
        texts = [request.context + request.continuation for request in requests]
        batch = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for ids, offsets, request in zip(batch["input_ids"], batch["offset_mapping"], requests, strict=True):
            yield self._encoded(ids, offsets, len(request.context))

    def _encoded(self, ids: list[int], offsets: list[tuple[int, int]], boundary: int) -> Encoded:
        start = next((i for i, (_, stop) in enumerate(offsets) if stop > boundary), len(ids))
        lead = [] if ids[: len(self.prefix)] == self.prefix else self.prefix
        if not lead and start == 0:  # nothing before the first predicted token: lead with BOS, as lm-eval does
            lead = [self._first()]
        return Encoded(np.array([*lead, *ids], dtype=np.int64), start + len(lead))

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt to continue, with exactly one BOS where the tokenizer wants one; never none."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        led = ids if self.prefix and ids[: len(self.prefix)] == self.prefix else [*self.prefix, *ids]
        return led or [self._first()]

    def _first(self) -> int:
        """Return what stands before the first token where the tokenizer adds nothing: BOS, else the end of a text."""
        first = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if first is None else first)


def _chunks(requests: Sequence[ScoreRequest]) -> Iterator[list[ScoreRequest]]:
    """Cut requests into chunks of bounded text."""
    chunk: list[ScoreRequest] = []
    size = 0
    for request in requests:
        chunk.append(request)
        size += len(request.context) + len(request.continuation)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
