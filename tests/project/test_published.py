"""Reference rows are complete, in our units, and each says where it comes from."""

import json

import pytest
from commandline import Cli
from msgspec.structs import replace

from cpmi_eval.leaderboards import files
from cpmi_eval.leaderboards.schema import Row
from cpmi_eval.reports.board import published_grid

TASKS = ("best_of_8", "labels", "processbench")


def read(task: str) -> tuple[Row, ...]:
    return tuple(row for row in files.read(files.shipped()[task]) if row.origin == "published")


@pytest.mark.parametrize("task", TASKS)
def test_every_row_names_its_source_and_its_values_are_fractions(task: str) -> None:
    rows = read(task)
    assert len({row.scorer for row in rows}) == len(rows) > 3
    for row in rows:
        assert row.source is not None
        assert row.source.startswith("arXiv ")
        for part in row.parts.values():
            assert all(one.value is not None for one in part.metrics.values())
            assert all(0 < one.value < 1 or name.startswith("relative_") for name, one in part.metrics.items())


def test_the_mean_of_a_processbench_row_is_that_of_its_subsets() -> None:
    for row in read("processbench"):
        f1 = {task: part.metrics["f1"].value for task, part in row.parts.items()}
        mean = f1.pop("processbench")
        assert len(f1) == 4
        assert mean == pytest.approx(sum(f1.values()) / 4, abs=0.0011), row.scorer


def test_known_values() -> None:
    (row,) = (one for one in read("processbench") if one.scorer == "Qwen2.5-Math-PRM-7B")
    assert {part: one.metrics["f1"].value for part, one in row.parts.items()} == {
        "processbench/gsm8k": 0.824,
        "processbench/math": 0.776,
        "processbench/olympiadbench": 0.675,
        "processbench/omnimath": 0.663,
        "processbench": 0.735,
    }
    (paper,) = (one for one in read("labels") if one.scorer == "CPMI")
    metrics = paper.parts["labels"].metrics
    assert (metrics["label_auc"].value, metrics["relative_time"].value) == (0.765, 0.16)
    assert paper.uses_reference
    (ceiling,) = (one for one in read("best_of_8") if one.scorer == "pass@8")
    assert (ceiling.kind, ceiling.uses_reference) == ("baseline", True)
    assert "ceiling" in ceiling.note


def test_the_table_shows_values_marks_and_sources() -> None:
    grid = published_grid(read("processbench"), ["processbench/gsm8k", "processbench"])
    assert grid.title == "processbench: published, not measured here and not ranked"
    assert [head.heading for head in grid.columns] == ["kind", "scorer", "gsm8k F1", "mean F1", "source"]
    (line,) = (line for line in grid.sections[0] if line[1] == "Qwen2.5-Math-PRM-7B")
    assert line == ["prm", "Qwen2.5-Math-PRM-7B", "82.4", "73.5", "[1]"]
    assert grid.notes[0].text == "[1] arXiv 2501.07301, Table 7"


def test_costs_relative_to_another_labeler_are_percentages_of_it() -> None:
    grid = published_grid(read("labels"))
    (line,) = (line for line in grid.sections[0] if line[1] == "CPMI*")
    assert line[-3:] == ["16%", "2%", "[1]"]
    assert "* is given the reference answer" in [note.text for note in grid.notes]


def test_a_value_that_a_row_lacks_is_a_dash() -> None:
    rows = [*read("processbench")[:1], *(one for one in read("processbench") if one.kind == "critic")]
    first = replace(rows[0], parts={"processbench": rows[0].parts["processbench"]})
    assert published_grid([*rows[1:], first]).sections[0][-1][2:-1] == ["–", "–", "–", "–", "31.5"]


def test_they_are_shown_where_a_task_is_named_and_never_ranked(cli: Cli) -> None:
    done = cli("leaderboard", "show", *TASKS, "--json")
    assert done.code == 0
    found = json.loads(done.out)["published"]
    assert [sum(row["task"] == task for row in found) for task in TASKS] == [6, 4, 21]
    assert all("rank" not in row for row in found)
