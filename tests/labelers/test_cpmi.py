"""CPMI by hand on a stub backend, and against the paper's formulas computed straight on a model."""

import json
from itertools import pairwise

import pytest
import tinymodels
import torch
import yaml

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.cpmi import CPMI, compared, contexts
from cpmi_eval.types import (
    Completion,
    Failure,
    Generation,
    LogProb,
    Sampling,
    StepScores,
    Text,
    Tokens,
    Trace,
    TraceFailure,
)

TRACE = Trace("t1", "What is 5 + 7?", ("Add: 5 + 7.", "That is 12."), "12", "p1")


class Stub:
    """A backend whose log-probabilities are looked up by (steps seen, answer), and which remembers what was asked."""

    name = "stub"
    capabilities = frozenset({"loglikelihood", "generate"})
    batch_tokens = 100

    def __init__(self, table=None, samples=()):
        self.table = table or {}
        self.samples = samples
        self.asked = []
        self.prompts = []
        self.seeds = []

    def loglikelihood(self, requests):
        self.asked += requests
        return [self._one(request) for request in requests]

    def _one(self, request):
        seen = "".join(str(i) for i, step in enumerate(TRACE.steps) if step in request.context)
        answer = request.continuation.removeprefix("The answer is: ")
        value = self.table.get((seen, answer), -1.0)
        return value if isinstance(value, Failure) else LogProb(value, 2, Tokens(requested=10, computed=3))

    def generate(self, prompts, sampling, seeds, enough=None):
        self.prompts += prompts
        self.seeds += seeds
        self.sampling = sampling
        texts = tuple(Completion(text, 3, "stop") for text in self.samples)
        return [Generation(texts, Tokens(8, 8, 6)) for _ in prompts]

    def chat_prompt(self, user):
        return f"<user>{user}<assistant>"


def negatives_file(tmp_path, negatives=("10", "14")):
    path = tmp_path / "negatives.jsonl"
    path.write_text(json.dumps({"id": "t1", "negatives": list(negatives)}) + "\n", encoding="utf-8")
    return str(path)


def one_template(tmp_path, templates=("Q: {problem}\n",)):
    path = tmp_path / "templates.yaml"
    path.write_text(yaml.safe_dump(list(templates)), encoding="utf-8")
    return str(path)


# Totals over 2 tokens, keyed by (steps in the context, answer).
TABLE = {
    ("", "12"): -8.0, ("0", "12"): -6.0, ("1", "12"): -2.0, ("01", "12"): -1.0, ("", "10"): -8.0, ("0", "10"): -8.0,
    ("1", "10"): -9.0, ("01", "10"): -10.0, ("", "14"): -6.0, ("0", "14"): -5.0, ("1", "14"): -9.0, ("01", "14"): -7.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "gold", "negative", "rewards"),
    [
        # l is the total over 2 tokens. D_0(12) = (-6+8)/2 = 1, D_1(12) = (-2+8)/2 = 3, ...
        ("marginal", [1.0, 3.0], [[0.0, 0.5], [-0.5, -1.5]], [0.75, 4.0]),
        # after one step, then after both: D_1(12) = (-1+6)/2 = 2.5
        ("prefix", [1.0, 2.5], [[0.0, 0.5], [-1.0, -1.0]], [0.75, 3.5]),
        # both steps against all but one: D_0(12) = (-1+2)/2, D_1(12) = (-1+6)/2
        ("loo", [0.5, 2.5], [[-0.5, 1.0], [-1.0, -1.0]], [0.25, 3.5]),
    ],
)
def test_rewards_by_hand(tmp_path, variant, gold, negative, rewards):
    labeler = CPMI(variant=variant, templates=one_template(tmp_path), negatives_file=negatives_file(tmp_path))
    (result,) = labeler.score([TRACE], Stub(TABLE))
    assert isinstance(result, StepScores)
    assert result.details["gold_terms"] == pytest.approx(gold)
    for got, expected in zip(result.details["negative_terms"], negative, strict=True):
        assert got == pytest.approx(expected)
    assert list(result.values) == pytest.approx(rewards)
    assert result.details["answer"] == "12"
    assert result.details["negatives"] == ["10", "14"]
    assert result.tokens == Tokens(requested=90, computed=27)  # 3 contexts x 3 answers


