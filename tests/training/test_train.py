"""Training learns, counts steps and nothing else, resumes to the same weights, and saves what `--prm` reads."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import tinymodels
import torch

import cpmi_eval
from cpmi_eval.errors import DataError, ModelError, StoreError, UsageError
from cpmi_eval.export.labels import Example
from cpmi_eval.prm import specs
from cpmi_eval.prm.encode import TraceEncoder
from cpmi_eval.training import fit
from cpmi_eval.training import train as training
from cpmi_eval.training.config import TrainConfig
from cpmi_eval.training.examples import Target, encode, read_goods, split

WORDS = ["apples", "miles", "dollars", "hours", "steps"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodels.save(tmp_path_factory.mktemp("base"))


def examples(n: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Steps that hold "bad" are wrong, all others right; every third problem occurs twice."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        labels = [draw.random() < 0.5 for _ in range(draw.randint(2, 4))]
        steps = [f"{'good' if good else 'bad'} {draw.randint(1, 99)} {draw.choice(WORDS)}" for good in labels]
        rows.append({"prompt": f"Question {i - i % 3 % 2}: how many?", "completions": steps, "labels": labels})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(tmp_path: Path, base: Path, **changes: Any) -> TrainConfig:
    labels = tmp_path / "labels.jsonl"
    if not labels.exists():
        write(labels, examples())
    given = {"epochs": 1.0, "learning_rate": 3e-3, "dtype": "float32", "device": "cpu", "eval_share": 0.2, **changes}
    return TrainConfig(
        **{"labels": str(labels), "form": "trl", "to": str(tmp_path / "prm"), "model": str(base), **given}
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_it_learns_what_the_labels_say_and_the_result_is_read_as_a_prm(tmp_path: Path, base: Path) -> None:
    trained = training.train(config(tmp_path, base, epochs=12.0, labels=write(tmp_path / "many.jsonl", examples(150))))
    before, after = (trained.about["evaluation"][when] for when in ("before", "after"))
    assert after["step_auc"] > 0.95
    assert after["loss"] < before["loss"] / 2
    assert specs.read(trained.path / specs.FILE) == specs.load("trl")
    assert not (trained.path / "checkpoints").exists()
    traces = tmp_path / "traces.jsonl"
    rows = [{"problem": "Question 3: how many?", "steps": ["good 12 miles", "bad 30 apples"], "label": 1}]
    write(traces, rows)
    result = cpmi_eval.evaluate(
        "prm",
        "traces",
        labeler_args={"checkpoint": str(trained.path)},
        task_args={"path": str(traces)},
        dtype="float32",
        output_path=tmp_path / "run",
    )
    good, bad = result.rows[0]["scores"]
    assert good > 0.5 > bad
    assert result.rows[0]["prediction"] == 1
    assert [good, bad] == pytest.approx(by_hand(trained.path, rows[0]), abs=1e-5)


def by_hand(folder: Path, row: dict[str, Any]) -> list[float]:
    """The classifier's own softmax at the separators, which are joined as ids."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype="float32").eval()
    separator = tokenizer.encode("\n", add_special_tokens=False)
    ids = tokenizer.encode(row["problem"], add_special_tokens=False)
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    places = []
    for step in row["steps"]:
        ids += [*tokenizer.encode(step, add_special_tokens=False), *separator]
        places.append(len(ids) - 1)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return [float(logits[place].softmax(-1)[1]) for place in places]


def test_the_loss_is_the_cross_entropy_at_the_steps_alone() -> None:
    logits = torch.tensor([[[0.0, 9.0], [1.0, 3.0], [2.0, 0.5]]])
    labels = torch.tensor([[fit.IGNORED, 0.75, 0.0]])
    losses = fit.step_losses(logits, labels)
    p = math.exp(3) / (math.exp(1) + math.exp(3))
    q = math.exp(0.5) / (math.exp(2) + math.exp(0.5))
    assert losses.tolist() == pytest.approx(
        [-(0.75 * math.log(p) + 0.25 * math.log(1 - p)), -math.log(1 - q)], rel=1e-5
    )
    changed = logits.clone()
    changed[0, 0] = 100.0
    assert torch.equal(fit.step_losses(changed, labels), losses)


