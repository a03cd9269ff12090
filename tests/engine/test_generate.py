"""Generation: rollouts over shared prefixes against transformers' own generate, one prompt at a time."""

import copy
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tinymodels
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, MistralConfig

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine.branches import Branches
from cpmi_eval.engine.rollouts import SharedGenerator, distrust
from cpmi_eval.errors import ModelError
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import Failure, Generation, Sampling, Tokens

FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "granite", "cohere", "longrope"]
# Prefixes of each other, one of them twice, and one that shares nothing; within longrope's 40 tokens.
PROMPTS = ["Ada has 12", "Ada has 12 apples and", "Ada has", "Ada has 12", "Ada has 30 apples", "Question: how"]
SEEDS = [[10 * i + k for k in range(3)] for i in range(len(PROMPTS))]
ENDS = list(range(1, 14))  # some 3% of the vocabulary, so that completions end at all lengths
WAYS = {
    "greedy": Sampling(24, temperature=0.0),
    "nucleus": Sampling(24, top_p=0.9),
    "all": Sampling(24, temperature=0.8, top_k=20, repetition_penalty=1.05),
    "pure": Sampling(24),
}


def ending(model, ends=ENDS):
    """Return the same model with other ends of sequence."""
    model = copy.copy(model)
    model.generation_config = GenerationConfig(eos_token_id=ends, temperature=0.6, top_k=20, repetition_penalty=1.3)
    return model


@cache
def backend(name="llama", prefix_sharing=True, dtype=torch.float32, bos=False, **args):
    model = ending(tinymodels.model(name, dtype))
    return HFBackend(model, tinymodels.tokenizer(bos), prefix_sharing=prefix_sharing, args={"row_tokens": 96, **args})


@cache
def long_backend(kind, prefix_sharing, **args):
    """A model with room for long completions: exact enough that hundreds of tokens agree on any machine."""
    config = {"llama": LlamaConfig, "mistral": MistralConfig}[kind](
        vocab_size=tinymodels.VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        **({"sliding_window": 100} if kind == "mistral" else {}),
    )
    torch.manual_seed(8)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return HFBackend(
        ending(model, [1]), tinymodels.tokenizer(), prefix_sharing=prefix_sharing, args={"row_tokens": 96, **args}
    )


def texts(generation):
    assert isinstance(generation, Generation)
    return [completion.text for completion in generation.completions]


def drawn(results):
    """What must not depend on how completions were drawn: all but the tokens computed."""
    return [result if isinstance(result, Failure) else result.completions for result in results]


@pytest.mark.parametrize(
    ("name", "way"),
    [*((name, "all") for name in FAMILIES), *(("mistral", way) for way in ("greedy", "nucleus", "pure"))],
)
def test_shared_rollouts_are_those_of_transformers(name, way):
    """In float64: in float32 a near tie may fall either way, by the processor."""
    expected = backend(name, False, torch.float64).generate(PROMPTS, WAYS[way], SEEDS)
    made = backend(name, dtype=torch.float64, slots=8).generate(PROMPTS, WAYS[way], SEEDS)
    assert drawn(made) == drawn(expected)
    assert [one.tokens.requested for one in made] == [one.tokens.requested for one in expected]
    assert [one.tokens.generated for one in made] == [one.tokens.generated for one in expected]
    assert all(0 <= one.tokens.computed <= one.tokens.requested for one in made)


def test_the_cases_above_end_in_both_ways_and_at_many_lengths():
    made = [one for result in backend().generate(PROMPTS, WAYS["pure"], SEEDS) for one in result.completions]
    assert {one.finish for one in made} == {"stop", "length"}
    assert len({one.n_tokens for one in made}) > 6
    assert len({one.text for one in made}) == len(made)


def test_bfloat16_is_served_and_near_enough_to_be_trusted():
    one = backend("llama", dtype=torch.bfloat16)
    made = one.generate(PROMPTS, WAYS["nucleus"], SEEDS)
    assert all(len(result.completions) == 3 for result in made)
    assert 0 < one.describe().as_dict()["branch_difference_per_token"] < 0.25


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_long_completions_beside_short_ones(kind):
    """Own keys outgrow blocks of 64, 128 and 256 tokens, past the window; newcomers take the slots of the finished."""
    sampling = Sampling(330, top_p=0.95)
    seeds = [[1, 2], [3], [], [4], [5, 6, 7], [8]]
    expected = long_backend(kind, False).generate(PROMPTS, sampling, seeds)
    made = long_backend(kind, True, slots=3).generate(PROMPTS, sampling, seeds)
    assert drawn(made) == drawn(expected)
    lengths = [one.n_tokens for result in made for one in result.completions]
    assert max(lengths) == 330
    assert min(lengths) < 256


