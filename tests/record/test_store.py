"""A run directory: what is on disk at every moment, and who may write to it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cpmi_eval
from cpmi_eval.cost import Share
from cpmi_eval.errors import StoreError
from cpmi_eval.record.door import to_lines, write_json
from cpmi_eval.record.rows import Row
from cpmi_eval.record.store import Store, read_manifest
from cpmi_eval.types import Failure, Gold

ROW_KEYS = ("id", "task", "scores", "prediction", "gold", "error", "cost", "details")


def row(name: str, **details: object) -> Row:
    return Row(name, "t/x", None, None, Gold(-1), Failure("too_long", "it is"), Share.nothing(), details)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    write_json(path / "manifest.json", {"schema_version": 1})
    return path


@pytest.mark.parametrize("content", ["", "{", "[]", "3", b"\xff"])
def test_unreadable_json_names_the_file(tmp_path: Path, content: str | bytes) -> None:
    target = tmp_path / "manifest.json"
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StoreError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=re.escape(f"{tmp_path} is not a run directory: it has no manifest.json")):
        read_manifest(tmp_path)


def test_rows_come_back_in_order_with_their_keys(run_dir: Path) -> None:
    with Store(run_dir) as store:
        assert store.samples.read() == []
        store.append([row("a"), row("b", text="één\u2028\nline")])
        store.append([row("c")])
        assert [one.id for one in store.samples.read()] == ["a", "b", "c"]
        assert store.samples.read()[1].details == {"text": "één\u2028\nline"}
    assert len(store.samples_path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("torn", [b'{"id": "c", "sco', b"\xc3", b"{", json.dumps(row("c").as_dict()).encode()])
def test_a_torn_last_line_is_cut_off(run_dir: Path, torn: bytes) -> None:
    with Store(run_dir) as store:
        store.append([row("a"), row("b")])
        whole = store.samples_path.read_bytes()
        store.samples_path.write_bytes(whole + torn)
        assert [one.id for one in store.samples.read()] == ["a", "b"]
        assert store.samples_path.read_bytes() == whole
        store.append([row("c")])
        assert [one.id for one in store.samples.read()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": "b", "sco', "line 2 is damaged"),
        ("[1]", "line 2 is not valid"),
        ('{"id": "b"}', "line 2 is not valid: Object missing required field `task`"),
    ],
)
def test_a_damaged_line_in_the_middle_is_refused_by_number(run_dir: Path, line: str, complaint: str) -> None:
    with Store(run_dir) as store:
        store.samples_path.write_bytes(
            to_lines([row("a").as_dict()]) + line.encode() + b"\n" + to_lines([row("c").as_dict()])
        )
        before = store.samples_path.read_bytes()
        with pytest.raises(StoreError, match=rf"samples\.jsonl, {complaint}.*--fresh"):
            store.samples.read()
        assert store.samples_path.read_bytes() == before


def run_random(path: Path, **options: object) -> cpmi_eval.RunResult:
    return cpmi_eval.evaluate("random", "synthetic", task_args={"n": 6}, output_path=str(path), **options)


def test_only_the_torn_row_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    finished = run_random(path)
    samples = path / "samples.jsonl"
    lines = samples.read_bytes().splitlines(keepends=True)
    # A mark in the rows that are whole shows that they are kept as they are.
    marked = [json.dumps({**json.loads(line), "details": {"kept": True}}).encode() + b"\n" for line in lines[:5]]
    samples.write_bytes(b"".join(marked) + lines[5][:40])
    resumed = run_random(path)
    assert [one["details"].get("kept") for one in resumed.rows] == [True] * 5 + [None]
    assert resumed.rows[5]["scores"] == finished.rows[5]["scores"]
    assert resumed.summary["results"] == finished.summary["results"]


def test_documented_keys_of_a_real_row(tmp_path: Path) -> None:
    result = run_random(tmp_path / "run")
    (first, *_) = (json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines())
    assert tuple(first) == ROW_KEYS == ("id", "task", "scores", "prediction", "gold", "error", "cost", "details")
    assert first == result.rows[0]
    assert set(first["gold"]) == {"first_error", "final_answer_correct"}
    assert set(first["cost"]) == {"seconds", "device_seconds", "tokens", "peak_memory_bytes"}
    assert set(first["cost"]["tokens"]) == {"requested", "computed", "reused", "generated"}


HOLD = """
import sys
from pathlib import Path
from cpmi_eval.record.store import Store
with Store(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_that_another_process_writes_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refusal = re.escape(f"another process is writing to {path}")
        with pytest.raises(StoreError, match=refusal), Store(path):
            pass
        with pytest.raises(StoreError, match=refusal):
            run_random(path)
    finally:
        holder.communicate("")
    assert run_random(path).path == path  # and free once the other is gone


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    assert len(run_random(path).rows) == 6


def test_the_lock_is_given_back_on_errors(run_dir: Path) -> None:
    with pytest.raises(KeyError), Store(run_dir):
        raise KeyError
    with Store(run_dir):
        pass


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    path.mkdir()
    (path / "chapter.tex").write_text("text")
    with pytest.raises(StoreError, match=re.escape(f"{path} is not empty and holds no run")):
        run_random(path)
    assert [entry.name for entry in path.iterdir()] == ["chapter.tex"]


def test_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("text")
    with pytest.raises(StoreError, match="is a file; --output_path takes a directory"):
        run_random(path)
    with pytest.raises(StoreError, match="cannot be written"):
        run_random(path / "below")
    assert path.read_text() == "text"


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", ".manifest.json.tmp")])
def test_what_a_crash_before_the_manifest_leaves_is_no_obstacle(tmp_path: Path, left: tuple[str, ...]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in left:
        (path / name).write_text("{")
    assert len(run_random(path).rows) == 6


def test_fresh_keeps_every_earlier_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = run_random(path, seed=1)
    kept = {name: (path / name).read_bytes() for name in ("manifest.json", "samples.jsonl", "traces.jsonl")}
    second = run_random(path, seed=2, fresh=True)
    third = run_random(path, seed=3, fresh=True)
    assert {name: (path / "earlier-1" / name).read_bytes() for name in kept} == kept
    assert json.loads((path / "earlier-1" / "results.json").read_text()) == first.summary
    assert json.loads((path / "earlier-2" / "results.json").read_text()) == second.summary
    assert json.loads((path / "results.json").read_text()) == third.summary
    assert len({json.dumps(one.rows[0]["scores"]) for one in (first, second, third)}) == 3


def test_fresh_in_a_new_directory_sets_nothing_aside(tmp_path: Path) -> None:
    run_random(tmp_path / "run", fresh=True)
    assert not list((tmp_path / "run").glob("earlier-*"))


def test_set_aside_says_where(run_dir: Path) -> None:
    with Store(run_dir) as store:
        store.append([row("a")])
        assert store.set_aside() == run_dir / "earlier-1"
        assert store.set_aside() is None
        assert store.manifest() is None
        assert store.samples.read() == []


def test_killed_between_setting_aside_and_starting_anew(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_random(path)
    with Store(path) as store:
        store.set_aside()
    assert len(run_random(path).rows) == 6
    assert (path / "earlier-1" / "results.json").is_file()