def test_targets_are_where_the_spec_reads(base: Path) -> None:
    encoder = TraceEncoder(specs.load("trl"), tinymodels.tokenizer())
    example = Example("Ada has 12 apples.", ("She buys 30.", "42."), (0.3, 1.0))
    (target,), left_out = encode([example], encoder, None)
    assert not left_out
    batch = fit.collate([target, Target((1, 2), (1,), (0.5,), "x")])
    encoded = encoder.encode(example.problem, example.steps)
    places = (batch["labels"][0] != fit.IGNORED).nonzero().flatten().tolist()
    assert places == list(encoded.reads)
    assert batch["labels"][0, places].tolist() == pytest.approx([0.3, 1.0])
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(encoded.ids), 2]


def test_padding_does_not_change_a_loss(base: Path) -> None:
    model, tokenizer = training.load(TrainConfig("x", "trl", "y", model=str(base)), "cpu")
    encoder = TraceEncoder(specs.load("trl"), tokenizer)
    rows = [Example("Q", ("one", "two"), (1.0, 0.0)), Example("Q " * 9, ("three " * 5, "four"), (0.0, 1.0))]
    targets, _ = encode(rows, encoder, None)
    alone = [fit.evaluate(model, [one], 1)["loss"] for one in targets]
    assert fit.evaluate(model, targets, 2)["loss"] == pytest.approx(sum(alone) / 2, abs=1e-5)


def test_what_is_too_long_is_left_out_and_listed(tmp_path: Path, base: Path) -> None:
    rows = examples(20)
    rows[4]["completions"][0] += " and on" * 60
    trained = training.train(
        config(tmp_path, base, labels=write(tmp_path / "long.jsonl", rows), max_length=60, eval_share=0.0)
    )
    assert [(one["line"], one["reason"]) for one in trained.left_out] == [(5, "too_long")]
    assert trained.about["examples"] == {"read": 20, "trained": 19, "held_out": 0, "left_out": 1}
    assert json.loads((trained.path / "left_out.jsonl").read_text())["line"] == 5


def test_a_problem_is_on_one_side_of_the_split() -> None:
    targets = [Target((1,), (0,), (1.0,), f"p{i // 3}") for i in range(60)]
    kept, held = split(targets, 0.25, 3)
    assert len({one.cluster for one in held}) == 5
    assert len(kept) + len(held) == 60
    assert not {one.cluster for one in kept} & {one.cluster for one in held}
    assert split(targets, 0.25, 3) == (kept, held)
    assert split(targets, 0.25, 4) != (kept, held)


def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.train(config(tmp_path, base, to=str(tmp_path / "whole"), save_steps=2))

    def stop(phase: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    settings = config(tmp_path, base, to=str(tmp_path / "cut"), save_steps=2)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, progress=stop)
    assert not (tmp_path / "cut/model.safetensors").exists()
    done: list[int] = []
    resumed = training.train(
        settings, progress=lambda phase, at, total: done.append(at) if phase == "training" else None
    )
    assert done[0] == 3  # from the checkpoint after update 2
    ours, theirs = weights(resumed.path), weights(whole.path)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-6
    monkeypatch.setattr(training, "_train", lambda *_: pytest.fail("a finished training is not repeated"))
    assert training.train(settings).about == resumed.about


def test_another_training_in_the_same_folder_is_refused(tmp_path: Path, base: Path) -> None:
    training.train(config(tmp_path, base))
    with pytest.raises(StoreError, match=r"holds a different training \(epochs: 1.0 there, 2.0 now\)"):
        training.train(config(tmp_path, base, epochs=2.0))
    write(tmp_path / "labels.jsonl", examples(30))
    with pytest.raises(StoreError, match="labels_sha256"):
        training.train(config(tmp_path, base))
    training.train(config(tmp_path, base), fresh=True)
    assert (tmp_path / "prm/earlier-1/model.safetensors").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path, base: Path) -> None:
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm/thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds no training"):
        training.train(config(tmp_path, base))


