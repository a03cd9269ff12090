"""``cpmi-hf`` against lm-eval's own ``hf`` on the same model: the same numbers for the same requests."""

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tinymodels
import torch

from cpmi_eval.errors import ModelError, UnknownNameError, UsageError

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import cpmi_eval.lm_eval
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.lm_eval.generation import effective
from cpmi_eval.lm_eval.model import CPMIHF

STEM = "Problem: Ada has 12 apples and buys 30 more.\n\nShe gives 7 to Bo.\n\n"
PAIRS = [
    (STEM, "The answer is: 35"), (STEM, "The answer is: 35 apples"), (STEM + "The answer is:", " 35"),
    (STEM + "The answer is: ", "35"),  # the space moves to the continuation
    (STEM + "The answer is:\n\n", "35"), ("The answer i", "s: 35"), ("", "The answer is: 35"), ("", "<bos>The answer"),
    ("<bos>Ada has", " 12 apples"), ("Ada has", " 12 apples"), ("Ada has", " 12 apples"), ("Ada has", " 7"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def ours(name="llama", dtype=torch.float64, bos=False, args=None, **settings):
    backend = HFBackend(
        tinymodels.model(name, dtype), tinymodels.tokenizer(bos), args={"row_tokens": 96, **(args or {})}
    )
    return CPMIHF(backend, **settings)


def theirs(name="llama", dtype=torch.float64, bos=False, **settings):
    return HFLM(
        tinymodels.model(name, dtype),
        tokenizer=tinymodels.tokenizer(bos),
        batch_size=1,
        **{"logits_cache": False, **settings},
    )


def instances(kind, arguments):
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def scored(lm, pairs):
    return lm.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)


def completed(lm, contexts, **asked):
    return lm.generate_until(instances("generate_until", [(one, dict(asked)) for one in contexts]), disable_tqdm=True)


def greedy_continuation(lm, ids, n):
    made = list(ids)
    with torch.inference_mode():
        for _ in range(n):
            made.append(int(lm.model(torch.tensor([made])).logits[0, -1].argmax()))
    return made[len(ids) :]


def same(mine, other, bound=1e-9):
    assert [total for total, _ in mine] == pytest.approx([total for total, _ in other], abs=bound)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in other]


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gemma3"])
def test_pairs_score_as_in_hf_whatever_the_white_space_and_the_context(name):
    same(scored(ours(name), PAIRS), scored(theirs(name), PAIRS))


@pytest.mark.parametrize("settings", [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"prefix_token_id": 5}])
@pytest.mark.parametrize("bos", [False, True])
def test_special_tokens_are_those_of_hf(bos, settings):
    mine, other = ours(bos=bos, **settings), theirs(bos=bos, **settings)
    same(scored(mine, PAIRS), scored(other, PAIRS))
    for text in ("Ada has", "<bos>Ada has", "", " Ada"):
        assert mine.tok_encode(text) == other.tok_encode(text)


@pytest.mark.parametrize("max_length", [8, 13, 20])
def test_long_contexts_lose_their_beginning_as_in_hf(max_length):
    pairs = [pair for pair in PAIRS if len(tinymodels.tokenizer().encode(pair[1])) < 6]
    mine = scored(ours(max_length=max_length), pairs)
    same(mine, scored(theirs(max_length=max_length), pairs))
    moved = [abs(a - b) for (a, _), (b, _) in zip(mine, scored(theirs(), pairs), strict=True)]
    assert max(moved) > 1e-3


def test_continuations_that_cannot_be_scored_are_refused_by_name():
    with pytest.raises(UsageError, match=r"the model takes 3: 'Ada' \+ ' The answer is: 35 apples'"):
        scored(ours(max_length=3), [("Ada", " The answer is: 35 apples")])
    for pair in (("Ada has", ""), ("The ans", "wer")):  # "The answer" has as many tokens as "The ans"
        with pytest.raises(UsageError, match=rf"left of the continuation of '{pair[0]}' \+ '{pair[1]}'"):
            scored(ours(), [pair])
    with pytest.raises(UsageError, match="left of the context"):
        scored(ours(), [(" ", "35")])
    with pytest.raises(AssertionError):
        scored(theirs(), [(" ", "35")])


def test_one_text_cut_at_several_places_scores_as_in_a_plain_pass():
    # lm-eval's hf groups these (logits_cache) and reads the shorter continuation from the wrong positions.
    lm = ours()
    ids = lm.tok_encode(STEM)
    with torch.inference_mode():
        logprobs = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    single = [float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))]
    requests = [(("", str(cut)), ids[:cut], ids[cut:]) for cut in range(1, len(ids))]
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [total for total, _ in answers] == pytest.approx(np.cumsum(single[::-1])[::-1], abs=1e-9)


