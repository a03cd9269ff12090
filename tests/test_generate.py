"""Sampling: seeded per prompt, stop strings cut, tokens counted."""

from __future__ import annotations

import pytest
import tinymodels

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.errors import ModelError
from cpmi_eval.types import Failure, Sampling


@pytest.fixture
def backend():
    return HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(bos=True), args={"row_tokens": 96})


def texts(generation):
    return [completion.text for completion in generation.completions]


def test_completions_depend_on_their_own_seed_alone(backend):
    sampling = Sampling(n=3, max_new_tokens=6, temperature=1.05, top_p=0.9)
    first, second = backend.generate(["Ada has", "Bo has"], sampling, [11, 12])
    swapped = backend.generate(["Bo has", "Ada has"], sampling, [12, 11])
    assert texts(swapped[1]) == texts(first)
    assert texts(swapped[0]) == texts(second)
    assert texts(backend.generate(["Ada has"], sampling, [13])[0]) != texts(first)
    assert len(set(texts(first))) > 1


def test_tokens_are_counted(backend):
    (made,) = backend.generate(["Ada has"], Sampling(n=2, max_new_tokens=5, temperature=1.0), [1])
    prompt = len(backend.encoder.encode_prompt("Ada has"))
    assert made.tokens.generated == sum(one.n_tokens for one in made.completions) <= 10
    assert made.tokens.requested == 2 * prompt
    assert made.tokens.computed == 2 * prompt + made.tokens.generated


def test_greedy_is_decoded_once_and_repeats(backend):
    (made,) = backend.generate(["Ada has"], Sampling(n=3, max_new_tokens=4, temperature=0.0), [1])
    assert len(set(texts(made))) == 1
    assert len(made.completions) == 3
    assert made.tokens.generated == made.completions[0].n_tokens


def test_a_stop_string_ends_a_completion_and_is_cut_off(backend):
    free = backend.generate(["Ada has"], Sampling(max_new_tokens=12, temperature=0.0), [1])[0].completions[0]
    stop = free.text[4:6]
    (made,) = backend.generate(["Ada has"], Sampling(max_new_tokens=12, temperature=0.0, stop=(stop,)), [1])
    assert made.completions[0].text == free.text[: free.text.index(stop)]
    assert made.completions[0].finish == "stop"
    assert made.completions[0].n_tokens <= free.n_tokens


def test_a_prompt_that_leaves_no_room_is_a_failure(backend):
    (made,) = backend.generate(["word " * 600], Sampling(max_new_tokens=4), [1])
    assert isinstance(made, Failure)
    assert made.kind == "too_long"


def test_no_chat_template_is_an_error_that_says_what_to_do(backend, monkeypatch):
    monkeypatch.setattr(backend.encoder.tokenizer, "chat_template", None)
    with pytest.raises(ModelError, match="chat=true"):
        backend.chat_prompt("Hello")
