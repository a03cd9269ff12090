"""PAV rewards by hand on scripted policies and provers, and from recorded rollouts."""

import json
from typing import ClassVar

import pytest
from scripted import (
    RECOMPUTED,
    TOO_LONG,
    Scripted,
    Sums,
    after_each_step,
    install,
    random_texts,
    rows_of,
    script,
    trace,
)

import cpmi_eval
from cpmi_eval import registry
from cpmi_eval.errors import UsageError
from cpmi_eval.execution.guard import score_batch
from cpmi_eval.labelers.pav import PAV
from cpmi_eval.metrics.thresholds import threshold
from cpmi_eval.protocols import Labeler, LoadsModels
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import StepScores, Tokens, TraceFailure

POLICY = after_each_step("a", "++--", "+---", "----")
PROVER = after_each_step("a", "+-", "--", "++", "+-", first=0)  # 0: from the bare problem
TEXTS = script(POLICY) | script(PROVER, "prover")
SMALL = {"n": 4, "prover_n": 2}


def pav(traces, backend, **how):
    return score_batch(PAV(**how), traces, backend)


@pytest.mark.parametrize(
    ("alpha", "rewards"),
    [
        # Q = 1/2, 1/4, 0; Q_mu = 1/2 before the first step, then 0, 1, 1/2
        (1.0, (0.5 - 0.5, 0.25 + 1.0, 0.0 - 0.5)),
        (0.5, (0.25, 0.75, -0.25)),
        (0, (0.5, 0.25, 0.0)),
        (-1.0, (1.0, -0.75, 0.5)),
    ],
)
def test_rewards_by_hand(alpha, rewards):
    backend = Scripted(TEXTS)
    result = pav([trace("a")], backend, alpha=alpha, **SMALL)["a"]
    assert isinstance(result, StepScores)
    assert result.values == pytest.approx(rewards, abs=1e-12)
    assert result.details["policy_values"] == [0.5, 0.25, 0.0]
    assert result.details["prover_values"] == [0.5, 0.0, 1.0, 0.5]
    assert result.details["rollouts"] == len(result.samples) == 3 * 4 + 4 * 2
    assert result.tokens == Tokens(200, 80, 40)
    assert {(one["role"], one["step"]) for one in result.samples} == {
        *(("policy", step) for step in (1, 2, 3)),
        *(("prover", step) for step in (0, 1, 2, 3)),
    }
    assert backend.prompts["prover", "a", 0] == backend.prompts["prover", "a", 1].removesuffix("a step 1.\n\n")


def test_a_step_is_wrong_unless_its_reward_is_positive():
    labeler = PAV(**SMALL)
    rule = threshold("native", labeler.native_threshold)
    (result,) = labeler.score([trace("a")], Scripted(TEXTS))
    assert rule.predict(result.values) == 0  # 1/2 - 1/2
    assert rule.predict(result.values[1:]) == 1
    assert rule.predict((1e-3, 1 / 64)) == -1


@pytest.mark.parametrize("prover_n", [3, 5, 6, 7])
def test_rounding_is_no_reward(prover_n):
    """k/n + (0 - k/n) and 1/n + (j/n - (j+1)/n) are nothing, though sums of floats may differ from 0."""
    for before in range(1, prover_n + 1):
        for after in range(before):
            own = before - after  # as many of the policy's succeed as the prover loses
            texts = script({("a", 1): "+" * own + "-" * (prover_n - own)}) | script(
                {("a", step): "+" * k + "-" * (prover_n - k) for step, k in enumerate((before, after))}, "prover"
            )
            labeler = PAV(n=prover_n, prover_n=prover_n)
            (result,) = labeler.score([trace("a", 1)], Scripted(texts))
            assert threshold("native", labeler.native_threshold).predict(result.values) == 0


def test_defaults_are_those_of_the_baseline():
    labeler = PAV()
    assert (labeler.n, labeler.prover_n, labeler.alpha, labeler.capabilities) == (8, 4, 1.0, {"generate"})
    assert isinstance(labeler, Labeler)
    assert isinstance(labeler, LoadsModels)


def test_policy_and_prover_draw_apart_even_if_they_are_one_model():
    result = pav([trace("a")], Scripted(TEXTS), **SMALL)["a"]
    assert len({one["seed"] for one in result.samples}) == len(result.samples)


def test_company_and_order_do_not_matter():
    traces = [trace("a"), trace("b", 1), trace("c", 2)]
    more = after_each_step("b", "+-++") | after_each_step("c", "++++", "+---")
    mu = after_each_step("b", "+-", "++", first=0) | after_each_step("c", "+-", "++", "--", first=0)
    texts = TEXTS | script(more) | script(mu, "prover")
    together = pav(traces, Scripted(texts), **SMALL)
    assert {name: one.values for name, one in pav(traces[::-1], Scripted(texts, shuffle=2), **SMALL).items()} == {
        name: one.values for name, one in together.items()
    }
    for one in traces:
        assert pav([one], Scripted(texts), **SMALL) == {one.id: together[one.id]}