def test_greedy_is_told_token_by_token_against_brute_force():
    lm = ours()
    stem = lm.tok_encode(STEM)
    best = greedy_continuation(lm, stem, 5)
    other = [*best[:2], (best[2] + 1) % tinymodels.VOCABULARY, *best[3:]]
    continuations = [best, best[:1], other, other[:2], other[:3], [(best[0] + 1) % 400], best]
    requests = [(("", str(i)), stem, one) for i, one in enumerate(continuations)]
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [greedy for _, greedy in answers] == [True, True, False, True, False, False, True]
    same(answers, theirs()._loglikelihood_tokens(requests, disable_tqdm=True))


def test_greedy_survives_running_out_of_memory(monkeypatch):
    lm = ours(args={"batch_tokens": 2000})
    expected = scored(lm, PAIRS)
    chunk = lm.reader.forward._chunk

    def limited(forest, start, stop, *rest):
        if stop - start > 48:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return chunk(forest, start, stop, *rest)

    monkeypatch.setattr(lm.reader.forward, "_chunk", limited)
    same(scored(lm, PAIRS), expected)


def test_order_and_chunks_do_not_matter_and_shared_tokens_are_computed_once(monkeypatch):
    lm = ours(args={"row_tokens": 4000, "batch_tokens": 4000})
    expected = scored(lm, PAIRS)
    assert 2 * lm.tokens.computed < lm.tokens.requested
    assert lm.tokens.requested == sum(
        len(context) + len(continuation) - 1
        for context, continuation in (lm._encode_pair(*pair) for pair in PAIRS if pair[0])
    ) + sum(len(lm.tok_encode(text)) - text.startswith("<bos>") for context, text in PAIRS if not context)
    same(scored(lm, PAIRS[::-1])[::-1], expected)
    monkeypatch.setattr("cpmi_eval.lm_eval.model.CHUNK_BATCHES", 0)  # every request a chunk of its own
    same(scored(lm, PAIRS), expected)


@pytest.mark.parametrize("max_length", [None, 7, 24])
@pytest.mark.parametrize("bos", [False, True])
def test_rolling_windows_are_those_of_hf(bos, max_length, monkeypatch):
    texts = [(STEM,), (STEM * 3,), ("Ada",), ("",), ("<bos>Ada has",)]
    mine, other = ours(bos=bos, max_length=max_length), theirs(bos=bos, max_length=max_length)
    asked = instances("loglikelihood_rolling", texts)
    expected = other.loglikelihood_rolling(asked, disable_tqdm=True)
    assert mine.loglikelihood_rolling(asked, disable_tqdm=True) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr("cpmi_eval.lm_eval.model.CHUNK_BATCHES", 0)
    assert mine.loglikelihood_rolling(asked, disable_tqdm=True) == pytest.approx(expected, abs=1e-9)


CONTEXTS = [STEM, "Ada has", "The answer is:", STEM + "She", "Ada has"]


@pytest.mark.parametrize("name", ["llama", "mistral"])
@pytest.mark.parametrize("bos", [False, True])
def test_greedy_completions_are_those_of_hf(name, bos):
    asked = {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False}
    mine = completed(ours(name, bos=bos), CONTEXTS, **asked)
    assert mine == completed(theirs(name, bos=bos), CONTEXTS, **asked)
    assert all(mine)


def test_stop_strings_cut_as_in_hf():
    mine, other = ours(), theirs()
    contexts = list(dict.fromkeys(CONTEXTS))
    free = completed(other, contexts, max_gen_toks=10)
    stops = [part for text in free for part in re.findall("[a-z]{2}", text)[:1]]
    assert len(stops) > 1
    for until in ([stops[0]], stops, stops[::-1], [stops[1][0], stops[1]], "e", ["<eos>"]):
        asked = {"until": until, "max_gen_toks": 10}
        # One at a time: in a batch hf goes on with rows that are done, and cuts the same text off later.
        assert completed(mine, contexts, **asked) == [completed(other, [one], **asked)[0] for one in contexts]


def test_a_special_token_named_as_a_stop_ends_a_completion():
    lm, other = ours(), theirs()
    contexts = ["Ada has", "The answer is:", "Bo", STEM, "She gives", "5%", "Step by"]
    firsts = [lm.tokenizer.convert_ids_to_tokens(greedy_continuation(lm, lm.tok_encode(one), 1)[0]) for one in contexts]
    context, special = next(
        (context, first)
        for context, first in zip(contexts, firsts, strict=True)
        if first and first.isalpha() and first.isascii() and first not in context
    )
    whole = completed(other, [context], max_gen_toks=4)
    assert whole[0].startswith(special)
    try:
        lm.tokenizer.add_special_tokens({"additional_special_tokens": [special]})
        asked = {"until": [special], "max_gen_toks": 4}
        assert completed(other, [context], **asked) == [""]
        assert completed(lm, [context], **asked) == [""]
    finally:
        tinymodels.tokenizer.cache_clear()


