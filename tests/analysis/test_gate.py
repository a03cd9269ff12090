"""The gate: what moves is named with its size, what does not move passes, and damaged files are refused by field."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from commandline import Cli
from places import ROOT

import cpmi_eval
from cpmi_eval.gate import baseline as baselines
from cpmi_eval.gate import check as gate
from cpmi_eval.records import read_run
from cpmi_eval.store import to_lines

PART = "synthetic/arithmetic"
NO_TOKENS = {"requested": 0, "computed": 0, "reused": 0, "generated": 0}
MODEL = {"backend": "hf", "model": "tiny", "sha256": "ab" * 32, "revision": None, "dtype": "float32", "device": "cpu"}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 traces that needs no model."""
    return cpmi_eval.evaluate("random", "synthetic", limit=12, output_path=tmp_path_factory.mktemp("run") / "a").path


class Files:
    """The files of a run directory, to be changed by a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = self._lines("samples.jsonl")
        self.texts = self._lines("traces.jsonl")
        self.results = json.loads((path / "results.json").read_text())
        self.manifest = json.loads((path / "manifest.json").read_text())

    def _lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / name).read_text().splitlines()]

    def write(self) -> Path:
        (self.path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        (self.path / "traces.jsonl").write_text(to_lines(self.texts))
        (self.path / "results.json").write_text(json.dumps(self.results))
        (self.path / "manifest.json").write_text(json.dumps(self.manifest))
        return self.path


@pytest.fixture
def files(real: Path, tmp_path: Path) -> Files:
    shutil.copytree(real, tmp_path / "run")
    return Files(tmp_path / "run")


@pytest.fixture
def base(real: Path, tmp_path: Path) -> Path:
    path = tmp_path / "base.json"
    baselines.write(path, baselines.of_run(read_run(real)))
    return path


def by_name(report: gate.Report) -> dict[str, gate.Check]:
    return {one.name: one for one in report.checks}


def checked(run: Path, base: Path, **tolerances: Any) -> dict[str, gate.Check]:
    return by_name(gate.check(read_run(run), baselines.read(base), base, gate.Tolerances.parse(tolerances)))


def verdicts(run: Path, base: Path, **tolerances: Any) -> dict[str, str]:
    return {name: one.verdict for name, one in checked(run, base, **tolerances).items()}


UNMOVED = {"comparable": "pass", "scores": "pass", "tokens": "pass", "quality": "pass", "speed": "skipped"}
UNLIKE = {"comparable": "fail", "scores": "skipped", "tokens": "skipped", "quality": "skipped", "speed": "skipped"}


def test_a_run_passes_against_itself(cli: Cli, real: Path) -> None:
    done = cli("check", str(real), "--baseline", "new/folder/base.json", "--update")
    assert (done.code, done.err) == (0, "")
    assert done.out == "wrote new/folder/base.json: 12 traces of random on synthetic\n"
    done = cli("check", str(real), "--baseline", "new/folder/base.json")
    assert (done.code, done.err) == (0, "")
    assert "passed; not checked: speed" in done.out
    assert verdicts(real, Path("new/folder/base.json")) == UNMOVED


def test_the_baseline_is_a_function_of_the_run_with_a_line_per_trace(real: Path, base: Path) -> None:
    run = read_run(real)
    assert baselines.of_run(run).as_text() == base.read_text()
    assert baselines.read(base) == baselines.of_run(run)
    lines = [line.strip().rstrip(",") for line in base.read_text().splitlines() if '"scores"' in line]
    assert [json.loads(line)["id"] for line in lines] == [one.id for one in run.records]
    stored = [score for line in lines for score in json.loads(line)["scores"]]
    exact = [score for one in run.records for score in one.scores or ()]
    assert stored == pytest.approx(exact, rel=1e-8)
    assert all(len(f"{score:.12g}".lstrip("0.").replace(".", "")) <= 9 for score in stored)
    assert [path.name for path in base.parent.iterdir()] == ["base.json"]  # nothing half written is left


def test_the_order_of_traces_does_not_matter(files: Files, base: Path) -> None:
    files.rows.reverse()
    files.texts.sort(key=lambda one: -int(one["id"][-4:]))
    assert verdicts(files.write(), base) == UNMOVED


def test_a_missing_trace_is_named(cli: Cli, files: Files, base: Path) -> None:
    lost, _ = files.rows.pop(3), files.texts.pop(3)
    files.results["config"]["limit"] = 11
    run = files.write()
    assert verdicts(run, base) == UNLIKE
    done = cli("check", str(run), "--baseline", str(base))
    assert done.code == 1
    assert f"{PART}: 1 trace of the baseline missing ({lost['id']})" in done.out
    assert "limit: 12 in the baseline, 11 now" in done.out
    assert "--update" in done.out


def test_a_new_trace_is_named(files: Files, base: Path) -> None:
    files.rows.append({**files.rows[0], "id": "added"})
    files.texts.append({**files.texts[0], "id": "added"})
    assert f"{PART}: 1 trace not in the baseline (added)" in checked(files.write(), base)["comparable"].lines


def test_another_text_or_annotation_is_another_trace(files: Files, base: Path) -> None:
    files.rows[0]["gold"]["first_error"] = 0 if files.rows[0]["gold"]["first_error"] else 1
    (line, *_) = checked(files.write(), base)["comparable"].lines
    assert line == f"{PART}: same ids, but other texts or annotations"


def test_a_baseline_of_another_task(cli: Cli, files: Files, base: Path) -> None:
    for row in (*files.rows, *files.texts):
        row["task"] = "processbench/gsm8k"
    files.results["config"]["task"] = "processbench"
    run = files.write()
    done = cli("check", str(run), "--baseline", str(base))
    assert done.code == 1
    assert "task: 'synthetic' in the baseline, 'processbench' now" in done.out
    assert verdicts(run, base) == UNLIKE


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"config": {"labeler": "constant"}}, "labeler: 'random' in the baseline, 'constant' now"),
        ({"config": {"seed": 1}}, "seed: 0 in the baseline, 1 now"),
        ({"config": {"labeler_args": {"a": 1}}}, "labeler_args.a: not set in the baseline, 1 now"),
        ({"threshold": {"protocol": "fixed:0.4", "value": 0.4}}, "threshold_value: 0.5 in the baseline, 0.4 now"),
    ],
)
def test_other_settings(files: Files, base: Path, change: dict[str, dict[str, Any]], line: str) -> None:
    for name, values in change.items():
        files.results[name] |= values
    found = checked(files.write(), base)["comparable"]
    assert found.verdict == "fail"
    assert line in found.lines


def test_where_files_lie_and_how_traces_were_chosen_is_no_setting(files: Files, base: Path) -> None:
    files.results["config"] |= {"data_dir": "elsewhere", "output_path": "x", "model": "unused", "limit": None}
    files.results["config"]["task_args"] = {"n": 12}
    assert verdicts(files.write(), base) == UNMOVED


def with_model(files: Files, name: str, **changes: Any) -> Path:
    files.results["model"] = {**MODEL, **changes}
    files.results["config"]["labeler_args"] = {"checkpoint": files.results["model"]["model"]}
    target = files.path.parent / name
    shutil.copytree(files.write(), target)
    return target


def test_weights_are_compared_by_hash_wherever_they_lie(files: Files, tmp_path: Path) -> None:
    base = tmp_path / "m.json"
    baselines.write(base, baselines.of_run(read_run(with_model(files, "a", model="/here/tiny"))))
    assert verdicts(with_model(files, "b", model="/there/tiny"), base) == UNMOVED
    other = with_model(files, "c", sha256="cd" * 32)
    assert f"model.sha256: {'ab' * 32!r} in the baseline, {'cd' * 32!r} now" in checked(other, base)["comparable"].lines
    assert checked(other, base, model="off")["comparable"].summary.endswith(
        "weights are not looked at (--tolerance model=off)"
    )
    assert verdicts(other, base, model="off") == UNMOVED
    half = with_model(files, "d", dtype="bfloat16")
    assert "dtype: 'float32' in the baseline, 'bfloat16' now" in checked(half, base, model="off")["comparable"].lines


def test_weights_without_a_hash_are_compared_by_name_and_revision(files: Files, tmp_path: Path) -> None:
    base = tmp_path / "m.json"
    hub = {"sha256": None, "revision": "r1"}
    baselines.write(base, baselines.of_run(read_run(with_model(files, "a", **hub))))
    later = with_model(files, "b", **{**hub, "revision": "r2"})
    assert "model.revision: 'r1' in the baseline, 'r2' now" in checked(later, base)["comparable"].lines


def test_other_versions_and_machines_are_said_and_pass(cli: Cli, files: Files, base: Path) -> None:
    files.results["versions"]["torch"] = "9.9"
    done = cli("check", str(files.write()), "--baseline", str(base))
    assert done.code == 0
    assert "versions.torch: " in done.out
    assert "'9.9' now" in done.out


def test_another_threshold_can_be_applied_to_the_run(cli: Cli, real: Path, base: Path) -> None:
    assert cli("rescore", str(real), "--threshold", "fixed:0.4", "--output_path", "other").code == 0
    lines = checked(Path("other"), base)["comparable"].lines
    assert "threshold: 'native' in the baseline, 'fixed:0.4' now" in lines
    assert lines[-1].startswith("next: cpmi-eval rescore RUN_DIR --threshold native applies the baseline's")
    assert cli("rescore", "other", "--threshold", "native", "--output_path", "back").code == 0
    assert verdicts(Path("back"), base) == UNMOVED


def test_a_fitted_threshold_may_move_with_the_scores(cli: Cli, real: Path) -> None:
    assert cli("rescore", str(real), "--threshold", "oracle", "--output_path", "oracle").code == 0
    base = Path("oracle.json")
    baselines.write(base, baselines.of_run(read_run(Path("oracle"))))
    fitted = Files(Path("oracle"))
    fitted.results["threshold"]["value"] += 1e-6
    fitted.rows[0]["prediction"] = 2 if fitted.rows[0]["prediction"] != 2 else 1
    check = checked(fitted.write(), base)["scores"]
    assert check.verdict == "pass"
    assert check.summary == "no score moved, 1 prediction changed"


def test_each_part_is_checked_also_one_that_only_chose_the_threshold(files: Files, tmp_path: Path) -> None:
    for row, text in zip(files.rows[:6], files.texts[:6], strict=True):
        row["task"] = text["task"] = "synthetic/other"
    files.results["threshold"] = {
        "protocol": "dev:other",
        "value": 0.4,
        "undecided": False,
        "held_out": "synthetic/other",
    }
    base = tmp_path / "parts.json"
    baselines.write(base, baselines.of_run(read_run(files.write())))
    found = checked(files.path, base)
    assert {name: one.verdict for name, one in found.items()} == UNMOVED
    assert found["quality"].summary.startswith("4 metrics: unchanged")
    files.rows[0]["scores"][0] += 0.01
    files.rows[1]["cost"]["tokens"]["requested"] += 3
    found = checked(files.write(), base)
    assert found["scores"].lines[0].startswith("synthetic/other ")
    assert found["tokens"].lines == ("synthetic/other requested: 0 -> 3 (+3)",)
    assert found["quality"].verdict == "pass"


def test_a_moved_score_is_named_with_its_size(cli: Cli, files: Files, base: Path) -> None:
    row = files.rows[4]
    row["scores"][1] += 0.01
    files.rows[7]["scores"][0] += 0.0005
    run = files.write()
    found = checked(run, base)["scores"]
    assert found.verdict == "fail"
    assert found.summary == "the largest deviation is 0.01, 1 of 12 traces beyond 0.001"
    assert found.lines[0].startswith(f"{PART} {row['id']}, step 1: ")
    assert found.numbers["worst"] == {"part": PART, "id": row["id"], "step": 1}
    assert (found.numbers["moved"], found.numbers["beyond"]) == (2, 1)
    assert found.numbers["max_deviation"] == pytest.approx(0.01, abs=1e-8)
    assert cli("check", str(run), "--baseline", str(base)).code == 1
    assert cli("check", str(run), "--baseline", str(base), "--tolerance", "scores=0.011").code == 0
    assert cli("check", str(run), "--baseline", str(base), "--tolerance", "scores=off").code == 0


def test_many_moved_traces_are_counted(files: Files, base: Path) -> None:
    for row in files.rows:
        row["scores"] = [score + 1 for score in row["scores"]]
    lines = checked(files.write(), base)["scores"].lines
    assert len(lines) == 6
    assert lines[-1] == "and 7 more"


def fail(row: dict[str, Any], kind: str) -> None:
    row |= {"scores": None, "prediction": None, "error": {"kind": kind, "message": "no"}}


def test_failures_that_appear_and_change(files: Files, base: Path) -> None:
    fail(files.rows[2], "too_long")
    run = files.write()
    found = checked(run, base)["scores"]
    assert found.verdict == "fail"
    assert found.lines == (f"{PART} {files.rows[2]['id']}: scored in the baseline, failed (too_long) now",)
    failing = base.with_name("failing.json")
    baselines.write(failing, baselines.of_run(read_run(run)))
    assert checked(run, failing)["scores"].verdict == "pass"
    files.rows[2]["error"]["kind"] = "non_finite"
    assert (
        "failed (too_long) in the baseline, failed (non_finite) now"
        in checked(files.write(), failing)["scores"].lines[0]
    )


def test_failures_that_disappear(files: Files, real: Path) -> None:
    fail(files.rows[2], "too_long")
    base = files.path.with_name("failing.json")
    baselines.write(base, baselines.of_run(read_run(files.write())))
    assert "failed (too_long) in the baseline, scored now" in checked(real, base)["scores"].lines[0]


def test_a_prediction_that_changes_alone_is_a_change_of_the_rule(files: Files, base: Path) -> None:
    files.rows[1]["prediction"] = 2 if files.rows[1]["prediction"] != 2 else 1
    found = checked(files.write(), base)["scores"]
    assert found.verdict == "fail"
    assert "same scores, but prediction" in found.lines[0]


def test_a_prediction_that_rounding_turns_is_only_said(files: Files, base: Path) -> None:
    files.rows[1]["prediction"] = 2 if files.rows[1]["prediction"] != 2 else 1
    files.rows[1]["scores"][0] += 1e-6
    found = checked(files.write(), base)["scores"]
    assert found.verdict == "pass"
    assert found.summary == "the largest deviation is 1e-06, 0 of 12 traces beyond 0.001, 1 prediction changed"


def test_another_number_of_scores(files: Files, base: Path) -> None:
    files.rows[0]["scores"].append(0.5)
    n = len(files.rows[0]["scores"])
    assert f"{n - 1} scores in the baseline, {n} now" in checked(files.write(), base)["scores"].lines[0]


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), (math.nan, "NaN"), (math.inf, "Infinity"), ("x", '"x"')])
def test_a_score_that_is_no_number_is_refused_with_its_place(
    cli: Cli, files: Files, base: Path, value: Any, shown: str
) -> None:
    files.rows[5]["scores"][1] = value
    done = cli("check", str(files.write()), "--baseline", str(base))
    assert (done.code, done.out) == (2, "")
    assert f"trace {files.rows[5]['id']} of {PART}: the score of step 1 is {shown}, not a finite number" in done.err
    assert "Traceback" not in done.err


def cost(files: Files, seconds: float, computed: int) -> Path:
    for row in files.rows:
        tokens = {**NO_TOKENS, "requested": 2 * computed, "computed": computed}
        row["cost"] |= {"seconds": seconds, "tokens": tokens}
    return files.write()


def test_token_counts_are_exact(cli: Cli, files: Files, tmp_path: Path) -> None:
    base = tmp_path / "tokens.json"
    baselines.write(base, baselines.of_run(read_run(cost(files, 1.0, 100))))
    assert (
        checked(files.path, base)["tokens"].summary == "the same counts: 2,400 requested, 1,200 computed, 0 generated"
    )
    files.rows[0]["cost"]["tokens"]["computed"] += 12
    files.rows[1]["cost"]["tokens"]["generated"] += 5
    run = files.write()
    found = checked(run, base)["tokens"]
    assert found.verdict == "fail"
    assert found.summary == "2 of 3 counts differ"
    assert found.lines == (f"{PART} computed: 1,200 -> 1,212 (+1%)", f"{PART} generated: 0 -> 5 (+5)")
    assert cli("check", str(run), "--baseline", str(base)).code == 1
    assert cli("check", str(run), "--baseline", str(base), "--tolerance", "tokens=off").code == 0


@pytest.mark.parametrize(
    ("seconds", "verdict", "word"),
    [
        (2.9, "pass", "2.90x slower"),
        (3.1, "fail", "3.10x slower"),
        (0.5, "pass", "2.00x faster"),
        (1.0, "pass", "as fast"),
    ],
)
def test_speed_in_tokens_per_second(files: Files, tmp_path: Path, seconds: float, verdict: str, word: str) -> None:
    base = tmp_path / "speed.json"
    baselines.write(base, baselines.of_run(read_run(cost(files, 1.0, 100))))
    found = checked(cost(files, seconds, 100), base)["speed"]
    assert found.verdict == verdict
    assert word in found.summary
    assert "100 -> " in found.summary
    assert found.numbers["unit"] == "tokens/s"


def test_speed_in_traces_per_second_where_no_model_ran(files: Files, tmp_path: Path) -> None:
    base = tmp_path / "speed.json"
    baselines.write(base, baselines.of_run(read_run(cost(files, 1.0, 0))))
    found = checked(cost(files, 0.25, 0), base)["speed"]
    assert found.summary.startswith("1 -> 4 traces per second, 4.00x faster")
    assert checked(files.path, base, speed=1)["speed"].verdict == "pass"
    assert checked(files.path, base, speed="off")["speed"].verdict == "skipped"


@pytest.fixture
def eight(files: Files) -> Files:
    """Eight erroneous traces of a problem each, all found: 2^8 ways to swap, so p-values can be counted by hand."""
    del files.rows[8:], files.texts[8:]
    for place, (row, text) in enumerate(zip(files.rows, files.texts, strict=True)):
        text |= {"steps": ["a", "b"], "cluster": f"problem {place}", "problem": f"problem {place}"}
        row |= {"scores": [1.0, 0.0], "prediction": 1}
        row["gold"]["first_error"] = 1
    return found(files, 8)


def found(files: Files, hits: int) -> Files:
    """Let the first ``hits`` traces be found."""
    for place, row in enumerate(files.rows):
        row["prediction"] = 1 if place < hits else 0
    own = {
        "f1": {"value": None, "n": 8},
        "acc_error": {"value": hits / 8, "n": 8},
        "acc_correct": {"value": None, "n": 0},
        "step_auc": {"value": 1.0, "n": 16},
    }
    files.results["results"] = {PART: own, "synthetic": own}
    return files


@pytest.mark.parametrize(
    ("hits", "p", "verdict"),
    [(7, 1.0, "pass"), (5, 2 / 8, "pass"), (3, 2 / 32, "pass"), (2, 2 / 64, "fail"), (0, 2 / 256, "fail")],
)
def test_a_metric_fails_where_it_is_significantly_worse(
    eight: Files, tmp_path: Path, hits: int, p: float, verdict: str
) -> None:
    """Of 8 - hits lost traces all swaps but one in 2^(8 - hits) make less of a drop; doubled for the two metrics."""
    base = tmp_path / "eight.json"
    baselines.write(base, baselines.of_run(read_run(eight.write())))
    check = checked(found(eight, hits).write(), base)["quality"]
    (own,) = [one for one in check.numbers["metrics"] if one["metric"] == "acc_error"]
    assert own["p"] == pytest.approx(min(p, 1.0))
    assert (check.verdict, own["worse"]) == (verdict, verdict == "fail")
    assert (own["baseline"], own["run"]) == (1.0, hits / 8)
    assert "paired permutation test, one-sided at 5%, Holm over 2" in check.summary
    assert any("acc_error: 1.0000 -> " in line for line in check.lines)


def test_an_improvement_is_said_and_passes(eight: Files, tmp_path: Path) -> None:
    base = tmp_path / "eight.json"
    baselines.write(base, baselines.of_run(read_run(found(eight, 0).write())))
    for tolerance in ({}, {"quality": 0.02}):
        check = checked(found(eight, 8).write(), base, scores="off", **tolerance)["quality"]
        assert check.verdict == "pass"
        assert "1 better" in check.summary
        assert check.lines[0].startswith(f"better: {PART} acc_error: 0.0000 -> 1.0000 (+1.0000)")


def test_a_drop_may_be_limited_instead(eight: Files, tmp_path: Path) -> None:
    base = tmp_path / "eight.json"
    baselines.write(base, baselines.of_run(read_run(eight.write())))
    run = found(eight, 4).write()
    assert checked(run, base, quality=0.5)["quality"].verdict == "pass"
    check = checked(run, base, quality=0.49)["quality"]
    assert check.verdict == "fail"
    assert "lower by more than 0.49 fails" in check.summary
    assert check.lines[0] == f"worse: {PART} acc_error: 1.0000 -> 0.5000 (-0.5000)"
    assert check.numbers["metrics"][0]["p"] is None


@pytest.mark.parametrize("quality", ["paired", 0.5])
def test_a_metric_that_has_lost_its_value_fails(eight: Files, tmp_path: Path, quality: Any) -> None:
    base = tmp_path / "eight.json"
    baselines.write(base, baselines.of_run(read_run(eight.write())))
    eight.results["results"][PART]["acc_error"]["value"] = None
    check = checked(eight.write(), base, quality=quality)["quality"]
    assert check.verdict == "fail"
    assert check.lines == (f"worse: {PART} acc_error: 1.0000 -> not defined",)


@pytest.mark.parametrize("quality", ["paired", 0.5])
@pytest.mark.parametrize("change", [-0.01, 0.01])
def test_a_metric_that_moves_while_scores_do_not_has_itself_changed(
    eight: Files, tmp_path: Path, change: float, quality: Any
) -> None:
    base = tmp_path / "eight.json"
    baselines.write(base, baselines.of_run(read_run(found(eight, 4).write())))
    eight.results["results"][PART]["acc_error"]["value"] += change
    check = checked(eight.write(), base, quality=quality)["quality"]
    assert check.verdict == "fail"
    assert "with the same scores: the metric itself has changed" in check.lines[0]


def test_a_metric_that_the_task_does_not_have_is_not_tested(files: Files, base: Path) -> None:
    document = json.loads(base.read_text())
    document["metrics"][PART] = {"rank": {"value": 0.4, "n": 12}}
    base.write_text(json.dumps(document))
    files.results["results"][PART]["rank"] = {"value": 0.3, "n": 12}
    files.rows[0]["scores"][0] += 1e-6
    check = checked(files.write(), base)["quality"]
    assert check.verdict == "skipped"
    assert "not tested: no metric of the task gives it; use --tolerance quality=0.02" in check.lines[0]
    assert checked(files.path, base, quality=0.02)["quality"].verdict == "fail"


def test_without_metrics_there_is_no_quality_to_check(files: Files, tmp_path: Path) -> None:
    files.results["results"] = {PART: {}, "synthetic": {}}
    base = tmp_path / "empty.json"
    baselines.write(base, baselines.of_run(read_run(files.write())))
    check = checked(files.path, base)["quality"]
    assert (check.verdict, check.summary) == ("skipped", "the baseline and the run have no metric with a value")


def test_details_are_no_part_of_a_baseline(files: Files) -> None:
    files.results["results"][PART]["many"] = {"value": 0.4, "n": 12, "detail": True}
    assert "many" not in baselines.of_run(read_run(files.write())).as_text()


def test_the_mean_over_parts_may_not_drop_either(files: Files, tmp_path: Path) -> None:
    for row, text in zip(files.rows[:6], files.texts[:6], strict=True):
        row["task"] = text["task"] = "synthetic/other"
    base = tmp_path / "parts.json"
    files.results["results"] = {
        name: {"acc_error": {"value": value, "n": 6}}
        for name, value in ((PART, 0.5), ("synthetic/other", 0.5), ("synthetic", 0.5))
    }
    baselines.write(base, baselines.of_run(read_run(files.write())))
    files.rows[0]["scores"][0] += 1e-6
    files.results["results"]["synthetic"]["acc_error"]["value"] = 0.4
    check = checked(files.write(), base, quality=0.05)["quality"]
    assert check.lines == ("worse: synthetic acc_error: 0.5000 -> 0.4000 (-0.1000)",)
    paired = checked(files.path, base)["quality"]
    assert {one["part"] for one in paired.numbers["metrics"]} == {"synthetic/other", PART}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("score=1", "unknown tolerance 'score'. Did you mean 'scores'?"),
        ("comparable=off", "unknown tolerance 'comparable'"),
        ("scores=-1", "the tolerance scores (or off) must be a number between 0 and inf, not -1"),
        ("scores=nan", "the tolerance scores"),
        ("scores=false", "the tolerance scores"),
        ("speed=0.5", "the tolerance speed (times slower, or off) must be a number between 1 and inf, not 0.5"),
        ("tokens=5", "the tolerance tokens must be exact or off, not 5"),
        ("quality=pared", "the tolerance quality"),
        ("scores", "expected key=value"),
    ],
)
def test_tolerances_that_make_no_sense(cli: Cli, real: Path, base: Path, given: str, message: str) -> None:
    done = cli("check", str(real), "--baseline", str(base), "--tolerance", given)
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.split())


def test_every_check_but_the_first_can_be_switched_off(cli: Cli, files: Files, base: Path) -> None:
    for row in files.rows:
        row["scores"] = [score + 1 for score in row["scores"]]
        row["cost"]["tokens"]["computed"] += 1
    run = str(files.write())
    assert cli("check", run, "--baseline", str(base)).code == 1
    off = "scores=off,tokens=off,quality=off,speed=off,model=off"
    done = cli("check", run, "--baseline", str(base), "--tolerance", off, "--format", "json")
    assert done.code == 0
    summaries = {one["name"]: one["summary"] for one in json.loads(done.out)["checks"]}
    for name in ("scores", "tokens", "quality", "speed"):
        assert summaries[name] == f"switched off by --tolerance {name}=off"


Document = dict[str, Any]


def drop(*path: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def put(value: Any, *path: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


DAMAGE = {
    "no identity": (drop("identity"), "identity is missing"),
    "no part": (drop("parts", PART), f'traces[0].part must be one of the file\'s parts (), not "{PART}"'),
    "negative tokens": (put(-1, "parts", PART, "tokens", "computed"), "tokens.computed must be a whole number"),
    "text for a count": (put("12", "parts", PART, "traces"), 'traces must be a whole number of at least 0, not "12"'),
    "other count": (put(13, "parts", PART, "traces"), "the number of its traces in the file, 12, not 13"),
    "metric": (put("x", "metrics", PART, "f1", "value"), f'metrics.{PART}.f1.value must be a finite number, not "x"'),
    "metric without n": (drop("metrics", PART, "f1", "n"), f"metrics.{PART}.f1.n is missing"),
    "speed": (put(True, "speed", "value"), "speed.value must be a finite number of at least 0, not true"),
    "null score": (put(None, "traces", 3, "scores", 1), "traces[3].scores[1] must be a finite number, not null"),
    "scores": (put(0.5, "traces", 3, "scores"), "traces[3].scores must be a list, not 0.5"),
    "prediction": (put(1.5, "traces", 0, "prediction"), "traces[0].prediction must be a whole number of at least -1"),
    "traces": (put({}, "traces"), "traces must be a list, not {}"),
    "labeler": (put(None, "identity", "labeler"), "identity.labeler must be a text, not null"),
    "format": (put("other", "format"), 'the file must be a baseline: a JSON object with "format"'),
    "version": (put(99, "schema_version"), "schema_version 99, and this version of cpmi-eval reads 1"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_by_field(
    cli: Cli, real: Path, base: Path, change: Callable[[Document], None], message: str
) -> None:
    document = json.loads(base.read_text())
    change(document)
    base.write_text(json.dumps(document))
    done = cli("check", str(real), "--baseline", str(base))
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert str(base) in done.err
    assert "Traceback" not in done.err


def test_a_trace_that_is_there_twice(cli: Cli, real: Path, base: Path) -> None:
    document = json.loads(base.read_text())
    document["traces"].append(document["traces"][0])
    base.write_text(json.dumps(document))
    done = cli("check", str(real), "--baseline", str(base))
    assert done.code == 2
    assert "traces[12].id must be an id that no other trace of its part has" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ('{"format": ', "cannot be read"),
        ("[1]", "must be a baseline"),
        ('{"format": "cpmi-eval baseline", "x": NaN}', "it holds NaN, which is no number"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_baseline_that_is_none(cli: Cli, real: Path, text: str, message: str) -> None:
    Path("x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = cli("check", str(real), "--baseline", "x.json")
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_changed_id_in_a_baseline_is_another_trace(real: Path, base: Path) -> None:
    base.write_text(base.read_text().replace("synthetic-00", "synthetic-99", 1))
    assert verdicts(real, base) == UNLIKE


def test_a_baseline_that_is_not_there(cli: Cli, real: Path) -> None:
    done = cli("check", str(real), "--baseline", "absent.json")
    assert (done.code, done.out) == (2, "")
    assert "there is no baseline absent.json; write one with --update" in done.err


@pytest.mark.parametrize("update", [(), ("--update",)])
def test_an_unfinished_run(cli: Cli, files: Files, base: Path, update: tuple[str, ...]) -> None:
    before = base.read_text()
    (files.path / "results.json").unlink()
    done = cli("check", str(files.path), "--baseline", str(base), *update)
    assert (done.code, done.out) == (2, "")
    assert "is not finished" in done.err
    assert base.read_text() == before


def test_a_run_that_lacks_what_a_check_needs(cli: Cli, files: Files, base: Path) -> None:
    del files.rows[0]["cost"]["tokens"]["computed"]
    done = cli("check", str(files.write()), "--baseline", str(base))
    assert (done.code, done.out) == (2, "")
    assert "lacks what a check needs (KeyError('computed'))" in done.err


def test_update_says_what_it_changes(cli: Cli, files: Files, base: Path) -> None:
    files.rows[4]["scores"][1] += 0.01
    run = files.write()
    done = cli("check", str(run), "--baseline", str(base), "--update")
    assert done.code == 0
    assert "moved" in done.out
    assert "the largest deviation is 0.01" in done.out
    assert done.out.endswith(f"wrote {base}: 12 traces of random on synthetic\n")
    assert cli("check", str(run), "--baseline", str(base)).code == 0


def test_update_refuses_failures_unless_they_are_allowed(cli: Cli, files: Files, base: Path) -> None:
    before = base.read_text()
    fail(files.rows[2], "too_long")
    fail(files.rows[3], "no_reference")
    run = str(files.write())
    done = cli("check", run, "--baseline", str(base), "--update")
    assert (done.code, done.out) == (2, "")
    assert f"1 of 12 traces failed (first: {files.rows[2]['id']}, too_long)" in done.err
    assert base.read_text() == before
    assert cli("check", run, "--baseline", str(base), "--update", "--allow-failures").code == 0
    assert cli("check", run, "--baseline", str(base)).code == 0


def test_a_trace_without_a_reference_answer_is_no_failure(cli: Cli, files: Files) -> None:
    fail(files.rows[3], "no_reference")
    assert cli("check", str(files.write()), "--baseline", "new.json", "--update").code == 0


def test_update_replaces_only_baselines(cli: Cli, real: Path) -> None:
    Path("notes.json").write_text("{}")
    done = cli("check", str(real), "--baseline", "notes.json", "--update")
    assert done.code == 2
    assert "notes.json exists and is no baseline, so it is not replaced" in done.err
    assert Path("notes.json").read_text() == "{}"


def test_update_replaces_a_baseline_that_it_cannot_compare_with(cli: Cli, real: Path, base: Path) -> None:
    base.write_text(base.read_text().replace('"schema_version": 1', '"schema_version": 0'))
    done = cli("check", str(real), "--baseline", str(base), "--update")
    assert done.code == 0
    assert done.out == f"wrote {base}: 12 traces of random on synthetic\n"
    assert "not compared with what it replaces" in done.err
    assert cli("check", str(real), "--baseline", str(base)).code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--allow_failures",), "give --update too"),
        (("--update", "--format", "json"), "--update prints text"),
        (("--format", "xml"), "'xml' is not one of"),
    ],
)
def test_options_that_do_not_go_together(
    cli: Cli, real: Path, base: Path, options: tuple[str, ...], message: str
) -> None:
    done = cli("check", str(real), "--baseline", str(base), *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_place_where_nothing_can_be_written(cli: Cli, real: Path) -> None:
    Path("file").write_text("")
    done = cli("check", str(real), "--baseline", "file/base.json", "--update")
    assert (done.code, done.out) == (2, "")
    assert "file/base.json cannot be written" in done.err


@pytest.fixture
def moved(files: Files, base: Path) -> tuple[str, ...]:
    """A check that fails on a trace with a hostile name."""
    name = "a|b<c>&\x07*_`"
    document = json.loads(base.read_text())
    for one in (files.rows[0], files.texts[0], document["traces"][0]):
        one["id"] = name
    files.rows[0]["scores"][0] += 0.5
    document["parts"][PART]["sha256"] = baselines.of_run(read_run(files.write())).parts[PART].sha256
    base.write_text(json.dumps(document))
    return "check", str(files.path), "--baseline", str(base)


def test_json_is_one_document(cli: Cli, moved: tuple[str, ...]) -> None:
    done = cli(*moved, "--format", "json")
    assert (done.code, done.err) == (1, "")
    document = json.loads(done.out, parse_constant=lambda name: pytest.fail(name))
    assert (document["schema_version"], document["passed"]) == (1, False)
    assert {one["name"]: one["verdict"] for one in document["checks"]} == {**UNMOVED, "scores": "fail"}
    assert document["checks"][1]["worst"]["step"] == 0
    assert document["checks"][1]["max_deviation"] == pytest.approx(0.5, abs=1e-8)


def test_junit_has_a_test_case_per_check(cli: Cli, moved: tuple[str, ...]) -> None:
    done = cli(*moved, "--format", "junit")
    assert done.code == 1
    whole = ElementTree.fromstring(done.out.encode())
    (suite,) = whole
    assert (whole.tag, suite.tag) == ("testsuites", "testsuite")
    counts = {"tests": "5", "failures": "1", "errors": "0", "time": "0"}
    assert whole.attrib == {"name": "cpmi-eval check", **counts}
    assert {**suite.attrib, "name": ""} == {"name": "", "skipped": "1", **counts}
    assert [one.tag for one in suite] == ["properties", *["testcase"] * 5]
    cases = {one.get("name"): one for one in suite.iter("testcase")}
    assert list(cases) == list(UNMOVED)
    assert {name: [child.tag for child in one] for name, one in cases.items()} == {
        "comparable": ["system-out"],
        "scores": ["failure"],
        "tokens": ["system-out"],
        "quality": ["system-out"],
        "speed": ["skipped"],
    }
    assert (cases["speed"][0].attrib, "too short" in (cases["speed"][0].text or "")) == ({}, True)
    failure = cases["scores"][0]
    assert "the largest deviation is 0.5" in failure.get("message", "")
    assert r"a|b<c>&\x07*_`, step 0" in (failure.text or "")


def test_markdown_is_a_table_that_no_name_breaks(cli: Cli, moved: tuple[str, ...]) -> None:
    done = cli(*moved, "--format", "github")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0] == "### cpmi-eval check: failed: scores"
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 7
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)
    (scores,) = [line for line in rows if line.startswith("| scores |")]
    assert "❌ fail" in scores
    assert r"a\|b\<c>&\\x07\*\_\`, step 0" in scores
    assert "the largest deviation is 0.5" in scores
    assert f"`cpmi-eval check {moved[1]} --baseline {moved[3]} --update`" in lines[-1]


def test_text_ends_with_the_verdict_and_the_next_step(cli: Cli, moved: tuple[str, ...]) -> None:
    done = cli(*moved)
    assert (done.code, done.err) == (1, "")
    assert "failed: scores\nif this is meant, make it the baseline: cpmi-eval check " in done.out


def test_the_committed_baseline_stands_on_the_traces_that_the_task_gives(tmp_path: Path) -> None:
    committed = baselines.read(ROOT / "tests" / "baselines" / "synthetic-cpmi.json")
    seed, limit = committed.identity["seed"], committed.chosen["limit"]
    run = cpmi_eval.evaluate("random", "synthetic", limit=limit, seed=seed, output_path=tmp_path / "run").path
    ours = baselines.of_run(read_run(run))
    assert {name: part.sha256 for name, part in committed.parts.items()} == {
        name: part.sha256 for name, part in ours.parts.items()
    }
    assert not committed.failures
    assert committed.parts[PART].tokens.computed > 0
    assert (committed.identity["labeler"], committed.identity["dtype"]) == ("cpmi", "float32")
