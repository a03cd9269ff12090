"""Another threshold or fewer traces for a finished run: the same as running it so, and nothing is scored again."""

import json
from pathlib import Path

import pytest
from commandline import Cli

import cpmi_eval
from cpmi_eval.analysis.rescore import rescore
from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.record.door import write_json
from cpmi_eval.record.rows import trace_set
from cpmi_eval.record.run import read_run

N = {"n": 40}


def go(path: Path, labeler: str = "random", **options: object) -> Path:
    return cpmi_eval.evaluate(labeler, "synthetic", task_args=N, output_path=path, **options).path


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("protocol", ["fixed:0.2", "crossfit:4", "oracle", "native"])
def test_rescoring_is_running_with_that_threshold(tmp_path: Path, protocol: str) -> None:
    before = go(tmp_path / "before", threshold="fixed:0.9")
    expected = cpmi_eval.evaluate("random", "synthetic", task_args=N, threshold=protocol, output_path=tmp_path / "run")
    kept = {path.name: path.read_bytes() for path in before.iterdir()}
    found = rescore(before, protocol, output_path=tmp_path / "again")
    changing = {"cost", "config"}
    assert {k: v for k, v in found.summary.items() if k not in changing} == {
        k: v for k, v in expected.summary.items() if k not in changing
    }
    assert found.summary["config"]["threshold"] == protocol
    assert [row["prediction"] for row in rows(found.path)] == [row["prediction"] for row in expected.rows]
    assert {path.name: path.read_bytes() for path in before.iterdir()} == kept  # left as it was
    assert read_run(found.path).summary == found.summary


def test_a_ceiling_is_no_lower_than_what_was_fitted_elsewhere(tmp_path: Path) -> None:
    before = go(tmp_path / "run", "length")
    assert read_run(before).summary["results"]["synthetic"]["f1"]["value"] is None  # it has no threshold of its own
    oracle, crossfit = (
        rescore(before, protocol).results["synthetic"]["f1"].value for protocol in ("oracle", "crossfit:5")
    )
    assert oracle is not None
    assert crossfit is not None
    assert oracle >= crossfit
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run-oracle", "run-crossfit-5"}


def test_only_shared_traces_are_kept(tmp_path: Path) -> None:
    many, few = go(tmp_path / "many"), go(tmp_path / "few", "length", limit=15)
    found = rescore(many, only=[few], output_path=tmp_path / "shared")
    ids = {one.id for one in read_run(few).records}
    assert {row["id"] for row in rows(found.path)} == ids
    assert found.summary["coverage"]["synthetic/arithmetic"]["traces"] == 15
    original = {row["id"]: row for row in rows(many)}
    assert all(row == original[row["id"]] for row in rows(found.path))  # type: ignore[index]
    assert trace_set(read_run(found.path).records) == trace_set(read_run(few).records)
    manifest = json.loads((found.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["identity"]["only"] == trace_set(read_run(few).records)


def test_traces_whose_annotation_changed_are_not_shared(tmp_path: Path) -> None:
    a, b = go(tmp_path / "a"), go(tmp_path / "b", "length")
    changed = rows(b)
    changed[0]["gold"] = {"first_error": None, "final_answer_correct": None}
    (b / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    found = rescore(a, only=[b])
    assert len(found.rows) == 39
    assert changed[0]["id"] not in {row["id"] for row in found.rows}


def test_runs_without_a_common_trace_are_refused(tmp_path: Path) -> None:
    a = go(tmp_path / "a")
    other = cpmi_eval.evaluate("random", "synthetic", task_args=N, seed=7, output_path=tmp_path / "b").path
    with pytest.raises(UsageError, match="share no traces"):
        rescore(a, only=[other])


def test_another_run_in_the_directory_is_refused_and_the_same_one_is_written_again(tmp_path: Path) -> None:
    before = go(tmp_path / "run")
    target = rescore(before, "oracle").path
    assert rescore(before, "oracle").path == target
    with pytest.raises(StoreError, match="threshold: 'oracle' there, 'crossfit:3' now"):
        rescore(before, "crossfit:3", output_path=target)
    with pytest.raises(StoreError, match="holds a different run"):
        rescore(before, "oracle", output_path=before)
    rescore(before, "crossfit:3", output_path=target, fresh=True)
    assert (target / "earlier-1" / "results.json").exists()


def test_what_cannot_be_fitted_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this run has only arithmetic"):
        go(tmp_path / "run", threshold="dev:arithmetic")
    assert not (tmp_path / "run").exists()


def test_native_of_a_run_that_does_not_say_what_it_is(tmp_path: Path) -> None:
    before = go(tmp_path / "run", threshold="fixed:0.9")
    summary = json.loads((before / "results.json").read_text(encoding="utf-8"))
    del summary["labeler"]["native_threshold"]
    write_json(before / "results.json", summary)
    with pytest.raises(UsageError, match="does not say what is native"):
        rescore(before, "native")
    assert rescore(before, "fixed:0.5").summary["threshold"]["value"] == 0.5


def test_the_command(tmp_path: Path, cli: Cli) -> None:
    before = go(tmp_path / "run", "length")
    done = cli("rescore", str(before), "--threshold", "crossfit:5")
    assert done.code == 0
    shown = done.out
    assert "threshold crossfit:5 (a step below" in shown
    assert "by part and fold" in shown
    assert "in brackets: 95% interval" in shown
    done = cli("rescore", str(before), "--threshold", "oracle", "--json")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["threshold"]["protocol"] == "oracle"
    done = cli("rescore", str(before))
    assert done.code == 2
    assert "say what is to change" in done.err
