"""Candidates are reproducible one by one, kept through interruptions, and read by the tasks that select among them."""

import json
from pathlib import Path
from typing import Any

import pytest
import tinymodels
from commandline import Cli

import cpmi_eval
from cpmi_eval import generate as module
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.generate import GenerateConfig, generate, prompt_of

QUESTIONS = [f"Ada has {n} apples and buys {n + 1} more. How many has she?" for n in range(6)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    place = folder / "openai/gsm8k"
    place.mkdir(parents=True)
    for split, questions in (
        ("test", QUESTIONS),
        ("train", [*QUESTIONS[:2], "Bo has 3 pens. How many?", "Who has 4?"]),
    ):
        rows = [{"question": one, "answer": f"<<{i}=1>>work {i}\n#### {i}"} for i, one in enumerate(questions)]
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinymodels.save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path: Path, data_dir: Path, model: Path) -> Any:
    def make(name: str = "a.jsonl", **changes: Any) -> GenerateConfig:
        given = {"task": "gsm8k", "n": 2, "max_new_tokens": 8, "dtype": "float32", "device": "cpu", **changes}
        return GenerateConfig(to=str(tmp_path / name), model=str(model), data_dir=str(data_dir), **given)

    return make


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(path: Path) -> dict[str, list[str]]:
    return {row["id"]: [one["solution"] for one in row["candidates"]] for row in rows(path)}


def test_a_line_per_problem_that_the_task_reads(config: Any, data_dir: Path, tmp_path: Path) -> None:
    made = generate(config())
    lines = rows(made.path)
    assert [line["id"] for line in lines] == [f"gsm8k-test-{i}" for i in range(6)]
    assert lines[2]["problem"] == QUESTIONS[2]
    assert {len(line["candidates"]) for line in lines} == {2}
    assert lines[0]["candidates"][0].keys() == {"generator", "solution", "is_correct", "finish", "n_tokens"}
    assert made.about["counts"]["candidates"] == 12
    assert made.about["tokens"]["generated"] == sum(one["n_tokens"] for line in lines for one in line["candidates"])
    result = cpmi_eval.evaluate(
        "length", "gsm8k", task_args={"candidates": str(made.path)}, data_dir=data_dir, output_path=tmp_path / "run"
    )
    assert result.results["gsm8k"]["pass@1"].value == pytest.approx(made.about["counts"]["pass@1"])
    assert (
        not result.summary["notes"]["gsm8k/test"]["disagreements"] if "gsm8k/test" in result.summary["notes"] else True
    )


def test_candidates_do_not_depend_on_what_else_is_drawn(config: Any) -> None:
    two = texts(generate(config()).path)
    four = texts(generate(config("b.jsonl", n=4, batch_size=1)).path)
    few = texts(generate(config("c.jsonl", limit=3)).path)
    assert {name: own[:2] for name, own in four.items()} == two
    assert len(few) == 3
    assert few == {name: two[name] for name in few}
    assert texts(generate(config("d.jsonl", seed=1)).path) != two


def test_a_killed_call_goes_on(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = texts(generate(config("whole.jsonl")).path)

    def stop(done: int, *_: Any) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(config(batch_size=2), progress=stop)
    path = Path(config().to)
    partial = path.with_name("a.jsonl.partial.jsonl")
    assert not path.exists()
    with partial.open("a") as stream:
        stream.write('{"id": "torn')
    with pytest.raises(StoreError, match="n: 2 there, 3 now"):
        generate(config(batch_size=2, n=3))
    asked: list[int] = []
    real = HFBackend.generate
    monkeypatch.setattr(HFBackend, "generate", lambda self, p, *a: (asked.append(len(p)), real(self, p, *a))[1])
    assert texts(generate(config(batch_size=2)).path) == whole
    assert asked == [1, 2]  # the warm-up, and what was owed
    assert not partial.exists()
    monkeypatch.setattr(HFBackend, "open", lambda *_: pytest.fail("a finished file is not drawn again"))
    assert texts(generate(config(batch_size=2)).path) == whole


def test_another_file_is_never_overwritten(config: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("mine\n")
    with pytest.raises(StoreError, match="was not made by generate"):
        generate(config(), fresh=True)
    generate(config("b.jsonl"))
    with pytest.raises(StoreError, match="seed: 0 there, 3 now"):
        generate(config("b.jsonl", seed=3))
    generate(config("b.jsonl", seed=3), fresh=True)


def test_a_file_that_was_changed_is_neither_reported_nor_overwritten(config: Any) -> None:
    path = generate(config(max_new_tokens=2)).path
    path.write_text(path.read_text().replace("apples", "pears"))
    for fresh in (False, True):
        with pytest.raises(StoreError, match="is not what"):
            generate(config(max_new_tokens=2), fresh=fresh)
    assert "pears" in path.read_text()


def test_a_batch_that_was_cut_short_is_drawn_as_a_whole(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(config("whole.jsonl", batch_size=4)).path.read_bytes()
    path = Path(config().to)
    partial = path.with_name("a.jsonl.partial.jsonl")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(config(batch_size=4), progress=stop)
    lines = partial.read_text().splitlines(keepends=True)
    partial.write_text("".join(lines[:3]) + lines[3][:20])  # killed in the middle of the write
    asked: list[int] = []
    real = HFBackend.generate
    monkeypatch.setattr(HFBackend, "generate", lambda self, p, *a: (asked.append(len(p)), real(self, p, *a))[1])
    assert generate(config(batch_size=4)).path.read_bytes() == whole
    assert asked == [1, 4, 2]  # the warm-up, the batch that was cut short, the last one


def test_a_problem_that_does_not_fit_is_listed_and_stays_visible(
    config: Any, tmp_path: Path, data_dir: Path, model: Path, cli: Cli
) -> None:
    args = ["--data_dir", str(data_dir), "--model", str(model), "--n", "1", "--dtype", "float32", "--device", "cpu"]
    limits = ["--max_new_tokens", "8", "--model_args", "max_length=60"]
    done = cli("generate", "--task", "gsm8k", "--to", str(tmp_path / "x.jsonl"), *args, *limits)
    assert done.code == 1
    assert "6 problems without a solution: too_long" in done.out
    assert [row["candidates"] for row in rows(tmp_path / "x.jsonl")] == [[]] * 6
    assert rows(tmp_path / "x.jsonl.failed.jsonl")[0]["kind"] == "too_long"


def test_worked_examples_come_from_the_training_split_and_are_never_the_problem_itself(config: Any) -> None:
    settings = config(shots=2)
    shots, _ = module._shots(settings, Path(settings.data_dir))
    assert len(shots) == 3
    for question in QUESTIONS:
        prompt = prompt_of(question, settings, shots, None)  # type: ignore[arg-type]
        assert prompt.count("Problem:") == 3
        assert prompt.count(question) == 1
        assert prompt.endswith("\nSolution:")
        assert "<<" not in prompt
        assert "The answer is " in prompt
    assert settings.sampling(chat=False).stop == ("\n\nProblem:",)
    assert config().sampling(chat=False).stop == ("\n\nProblem:",)  # a model without chats goes on with another problem
    assert config().sampling(chat=True).stop == ()
    assert len(rows(generate(settings).path)) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "processbench"}, "processbench"),
        ({"subset": "math500"}, "math500"),
        ({"temperature": 0.0}, "greedy"),
        ({"shots": 2, "chat": True}, "plain prompt of its own"),
        ({"n": 0}, "n must be"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str, config: Any) -> None:
    with pytest.raises(UsageError, match=message):
        config(**changes)