def test_long_completions_whatever_the_slots():
    sampling, seeds = Sampling(140), [[k] for k in range(6)]  # past two blocks of own keys
    few = long_backend("llama", True, slots=2).generate(PROMPTS, sampling, seeds)
    assert drawn(long_backend("llama", True, slots=32).generate(PROMPTS, sampling, seeds)) == drawn(few)


@pytest.mark.parametrize("args", [{"slots": 1}, {"slots": 3}, {"slots": 128}, {"row_tokens": 4}, {"row_tokens": 4000}])
def test_slots_and_row_sizes_change_nothing(args):
    sampling, seeds = WAYS["all"], [[100 * i + k for k in range(5)] for i in range(len(PROMPTS))]
    expected = backend(slots=8).generate(PROMPTS, sampling, seeds)
    assert drawn(backend(**args).generate(PROMPTS, sampling, seeds)) == drawn(expected)


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_completions_depend_on_their_prompt_and_seed_alone(prefix_sharing):
    one = backend(prefix_sharing=prefix_sharing, bos=True)
    together = one.generate(PROMPTS, WAYS["pure"], SEEDS)
    backwards = one.generate(PROMPTS[::-1], WAYS["pure"], SEEDS[::-1])
    assert drawn(backwards)[::-1] == drawn(together)
    (alone,) = one.generate(PROMPTS[4:5], WAYS["pure"], SEEDS[4:5])
    assert alone.completions == together[4].completions
    (other,) = one.generate(PROMPTS[4:5], WAYS["pure"], [[41, 77, 40]])
    assert texts(other)[0] == texts(alone)[1]
    assert texts(other)[2] == texts(alone)[0]
    (longer,) = one.generate(PROMPTS[4:5], replace(WAYS["pure"], max_new_tokens=40), SEEDS[4:5])
    for short, long in zip(texts(alone), texts(longer), strict=True):
        assert long.startswith(short)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_changing_one_branch_leaves_the_others(name):
    one = backend(name)
    before = one.generate([*PROMPTS, "Ada has 12 miles"], WAYS["pure"], [*SEEDS, [7, 8]])
    after = one.generate([*PROMPTS, "Ada has 12 oranges, Bo none"], WAYS["pure"], [*SEEDS, [7, 8]])
    assert drawn(before)[:-1] == drawn(after)[:-1]
    assert drawn(before)[-1] != drawn(after)[-1]


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_a_prompt_twice_with_the_same_seed_gives_the_same_twice(prefix_sharing):
    first, second = backend(prefix_sharing=prefix_sharing).generate(["Ada has", "Ada has"], WAYS["pure"], [[5, 5], [5]])
    assert len({*texts(first), *texts(second)}) == 1


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_one_token_is_drawn_from_the_prompt_alone(prefix_sharing):
    made = backend(prefix_sharing=prefix_sharing).generate(PROMPTS, Sampling(1), SEEDS)
    assert all(one.n_tokens == 1 for result in made for one in result.completions)
    lengths = [len(backend().encoder.encode_prompt(prompt)) for prompt in PROMPTS]
    assert [one.tokens.requested for one in made] == [3 * length for length in lengths]
    assert made[1].tokens.generated == 3


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_nothing_asked_for_costs_nothing(prefix_sharing):
    one = backend(prefix_sharing=prefix_sharing)
    for sampling in (WAYS["pure"], WAYS["greedy"]):
        none, some = one.generate(PROMPTS[:2], sampling, [[], [1]])
        assert none == Generation((), Tokens())
        assert len(some.completions) == 1
        assert one.generate(PROMPTS[:1], sampling, [[]], lambda i, made: True) == [Generation((), Tokens())]
        assert one.generate([], sampling, []) == []


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_seeds_must_be_given_for_every_prompt(prefix_sharing):
    with pytest.raises(ValueError, match="shorter"):
        backend(prefix_sharing=prefix_sharing).generate(PROMPTS[:2], WAYS["pure"], [[1]])


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_greedy_is_decoded_once_and_repeats(prefix_sharing):
    one = backend(prefix_sharing=prefix_sharing)
    (alone,) = one.generate(["Ada has"], WAYS["greedy"], [[1]])
    for enough in (None, lambda i, made: False, lambda i, made: True):
        (made,) = one.generate(["Ada has"], WAYS["greedy"], [[1, 2, 3]], enough)
        assert texts(made) == texts(alone) * 3
        assert [completion.sample for completion in made.completions] == [0, 1, 2]
        assert made.tokens == replace(alone.tokens, requested=3 * alone.tokens.requested)


