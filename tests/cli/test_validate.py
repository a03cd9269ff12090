"""``cpmi-eval validate``: what it checks, what it says, and its exit code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from commandline import Cli
from shop import Register

from cpmi_eval import registry
from cpmi_eval.errors import UsageError
from cpmi_eval.gate import validate
from cpmi_eval.leaderboards import files
from cpmi_eval.leaderboards.schema import Part, Row, Value
from cpmi_eval.prm import specs
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.types import Gold, Item, Provenance, TaskData, Trace

pytestmark = pytest.mark.usefixtures("plain")


def item(name: str = "one", subset: str = "all", first_error: int | None = 0) -> Item:
    return Item(subset, Trace(name, "?", ("a", "b")), Gold(first_error))


class Fine:
    name: ClassVar[str] = "mine"
    summary: ClassVar[str] = "a task of one's own"
    subsets: ClassVar[tuple[str, ...]] = ("all",)
    metrics: ClassVar[tuple[str, ...]] = ("first_error",)
    synthetic: ClassVar[bool] = True
    items: ClassVar[tuple[Item, ...]] = (item(),)

    def load(self, options: LoadOptions) -> TaskData:
        return TaskData(self.items, (Provenance("mine"),))


def test_all_that_comes_with_the_package_is_in_order(cli: Cli) -> None:
    done = cli("validate")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(": ok (" in line for line in lines)
    for name in registry.entries("tasks"):
        assert sum(line.startswith(f"task {name}: ok") for line in lines) == 1
    for name in specs.names():
        assert sum(line.startswith(f"spec {name}: ok") for line in lines) == 1
    for task in ("best_of_8", "labels", "processbench"):
        assert sum(f"{task}.jsonl: ok" in line for line in lines) == 1
    assert "200 traces loaded" in next(line for line in lines if line.startswith("task synthetic"))
    assert "data not loaded" in next(line for line in lines if line.startswith("task math"))


def test_json_is_one_document(cli: Cli) -> None:
    found = json.loads(cli("validate", "--json").out)
    assert {one["kind"] for one in found} == {"task", "spec", "leaderboard"}
    assert all(one["ok"] and not one["problem"] for one in found)


def test_files_of_ones_own_are_checked_too(cli: Cli) -> None:
    Path("good.yaml").write_text((specs.FOLDER / "trl.yaml").read_text())
    Path("bad.yaml").write_text((specs.FOLDER / "trl.yaml").read_text().replace("native_threshold", "native_treshold"))
    Path("mine").mkdir()
    row = Row("t", "published", "a", "prm", {"t": Part({"f1": Value(0.5)})}, source="a paper")
    files.write(Path("mine/t.jsonl"), [row])
    with Path("mine/t.jsonl").open("a") as stream:
        stream.write('{"schema_version": 1}\n{\n')
    done = cli("validate", "good.yaml", "bad.yaml", "absent.yaml", "--boards", "mine")
    assert (done.code, done.err) == (1, "")
    assert "spec good.yaml: ok (" in done.out
    assert "spec bad.yaml: bad.yaml: unknown key of a PRM spec 'native_treshold'. Did you mean" in done.out
    assert "spec absent.yaml: absent.yaml does not exist" in done.out
    assert (
        "leaderboard mine/t.jsonl: line 2 is not valid: Object missing required field `task`\n    line 3 is damaged"
        in done.out
    )
    found = {one["name"]: one["ok"] for one in json.loads(cli("validate", "good.yaml", "bad.yaml", "--json").out)}
    assert (found["good.yaml"], found["bad.yaml"], found["trl"]) == (True, False, True)


def test_a_folder_that_is_not_there_is_wrong_usage(cli: Cli) -> None:
    done = cli("validate", "--boards", "absent")
    assert (done.code, done.out) == (2, "")
    assert "absent is no folder" in done.err


def test_a_good_task_is_loaded(register: Register) -> None:
    register("tasks", "mine", Fine)
    assert validate.task("mine") == "subsets all; metrics first_error; 1 traces loaded"
    register("tasks", "mine", type("Elsewhere", (Fine,), {"synthetic": False, "items": ()}))
    assert validate.task("mine").endswith("data not loaded")


class Broken(Fine):
    def load(self, options: LoadOptions) -> TaskData:
        raise RuntimeError("no such file")


def unmade() -> None:
    raise ValueError("no")


WRONG: dict[str, tuple[Any, str]] = {
    "cannot be made": (unmade, "mine cannot be made without arguments: ValueError: no"),
    "is no task": (type("Empty", (), {"name": "mine"}), "it lacks summary, subsets, metrics, synthetic, load"),
    "another name": (type("Other", (Fine,), {"name": "other"}), "is registered as 'mine' and calls itself 'other'"),
    "no summary": (type("Dumb", (Fine,), {"summary": None}), "summary must be a text, not None"),
    "synthetic?": (type("Maybe", (Fine,), {"synthetic": 1}), "synthetic must be True or False, not 1"),
    "subsets": (type("Listed", (Fine,), {"subsets": ["all"]}), "subsets must be a tuple of names"),
    "no subsets": (type("None_", (Fine,), {"subsets": ()}), "subsets is empty"),
    "twice": (type("Twice", (Fine,), {"subsets": ("all", "all")}), "subsets names one thing twice"),
    "metrics": (type("Unmeasured", (Fine,), {"metrics": ("first_eror",)}), "unknown metric 'first_eror'. Did you mean"),
    "no load": (type("Idle", (Fine,), {"load": None}), "it lacks load"),
    "no traces": (type("Void", (Fine,), {"items": ()}), "it has no traces"),
    "subset": (type("Astray", (Fine,), {"items": (item(subset="x"),)}), "of the subset 'x', which it does not name"),
    "same id": (type("Same", (Fine,), {"items": (item(), item())}), "the trace id 'one' is there twice"),
    "label": (type("Late", (Fine,), {"items": (item(first_error=2),)}), "has 2 steps and its error at 2"),
    "load": (Broken, "its data cannot be loaded: RuntimeError: no such file"),
}


@pytest.mark.parametrize(("thing", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_task(register: Register, cli: Cli, thing: Any, message: str) -> None:
    register("tasks", "mine", thing)
    with pytest.raises(UsageError) as caught:
        validate.task("mine")
    assert message in str(caught.value)
    done = cli("validate")
    assert done.code == 1
    (line,) = (line for line in done.out.splitlines() if line.startswith("task mine: "))
    assert message in line


def test_a_spec_that_does_not_come_back_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validate.spec("trl")
    writing = specs.as_dict
    monkeypatch.setattr(specs, "as_dict", lambda spec: writing(replace(spec, native_threshold=0.123)))
    with pytest.raises(UsageError, match="not the same once written and read back"):
        validate.spec("trl")


def test_two_distributions_with_one_name_do_not_stop_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def entries(kind: str) -> dict[str, registry.Entry]:
        raise UsageError("two distributions register the task 'x'")

    monkeypatch.setattr(registry, "entries", entries)
    found = list(validate.everything())
    assert (found[0].kind, found[0].problem) == ("tasks", "two distributions register the task 'x'")
    assert sum(one.ok for one in found) == len(found) - 1 > 5
