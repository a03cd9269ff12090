"""Where a text may be cut so that its two sides, tokenized apart, give the ids of the whole.

Tokenizing every prefix of a chain whole costs the square of the chain. A byte pair encoding works pair by pair, so a
place that no token spans separates it: what stands on one side never changes the merges on the other. Two kinds of
places are used:

    newline   after a line end, before a printable ASCII character or one of Chinese, Japanese or Korean
    space     before a single space between two printable ASCII characters

A kind is used where nothing in the vocabulary spans it, and where everything that comes before the merges (normalizer,
added tokens, pre-tokenizer) is of a sort that decides such places by the characters beside them; of a pre-tokenizer it
is also tried with characters of all sorts. Whatever is not known to be of that sort is tokenized whole: slower, never
different. The right side is tokenized behind the character before
the cut, which is dropped again, so that nothing that belongs to the beginning of a text is put there.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["newline", "space"]

# In a vocabulary a line end is itself or its byte-level image, a space also SentencePiece's mark.
_SPANNED: Mapping[Kind, re.Pattern[str]] = {
    "newline": re.compile("[\nĊ][^\n\r\t\x00 ĊčĉĠ▁]"),
    "space": re.compile("[!-~][ Ġ▁]"),
}
_MARKS: Mapping[Kind, str] = {"newline": "\n", "space": " "}
# What stands beside a cut, as byte-level vocabularies write it; of Chinese, Japanese and Korean the first bytes.
_ALPHABET = [*map(chr, range(ord("!"), ord("~") + 1)), "Ġ", "Ċ", *map(chr, range(0xE3, 0xEE))]
_SOLID = "!-~\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
_IN_ADDED: Mapping[Kind, re.Pattern[str]] = {"newline": re.compile("\n[^\n\r\t ]"), "space": re.compile("[!-~] ")}
_IN_TEXT: Mapping[Kind, re.Pattern[str]] = {
    "newline": re.compile(f"\n(?=[{_SOLID}])"),
    "space": re.compile("[!-~](?= [!-~])"),
}
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace"}
_REWRITE = _NORMALIZERS - {"Prepend", "Replace"}  # these only put SentencePiece's mark
_PRE_TOKENIZERS = {"ByteLevel", "Digits", "Punctuation", "Metaspace"}
# What a pattern may look ahead to: whether blank follows; digits, which end where a cut is.
_HARMLESS = re.compile(
    r"\(\?[!=](\\[sS]|\\p\{N\}|\\d|\[0-9\])\)|(\\p\{Nd?\}|\\d|\[0-9\])\{\d+(,\d*)?\}|\\p\{[A-Za-z]+\}|\(\?i:|\(\?:"
)
_FAR_SIGHTED = re.compile(r"\(\?|\\[bBAGzZK1-9]|\$|\{|(?<!\[)\^")
_BEFORE = [*string.punctuation, *"aBs1"]  # what pre-tokenizers tell apart
_AFTER = [*_BEFORE, *"zZSt09のカ日한"]
_BEYOND = "aB1.,'/- \t\r\né日\u0301"
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
        return bool(self.kinds)

    def here(self, around: str, at: int = 0) -> bool:
        """Whether a text may be cut after its character ``at``; one before it and two after it say that."""
        return (
            any(_IN_TEXT[kind].match(around, at) for kind in self.kinds)
            and around[at] not in self.ends
            and around[at + 1] not in self.begins
        )

    def last(self, text: str, after: int) -> int | None:
        """The last place in ``text`` past ``after`` at which it may be cut."""
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
    """Where texts may be cut for a fast Hugging Face tokenizer."""
    raw = tokenizer.backend_tokenizer
    model = raw.model
    if type(model).__name__ != "BPE" or model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix:
        return Cuts()
    normalizers, pre_tokenizers = _parts(raw.normalizer, "normalizers"), _parts(raw.pre_tokenizer, "pretokenizers")
    if not all(map(_normalizer_is_local, normalizers)) or not all(map(_pre_tokenizer_is_local, pre_tokenizers)):
        return Cuts()
    added = list(raw.get_added_tokens_decoder().values())
    contents = {token.content for token in added}
    if any(token.lstrip or token.rstrip or token.single_word for token in added):
        return Cuts()
    if raw.normalizer is not None:
        as_text = {raw.normalizer.normalize_str(token.content).replace("▁", " ") for token in added if token.normalized}
        # Found in what the normalizer makes of a text, which may be spelled in other characters there; ASCII is not,
        # unless letters change their case.
        kinds_of = {one["type"] for one in normalizers}
        if (as_text and "Lowercase" in kinds_of) or (kinds_of & _REWRITE and not all(map(str.isascii, as_text))):
            return Cuts()
        contents |= as_text
    known = raw.get_vocab(with_added_tokens=False)
    if not _nothing_is_lost(model, known):
        return Cuts()
    vocabulary = "\x00".join(token for token in known if token not in contents)
    kinds = frozenset(
        kind
        for kind, spanned in _SPANNED.items()
        if not spanned.search(vocabulary)
        and not any(_IN_ADDED[kind].search(text) for text in contents)
        and _parted(raw.pre_tokenizer, kind, model.ignore_merges)
    )
    found = Cuts(kinds, frozenset(text[-1] for text in contents), frozenset(text[0] for text in contents))
    return found if _agrees(tokenizer, found) else Cuts()


def _parts(component: Any, name: str) -> list[Mapping[str, Any]]:
    """The settings of a part of a tokenizer, as its file has them; of a sequence, those of its members."""

    def flat(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        return [leaf for one in state[name] for leaf in flat(one)] if state["type"] == "Sequence" else [state]

    return [] if component is None else flat(json.loads(component.__getstate__()))


def _normalizer_is_local(state: Mapping[str, Any]) -> bool:
    if state["type"] == "Replace":  # SentencePiece: a space becomes its mark
        return bool(state["pattern"] == {"String": " "} and state["content"] == "▁")
    return state["type"] in _NORMALIZERS


def _pre_tokenizer_is_local(state: Mapping[str, Any]) -> bool:
    if state["type"] == "Split":
        pattern = state["pattern"].get("Regex")
        if state["behavior"] != "Isolated" or state["invert"] or pattern is None:
            return False
        return not _FAR_SIGHTED.search(_HARMLESS.sub("", pattern))  # decided by what it holds and the character after
    if state.get("replacement", "▁") != "▁" or state.get("behavior") == "Removed":
        return False
    return state["type"] in _PRE_TOKENIZERS


def _nothing_is_lost(model: Any, known: Mapping[str, int]) -> bool:
    """Whether each character beside a cut has a token of its own; one without may vanish, or be fused with the next."""
    if model.byte_fallback and all(f"<0x{byte:02X}>" in known for byte in range(256)):
        return True
    if model.unk_token is not None:
        return not model.fuse_unk
    return all(character in known for character in _ALPHABET)


def _parted(pre_tokenizer: Any, kind: Kind, here_too: bool) -> bool:
    """Whether both sides of cuts of one kind, pre-tokenized apart, come apart where the whole does.

    Tried with pairs of characters of all sorts that may stand beside a cut. ``here_too``: the whole comes apart at
    cuts as well; else that does not matter, since no token spans them.
    """
    if pre_tokenizer is None:
        return True

    def ends(text: str) -> set[int]:
        return {place for _, span in pre_tokenizer.pre_tokenize_str(text) for place in span}

    one = Cuts(frozenset({kind}))
    beyond = cycle(_BEYOND)
    for before in [*_BEFORE, *(_BEYOND if kind == "newline" else "")]:
        text = "".join(f"{before}{_MARKS[kind]}{after}{next(beyond)}" for after in _AFTER)
        pieces = _pieces(text, one)
        whole, joined, cut = ends(text), {0, len(text)}, {first for first, _, _ in pieces[1:]}
        for first, stop, piece in pieces:
            begin = max(first - 1, 0)
            joined |= {begin + end for end in ends(piece) if first <= begin + end <= stop}
        if (whole | cut) != (joined | cut) or (here_too and not cut <= whole & joined):
            return False
    return True


def side(offsets: Sequence[tuple[int, int]], place: int) -> int:
    """The index of the first token past ``place``; a token is on the left if it ends there or before.

    Its end decides, since offsets may leave out a token's leading blank, and shrink a blank token to nothing.
    """
    return next((index for index, (_, stop) in enumerate(offsets) if stop > place), len(offsets))


def _pieces(text: str, where: Cuts) -> list[tuple[int, int, str]]:
    """A text cut wherever that is allowed: where each piece begins and stops, and the text it is tokenized in."""
    places = [place for place in range(1, len(text) - 1) if where.here(text, place - 1)]
    return [(first, stop, text[max(first - 1, 0) : stop + 2]) for first, stop in pairwise([0, *places, len(text)])]


def _agrees(tokenizer: Any, found: Cuts) -> bool:
    """Cut some difficult texts wherever that is allowed and compare with the whole: what is proven is also tried."""
    for text in _PROBES:
        pieces = _pieces(text, found)
        made = tokenizer([text, *(one for *_, one in pieces)], add_special_tokens=False, return_offsets_mapping=True)
        whole, *parts = made["input_ids"]
        joined: list[int] = []
        for (first, stop, _), ids, offsets in zip(pieces, parts, made["offset_mapping"][1:], strict=True):
            before = max(first - 1, 0)
            joined += ids[side(offsets, first - before) : side(offsets, stop - before)]
        if joined != whole:
            return False
    return True