@pytest.mark.parametrize("args", [{"slots": 1}, {"slots": 5}, {"slots": 128}, {"prefix_sharing": False}])
def test_enough_leaves_out_what_is_not_needed_and_changes_nothing_else(args):
    one, sampling = backend(**args), WAYS["pure"]
    seeds = [[100 * i + k for k in range(8)] for i in range(len(PROMPTS))]
    full = one.generate(PROMPTS, sampling, seeds)
    wanted = {i: result.completions[2 + i % 3] for i, result in enumerate(full) if i != 4}
    told = []

    def enough(prompt, made):
        told.append((prompt, made))
        return made == wanted.get(prompt)

    made = one.generate(PROMPTS, sampling, seeds, enough)
    for prompt, (result, whole) in enumerate(zip(made, full, strict=True)):
        assert set(result.completions) <= set(whole.completions)
        samples = [completion.sample for completion in result.completions]
        assert samples == sorted(set(samples))
        mine = [completion for index, completion in told if index == prompt]
        assert sorted(mine, key=lambda completion: completion.sample) == list(result.completions)
        if prompt in wanted:
            assert mine.index(wanted[prompt]) == len(mine) - 1  # nothing comes after it
        else:
            assert result.completions == whole.completions
        assert result.tokens.generated <= whole.tokens.generated
        assert result.tokens.computed <= result.tokens.requested <= whole.tokens.requested
    assert sum(one.tokens.generated for one in made) < sum(one.tokens.generated for one in full)


def test_once_there_is_enough_no_more_steps_are_taken(monkeypatch):
    one = backend(slots=2)
    one.prepare(frozenset({"generate"}))
    steps, step = [], one.generator.step
    monkeypatch.setattr(one.generator, "step", lambda branches, tokens: steps.append(1) or step(branches, tokens))
    (made,) = one.generate(["Ada has"], Sampling(8), [list(range(50))], lambda i, completion: True)
    assert len(made.completions) == 1
    assert len(steps) == made.completions[0].n_tokens - 1


@pytest.mark.parametrize("way", ["greedy", "pure", "all"])
def test_stop_strings_are_cut_off_alike(way):
    free = backend().generate(PROMPTS, WAYS[way], SEEDS)
    longest = [max(texts(result), key=len) for result in free]
    stop = tuple(text[n : n + 3] for n, text in enumerate(longest, start=2))
    sampling = replace(WAYS[way], stop=stop)
    made = backend().generate(PROMPTS, sampling, SEEDS)
    assert drawn(made) == drawn(backend(prefix_sharing=False).generate(PROMPTS, sampling, SEEDS))
    for result, whole in zip(made, free, strict=True):
        for completion, all_of_it in zip(result.completions, whole.completions, strict=True):
            cut = min((all_of_it.text.find(mark) for mark in stop if mark in all_of_it.text), default=None)
            assert completion.text == all_of_it.text[:cut]
            assert completion.n_tokens <= all_of_it.n_tokens
            assert completion.finish == ("stop" if cut is not None else all_of_it.finish)
    assert sum(one.tokens.generated for one in made) < sum(one.tokens.generated for one in free)


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_a_stop_string_must_lie_in_the_completion_whole(prefix_sharing):
    one = backend(prefix_sharing=prefix_sharing)
    (free,) = one.generate(["Ada has 12"], WAYS["greedy"], [[0]])
    straddling = "2" + free.completions[0].text[:1]
    assert straddling not in free.completions[0].text
    (made,) = one.generate(["Ada has 12"], replace(WAYS["greedy"], stop=(straddling, "Ada has")), [[0]])
    assert made.completions == free.completions


