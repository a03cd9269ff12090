"""Best-of-N by hand and by going through every subset; what people see of it; and that an oracle is never ranked."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytest
import snapshot
from commandline import Cli
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from maderuns import results_of
from shop import Register

import cpmi_eval
from cpmi_eval.errors import UnknownNameError
from cpmi_eval.leaderboards.board import boards, main_metric, ranked
from cpmi_eval.leaderboards.rows import row_of
from cpmi_eval.metrics import best_of_n
from cpmi_eval.metrics.best_of_n import AGGREGATIONS, expected_best, expected_pass, expected_votes
from cpmi_eval.metrics.outcome import Metric, Outcome, metrics_of
from cpmi_eval.record.run import read_run
from cpmi_eval.reports.best_of_n import facts, tables
from cpmi_eval.reports.grid import drawn
from cpmi_eval.types import Candidate, Failure, Gold, StepScores, Trace, TraceFailure


def outcome(
    problem: str, answer: int | None, correct: bool, *scores: float, failed: bool = False, aggregation: str = "min"
) -> Outcome:
    gold = Gold(None, correct, Candidate(problem, answer, {}))
    return Outcome(gold, None if failed else scores, None, aggregation=aggregation)


def compute(outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    return metrics_of(best_of_n.compute(outcomes))


def values(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in compute(outcomes).items()}


def test_two_problems_by_hand() -> None:
    """Two candidates each. a: the right one scores higher. b: both are wrong, with different answers."""
    found = compute(
        [
            outcome("a", 0, True, 0.5, 0.75),
            outcome("a", 1, False, 0.25, 1.0),
            outcome("b", 0, False, 0.5),
            outcome("b", 1, False, 1.0),
        ]
    )
    columns = {name: metric.value for name, metric in found.items() if not metric.detail}
    # a: a vote of one against one is a coin; weights .5 against .25 are not. b is lost whatever is chosen.
    # AUC by the minimum: the correct .5 beats .25, ties with .5 and loses to 1: 1.5 of 3.
    assert columns == {
        "pass@1": 0.25, "maj@2": 0.25, "bon@2": 0.5, "wvote@2": 0.5, "pass@2": 0.5, "outcome_auc": 0.5
    }  # fmt: skip
    assert list(columns) == list(found)[:6]
    assert found["bon_last@2"] == Metric(0.0, 2, detail=True)  # .75 against 1
    assert found["bon_product@2"].value == 0.5  # .375 against .25
    assert found["bon_mean@2"].value == 0.25  # .625 twice: a coin
    assert found["bon_max@2"].value == 0.0
    assert found["wvote_mean@2"].value == 0.25
    assert {metric.n for name, metric in found.items() if "auc" not in name} == {2}
    assert found["outcome_auc"].n == 4


def test_the_best_of_two_of_four() -> None:
    """Candidates: right .9, wrong .9, wrong .2, right without a score."""
    correct, scores = (True, False, False, True), (0.9, 0.9, 0.2, None)
    # {0,1} a coin, {0,2} and {0,3} right, {1,2} {1,3} {2,3} wrong.
    assert expected_best(correct, scores, 2) == pytest.approx(2.5 / 6)
    assert expected_best(correct, scores, 4) == pytest.approx(0.5)
    assert expected_best(correct, scores, 1) == pytest.approx(1 / 4)  # the last one is never chosen, alone or not
    assert expected_pass(correct, 2) == pytest.approx(1 - 1 / 6)


def test_votes_of_three_of_four() -> None:
    """Answers x x y and one without; x is right."""
    correct, answers = (True, True, False, False), (0, 0, 1, -1)
    plain = (1.0,) * 4
    heavy = (0.25, 0.25, 1.0, 9.0)
    unscored = (None, 0.25, None, None)
    # Without the last: x wins by count, y by weight. With it: xx wins by both, and xy (twice) is a coin, y by weight.
    found = expected_votes(correct, answers, [plain, heavy, unscored], 3)
    assert found == pytest.approx([3 / 4, 1 / 4, 3 / 4])


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_the_scorers_own_aggregation_makes_the_columns(how: str) -> None:
    outcomes = [
        outcome("a", 0, True, 0.5, 0.25, 0.75, aggregation=how),
        outcome("a", 1, False, 0.125, 1.0, 0.5, aggregation=how),
    ]
    found = values(outcomes)
    assert found["bon@2"] == found[f"bon_{how}@2"] == {"last": 1, "min": 1, "product": 1, "mean": 0, "max": 0}[how]
    assert found["outcome_auc"] == found[f"outcome_auc_{how}"]


def test_an_aggregation_that_does_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mean'"):
        compute([outcome("a", 0, True, 1.0, aggregation="means")])


def test_sizes_are_powers_of_two_and_the_largest_count() -> None:
    outcomes = [outcome("a", i % 3, i % 3 == 0, 0.5) for i in range(6)]
    sizes = {int(name.partition("@")[2]) for name in compute(outcomes) if "@" in name}
    assert sizes == {1, 2, 4, 6}


def test_problems_with_fewer_candidates_are_left_out_of_larger_sizes() -> None:
    outcomes = [outcome("few", 0, True, 0.5), *(outcome("many", i, False, 0.5) for i in range(4))]
    found = compute(outcomes)
    assert found["pass@1"] == Metric(0.5, 2)
    assert found["pass@2"] == Metric(0.0, 1, detail=True)
    assert found["bon@4"] == Metric(0.0, 1)


def test_equal_scores_select_at_random() -> None:
    outcomes = [outcome(p, i % 2, i % 2 == int(p), 0.5, 0.5) for p in "01" for i in range(5)]
    found = values(outcomes)
    for size in (1, 2, 4, 5):
        for how in AGGREGATIONS:
            assert found[f"bon_{how}@{size}"] == pytest.approx(found["pass@1"])
    assert found["outcome_auc"] == pytest.approx(0.5)


def test_weights_of_zero_still_tie() -> None:
    outcomes = [outcome("a", 0, True, 0.0), outcome("a", 1, False, 0.0), outcome("a", 2, False, failed=True)]
    assert values(outcomes)["wvote@3"] == pytest.approx(0.5)  # the one that failed has no part in it


def test_negative_scores_have_no_products_and_no_weights() -> None:
    found = compute([outcome("a", 0, True, 1.0, 2.0), outcome("a", 1, False, -1.0, 3.0)])
    undefined = {name for name, metric in found.items() if metric.value is None}
    sizes = (1, 2)
    expected = {f"wvote_{how}@{n}" for how in AGGREGATIONS for n in sizes}
    expected |= {"wvote@2", "outcome_auc_product", *(f"bon_product@{n}" for n in sizes)}
    assert undefined == expected
    assert found["bon@2"].value == 1.0
    assert found["bon_last@2"].value == 0.0


def test_failures_are_misses_where_nothing_else_can_be_chosen() -> None:
    found = values([outcome("a", 0, True, failed=True), outcome("a", 0, True, failed=True)])
    assert (found["pass@1"], found["maj@2"], found["bon@2"], found["wvote@2"]) == (1.0, 1.0, 0.0, 0.0)
    assert found["outcome_auc"] is None
    one = values([outcome("a", 0, True, failed=True), outcome("a", 0, True, 0.1)])
    assert (one["bon_min@1"], one["bon@2"]) == (0.5, 1.0)


def test_who_states_no_answer_is_incorrect_and_does_not_vote() -> None:
    outcomes = [outcome("a", None, True, 1.0), outcome("a", None, False, 1.0), outcome("a", 0, True, 0.1)]
    found = values(outcomes)
    assert (found["pass@1"], found["maj@3"], found["wvote@3"]) == (pytest.approx(1 / 3), 1.0, 1.0)
    assert found["bon@3"] == 0.0
    silent = values(outcomes[:2])
    assert (silent["maj@2"], silent["wvote@2"]) == (0.0, 0.0)


def test_outcomes_that_are_no_candidates_are_left_out() -> None:
    assert compute([Outcome(Gold(1), (0.5,), None)]) == {}


def test_many_candidates_are_sampled_close_to_the_truth_and_reproducibly() -> None:
    """Of 20 candidates 12 say x, which is right, and 8 say y: C(20, 8) = 125,970 subsets."""
    correct, answers = (True,) * 12 + (False,) * 8, (0,) * 12 + (1,) * 8
    assert math.comb(20, 8) > best_of_n.MAX_SUBSETS
    ways = {k: math.comb(12, k) * math.comb(8, 8 - k) / math.comb(20, 8) for k in range(9)}
    truth = sum(ways[k] for k in range(5, 9)) + ways[4] / 2
    first, again, other = (expected_votes(correct, answers, [(1.0,) * 20], 8, name)[0] for name in ("a", "a", "b"))
    assert first == again != other
    spread = 0.5 / math.sqrt(best_of_n.MAX_SUBSETS)
    assert abs(first - truth) < 5 * spread
    assert abs(other - truth) < 5 * spread


SCORES = st.none() | st.integers(0, 4).map(lambda eighths: eighths / 8)  # sums of these are exact


@st.composite
def problems(draw: st.DrawFn) -> tuple[tuple[bool, ...], tuple[int, ...], tuple[float | None, ...], int]:
    n = draw(st.integers(1, 6))
    answers = tuple(draw(st.integers(-1, 3)) for _ in range(n))
    right = draw(st.integers(0, 3))
    scores = tuple(draw(SCORES) for _ in range(n))
    return tuple(answer == right for answer in answers), answers, scores, draw(st.integers(1, n))


def share(won: Sequence[bool]) -> float:
    return sum(won) / len(won) if won else 0.0


def elected(subset: Sequence[int], answers: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    sums: dict[int, float] = {}
    for i in subset:
        weight = weights[i]
        if answers[i] >= 0 and weight is not None:
            sums[answers[i]] = sums.get(answers[i], 0.0) + weight
    return [answer for answer, total in sums.items() if total == max(sums.values())]


@given(problems())
@hypothesis_settings(max_examples=300, deadline=None)
def test_every_expectation_is_the_mean_over_all_subsets(
    drawn: tuple[tuple[bool, ...], tuple[int, ...], tuple[float | None, ...], int],
) -> None:
    correct, answers, scores, size = drawn
    passed, best, plain, weighted = [], [], [], []
    for subset in combinations(range(len(correct)), size):
        passed.append(float(any(correct[i] for i in subset)))
        known = [score for i in subset if (score := scores[i]) is not None]
        best.append(share([correct[i] for i in subset if known and scores[i] == max(known)]))
        for votes, weights in ((plain, (1.0,) * len(correct)), (weighted, scores)):
            votes.append(share([correct[answers.index(one)] for one in elected(subset, answers, weights)]))
    assert expected_pass(correct, size) == pytest.approx(sum(passed) / len(passed))
    assert expected_best(correct, scores, size) == pytest.approx(sum(best) / len(best))
    votes = expected_votes(correct, answers, [(1.0,) * len(correct), scores], size)
    assert votes == pytest.approx([sum(plain) / len(plain), sum(weighted) / len(weighted)])


@given(st.lists(problems(), min_size=1, max_size=4), st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=60, deadline=None)
def test_neither_the_order_nor_the_company_of_candidates_matters(drawn: list[Any], shuffled: Any) -> None:
    outcomes = [
        outcome(
            str(name), None if answer < 0 else answer, right, *([] if score is None else [score]), failed=score is None
        )
        for name, (correct, answers, scores, _) in enumerate(drawn)
        for right, answer, score in zip(correct, answers, scores, strict=True)
    ]
    mixed = list(outcomes)
    shuffled.shuffle(mixed)
    before, after = values(outcomes), values(mixed)
    assert after == pytest.approx(before)
    assert before["pass@1"] == pytest.approx(sum(sum(one[0]) / len(one[0]) for one in drawn) / len(drawn))
    for name, value in before.items():
        kind, _, size = name.partition("@")
        if size and kind.partition("_")[0] in ("maj", "bon", "wvote") and value is not None:
            assert value <= before[f"pass@{size}"] + 1e-12


class Marked:
    """Reads its scores from the steps (``0.5: text``); a step ``lost: text`` is a failure."""

    name: ClassVar[str] = "marked"
    summary: ClassVar[str] = "reads scores"
    kind: ClassVar[str] = "prm"
    needs: ClassVar[frozenset[str]] = frozenset()
    capabilities: frozenset[str] = frozenset()
    native_threshold: float | None = 0.5
    aggregation = "product"

    def score(self, traces: Sequence[Trace], backend: Any) -> Iterator[StepScores | TraceFailure]:
        for trace in traces:
            assert (trace.answer is not None) == ("answer" in self.needs)
            marks = [step.partition(":")[0] for step in trace.steps]
            if "lost" in marks:
                yield TraceFailure(trace.id, Failure("lost", "a step says so"))
            else:
                yield StepScores(trace.id, tuple(map(float, marks)))


class Oracle(Marked):
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})


PROBLEMS = [
    {"problem": "What is 2 + 2?", "answer": "4", "level": "Level 1", "type": "Algebra"},
    {"problem": "What is half of 3?", "answer": r"\frac{3}{2}", "level": "Level 2", "type": "Algebra"},
    {"problem": "How many primes are below 8?", "answer": "4", "level": "Level 2", "type": "Number Theory"},
    {"problem": "What is 7 * 8?", "answer": "56", "level": "Level 1", "type": "Algebra"},
]
CANDIDATES = [
    ["0.9: 2 + 2 is 4.\n0.5: The answer is 4.", "0.75: The answer is 5.", "0.5: The answer is 5.", "0.5: It is 4.0"],
    ["0.5: 3/2", "1.0: The answer is 1.5.", "lost: The answer is 3.", "0.25: I cannot say."],
    ["1.0: 2, 3, 5, 7\n\n0.25: The answer is 4.", "  ", "0.5: The answer is 3.", "0.125: The answer is 3."],
]
MARKS = [[True, False, False, False], [True, True, False, None], [True, False, None, None]]


@pytest.fixture
def data(register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the settings of a run on three problems of four, with labelers to run; the working directory is empty."""
    register("labelers", "marked", Marked)
    register("labelers", "oracle", Oracle)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hub" / "EleutherAI" / "hendrycks_math"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    lines = [
        {
            "problem": problem["problem"],
            "candidates": [
                {"solution": solution, "generator": "ab"[place % 2], "is_correct": mark}
                for place, (solution, mark) in enumerate(zip(solutions, marks, strict=True))
            ],
        }
        for problem, solutions, marks in zip(PROBLEMS, CANDIDATES, MARKS, strict=False)
    ]
    Path("solutions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"data_dir": "hub", "task_args": {"candidates": "solutions.jsonl"}}


def test_a_run_selects(data: dict[str, Any]) -> None:
    summary = cpmi_eval.evaluate("marked", "math", output_path="run", **data).summary
    results = {name: entry["value"] for name, entry in summary["results"]["math/test"].items()}
    # Right candidates: 2, 2 and 1 of 4.
    assert results["pass@1"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    # 4, 4 against 5, 5 is a coin; 1.5 twice against 3; 3 twice against 4 once.
    assert results["maj@4"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    # Products: 5 (.75) beats .45; 1.5 has 1; 3 has .5 and 4 .25.
    assert results["bon@4"] == results["bon_product@4"] == pytest.approx((0 + 1 + 0) / 3)
    # .45 + .5 against 1.25; 1.5 alone; .25 against .625.
    assert results["wvote@4"] == pytest.approx((0 + 1 + 0) / 3)
    assert results["bon_max@4"] == pytest.approx((1 + 1 + 1) / 3)
    assert (summary["selects"], summary["labeler"]["aggregation"]) == (True, "product")
    assert summary["coverage"]["math/test"] == {
        "traces": 11, "scored": 10, "no_reference": 0, "failed": 1,
        "problems": 3, "of_problems": 4, "candidates": 12, "empty": 1,
    }  # fmt: skip
    assert summary["notes"]["test"]["marks"]["disagree"] == [
        {"id": "math-test-0/3", "marked": False, "graded": True, "answer": "4.0", "reference": "4"}
    ]
    groups = summary["groups"]["math/test"]
    assert {name: list(found) for name, found in groups.items()} == {
        "level": ["1", "2"], "subject": ["Algebra", "Number Theory"], "generator": ["a", "b"]
    }  # fmt: skip
    assert groups["level"]["2"]["pass@1"] == {"value": pytest.approx(3 / 8), "n": 2}
    assert groups["generator"]["b"]["pass@1"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert "bon@2" in groups["generator"]["b"]
    assert not any(entry.get("detail") for found in groups.values() for one in found.values() for entry in one.values())


def test_a_limit_takes_whole_problems(data: dict[str, Any]) -> None:
    for seed in range(4):
        result = cpmi_eval.evaluate("marked", "math", limit=2, seed=seed, output_path=f"run{seed}", **data)
        kept = {row["gold"]["candidate"]["problem"] for row in result.rows}
        coverage = result.summary["coverage"]["math/test"]
        assert len(kept) == coverage["problems"] == 2
        assert coverage["candidates"] == 8
        assert result.results["math"]["pass@4"].n == 2


def test_what_people_see(data: dict[str, Any]) -> None:
    from rich.console import Console

    summary = cpmi_eval.evaluate("marked", "math", output_path="run", **data).run.results
    stream = io.StringIO()
    console = Console(width=130, file=stream)
    console.print(drawn(list(tables(summary)), 130))
    for name, text in facts(summary).items():
        stream.write(f"{name}: {text}\n")
    snapshot.check("best_of_n", stream.getvalue())


def test_other_tasks_have_none_of_it() -> None:
    assert list(tables(results_of())) == []
    assert facts(results_of()) == {}


def test_details_are_no_columns(data: dict[str, Any], cli: Cli) -> None:
    cpmi_eval.evaluate("marked", "math", output_path="run", **data)
    done = cli("show", "run")
    assert done.code == 0
    shown = done.out
    heading = shown.splitlines()[2]
    names = [cell.strip() for cell in heading.strip("┃ ").split("┃")]
    assert names[:7] == ["task", "pass@1", "maj@4", "bon@4", "wvote@4", "pass@4", "AUC"]
    assert "threshold" not in shown
    assert list(row_of(read_run(Path("run"))).parts["math"].metrics) == [
        "pass@1",
        "maj@4",
        "bon@4",
        "wvote@4",
        "pass@4",
        "outcome_auc",
    ]


def test_an_oracle_is_shown_and_never_ranked(data: dict[str, Any], cli: Cli) -> None:
    data["task_args"]["candidates"] = "whole.jsonl"
    lines = Path("solutions.jsonl").read_text().replace("lost", "0.5")
    Path("whole.jsonl").write_text(lines)
    runs = [cpmi_eval.evaluate(name, "math", output_path=name, **data).path for name in ("oracle", "marked")]
    (board,) = boards((row_of(read_run(path)), None) for path in runs)
    assert main_metric(board) == "bon@4"
    oracles, others = ranked(board, "bon@4")[::-1]
    assert [(one.entry.row.scorer, one.place, one.reason) for one in (*others, *oracles)] == [
        ("marked", "1", ""),
        ("oracle", "", "oracle"),
    ]
    done = cli("leaderboard", "show", *map(str, runs))
    assert done.code == 0
    shown = done.out
    assert "ranked by bon@4 within each kind" in shown
    assert "* is given the reference answer, an oracle where solutions are selected, so never ranked" in shown
    assert "ranked apart" not in shown
    done = cli("leaderboard", "show", *map(str, runs), "--sort", "outcome_auc", "--json")
    assert done.code == 0
    (board,) = json.loads(done.out)["boards"]
    found = {row["scorer"]: (row["rank"], row["oracle"]) for row in board["rows"]}
    assert found == {"marked": ([1, 1], False), "oracle": (None, True)}
    assert (
        "an oracle"
        in facts(cpmi_eval.evaluate("oracle", "math", output_path="oracle", **data).run.results)["selection"]
    )
