"""Models over several devices: the same scores wherever accelerate puts their layers. Here: memory and disk."""

import pytest
import tinymodels
import torch
from transformers import AutoModelForCausalLM

from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import Sampling, ScoreRequest

accelerate = pytest.importorskip("accelerate", reason="accelerate spreads models over devices")

STEM = "Problem: Ada has 12 apples.\n\n"
REQUESTS = [
    ScoreRequest(STEM + step, "The answer is: " + answer)
    for step in ("", "She buys 30.\n\n", "12 + 30 = 42.\n\n")
    for answer in ("42", "41", "7")
]
SPREAD = {
    "layers on disk": {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu"}
    | {"model.layers.1": "disk", "model.layers.2": "disk", "model.norm": "cpu", "lm_head": "cpu"},
    "embeddings on disk": {"model.embed_tokens": "disk", "model.rotary_emb": "cpu", "model.layers": "cpu"}
    | {"model.norm": "cpu", "lm_head": "disk"},
}


def opened(name, **args):
    return HFBackend.open(BackendOptions(str(name), args, dtype="float32", device=args.pop("device", "auto")))


@pytest.fixture
def folder(tmp_path):
    return tinymodels.save(tmp_path / "model")


@pytest.mark.parametrize("how", SPREAD)
@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_scores_and_completions_are_those_of_one_device(folder, tmp_path, how, prefix_sharing):
    whole = HFBackend(
        tinymodels.model("llama"), tinymodels.tokenizer(), prefix_sharing=prefix_sharing, args={"row_tokens": 32}
    )

    spread = AutoModelForCausalLM.from_pretrained(
        folder, device_map=SPREAD[how], offload_folder=tmp_path / "off"
    ).eval()
    assert any(weight.device.type == "meta" for weight in spread.parameters())
    one = HFBackend(spread.eval(), tinymodels.tokenizer(), prefix_sharing=prefix_sharing, args={"row_tokens": 32})
    assert (one.describe().device, one.describe().generator) == ("cpu", "plain")
    got = [result.total for result in one.loglikelihood(REQUESTS)]
    assert got == pytest.approx([result.total for result in whole.loglikelihood(REQUESTS)], abs=1e-5)
    how_many = Sampling(max_new_tokens=6, temperature=0.0)
    assert [c.text for c in one.generate([STEM], how_many, [[0]])[0].completions] == [
        c.text for c in whole.generate([STEM], how_many, [[0]])[0].completions
    ]


def test_device_map_auto_loads_through_accelerate(folder):
    """Which puts all of it on one device where it fits; its branches are then decoded as ever."""
    one, expected = opened(folder, device_map="auto"), opened(folder)
    assert one.describe().generator == expected.describe().generator == "shared"
    assert [r.total for r in one.loglikelihood(REQUESTS)] == pytest.approx(
        [r.total for r in expected.loglikelihood(REQUESTS)], abs=1e-5
    )


@pytest.mark.parametrize("backend", [HFBackend, PRMBackend])
@pytest.mark.parametrize(
    ("args", "device", "message"),
    [
        ({"device_map": "autos"}, "auto", "did you mean 'auto'"),
        ({"device_map": True}, "auto", "device_map"),
        ({"quantization": "4 bit"}, "auto", "did you mean '4bit'"),
        ({"device_map": "auto"}, "cpu", "leave out --device cpu"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(folder, backend, args, device, message):
    with pytest.raises(UsageError, match=f"(?i){message}"):
        backend.check(BackendOptions(str(folder), args, device=device))


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install accelerate bitsandbytes"):
        HFBackend.check(BackendOptions(str(folder), {"quantization": "4bit"}))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_models_are_scored_alike_by_both_scorers(folder, bits):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes quantizes")
    try:
        one = opened(folder, quantization=bits)
    except UsageError as error:
        pytest.skip(f"bitsandbytes does not run here: {error}")
    assert any("Linear4bit" in type(m).__name__ or "Linear8bit" in type(m).__name__ for m in one.model.modules())
    trie = [result.total for result in one.loglikelihood(REQUESTS)]
    other = HFBackend(one.model, one.encoder.tokenizer, prefix_sharing=False)
    allowed = {"4bit": 0.05, "8bit": 1.0}[bits]  # 8 bits round activations too
    assert trie == pytest.approx(
        [result.total for result in other.loglikelihood(REQUESTS)], abs=allowed
    )  # 8 bits: activations too
    exact = [result.total for result in opened(folder).loglikelihood(REQUESTS)]
    assert trie != pytest.approx(exact, abs=1e-6)  # it is another model
    assert torch.tensor(trie).isfinite().all()