def test_tokens_worked_out_by_hand():
    one = backend(row_tokens=4000)
    lengths = [len(one.encoder.encode_prompt(prompt)) for prompt in PROMPTS[:3]]
    short, long, shortest = lengths
    assert shortest < short < long
    made = one.generate(PROMPTS[:3], WAYS["pure"], [[1, 2], [3], [4]])
    n = [[completion.n_tokens for completion in result.completions] for result in made]
    # Every completion but its last token is read; alone each would read its prompt too.
    assert [result.tokens.generated for result in made] == [sum(own) for own in n]
    assert made[0].tokens.requested == 2 * short + sum(n[0]) - 2
    assert made[1].tokens.requested == long + n[1][0] - 1
    assert made[2].tokens.requested == shortest + n[2][0] - 1
    # The longest prompt holds the others: its tokens are read once, whoever pays.
    assert sum(result.tokens.computed for result in made) == long + sum(map(sum, n)) - 4
    assert all(result.tokens.computed >= sum(own) - len(own) for result, own in zip(made, n, strict=True))
    assert sum(result.tokens.reused for result in made) == 2 * short + shortest
    alone = backend(prefix_sharing=False).generate(PROMPTS[:3], WAYS["pure"], [[1, 2], [3], [4]])
    assert [result.tokens for result in alone] == [
        Tokens(result.tokens.requested, result.tokens.requested, result.tokens.generated) for result in made
    ]


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_a_prompt_that_leaves_no_room_fails_alone(prefix_sharing):
    prompts = [PROMPTS[0], "word " * 600, PROMPTS[1]]
    first, failure, second = backend(prefix_sharing=prefix_sharing).generate(prompts, WAYS["pure"], SEEDS[:3])
    assert isinstance(failure, Failure)
    assert failure.kind == "too_long"
    assert "512" in failure.message
    expected = backend(prefix_sharing=prefix_sharing).generate(
        [PROMPTS[0], PROMPTS[1]], WAYS["pure"], [SEEDS[0], SEEDS[2]]
    )
    assert drawn([first, second]) == drawn(expected)


def test_the_longest_that_fits_is_served():
    one = backend(max_length=64)
    length = len(one.encoder.encode_prompt(PROMPTS[0]))
    (fits,) = one.generate(PROMPTS[:1], Sampling(64 - length), [[1]])
    assert isinstance(fits, Generation)
    (failure,) = one.generate(PROMPTS[:1], Sampling(65 - length), [[1]])
    assert failure.kind == "too_long"


@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_past_its_threshold_a_dependent_rope_needs_the_other_way(name):
    sampling = Sampling(40)
    failure, *_ = backend(name).generate(PROMPTS, sampling, SEEDS)
    assert failure.kind == "too_long"
    assert "--prefix_sharing off" in failure.message
    made = backend(name, False).generate(PROMPTS, sampling, SEEDS)
    assert all(len(result.completions) == 3 for result in made)


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_other_models_generate_through_transformers(name):
    one = backend(name, False)
    made = one.generate(PROMPTS, WAYS["nucleus"], SEEDS)
    assert all(len(result.completions) == 3 for result in made)
    (alone,) = one.generate(PROMPTS[1:2], WAYS["nucleus"], [SEEDS[1][:1]])
    assert texts(alone)[0] == texts(made[1])[0]
    assert one.describe().as_dict()["generator"] == "plain"


@pytest.mark.parametrize("prefix_sharing", [True, False])
@pytest.mark.parametrize("way", ["greedy", "pure", "all"])
def test_a_model_that_gives_nan_gives_failures_not_text(prefix_sharing, way):
    one = HFBackend(ending(tinymodels.model("llama")), tinymodels.tokenizer(), prefix_sharing=prefix_sharing)
    prompts = [PROMPTS[0], PROMPTS[5]]
    expected = one.generate(prompts, WAYS[way], SEEDS[:2])
    unused = next(mark for mark in "?&#*%$;!" if not any(mark in text for made in expected for text in texts(made)))
    (bad,) = one.encoder.encode_prompt(unused)

    def spoil(module, args, output):
        return output.masked_fill((args[0] == bad)[..., None], float("nan"))

    hook = one.model.get_input_embeddings().register_forward_hook(spoil)
    try:
        results = [
            one.generate([prompt], WAYS[way], [seeds])[0]
            for prompt, seeds in zip([*prompts, f"Ada{unused}"], SEEDS, strict=False)
        ]
    finally:
        hook.remove()
    assert drawn(results[:2]) == drawn(expected)
    assert isinstance(results[2], Failure)
    assert results[2].kind == "non_finite"
    assert "float32" in results[2].message