def test_adapters_are_merged_into_a_plain_checkpoint(tmp_path: Path, base: Path) -> None:
    pytest.importorskip("peft", reason="adapters need peft")
    trained = training.train(config(tmp_path, base, lora={"r": 4}, epochs=6.0, learning_rate=1e-2))
    assert trained.about["evaluation"]["after"]["loss"] < trained.about["evaluation"]["before"]["loss"]
    found = weights(trained.path)
    assert not [name for name in found if "lora" in name or "modules_to_save" in name]
    start = tinymodels.model("llama").state_dict()
    assert not torch.equal(
        found["model.layers.0.self_attn.q_proj.weight"], start["model.layers.0.self_attn.q_proj.weight"]
    )
    again = training.load(TrainConfig("x", "trl", "y", model=str(trained.path)), "cpu")[0]
    _, held = split(encode(read_goods(tmp_path / "labels.jsonl", "trl", None), encoder_of(base), None)[0], 0.2, 0)
    assert fit.evaluate(again, held, 8)["loss"] == pytest.approx(trained.about["evaluation"]["after"]["loss"], abs=1e-4)


def encoder_of(base: Path) -> TraceEncoder:
    from transformers import AutoTokenizer

    return TraceEncoder(specs.load("trl"), AutoTokenizer.from_pretrained(base))


def soft(tmp_path: Path, *scores: float) -> Path:
    row = {"problem": "Q", "steps": [f"step {i}" for i in range(len(scores))], "scores": list(scores)}
    write(tmp_path / "soft.jsonl", [row])
    return tmp_path / "soft.jsonl"


def test_soft_labels_are_probabilities_or_are_made_hard(tmp_path: Path) -> None:
    path = soft(tmp_path, 0.25, -1.5)
    with pytest.raises(DataError, match=r"soft.jsonl:1 has a score of -1.5, which is no probability"):
        read_goods(path, "scores", None)
    assert read_goods(path, "scores", 0.0)[0].labels == (1.0, 0.0)
    assert read_goods(soft(tmp_path, 0.25, 1.0), "scores", None)[0].labels == (0.25, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "xml"}, "xml"),
        ({"threshold": 0.5}, "has hard labels already"),
        ({"batch_size": 0}, "batch_size"),
        ({"lora": {"rank": 3}}, "LoRA setting"),
        ({"eval_share": 1.0}, "eval_share"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**{"labels": "a", "form": "trl", "to": "b", **changes})


def test_a_spec_of_another_head_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="two-class head named score"):
        training.train(config(tmp_path, base, prm_spec="math-shepherd"))


def test_a_spec_that_reads_the_other_class_is_refused(tmp_path: Path, base: Path) -> None:
    turned = specs.as_dict(specs.load("trl"))
    turned["read"]["transform"]["classes"] = [0]
    (tmp_path / "turned.json").write_text(json.dumps(turned))
    with pytest.raises(UsageError, match="class 1 for good"):
        training.train(config(tmp_path, base, prm_spec=str(tmp_path / "turned.json")))


def test_weights_that_the_checkpoint_lacks_are_not_made_up(tmp_path: Path, base: Path) -> None:
    from safetensors.torch import save_file

    broken = tinymodels.save(tmp_path / "broken")
    kept = {name: one for name, one in weights(broken).items() if "layers.1.mlp" not in name}
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks .*layers\.1\.mlp"):
        training.train(config(tmp_path, broken))


def test_a_checkpoint_that_was_being_written_is_passed_over(tmp_path: Path, base: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    settings = config(tmp_path, base, save_steps=2)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, progress=stop)
    (tmp_path / "prm/checkpoints/checkpoint-6").mkdir()
    done: list[int] = []
    training.train(settings, progress=lambda phase, at, _: done.append(at) if phase == "training" else None)
    assert done[0] == 5  # from the checkpoint after update 4


def test_other_base_weights_are_another_training(tmp_path: Path, base: Path) -> None:
    own = tinymodels.save(tmp_path / "own")
    training.train(config(tmp_path, own))
    tinymodels.model("llama").to(torch.float64).save_pretrained(own)
    tinymodels.model("llama").to(torch.float32)
    with pytest.raises(StoreError, match="model_sha256"):
        training.train(config(tmp_path, own))


def test_more_tokens_than_the_model_takes_are_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UsageError, match="more than the 512 tokens"):
        training.train(config(tmp_path, base, max_length=1000))


def test_outputs_that_are_not_finite_stop_the_training(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ModelError, match="not finite"):
        training.train(config(tmp_path, base, learning_rate=1e30, warmup=0.0))
