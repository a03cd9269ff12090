"""Where a text may be cut so that its two sides, tokenized apart, give the ids of the whole.

Tokenizing every prefix of a chain whole costs the square of the chain. A byte pair encoding works pair by pair, so a
place that no token spans separates it: what stands on one side never changes the merges on the other. Two kinds of
places are used:

    newline   after a line end, before a printable ASCII character or one of Chinese, Japanese or Korean
    space     before a single space between two printable ASCII characters

A kind is used where nothing in the vocabulary spans it, and where everything that comes before the merges (normalizer,
added tokens, pre-tokenizer) is of a sort that decides such places by the characters beside them. Whatever is not known
to be of that sort is tokenized whole: slower, never different. The right side is tokenized behind the character before
the cut, which is dropped again, so that nothing that belongs to the beginning of a text is put there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["newline", "space"]

# In a vocabulary a line end is itself or its byte-level image, a space also SentencePiece's mark.
_SPANNED: Mapping[Kind, re.Pattern[str]] = {
    "newline": re.compile("[\nĊ][^\n\r\t\x00 ĊčĉĠ▁]"),
    "space": re.compile("[!-~][ Ġ▁]"),
}
_SOLID = "!-~\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
_IN_TEXT: Mapping[Kind, re.Pattern[str]] = {
    "newline": re.compile(f"\n(?=[{_SOLID}])"),
    "space": re.compile("[!-~](?= [!-~])"),
}
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend"}
_PRE_TOKENIZERS = {"ByteLevel", "Digits", "Punctuation", "Metaspace"}
# What a pattern may look ahead to: whether blank follows; digits, which end where a cut is.
_HARMLESS = re.compile(
    r"\(\?[!=](\\[sS]|\\p\{N\}|\\d|\[0-9\])\)|(\\p\{Nd?\}|\\d|\[0-9\])\{\d+(,\d*)?\}|\\p\{[A-Za-z]+\}|\(\?i:|\(\?:"
)
_FAR_SIGHTED = re.compile(r"\(\?|\\[bBAGzZK1-9]|\$|\{|(?<!\[)\^")
_PROBES = (
    'Problem: Ada has 12 apples, 1,200 pears.\n\nShe\'s 3 (or 4) left\n\n\n- x = 2\nSo: "42" is it.\n\n  f(x) = y\n\n',
    "a b  c\t\nd e\r\nf g.\n1 2 3 _ 4\n#5 é ü\nñ 日本 x\n\n日 y z </s> <s> w\n",
    "'s 't ' s it's\n's I'll we'd\n'\n' 12 345 6789\n12345 67 \\frac{1}{2} $x_1$ \n\\boxed{4} .. ... !?\n?! ",
)


@dataclass(frozen=True)
class Cuts:
    """Where texts may be cut for one tokenizer; false: nowhere.

    ``ends`` and ``begins`` are the characters that an added token ends or begins with: such a token parts a text
    before everything else, and what stands beside one is treated as an end or a beginning. No cut is made there.
    """

    kinds: frozenset[Kind] = frozenset()
    ends: frozenset[str] = frozenset()
    begins: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether there are such places."""
        return bool(self.kinds)

    def here(self, around: str, at: int = 0) -> bool:
        """Whether a text may be cut after its character ``at``; one before it and two after it say that."""
        return (
            any(_IN_TEXT[kind].match(around, at) for kind in self.kinds)
            and around[at] not in self.ends
            and around[at + 1] not in self.begins
        )

    def last(self, text: str, after: int) -> int | None:
        """Return the last place in ``text`` past ``after`` at which it may be cut."""
        best = after
        for kind in self.kinds:
            mark, before = ("\n", 0) if kind == "newline" else (" ", 1)
            low = max(best, 1) - 1 + before  # a place is past ``best``, and has a character before it
            at = text.rfind(mark, low)
            while at >= 0:
                if self.here(text, at - before):
                    best = at - before + 1
                    break
                at = text.rfind(mark, low, at)
        return best if best > after else None