@pytest.fixture
def small_memory(monkeypatch):
    """Return a function that bounds the slots that a step may have and the nodes that a trunk may have."""

    backend().prepare(frozenset({"generate"}))  # its self-check needs memory too

    def bound(slots=1 << 30, nodes=1 << 30):
        asked, step, trunk = [], SharedGenerator.step, SharedGenerator.trunk

        def limited_step(self, branches, tokens):
            asked.append(len(branches))
            if len(branches) > slots:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step(self, branches, tokens)

        def limited_trunk(self, row):
            if len(row) > nodes:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return trunk(self, row)

        monkeypatch.setattr(SharedGenerator, "step", limited_step)
        monkeypatch.setattr(SharedGenerator, "trunk", limited_trunk)
        return asked

    return bound


@pytest.mark.parametrize("way", ["greedy", "pure", "all"])
def test_out_of_memory_halves_the_slots_and_changes_nothing(way, small_memory):
    one = backend(slots=16)
    expected = one.generate(PROMPTS, WAYS[way], SEEDS)
    asked = small_memory(slots=3)
    made = one.generate(PROMPTS, WAYS[way], SEEDS)
    assert drawn(made) == drawn(expected)
    assert asked[0] > 3
    assert set(asked) <= {16, 8, 4, 2}
    assert asked[-1] == 2
    assert sum(r.tokens.computed for r in made) >= sum(r.tokens.computed for r in expected)


def test_out_of_memory_in_the_middle_begins_again_what_was_running(monkeypatch):
    one = backend(slots=8)
    expected = one.generate(PROMPTS, WAYS["all"], SEEDS)
    step, steps = SharedGenerator.step, []

    def fails_now_and_then(self, branches, tokens):
        steps.append(1)
        if len(steps) in (7, 30):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, branches, tokens)

    monkeypatch.setattr(SharedGenerator, "step", fails_now_and_then)
    told = []
    made = one.generate(PROMPTS, WAYS["all"], SEEDS, lambda i, completion: told.append((i, completion.sample)))
    assert drawn(made) == drawn(expected)
    assert len(told) == len(set(told)) == 18
    assert sum(r.tokens.generated for r in made) > sum(r.tokens.generated for r in expected)


def test_a_row_that_is_too_much_on_its_own_fails_alone_and_slows_nobody(small_memory):
    one = backend(slots=8, row_tokens=4)
    huge = "Question: " + " ".join(f"{n} apples and {n} miles?" for n in range(20))
    prompts, seeds = [*PROMPTS[:5], huge, "Problem: Bo"], [*SEEDS[:5], [1, 2], [3, 4, 5, 6, 7]]
    expected = one.generate(prompts, WAYS["pure"], seeds)
    assert isinstance(expected[5], Generation)
    asked = small_memory(nodes=60)
    made = one.generate(prompts, WAYS["pure"], seeds)
    assert isinstance(made[5], Failure)
    assert made[5].kind == "out_of_memory"
    assert drawn(made[:5]) + drawn(made[6:]) == drawn(expected[:5]) + drawn(expected[6:])
    assert asked[-1] > 1  # all slots are back


def test_a_row_that_is_too_much_is_cut_as_far_as_it_goes(small_memory):
    one = backend(row_tokens=4000)
    prompts = [*PROMPTS, "Ada has 12 miles"]
    expected = one.generate(prompts, WAYS["pure"], [*SEEDS, [1, 2]])
    longest = max(len(one.encoder.encode_prompt(prompt)) for prompt in prompts)
    small_memory(nodes=longest)
    assert drawn(one.generate(prompts, WAYS["pure"], [*SEEDS, [1, 2]])) == drawn(expected)
    small_memory(nodes=longest - 1)
    cut = one.generate(prompts, WAYS["pure"], [*SEEDS, [1, 2]])
    assert {result.kind for result in cut if isinstance(result, Failure)} == {"out_of_memory"}
    for prompt, ours, theirs in zip(prompts, cut, expected, strict=True):
        fits = len(one.encoder.encode_prompt(prompt)) < longest
        assert isinstance(ours, Generation) == fits
        assert not fits or ours.completions == theirs.completions


def test_where_nothing_fits_everything_fails_but_what_needs_no_step(small_memory):
    small_memory(slots=0)
    made = backend().generate(PROMPTS, WAYS["pure"], SEEDS)
    assert {result.kind for result in made} == {"out_of_memory"}
    (single,) = backend().generate(PROMPTS[:1], Sampling(1), [[1]])
    assert isinstance(single, Generation)


