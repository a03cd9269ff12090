"""Text to token ids for scoring: the ids of the whole string, exactly one BOS in front, shared beginnings encoded once.

Context and continuation are never tokenized apart: a merge across their boundary would then be lost, which is another
string to the model. The continuation's tokens are those that cover its characters, so a token that straddles the
boundary belongs to the continuation. What many requests begin with is cut off where :mod:`cpmi_eval.engine.locality`
shows that this changes nothing; what is left of each is short, often the same, and tokenized once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby, pairwise
from typing import Any, TypeAlias

import numpy as np

from cpmi_eval.engine import locality
from cpmi_eval.engine.trie import IntArray, Segment, common_prefix, lineage
from cpmi_eval.errors import ModelError
from cpmi_eval.types import ScoreRequest, Text

Tokens: TypeAlias = tuple[list[int], list[tuple[int, int]]]  # ids, and the characters that each covers

CHUNK_CHARACTERS = 2_000_000  # offsets take some 20 times the memory of the ids that are kept


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of ``context + continuation``: those of ``stem``, then ``tail`` [n]; the continuation's from ``start``.

    ``start`` counts from the first id of all.
    """

    tail: Sequence[int]
    start: int
    stem: Segment | None = None

    def __len__(self) -> int:
        return len(self.tail) + (self.stem.length if self.stem else 0)

    @property
    def ids(self) -> IntArray:
        """All ids in one array [n]; made anew at every call."""
        pieces = [*(one.own for one in lineage(self.stem)), self.tail]
        return np.array([token for piece in pieces for token in piece], dtype=np.int64)


@dataclass(eq=False)
class _Node:
    """A text that contexts begin with.

    ``open`` is what has no fixed tokens yet, behind ``lead`` characters (0 or 1) that have. Where ``window`` is set,
    its characters from ``window_lead`` up to ``cut`` are this node's own addition to the tokens before it.
    """

    before: _Node | None
    open: str
    lead: int
    window: str | None = None
    window_lead: int = 0
    cut: int = 0
    joints: dict[str, _Node] = field(default_factory=dict)  # by what follows: this text, fixed up to its last character


