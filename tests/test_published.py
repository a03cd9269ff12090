"""Reference rows are complete, in our units, and each says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cpmi_eval
from cpmi_eval.cli import main
from cpmi_eval.leaderboards import published
from cpmi_eval.reports.published import published_table


@pytest.mark.parametrize("board", published.names())
def test_every_row_names_its_source_and_its_values_are_fractions(board: str) -> None:
    rows = published.read(board)
    assert len({row.name for row in rows}) == len(rows) > 3
    for row in rows:
        assert row.source.startswith("arXiv ")
        assert row.task == board
        for metrics in row.results.values():
            assert all(0 < value < 1 or name.startswith("relative_") for name, value in metrics.items())


def test_the_mean_of_a_processbench_row_is_that_of_its_subsets() -> None:
    for row in published.read("processbench"):
        f1 = {task: metrics["f1"] for task, metrics in row.results.items()}
        mean = f1.pop("processbench")
        assert len(f1) == 4
        assert mean == pytest.approx(sum(f1.values()) / 4, abs=0.0011), row.name


def test_known_values() -> None:
    (row,) = (one for one in published.read("processbench") if one.name == "Qwen2.5-Math-PRM-7B")
    assert row.results["processbench/gsm8k"] == {"f1": 0.824}
    assert row.results["processbench"] == {"f1": 0.735}
    (paper,) = (one for one in published.read("labels") if one.name == "CPMI")
    assert (paper.results["labels"]["label_auc"], paper.results["labels"]["relative_time"]) == (0.765, 0.16)


def test_a_board_without_reference_rows_has_none() -> None:
    assert published.read("synthetic") == ()


def test_the_table_shows_values_marks_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    table = published_table(published.read("processbench"), ["processbench/gsm8k", "processbench"])
    Console(width=130).print(table)
    shown = capsys.readouterr().out
    assert "published, not measured here" in shown
    (line,) = (line for line in shown.splitlines() if "Qwen2.5-Math-PRM-7B" in line)
    assert line.split() == ["prm", "Qwen2.5-Math-PRM-7B", "82.4", "73.5", "[1]"]
    assert "[1] arXiv 2501.07301, Table 7" in shown


def test_the_leaderboard_command_adds_them_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = cpmi_eval.evaluate("constant", "synthetic", limit=2, output_path=tmp_path / "run").path
    with pytest.raises(SystemExit, match="0"):
        main(["leaderboard", str(run), "--published", "--json", "--sort", "step_auc"])
    measured = json.loads(capsys.readouterr().out)
    assert len(measured["boards"]) == 1
    assert measured["published"] == []  # there are none on this task
    with pytest.raises(SystemExit, match="0"):
        main(["leaderboard", "--published", "--json"])
    everything = json.loads(capsys.readouterr().out)["published"]
    assert [len(rows) for rows in everything] == [6, 4, 21]
