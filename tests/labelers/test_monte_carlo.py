"""Monte-Carlo labels by hand on a scripted backend, from recorded rollouts, and through a tiny real model."""

import json
import math
import random
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scripted import (
    HARD,
    RECOMPUTED,
    RIGHT,
    SAME,
    TOO_LONG,
    WRONG,
    Scripted,
    Sums,
    after_each_step,
    install,
    lines_of,
    random_texts,
    rows_of,
    script,
    trace,
)

import cpmi_eval
from cpmi_eval import registry
from cpmi_eval.errors import UsageError
from cpmi_eval.execution.guard import score_batch
from cpmi_eval.labelers.monte_carlo import ASSUMPTION, MonteCarlo
from cpmi_eval.labelers.rollouts import CHAT_PROMPT, PLAIN_PROMPT, RolloutSettings
from cpmi_eval.protocols import Labeler
from cpmi_eval.seeding import derive_seed
from cpmi_eval.types import (
    Sampling,
    StepScores,
    Tokens,
    Trace,
    TraceFailure,
)


def mc(traces, backend, **how):
    """Score traces as a run does; return the results by trace id."""
    return score_batch(MonteCarlo(**how), traces, backend)


def values(results):
    return {name: getattr(one, "values", None) for name, one in results.items()}


def test_labels_by_hand():
    texts = script(after_each_step("a", "+-++", "----", "-+--") | after_each_step("b", "++++", first=1))
    traces = [trace("a"), trace("b", 1)]
    soft, hard = (mc(traces, Scripted(texts), n=4, label=label) for label in ("soft", "hard"))
    assert values(soft) == {"a": (0.75, 0.0, 0.25), "b": (1.0,)}
    assert values(hard) == {"a": (1.0, 0.0, 1.0), "b": (1.0,)}
    assert soft["a"].details["successes"] == [3, 0, 1]
    assert soft["a"].details["draws"] == [4, 4, 4]
    assert soft["a"].tokens == Tokens(120, 48, 24)
    assert isinstance(MonteCarlo(), Labeler)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 64])
def test_soft_and_hard_call_the_same_step_wrong(n):
    for least in (0, 1):
        marks = "+" * least + "-" * (n - least)
        texts = script(after_each_step("a", "+" * n, marks, "+" * n))
        for label in ("soft", "hard"):
            labeler = MonteCarlo(n=n, label=label)
            (result,) = labeler.score([trace("a")], Scripted(texts))
            wrong = [value < labeler.native_threshold for value in result.values]
            assert wrong == [False, least == 0, False]


def test_what_a_row_says_of_its_rollouts():
    texts = {
        ("policy", "a", 1, 0): (r"It is \boxed{12} and", "length"),
        ("policy", "a", 1, 1): ("12", "length"),
        ("policy", "a", 1, 2): r"\boxed{9^{9^{9^9}}}",
        ("policy", "a", 1, 3): "It is 12",
        ("policy", "a", 2, 0): "",
        ("policy", "a", 2, 1): RIGHT,
        ("policy", "a", 2, 2): WRONG,
        ("policy", "a", 2, 3): WRONG,
    }
    steps = ("Nothing here.", "Nor here.")
    (result,) = mc([Trace("a", "?", steps, "12")], Scripted(texts), n=4).values()
    assert result.values == (0.5, 0.25)
    assert result.details == {
        "label": "soft",
        "schedule": "full",
        "successes": [2, 1],
        "draws": [4, 4],
        "rollouts": 8,
        "truncated": 2,
        "unanswered": 2,
        "unchecked": 1,
    }


def test_only_the_given_steps_answer_for_a_rollout():
    steps = ("We begin.", r"It is \boxed{12}.")
    texts = {("policy", "a", step, 0): "And that is all." for step in (1, 2)}
    (result,) = mc([Trace("a", "?", steps, "12")], Scripted(texts), n=1).values()
    assert result.values == (0.0, 1.0)  # what comes after a prefix is no part of it


