"""Ranking: within a kind, apart by the use of the reference answer, ties as ties, gaps unranked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.leaderboards.board import Row, boards, main_metric, ranked


def row(name: str, f1: float | None = 0.5, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "path": Path(name),
        "task": "t",
        "board": ("t",),
        "labeler": name,
        "settings": "",
        "kind": "labeler",
        "uses_reference": False,
        "synthetic": False,
        "model": None,
        "dtype": None,
        "device": None,
        "threshold": "native",
        "metrics": {"f1": f1},
        "traces": 10,
        "scored": 10,
        "wall_seconds": 1.0,
        "requested": 0,
        "computed": 0,
        "generated": 0,
        "peak_memory_bytes": 0,
    }
    return Row(**{**values, **changes})


def ranks(rows: list[Row], by: str = "f1") -> dict[str, int | None]:
    return {one.labeler: rank for rank, one in ranked(rows, by)}


def test_who_is_given_the_answer_is_ranked_apart():
    rows = [row("told", 0.9, uses_reference=True), row("untold", 0.4), row("prm", 0.3, kind="prm")]
    assert ranks(rows) == {"told": 1, "untold": 1, "prm": 1}


def test_ties_share_a_rank_and_the_next_one_counts_them():
    assert ranks([row("a", 0.5), row("b", 0.7), row("c", 0.7), row("d", 0.6)]) == {"b": 1, "c": 1, "d": 3, "a": 4}


def test_gaps_and_missing_values_are_listed_last_without_a_rank():
    rows = [row("part", 0.9, scored=9), row("none", None), row("whole", 0.2)]
    assert [(rank, one.labeler) for rank, one in ranked(rows, "f1")] == [(1, "whole"), (None, "part"), (None, "none")]


def test_where_solutions_are_selected_who_is_given_the_answer_is_listed_last_and_never_ranked():
    rows = [row("told", 0.9, uses_reference=True, aggregation="min"), row("untold", 0.4, aggregation="min")]
    for by in ("f1", "wall_seconds"):
        assert [(rank, one.labeler) for rank, one in ranked(rows, by)] == [(1, "untold"), (None, "told")]


def test_the_metric_a_board_is_ranked_by_is_the_tasks_own():
    assert main_metric([row("a")]) == "f1"
    assert main_metric([row("a", metrics={"acc": 1.0, "f1": 0.5})]) == "f1"
    assert main_metric([row("a", metrics={"pass@1": 0.1, "maj@8": 0.2, "bon@8": 0.3})]) == "bon@8"
    assert main_metric([row("a", metrics={"accuracy": 0.1, "other": 0.2})]) == "accuracy"
    assert main_metric([row("a", metrics={})]) == "wall_seconds"


def test_costs_rank_the_smaller_first():
    assert ranks([row("slow", wall_seconds=9.0), row("fast", wall_seconds=2.0)], "wall_seconds") == {
        "fast": 1,
        "slow": 2,
    }


def test_an_unknown_column_is_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'f1'"):
        ranked([row("a")], "f")


def test_other_traces_are_another_board():
    assert [len(group) for group in boards([row("a"), row("b", board=("u",)), row("c")])] == [2, 1]