def test_weight_and_normalisation_by_hand(tmp_path):
    files = {"templates": one_template(tmp_path), "negatives_file": negatives_file(tmp_path)}
    (half,) = CPMI(weight=0.5, **files).score([TRACE], Stub(TABLE))
    assert list(half.values) == pytest.approx([1.0 - 0.125, 3.0 + 0.5])
    (summed,) = CPMI(normalize="none", **files).score([TRACE], Stub(TABLE))
    assert list(summed.values) == pytest.approx([1.5, 8.0])  # totals, not means over 2 tokens
    stub = Stub()
    list(CPMI(normalize="answer", **files).score([TRACE], stub))
    assert {request.continuation for request in stub.asked} == {"12", "10", "14"}
    assert all(request.context.endswith("The answer is: ") for request in stub.asked)


def test_contexts_are_template_then_steps_each_followed_by_the_separator(tmp_path):
    stub = Stub()
    templates = one_template(tmp_path, ["A {problem} {{x}}\n", "B {problem}\n"])
    labeler = CPMI("prefix", templates, step_separator="\\n-\\t", target="So: {answer}!", n_negatives=1)
    list(labeler.score([TRACE], stub))
    seen = {request.context for request in stub.asked}
    first, second = TRACE.steps
    assert seen == {
        head + tail
        for head in (f"A {TRACE.problem} {{{{x}}}}\n", f"B {TRACE.problem}\n")
        for tail in ("", f"{first}\n-\t", f"{first}\n-\t{second}\n-\t")
    }
    assert "So: 12!" in {request.continuation for request in stub.asked}


def test_chat_puts_the_template_in_the_user_turn_and_the_steps_in_the_assistants():
    stub = Stub()
    list(CPMI(chat=True, n_negatives=1).score([TRACE], stub))
    assert all(request.context.startswith("<user>") for request in stub.asked)
    assert {r.context.split("<assistant>")[1] for r in stub.asked} == {"", "Add: 5 + 7.\n\n", "That is 12.\n\n"}


def test_contexts_and_what_is_compared_are_as_the_formulas_say():
    def made(variant: str) -> list[str]:
        return [str(one) for one in contexts(variant, Text("q"), ["1", "2", "3"])]

    assert made("loo") == ["q123", "q23", "q13", "q12"]
    assert made("prefix") == ["q", "q1", "q12", "q123"]
    assert made("marginal") == ["q", "q1", "q2", "q3"]
    assert compared("loo", 3) == [(0, 1), (0, 2), (0, 3)]
    assert compared("prefix", 3) == [(1, 0), (2, 1), (3, 2)]
    assert compared("marginal", 3) == [(1, 0), (2, 0), (3, 0)]


def test_each_prefix_of_a_chain_adds_one_piece_to_the_one_before():
    chain = list(contexts("prefix", Text("q"), ["s"] * 20_000))
    assert all(one.before is before for before, one in pairwise(chain))
    assert len(chain[-1]) == 20_001


def test_sampled_negatives_come_first_and_rules_fill_up():
    stub = Stub(samples=("11", "The answer is 12.", "11", "no idea", "13"))
    (result,) = CPMI(sampled=5, n_negatives=4, seed=3).score([TRACE], stub)
    chosen = result.details["negatives"]
    assert chosen[:2] == ["11", "13"]
    assert len(chosen) == 4
    assert "12" not in chosen
    assert result.details["sampled_negatives"] == 2
    assert stub.sampling == Sampling(24, temperature=1.05, top_p=0.9)
    assert len(stub.seeds[0]) == 5
    assert "12" in stub.prompts[0]
    assert TRACE.problem in stub.prompts[0]
    assert result.tokens.generated == 6


def test_negatives_and_sampling_seeds_depend_on_seed_and_trace_alone():
    other = Trace("t2", TRACE.problem, TRACE.steps, "12")

    def negatives(seed, *traces):
        stub = Stub(samples=("no",))
        results = CPMI(sampled=1, seed=seed).score(traces, stub)
        return {r.trace_id: r.details["negatives"] for r in results}, dict(
            zip([t.id for t in traces], stub.seeds, strict=True)
        )

    alone, together, reversed_ = negatives(0, TRACE), negatives(0, TRACE, other), negatives(0, other, TRACE)
    assert together == (reversed_[0], reversed_[1])
    assert alone[0]["t1"] == together[0]["t1"]
    assert alone[1]["t1"] == together[1]["t1"]
    assert negatives(1, TRACE)[1] != alone[1]