def test_other_errors_are_not_taken_for_out_of_memory(monkeypatch):
    one = backend()
    one.generate(["Ada"], Sampling(1), [[0]])
    monkeypatch.setattr(SharedGenerator, "step", lambda self, branches, tokens: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one.generate(["Ada has"], Sampling(4), [[1]])


@pytest.mark.parametrize("name", FAMILIES)
def test_branches_are_within_rounding_of_plain_passes(name):
    assert distrust(backend(name, dtype=torch.float64).generator) < 1e-6
    assert backend(name).describe().as_dict()["generator"] == "shared"


@pytest.mark.parametrize("noise", [0.5, float("nan")])
def test_a_model_whose_attention_does_something_else_is_refused(monkeypatch, noise):
    attend = Branches.attend
    monkeypatch.setattr(Branches, "attend", lambda self, *args: attend(self, *args) + noise)
    one = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer())
    with pytest.raises(ModelError, match=r"nats away from plain passes.*--prefix_sharing off"):
        one.generate(["Ada has"], Sampling(4), [[1]])


def test_a_model_that_hands_its_attention_nothing_is_refused(monkeypatch):
    one = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer())
    attention = type(one.model.model.layers[0].self_attn)
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda self, *args, branches=None, **rest: forward(self, *args, **rest))
    with pytest.raises(ModelError, match=r"cannot be branched.*--prefix_sharing off"):
        one.generate(["Ada has"], Sampling(4), [[1]])


def test_the_model_attends_as_before_once_rollouts_are_drawn():
    one = backend("gemma2")
    before = one.describe().as_dict()["attention"]
    one.generate(PROMPTS, WAYS["pure"], SEEDS)
    assert one.describe().as_dict()["attention"] == before


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_a_tokenizer_without_padding_will_do(prefix_sharing):
    tokenizer = copy.deepcopy(tinymodels.tokenizer())
    tokenizer.pad_token = None
    one = HFBackend(ending(tinymodels.model("llama")), tokenizer, prefix_sharing=prefix_sharing)
    made = one.generate(PROMPTS, WAYS["pure"], SEEDS)
    assert drawn(made) == drawn(backend(prefix_sharing=prefix_sharing).generate(PROMPTS, WAYS["pure"], SEEDS))


def test_a_prompt_has_one_bos():
    one = backend(bos=True)
    (plain,), (marked,) = (one.generate([prompt], WAYS["pure"], [[1]]) for prompt in ("Ada has", "<bos>Ada has"))
    assert plain == marked
    assert drawn([plain]) != drawn(backend().generate(["Ada has"], WAYS["pure"], [[1]]))


def test_no_chat_template_is_an_error_that_says_what_to_do(monkeypatch):
    one = backend(bos=True)
    assert one.has_chat_template
    assert one.chat_prompt("Hello") == "<bos>[user] Hello\n[assistant] "
    monkeypatch.setattr(one.encoder.tokenizer, "chat_template", None)
    assert not one.has_chat_template
    with pytest.raises(ModelError, match="chat=true"):
        one.chat_prompt("Hello")


def test_another_model_is_loaded_with_the_same_settings(tmp_path):
    first, second = tinymodels.save(tmp_path / "a"), tinymodels.save(tmp_path / "b", "qwen2")
    options = BackendOptions(str(first), {"row_tokens": 96, "slots": 5}, dtype="float64", device="cpu")
    other = HFBackend.open(options).another(str(second))
    facts = other.describe().as_dict()
    assert facts["architecture"] == "Qwen2ForCausalLM"
    assert (facts["dtype"], facts["row_tokens"], facts["slots"]) == ("float64", 96, 5)
    with pytest.raises(ModelError, match="given to it"):
        backend().another(str(second))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
def test_getting_ready_measures_peak_memory_from_there():
    one = backend()
    del (block := [np.ones(40_000_000)])[:]  # 320 MB, used and given back
    assert not block
    before = one.peak_memory_bytes()
    one.prepare(frozenset({"generate", "loglikelihood"}))
    assert 0 < one.peak_memory_bytes() < before - 200_000_000


def test_getting_ready_measures_whether_branches_can_be_trusted():
    one = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer())
    one.prepare(frozenset({"loglikelihood"}))
    assert one.describe().as_dict()["branch_difference_per_token"] is None
    one.prepare(frozenset({"generate"}))
    assert one.describe().as_dict()["branch_difference_per_token"] < 1e-4


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_an_empty_prompt_begins_a_text(prefix_sharing):
    (made,) = backend(prefix_sharing=prefix_sharing).generate([""], WAYS["greedy"], [[1]])
    assert made.completions[0].n_tokens > 0
    assert made.tokens.requested == made.completions[0].n_tokens  # the BOS, and all but the last token