def test_a_stop_string_that_contains_an_earlier_one_is_never_found():
    assert effective(["Q:", "\nQ:", "x"]) == ["Q:", "x"]
    assert effective(["\nQ:", "Q:"]) == ["\nQ:", "Q:"]


def test_prompts_that_leave_no_room_lose_their_beginning_as_in_hf(caplog):
    asked = {"max_gen_toks": 10, "until": []}
    mine = completed(ours(max_length=24), [STEM, "Ada"], **asked)
    assert [mine[0]] == completed(theirs(max_length=24), [STEM], **asked)
    assert [mine[1]] == completed(theirs(max_length=24), ["Ada"], **asked)
    assert "loses its first" in caplog.text
    with pytest.raises(UsageError, match="max_gen_toks=24 leaves no room"):
        completed(ours(max_length=24), ["Ada"], max_gen_toks=24)


def test_penalties_of_request_and_checkpoint_are_those_of_hf(monkeypatch):
    config = tinymodels.model("llama", torch.float64).generation_config
    plain = completed(ours(), CONTEXTS[:1], max_gen_toks=12)
    for asked in ({"repetition_penalty": 1.5}, {}):
        if not asked:
            monkeypatch.setattr(config, "repetition_penalty", 1.5)
        mine = completed(ours(), CONTEXTS[:1], max_gen_toks=12, **asked)
        assert mine == completed(theirs(), CONTEXTS[:1], max_gen_toks=12, **asked)
        assert mine != plain
    monkeypatch.setattr(config, "no_repeat_ngram_size", 3)
    with pytest.raises(UsageError, match="no_repeat_ngram_size=3 is set by the checkpoint's generation_config"):
        completed(ours(), CONTEXTS[:1], max_gen_toks=12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"until": ["x", ""]}, "an empty stop string"),
        ({"num_beams": 4}, "num_beams=4 is asked for"),
        ({"do_sample": True}, "needs a temperature above 0"),
        ({"frequency_penalty": 0.2}, "does not apply the generation argument frequency_penalty"),
        ({"do_sample": True, "temperature": 1.0, "min_p": 0.1}, "min_p=0.1 is asked for"),
    ],
)
def test_generation_arguments_are_applied_or_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        completed(ours(), ["Ada"], **asked)


def test_samples_follow_the_seed_of_torch_and_differ_between_repeats():
    asked = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(completed(ours(), ["Ada has"] * 3, **asked))
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert len(set(draws[0])) == 3


def test_thoughts_are_dropped():
    free = completed(ours(), ["Ada has"], max_gen_toks=12)[0]
    mark = free[5:7]
    kept = completed(ours(think_end_token=mark), ["Ada has"], max_gen_toks=12)
    assert kept == [free.split(mark)[-1].lstrip()]
    assert kept == completed(theirs(think_end_token=mark), ["Ada has"], max_gen_toks=12)


def test_completions_of_a_prompt_are_decoded_in_few_or_many_slots_alike():
    asked = {"max_gen_toks": 10, "until": ["\n\n"]}
    runs = [completed(ours(batch_size=size), CONTEXTS, **asked) for size in ("auto", 1, 2)]
    assert runs[0] == runs[1] == runs[2]