def test_samples_hold_all_that_recomputing_takes():
    texts = script({("a", 1): "+-"})
    (result,) = mc([trace("a", 1)], Scripted(texts), n=2).values()
    assert result.samples == tuple(
        {
            "role": "policy",
            "step": 1,
            "sample": sample,
            "seed": derive_seed(0, "policy", "a", 1, sample),
            "text": text,
            "finish": "stop",
            "n_tokens": 5,
            "answer": answer,
            "correct": correct,
            "error": None,
        }
        for sample, (text, answer, correct) in enumerate([(RIGHT, "12", True), (WRONG, "13", False)])
    )


TABLES = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.text("+-", min_size=n, max_size=n), min_size=1, max_size=7).map(lambda marks: (n, marks))
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(table=TABLES, other=TABLES, shuffle=st.none() | st.integers(0, 9))
def test_adaptive_labels_are_those_of_all_draws(table, other, shuffle):
    n = min(table[0], other[0])
    traces = [trace("a", len(table[1])), trace("b", len(other[1]))]
    texts = script(after_each_step("a", *table[1]) | after_each_step("b", *other[1]))
    full, adaptive = Scripted(texts), Scripted(texts, shuffle=shuffle)
    expected = mc(traces, full, n=n, label="hard")
    got = mc(traces, adaptive, n=n, label="hard", schedule="adaptive")
    assert values(got) == values(expected)
    assert len(adaptive.drawn) <= len(full.drawn) == n * (len(table[1]) + len(other[1]))
    for name, result in got.items():
        assert sum(result.details["draws"]) == len(result.samples) == sum(key[1] == name for key in adaptive.drawn)
        assert result.tokens.requested == 10 * len(result.samples)
    if shuffle is None:  # in order of sample: up to the first success, and no further
        every = [marks[:n] for marks in (*table[1], *other[1])]
        assert len(adaptive.drawn) == sum(marks.index("+") + 1 if "+" in marks else n for marks in every)


def test_adaptive_draws_fewer():
    texts = script(after_each_step("a", "-+------", "+-------", "--------"))
    backend = Scripted(texts)
    (result,) = mc([trace("a")], backend, label="hard", schedule="adaptive").values()
    assert result.details["draws"] == [2, 1, 8]
    assert len(backend.drawn) == 11


@pytest.mark.parametrize("n_steps", range(1, 10))
def test_binary_finds_the_first_failing_prefix_in_few_probes(n_steps):
    bound = math.ceil(math.log2(n_steps + 1))
    names = [f"t{first}" for first in range(1, n_steps + 2)]  # the last one never fails
    marks = {name: ["-+"] * first + ["--"] * (n_steps - first) for first, name in enumerate(names)}
    texts = script({point: own for name in names for point, own in after_each_step(name, *marks[name]).items()})
    backend = Scripted(texts)
    results = mc([trace(name, n_steps) for name in names], backend, n=2, label="hard", schedule="binary")
    for good, name in enumerate(names):
        details = results[name].details
        assert results[name].values == (1.0,) * good + (0.0,) * (n_steps - good)
        assert details["assumption"] == ASSUMPTION
        probed = [draws for draws in details["draws"] if draws]
        assert 1 <= len(probed) <= bound
        assert [draws > 0 for draws in details["draws"]] == [one is not None for one in details["successes"]]
    assert len(backend.calls) <= bound  # traces are searched side by side


@hypothesis_settings(max_examples=40, deadline=None)
@given(table=TABLES)
def test_binary_labels_fall_once_whatever_the_table(table):
    n, marks = table
    texts = script(after_each_step("a", *marks))
    (result,) = mc([trace("a", len(marks))], Scripted(texts), n=n, label="hard", schedule="binary").values()
    assert list(result.values) == sorted(result.values, reverse=True)
    for value, successes in zip(result.values, result.details["successes"], strict=True):
        assert successes is None or (value == 1.0) == (successes > 0)  # what was looked at keeps its own label


def test_binary_is_told_from_full_where_its_assumption_fails():
    texts = script(after_each_step("a", "--", "++", "--"))
    full, binary = (
        mc([trace("a")], Scripted(texts), n=2, label="hard", schedule=how)["a"].values for how in ("full", "binary")
    )
    assert full == (0.0, 1.0, 0.0)
    assert binary == (1.0, 1.0, 0.0)