def cuts(tokenizer: Any) -> Cuts:
    """Return where texts may be cut for a fast Hugging Face tokenizer."""
    raw = tokenizer.backend_tokenizer
    model = raw.model
    if type(model).__name__ != "BPE" or model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix:
        return Cuts()
    if model.unk_token is not None and model.fuse_unk and not model.byte_fallback:
        return Cuts()
    if not _normalizer_is_local(_state(raw.normalizer)) or not _pre_tokenizer_is_local(_state(raw.pre_tokenizer)):
        return Cuts()
    added = list(raw.get_added_tokens_decoder().values())
    if any(token.lstrip or token.rstrip or token.single_word for token in added):
        return Cuts()
    contents = {token.content for token in added}
    vocabulary = "\x00".join(token for token in raw.get_vocab(with_added_tokens=False) if token not in contents)
    kinds = frozenset(
        kind
        for kind, spanned in _SPANNED.items()
        if not spanned.search(vocabulary) and not any(_IN_TEXT[kind].search(text) for text in contents)
    )
    found = Cuts(kinds, frozenset(text[-1] for text in contents), frozenset(text[0] for text in contents))
    return found if _agrees(tokenizer, found) else Cuts()


def _state(component: Any) -> Mapping[str, Any] | None:
    """Return the settings of a part of a tokenizer, as its file has them."""
    if component is None:
        return None
    state: Mapping[str, Any] = json.loads(component.__getstate__())
    return state


def _normalizer_is_local(state: Mapping[str, Any] | None) -> bool:
    if state is None:
        return True
    if state["type"] == "Sequence":
        return all(_normalizer_is_local(one) for one in state["normalizers"])
    if state["type"] == "Replace":  # SentencePiece: a space becomes its mark
        return bool(state["pattern"] == {"String": " "})
    return state["type"] in _NORMALIZERS


def _pre_tokenizer_is_local(state: Mapping[str, Any] | None) -> bool:
    if state is None:
        return True
    if state["type"] == "Sequence":
        return all(_pre_tokenizer_is_local(one) for one in state["pretokenizers"])
    if state["type"] == "Split":
        pattern = state["pattern"].get("Regex")
        return state["behavior"] == "Isolated" and not state["invert"] and pattern is not None and _near(pattern)
    return state["type"] in _PRE_TOKENIZERS


def _near(pattern: str) -> bool:
    """Whether a pattern's matches are decided by what they hold and the character after them."""
    return not _FAR_SIGHTED.search(_HARMLESS.sub("", pattern))


def side(offsets: Sequence[tuple[int, int]], place: int) -> int:
    """Return the index of the first token past ``place``; a token is on the left if it ends there or before.

    Its end decides, since offsets may leave out a token's leading blank, and shrink a blank token to nothing.
    """
    return next((index for index, (_, stop) in enumerate(offsets) if stop > place), len(offsets))


def _agrees(tokenizer: Any, found: Cuts) -> bool:
    """Cut some difficult texts wherever that is allowed and compare with the whole: what is proven is also tried."""
    for text in _PROBES:
        places = [place for place in range(1, len(text) - 1) if found.here(text, place - 1)]
        firsts, stops = [0, *places], [*places, len(text)]
        pieces = [text[max(first - 1, 0) : stop + 2] for first, stop in zip(firsts, stops, strict=True)]
        whole, *parts = (
            (ids, offsets)
            for batch in [tokenizer([text, *pieces], add_special_tokens=False, return_offsets_mapping=True)]
            for ids, offsets in zip(batch["input_ids"], batch["offset_mapping"], strict=True)
        )
        joined: list[int] = []
        for first, stop, (ids, offsets) in zip(firsts, stops, parts, strict=True):
            before = max(first - 1, 0)
            joined += ids[side(offsets, first - before) : side(offsets, stop - before)]
        if joined != whole[0]:
            return False
    return True
