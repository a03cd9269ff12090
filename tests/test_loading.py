"""Checkpoints are loaded whole or not at all, and no code of theirs runs unless it is asked to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import prmmodels
import pytest
import tinymodels
import yaml

import cpmi_eval
from cpmi_eval import settings
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.cli import main
from cpmi_eval.errors import UsageError
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


class Outcome(NamedTuple):
    code: Any
    out: str
    err: str


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


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*args: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(args)
        captured = capsys.readouterr()
        return Outcome(caught.value.code, captured.out, captured.err)

    return run


Cli = Callable[..., Outcome]
ON_TRACES = ("--task", "traces", "--task_args", "path=traces.jsonl", "--dtype", "float32", "--device", "cpu", "--fresh")


# --- code of a checkpoint -------------------------------------------------------------------------------------------


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