def test_capabilities_follow_the_settings():
    assert CPMI().capabilities == {"loglikelihood"}
    assert CPMI(sampled=2).capabilities == {"loglikelihood", "generate"}


def test_failures_are_typed_and_cost_only_their_own_trace(tmp_path):
    wordy = Trace("t3", "Who?", ("It is Evelyn.",), "Evelyn")
    missing = Trace("t4", "What?", ("Nothing.",), None)
    results = {r.trace_id: r for r in CPMI().score([wordy, TRACE, missing], Stub())}
    assert isinstance(results["t1"], StepScores)
    assert results["t3"].failure.kind == "no_negatives"
    assert "sampled=8" in results["t3"].failure.message
    assert results["t4"].failure.kind == "no_reference"

    table = {("0", "12"): Failure("too_long", "9 tokens; the model takes 8")}
    (failed,) = CPMI(templates=one_template(tmp_path), n_negatives=1).score([TRACE], Stub(table))
    assert isinstance(failed, TraceFailure)
    assert failed.failure.kind == "too_long"

    (costly,) = CPMI(templates=one_template(tmp_path), n_negatives=1).score([TRACE], Stub(table))
    assert costly.tokens == Tokens(requested=50, computed=15)  # six requests, one of which failed

    absent = CPMI(negatives_file=negatives_file(tmp_path)).score([Trace("t9", "?", ("a",), "1")], Stub())
    assert next(iter(absent)).failure.kind == "no_negatives"


def test_wrong_template_files_say_where(tmp_path):
    for content, message in [
        ("- no mark\n", "has no {problem} in entry 1"),
        ("- 'ok {problem}'\n- 3\n", "is not valid: [1]: Expected `str`, got `int`"),
        ("a: b\n", "must be a YAML list"),
        ("[]\n", "is empty"),
        ("- [\n", "is no YAML"),
    ]:
        path = tmp_path / "t.yaml"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError) as error:
            CPMI(templates=str(path))
        assert message in str(error.value)


def test_negatives_file_and_sampled_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="one of the two"):
        CPMI(negatives_file=negatives_file(tmp_path), sampled=2)


@pytest.mark.parametrize("variant", ["marginal", "prefix", "loo"])
def test_rewards_equal_the_formulas_computed_straight_on_a_model(tmp_path, variant):
    """Templates, separator and negatives from files; every l(X | C) is one unbatched forward pass written out here."""
    templates = [
        "Solve this carefully.\n\nProblem:\n{problem}\nSolution: one step at a time.\n",
        "{problem}\nReasoning (by steps):\n",
        "Work it out, then state the result.\nProblem: {problem}\n",
        "Exercise: {problem}\nSteps:\n",
    ]
    rejected = ["10", "14", "\\frac{12}{5}", "-12"]
    model, tokenizer = tinymodels.model("llama", torch.float32), tinymodels.tokenizer(bos=True)
    labeler = CPMI(
        variant,
        templates=one_template(tmp_path, templates),
        negatives_file=negatives_file(tmp_path, rejected),
        step_separator="\\n",
        weight=0.8,
    )
    steps = ("Add 5 and 7.", "5 + 7 = 12, so 12.", "Done.")
    trace = Trace("t1", "What is 5 + 7?", steps, "12")
    (result,) = labeler.score([trace], HFBackend(model, tokenizer))

    def mean_logprob(context, target):
        ids = tokenizer(context + target)["input_ids"]
        n = len(ids) - len(tokenizer(context)["input_ids"])  # the separator ends in a newline: no token straddles it
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(ids[1:])[:, None])[-n:]
        return chosen.mean().item()

    def level(answer, members):
        values = []
        for template in templates:
            context = template.replace("{problem}", trace.problem) + "".join(steps[i] + "\n" for i in members)
            values.append(mean_logprob(context, f"The answer is: {answer}"))
        return sum(values) / len(values)

    def gain(answer, i):
        every = list(range(len(steps)))
        if variant == "marginal":
            return level(answer, [i]) - level(answer, [])
        if variant == "prefix":
            return level(answer, every[: i + 1]) - level(answer, every[:i])
        return level(answer, every) - level(answer, [j for j in every if j != i])

    expected = [gain("12", i) - 0.8 * sum(gain(n, i) for n in rejected) / len(rejected) for i in range(len(steps))]
    assert list(result.values) == pytest.approx(expected, abs=1e-4)
