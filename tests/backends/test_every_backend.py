"""Every backend, from the command line through every report, board, gate and export: none needs what only some give."""

import csv
import io
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prmmodels
import pytest
import stubserver
from commandline import Cli

from cpmi_eval import registry
from cpmi_eval.errors import StoreError
from cpmi_eval.record import door
from cpmi_eval.record.model import ModelDescription, shaped

PART = "processbench/gsm8k"
READING = ["--labeler", "judge", "--labeler_args", "mode=logit,chat=false"]
DRAWING = ["--labeler", "mc", "--labeler_args", "n=2,max_new_tokens=8,chat=false"]


@pytest.fixture(autouse=True)
def place(plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(logging.getLogger("cpmi_eval"), "handlers", [])  # else those of a stream that is gone


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local copy of the hub: four problems, two solved wrongly, with their reference answers."""
    folder = tmp_path_factory.mktemp("data")
    problems = [(f"Ada has {n} apples and buys {n + 3} more. How many are there?", n, n + 3) for n in (4, 7, 12, 25)]
    rows = [
        {
            "id": f"gsm8k-{place}",
            "generator": "someone",
            "problem": text,
            "steps": [f"She has {a} and buys {b}.", f"{a} + {b} = {a + b + place % 2}.", f"So {a + b + place % 2}."],
            "final_answer_correct": place % 2 == 0,
            "label": 1 if place % 2 else -1,
        }
        for place, (text, a, b) in enumerate(problems)
    ]
    references = [{"question": text, "answer": f"#### {a + b}"} for text, a, b in problems]
    for name, lines in (("Qwen/ProcessBench/gsm8k.json", rows), ("openai/gsm8k/test.jsonl", references)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "openai/gsm8k/train.jsonl").write_text(json.dumps({"question": "Another?", "answer": "#### 1"}) + "\n")
    return folder


def hf(checkpoint: Path, _: Any) -> list[str]:
    return [*READING, "--model", str(checkpoint), "--dtype", "float32", "--device", "cpu"]


def prm(checkpoint: Path, _: Any) -> list[str]:
    made = prmmodels.scalar_head(checkpoint.parent / "prm").folder
    return ["--prm", str(made), "--prm_spec", "scalar-head", "--dtype", "float32", "--device", "cpu"]


def lm_eval(checkpoint: Path, _: Any) -> list[str]:
    pytest.importorskip("lm_eval", reason="the lm-eval backend needs lm_eval: pip install 'cpmi-eval[lm-eval]'")
    args = ["--model_args", f"pretrained={checkpoint}"]
    return [*READING, "--backend", "lm-eval", "--model", "hf", *args, "--dtype", "float32", "--device", "cpu"]


def server(_: Path, stubs: Any) -> list[str]:
    stub = stubs(stubserver.Tiny())
    return [*READING, "--backend", "server", "--model", "tiny", "--model_args", f"base_url={stub.base_url}"]


def server_that_draws(_: Path, stubs: Any) -> list[str]:
    stub = stubs(stubserver.Canned())
    return [*DRAWING, "--backend", "server", "--model", "canned", "--model_args", f"base_url={stub.base_url}"]


RECIPES: dict[str, Callable[[Path, Any], list[str]]] = {
    "hf": hf,
    "prm": prm,
    "lm-eval": lm_eval,
    "server": server,
    "server-draws": server_that_draws,
}
NEEDS_CLIENT = ("server", "server-draws")


def test_every_backend_is_here() -> None:
    assert {name.partition("-draws")[0] for name in RECIPES} == set(registry.BUILTIN["backends"])


Said = Callable[..., str]


@pytest.fixture
def said(cli: Cli) -> Said:
    """Run a command, check its exit code, and return what it printed."""

    def run(*args: str, code: int = 0) -> str:
        done = cli(*args)
        assert done.code == code, (args, done)
        assert "Traceback" not in done.out + done.err
        return done.out

    return run


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest, checkpoint: Path, stubs: Any, data: Path) -> list[str]:
    """What follows ``run`` and its like."""
    if request.param in NEEDS_CLIENT:
        pytest.importorskip("openai", reason="the server backend needs openai: pip install 'cpmi-eval[server]'")
    what = ["--task", "processbench", "--subset", "gsm8k", "--data_dir", str(data)]
    return [*what, *RECIPES[request.param](checkpoint, stubs)]


def test_a_run_goes_through_every_report_board_gate_and_export(recipe: list[str], said: Said) -> None:
    said("run", *recipe, "--output_path", "one")
    model = json.loads(Path("one/results.json").read_text())["model"]
    about = read(model)
    assert about is not None and about.as_dict() == model
    shows_a_run(said, "one", about)
    stands_on_a_board(said, "one", about)
    passes_its_gate(said, "one")
    is_exported(said, "one", about)
    said("run", *recipe, "--output_path", "two", "--seed", "1")
    (paired,) = json.loads(said("paired", "one", "two", "--format", "json", "--draws", "99"))["runs"][:1]
    assert paired["model"] == about.model
    assert about.model in said("paired", "one", "two", "--draws", "99")
    said("rescore", "one", "--threshold", "fixed:0.25", "--output_path", "three")
    shows_a_run(said, "three", about)
    for form, threshold in (("trl", ["--threshold", "fixed:0.5"]), ("math-shepherd", []), ("scores", [])):
        rule = threshold or (["--threshold", "fixed:0.5"] if form != "scores" else [])
        said("label", "--from", "one", "--format", form, *rule, "--to", f"{form}.jsonl")
        assert json.loads(Path(f"{form}.jsonl.json").read_text())["model"] == model
    said("run", *recipe, "--output_path", "one")  # again: a complete run is shown, whatever a backend told of itself


def shows_a_run(said: Said, path: str, about: ModelDescription) -> None:
    text = said("show", path)
    assert Path(about.model).name in text and about.device in text and "None" not in text
    assert json.loads(said("show", path, "--json"))["model"] == about.as_dict()
    assert "gsm8k-1" in said("show", path, "--trace", "gsm8k-1")
    said("show", path, "--trace", "gsm8k-1", "--json")
    said("show", path, "--diagnostics")
    said("show", path, "--diagnostics", "--json")


def stands_on_a_board(said: Said, path: str, about: ModelDescription) -> None:
    said("leaderboard", "add", path, "--to", "boards")
    board = ("leaderboard", "show", PART, "--boards", "boards", "--no-published")
    name = Path(about.model).name
    for form in ("rich", "markdown", "csv", "json", "html"):
        assert name in said(*board, "--format", form), form
    table = csv.DictReader(io.StringIO(said(*board, "--format", "csv", "--columns", "scorer,model,dtype,device")))
    (own,) = [row for row in table if name in (row["model"], row["scorer"])]
    assert (own["dtype"] or None, own["device"]) == (about.dtype, about.device)
    page = said("leaderboard", "show", path, "--format", "html")
    assert about.device in page and "undefined" not in page.partition("<script")[0]
    for form in ("rich", "markdown", "csv", "json"):
        said("leaderboard", "show", path, "--format", form)


def passes_its_gate(said: Said, path: str) -> None:
    said("check", path, "--baseline", "baseline.json", "--update")
    for form in ("text", "json"):
        said("check", path, "--baseline", "baseline.json", "--format", form)


def is_exported(said: Said, path: str, about: ModelDescription) -> None:
    said("export", path, "--format", "lm-eval", "--to", "lm-eval")
    (results,) = Path("lm-eval").rglob("results_*.json")
    config = json.loads(results.read_text())["config"]
    assert (config["model_args"]["backend"], config.get("model_dtype")) == (about.backend, about.dtype)
    said("export", path, "--format", "model-index", "--to", "card.yaml")
    ranked = not json.loads(Path(path, "results.json").read_text())["labeler"]["uses_reference"]
    said("export", path, "--format", "eval-results", "--to", "repo", code=0 if ranked else 2)
    assert bool(list(Path("repo").rglob("*.yaml"))) == ranked


def test_labelers_are_compared_and_solutions_generated(recipe: list[str], said: Said, data: Path) -> None:
    if "--prm" in recipe:  # compare and generate take the run's model
        pytest.skip("a PRM is its own model")
    at = recipe.index("--labeler")
    common = [*recipe[:at], *recipe[at + 4 :]]
    labelers = "mc(n=2,max_new_tokens=8,chat=false),length" if recipe[at + 1] == "mc" else "cpmi,length"
    compared = json.loads(said("compare", "--labelers", labelers, *common, "--output_path", "compared", "--json"))
    assert compared["model"]["backend"] == (common[common.index("--backend") + 1] if "--backend" in common else "hf")
    said("compare", "--labelers", labelers, *common, "--output_path", "compared")
    said("compare", "--labelers", labelers, *common, "--output_path", "compared", "--format", "markdown")
    drawing = common[common.index("--data_dir") :]
    made = ("generate", "--task", "gsm8k", *drawing, "--limit", "1", "--n", "2", "--max_new_tokens", "4")
    said(*made, "--to", "candidates.jsonl")
    assert json.loads(Path("candidates.jsonl.json").read_text())["model"]["model"] == compared["model"]["model"]


WHOLE = {"backend": "hf", "model": "base", "device": "cpu"}


def read(content: object) -> ModelDescription:
    return door.convert({"model": shaped(content)}, Holder, door.Source("results.json")).model


@dataclass(frozen=True)
class Holder:
    model: ModelDescription


def test_only_what_every_backend_can_give_is_required() -> None:
    made = read({**WHOLE, "revision": None, "speed": 3, "others": {"prover": WHOLE}})
    assert made == ModelDescription(
        "hf", "base", "cpu", own={"speed": 3}, others={"prover": ModelDescription("hf", "base", "cpu")}
    )
    assert made.as_dict() == {**WHOLE, "speed": 3, "others": {"prover": WHOLE}}
    assert read(made.as_dict()) == made


def test_what_earlier_versions_wrote_for_an_unknown_dtype_is_unknown() -> None:
    made = read({**WHOLE, "dtype": "None"})
    assert made is not None and made.dtype is None


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"device": None}, "model.device: Expected `str`, got `null`"),
        ({"dtype": 3}, "model.dtype: Expected `str | null`, got `int`"),
        ({"parameters": "many"}, "model.parameters: Expected `int | null`, got `str`"),
        ({"parameters": True}, "model.parameters: Expected `int | null`, got `bool`"),
        ({"spec": [1]}, "model.spec: Expected `object | null`, got `array`"),
        ({"others": [1]}, "model.others: Expected `object`, got `array`"),
        ({"others": {"prover": {"model": "x"}}}, "missing required field `backend`"),
        ({"others": {"prover": 3}}, "Expected `object`, got `int`"),
    ],
)
def test_a_damaged_description_is_told_by_its_field(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(StoreError, match=re.escape(complaint)):
        read({**WHOLE, **changed})
    with pytest.raises(StoreError, match="model: Expected `object`, got `array`"):
        read([1])
