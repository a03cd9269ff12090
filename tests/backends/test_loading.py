"""Checkpoints are loaded whole or not at all, and no code of theirs runs unless it is asked to."""

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ggufmodels
import numpy as np
import prmmodels
import pytest
import tinymodels
import torch
import yaml
from commandline import Cli, Outcome
from safetensors.torch import load_file, save_file

import cpmi_eval
from cpmi_eval import settings
from cpmi_eval.backends import conversion, loading, models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.prm import heads
from cpmi_eval.protocols import BackendOptions

NEITHER = ("no", "off", "n", "never", '"false"', '"true"', "yes", "on", "y", "1", "0", "none", "", "flase")
TRACE = {"id": "a", "problem": "1 + 1 = ?", "steps": ["1 + 1 = 2."], "answer": "2", "label": -1}
CODE = """
import pathlib

import transformers

pathlib.Path({mark!r}).touch()


class Config(transformers.{family}Config):
    pass


class Model(transformers.{family}{model}):
    config_class = Config


class Tokenizer(transformers.PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in a folder of its own; code of checkpoints is imported from there."""
    for name in [name for name in os.environ if name.startswith("CPMI_EVAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CPMI_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "traces.jsonl").write_text(json.dumps(TRACE) + "\n", encoding="utf-8")


ON_TRACES = ("--task", "traces", "--task_args", "path=traces.jsonl", "--dtype", "float32", "--device", "cpu", "--fresh")


class Marked(NamedTuple):
    """A checkpoint that brings code for its configuration, model and tokenizer, and the file which that leaves."""

    folder: Path
    mark: Path

    def ran(self) -> bool:
        """Return whether the code ran since this was last asked."""
        there = self.mark.exists()
        self.mark.unlink(missing_ok=True)
        for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
            del sys.modules[name]  # what is imported already would leave no mark the next time
        return there


def _marked(folder: Path, family: str, model: str) -> Marked:
    mark = folder.with_name(f"{folder.name} ran")
    (folder / "own.py").write_text(CODE.format(mark=str(mark), family=family, model=model), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    named = {**json.loads(path.read_text(encoding="utf-8")), "auto_map": {"AutoTokenizer": [None, "own.Tokenizer"]}}
    path.write_text(json.dumps(named), encoding="utf-8")
    return Marked(folder, mark)


@pytest.fixture
def language_model(tmp_path: Path) -> Marked:
    return _marked(tinymodels.save(tmp_path / "lm"), "Llama", "ForCausalLM")


@pytest.fixture
def reward_model(tmp_path: Path) -> Marked:
    return _marked(prmmodels.scalar_head(tmp_path / "prm").folder, "Qwen2", "Model")


@pytest.fixture(params=["hf", "prm"])
def marked(request: pytest.FixtureRequest) -> tuple[Marked, tuple[str, ...]]:
    """Return a checkpoint that brings code, and how the command line is told to score with it."""
    if request.param == "hf":
        one: Marked = request.getfixturevalue("language_model")
        return one, ("--labeler", "cpmi", "--model", str(one.folder), *ON_TRACES)
    one = request.getfixturevalue("reward_model")
    return one, ("--prm", str(one.folder), "--prm_spec", "scalar-head", *ON_TRACES)


def test_on_the_command_line_nothing_but_true_runs_code(cli: Cli, marked: tuple[Marked, tuple[str, ...]]) -> None:
    checkpoint, command = marked
    for value in NEITHER:
        done = cli("run", *command, "--model_args", f"trust_remote_code={value}")
        assert done.code == 2, value
        assert f"trust_remote_code must be true or false, not {settings.parse_pairs(f'a={value}')['a']!r}" in done.err
        assert not checkpoint.ran(), value
    for given in ((), ("--model_args", "trust_remote_code=false"), ("--model_args", "trust-remote-code=FALSE")):
        done = cli("run", *command, *given)
        assert done.code == 0, done.err
        assert not checkpoint.ran(), given
    for given in (("--model_args", "trust_remote_code=true"), ("--trust_remote_code",)):
        done = cli("run", *command, *given)
        assert done.code == 0, done.err
        assert checkpoint.ran(), given


@pytest.mark.parametrize("place", ["model_args", "itself"])
def test_in_a_config_file_nothing_but_true_runs_code(
    cli: Cli, marked: tuple[Marked, tuple[str, ...]], place: str
) -> None:
    checkpoint, command = marked

    def run(value: object) -> Outcome:
        told: dict[str, Any] = {"trust_remote_code": value}
        Path("run.yaml").write_text(yaml.safe_dump({place: told} if place == "model_args" else told), encoding="utf-8")
        return cli("run", "--config", "run.yaml", *command)

    for value in ("no", "off", "false ", "yes", "on", "t", 1, 0, 1.0, "", [True], {"on": True}):
        done = run(value)
        assert done.code == 2, value
        assert "trust_remote_code" in done.err and f"must be true or false, not {value!r}" in done.err
        assert not checkpoint.ran(), value
    assert run(False).code == 0
    assert not checkpoint.ran()
    assert run(True).code == 0
    assert checkpoint.ran()


def test_in_the_environment_nothing_but_true_runs_code(
    cli: Cli, marked: tuple[Marked, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, command = marked
    for value in ("no", "yes", "1", "0", "on", "t"):
        monkeypatch.setenv("CPMI_EVAL_TRUST_REMOTE_CODE", value)
        done = cli("run", *command)
        assert done.code == 2 and f"must be true or false, not {settings.scalar(value)!r}" in done.err
        assert not checkpoint.ran(), value
    for value, runs in (("false", False), ("", False), ("true", True)):
        monkeypatch.setenv("CPMI_EVAL_TRUST_REMOTE_CODE", value)
        assert cli("run", *command).code == 0
        assert checkpoint.ran() == runs


def test_two_words_on_it_are_one_too_many(cli: Cli, language_model: Marked) -> None:
    Path("run.yaml").write_text("trust_remote_code: false\n", encoding="utf-8")
    command = ("run", "--labeler", "cpmi", "--model", str(language_model.folder), "--config", "run.yaml", *ON_TRACES)
    done = cli(*command, "--model_args", "trust_remote_code=true")
    assert done.code == 2 and "trust_remote_code is given twice" in done.err
    assert not language_model.ran()


@pytest.mark.parametrize("value", ["no", "false", "", 0, 1, None])
def test_from_python_nothing_but_true_runs_code(language_model: Marked, reward_model: Marked, value: object) -> None:
    for backend, checkpoint, more in (
        (HFBackend, language_model, {}),
        (PRMBackend, reward_model, {"spec": "scalar-head"}),
    ):
        options = BackendOptions(str(checkpoint.folder), {**more, "trust_remote_code": value}, "float32", "cpu")
        for refuses in (backend.check, backend.open):
            with pytest.raises(UsageError, match=f"trust_remote_code must be true or false, not {value!r}"):
                refuses(options)
        assert not checkpoint.ran()
    with pytest.raises(UsageError, match="trust_remote_code must be true or false"):
        cpmi_eval.evaluate(
            "cpmi", "synthetic", model=str(language_model.folder), model_args={"trust_remote_code": value}, limit=1
        )
    assert not language_model.ran()


def test_a_second_model_is_trusted_as_the_first(language_model: Marked, tmp_path: Path) -> None:
    plain = str(tinymodels.save(tmp_path / "plain"))
    for args, runs in (({}, False), ({"trust_remote_code": False}, False), ({"trust_remote_code": True}, True)):
        HFBackend.open(BackendOptions(plain, args, "float32", "cpu")).another(str(language_model.folder))
        assert language_model.ran() == runs


def test_transformers_is_always_told_whether_to_trust(
    language_model: Marked, reward_model: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is told nothing it may ask at the terminal."""
    import transformers

    told: list[object] = []
    for auto in ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForCausalLM"):
        kind = getattr(transformers, auto)

        def spy(*args: Any, original: Any = kind.from_pretrained, **kwargs: Any) -> Any:
            told.append(kwargs.get("trust_remote_code"))
            return original(*args, **kwargs)

        monkeypatch.setattr(kind, "from_pretrained", spy)
    HFBackend.open(BackendOptions(str(language_model.folder), {}, "float32", "cpu"))
    PRMBackend.open(BackendOptions(str(reward_model.folder), {"spec": "scalar-head"}, "float32", "cpu"))
    assert len(told) >= 6
    assert all(one is False for one in told)


def test_lm_eval_classes_are_refused_what_is_neither(cli: Cli, language_model: Marked) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    from cpmi_eval.lm_eval.model import CPMIHF

    folder = str(language_model.folder)
    command = ("run", "--labeler", "cpmi", "--backend", "lm-eval", "--model", "hf", *ON_TRACES)
    for value in NEITHER:
        done = cli(*command, "--model_args", f"pretrained={folder},trust_remote_code={value}")
        assert done.code == 2 and "trust_remote_code must be true or false" in done.err
    for name in ("logits_cache", "add_bos_token", "parallelize"):
        done = cli(*command, "--model_args", f"pretrained={folder},{name}=no")
        assert done.code == 2 and f"model argument {name} must be true or false, not 'no'" in done.err
    for name in ("trust_remote_code", "add_bos_token", "enable_thinking"):
        with pytest.raises(UsageError, match=f"{name} must be true or false, not 'no'"):
            CPMIHF(folder, dtype="float32", device="cpu", **{name: "no"})
    assert not language_model.ran()


def test_other_flags_take_true_and_false_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    random = ("run", "--labeler", "random", *ON_TRACES)
    for value in ("yes", 1, "no"):
        Path("run.yaml").write_text(yaml.safe_dump({"log_samples": value}), encoding="utf-8")
        done = cli(*random, "--config", "run.yaml")
        assert done.code == 2 and f"must be true or false, not {value!r}" in done.err
    monkeypatch.setenv("CPMI_EVAL_LOG_SAMPLES", "yes")
    assert cli(*random).code == 2
    monkeypatch.setenv("CPMI_EVAL_LOG_SAMPLES", "false")
    assert cli(*random).code == 0
    for labeler in ("cpmi", "judge", "mc"):
        done = cli("run", "--labeler", labeler, "--labeler_args", "chat=no", *ON_TRACES)
        assert done.code == 2 and "chat" in done.err


UP = "model.layers.1.mlp.up_proj.weight"
Tensors = dict[str, torch.Tensor | None]


def spoil(folder: Path, change: Tensors) -> None:
    """Replace tensors of a checkpoint, add some, or take them away."""
    path = folder / "model.safetensors"
    merged: Tensors = {**load_file(path), **change}
    save_file({k: v for k, v in merged.items() if v is not None}, path, metadata={"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def shard(folder: Path) -> Path:
    """Cut a checkpoint's weights into two files with an index; return the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"part-{1 + ('layers.1' in name)}.safetensors" for name in tensors}
    for file in set(where.values()):
        own = {name: tensor for name, tensor in tensors.items() if where[name] == file}
        save_file(own, folder / file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    return index


def load(folder: Path) -> Any:
    return models.load_model(models.resolve(str(folder)), "float32", "cpu", {})[0]


def load_prm(folder: Path) -> Any:
    return PRMBackend.open(BackendOptions(str(folder), {"spec": "scalar-head"}, "float32", "cpu")).model


@pytest.fixture(params=["hf", "prm"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[[Path], Any]]:
    """Return a sound checkpoint, and what loads it: a language model, and a PRM."""
    if request.param == "hf":
        return tinymodels.save(tmp_path / "lm"), load
    return prmmodels.scalar_head(tmp_path / "prm").folder, load_prm


GAPS: dict[str, tuple[Tensors, dict[str, Any], str]] = {
    "missing": ({UP: None}, {}, rf"lacks {UP};"),
    "missing embeddings": ({"model.embed_tokens.weight": None}, {}, r"lacks .*model\.embed_tokens\.weight"),
    "another shape": ({UP: torch.zeros(7, 16)}, {}, rf"holds {UP} of shape \(7, 16\) where its configuration says"),
    "left over": ({"model.layers.9.mlp.up_proj.weight": torch.zeros(2)}, {}, r"holds model\.layers\.9\.mlp\.up_proj"),
    "foreign": ({"stray.weight": torch.zeros(2)}, {}, r"holds stray\.weight"),
    "fewer layers than its config": (
        {},
        {"num_hidden_layers": 4, "layer_types": None},
        r"lacks model\.layers\.[23]\..* and \d+ more;",
    ),
    "more layers than its config": (
        {},
        {"num_hidden_layers": 1, "layer_types": None},
        r"holds model\.layers\.1\..* and \d+ more, which",
    ),
    "another width": ({}, {"intermediate_size": 8}, r"holds model\.layers\.0\.mlp\..* of shape .* and \d+ more"),
    "two of them": ({UP: None, "stray.weight": torch.zeros(2)}, {}, rf"lacks {UP}; .*; holds stray\.weight"),
}


@pytest.mark.parametrize("change", GAPS)
def test_weights_that_do_not_fit_are_errors_that_name_them(
    whole: tuple[Path, Callable[[Path], Any]], change: str
) -> None:
    folder, loads = whole
    tensors, config, words = GAPS[change]
    spoil(folder, tensors)
    configure(folder, **config)
    with pytest.raises(ModelError, match=words) as caught:
        loads(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_scores_nothing_with_made_up_weights(cli: Cli, tmp_path: Path) -> None:
    folder = tinymodels.save(tmp_path / "lm")
    spoil(folder, {UP: None})
    for options in (
        ("--labeler", "cpmi", "--model", str(folder)),
        ("--labeler", "cpmi", "--model", str(tinymodels.save(tmp_path / "ok")), "--labeler_args", "variant=prefix"),
    ):
        done = cli("run", *options, *ON_TRACES)
        assert (done.code == 2) == (str(folder) in options), done.err
    assert UP in cli("run", "--labeler", "cpmi", "--model", str(folder), *ON_TRACES).err


def test_lm_eval_classes_score_nothing_with_made_up_weights(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    folder = tinymodels.save(tmp_path / "lm")
    command = ("run", "--labeler", "cpmi", "--backend", "lm-eval", "--model", "hf", *ON_TRACES)
    pretrained = ("--model_args", f"pretrained={folder}")
    done = cli(*command, *pretrained)
    assert done.code == 0, done.err
    spoil(folder, {UP: None, "stray.weight": torch.zeros(2)})
    done = cli(*command, *pretrained)
    assert done.code == 2 and f"lacks {UP}" in done.err and "holds stray.weight" in done.err


@pytest.mark.parametrize("name", tinymodels.CONFIGS)
def test_what_is_tied_or_computed_is_not_missed(name: str, tmp_path: Path) -> None:
    made = tinymodels.model(name)
    folder = str(tinymodels.save(tmp_path, name))
    loaded = loading.weights(folder, "AutoModelForCausalLM", {}, dtype="float32").state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in made.state_dict().items())


def test_buffers_of_old_checkpoints_are_no_weights(whole: tuple[Path, Callable[[Path], Any]]) -> None:
    folder, loads = whole
    spoil(
        folder,
        {
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
            "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4),
            "transformer.h.0.attn.masked_bias": torch.zeros(1),
            "transformer.h.0.attn.attention.bias": torch.ones(1, 1, 4, 4),
        },
    )
    loads(folder)


def test_a_tied_language_model_needs_no_head_and_another_one_does(tmp_path: Path) -> None:
    folder = tinymodels.save(tmp_path / "lm")
    spoil(folder, {"lm_head.weight": None})
    with pytest.raises(ModelError, match=r"lacks lm_head\.weight"):
        load(folder)
    configure(folder, tie_word_embeddings=True)
    model = load(folder)
    assert torch.equal(model.lm_head.weight, load_file(folder / "model.safetensors")["model.embed_tokens.weight"])


def test_a_prm_needs_no_language_model_head(tmp_path: Path) -> None:
    checkpoint = prmmodels.scalar_head(tmp_path / "prm")
    load_prm(checkpoint.folder)
    spoil(checkpoint.folder, {"lm_head.weight": torch.zeros(4, 16)})
    load_prm(checkpoint.folder)


def test_weights_in_several_files(whole: tuple[Path, Callable[[Path], Any]]) -> None:
    folder, loads = whole
    alone = loads(folder).state_dict()
    index = shard(folder)
    assert all(torch.equal(alone[name], tensor) for name, tensor in loads(folder).state_dict().items())
    (folder / "part-2.safetensors").rename(folder / "elsewhere")
    with pytest.raises(ModelError, match=r"index\.json names part-2\.safetensors, which is not there"):
        loads(folder)
    (folder / "elsewhere").rename(folder / "part-2.safetensors")
    told = json.loads(index.read_text(encoding="utf-8"))
    told["weight_map"] = {name: file for name, file in told["weight_map"].items() if file == "part-1.safetensors"}
    index.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ModelError, match=r"lacks model\.layers\.1\..* and \d+ more"):
        loads(folder)


def test_nothing_is_initialised_where_training_begins(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="the extra train is not installed")
    from cpmi_eval.training.config import TrainConfig
    from cpmi_eval.training.train import load as load_for_training

    folder = tinymodels.save(tmp_path / "lm")

    def begin() -> Any:
        return load_for_training(TrainConfig(labels="-", form="trl", to="-", model=str(folder)), "cpu")[0]

    first, again = begin(), begin()
    assert torch.equal(first.score.weight, again.score.weight)  # the new head, under the seed
    for change, words in (
        ({UP: torch.zeros(3, 32)}, rf"holds {UP} of shape"),
        ({UP: torch.zeros(48, 32), "model.layers.3.x": torch.zeros(1)}, r"holds model\.layers\.3\.x"),
        ({UP: None}, rf"lacks {UP}"),
    ):
        spoil(folder, change)
        with pytest.raises(ModelError, match=words):
            begin()


def edited(source: Path, target: Path, without: str = "", **more: Any) -> Path:
    """Write a GGUF file again without one of its tensors and with others."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        if tensor.name != without:
            writer.add_tensor(tensor.name, np.array(tensor.data))
    for name, shape in more.items():
        writer.add_tensor(name.replace("__", "."), np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    pytest.importorskip("gguf", reason="the extra gguf is not installed")
    return ggufmodels.tiny(tmp_path / "tiny.gguf", bos=True)


FFN = "blk.1.ffn_up.weight"


@pytest.mark.parametrize(
    ("without", "more", "words"),
    [
        (FFN, {}, rf"lacks {UP};"),
        (FFN, {FFN: (40, 32)}, rf"holds {UP} of shape \(40, 32\) where its configuration says \(48, 32\)"),
        ("", {"rope_freqs.weight": (4,)}, r"reads 48,864 of the 48,868 numbers in .*: rope_freqs\.weight\. "),
        ("", {"blk.3.ffn_up.weight": (48, 32)}, r"left out: blk\.3\.ffn_up\.weight\. "),
    ],
)
def test_a_gguf_file_is_converted_whole_or_not_at_all(
    without: str, more: dict[str, Any], words: str, gguf_file: Path, tmp_path: Path
) -> None:
    broken = edited(gguf_file, tmp_path / "broken.gguf", without, **more)
    with pytest.raises(ModelError, match=words) as caught:
        load(broken)
    assert str(broken) in str(caught.value)
    assert [path.suffix for path in (tmp_path / "cache/models").iterdir()] == [".lock"]


def test_a_gguf_file_gives_the_weights_in_it(gguf_file: Path, tmp_path: Path) -> None:
    made = load(gguf_file).state_dict()
    assert all(torch.equal(made[name], tensor) for name, tensor in tinymodels.model("llama").state_dict().items())


DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def as_pickle(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)


def index_of(folder: Path, text: str) -> None:
    shard(folder).write_text(text, encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda folder: cut(folder / "model.safetensors", 0), "model.safetensors"),
    "cut in its header": (lambda folder: cut(folder / "model.safetensors", 99), "model.safetensors"),
    "cut in its numbers": (lambda folder: cut(folder / "model.safetensors", -100), "model.safetensors"),
    "garbage": (lambda folder: (folder / "model.safetensors").write_bytes(b"garbage " * 99), "model.safetensors"),
    "no pickle": (lambda folder: as_pickle(folder, b"not a pickle"), "pytorch_model.bin"),
    "empty pickle": (lambda folder: as_pickle(folder, b""), "pytorch_model.bin"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "index of nothing": (lambda folder: index_of(folder, "{}"), "model.safetensors.index.json"),
    "index of a list": (lambda folder: index_of(folder, '{"weight_map": []}'), "model.safetensors.index.json"),
    "index of numbers": (lambda folder: index_of(folder, '{"weight_map": {"a": 1}}'), "model.safetensors.index.json"),
    "no index": (lambda folder: index_of(folder, "["), "model.safetensors.index.json"),
    "deep index": (lambda folder: index_of(folder, DEEP), "model.safetensors.index.json"),
    "empty config": (lambda folder: (folder / "config.json").write_text(""), "config.json"),
    "deep config": (lambda folder: (folder / "config.json").write_text(DEEP), "config.json"),
    "config of a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json"),
    "config of null": (lambda folder: (folder / "config.json").write_text("null"), "config.json"),
    "config not in UTF-8": (lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xff"}'), "config.json"),
    "zero heads": (lambda folder: configure(folder, num_attention_heads=0), "config.json"),
    "zero heads of keys": (lambda folder: configure(folder, num_key_value_heads=0), "config.json"),
    "a text for a number": (
        lambda folder: configure(folder, hidden_size="wide"),
        "configuration .*hidden_size.*'wide'",
    ),
    "a list for a type": (lambda folder: configure(folder, model_type=["llama"]), "config.json"),
    "no such activation": (lambda folder: configure(folder, hidden_act="none such"), "none such.*config.json"),
    "no such dtype": (lambda folder: configure(folder, dtype="float77"), "float77"),
    "negative vocabulary": (lambda folder: configure(folder, vocab_size=-1), "negative dimension"),
    "huge vocabulary": (lambda folder: configure(folder, vocab_size=10**30), "config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json"),
    "deep tokenizer": (lambda folder: (folder / "tokenizer_config.json").write_text(DEEP), "tokenizer_config.json"),
}


PRM_DAMAGES = ("cut in its header", "no pickle", "deep index", "deep config", "config of null", "zero heads")


@pytest.mark.parametrize(
    ("marked", "damage"),
    [*(("hf", one) for one in DAMAGES), *(("prm", one) for one in PRM_DAMAGES)],
    indirect=["marked"],
)
def test_a_damaged_file_is_named_in_one_line(
    cli: Cli, marked: tuple[Marked, tuple[str, ...]], damage: str, tmp_path: Path
) -> None:
    checkpoint, command = marked
    apply, words = DAMAGES[damage]
    apply(checkpoint.folder)
    done = cli("run", *command)
    assert done.code == 2
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if not line.startswith("[transformers]")]
    assert len(lines) == 1, done.err
    assert str(checkpoint.folder) in lines[0]
    assert re.search(words, lines[0]), done.err


def test_a_head_of_a_file_that_cannot_be_read_is_an_error_too(tmp_path: Path) -> None:
    checkpoint = prmmodels.scalar_head(tmp_path / "prm")
    index = shard(checkpoint.folder)
    for text in ("[]", "{", '{"weight_map": 3}', DEEP):
        index.write_text(text, encoding="utf-8")
        with pytest.raises(ModelError, match=r"index\.json is (not valid|damaged|nested)"):
            heads.read_tensors(str(checkpoint.folder), ("score.",))
    index.unlink()
    for content in (b"", b"no pickle", pickle.dumps([1, 2], protocol=2)):
        (checkpoint.folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(ModelError, match=r"pytorch_model\.bin cannot be read as plain tensors$"):
            heads.read_tensors(str(checkpoint.folder), ("score.",))


def test_a_gguf_file_cut_anywhere_is_one_line(cli: Cli, gguf_file: Path, tmp_path: Path) -> None:
    whole, broken = gguf_file.read_bytes(), tmp_path / "cut.gguf"
    for size in (0, 3, 4, 20, 30, 100, 1000, 5000, len(whole) // 2, len(whole) - 10):
        broken.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"cut\.gguf is no GGUF file, or damaged or cut short") as caught:
            load(broken)
        assert "\n" not in str(caught.value)
    broken.write_bytes(b"garbage " * 99)
    done = cli("run", "--labeler", "cpmi", "--model", str(broken), *ON_TRACES)
    assert done.code == 2 and "is no GGUF file" in done.err and "Traceback" not in done.err


@pytest.fixture
def made(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Path, int]]:
    """Return what gives the folder that the GGUF file is converted to, and how often it has been converted."""
    times = 0
    convert = conversion._convert

    def counted(*args: Any) -> None:
        nonlocal times
        times += 1
        convert(*args)

    monkeypatch.setattr(conversion, "_convert", counted)
    source = models.resolve(str(gguf_file))
    return lambda: (Path(models.loadable(source, source.sha256())), times)


def test_a_file_is_converted_once(made: Callable[[], tuple[Path, int]]) -> None:
    folder, _ = made()
    assert made() == (folder, 1)
    record = json.loads((folder / conversion.RECORD).read_text(encoding="utf-8"))
    assert record["files"].keys() == {path.name for path in folder.iterdir()} - {conversion.RECORD}
    assert record["files"]["model.safetensors"]["sha256"] == models.sha256_of([folder / "model.safetensors"])


def test_only_what_was_converted_is_used(
    made: Callable[[], tuple[Path, int]], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Weights of another model under the same name would give its scores under this one's hash."""
    folder, times = made()
    right = load_file(folder / "model.safetensors")
    other = {name: tensor + 1 for name, tensor in right.items()}

    def replace_in_place() -> None:
        path = folder / "model.safetensors"
        status = path.stat()
        save_file(other, path, metadata={"format": "pt"})
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def swap() -> None:
        save_file(other, tmp_path / "other.safetensors", metadata={"format": "pt"})
        (tmp_path / "other.safetensors").replace(folder / "model.safetensors")

    changes: tuple[Callable[[], object], ...] = (
        replace_in_place,
        swap,
        lambda: (folder / "model.safetensors").unlink(),
        lambda: (folder / "adapter_config.json").write_text("{}"),
        lambda: configure(folder, rms_norm_eps=0.5),
        lambda: (folder / conversion.RECORD).unlink(),
        lambda: (folder / conversion.RECORD).write_text("[]"),
        lambda: (folder / conversion.RECORD).write_text(DEEP),
        lambda: shutil.rmtree(folder),
    )
    for change in changes:
        change()
        times += 1
        assert made() == (folder, times)
        found = load_file(folder / "model.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in right.items())
    assert "is not as it was converted; it is made again" in caplog.text


def test_a_copied_cache_is_read_again_and_trusted(made: Callable[[], tuple[Path, int]], tmp_path: Path) -> None:
    folder, _ = made()
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    assert made() == (folder, 1)


def test_what_a_killed_conversion_left_is_removed(made: Callable[[], tuple[Path, int]], tmp_path: Path) -> None:
    folder, _ = made()
    shutil.rmtree(folder)
    left, others = folder.parent / f".{folder.name}-ab12_x9z", folder.parent / ".other-000000000000-ab12_x9z"
    for one in (left, others):
        one.mkdir()
        (one / "model.safetensors").write_bytes(b"half")
    made()
    assert not left.exists()
    assert others.exists()


def test_a_cache_that_cannot_be_written_is_used_if_it_is_filled(
    made: Callable[[], tuple[Path, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    folder, _ = made()
    monkeypatch.setattr(conversion, "FileLock", refused)
    assert made() == (folder, 1)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot write the checkpoint made from .*Permission denied.*CPMI_EVAL_CACHE"):
        made()


def test_a_cache_that_cannot_be_written_is_one_line(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("", encoding="utf-8")
    monkeypatch.setenv("CPMI_EVAL_CACHE", str(Path("file").resolve()))
    with pytest.raises(ModelError, match=r"cannot write the checkpoint made from .*tiny\.gguf.*CPMI_EVAL_CACHE"):
        load(gguf_file)
