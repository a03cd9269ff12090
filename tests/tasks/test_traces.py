"""Traces of one's own as a task: what a line may be, and what a run says of traces that nobody has annotated."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import cpmi_eval
from cpmi_eval.errors import DataError, UnknownNameError, UsageError
from cpmi_eval.leaderboards.board import boards, main_metric, ranked
from cpmi_eval.leaderboards.rows import row_of
from cpmi_eval.metrics import first_error, ranking
from cpmi_eval.metrics.outcome import Metric, Outcome
from cpmi_eval.protocols import LoadOptions, Task
from cpmi_eval.record.rows import TraceText
from cpmi_eval.record.run import read_run
from cpmi_eval.registry import load as load_plugin
from cpmi_eval.reports.board import board_grid, shown
from cpmi_eval.reports.console import show
from cpmi_eval.reports.grid import markdown
from cpmi_eval.reports.tables import run_report
from cpmi_eval.reports.trace import trace_report
from cpmi_eval.tasks.traces import Traces
from cpmi_eval.types import Gold, TaskData

LINE = {"problem": "1 + 1?", "steps": ["1 + 1 = 2.", "So 2."]}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def write(*rows: Any, path: str = "mine.jsonl") -> Path:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(path).write_text("\n".join(texts) + "\n", encoding="utf-8", errors="surrogatepass")
    return Path(path)


def load(path: str = "mine.jsonl", **options: Any) -> TaskData:
    return Traces().load(LoadOptions(args={"path": path}, **options))


def test_it_is_a_registered_task() -> None:
    assert isinstance(load_plugin("tasks", "traces")(), Task)


def test_lines_become_items_in_order() -> None:
    path = write(
        {**LINE, "answer": "2", "label": -1, "source": "a field of the user's own"},
        "",
        {**LINE, "problem": "2 + 2?", "id": "two", "label": 1, "answer": None},
        {**LINE, "problem": "1+1 ?", "steps": ["a line\u2028separator"]},
    )
    data = load()
    assert [item.trace.id for item in data.items] == ["line-1", "two", "line-4"]
    assert [item.gold.first_error for item in data.items] == [-1, 1, None]
    assert [item.trace.answer for item in data.items] == ["2", None, None]
    assert data.items[2].trace.steps == ("a line\u2028separator",)
    assert {item.subset for item in data.items} == {"file"}
    first, second, third = (item.trace.cluster for item in data.items)
    assert first == third != second
    (origin,) = data.provenance
    assert (origin.name, origin.rows) == ("mine.jsonl", 3)
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


MALFORMED = {
    "no JSON": ("{", "is damaged"),
    "no object": ([1], "Expected `object`, got `array`"),
    "no problem": ({"steps": ["a"]}, "Object missing required field `problem`"),
    "no steps": ({"problem": "a"}, "Object missing required field `steps`"),
    "problem": ({**LINE, "problem": 3}, "problem: Expected `str`, got `int`"),
    "blank problem": ({**LINE, "problem": " "}, "problem: blank"),
    "empty steps": ({**LINE, "steps": []}, "steps: empty, expected at least one step"),
    "steps": ({**LINE, "steps": "a"}, "steps: Expected `array`, got `str`"),
    "step": ({**LINE, "steps": ["a", None]}, "steps[1]: Expected `str`, got `null`"),
    "blank step": ({**LINE, "steps": ["", "a"]}, "steps[0]: blank"),
    "answer": ({**LINE, "answer": 2}, "answer: Expected `str | null`, got `int`"),
    "id": ({**LINE, "id": 7}, "id: Expected `str | null`, got `int`"),
    "label": ({**LINE, "label": 2}, "label: 2, expected -1 to 1 (2 steps)"),
    "label of another type": ({**LINE, "label": True}, "label: Expected `int | null`, got `bool`"),
    "surrogate": ('{"problem": "\\ud800", "steps": ["a"]}', "is damaged"),
    "repeated id": ({**LINE, "id": "line-1"}, "the id 'line-1' is also that of mine.jsonl:1"),
}


@pytest.mark.parametrize(("row", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_lines_are_named_and_never_dropped(row: Any, message: str) -> None:
    write(LINE, row, LINE)
    with pytest.raises(DataError, match=f"mine.jsonl:2.*{re.escape(message)}"):
        load()


def test_all_malformed_lines_are_counted() -> None:
    write(*["{"] * 7)
    with pytest.raises(DataError, match=r"7 lines of traces cannot(?s:.*)mine.jsonl:5(?s:.*)and 2 more"):
        load()


def test_text_in_another_encoding() -> None:
    Path("mine.jsonl").write_bytes('{"problem": "é", "steps": ["a"]}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"mine\.jsonl:1 is damaged .*utf-8"):
        load()


@pytest.mark.parametrize(
    ("args", "message"),
    [({}, "--task_args path=FILE"), ({"path": 3}, "not 3; quote"), ({"paths": "a"}, "Did you mean 'path'")],
)
def test_wrong_settings(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Traces().load(LoadOptions(args=args))


def test_a_file_that_is_missing_or_empty_and_an_unknown_subset() -> None:
    with pytest.raises(DataError, match=r"mine.jsonl does not exist"):
        load()
    write("")
    with pytest.raises(DataError, match=r"mine.jsonl holds no traces"):
        load()
    with pytest.raises(UnknownNameError, match="unknown subset 'test'"):
        load(subsets=("test",))


def test_metrics_leave_out_what_is_not_annotated() -> None:
    annotated = [Outcome(Gold(1), (0.9, 0.1), 1), Outcome(Gold(-1), (0.8, 0.7), -1)]
    more = [*annotated, Outcome(Gold(None), (0.0, 1.0), 0), Outcome(Gold(None), None, None)]
    for metric in (first_error.compute, ranking.compute):
        assert metric(more).metrics() == metric(annotated).metrics()
        assert set(metric(more[2:]).metrics().values()) == {Metric(None, 0)}


def printed(report: Any, capsys: pytest.CaptureFixture[str]) -> str:
    show(report)
    return capsys.readouterr().out


def test_a_run_without_annotations_shows_no_metric(capsys: pytest.CaptureFixture[str]) -> None:
    write(LINE, {**LINE, "id": "two"})
    result = cpmi_eval.evaluate("constant", "traces", task_args={"path": "mine.jsonl"}, output_path="run")
    assert set(result.results["traces"].values()) == {Metric(None, 0)}
    report = printed(run_report(result.run), capsys)
    assert "0 of 2 traces are annotated" in report
    assert "0.0 " not in report.split("wall time")[0]
    (board,) = boards([(row_of(read_run(Path("run"))), None)])
    ((placed,),) = ranked(board, "f1")
    assert (placed.rank, placed.reason) == (None, "no value")
    assert "not ranked, no F1" in markdown([board_grid(shown(board, "f1", [[placed]]))])
    trace = TraceText("two", "traces/file", str(LINE["problem"]), tuple(LINE["steps"]))
    text = printed(trace_report(result.scored[1], trace), capsys)
    assert "label: none (this trace is not annotated)" in text
    assert "prediction: no error\n" in text


def test_a_task_without_metrics_can_be_run_shown_and_ranked_by_cost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Traces, "metrics", ())
    write(LINE)
    result = cpmi_eval.evaluate("constant", "traces", task_args={"path": "mine.jsonl"}, output_path="run")
    assert result.results == {"traces/file": {}, "traces": {}}
    assert "traces/file" in printed(run_report(result.run), capsys)
    (board,) = boards([(row_of(read_run(Path("run"))), None)])
    assert main_metric(board) == "wall_seconds"
    ((placed,),) = ranked(board, "wall_seconds")
    assert placed.place == "1"
    with pytest.raises(UnknownNameError, match=r"unknown column to sort by 'f1'.*wall_seconds"):
        ranked(board, "f1")


def test_a_run_that_is_annotated_in_part_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    write({**LINE, "label": -1}, {**LINE, "id": "two", "label": 0}, {**LINE, "id": "three"})
    result = cpmi_eval.evaluate("constant", "traces", task_args={"path": "mine.jsonl"}, output_path="run")
    assert result.results["traces"]["acc_correct"] == Metric(1.0, 1)
    assert result.results["traces"]["f1"].n == 2
    assert "2 of 3 traces are annotated" in printed(run_report(result.run), capsys)


def test_a_run_that_is_annotated_throughout_does_not_mention_it() -> None:
    write({**LINE, "label": -1})
    result = cpmi_eval.evaluate("constant", "traces", task_args={"path": "mine.jsonl"}, output_path="run")
    assert "annotated" not in result.summary["coverage"]["traces/file"]