class Encoder:
    """Wraps a fast Hugging Face tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Read from the tokenizer which special tokens it puts before a text, and where texts may be cut.

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
        self.cuts = locality.cuts(tokenizer)

    def encode(self, requests: Sequence[ScoreRequest]) -> list[Encoded]:
        """Encode each request; a continuation is never empty of tokens unless it is empty of characters."""
        nodes = [
            self._joint(node, request.continuation)
            for node, request in zip(self._nodes([one.given for one in requests]), requests, strict=True)
        ]
        windows = [node.open + request.continuation for node, request in zip(nodes, requests, strict=True)]
        fixed: dict[_Node, None] = {}  # each after what is before it
        for node in nodes:
            fixed.update(dict.fromkeys(lineage(node, fixed)))
        tokens = self._tokenize([*(one.window for one in fixed if one.window is not None), *windows])
        stems: dict[_Node | None, Segment | None] = {}
        for one in fixed:
            stem = stems.get(one.before)
            if one.window is not None:
                ids, offsets = tokens[one.window]
                first = locality.side(offsets, one.window_lead) if one.window_lead else 0
                own = ids[first : locality.side(offsets, one.cut)]
                stem = Segment(own if stem else [*self._lead(own, 1), *own], stem)
            stems[one] = stem
        tails: dict[tuple[str, int], Sequence[int]] = {}
        made = []
        for node, window in zip(nodes, windows, strict=True):
            ids, offsets = tokens[window]
            first = locality.side(offsets, node.lead) if node.lead else 0
            tail = tails.setdefault((window, node.lead), ids[first:])
            start = locality.side(offsets, len(node.open)) - first
            stem = stems[node]
            if stem is None:
                lead = self._lead(ids, start)
                tail, start = [*lead, *tail], start + len(lead)
            made.append(Encoded(tail, start + (stem.length if stem else 0), stem))
        return made

    def encode_prompts(self, texts: Sequence[str]) -> list[IntArray]:
        """The ids of prompts to continue, with exactly one BOS where the tokenizer wants one; never none."""
        return [one.ids for one in self.encode([ScoreRequest(text, "") for text in texts])]

    def encode_prompt(self, text: str) -> list[int]:
        """What :meth:`encode_prompts` gives for one prompt."""
        ids: list[int] = self.encode_prompts([text])[0].tolist()
        return ids

    def _lead(self, ids: Sequence[int], start: int) -> list[int]:
        """What is to stand before a text: BOS where it is missing, something where nothing would be."""
        lead = [] if list(ids[: len(self.prefix)]) == self.prefix else self.prefix
        # nothing before the first predicted token: lead with BOS, as lm-eval does
        return [self._first()] if not lead and start == 0 else lead

    def _first(self) -> int:
        """What stands before the first token where the tokenizer adds nothing: BOS, else the end of a text."""
        first = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if first is None else first)

    def _tokenize(self, texts: Iterable[str]) -> dict[str, Tokens]:
        found: dict[str, Tokens] = {}
        distinct = list(dict.fromkeys(texts))
        sizes = accumulate(map(len, distinct))
        for _, sized in groupby(zip(distinct, sizes, strict=True), lambda one: one[1] // CHUNK_CHARACTERS):
            chunk = [text for text, _ in sized]
            batch = self.tokenizer(chunk, add_special_tokens=False, return_offsets_mapping=True)
            found.update(zip(chunk, zip(batch["input_ids"], batch["offset_mapping"], strict=True), strict=True))
        return found

    # --- contexts as a tree ----------------------------------------------------------------------------------------

    def _nodes(self, contexts: Sequence[str | Text]) -> list[_Node]:
        if not self.cuts:
            whole: dict[int, _Node] = {}
            return [whole.setdefault(id(one), _Node(None, str(one), 0)) for one in contexts]
        children: dict[tuple[_Node | None, str], _Node] = {}

        def node(before: _Node | None, piece: str) -> _Node:
            if (before, piece) not in children:
                children[before, piece] = self._extended(before, piece)
            return children[before, piece]

        texts: dict[Text | None, _Node] = {}
        strings = iter(_branching([one for one in contexts if isinstance(one, str)]))
        nodes = []
        for context in contexts:
            made: _Node | None = None
            if isinstance(context, Text):
                for one in lineage(context, texts):
                    texts[one] = node(texts.get(one.before), one.piece)
                made = texts[context]
            else:
                for piece in next(strings):
                    made = node(made, piece)
            assert made is not None
            nodes.append(made)
        return nodes

    def _extended(self, before: _Node | None, piece: str) -> _Node:
        """Continue a text by ``piece``: what lies before its last cut gets its tokens there, for good."""
        if before is not None:
            before = self._joint(before, piece)
        kept, lead = (before.open, before.lead) if before else ("", 0)
        window = kept + piece
        cut = self.cuts.last(window, lead)
        if cut is None:
            return _Node(before, window, lead)
        return _Node(before, window[cut - 1 :], 1, window, lead, cut)

    def _joint(self, node: _Node, following: str) -> _Node:
        """The node to continue by ``following``: ``node``, or all of it fixed where the two may be cut apart."""
        if len(node.open) <= node.lead or not self.cuts.here(node.open[-1] + following[:2]):
            return node
        near = following[:2]
        if near not in node.joints:
            kept = node.open
            node.joints[near] = _Node(node, kept[-1], 1, kept + near, node.lead, len(kept))
        return node.joints[near]


def _branching(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut each text where those beside it part from it: prefixes of one chain, in their order, share their pieces."""
    shared = [0, *(common_prefix(a, b) for a, b in pairwise(texts)), 0]
    ends: list[int] = []  # where the pieces end that are shared with the text before
    for text, before, after in zip(texts, shared[:-1], shared[1:], strict=True):
        while ends and ends[-1] > before:
            ends.pop()
        if after and (not ends or after > ends[-1]):
            ends.append(after)
        places = [0, *(end for end in ends if end < len(text)), len(text)]
        yield [text[first:stop] for first, stop in pairwise(places)]