@pytest.fixture
def tasks(tmp_path):
    """Three small tasks over local files: choices after a shared few-shot prompt, perplexity, and generation."""
    rng = np.random.default_rng(3)
    words = ["apples", "miles", "hours", "dollars", "answer", "reasoning", "problem", "question"]
    rows = [
        {
            "question": f"{' '.join(rng.choice(words, 12))} {i}?",
            "choices": [f"{rng.integers(100)} {word}" for word in rng.choice(words, 4)],
            "answer": int(rng.integers(4)),
        }
        for i in range(8)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    shared = f"dataset_path: json\ndataset_kwargs:\n  data_files: {{test: {tmp_path}/rows.json}}\ntest_split: test\n"
    (tmp_path / "choices.yaml").write_text(
        shared + "task: tiny_choices\nfewshot_split: test\nnum_fewshot: 3\noutput_type: multiple_choice\n"
        'doc_to_text: "Question: {{question}}\\nAnswer:"\ndoc_to_choice: choices\ndoc_to_target: answer\n'
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    (tmp_path / "rolling.yaml").write_text(
        shared + "task: tiny_rolling\noutput_type: loglikelihood_rolling\n"
        'doc_to_text: ""\ndoc_to_target: "{{question}} {{question}}"\n'
        "metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]\n"
    )
    (tmp_path / "completions.yaml").write_text(
        shared + "task: tiny_completions\noutput_type: generate_until\n"
        'doc_to_text: "Question: {{question}}\\nAnswer:"\ndoc_to_target: "{{choices[answer]}}"\n'
        'generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 8, do_sample: false}\n'
        "metric_list: [{metric: exact_match}]\n"
    )
    return tmp_path


NAMES = ["tiny_choices", "tiny_rolling", "tiny_completions"]


def evaluated(lm, folder, names=NAMES, **settings):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(lm, tasks=list(names), task_manager=manager, bootstrap_iters=0, **settings)


def responses(result, name):
    return [sample["filtered_resps"] for sample in result["samples"][name]]


@pytest.mark.parametrize(
    "settings", [{}, {"apply_chat_template": True, "system_instruction": "Be brief."}, {"limit": 3}]
)
def test_tasks_give_the_results_of_hf(tasks, settings):
    mine = evaluated(ours(dtype=torch.float32), tasks, **settings)
    other = evaluated(theirs(dtype=torch.float32), tasks, **settings)
    for one, two in zip(responses(mine, "tiny_choices"), responses(other, "tiny_choices"), strict=True):
        same(one, two, bound=1e-4)
    (first, *_), (second, *_) = responses(mine, "tiny_rolling"), responses(other, "tiny_rolling")
    assert first == pytest.approx(second, abs=1e-3)  # some hundred nats
    assert responses(mine, "tiny_completions") == responses(other, "tiny_completions")
    for name in NAMES:
        exact = {key: value for key, value in other["results"][name].items() if isinstance(value, (int, float))}
        assert {key: mine["results"][name][key] for key in exact} == pytest.approx(exact, rel=1e-5)
        assert [sample["prompt_hash"] for sample in mine["samples"][name]] == [
            sample["prompt_hash"] for sample in other["samples"][name]
        ]


def test_results_tell_the_model_and_the_tokens(tasks):
    facts = evaluated(ours(dtype=torch.float32), tasks, NAMES[:1])["config"]
    assert facts["model_num_parameters"] == tinymodels.model("llama").num_parameters()
    assert facts["tokens"]["computed"] < facts["tokens"]["requested"] / 2


def test_answers_come_from_the_cache_the_second_time(tasks, monkeypatch):
    lm = ours(dtype=torch.float32)
    first = evaluated(lm, tasks, use_cache=str(tasks / "cache"))
    fresh = ours(dtype=torch.float32)
    monkeypatch.setattr(fresh.likelihood, "score_greedy", lambda _: pytest.fail("scored again"))
    monkeypatch.setattr(fresh, "_complete", lambda *_: pytest.fail("generated again"))
    second = evaluated(fresh, tasks, use_cache=str(tasks / "cache"))
    for name in NAMES:
        assert json.dumps(responses(first, name)) == json.dumps(responses(second, name))


class Recorder:
    def __init__(self):
        self.kept = {}

    def add_partial(self, kind, args, result):
        self.kept[kind, args[0]] = result


def test_a_request_that_fails_stops_the_run_and_the_others_are_in_the_cache():
    lm = ours("dynamic", max_length=200)
    lm.set_cache_hook(Recorder())
    long = "Ada has 12 apples, " * 10
    with pytest.raises(ModelError, match=r"1 of 3 requests failed, the first with too_long: .*--model hf"):
        scored(lm, [("Ada has", " 12 apples"), (long, "and so on"), ("Bo has", " 7")])
    assert set(lm.cache_hook.kept) == {("loglikelihood", "Ada has"), ("loglikelihood", "Bo has")}
    with pytest.raises(ModelError, match=r"1 of 2 requests failed, the first with too_long: .*--model hf"):
        completed(lm, ["Ada has", long], max_gen_toks=4)
    assert ("generate_until", "Ada has") in lm.cache_hook.kept


def test_a_model_that_gives_nan_stops_the_run():
    lm = ours(dtype=torch.float32)
    head = lm.reader.forward.head

    class Broken(torch.nn.Module):
        weight = head.weight

        def forward(self, hidden):
            return torch.full((*hidden.shape[:-1], self.weight.shape[0]), float("nan"))

    lm.reader.forward.head = Broken()
    with pytest.raises(ModelError, match="1 of 1 requests failed, the first with non_finite"):
        scored(lm, [("Ada", " has")])


def test_batch_sizes_become_budgets():
    usual = ours().loaded.limits
    assert ours().limits == replace(usual, max_length=512)
    four = ours(batch_size="4").limits
    assert (four.batch_tokens, four.slots) == (4 * 96, 4)
    capped = ours(max_batch_size=2).limits
    assert (capped.batch_tokens, capped.slots) == (192, 2)
    own = ours(batch_size=1, args={"slots": 9}).limits
    assert own.slots == 1  # the backend was opened elsewhere: its slots are what auto means


@pytest.mark.parametrize("size", ["auto:4", "0", "-1", "many"])
def test_other_batch_sizes_are_refused(size):
    with pytest.raises(UsageError, match="batch_size"):
        ours(batch_size=size)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"peft": "adapter"}, UsageError, "does not take peft, which lm-eval's own --model hf does"),
        ({"row_token": 5}, UnknownNameError, "Did you mean 'row_tokens'"),
        ({"row_tokens": 5}, UsageError, "loaded already"),
        ({"think_end_token": 7}, UsageError, "the token's text"),
        ({"max_batch_size": 0}, UsageError, "max_batch_size"),
    ],
)
def test_arguments_are_used_or_refused(settings, error, message):
    with pytest.raises(error, match=message):
        ours(**settings)