def test_a_failure_in_a_search_ends_it_for_its_trace_alone():
    texts = script(after_each_step("a", "+", "+", "-") | after_each_step("b", "+", "+", "-"))
    backend = Scripted(texts, failures={("policy", "a", 3): TOO_LONG})
    results = mc([trace("a"), trace("b")], backend, n=1, label="hard", schedule="binary")
    assert results["b"].values == (1.0, 1.0, 0.0)
    assert isinstance(results["a"], TraceFailure)
    assert results["a"].failure == TOO_LONG
    assert [one["step"] for one in results["a"].samples] == [2]
    assert results["a"].tokens == Tokens(10, 4, 2)


def test_defaults_are_those_of_the_papers_baseline():
    backend = Scripted(script({("a", 1): "+" * 8}))
    mc([trace("a", 1)], backend)
    assert backend.samplings == {Sampling(2048, 0.6, 0.95, 20, 1.05, ("\nProblem:",))}
    assert len(backend.drawn) == 8
    assert MonteCarlo().capabilities == {"generate"}


def texts_by_point(results):
    return {
        (name, one["step"], one["sample"]): (one["seed"], one["text"])
        for name, result in results.items()
        for one in result.samples
    }


def test_a_rollout_is_the_same_whatever_is_drawn_beside_it():
    traces = [trace("a"), trace("b", 2), trace("c", 1)]
    texts = {
        ("policy", one.id, step, sample): f"{one.id} {step} {sample}"
        for one in traces
        for step in range(1, len(one.steps) + 1)
        for sample in range(5)
    }
    expected = {key[1:]: (derive_seed(7, *key), text) for key, text in texts.items()}

    def drawn(batches, n):
        found = {}
        for batch in batches:  # the backend knows a rollout by its seed alone
            found |= texts_by_point(mc(batch, Scripted(texts, seed=7), n=n, seed=7))
        return found

    assert drawn([traces], 5) == expected
    assert drawn([traces[::-1]], 5) == expected
    assert drawn([[one] for one in traces], 5) == expected
    assert drawn([traces[1:], traces[:1]], 5) == expected
    assert drawn([traces], 2) == {key: value for key, value in expected.items() if key[2] < 2}
    assert len({seed for seed, _ in expected.values()}) == len(expected)


@pytest.mark.parametrize("schedule", ["full", "adaptive", "binary"])
def test_hard_labels_do_not_depend_on_company(schedule):
    rng = random.Random(3)
    marks = {name: ["".join(rng.choice("+--") for _ in range(3)) for _ in range(4)] for name in "abcd"}
    texts = script({point: own for name in marks for point, own in after_each_step(name, *marks[name]).items()})
    traces = [trace(name, 4) for name in marks]
    how = {"n": 3, "label": "hard", "schedule": schedule}
    together = values(mc(traces, Scripted(texts), **how))
    assert values(mc(traces[::-1], Scripted(texts, shuffle=1), **how)) == together
    assert {name: mc([one], Scripted(texts), **how)[name].values for name, one in zip(marks, traces, strict=True)} == (
        together
    )


@pytest.mark.parametrize("schedule", ["full", "adaptive", "binary"])
def test_no_reference_is_no_score_and_costs_nothing(schedule):
    texts = script(after_each_step("b", "+", "+", "-"))
    backend = Scripted(texts)
    results = mc([trace("a", answer=None), trace("b")], backend, n=1, label="hard", schedule=schedule)
    assert results["a"].failure.kind == "no_reference"
    assert results["a"].tokens == Tokens()
    assert results["b"].values == (1.0, 1.0, 0.0)
    alone = mc([trace("a", answer=None)], Scripted({}), label="hard", schedule=schedule)
    assert alone["a"].failure.kind == "no_reference"


@pytest.mark.parametrize("schedule", ["full", "adaptive"])
def test_a_failed_prompt_costs_its_trace_alone_and_nothing_is_forgotten(schedule):
    texts = script(after_each_step("a", "-+", "-+", "-+") | after_each_step("b", "-+", "--", "-+"))
    backend = Scripted(texts, failures={("policy", "a", 3): TOO_LONG})
    results = mc([trace("a"), trace("b")], backend, n=2, label="hard", schedule=schedule)
    failed = results["a"]
    assert isinstance(failed, TraceFailure)
    assert failed.failure == TOO_LONG
    assert failed.tokens == Tokens(40, 16, 8)
    assert [(one["step"], one["sample"]) for one in failed.samples] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert failed.details["successes"] == [1, 1, None]
    assert failed.details["draws"] == [2, 2, 0]
    assert isinstance(results["b"], StepScores)
    assert results["b"].values == (1.0, 0.0, 1.0)


