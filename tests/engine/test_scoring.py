"""The oracle suite: packed tries against one forward pass per request, on tiny random models of real architectures."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import tinymodels
import torch

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine import forward, likelihood, masks
from cpmi_eval.engine.likelihood import Likelihood
from cpmi_eval.engine.reader import ahead
from cpmi_eval.engine.scoring import truncated_logprob
from cpmi_eval.engine.straight import StraightReader
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.types import Failure, LogProb, ScoreRequest, Text, Tokens, Trace

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "granite", "cohere", "longrope"]
STEM = "Problem: Ada has 12 apples and buys 30 more.\n\nSolution:\n\n"
STEPS = ["12 + 30 = 42 apples.\n\n", "", "She gives 7 to Bo.\n\n", "So 35 are left, é ü.\n\n"]
ANSWERS = ["35", "3", "35", "354", "\\frac{3}{4}", "1,200"]  # prefixes of each other, a duplicate, LaTeX


def requests() -> list[ScoreRequest]:
    """Contexts that are prefixes of each other, an empty step, several stems, answers as above."""
    contexts = [STEM + "".join(STEPS[:n]) for n in range(len(STEPS) + 1)]
    contexts += [STEM + step for step in STEPS] + ["Question: how many?\n\n" + STEPS[0]]
    made = [ScoreRequest(context, "The answer is: " + answer) for context in contexts for answer in ANSWERS]
    made.append(ScoreRequest(STEM + "The answer is: ", "3"))  # a single token
    made.append(ScoreRequest("", "The answer"))  # nothing before it
    return made


def backend(name: str, dtype: torch.dtype = torch.float64, *, bos: bool = False, **args: int) -> HFBackend:
    return HFBackend(tinymodels.model(name, dtype), tinymodels.tokenizer(bos), args={"row_tokens": 96, **args})


def straight(name: str, dtype: torch.dtype, made: list[ScoreRequest], bos: bool = False) -> list[float]:
    """Score request by request with nothing of the package: tokenize whole, one forward pass, log-softmax, add up."""
    model, tokenizer = tinymodels.model(name, dtype), tinymodels.tokenizer(bos)
    totals = []
    for request in made:
        encoded = tokenizer(request.context + request.continuation, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        if not request.context and not bos:
            ids, offsets = [tokenizer.bos_token_id, *ids], [(0, 0), *offsets]
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
        covered = [i for i, (_, stop) in enumerate(offsets) if stop > len(request.context)]
        totals.append(sum(logprobs[i - 1, ids[i]].item() for i in covered))
    return totals


@pytest.mark.parametrize("name", FAMILIES)
def test_trie_and_pairwise_equal_straight_computation_in_float64(name):
    made = requests()
    expected = straight(name, torch.float64, made)
    one = backend(name)
    trie = one.loglikelihood(made)
    # Unpadded for Gemma 2: in float64 its eager attention turns padding wider than the window into NaN.
    limits = replace(one.limits, batch_tokens=1) if name == "gemma2" else one.limits
    one.likelihood = Likelihood(StraightReader(one.model, limits))
    pairwise = one.loglikelihood(made)
    bound = 1e-5 if name == "gemma2" else 1e-9  # its eager attention takes the softmax in fp32 whatever the dtype
    assert [result.total for result in trie] == pytest.approx(expected, abs=bound)
    assert [result.total for result in pairwise] == pytest.approx(expected, abs=bound)
    assert [result.n_tokens for result in trie] == [result.n_tokens for result in pairwise]


@pytest.mark.parametrize("name", FAMILIES)
def test_trie_equals_pairwise_in_float32_to_1e_4_per_token(name):
    made = requests()
    one = backend(name, torch.float32)
    trie = one.loglikelihood(made)
    one.likelihood = Likelihood(StraightReader(one.model, one.limits))
    for ours, theirs in zip(trie, one.loglikelihood(made), strict=True):
        assert ours.total == pytest.approx(theirs.total, abs=min(1e-4 * ours.n_tokens, 5e-4))


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_bfloat16_is_near_float32(name):
    made = requests()
    exact = backend(name, torch.float32).loglikelihood(made)
    rounded = backend(name, torch.bfloat16).loglikelihood(made)
    errors = [(a.total - b.total) / a.n_tokens for a, b in zip(exact, rounded, strict=True)]
    # Random weights of this size are far less smooth than a trained model, for which scoring.md's bound is 0.05.
    assert math.sqrt(np.mean(np.square(errors))) < 0.15


def test_a_window_matters_here_so_a_lost_window_would_be_seen():
    made = [ScoreRequest(STEM, "The answer is: 35")]
    narrow = backend("mistral").loglikelihood(made)[0].total
    model = tinymodels.model("mistral", torch.float64)
    window, model.config.sliding_window = model.config.sliding_window, None
    try:
        wide = Likelihood(StraightReader(model, backend("llama").limits))
        encoder = backend("mistral").encoder
        assert abs(wide.score(made, encoder.encode)[0].total - narrow) > 1e-3
    finally:
        model.config.sliding_window = window


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gemma3"])
def test_changing_one_branch_leaves_the_others_bit_for_bit(name):
    one = backend(name, torch.float32)
    kept = [ScoreRequest(STEM + step, "The answer is: 35") for step in STEPS]
    before = one.loglikelihood([*kept[:2], ScoreRequest(STEM + "abc", " is 5"), *kept[2:]])
    after = one.loglikelihood([*kept[:2], ScoreRequest(STEM + "xyz", " is 5"), *kept[2:]])
    encoder = one.encoder.encode([ScoreRequest(STEM + "abc", " is 5"), ScoreRequest(STEM + "xyz", " is 5")])
    assert len(encoder[0].ids) == len(encoder[1].ids)
    assert before[2].total != after[2].total
    assert [before[i].total for i in (0, 1, 3, 4)] == [after[i].total for i in (0, 1, 3, 4)]


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_order_batch_size_and_row_size_do_not_matter(prefix_sharing):
    made = requests()
    model, tokenizer = tinymodels.model("qwen2", torch.float64), tinymodels.tokenizer()
    sizes = [(40, 40), (96, 700), (4000, 4000)]
    runs = [
        HFBackend(
            model, tokenizer, prefix_sharing=prefix_sharing, args={"row_tokens": row, "batch_tokens": batch}
        ).loglikelihood(order)
        for (row, batch), order in zip(sizes, (made, made[::-1], made), strict=True)
    ]
    runs[1].reverse()
    for other in runs[1:]:
        assert [r.total for r in other] == pytest.approx([r.total for r in runs[0]], abs=1e-9)


@pytest.mark.parametrize("name", ["bloom", "mamba", "gpt_neo"])
def test_models_that_a_trie_cannot_serve_are_refused_and_pairwise_works(name):
    model, tokenizer = tinymodels.model(name, torch.float32), tinymodels.tokenizer()
    with pytest.raises(ModelError, match="--prefix_sharing off"):
        HFBackend(model, tokenizer, args={"row_tokens": 96})
    made = requests()
    got = HFBackend(model, tokenizer, prefix_sharing=False).loglikelihood(made)
    assert [r.total for r in got] == pytest.approx(straight(name, torch.float32, made), abs=1e-3)


def test_dynamic_rope_is_refused_only_past_its_threshold():
    one = backend("dynamic")
    short = [ScoreRequest("Ada has", " 12 apples"), ScoreRequest("Ada has", " 7")]
    expected = straight("dynamic", torch.float64, short)
    assert [r.total for r in one.loglikelihood(short)] == pytest.approx(expected, abs=1e-9)
    long = ScoreRequest("Ada has 12 apples, " * 10, "and so on")
    failure = one.loglikelihood([long])[0]
    assert isinstance(failure, Failure)
    assert failure.kind == "too_long"
    assert "--prefix_sharing off" in failure.message
    one.likelihood = Likelihood(StraightReader(one.model, one.limits))
    assert one.loglikelihood([long])[0].total == pytest.approx(straight("dynamic", torch.float64, [long])[0], abs=1e-9)


def test_too_long_and_empty_are_failures_in_their_place_and_the_rest_is_scored():
    for prefix_sharing in (True, False):
        one = HFBackend(tinymodels.model("llama", torch.float64), tinymodels.tokenizer(), prefix_sharing=prefix_sharing)
        huge = ScoreRequest("word " * 250_000, "35")  # 1.25 MB
        good = ScoreRequest(STEM, "The answer is: 35")
        results = one.loglikelihood([huge, good, ScoreRequest(STEM, "")])
        assert isinstance(results[0], Failure)
        assert results[0].kind == "too_long"
        assert "512" in results[0].message
        assert results[1].total == pytest.approx(straight("llama", torch.float64, [good])[0], abs=1e-9)
        assert isinstance(results[2], Failure)
        assert results[2].kind == "empty_continuation"
        assert one.loglikelihood([]) == []


def test_a_step_of_a_megabyte_costs_its_own_trace_only():
    one = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer())
    huge = Trace("huge", "How many?", ("So " + "word " * 200_000, "Done."), "35")
    fine = Trace("fine", "How many?", ("So 35.",), "35")
    results = {r.trace_id: r for r in CPMI(n_negatives=1).score([huge, fine], one)}
    assert results["huge"].failure.kind == "too_long"
    assert len(results["fine"].values) == 1


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_a_model_that_gives_nan_gives_failures_not_numbers(prefix_sharing):
    one = HFBackend(tinymodels.model("llama", torch.float32), tinymodels.tokenizer(), prefix_sharing=prefix_sharing)

    class Broken(torch.nn.Module):
        weight = one.model.get_output_embeddings().weight

        def forward(self, hidden):
            return torch.full((*hidden.shape[:-1], self.weight.shape[0]), float("nan"))

    head = one.model.lm_head
    try:
        one.model.lm_head = Broken()
        if prefix_sharing:
            one.likelihood.reader.forward.head = one.model.lm_head
        (result,) = one.loglikelihood([ScoreRequest(STEM, "35")])
    finally:
        one.model.lm_head = head
    assert isinstance(result, Failure)
    assert result.kind == "non_finite"


def short_of_memory(monkeypatch, one, fits):
    """Let chunks through for which ``fits(nodes)``; return the sizes that were tried."""
    chunk, sizes = one.likelihood.reader.forward._chunk, []

    def limited(forest, start, stop, *rest):
        sizes.append(stop - start)
        if not fits(stop - start):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return chunk(forest, start, stop, *rest)

    monkeypatch.setattr(one.likelihood.reader.forward, "_chunk", limited)
    return sizes


def test_out_of_memory_makes_chunks_smaller_and_changes_nothing(monkeypatch):
    made = requests()
    one = backend("llama", row_tokens=256)
    expected = one.loglikelihood(made)
    sizes = short_of_memory(monkeypatch, one, lambda nodes: nodes <= 64)
    again = one.loglikelihood(made)
    assert max(sizes) > 64
    assert [r.total for r in again] == pytest.approx([r.total for r in expected], abs=1e-9)
    assert [(r.n_tokens, r.tokens) for r in again] == [(r.n_tokens, r.tokens) for r in expected]


def test_out_of_memory_parts_the_requests_and_one_that_is_too_much_fails_alone(monkeypatch):
    one = backend("llama", row_tokens=32)
    small = [ScoreRequest(stem, " is 5") for stem in ("Ada", "Bo", "Cy")]
    made = [*small[:2], ScoreRequest(STEM + "".join(STEPS), " is 5"), small[2]]
    expected = one.loglikelihood(small)
    assert max(len(e.ids) for e in one.encoder.encode(small)) < 12
    short_of_memory(monkeypatch, one, lambda nodes: nodes <= 12)
    *before, failure, after = one.loglikelihood(made)
    assert isinstance(failure, Failure)
    assert failure.kind == "out_of_memory"
    assert [r.total for r in (*before, after)] == pytest.approx([r.total for r in expected], abs=1e-9)


def test_other_errors_are_not_taken_for_out_of_memory(monkeypatch):
    one = backend("llama")
    monkeypatch.setattr(one.likelihood.reader.forward, "_chunk", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one.loglikelihood(requests()[:1])


@pytest.mark.parametrize("name", ["llama", "gemma3", "longrope"])
def test_no_mask_exceeds_its_budget_and_nothing_is_computed_twice(name, monkeypatch):
    """A chain much longer than a chunk, branching at every step: all in float64, 8 bytes a cell."""
    grown = [Text("Problem: Ada has 12 apples.\n\n")]
    for n in range(12):
        grown.append(grown[-1] + f"Then {n} more, so {n + 12}.\n\n")
    made = [ScoreRequest(context, "The answer is: " + answer) for context in grown for answer in ("35", "354", "7")]
    expected = straight(name, torch.float64, made)
    shapes, build = [], masks.additive
    monkeypatch.setattr(forward, "MASK_BYTES", 8 * 64 * 200)
    monkeypatch.setattr(masks, "additive", lambda *args: shapes.append((one := build(*args)).shape) or one)
    one = backend(name, row_tokens=4000)
    shapes.clear()
    got = one.loglikelihood(made)
    assert [r.total for r in got] == pytest.approx(expected, abs=1e-9)
    ids = [e.ids for e in one.encoder.encode(made)]
    assert max(map(len, ids)) > 150
    # padding to a multiple of 32 comes on top of the bound
    assert max(queries * keys for *_, queries, keys in shapes) <= 64 * 200 + 64 * 64
    sides = [[i for i in ids if (len(i) > 41) == far] for far in (False, True)] if name == "longrope" else [ids]
    distinct = sum(len({i[:n].tobytes() for i in side for n in range(1, len(i))}) for side in sides)
    assert sum(r.tokens.computed for r in got) == distinct


def test_groups_are_encoded_ahead_and_give_what_one_group_gives(monkeypatch):
    made = [
        ScoreRequest(Text(f"Problem {n}: Ada has {n} apples.\n\n") + step, "The answer is: " + answer)
        for n in range(6)
        for step in STEPS[:3]
        for answer in ANSWERS[:3]
    ]
    one = backend("llama")
    expected = one.loglikelihood(made)
    calls, encode = [], one.encoder.encode
    monkeypatch.setattr(
        one.encoder, "encode", lambda some: calls.append(threading.current_thread().name) or encode(some)
    )
    monkeypatch.setattr(likelihood, "CHARACTERS_PER_TOKEN", 0)  # every beginning is enough for a group
    busy = one.busy_seconds()
    apart = one.loglikelihood(made)
    assert len(calls) == 6
    assert all(name != threading.main_thread().name for name in calls)
    assert one.busy_seconds() > busy
    assert [r.total for r in apart] == pytest.approx([r.total for r in expected], abs=1e-9)
    assert [r.n_tokens for r in apart] == [r.n_tokens for r in expected]
    monkeypatch.setattr(one.likelihood.reader, "deferred", True)  # as on a GPU
    assert one.loglikelihood(made) == apart


def test_what_fails_while_the_next_group_is_made_is_raised(monkeypatch):
    one = backend("llama")

    def broken(_):
        raise RuntimeError("the tokenizer broke")

    monkeypatch.setattr(one.encoder, "encode", broken)
    with pytest.raises(RuntimeError, match="the tokenizer broke"):
        one.loglikelihood(requests())


def test_one_item_is_made_ahead_and_no_more():
    made = []

    def items():
        for n in range(5):
            made.append(n)
            yield n

    got = []
    for n in ahead(items()):
        got.append(n)
        assert len(made) <= n + 2
    assert got == made == [0, 1, 2, 3, 4]


def test_the_head_runs_on_the_predicting_positions_only_each_once():
    one = backend("llama", row_tokens=4000, batch_tokens=4000)
    rows = []
    head = one.likelihood.reader.forward.head
    hook = head.register_forward_hook(lambda module, args, out: rows.append(args[0].shape[:-1].numel()))
    made = [ScoreRequest(STEM, "The answer is: " + answer) for answer in ("35", "35", "354")]
    one.loglikelihood(made)
    hook.remove()
    predicting = {tuple(e.ids[:i]) for e in one.encoder.encode(made) for i in range(e.start, len(e.ids))}
    assert len(predicting) <= sum(rows) < len(predicting) + forward.SHAPE_STEP


def test_tokens_are_accounted_once_to_one_of_the_requests_that_share_them():
    one = backend("llama", row_tokens=4000, batch_tokens=4000)
    made = [
        ScoreRequest(STEM, "The answer is: 35"),
        ScoreRequest(STEM, "The answer is: 35"),
        ScoreRequest(STEM, "Bo has 7"),
    ]
    lengths = [len(e.ids) - 1 for e in one.encoder.encode(made)]
    first, second, third = (result.tokens for result in one.loglikelihood(made))
    stem = one.encoder.encode(made)[0].start
    assert first == Tokens(requested=lengths[0], computed=lengths[0])
    assert second == Tokens(requested=lengths[1], computed=0)
    assert third == Tokens(requested=lengths[2], computed=lengths[2] - stem)
    one.likelihood = Likelihood(StraightReader(one.model, one.limits))
    assert [r.tokens.computed for r in one.loglikelihood(made)] == lengths


@pytest.mark.parametrize("bos", [False, True])
def test_exactly_one_bos(bos):
    encoder = backend("llama", bos=bos).encoder
    assert encoder.encode([ScoreRequest("Ada", " has")])[0].ids.tolist().count(0) == int(bos)
    assert encoder.encode([ScoreRequest("<bos>Ada", " has")])[0].ids.tolist().count(0) == 1
    chat = backend("llama", bos=bos).chat_prompt("How many?")
    assert chat.startswith("<bos>[user] How many?")
    assert chat.endswith("[assistant] ")
    assert encoder.encode([ScoreRequest(chat, "35")])[0].ids.tolist().count(0) == 1
    assert encoder.encode_prompt("Ada has").count(0) == int(bos)
    assert encoder.encode_prompt("<bos>Ada has").count(0) == 1


def test_scores_with_bos_equal_straight_computation():
    made = requests()
    got = backend("llama", bos=True).loglikelihood(made)
    assert [r.total for r in got] == pytest.approx(straight("llama", torch.float64, made, bos=True), abs=1e-9)


def test_a_token_across_the_boundary_belongs_to_the_continuation():
    encoder = backend("llama").encoder
    one = encoder.encode([ScoreRequest("The ans", "wer")])[0]
    assert "Ġanswer" in encoder.tokenizer.convert_ids_to_tokens(one.ids)
    assert encoder.tokenizer.decode(one.ids[one.start :]) == " answer"


def test_slow_tokenizers_and_wrong_arguments_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="fast tokenizer"):
        HFBackend(tinymodels.model("llama"), Slow())
    with pytest.raises(UsageError, match="row_tokens must be a positive whole number"):
        HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(), args={"row_tokens": -1})


def brute_truncated(probabilities: np.ndarray, target: int, top_k: int, top_p: float) -> float:
    """Follow the words: keep the k likeliest, of these the smallest set of mass >= p, and the target; renormalise."""
    order = [int(i) for i in np.argsort(-probabilities, kind="stable")]
    kept = order[:top_k] if top_k else order
    whole, chosen, mass = sum(probabilities[kept]), [], 0.0
    for token in kept:
        if top_p < 1.0 and mass >= top_p:
            break
        chosen.append(token)
        mass += probabilities[token] / whole
    if target not in chosen:
        chosen.append(target)
    return math.log(probabilities[target] / sum(probabilities[chosen]))


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (3, 1.0), (0, 0.5), (0, 0.9), (4, 0.7), (400, 0.999)])
def test_truncation_against_brute_force(top_k, top_p):
    generator = torch.Generator().manual_seed(top_k)
    logprobs = torch.randn(60, 50, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)
    targets = torch.arange(60) % 50
    got = truncated_logprob(logprobs, targets, (top_k, top_p))
    expected = [
        brute_truncated(row.exp().numpy(), int(target), top_k, top_p)
        for row, target in zip(logprobs, targets, strict=True)
    ]
    assert got.tolist() == pytest.approx(expected, abs=1e-9)


def test_truncated_requests_mix_with_whole_ones_and_both_scorers_agree():
    cut = [ScoreRequest(r.context, r.continuation, top_k=5, top_p=0.8) for r in requests()]
    mixed = [r for pair in zip(requests(), cut, strict=True) for r in pair]
    one = backend("llama")
    trie = [r.total for r in one.loglikelihood(mixed)]
    one.likelihood = Likelihood(StraightReader(one.model, one.limits))
    assert [r.total for r in one.loglikelihood(mixed)] == pytest.approx(trie, abs=1e-9)
    assert trie[::2] == pytest.approx(straight("llama", torch.float64, requests()), abs=1e-9)
    assert trie[1] > trie[0]


def test_describe_names_what_a_manifest_needs():
    facts = backend("llama").describe().as_dict()
    assert facts["dtype"] == "float64"
    assert facts["device"] == "cpu"
    assert facts["scorer"] == "trie"
    assert facts["row_tokens"] == 96
    assert facts["trie_difference_per_token"] < 1e-9
    assert isinstance(backend("llama").loglikelihood([ScoreRequest("a", "b")])[0], LogProb)
