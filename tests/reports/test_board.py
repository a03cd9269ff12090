"""Ranking: within a kind, apart by the use of the reference answer, as ranges wherever rows are not separated."""

import random
from typing import Any

import pytest
from maderuns import made

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.leaderboards.board import Board, Entry, boards, main_metric, ranked
from cpmi_eval.leaderboards.schema import Cost, Part, Row, TraceSet, Value
from cpmi_eval.record.run import Run

ANY = "0" * 64


def row(name: str, f1: Value | float | None = 0.5, *, scored: int = 10, seconds: float = 1.0, **changes: Any) -> Row:
    value = f1 if isinstance(f1, Value) else Value(f1)
    cost = Cost(seconds, seconds, 0, 0, 0, 0)
    parts = {"t/a": Part({"f1": value}, TraceSet(ANY, 10, scored), cost)}
    return Row(**{"task": "t", "origin": "measured", "scorer": name, "kind": "labeler", "parts": parts, **changes})


def within(value: float, half: float) -> Value:
    return Value(value, value - half, value + half, 10)


def places(rows: list[Row], by: str = "f1") -> dict[str, str]:
    (board,) = boards((one, None) for one in rows)
    return {one.entry.row.scorer: one.place for group in ranked(board, by) for one in group}


def order(rows: list[Row], by: str = "f1") -> list[tuple[str, str, str]]:
    (board,) = boards((one, None) for one in rows)
    return [(one.entry.row.scorer, one.place, one.reason) for group in ranked(board, by) for one in group]


def test_who_is_given_the_answer_is_ranked_apart() -> None:
    rows = [row("told", 0.9, uses_reference=True), row("untold", 0.4), row("prm", 0.3, kind="prm")]
    assert places(rows) == {"told": "1", "untold": "1", "prm": "1"}


def test_intervals_that_overlap_are_a_range() -> None:
    rows = [
        row("a", within(0.9, 0.05)),
        row("b", within(0.7, 0.1)),
        row("c", within(0.6, 0.1)),
        row("d", within(0.3, 0.1)),
    ]
    assert places(rows) == {"a": "1", "b": "2–3", "c": "2–3", "d": "4"}


def test_not_being_separated_is_not_passed_on() -> None:
    # b overlaps both of its neighbours, which do not overlap: only these two are separated
    rows = [row("a", within(0.7, 0.06)), row("b", within(0.6, 0.06)), row("c", within(0.5, 0.06))]
    assert places(rows) == {"a": "1–2", "b": "1–3", "c": "2–3"}


def test_intervals_that_touch_overlap() -> None:
    assert places([row("a", Value(0.5, 0.4, 0.6)), row("b", Value(0.7, 0.6, 0.8))]) == {"a": "1–2", "b": "1–2"}


def test_ranges_are_those_of_counting_pairs() -> None:
    rng = random.Random(3)
    values = [within(rng.uniform(0.2, 0.8), rng.uniform(0, 0.1)) for _ in range(60)]
    found = places([row(str(number), value) for number, value in enumerate(values)])
    for number, one in enumerate(values):
        above = sum(other.low > one.high for other in values)  # type: ignore[operator]
        below = sum(other.high < one.low for other in values)  # type: ignore[operator]
        low, high = 1 + above, len(values) - below
        assert found[str(number)] == (f"{low}–{high}" if low != high else str(low))


def test_without_intervals_values_rank_and_only_equal_ones_are_tied() -> None:
    rows = [row("a", 0.5), row("b", 0.7), row("c", 0.7), row("d", 0.6)]
    assert places(rows) == {"b": "1–2", "c": "1–2", "d": "3", "a": "4"}
    (board,) = boards((one, None) for one in [*rows, row("e", within(0.2, 0.01))])
    marks = {one.entry.row.scorer: one.bare for one in ranked(board, "f1")[0]}
    assert marks == {"a": True, "b": True, "c": True, "d": True, "e": False}
    assert not any(one.bare for one in ranked(board, "wall_seconds")[0])


def test_what_is_not_ranked_is_listed_last_with_the_reason() -> None:
    rows = [row("part", 0.9, scored=9), row("none", None), row("tuned", 0.95, threshold="oracle"), row("whole", 0.2)]
    assert order(rows) == [
        ("whole", "1", ""),
        ("tuned", "", "oracle"),
        ("part", "", "partial: 9 of 10 scored"),
        ("none", "", "no value"),
    ]


def test_what_is_not_ranked_takes_no_place() -> None:
    rows = [row("a", 0.9, scored=9), row("b", 0.5), row("c", 0.4)]
    assert places(rows) == {"a": "", "b": "1", "c": "2"}


def test_where_solutions_are_selected_who_is_given_the_answer_is_never_ranked() -> None:
    rows = [row("told", 0.9, uses_reference=True, aggregation="min"), row("untold", 0.4, aggregation="min")]
    for by in ("f1", "wall_seconds"):
        assert dict(one[:2] for one in order(rows, by)) == {"untold": "1", "told": ""}


def test_costs_rank_the_smaller_first_and_equal_ones_are_tied() -> None:
    rows = [row("slow", seconds=9.0), row("fast", seconds=2.0), row("too", seconds=2.0)]
    assert places(rows, "wall_seconds") == {"fast": "1–2", "too": "1–2", "slow": "3"}
    assert places(rows, "generated") == {"fast": "1–3", "too": "1–3", "slow": "1–3"}