def prompts_of(template=False, **how):
    backend = Scripted(script(after_each_step("a", "+", "+")), chat=template)
    mc([trace("a", 2)], backend, n=1, **how)
    (sampling,) = backend.samplings
    return backend.prompts["policy", "a", 1], backend.prompts["policy", "a", 2], sampling.stop


def test_prompts_without_a_chat_template():
    start = PLAIN_PROMPT.replace("{problem}", "problem a")
    for how in ({}, {"chat": False}, {"chat": "auto"}):
        assert prompts_of(**how) == (
            f"{start}a step 1.\n\n",
            f"{start}a step 1.\n\na step 2.\n\n",
            ("\nProblem:",),
        )


def test_prompts_with_a_chat_template():
    labeler_settings = [({}, True), ({"chat": True}, True), ({"chat": True}, False), ({"chat": "auto"}, True)]
    start = f"<user>{CHAT_PROMPT.replace('{problem}', 'problem a')}<assistant>"
    for how, has_template in labeler_settings:
        backend = Scripted(script(after_each_step("a", "+")), chat=has_template)
        mc([trace("a", 1)], backend, n=1, **how)
        assert backend.prompts["policy", "a", 1] == f"{start}a step 1.\n\n"
        assert {one.stop for one in backend.samplings} == {()}
    backend = Scripted(script(after_each_step("a", "+")), chat=True)
    mc([trace("a", 1)], backend, n=1, chat=False)
    assert backend.prompts["policy", "a", 1].startswith("Problem:\nproblem a\n")


