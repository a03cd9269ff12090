"""Shared beginnings are tokenized once, and the ids are those of the whole: by property, over kinds of tokenizers."""

import re
from functools import cache, partial

import pytest
import tinymodels
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cpmi_eval.engine import encode, locality
from cpmi_eval.engine.encode import Encoder
from cpmi_eval.types import ScoreRequest, Text

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
O200K = (  # a line end after punctuation is taken with the slash behind it
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    *tinymodels.TEXT,
    "So (a + b) = c.\n\n\n- one\n- two:\n\n\tx_1 = 3, y = 12345.6;\n\n### End\n\nIt's Ada's. \"Yes\", she'd say...\n",
    "日本語 の テキスト\n日本\n\nédition ünd ñandú — done\n\n  indented  twice\n  again\r\nline\r\n\r\n",
    "see /word and (/word) or /word; word word\n",
]


def _byte_level(pre, **trained) -> Tokenizer:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS * 4, trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, special_tokens=["<bos>"], **trained)
    )
    return raw


def _split(pattern: str):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _sentencepiece(prepend: bool) -> Tokenizer:
    """A vocabulary learned within words, applied to the text as a whole: as Llama 2's, with bytes for the rest."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    mark = normalizers.Replace(" ", "▁")
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), mark]) if prepend else mark
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("▁"), "merged_with_next"), pre_tokenizers.Split("\n", "isolated")]
    )
    raw.train_from_iterator(
        CORPUS * 4,
        trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<bos>", *(f"<0x{n:02X}>" for n in range(256))]),
    )
    raw.pre_tokenizer = None
    return raw


def _unigram() -> Tokenizer:
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.train_from_iterator(
        CORPUS * 4, trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>")
    )
    return raw


def _with_nfc() -> Tokenizer:
    raw = _byte_level(_split(QWEN))
    raw.normalizer = normalizers.NFC()
    return raw


def _with_added(**flags: bool) -> Tokenizer:
    raw = _byte_level(_split(QWEN))
    raw.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False, **flags)])
    raw.add_tokens([AddedToken("Step 1", normalized=False)])
    return raw


def _with_token(token: AddedToken, normalizer=None, raw=None) -> Tokenizer:
    raw = raw or _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    raw.normalizer = normalizer or raw.normalizer
    raw.add_tokens([token])
    return raw


def _ignoring_merges(raw: Tokenizer) -> Tokenizer:
    raw.model.ignore_merges = True
    return raw


def _lossy() -> Tokenizer:
    """Knows no line end and no unknown token: a line end vanishes, and what stood beside it may merge."""
    raw = Tokenizer(models.BPE())
    raw.train_from_iterator(["ab word ab word"] * 4, trainers.BpeTrainer(vocab_size=40, special_tokens=["<bos>"]))
    return raw


def _without_pre_tokenizer() -> Tokenizer:
    """Merges across spaces and lines: pairs that a vocabulary spans are no places to cut."""
    raw = _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    assert any(re.search("Ċ[!-~]|[!-~]Ġ", token) for token in raw.get_vocab())
    return raw


_BYTES = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
BOTH = frozenset({"newline", "space"})
KINDS = {
    "gpt2": (lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)), BOTH),
    "gpt2 with a space in front": (lambda: _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), BOTH),
    "digits": (
        lambda: _byte_level(
            pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
        ),
        BOTH,
    ),
    "qwen": (_with_nfc, BOTH),
    "llama3": (lambda: _byte_level(_split(LLAMA3)), BOTH),
    "llama2": (lambda: _sentencepiece(prepend=True), BOTH),
    "gemma": (lambda: _sentencepiece(prepend=False), BOTH),
    "added tokens": (_with_added, frozenset({"newline"})),
    "added tokens that take blanks": (lambda: _with_added(rstrip=True), frozenset()),
    "no pre-tokenizer": (_without_pre_tokenizer, frozenset()),
    "o200k": (lambda: _byte_level(_split(O200K)), frozenset({"space"})),
    "o200k, whole words first": (lambda: _ignoring_merges(_byte_level(_split(O200K))), frozenset({"space"})),
    "llama3, whole words first": (lambda: _ignoring_merges(_byte_level(_split(LLAMA3))), BOTH),
    "lines, whole words first": (
        lambda: _ignoring_merges(_byte_level(_split(r"[^\n]+|\n"))),
        frozenset({"newline"}),
    ),
    "drops punctuation": (
        lambda: _byte_level(pre_tokenizers.Sequence([pre_tokenizers.Punctuation("removed"), *_BYTES])),
        frozenset(),
    ),
    "a token that ends in a space": (
        lambda: _with_token(AddedToken("word ", normalized=False)),
        frozenset({"newline"}),
    ),
    "a token that ends in a mark": (
        lambda: _with_token(AddedToken("word▁", normalized=True), raw=_sentencepiece(prepend=False)),
        frozenset({"newline"}),
    ),
    "a token in any case": (lambda: _with_token(AddedToken("WORD"), normalizers.Lowercase()), frozenset()),
    "a token in other letters": (lambda: _with_token(AddedToken("ｗord"), normalizers.NFKC()), BOTH),
    "a token with accents": (lambda: _with_token(AddedToken("éa"), normalizers.NFC()), frozenset()),
    "another mark": (lambda: _with_token(AddedToken("<x>"), normalizers.Replace(" ", "_")), frozenset()),
    "drops what it does not know": (_lossy, frozenset()),
    "unigram": (_unigram, frozenset()),
    "sees far": (lambda: _byte_level(_split(r"\p{N}(?=(?:.*\n)+X)|[^\n]+|\n")), frozenset()),
    "counts characters": (lambda: _byte_level(_split(r"[^\n]{1,5}|\n")), frozenset()),
}


@cache
def tokenizer(name: str):
    raw = KINDS[name][0]()
    bos = "<bos>" if "<bos>" in raw.get_vocab() else "<unk>"
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=bos)


@cache
def encoder(name: str) -> Encoder:
    return Encoder(tokenizer(name))


PIECES = st.sampled_from(
    [
        *"ab1,.'$(é日本\u0301▁Ġ\r\t ",
        *("\n", "\n\n", " ", "  ", "word", " word", "The answer is: ", "42", "12345", "<|end|>", "Step 1: "),
        *("\n\nStep 2", "'s", "...", "\\frac{1}{2}", "</s>", "ü", " \n", "\n ", "<bos>", "語\n日"),
        *("/", "/word", ".\n/word", "WoRD", "\n\nword", "\n\ne\u0301a", "word 'll"),
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@st.composite
def requests(draw) -> list[ScoreRequest]:
    """A tree of contexts, as strings and as texts, each with continuations of its own."""
    grown = [Text(draw(TEXTS))]
    for _ in range(draw(st.integers(0, 5))):
        grown.append(draw(st.sampled_from(grown)) + draw(TEXTS))
    contexts = [str(one) if draw(st.booleans()) else one for one in grown]
    return [ScoreRequest(one, more) for one in contexts for more in draw(st.lists(TEXTS, min_size=1, max_size=3))]


def expected(name: str, request: ScoreRequest) -> tuple[list[int], int]:
    """Tokenize the whole with nothing of the package."""
    text = request.context + request.continuation
    batch = tokenizer(name)(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = batch["input_ids"], [stop for _, stop in batch["offset_mapping"]]
    start = next((i for i, stop in enumerate(ends) if stop > len(request.context)), len(ids))
    return ([tokenizer(name).bos_token_id, *ids], start + 1) if start == 0 else (ids, start)


@pytest.mark.parametrize("name", KINDS)
@given(made=requests())
@settings(max_examples=60, deadline=None)
def test_ids_and_the_continuation_are_those_of_the_whole(name, made):
    for request, got in zip(made, encoder(name).encode(made), strict=True):
        assert (got.ids.tolist(), got.start) == expected(name, request)
        assert len(got) == len(got.ids)


@pytest.mark.parametrize("name", KINDS)
def test_texts_are_cut_exactly_where_that_is_known_to_change_nothing(name):
    assert locality.cuts(tokenizer(name)).kinds == KINDS[name][1]


@pytest.mark.parametrize("name", [name for name, (_, kinds) in KINDS.items() if kinds])
def test_a_chain_of_prefixes_is_tokenized_once(name, monkeypatch):
    steps = [f"Line {n}: there are {n} of them, so we go on.\n\n" for n in range(60)]
    answers = ["The answer is: 35", "The answer is: 354", "The answer is: 1/2"]
    grown = [Text("Problem: how many?\n\n")]
    for step in steps:
        grown.append(grown[-1] + step)
    for contexts in (grown, [str(one) for one in grown]):
        made = [ScoreRequest(one, answer) for one in contexts for answer in answers]
        one, seen = encoder(name), []
        monkeypatch.setattr(one, "_tokenize", partial(_counted, one, seen))
        encoded = one.encode(made)
        monkeypatch.undo()
        assert sum(seen) < 3 * len(grown[-1]) + 1000  # not its square: some 100,000 characters
        assert [(e.ids.tolist(), e.start) for e in encoded[-3:]] == [expected(name, r) for r in made[-3:]]
        assert len({id(e.tail) for e in encoded}) <= len(encoded)


def _counted(one, seen, texts):
    texts = list(dict.fromkeys(texts))
    seen.append(sum(map(len, texts)))
    return Encoder._tokenize(one, texts)


@given(
    st.text("ab \n\né日<>", max_size=12),
    st.sampled_from([BOTH, {"newline"}, {"space"}]),
    st.integers(0, 3),
    st.booleans(),
)
def test_the_last_cut_is_the_last(text, kinds, after, added):
    one = locality.Cuts(frozenset(kinds), *((frozenset(">"), frozenset("<")) if added else ()))
    places = []
    for place in range(1, len(text)):
        before, following = text[place - 1], text[place : place + 2]
        newline = before == "\n" and following[0] in "ab日<>"
        space = before in "ab<>" and following[0] == " " and following[1:] in tuple("ab<>")
        beside_added = added and (before == ">" or following[0] == "<")
        if (("newline" in kinds and newline) or ("space" in kinds and space)) and not beside_added:
            places.append(place)
    assert one.last(text, after) == max((place for place in places if place > after), default=None)


@given(made=requests())
@settings(max_examples=50, deadline=None)
def test_prompts_have_the_ids_of_the_whole_together_and_one_by_one(made):
    one, texts = encoder("qwen"), [request.context for request in made]
    whole = [expected("qwen", ScoreRequest(text, ""))[0] for text in texts]
    assert [ids.tolist() for ids in one.encode_prompts(texts)] == whole
    assert [one.encode_prompt(text) for text in texts] == whole


def test_chunks_change_nothing(monkeypatch):
    made = [ScoreRequest(Text("Problem.\n\n") + f"Step {n}.\n\n", f"The answer is: {n}") for n in range(20)]
    whole = encoder("qwen").encode(made)
    monkeypatch.setattr(encode, "CHUNK_CHARACTERS", 50)
    assert [e.ids.tolist() for e in encoder("qwen").encode(made)] == [e.ids.tolist() for e in whole]