def test_a_model_that_no_trie_can_serve_is_sent_to_hf(tmp_path):
    with pytest.raises(ModelError, match="lm-eval's own model, --model hf"):
        CPMIHF(str(tinymodels.save(tmp_path, "bloom")), dtype="float32", device="cpu", attn_implementation="eager")


def test_a_loaded_model_keeps_its_dtype_and_device():
    backend = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer())
    with pytest.raises(UsageError, match="loaded already"):
        CPMIHF(backend, dtype="float32")


def test_more_than_one_process_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        CPMIHF(str(tmp_path))


def test_the_name_is_registered_once_beside_lm_evals_own():
    cpmi_eval.lm_eval.register()
    assert get_model("cpmi-hf") is CPMIHF
    cpmi_eval.lm_eval.register()
    assert get_model("cpmi-hf") is CPMIHF
    assert get_model("hf") is HFLM


def test_a_checkpoint_loads_by_name_in_its_own_dtype(tmp_path):
    tinymodels.model("llama", torch.bfloat16).save_pretrained(tmp_path)
    tinymodels.tokenizer().save_pretrained(tmp_path)
    made = get_model("cpmi-hf").create_from_arg_obj(
        {"pretrained": str(tmp_path), "row_tokens": 96}, {"batch_size": 3, "device": "cuda:0", "max_batch_size": None}
    )
    assert made.model.dtype == torch.bfloat16
    assert made.limits.slots == 3
    assert made.get_model_info()["model_sha"]
    bos = CPMIHF(str(tmp_path), dtype="float32", device="cpu", add_bos_token=True)
    assert bos.tok_encode("Ada") == HFLM(str(tmp_path), dtype="float32", device="cpu", add_bos_token=True).tok_encode(
        "Ada"
    )


def test_the_command_line_is_lm_evals_own(tmp_path, tasks, monkeypatch, capsys):
    from cpmi_eval.lm_eval.__main__ import main

    checkpoint = tinymodels.save(tmp_path / "model")
    arguments = [
        *("--model", "cpmi-hf", "--model_args", f"pretrained={checkpoint},dtype=float32", "--tasks", "tiny_choices"),
        *("--include_path", str(tasks), "--log_samples", "--output_path", str(tmp_path / "out")),
    ]
    monkeypatch.setattr(sys, "argv", ["cpmi_eval.lm_eval", *arguments])
    main()
    printed = capsys.readouterr().out
    expected = evaluated(theirs(dtype=torch.float32), tasks, NAMES[:1])
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line.startswith("|")]
    found = {row[5]: float(row[7]) for row in rows[2:]}
    for name in ("acc", "acc_norm"):
        assert found[name] == pytest.approx(expected["results"]["tiny_choices"][f"{name},none"], abs=1e-4)
    (samples,) = (tmp_path / "out").rglob("samples_*.jsonl")
    written = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
    for one, two in zip(written, responses(expected, "tiny_choices"), strict=True):
        same([(float(total), greedy == "True") for total, greedy in one], two, bound=1e-4)


def test_wrong_arguments_end_in_one_line():
    command = [sys.executable, "-m", "cpmi_eval.lm_eval", "tasks", "now"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (made.returncode, made.stdout) == (2, "")
    assert made.stderr.splitlines() == ["Error: tasks takes no arguments, not now"]
