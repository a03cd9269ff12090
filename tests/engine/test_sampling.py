"""Drawing tokens: against the definition written out, against transformers' warpers, and row by row."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tinymodels
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cpmi_eval.engine.sampling import NOTHING, completion, draw, end_tokens, penalized, uniforms
from cpmi_eval.types import Completion, Sampling

LAST = 1 - 2**-53  # the largest number a stream can hold
NEAR = 1e-5  # closer to a boundary than this, fp32 and the definition may part


def probabilities(logits: list[float], seen: list[bool], sampling: Sampling) -> tuple[list[float], float]:
    """Follow the words: penalty, temperature, top-k and top-p with ties, renormalise; and the distance to top-p."""
    values = []
    for logit, mark in zip(logits, seen, strict=True):
        if mark:
            logit = logit / sampling.repetition_penalty if logit > 0 else logit * sampling.repetition_penalty
        values.append(logit / sampling.temperature)
    ranked = sorted(values, reverse=True)
    if 0 < sampling.top_k < len(ranked):
        ranked = [value for value in ranked if value >= ranked[sampling.top_k - 1]]
    weights = [math.exp(value - ranked[0]) for value in ranked]
    distance = math.inf
    if sampling.top_p < 1.0:
        before, inside, total = 0.0, [], math.fsum(weights)
        for value, weight in zip(ranked, weights, strict=True):
            distance = min(distance, abs(before - sampling.top_p))
            if before < sampling.top_p:
                inside.append(value)
            before += weight / total
        ranked = inside
    lowest = ranked[-1]
    weights = [math.exp(value - ranked[0]) if value >= lowest else 0.0 for value in values]
    total = math.fsum(weights)
    return [weight / total for weight in weights], distance


def drawn(logits: list[float], seen: list[bool], sampling: Sampling, numbers: list[float]) -> list[int]:
    rows = torch.tensor([logits] * len(numbers), dtype=torch.float32)
    marks = torch.tensor([seen] * len(numbers))
    tokens = draw(penalized(rows, marks, sampling.repetition_penalty), sampling, torch.tensor(numbers).double())
    return tokens.tolist()


def agrees(logits: list[float], seen: list[bool], sampling: Sampling, numbers: list[float]) -> None:
    expected, _ = probabilities(logits, seen, sampling)
    tokens = drawn(logits, seen, sampling, [0.0, LAST, *numbers])
    likely = [token for token, probability in enumerate(expected) if probability > 1e-12]
    assert tokens[0] == next(token for token, probability in enumerate(expected) if probability > 0)
    assert expected[tokens[1]] > 0
    assert tokens[1] >= likely[-1]
    edges = np.cumsum(expected)
    for number, token in zip(numbers, tokens[2:], strict=True):
        if np.abs(edges - number).min() > NEAR:
            assert token == int(np.searchsorted(edges, number, side="right"))


# A grid makes ties; distances within it survive the penalties and temperatures below in fp32.
LOGITS = st.one_of(st.integers(-12, 12).map(lambda n: n / 4), st.sampled_from([-math.inf, -1e30, 80.0]))
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([1e-6, 0.137, 0.53, 0.9, 0.99, 1.0]),
    top_k=st.integers(0, 14),
    repetition_penalty=st.sampled_from([1.0, 1.25, 1.5]),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(LOGITS, st.booleans()), min_size=1, max_size=12), SAMPLINGS, st.lists(st.floats(0, LAST)))
def test_draw_follows_the_definition(vocabulary, sampling, numbers):
    logits, seen = (list(part) for part in zip(*vocabulary, strict=True))
    assume(max(logits) > -math.inf)
    assume(probabilities(logits, seen, sampling)[1] > NEAR)
    agrees(logits, seen, sampling, numbers)


@pytest.mark.parametrize("grid", [0.25, 1e-3])
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.9003), (0, 0.31), (20, 1.0), (300, 0.95), (5, 0.4)])
def test_draw_follows_the_definition_in_vocabularies_larger_than_what_is_looked_at_first(grid, spread, top_k, top_p):
    rng = np.random.default_rng(3)
    for size in (400, 6000):
        logits = (np.round(rng.normal(0, spread, size) / grid) * grid).tolist()
        sampling = Sampling(top_k=top_k, top_p=top_p)
        while probabilities(logits, [False] * size, sampling)[1] < NEAR:
            sampling = replace(sampling, top_p=sampling.top_p - 3 * NEAR)
        agrees(logits, [False] * size, sampling, rng.random(20).tolist())


def test_greedy_takes_the_highest_and_of_ties_the_lowest_id():
    greedy = Sampling(temperature=0.0, repetition_penalty=2.0)
    assert drawn([1.0, 3.0, 3.0, -math.inf], [False] * 4, greedy, [0.9]) == [1]
    assert drawn([1.0, 3.0, 3.0, -math.inf], [False, True, False, False], greedy, [0.9]) == [2]
    assert drawn([-1.0, -1.5], [True, False], greedy, [0.0]) == [1]  # 2 * -1 < -1.5


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.9), (0, 0.3), (7, 1.0), (12, 0.8), (1, 0.5), (90, 0.99)])
def test_frequencies_are_the_softmax_of_what_transformers_keeps(top_k, top_p, temperature, penalty):
    n, size = 10_000, 60
    torch.manual_seed(5)
    logits, prompt = 0.7 * torch.randn(1, size), torch.randint(0, size, (1, 10))
    kept = RepetitionPenaltyLogitsProcessor(penalty)(prompt, logits) if penalty != 1.0 else logits
    kept = TemperatureLogitsWarper(temperature)(prompt, kept)
    kept = TopKLogitsWarper(top_k)(prompt, kept) if top_k else kept
    kept = TopPLogitsWarper(top_p)(prompt, kept) if top_p < 1 else kept
    expected = kept[0].double().softmax(-1)
    assert expected[expected > 0].min() > 2 / n  # so that each of them comes up
    seen = torch.zeros(size, dtype=torch.bool)
    seen[prompt] = True
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    tokens = drawn(logits[0].tolist(), seen.tolist(), sampling, ((np.arange(n) + 0.5) / n).tolist())
    counts = torch.bincount(torch.tensor(tokens), minlength=size)
    assert ((counts > 0) == (expected > 0)).all()
    assert (counts - n * expected).abs().max() <= 1.01  # an interval of length p holds n p points of the grid, +- 1


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0), Sampling(), Sampling(top_p=0.9), Sampling(top_k=9), Sampling(0, 0.6, 0.95, 40)],
)
def test_other_rows_and_their_order_change_nothing(sampling):
    torch.manual_seed(2)
    spreads = torch.tensor([0.01, 0.5, 3.0, 9.0]).repeat(8)[:, None]  # some rows need wide nuclei, some do not
    logits, numbers = torch.randn(32, 1000) * spreads, torch.rand(32, dtype=torch.float64)
    whole = draw(logits, sampling, numbers)
    order = torch.randperm(32)
    assert torch.equal(draw(logits[order], sampling, numbers[order]), whole[order])
    assert [int(draw(logits[i : i + 1], sampling, numbers[i : i + 1])) for i in range(32)] == whole.tolist()


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0), Sampling(), Sampling(top_p=0.9), Sampling(top_k=3), Sampling(8, 1.0, 0.9, 3)],
)
def test_a_row_that_is_not_numbers_gives_nothing_and_spoils_no_other(sampling):
    torch.manual_seed(2)
    logits, numbers = torch.randn(3, 400), torch.rand(3, dtype=torch.float64)
    expected = draw(logits, sampling, numbers).tolist()
    logits[1, 17] = math.nan
    assert draw(logits, sampling, numbers).tolist() == [expected[0], NOTHING, expected[2]]


def test_a_stream_depends_on_its_seed_alone_and_a_longer_request_extends_it():
    assert uniforms(3, 50).tolist() == uniforms(3, 50).tolist() == uniforms(3, 400)[:50].tolist()
    assert not set(uniforms(3, 50)) & set(uniforms(4, 50))
    many = np.concatenate([uniforms(seed, 40) for seed in range(500)])
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert uniforms(2**64 + 1, 1) != uniforms(1, 1)


def test_a_stream_is_the_same_on_every_machine():
    assert uniforms(0, 3).tolist() == [0.011546754286331562, 0.24154919656271812, 0.11142585551493822]


def tokens_of(text: str) -> list[int]:
    return tinymodels.tokenizer()(text)["input_ids"]


def test_a_completion_is_cut_at_the_end_of_sequence_which_counts_as_decoded():
    tokens = tokens_of("Ada has 12 apples")
    made = completion([*tokens, 1, *tokens], {1}, tinymodels.tokenizer(), ())
    assert made == Completion("Ada has 12 apples", len(tokens) + 1, "stop")
    assert completion(tokens, {1}, tinymodels.tokenizer(), (), 4) == Completion(
        "Ada has 12 apples", len(tokens), "length", 4
    )
    assert completion([1], {1}, tinymodels.tokenizer(), ()) == Completion("", 1, "stop")


def test_a_completion_is_cut_at_the_first_of_its_stop_strings_and_counts_the_tokens_up_to_it():
    tokens = tokens_of("Ada has 12 apples and buys 30 more")
    made = completion([*tokens, 1], {1}, tinymodels.tokenizer(), ("buys", "12 a", "zz"))
    assert (made.text, made.finish) == ("Ada has ", "stop")
    decode = tinymodels.tokenizer().decode
    assert "12 a" in decode(tokens[: made.n_tokens])
    assert "12 a" not in decode(tokens[: made.n_tokens - 1])
    beyond = completion([*tokens[:3], 1, *tokens[3:]], {1}, tinymodels.tokenizer(), ("buys",))
    assert (beyond.text, beyond.n_tokens) == (decode(tokens[:3]), 4)  # what follows the end does not count


def test_the_last_token_may_hold_the_last_character_of_a_stop_string():
    tokens = tokens_of("Ada has")
    made = completion(tokens, {1}, tinymodels.tokenizer(), ("s",))
    assert (made.text, made.n_tokens, made.finish) == ("Ada ha", len(tokens), "stop")


@pytest.mark.parametrize(
    ("configured", "of_tokenizer", "ends"),
    [([5, 6], 1, {1, 5, 6}), (5, None, {5}), (None, 1, {1}), (None, None, set()), ([7, 7], 7, {7})],
)
def test_all_ends_of_sequence_end_a_completion(configured, of_tokenizer, ends):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    assert end_tokens(model, SimpleNamespace(eos_token_id=of_tokenizer)) == ends
