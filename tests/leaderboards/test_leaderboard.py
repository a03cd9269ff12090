"""Leaderboard files, the rows that runs become, and ``leaderboard add`` and ``show``."""

import csv
import dataclasses
import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import snapshot
from commandline import Cli, Outcome
from maderuns import PLAIN
from msgspec.structs import asdict, replace

import cpmi_eval
from cpmi_eval.errors import DataError, StoreError
from cpmi_eval.leaderboards import files, schema
from cpmi_eval.leaderboards.rows import row_of
from cpmi_eval.leaderboards.schema import Cost, Part, Row, TraceSet, Value
from cpmi_eval.record import door
from cpmi_eval.record.door import to_lines, write_json
from cpmi_eval.record.rows import trace_set
from cpmi_eval.record.run import read_run
from cpmi_eval.record.signature import Signature, portable

pytestmark = pytest.mark.usefixtures("plain")

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(autouse=True)
def published_only(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the package come without measured rows: those change whenever something is measured anew."""
    folder = tmp_path_factory.mktemp("shipped")
    for name, path in files.shipped().items():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / path.name).write_text("".join(line for line in lines if '"published"' in line), encoding="utf-8")
        assert name in files.found(folder)
    monkeypatch.setattr(files, "shipped", lambda: files.found(folder))


def part(f1: Value, traces: str = A, scored: int = 400) -> Part:
    metrics = {"f1": f1, "step_auc": Value(0.606, 0.57, 0.64, 1568)}
    return Part(metrics, TraceSet(traces, 400, scored), Cost(238.5, 463.0, 6_718_702, 693_849, 0, 1_071_591_424))


def measured(name: str, f1: Value, digest: str = A, **changes: Any) -> Row:
    return Row(
        **{
            "task": "processbench",
            "origin": "measured",
            "scorer": name,
            "kind": "labeler",
            "uses_reference": True,
            "parts": {"processbench/gsm8k": part(f1), "processbench": part(f1, traces=B)},
            "settings": {"variant": "prefix"},
            "model": {"name": "base", "sha256": C, "dtype": "bfloat16", "backend": "hf"},
            "threshold": "native",
            "hardware": {"device": "cpu", "platform": "Linux", "processor": "x86_64"},
            "versions": {"cpmi-eval": "0.1.0"},
            "fingerprint": digest,
            "date": "2026-01-02T03:04:05+00:00",
            **changes,
        }
    )


GOOD = measured("cpmi", Value(0.21, 0.174, 0.249, 400))
PUBLISHED = Row(
    "processbench", "published", "PRM-7B", "prm", {"processbench/gsm8k": Part({"f1": Value(0.8)})}, source="a paper"
)


def test_a_file_is_read_back_as_it_was_written() -> None:
    rows = (GOOD, replace(PUBLISHED, note="ü – as reported"), replace(GOOD, fingerprint=B, model=None, settings={}))
    files.write(Path("processbench.jsonl"), rows)
    assert files.read(Path("processbench.jsonl")) == rows
    assert files.problems(Path("processbench.jsonl")) == []
    assert len(Path("processbench.jsonl").read_text().splitlines()) == 3
    assert not list(Path.cwd().glob(".*tmp"))


def changed(path: str, value: Any) -> Callable[[Row], dict[str, Any]]:
    """Return a function that gives a row as an object, with one field set (``DROP``: taken out)."""

    def change(row: Row) -> dict[str, Any]:
        document = json.loads(json.dumps(schema.as_dict(row)))
        *outer, last = path.split(">")
        at = document
        for name in outer:
            at = at[name]
        if value is DROP:
            del at[last]
        else:
            at[last] = value
        return document

    return change


DROP = object()
METRIC = "parts>processbench/gsm8k>metrics>f1"
TRACES = "parts>processbench/gsm8k>traces"
WRONG = {
    "unknown field": (GOOD, "speed", 1, "unknown field `speed`"),
    "unknown field inside": (GOOD, f"{METRIC}>std", 1.0, "unknown field `std`"),
    "no scorer": (GOOD, "scorer", DROP, "missing required field `scorer`"),
    "no value": (GOOD, f"{METRIC}>value", DROP, "missing required field `value`"),
    "a text for a value": (GOOD, f"{METRIC}>value", "0.2", "value: Expected `float | null`, got `str`"),
    "true for a value": (GOOD, f"{METRIC}>value", True, "value: Expected `float | null`, got `bool`"),
    "value outside": (GOOD, f"{METRIC}>value", 0.3, "value 0.3 is outside its interval [0.174, 0.249]"),
    "half an interval": (GOOD, f"{METRIC}>low", DROP, "low is missing: an interval has two bounds"),
    "interval of nothing": (GOOD, f"{METRIC}>value", None, "low and high bound a value that is not there"),
    "negative n": (GOOD, f"{METRIC}>n", -1, ".n: Expected `int` >= 0"),
    "half an n": (GOOD, f"{METRIC}>n", 1.5, ".n: Expected `int | null`, got `float`"),
    "no object": (GOOD, METRIC, 0.2, "Expected `object`, got `float`"),
    "other version": (GOOD, "schema_version", 2, "has schema_version 2; this version of cpmi-eval reads and writes 1"),
    "no version": (GOOD, "schema_version", DROP, "missing required field `schema_version`"),
    "unknown kind": (GOOD, "kind", "oracle", "kind: Invalid enum value 'oracle'"),
    "unknown origin": (GOOD, "origin", "guessed", "origin: Invalid enum value 'guessed'"),
    "no fingerprint": (GOOD, "fingerprint", DROP, "fingerprint is missing: a measured row has it"),
    "short fingerprint": (GOOD, "fingerprint", "abc", "fingerprint: Expected `str` matching regex"),
    "no threshold": (GOOD, "threshold", DROP, "threshold is missing: a measured row has it"),
    "no trace set": (GOOD, TRACES, DROP, "parts.processbench/gsm8k.traces is missing: a measured row has it"),
    "too many scored": (GOOD, f"{TRACES}>scored", 401, "scored is 401 of 400 traces"),
    "limit of none": (GOOD, f"{TRACES}>limit", 0, "traces.limit: Expected"),
    "negative cost": (GOOD, "parts>processbench>cost>seconds", -1.0, "cost.seconds: Expected `float` >= 0.0"),
    "no date": (GOOD, "date", "yesterday", "Invalid isoformat string: 'yesterday'"),
    "flag": (GOOD, "uses_reference", "yes", "uses_reference: Expected `bool`, got `str`"),
    "a path for a model": (GOOD, "model>name", "/home/me/base", "model holds a path"),
    "a path in a setting": (GOOD, "settings>prompt", "/home/me/p.txt", "settings holds a path"),
    "what is a model": (GOOD, "model>size", 7, "unknown field `size`"),
    "no parts": (GOOD, "parts", {}, "parts holds no results"),
    "part of another": (GOOD, "parts>gsm8k", {"metrics": {}}, "parts.gsm8k is no part of processbench"),
    "another task": (
        replace(PUBLISHED, parts={"processbench": Part({})}),
        "task",
        "math",
        "parts.processbench is no part",
    ),
    "published without source": (PUBLISHED, "source", DROP, "source is missing: a published row says where it comes"),
    "published with fingerprint": (PUBLISHED, "fingerprint", A, "fingerprint is given, but only measured rows"),
}


@pytest.mark.parametrize(("row", "path", "value", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_row_is_named_with_file_line_and_field(row: Row, path: str, value: Any, message: str) -> None:
    document = changed(path, value)(row)
    Path("processbench.jsonl").write_bytes(to_lines([schema.as_dict(PUBLISHED), document]))
    with pytest.raises(DataError) as caught:
        files.read(Path("processbench.jsonl"))
    assert str(caught.value).startswith("processbench.jsonl, line 2 ")
    assert message in str(caught.value)


def test_what_is_wrong_with_whole_files() -> None:
    good, path = json.dumps(schema.as_dict(GOOD)), Path("processbench.jsonl")
    for text, message in (
        (f"{good}\n{good}\n", "line 2: fingerprint is also that of line 1"),
        (f"{good}\n\n{good}\n", "line 2 is damaged"),
        (good.replace("0.21", "NaN"), "line 1 is damaged"),
        (good.replace("0.21", "1e999"), "Number out of range"),
        (good[:-5], "line 1 is damaged"),
        ("[]\n", "line 1 is not valid: Expected `object`, got `array`"),
    ):
        path.write_text(text)
        assert message in "\n".join(files.problems(path)), text
        with pytest.raises(DataError):
            files.read(path)
    Path("math.jsonl").write_text(good)
    assert "task is 'processbench', whose rows belong in processbench.jsonl" in files.problems(Path("math.jsonl"))[0]
    assert "absent.jsonl does not exist" in files.problems(Path("absent.jsonl"))[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (replace(GOOD, kind="ceiling"), "row of 'cpmi' is not valid: kind: Invalid enum value"),
        (replace(GOOD, fingerprint=B, settings={"x": float("nan")}), "row of 'cpmi' cannot be written as JSON"),
        (replace(GOOD, task="math", parts={"math": GOOD.parts["processbench"]}), "task is 'math'"),
        (GOOD, "fingerprint is also that of another row"),
        (measured("cpmi", Value(float("nan"))), "cannot be written as JSON"),
    ],
)
def test_nothing_wrong_is_written(row: Row, message: str) -> None:
    path = Path("processbench.jsonl")
    files.write(path, [GOOD])
    before = path.read_bytes()
    with pytest.raises(DataError, match=message):
        files.write(path, [GOOD, row])
    assert path.read_bytes() == before


def test_rows_are_added_replaced_or_left() -> None:
    folder = Path("boards/deep")
    better = replace(GOOD, note="measured again")
    other = replace(GOOD, fingerprint=B)
    assert files.add(folder, [GOOD, other]) == ["added", "added"]
    assert files.add(folder, [better, other]) == ["replaced", "unchanged"]
    assert files.read(folder / "processbench.jsonl") == (better, other)


def test_a_damaged_file_is_left_as_it_is() -> None:
    Path("processbench.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"processbench\.jsonl, line 1"):
        files.add(Path(), [GOOD])
    assert Path("processbench.jsonl").read_text() == "{}\n"


def test_rows_that_are_added_at_once_are_all_kept() -> None:
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(12)]
    threads = [threading.Thread(target=files.add, args=(Path(), [replace(GOOD, fingerprint=one)])) for one in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.fingerprint for row in files.read(Path("processbench.jsonl"))} == set(digests)


def test_paths_of_a_machine_are_cut_to_their_last_name() -> None:
    assert portable("/home/me/prm-cpmi/") == "prm-cpmi"
    assert portable("~/models/base model") == "base model"
    assert portable("C:\\models\\base") == "base"
    assert portable('prompt=/home/me/prompt.txt,n=8,other="/tmp/a b"') == 'prompt=prompt.txt,n=8,other="a b"'
    assert portable({"a": ["/x/y", 3, None], "b": True}) == {"a": ["y", 3, None], "b": True}
    for text in ("org/name", "runs/prm", "1 / 2", "/", "and/or", "The answer is {answer}/2", "~5", "\\boxed{x}"):
        assert portable(text) == text


def run(name: str, limit: int | None = 12, **changes: Any) -> Path:
    return cpmi_eval.evaluate(name, "synthetic", limit=limit, output_path=changes.pop("path", name), **changes).path


def edit(path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((path / name).read_text())
    change(content)
    write_json(path / name, content)


def test_a_row_says_what_its_run_says() -> None:
    path = run("random", seed=3)
    found = read_run(path)
    row = row_of(found)
    assert (row.task, row.origin, row.scorer, row.kind, row.synthetic) == (
        "synthetic",
        "measured",
        "random",
        "baseline",
        True,
    )
    assert (row.model, row.threshold, row.uses_reference, row.aggregation) == (None, "native", False, None)
    manifest = json.loads((path / "manifest.json").read_text())
    assert row.date == manifest["created"]
    assert row.hardware == {"device": None, **manifest["machine"]}
    assert row.versions == manifest["versions"]
    assert list(row.parts) == ["synthetic/arithmetic", "synthetic"]
    for name, one in row.parts.items():
        results = found.summary["results"][name]
        assert {key: (value.value, value.n) for key, value in one.metrics.items()} == {
            key: (entry["value"], entry["n"]) for key, entry in results.items() if not entry.get("detail")
        }
        assert [(value.low, value.high) for value in one.metrics.values()] == [
            tuple(entry.get("interval") or (None, None)) for entry in results.values() if not entry.get("detail")
        ]
        assert one.traces is not None
        assert (one.traces.total, one.traces.scored, one.traces.limit) == (12, 12, 12)
    only = row.parts["synthetic/arithmetic"].traces
    assert only is not None
    assert only.sha256 == trace_set(found.records)
    mean = row.parts["synthetic"].traces
    assert mean is not None
    assert mean.sha256 == hashlib.sha256(only.sha256.encode()).hexdigest()
    assert door.convert(schema.as_dict(row), Row, door.Source("row")) == row


def two_parts(path: Path, *, scored: bool = True) -> None:
    """Make a finished run one of two parts by hand, with known costs and a model."""
    rows, texts, order = [], [], ("b", "a")  # the mean's trace set takes them in order of name
    for number, subset in enumerate(order):
        for index in range(number + 1):
            name = f"{subset}-{index}"
            tokens = {"requested": 100, "computed": 10 * (index + 1), "reused": 0, "generated": number}
            spent = {"seconds": 1.5, "device_seconds": 3.0, "tokens": tokens, "peak_memory_bytes": 1000 + number}
            gold = {"first_error": 0, "final_answer_correct": False}
            missed = not scored and subset == "a" and index == 0
            error = {"kind": "too_long", "message": "."} if missed else None
            values = {"scores": None if missed else [0.1], "prediction": None if missed else 0}
            rows.append(
                {
                    "id": name,
                    "task": f"t/{subset}",
                    **values,
                    "gold": gold,
                    "error": error,
                    "cost": spent,
                    "details": {},
                }
            )
            texts.append(
                {"id": name, "task": f"t/{subset}", "cluster": name, "problem": "?", "steps": ["."], "answer": None}
            )
    metrics = {
        "f1": {"value": 0.5, "n": 1, "interval": [0.25, 0.75]},
        "old": {"value": 0.5, "n": 1},
        "fine": {"value": 0.1, "n": 1, "detail": True},
    }
    model = {
        "model": "/models/base-7b/",
        "sha256": C,
        "revision": None,
        "dtype": "float32",
        "device": "cpu",
        "backend": "hf",
    }
    model["others"] = {"prover": {**model, "model": "org/prover", "sha256": None, "revision": "abc"}}
    config = {"labeler": "mc", "task": "t", "labeler_args": {"prompt": "/home/me/p.txt", "n": 8}, "limit": None}
    config |= {"model": "/models/base-7b/", "model_args": {}, "threshold": "native"}
    summary = {
        "results": {**{f"t/{subset}": metrics for subset in order}, "t": metrics},
        "coverage": {},
        "errors": {},
        "cost": PLAIN["cost"],
        "labeler": {"name": "mc", "kind": "labeler", "uses_reference": True},
        "threshold": {"protocol": "native", "value": 0.5},
        "synthetic": False,
        "config": config,
        "model": model,
        "data": [],
        "versions": {"cpmi-eval": "0.1.0"},
    }
    identity = {**config, "data": [], "files": {"prompt": B}}
    path.mkdir()
    manifest = {"schema_version": 2, "identity": identity, "created": "2026-01-02T03:04:05+00:00", "sessions": []}
    manifest |= {key: summary[key] for key in ("config", "model", "data", "versions")}
    write_json(path / "manifest.json", {**manifest, "machine": {"platform": "Linux", "processor": "x86_64"}})
    write_json(path / "results.json", summary)
    (path / "samples.jsonl").write_bytes(to_lines(rows))
    (path / "traces.jsonl").write_bytes(to_lines(texts))


def test_costs_and_traces_are_those_of_the_parts_and_add_up_in_the_mean() -> None:
    two_parts(Path("run"), scored=False)
    found = read_run(Path("run"))
    parts = row_of(found).parts
    assert list(parts) == ["t/b", "t/a", "t"]
    costs = {name: one.cost and asdict(one.cost) for name, one in parts.items()}
    keys = ("seconds", "device_seconds", "requested", "computed", "generated", "peak_memory_bytes")
    assert costs == {
        "t/b": dict(zip(keys, (1.5, 3.0, 100, 10, 0, 1000), strict=True)),
        "t/a": dict(zip(keys, (3.0, 6.0, 200, 30, 2, 1001), strict=True)),
        "t": dict(zip(keys, (4.5, 9.0, 300, 40, 2, 1001), strict=True)),
    }
    sets = {name: trace_set(records) for name, records in found.parts.items()}
    assert [(one.traces.sha256, one.traces.total, one.traces.scored) for one in parts.values() if one.traces] == [
        (sets["t/b"], 1, 1),
        (sets["t/a"], 2, 1),
        (hashlib.sha256(f"{sets['t/a']}\n{sets['t/b']}".encode()).hexdigest(), 3, 2),
    ]
    assert parts["t"].metrics == {"f1": Value(0.5, 0.25, 0.75, 1), "old": Value(0.5, None, None, 1)}


def test_no_path_of_the_machine_is_in_a_row() -> None:
    two_parts(Path("run"))
    row = row_of(read_run(Path("run")))
    assert row.settings == {"prompt": "p.txt", "n": 8}
    prover = {"name": "org/prover", "revision": "abc"}
    assert row.model == {
        "name": "base-7b",
        "sha256": C,
        "others": {"prover": prover},
        "dtype": "float32",
        "backend": "hf",
    }
    text = json.dumps(schema.as_dict(row))
    for path in ("/models", "/home", str(Path.cwd())):
        assert path not in text


def test_a_trained_prm_bears_its_checkpoints_name() -> None:
    two_parts(Path("run"))

    def prm(content: dict[str, Any]) -> None:
        content["config"]["labeler_args"] = {"checkpoint": "/models/base-7b/", "spec": "trl"}
        content.setdefault("labeler", {}).update(name="prm", kind="prm", uses_reference=False)

    edit(Path("run"), "results.json", prm)
    row = row_of(read_run(Path("run")))
    assert (row.scorer, row.settings) == ("base-7b", {"spec": "trl"})
    assert row.model is not None
    assert row.model["name"] == "base-7b"


def identity_of(path: Path, threshold: str = "native", **changes: Any) -> str:
    run = read_run(path)
    assert run.model is not None
    model = dataclasses.replace(run.model, **{name: one for name, one in changes.items() if hasattr(run.model, name)})
    identity = {name: changes.get(name, one) for name, one in run.manifest.identity.items()}
    rule = run.results.threshold.replaced(protocol=threshold)
    manifest = run.manifest.replaced(model=model, identity=identity)
    return Signature(manifest, run.results.replaced(threshold=rule), 0).fingerprint


def test_a_fingerprint_is_that_of_configuration_data_files_and_model() -> None:
    two_parts(Path("run"))
    same = row_of(read_run(Path("run"))).fingerprint
    assert identity_of(Path("run")) == same
    # where the model lies and what it runs on are no part of it
    assert identity_of(Path("run"), model="/elsewhere/base-7b") == same
    assert identity_of(Path("run"), device="cuda:0") == same
    others = [
        identity_of(Path("run"), sha256=A),
        identity_of(Path("run"), model="/models/other"),
        identity_of(Path("run"), labeler_args={"n": 4}),
        identity_of(Path("run"), files={"prompt": A}),
        identity_of(Path("run"), data=[{"name": "x", "sha256": A}]),
        identity_of(Path("run"), threshold="fixed:0.5"),
    ]
    assert len({same, *others}) == 7


def test_a_run_that_lacks_something_is_named() -> None:
    path = run("constant")
    edit(path, "manifest.json", lambda content: content.pop("machine"))
    with pytest.raises(StoreError, match=r"constant/manifest\.json is not valid: .*missing required field `machine`"):
        row_of(read_run(path))


def test_add_says_what_it_did(cli: Cli) -> None:
    run("random"), run("constant")
    done = cli("leaderboard", "add", "random", "constant")
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first.startswith("added random on synthetic (native, synthetic data) in leaderboards/synthetic.jsonl: ")
    assert second.startswith("added constant on ")
    assert len(files.read(Path("leaderboards/synthetic.jsonl"))) == 2
    again = cli("leaderboard", "add", "constant").out
    assert again.startswith("unchanged constant")
    edit(Path("constant"), "manifest.json", lambda content: content.update(created="2020-01-01T00:00:00+00:00"))
    assert cli("leaderboard", "add", "constant").out.startswith("replaced constant")
    assert len(files.read(Path("leaderboards/synthetic.jsonl"))) == 2


def test_add_writes_where_it_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run("random")
    assert cli("leaderboard", "add", "random", "--to", "here").code == 0
    monkeypatch.setenv("CPMI_EVAL_LEADERBOARDS", "there")
    assert cli("leaderboard", "add", "random").code == 0
    assert Path("here/synthetic.jsonl").read_bytes() == Path("there/synthetic.jsonl").read_bytes()
    assert cli("leaderboard", "show", "synthetic").code == 0
    assert not Path("leaderboards").exists()


def test_add_refuses_a_run_that_is_not_finished_and_adds_nothing(cli: Cli) -> None:
    run("random")
    Path(run("constant"), "results.json").unlink()
    done = cli("leaderboard", "add", "random", "constant")
    assert (done.code, done.out) == (2, "")
    assert "constant is not finished" in done.err
    assert not Path("leaderboards").exists()
    assert "absent is not a run directory" in cli("leaderboard", "add", "absent").err


@pytest.fixture
def board() -> Path:
    """Write a folder of made-up rows of ProcessBench gsm8k."""
    rows = [
        measured("cpmi", Value(0.21, 0.174, 0.249, 400), A),
        measured("cpmi", Value(0.25, 0.21, 0.3, 400), B, settings={}),
        measured("mc", Value(0.41, 0.35, 0.47, 400), C, settings={"n": 8}),
        measured("tuned", Value(0.5, 0.4, 0.6, 400), "d" * 64, threshold="oracle", settings={}),
        measured("old", Value(0.3), "e" * 64, settings={}),
        measured("judge", Value(0.3, 0.2, 0.4, 400), "f" * 64, kind="critic", uses_reference=False, settings={}),
        measured("ranks", Value(None, n=400), "0" * 64, kind="baseline", uses_reference=False, settings={}, model=None),
    ]
    lost = part(Value(0.6, 0.5, 0.7, 400), scored=390)
    rows.append(
        measured("lost", Value(0.6), "1" * 64, kind="critic", uses_reference=False, parts={"processbench/gsm8k": lost})
    )
    folder = Path("boards")
    files.add(folder, rows)
    return folder


def append(folder: Path, line: str) -> None:
    with (folder / "processbench.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(line)


GSM8K = ("leaderboard", "show", "processbench/gsm8k", "--boards", "boards")


def rows_of(done: Outcome) -> list[dict[str, Any]]:
    assert (done.code, done.err) == (0, "")
    (one,) = json.loads(done.out)["boards"]
    found: list[dict[str, Any]] = one["rows"]
    return found


def test_what_a_board_looks_like(cli: Cli, board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli(*GSM8K, "--no-published")
    assert (done.code, done.err) == (0, "")
    snapshot.check("leaderboard", done.out)
    assert "390/400" in done.out, "what was scored was cut off"
    snapshot.check("leaderboard_markdown", cli(*GSM8K, "--no-published", "--format", "markdown").out)


def test_rows_are_ranked_within_kind_and_marked(cli: Cli, board: Path) -> None:
    found = [(row["scorer"], row["rank"], row["reason"]) for row in rows_of(cli(*GSM8K, "--json"))]
    assert found == [
        ("mc", [1, 1], ""),
        ("old", [2, 3], ""),  # 0.3 is within the other's interval up to 0.3
        ("cpmi", [2, 4], ""),
        ("cpmi", [3, 4], ""),
        ("tuned", None, "oracle"),
        ("judge", [1, 1], ""),
        ("lost", None, "partial: 390 of 400 scored"),
        ("ranks", None, "no value"),
    ]


def test_json_holds_all_that_is_known(cli: Cli, board: Path) -> None:
    row = rows_of(cli(*GSM8K, "--format", "json"))[0]
    expected = schema.as_dict(measured("mc", Value(0.41, 0.35, 0.47, 400), C, settings={"n": 8}))
    parts = expected.pop("parts")
    place = {"rank": [1, 1], "reason": "", "bare": False, "oracle": False}
    assert row == {**place, **expected, **parts["processbench/gsm8k"]}


def test_a_published_row_is_shown_apart_once(cli: Cli, board: Path) -> None:
    append(board, to_lines([schema.as_dict(PUBLISHED)]).decode())
    document = json.loads(cli(*GSM8K, "--json").out)
    names = [row["scorer"] for row in document["published"]]
    assert names[0] == "PRM-7B"
    assert len(names) == 22
    assert all(row["scorer"] != "PRM-7B" for row in document["boards"][0]["rows"])
    assert json.loads(cli(*GSM8K, "--json", "--no-published").out)["published"] == []
    ordered = json.loads(cli(*GSM8K, "--json", "--sort", "f1", "--kind", "critic").out)["published"]
    values = [row["parts"]["processbench/gsm8k"]["metrics"]["f1"]["value"] for row in ordered]
    assert values == sorted(values, reverse=True)
    assert len(values) == 6
    text = cli(*GSM8K).out
    assert "published, not measured here and not ranked" in text


def test_kinds_columns_sorting_and_top(cli: Cli, board: Path) -> None:
    assert {row["kind"] for row in rows_of(cli(*GSM8K, "--json", "--kind", "critic,baseline"))} == {
        "critic",
        "baseline",
    }
    picked = rows_of(cli(*GSM8K, "--json", "--columns", "scorer,rank,f1,computed", "--kind", "critic"))
    assert picked[0] == {"scorer": "judge", "rank": "1", "f1": 0.3, "computed": 693_849}
    auc = rows_of(cli(*GSM8K, "--json", "--sort", "step_auc", "--columns", "scorer,rank", "--kind", "labeler"))
    assert {row["rank"] for row in auc} == {"1–4", None}
    assert [row["scorer"] for row in rows_of(cli(*GSM8K, "--json", "--top", "1"))] == ["mc", "judge", "ranks"]
    done = cli(*GSM8K, "--top", "2", "--columns", "rank,scorer", "--no-published")
    assert "ranked by F1 within each kind; 5 of 8 shown" in done.out
    assert "F1" not in done.out.splitlines()[2]


def test_csv_holds_plain_numbers(cli: Cli, board: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cli(*GSM8K, "--format", "csv").out)))
    first = rows[0]
    assert (first["part"], first["rank"], first["scorer"], first["settings"]) == (
        "processbench/gsm8k",
        "1",
        "mc",
        '{"n": 8}',
    )
    assert [float(first[key]) for key in ("f1", "f1_low", "f1_high", "f1_n")] == [0.41, 0.35, 0.47, 400]
    assert (first["wall_seconds"], first["computed"], first["fingerprint"]) == ("238.5", "693849", C)
    assert (first["uses_reference"], first["trace_set"]) == ("true", A)
    published = [row for row in rows if row["origin"] == "published"]
    assert published
    assert all(row["rank"] == "" and row["source"] for row in published)
    few = next(csv.reader(io.StringIO(cli(*GSM8K, "--format", "csv", "--columns", "f1", "--no-published").out)))
    assert few == ["origin", "part", "trace_set", "rank", "reason", "f1", "f1_low", "f1_high", "f1_n"]


def test_the_result_can_go_to_a_file(cli: Cli, board: Path) -> None:
    for style in ("rich", "markdown", "csv", "json"):
        done = cli(*GSM8K, "--format", style, "--to", style)
        assert done == (0, "", "")
        shown, kept = cli(*GSM8K, "--format", style).out, Path(style).read_text(encoding="utf-8")
        assert [line.rstrip() for line in kept.splitlines()] == [line.rstrip() for line in shown.splitlines()]


def test_runs_and_tasks_are_shown_together_and_no_row_twice(cli: Cli) -> None:
    for name in ("random", "constant"):
        run(name)
    cli("leaderboard", "add", "random", "constant")
    alone = json.loads(cli("leaderboard", "show", "random", "--json").out)["boards"]
    assert [[row["scorer"] for row in one["rows"]] for one in alone] == [["random"]]
    (together,) = json.loads(cli("leaderboard", "show", "synthetic", "random", "random", "--json").out)["boards"]
    assert sorted(row["scorer"] for row in together["rows"]) == ["constant", "random"]
    assert together["title"] == "synthetic/arithmetic, sample of 12 traces (synthetic data)"
    assert "published" not in cli("leaderboard", "show", "random").out


def test_a_run_that_is_named_twice_under_other_names_is_said_to_be(cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    run("random"), run("random", path="twin")
    done = cli("leaderboard", "show", "random", "twin", "--columns", "scorer")
    assert "twin is the same run as random" in caplog.text
    assert done.out.count("random") == 1


def test_runs_are_ranked_by_their_intervals_and_a_paired_test(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "constant"):
        run(name, limit=150)
    # constant calls nothing wrong, so that it is right about every correct trace; random hardly ever is
    show = ("leaderboard", "show", "random", "constant", "--json")
    found = rows_of(cli(*show, "--sort", "acc_correct"))
    assert [(row["scorer"], row["rank"]) for row in found] == [("constant", [1, 1]), ("random", [2, 2])]
    assert [row["rank"] for row in rows_of(cli(*show, "--sort", "step_auc"))] == [[1, 2], [1, 2]]
    from cpmi_eval.analysis import paired

    monkeypatch.setattr(paired, "separated", lambda runs, part, metric: {(1, 0)})
    assert [row["rank"] for row in rows_of(cli(*show, "--sort", "step_auc"))] in ([[1, 1], [2, 2]], [[2, 2], [1, 1]])


def test_other_traces_are_another_board(cli: Cli) -> None:
    run("random"), run("constant", limit=5), run("length", task_args={"n": 12}, limit=None)
    boards = json.loads(cli("leaderboard", "show", "random", "constant", "length", "--json").out)["boards"]
    assert [[row["scorer"] for row in one["rows"]] for one in boards] == [["random"], ["constant"], ["length"]]
    assert "sample of 12 traces (trace set" in boards[0]["title"]
    assert "sample of" not in boards[2]["title"]


def test_what_there_is_without_a_name(cli: Cli) -> None:
    run("random")
    cli("leaderboard", "add", "random")
    done = cli("leaderboard", "show")
    lines = [line.split() for line in done.out.splitlines()]
    assert ["synthetic", "1", "0", "arithmetic"] in lines
    assert ["labels", "0", "4", "labels"] in lines
    listed = {one["task"]: one for one in json.loads(cli("leaderboard", "show", "--json").out)}
    assert (listed["best_of_8"]["published"], listed["synthetic"]["measured"]) == (6, 1)


def test_the_page_shows_boards_runs_and_published_rows(cli: Cli, board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cpmi_eval.reports import page

    seen: dict[str, Any] = {}

    def render(title: str, boards: Any, runs: Any = (), published: Any = ()) -> str:
        seen.update(title=title, boards=boards, runs=runs, published=published)
        return "<!doctype html>"

    monkeypatch.setattr(page, "page", render)
    run("random")
    done = cli("leaderboard", "show", "processbench/gsm8k", "random", "--boards", "boards", "--format", "html")
    assert done == (0, "<!doctype html>\n", "")
    first, second = seen["boards"] if seen["boards"][0].part.startswith("processbench") else seen["boards"][::-1]
    assert (first.part, first.metric, second.part) == ("processbench/gsm8k", "f1", "synthetic/arithmetic")
    assert [(one.rank, one.reason, one.run) for one in first.rows][:5:4] == [("1", "", None), ("", "oracle", None)]
    assert [one.run for one in second.rows] == [0]
    assert [one.path.name for one in seen["runs"]] == ["random"]
    assert len(seen["published"]) == 21


REFUSED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "nothing of the name": (
        ("absent",),
        "absent is not a run directory: it has no manifest.json; nor a task with rows",
    ),
    "no rows yet": (("gsm8k",), "there are no rows of gsm8k yet; `cpmi-eval leaderboard add RUN_DIR` adds them"),
    "unknown part": (("processbench/gsm9k",), "Did you mean 'processbench/gsm8k'"),
    "unknown kind": (("processbench", "--kind", "critics"), "unknown kind 'critics'. Did you mean 'critic'"),
    "unknown column": (("processbench", "--columns", "f2", "--boards", "boards"), "unknown column 'f2'"),
    "unknown order": (("processbench", "--sort", "f2", "--boards", "boards"), "unknown column to sort by 'f2'"),
    "unknown order of published rows": (("labels", "--sort", "f2"), "unknown column to sort by 'f2'"),
    "nothing left": (("labels", "--no-published"), "there are no rows to show of labels with these options"),
    "no such folder": (("processbench", "--boards", "absent"), "absent is no folder"),
    "nothing to sort": (("--sort", "f1"), "--sort needs something to show"),
    "nothing to pick from": (("--kind", "prm"), "--kind needs something to show"),
    "nothing for a page": (("--format", "html"), "--format html needs something to show"),
    "two formats": (("labels", "--json", "--format", "csv"), "ask for different things"),
    "columns of a page": (("labels", "--format", "html", "--columns", "f1"), "--columns does nothing to --format html"),
}


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_shown(cli: Cli, board: Path, args: tuple[str, ...], message: str) -> None:
    done = cli("leaderboard", "show", *args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_damaged_file_is_not_shown(cli: Cli, board: Path) -> None:
    append(board, "{}\n")
    done = cli(*GSM8K)
    assert (done.code, done.out) == (2, "")
    assert "boards/processbench.jsonl, line 9 is not valid: Object missing required field `schema_version`" in done.err


@pytest.mark.parametrize("command", ["show", "add"])
def test_help(cli: Cli, command: str) -> None:
    done = cli("leaderboard", command, "--help")
    assert (done.code, done.err) == (0, "")
    snapshot.check(f"help_leaderboard_{command}", done.out)


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    script = (
        "import sys\nfrom cpmi_eval.cli import main\n"
        "try: main(['leaderboard', 'show', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'scipy', 'rich', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