def test_failures_cost_their_own_trace_alone():
    traces = [trace("a"), trace("b", answer=None)]
    results = pav(traces, Scripted(TEXTS, failures={("prover", "a", 2): TOO_LONG}), **SMALL)
    assert results["b"].failure.kind == "no_reference"
    assert isinstance(results["a"], TraceFailure)
    assert results["a"].failure == TOO_LONG
    assert len(results["a"].samples) == 3 * 4 + 3 * 2
    assert results["a"].tokens == Tokens(180, 72, 36)


class Two(Scripted):
    """A backend that loads provers, and remembers them."""

    provers: ClassVar[list[Scripted]] = []

    def another(self, model):
        made = type(self)(self.texts, chat=True, model=model)
        self.provers.append(made)
        return made


def test_a_prover_of_its_own_draws_the_provers_rollouts(monkeypatch):
    monkeypatch.setattr(Two, "provers", [])
    policy = Two(TEXTS)
    labeler = PAV(prover="other", **SMALL)
    assert labeler.load(policy) == {"prover": ModelDescription("scripted", "other", "cpu", dtype="float32")}
    results = score_batch(labeler, [trace("a")], policy)
    (prover,) = Two.provers
    assert results["a"].values == pav([trace("a")], Scripted(TEXTS), **SMALL)["a"].values
    assert {key[0] for key in policy.drawn} == {"policy"}
    assert {key[0] for key in prover.drawn} == {"prover"}
    assert prover.prepared == [frozenset({"generate"})]
    assert prover.prompts["prover", "a", 0].startswith("<user>")  # each by its own template
    assert policy.prompts["policy", "a", 1].startswith("Problem:")


def test_the_named_prover_is_used_though_nobody_loaded_it(monkeypatch):
    monkeypatch.setattr(Two, "provers", [])
    policy = Two(TEXTS)
    pav([trace("a")], policy, prover="other", **SMALL)
    assert [one.model for one in Two.provers] == ["other"]
    assert {key[0] for key in policy.drawn} == {"policy"}


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    install(monkeypatch, texts=random_texts(("policy", "prover")))

    def run(folder, labeler="pav", **how):
        return cpmi_eval.evaluate(
            labeler,
            "sums",
            output_path=str(tmp_path / folder),
            labeler_args=how,
            backend="scripted",
            batch_size=2,
            log_samples=True,
            model="first",
        )

    yield run
    registry.entries.cache_clear()


def test_the_manifest_names_the_prover(evaluate):
    result = evaluate("run", prover="second")
    manifest = json.loads((result.path / "manifest.json").read_text(encoding="utf-8"))
    for model in (manifest["model"], result.summary["model"]):
        assert model["model"] == "first"
        assert model["others"]["prover"]["model"] == "second"
    assert Scripted.opened == ["first", "second"]  # each once
    assert result.failed == 0
    again = evaluate("run", prover="second")
    assert again.rows == result.rows
    assert Scripted.opened == ["first", "second"]
    alone = evaluate("alone")
    assert "others" not in alone.summary["model"]
    assert [row["scores"] for row in alone.rows] == [row["scores"] for row in result.rows]  # here they know the same


def test_a_run_goes_on_only_with_the_same_prover(evaluate, monkeypatch):
    result = evaluate("run", prover="second")
    samples = result.path / "samples.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:3]))
    monkeypatch.setattr(
        Scripted, "another", lambda self, model: type(self)(self.texts, model=f"another revision of {model}")
    )
    with pytest.raises(UsageError, match="begun with another model"):
        evaluate("run", prover="second")


def test_recorded_rollouts_serve_both_roles(evaluate):
    recorded = evaluate("recorded")
    file = str(recorded.path / "rollouts.jsonl")
    for number, how in enumerate([{}, {"n": 3}, {"prover_n": 2, "alpha": 0.5}, {"n": 5, "prover_n": 1}]):
        fresh = evaluate(f"fresh{number}", **how)
        opened = list(Scripted.opened)
        again = evaluate(f"again{number}", rollouts=file, **how)
        assert Scripted.opened == opened
        assert rows_of(again) == rows_of(fresh)
        assert again.failed == 0
    short = evaluate("short", prover_n=5, rollouts=file)
    assert short.summary["errors"] == {"missing_rollouts": len(Sums.traces)}
    assert "4 of 5 prover rollouts after step 0" in short.rows[0]["error"]["message"]


def test_the_policys_rollouts_serve_mc_too(evaluate):
    file = str(evaluate("recorded").path / "rollouts.jsonl")
    for number, how in enumerate(RECOMPUTED):
        assert rows_of(evaluate(f"again{number}", "mc", rollouts=file, **how)) == rows_of(
            evaluate(f"fresh{number}", "mc", **how)
        )
    only_policy = str(evaluate("mc", "mc").path / "rollouts.jsonl")
    assert evaluate("both", rollouts=only_policy).summary["errors"] == {"missing_rollouts": len(Sums.traces)}