def test_a_prompt_file_replaces_the_built_in_one(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Q {problem} {{x}} {steps}\nA: ", encoding="utf-8")
    first, second, stop = prompts_of(prompt=str(file), step_separator="\\n-\\t")
    assert first == "Q problem a {{x}} {steps}\nA: a step 1.\n-\t"
    assert second == f"{first}a step 2.\n-\t"
    assert stop == ()  # whoever words the prompt says what ends a rollout
    file.write_text("no mark", encoding="utf-8")
    with pytest.raises(UsageError, match=r"must hold \{problem\}"):
        MonteCarlo(prompt=str(file))


def test_a_problem_that_looks_like_a_field_stays_as_it_is():
    one = Trace("a", "What is {problem}?", ("a step 1.",), "12")
    backend = Scripted(script({("a", 1): "+"}))
    mc([one], backend, n=1)
    assert backend.prompts["policy", "a", 1].startswith("Problem:\nWhat is {problem}?\n")


@pytest.mark.parametrize(
    ("how", "template", "stop"),
    [
        ({"stop": "\\n\\n"}, False, ("\n\n",)),
        ({"stop": "###"}, True, ("###",)),
        ({"stop": 7}, False, ("7",)),
        ({"stop": ""}, False, ()),  # an empty string would end every rollout before it begins
        ({}, True, ()),
    ],
)
def test_stop(how, template, stop):
    assert prompts_of(template, **how)[2] == stop


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    install(monkeypatch, texts=random_texts())

    def run(folder, labeler="mc", **how):
        options = {"backend": "scripted", "batch_size": 2, "log_samples": True}
        options |= {name: how.pop(name) for name in ("batch_size", "log_samples", "limit", "fresh") if name in how}
        return cpmi_eval.evaluate(labeler, "sums", output_path=str(tmp_path / folder), labeler_args=how, **options)

    yield run
    registry.entries.cache_clear()


def test_recorded_rollouts_give_the_scores_of_fresh_ones(evaluate):
    recorded = evaluate("recorded")
    file = str(recorded.path / "rollouts.jsonl")
    assert len(lines_of(Path(file))) == 8 * sum(len(one.steps) for one in Sums.traces)
    for number, how in enumerate(RECOMPUTED):
        fresh = evaluate(f"fresh{number}", **how)
        opened = len(Scripted.opened)
        again = evaluate(f"again{number}", rollouts=file, **how)
        assert len(Scripted.opened) == opened  # no model
        assert rows_of(again) == rows_of(fresh)
        assert again.results == fresh.results
        assert again.failed == 0
        assert again.summary["model"] is None
        assert again.summary["cost"]["tokens"]["computed"] == 0


def test_rollouts_drawn_up_to_a_first_success_serve_hard_labels(evaluate):
    adaptive = evaluate("adaptive", n=8, schedule="adaptive", **HARD)
    file = str(adaptive.path / "rollouts.jsonl")
    again = evaluate("again", n=8, schedule="adaptive", rollouts=file, **HARD)
    assert rows_of(again) == rows_of(adaptive)
    soft = evaluate("soft", n=8, rollouts=file)
    whole = {one["id"] for one in rows_of(adaptive) if set(one["scores"]) == {0.0}}
    assert {row["id"] for row in soft.rows if row["error"] is None} == whole
    assert {row["error"]["kind"] for row in soft.rows if row["error"]} <= {"missing_rollouts"}


def test_a_missing_rollout_is_its_traces_failure(evaluate, tmp_path):
    recorded = evaluate("recorded", n=4)
    kept = lines_of(recorded.path / "rollouts.jsonl")
    file = tmp_path / "some.jsonl"
    lost = ("t2", 3, 1)
    kept = [one for one in kept if (one["id"], one["step"], one["sample"]) != lost]
    file.write_text("".join(json.dumps(one) + "\n" for one in reversed(kept)), encoding="utf-8")  # in any order
    again = evaluate("again", n=4, rollouts=str(file))
    for row, before in zip(again.rows, recorded.rows, strict=True):
        if row["id"] != "t2":
            assert row["scores"] == before["scores"]
            continue
        assert row["scores"] is None
        assert row["error"]["kind"] == "missing_rollouts"
        assert "has 3 of 4 policy rollouts after step 3" in row["error"]["message"]
        assert str(file) in row["error"]["message"]
    more = evaluate("more", n=9, rollouts=str(recorded.path / "rollouts.jsonl"))
    assert more.summary["errors"] == {"missing_rollouts": 6}


def test_a_success_beyond_what_was_asked_for_does_not_count(tmp_path):
    """Of an adaptive run whose completions ended out of order: samples 0 and 1 are unknown, so n=2 has no answer."""
    (result,) = mc([trace("a", 1)], Scripted(script({("a", 1): "--+"})), n=3).values()
    file = tmp_path / "rollouts.jsonl"
    file.write_text(json.dumps({"id": "a", "task": "x", **result.samples[2]}) + "\n", encoding="utf-8")
    how = {"rollouts": str(file), "label": "hard", "schedule": "adaptive"}
    assert mc([trace("a", 1)], None, n=3, **how)["a"].values == (1.0,)
    assert mc([trace("a", 1)], None, n=2, **how)["a"].failure.kind == "missing_rollouts"


@pytest.mark.parametrize(
    "damage",
    [
        b'{"role": "policy", "step": 1',
        b"[1]",
        b"null",
        b'"policy"',
        b"\xff\xfe",
        b'{"role": "policy", "step": 1, "sample": 0}',
        b'{"id": ["t1"], "role": "policy", "step": 1, "sample": 0, "seed": 1, "text": "", "finish": "stop",'
        b' "n_tokens": 1, "answer": null, "correct": false, "error": null}',
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, damage):
    (result,) = mc([trace("a", 1)], Scripted(script({("a", 1): "+"})), n=1).values()
    good = json.dumps({"id": "a", "task": "x", **result.samples[0]}).encode()
    file = tmp_path / "rollouts.jsonl"
    file.write_bytes(b"\n".join([good, good, damage, good]) + b"\n")
    with pytest.raises(UsageError) as caught:
        MonteCarlo(rollouts=str(file))
    assert f"{file}, line 3 " in str(caught.value)
    assert "the rollouts of a run with --log_samples" in str(caught.value)


def test_recorded_rollouts_need_no_model(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    file.touch()
    assert MonteCarlo(rollouts=str(file)).capabilities == frozenset()
    for field in RolloutSettings.__dataclass_fields__.values():
        if field.name != "rollouts":
            other = {"chat": True, "prompt": "x", "stop": "x", "step_separator": "x"}.get(field.name, 3)
            with pytest.raises(UsageError, match=f"so {field.name} would do nothing"):
                MonteCarlo(rollouts=str(file), **{field.name: other})


class Arithmetic(Sums):
    """Traces whose rollouts, gibberish, succeed where they end without a number of their own."""

    traces: ClassVar[list[Trace]] = [
        Trace(
            f"s{i}",
            f"Ada has {i} apples and buys {2 * i} more. How many?",
            tuple(f"Step: {i} + {k} = {i + k}." for k in range(1 + i % 4)),
            str(i),
        )
        for i in range(1, 8)
    ]


@pytest.fixture
def on_model(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.BUILTIN["tasks"], "sums", f"{Arithmetic.__module__}:Arithmetic")
    registry.entries.cache_clear()

    def run(folder, batch_size="auto", **how):
        return cpmi_eval.evaluate(
            "mc",
            "sums",
            model=str(checkpoint),
            dtype="float32",
            device="cpu",
            output_path=str(tmp_path / folder),
            batch_size=batch_size,
            log_samples=True,
            model_args={"row_tokens": 128, "batch_tokens": 256, "slots": 8},
            labeler_args={"n": 4, "max_new_tokens": 12, "stop": "e", "temperature": 1.0, "top_k": 0, **how},
        )

    yield run
    registry.entries.cache_clear()


def as_set(path):
    lines = path.read_bytes().splitlines()
    assert len(set(lines)) == len(lines)
    return set(lines)


def test_batches_do_not_change_what_a_model_is_said_to_know(on_model):
    runs = [on_model(f"run{size}", size) for size in (1, 2, "auto")]
    first = runs[0]
    scores = [value for row in first.rows for value in row["scores"]]
    assert len(set(scores)) > 2  # of some prefixes all, of others some rollouts succeed
    for other in runs[1:]:
        assert rows_of(other, (*SAME, "details")) == rows_of(first, (*SAME, "details"))
        assert as_set(other.path / "rollouts.jsonl") == as_set(first.path / "rollouts.jsonl")
    assert len(as_set(first.path / "rollouts.jsonl")) == 4 * len(scores)


def test_adaptive_labels_on_a_model_are_those_of_all_draws(on_model):
    full = on_model("full", **HARD)
    adaptive = on_model("adaptive", schedule="adaptive", **HARD)
    assert rows_of(adaptive) == rows_of(full)
    assert as_set(adaptive.path / "rollouts.jsonl") < as_set(full.path / "rollouts.jsonl")
    generated = [one.summary["cost"]["tokens"]["generated"] for one in (adaptive, full)]
    assert generated[0] < generated[1]
    again = on_model_recorded(full, adaptive)
    assert rows_of(again) == rows_of(full)


def on_model_recorded(full, adaptive):
    return cpmi_eval.evaluate(
        "mc",
        "sums",
        output_path=str(full.path.parent / "recorded"),
        labeler_args={
            "n": 4, "label": "hard", "schedule": "adaptive", "rollouts": str(adaptive.path / "rollouts.jsonl")
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "rollouts", "torn"),
    [
        (3, 0, False),  # killed between batches
        (3, 5, True),  # killed after some rollouts of a batch, before its rows
        (2, 9, False),
        (0, 0, True),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(on_model, rows, rollouts, torn):
    result = on_model("run", 2)
    samples, texts = result.path / "samples.jsonl", result.path / "rollouts.jsonl"
    whole = as_set(texts)
    kept = samples.read_bytes().splitlines(keepends=True)
    ids = {json.loads(line)["id"] for line in kept[:rows]}
    lines = texts.read_bytes().splitlines(keepends=True)
    owned = sum(json.loads(line)["id"] in ids for line in lines)
    samples.write_bytes(b"".join(kept[:rows]) + (kept[rows][:40] if torn else b""))
    following = lines[owned + rollouts]
    texts.write_bytes(b"".join(lines[: owned + rollouts]) + (following[:40] if torn else b""))
    (result.path / "results.json").unlink()
    again = on_model("run", 2)
    assert rows_of(again, (*SAME, "details")) == rows_of(result, (*SAME, "details"))
    assert as_set(texts) == whole
    assert len(lines_of(samples)) == len(Arithmetic.traces)
    assert again.results == result.results