def test_a_run_without_a_value_can_be_ranked_by_cost() -> None:
    assert places([row("a", None, seconds=2.0), row("b", 0.5, seconds=1.0)], "wall_seconds") == {"a": "2", "b": "1"}


def with_test(values: list[Value], pairs: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Rank rows a, b, c, ... of which all but the last are runs; ``pairs``: what the paired test tells apart."""
    from cpmi_eval.analysis import paired

    names = "abcdefgh"[: len(values)]
    runs = [made(name) for name in names[:-1]]

    def separated(given: list[Run], part: str, metric: str) -> set[tuple[int, int]]:
        assert (part, metric) == ("t/a", "f1")
        at = {str(run.path): place for place, run in enumerate(given)}
        return {(at[better], at[worse]) for better, worse in pairs}

    monkeypatch.setattr(paired, "separated", separated)
    rows = [
        (row(name, value), at if at < len(runs) else None)
        for at, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    (board,) = boards(rows)
    return {one.entry.row.scorer: one.place for one in ranked(board, "f1", runs)[0]}


def test_a_paired_test_separates_where_intervals_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [within(0.5, 0.1), within(0.55, 0.1), within(0.6, 0.1), within(0.58, 0.1)]
    assert with_test(values, set(), monkeypatch) == dict.fromkeys("abcd", "1–4")
    found = with_test(values, {("c", "a"), ("b", "a")}, monkeypatch)
    assert found == {"c": "1–3", "b": "1–3", "d": "1–4", "a": "3–4"}


def test_intervals_that_do_not_overlap_separate_runs_whatever_the_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_test([within(0.2, 0.1), within(0.8, 0.1), within(0.2, 0.1)], set(), monkeypatch) == {
        "b": "1",
        "a": "2–3",
        "c": "2–3",
    }


def test_of_runs_without_intervals_the_test_alone_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [Value(0.2), Value(0.4), Value(0.6), Value(0.1)]  # the last is no run: by value
    found = with_test(values, {("c", "a")}, monkeypatch)
    assert found == {"c": "1–2", "b": "1–3", "a": "2–3", "d": "4"}


def test_costs_need_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    from cpmi_eval.analysis import paired

    monkeypatch.delattr(paired, "separated")
    (board,) = boards([(row("a", seconds=1.0), 0), (row("b", seconds=2.0), 1)])
    assert [one.place for one in ranked(board, "wall_seconds", [made(name) for name in "ab"])[0]] == [
        "1",
        "2",
    ]


def part(traces: str, total: int = 10, limit: float | None = None) -> Part:
    return Part({"f1": Value(0.5)}, TraceSet(traces * 64, total, total, limit), Cost(1, 1, 0, 0, 0, 0))


def titles(*rows: Row, **asked: Any) -> list[str]:
    return [one.title for one in boards(((one, None) for one in rows), **asked)]


def test_each_part_has_a_board_and_the_mean_comes_last() -> None:
    both = row("both", parts={"t/a": part("a"), "t/b": part("b", 20), "t": part("c", 30)})
    one = row("one", parts={"t/b": part("b", 20), "t": part("d", 20)})
    found = boards([(both, None), (one, None)])
    assert [board.title for board in found] == ["t/a, 10 traces", "t/b, 20 traces", "t (mean over a, b), 30 traces"]
    assert [len(board.entries) for board in found] == [1, 2, 1]  # the mean over one part says nothing new
    assert titles(both, one, parts={"t": {"t/b"}}) == ["t/b, 20 traces"]
    assert titles(both, parts={"other": {"other/b"}}) == titles(both)


def test_other_traces_are_another_board_and_samples_are_called_so() -> None:
    rows = [row("a", parts={"t/a": part("a")}), row("b", parts={"t/a": part("b", 5, limit=5)})]
    assert titles(*rows) == ["t/a, 10 traces (trace set aaaaaaaa)", "t/a, sample of 5 traces (trace set bbbbbbbb)"]
    # a limit that leaves nothing out is no sample
    assert titles(row("a", parts={"t/a": part("a")}), row("b", parts={"t/a": part("a", limit=99)})) == [
        "t/a, 10 traces"
    ]


def test_boards_of_made_up_data_say_so() -> None:
    assert titles(row("a", synthetic=True)) == ["t/a, 10 traces (synthetic data)"]


def test_published_rows_are_on_no_board() -> None:
    assert boards([(row("a", parts={"t/a": Part({"f1": Value(0.5)})}), None)]) == []


def test_the_metric_a_board_is_ranked_by_is_the_tasks_own() -> None:
    def main(*names: str) -> str:
        return main_metric(Board("t/a", ANY, (Entry(row("a"), Part(dict.fromkeys(names, Value(0.5)))),)))

    assert main("f1") == "f1"
    assert main("acc", "f1") == "f1"
    assert main("pass@1", "maj@8", "bon@8") == "bon@8"
    assert main("accuracy", "other") == "accuracy"
    assert main() == "wall_seconds"


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'f1'"):
        places([row("a")], "f")
