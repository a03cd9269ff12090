"""Diagnostics of a run: against brute force and by hand, and what people see of them."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from commandline import Cli
from rich.console import Console

import cpmi_eval
from cpmi_eval.analysis.diagnostics import (
    LENGTHS,
    POSITIONS,
    Diagnostics,
    SolutionDiagnostics,
    StepDiagnostics,
    diagnose,
    diagnose_run,
    last_minimum,
)
from cpmi_eval.cost import Share
from cpmi_eval.metrics.calibration import share
from cpmi_eval.metrics.first_error import harmonic_mean
from cpmi_eval.metrics.outcome import Metric, Statistics
from cpmi_eval.metrics.within import NAME, within_position
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import outcome, read_run
from cpmi_eval.reports.diagnostics import diagnostics_report
from cpmi_eval.reports.grid import drawn
from cpmi_eval.types import Candidate, Failure, Gold


def trace(
    first: int | None,
    scores: Sequence[float] | None,
    prediction: int | None = -1,
    *,
    steps: Sequence[str] | None = None,
    right: bool | None = None,
    cluster: str = "",
    error: str = "too_long",
    candidate: Candidate | None = None,
) -> Record:
    texts = tuple(steps if steps is not None else [f"step {place}" for place in range(len(scores or ()))])
    gold = Gold(first, right, candidate)
    own = None if scores is None else tuple(scores)
    failure = Failure(error, "...") if scores is None else None
    name = f"{first}-{scores}-{prediction}-{cluster}"
    return Record(name, "task/part", cluster or name, "?", texts, gold, own, prediction, failure, Share.nothing())


def random_traces(seed: int, n: int = 60) -> list[Record]:
    """Traces with ties in their scores, some of them without an annotation, without scores, or without errors."""
    rng = random.Random(seed)
    found = []
    for place in range(n):
        length = rng.randint(1, 12)
        first = rng.choice([None, -1, -1, *[rng.randrange(length)] * 3])
        scores = None if rng.random() < 0.1 else [rng.randint(0, 5) / 5 for _ in range(length)]
        prediction = None if scores is None else rng.randint(-1, length - 1)
        steps = ["x" * rng.randint(1, 9) for _ in range(length)]
        right = rng.random() < 0.5
        found.append(trace(first, scores, prediction, steps=steps, right=right, cluster=f"p{place // 2}"))
    return found


def steps_of(found: Diagnostics) -> StepDiagnostics:
    assert found.steps is not None
    assert found.solutions is None
    return found.steps


def solutions_of(found: Diagnostics) -> SolutionDiagnostics:
    assert found.solutions is not None
    assert found.steps is None
    return found.solutions


def compared(good: float, wrong: float) -> float:
    return 0.5 if good == wrong else float(good > wrong)


def pairs_by_position(records: Sequence[Record], weights: Sequence[int] | None = None) -> list[tuple[int, float, int]]:
    """Every pair of a good step and a first error at one index: the index, how they compare, how often it counts."""
    found = []
    for wrong, times in zip(records, weights or [1] * len(records), strict=True):
        first = wrong.gold.first_error
        if first is None or first < 0 or wrong.scores is None:
            continue
        for good, others in zip(records, weights or [1] * len(records), strict=True):
            limit = good.gold.first_error
            if limit is None or good.scores is None or first >= len(good.scores) or 0 <= limit <= first:
                continue
            found.append((first, compared(good.scores[first], wrong.scores[first]), times * others))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_auc_within_position_is_the_concordant_share_of_all_pairs_of_one_index(seed: int) -> None:
    records = random_traces(seed)
    pairs = pairs_by_position(records)
    found = steps_of(diagnose(records, False)).scorer.within_position_auc
    assert found.value == pytest.approx(sum(won for _, won, _ in pairs) / len(pairs))
    assert (found.pairs, found.strata) == (len(pairs), len({index for index, _, _ in pairs}))


def test_auc_within_position_by_hand() -> None:
    # index 0: error 0.5 against good 0.5, 0.9, 0.1: 0.5 + 1 + 0 of 3; index 1: error 0.3 against good 0.4: 1 of 1
    records = [trace(0, [0.5, 0.0]), trace(-1, [0.5, 0.4]), trace(1, [0.9, 0.3, 0.0]), trace(-1, [0.1])]
    found = steps_of(diagnose(records, False))
    assert found.scorer.within_position_auc.value == pytest.approx(2.5 / 4)
    assert (found.scorer.within_position_auc.pairs, found.scorer.within_position_auc.strata) == (4, 2)
    # plain: good 0.5, 0.4, 0.9, 0.1 against errors 0.5 and 0.3
    assert found.scorer.step_auc.value == pytest.approx((0.5 + 0 + 1 + 0 + 1 + 1 + 1 + 0) / 8)
    assert found.scorer.step_auc.n == 6


def test_a_scorer_that_rates_late_steps_lower_is_at_a_half() -> None:
    rng = random.Random(1)
    records = [
        trace(first, [-float(place) for place in range(6)])
        for first in [*(rng.choice([3, 4, 5]) for _ in range(20)), -1, -1]
    ]
    found = steps_of(diagnose(records, False))
    assert found.scorer.step_auc.value is not None
    assert found.scorer.step_auc.value > 0.8
    assert found.scorer.within_position_auc.value == 0.5
    assert found.baselines["position"].step_auc == found.scorer.step_auc
    assert found.baselines["position"].within_position_auc.value == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_weighting_traces_is_repeating_them(seed: int) -> None:
    records = random_traces(seed, 30)
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (4, len(records)))
    statistics = within_position([outcome(one) for one in records])
    assert isinstance(statistics, Statistics)
    values = statistics.resampled(weights.astype(float))[NAME]
    for row, value in zip(weights.tolist(), values, strict=True):
        pairs = pairs_by_position(records, row)
        assert value == pytest.approx(sum(won * n for _, won, n in pairs) / sum(n for _, _, n in pairs))
    plain = statistics.metrics()[NAME]
    assert statistics.resampled(np.ones((1, len(records))))[NAME][0] == pytest.approx(plain.value)
    assert np.isnan(statistics.resampled(np.zeros((1, len(records))))[NAME][0])


def test_the_interval_holds_the_value_and_is_the_same_again() -> None:
    records = random_traces(3, 200)
    statistics = within_position([outcome(one) for one in records])
    first, again = (statistics.with_interval([one.cluster for one in records]) for _ in range(2))
    assert first == again
    assert first.interval is not None
    assert first.value is not None
    assert first.interval[0] < first.value < first.interval[1]


def test_positions_add_up_to_the_whole() -> None:
    found = steps_of(diagnose(random_traces(4, 150), False))
    parts = [one.within_position_auc for one in found.by_position]
    whole = found.scorer.within_position_auc
    assert sum(one.pairs for one in parts) == whole.pairs
    assert sum(one.strata for one in parts) == whole.strata
    assert sum((one.value or 0) * one.pairs for one in parts) / whole.pairs == pytest.approx(whole.value)


def test_baselines_by_hand() -> None:
    records = [
        trace(1, [0.9, 0.1], 1, steps=["a", "bbbb"]),
        trace(0, [0.9, 0.1, 0.3], 1, steps=["aaa", "b", "c"]),
        trace(-1, [0.9, 0.8], -1, steps=["a", "bb"]),
        trace(-1, [0.9, 0.2], 1, steps=["aaaaa", "b"]),
    ]
    found = steps_of(diagnose(records, False))
    assert [found.scorer.f1.value, found.scorer.acc_error.value, found.scorer.acc_correct.value] == [0.5, 0.5, 0.5]
    correct, last = found.baselines["all_correct"], found.baselines["last_step"]
    assert (correct.f1.value, correct.acc_error.value, correct.acc_correct.value) == (0, 0, 1)
    assert (last.f1.value, last.acc_error.value, last.acc_correct.value) == (0, 0.5, 0)
    assert (correct.step_auc.value, correct.within_position_auc.value, correct.oracle) == (0.5, 0.5, False)
    # good steps: a of 1, both of 3, both of 4; wrong: the last of 1, the first of 2. Is a good one less "last"?
    # good lasts: 2 of 5. Against the last one: 3 wins, 2 ties; against the first one: 3 ties, 2 losses
    assert last.step_auc.value == pytest.approx((3 + 2 * 0.5 + 3 * 0.5) / 10)
    # lengths: good 1, 1, 2, 5, 1; wrong 4, 3: four and four good ones are shorter
    length = found.baselines["length"]
    assert length.step_auc.value == pytest.approx(8 / 10)
    # at index 1 the error of length 4 against 2 and 1; at index 0 that of length 3 against 1, 1 and 5
    assert length.within_position_auc.value == pytest.approx(4 / 5)
    assert (length.acc_error.value, length.acc_correct.value, length.oracle) == (1.0, 0.5, True)
    assert length.threshold == -2.5
    assert found.baselines["length"].f1.n == 4


@pytest.mark.parametrize("seed", range(4))
def test_oracle_thresholds_are_the_best_there_are(seed: int) -> None:
    records = random_traces(seed)
    annotated = [one for one in records if one.gold.first_error is not None]
    found = steps_of(diagnose(records, False))

    def best(scores: Callable[[Record], Sequence[float] | None]) -> float:
        every = sorted({value for one in annotated for value in scores(one) or ()})
        f1 = []
        for cut in [*every, every[-1] + 1]:
            hits: dict[bool, list[bool]] = {True: [], False: []}
            for one in annotated:
                own, first = scores(one), one.gold.first_error
                called = None if own is None else next((i for i, value in enumerate(own) if value < cut), -1)
                hits[first != -1].append(called == first)
            f1.append(harmonic_mean(*(sum(group) / len(group) for group in hits.values())))
        return max(f1)

    assert found.at_oracle.f1.value == pytest.approx(best(lambda one: one.scores))
    assert found.baselines["length"].f1.value == pytest.approx(best(lambda one: [-len(text) for text in one.steps]))
    assert found.baselines["position"].f1.value == pytest.approx(best(lambda one: [-i for i in range(len(one.steps))]))


def test_baselines_decide_all_traces_and_are_ranked_on_the_steps_that_were_scored() -> None:
    records = [
        trace(0, [0.1, 0.9]),
        trace(-1, [0.8]),
        trace(1, None, None, steps=["a", "b"]),
        trace(-1, None, None, steps=["a"]),
    ]
    found = steps_of(diagnose(records, False))
    for one in (found.scorer, found.at_oracle, *found.baselines.values()):
        assert (one.f1.n, one.acc_error.n, one.acc_correct.n, one.step_auc.n) == (4, 2, 2, 2)
        assert one.within_position_auc.pairs == 1
    assert found.baselines["all_correct"].acc_correct.value == 1
    assert found.baselines["last_step"].acc_error.value == 0.5  # of the trace that the scorer failed on
    assert found.at_oracle.acc_error.value == 0.5  # which stays a miss for the scorer


def test_where_errors_were_called() -> None:
    scores = [0.5] * 8
    records = [
        trace(2, scores, 2), trace(2, scores, 0), trace(2, scores, 7), trace(2, scores, -1),
        trace(2, None, None, steps=["x"] * 8), trace(6, scores, 6), trace(5, scores, 4), trace(-1, scores, -1),
        trace(None, scores, 1),
    ]  # fmt: skip
    found = steps_of(diagnose(records, False))
    by_first = {one.first: one for one in found.by_position}
    third = by_first[2].errors
    assert (third.too_early, third.too_late, third.missed, third.no_prediction) == (1, 1, 1, 1)
    assert third.exact == share(1, 5)
    late = by_first[5]
    assert late.last is None
    assert (late.errors.exact, late.errors.too_early) == (share(1, 2), 1)
    assert by_first[0].errors.exact == Metric(None, 0)


@pytest.mark.parametrize("seed", range(3))
def test_groups_hold_every_annotated_trace_once(seed: int) -> None:
    records = random_traces(seed, 120)
    found = steps_of(diagnose(records, False))
    erroneous = [one for one in records if (one.gold.first_error or 0) >= 0 and one.gold.first_error is not None]
    correct = [one for one in records if one.gold.first_error == -1]
    for groups in (found.by_position, found.by_length):
        assert sum(one.errors.exact.n for one in groups) == len(erroneous)
        hits = sum(round((one.errors.exact.value or 0) * one.errors.exact.n) for one in groups)
        assert hits == sum(one.prediction == one.gold.first_error for one in erroneous)
        for one in groups:
            calls = (one.errors.too_early, one.errors.too_late, one.errors.missed, one.errors.no_prediction)
            assert sum(call or 0 for call in calls) + hits_of(one.errors.exact) == one.errors.exact.n
    assert sum(one.correct.n for one in found.by_length) == len(correct)
    assert sum(hits_of(one.correct) for one in found.by_length) == sum(one.prediction == -1 for one in correct)


def hits_of(metric: Metric) -> int:
    return round((metric.value or 0) * metric.n)


@pytest.mark.parametrize("ranges", [POSITIONS, LENGTHS])
def test_ranges_leave_no_gap(ranges: Sequence[tuple[int, int | None]]) -> None:
    for (_, last), (first, _) in pairwise(ranges):
        assert last is not None
        assert first == last + 1
    assert ranges[-1][1] is None


@pytest.mark.parametrize(("length", "group"), [(1, 0), (3, 0), (4, 1), (6, 1), (7, 2), (9, 2), (10, 3), (40, 3)])
def test_lengths_on_the_edges(length: int, group: int) -> None:
    found = steps_of(diagnose([trace(-1, [1.0] * length), trace(0, [1.0] * length)], False))
    assert [one.correct.n for one in found.by_length] == [int(place == group) for place in range(4)]
    assert [one.errors.exact.n for one in found.by_length] == [int(place == group) for place in range(4)]


def test_right_answers_of_wrong_processes() -> None:
    two = [0.5, 0.5]
    records = [
        trace(0, two, 0, right=True), trace(0, two, -1, right=True), trace(1, two, -1, right=True),
        trace(1, None, None, steps=["a", "b"], right=True), trace(1, two, 1, right=False), trace(1, two, 1, right=None),
        trace(-1, two, -1, right=True),
    ]  # fmt: skip
    found = steps_of(diagnose(records, False)).right_answer
    assert (found.n, found.exact, found.called_correct) == (4, share(1, 4), share(2, 4))


def test_lowest_scores_on_the_last_step() -> None:
    records = [
        trace(0, [0.5, 0.4, 0.1]),  # alone: 1
        trace(-1, [0.2, 0.9, 0.2, 0.2]),  # one of three
        trace(1, [0.1, 0.9]),  # 0
        trace(None, [0.7]),  # 1
        trace(0, None, None, steps=["a"]),
    ]
    found = diagnose(records, False).last_minimum
    assert found["all"].n == 4
    assert found["all"].share == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)
    assert found["all"].expected == pytest.approx((1 / 3 + 1 / 4 + 1 / 2 + 1) / 4)
    assert (found["erroneous"].n, found["erroneous"].share) == (2, 0.5)
    assert found["correct"].share == pytest.approx(1 / 3)


def test_equal_scores_are_what_chance_expects() -> None:
    found = last_minimum([trace(0, [1.0] * n) for n in range(1, 9)])
    assert found.share == pytest.approx(found.expected)


def test_coverage() -> None:
    records = [
        trace(0, [0.5]),
        trace(0, None, None, steps=["a"]),
        trace(0, None, None, steps=["a"], error="no_reference", cluster="b"),
        trace(-1, [0.5]),
        trace(None, None, None, steps=["a"]),
    ]
    found = diagnose(records, False).coverage
    assert (found.traces, found.scored, found.failures) == (5, 2, {"too_long": 2, "no_reference": 1})
    assert found.unscored == {"erroneous": share(2, 3), "correct": share(0, 1)}


def test_a_scorer_without_decisions() -> None:
    records = random_traces(0)
    decided, undecided = (steps_of(diagnose(records, flag)) for flag in (False, True))
    assert undecided.scorer.f1 == Metric(None, decided.scorer.f1.n)
    assert undecided.scorer.within_position_auc == decided.scorer.within_position_auc
    assert (undecided.at_oracle, undecided.baselines) == (decided.at_oracle, decided.baselines)
    for old, new in zip(decided.by_length, undecided.by_length, strict=True):
        assert new.errors.exact == Metric(None, old.errors.exact.n)
        assert (new.errors.too_early, new.errors.missed, new.errors.no_prediction) == (None, None, None)
        assert new.correct == Metric(None, old.correct.n)
    assert undecided.right_answer.exact == Metric(None, decided.right_answer.n)


EMPTY: dict[str, list[Record]] = {
    "none at all": [],
    "not annotated": [trace(None, [0.5, 0.2]), trace(None, None, None, steps=["a"])],
    "only errors": [trace(0, [0.5, 0.2], 0), trace(1, [0.5, 0.2], 0)],
    "only correct": [trace(-1, [0.5, 0.2]), trace(-1, [0.5], 0)],
    "nothing scored": [trace(0, None, None, steps=["a", "b"]), trace(-1, None, None, steps=["a"])],
    "one problem": [trace(0, [0.5, 0.2], 0, cluster="p"), trace(-1, [0.7, 0.2], 0, cluster="p")],
    "no such pairs": [trace(1, [0.5, 0.2], 0), trace(-1, [0.7], 0)],
}


@pytest.mark.parametrize("undecided", [False, True])
@pytest.mark.parametrize("case", EMPTY)
def test_what_is_not_defined_is_none(case: str, undecided: bool) -> None:
    found = diagnose(EMPTY[case], undecided)
    json.dumps(found.as_dict(), allow_nan=False)
    assert shown({"task/part": found})
    steps = steps_of(found)
    if case in ("none at all", "not annotated"):
        assert (steps.scorer.f1, steps.scorer.step_auc) == (Metric(None, 0), Metric(None, 0))
        assert (steps.scorer.within_position_auc.value, steps.scorer.within_position_auc.pairs) == (None, 0)
        assert steps.calibration.reason == "nothing that is annotated was scored"
        assert steps.right_answer.n == 0
    if case == "only errors":
        assert (steps.at_oracle.f1.value, steps.at_oracle.threshold) == (None, None)
        assert found.coverage.unscored["correct"] == Metric(None, 0)
    if case == "nothing scored":
        assert found.last_minimum["all"].share is None
        assert steps.baselines["all_correct"].acc_correct.value == 1
        assert steps.baselines["length"].step_auc == Metric(None, 0)
    if case == "no such pairs":
        assert steps.scorer.step_auc.value is not None
        assert steps.scorer.within_position_auc.value is None


def solutions(seed: int, low: int = 0) -> list[Record]:
    rng = random.Random(seed)
    found = []
    for problem in range(12):
        for place in range(4):
            scores = None if rng.random() < 0.1 else [rng.randint(low, 5) / 5 for _ in range(rng.randint(1, 5))]
            answer = None if rng.random() < 0.1 else place
            candidate = Candidate(f"p{problem}", answer)
            one = trace(None, scores, None, right=rng.random() < 0.5, cluster=f"p{problem}", candidate=candidate)
            found.append(replace(one, id=f"{problem}-{place}", steps=("xy",) * len(scores or "x")))
    return found


def right(record: Record) -> bool:
    return (
        bool(record.gold.final_answer_correct)
        and record.gold.candidate is not None
        and record.gold.candidate.answer is not None
    )


@pytest.mark.parametrize("seed", range(3))
def test_solutions_within_their_problem(seed: int) -> None:
    records = solutions(seed)
    found = solutions_of(diagnose(records, False))
    assert list(found.aggregations) == ["last", "min", "product", "mean", "max"]
    scored = [one for one in records if one.scores]
    for name, how in (("min", min), ("last", lambda scores: scores[-1])):
        pairs = [
            (good.cluster == wrong.cluster, compared(how(good.scores), how(wrong.scores)))  # type: ignore[type-var, arg-type]
            for good in scored
            for wrong in scored
            if right(good) and not right(wrong)
        ]
        one = found.aggregations[name]
        assert one.outcome_auc.value == pytest.approx(sum(won for _, won in pairs) / len(pairs))
        assert one.outcome_auc.n == len(scored)
        within = [won for same, won in pairs if same]
        assert one.within_problem_auc.value == pytest.approx(sum(within) / len(within))
        assert one.within_problem_auc.pairs == len(within)
        assert one.calibration is not None
        assert one.calibration.n == len(scored)
        assert one.calibration.share_good == pytest.approx(sum(map(right, scored)) / len(scored))
    fewer = found.baselines["fewer_steps"]
    assert fewer.outcome_auc == found.baselines["shorter"].outcome_auc  # steps of one length
    assert fewer.calibration is None


def test_solutions_count_as_right_or_wrong() -> None:
    records = solutions(0)
    found = diagnose(records, False)
    assert found.coverage.unscored["right"].n == sum(map(right, records))
    assert found.coverage.unscored["wrong"].n == len(records) - sum(map(right, records))
    assert list(found.last_minimum) == ["all", "wrong", "right"]
    json.dumps(found.as_dict(), allow_nan=False)
    assert shown({"math/test": found})


def test_negative_scores_have_no_product_and_are_no_probabilities() -> None:
    found = solutions_of(diagnose(solutions(1, low=-5), False))
    assert list(found.aggregations) == ["last", "min", "mean", "max"]
    assert found.aggregations["min"].calibration is not None
    assert found.aggregations["min"].calibration.reason is not None


def test_solutions_of_which_none_is_scored() -> None:
    records = [replace(one, scores=None) for one in solutions(2)]
    found = solutions_of(diagnose(records, True))
    assert found.aggregations["min"].outcome_auc == Metric(None, 0)
    assert found.aggregations["min"].within_problem_auc.pairs == 0


def shown(found: dict[str, Diagnostics]) -> str:
    console = Console(width=110, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(drawn(diagnostics_report(found), 110))
    return captured.get()


def test_tables_fit_a_terminal_of_110_columns() -> None:
    found = diagnose(random_traces(0, 300), False)
    text = shown({"task/part": found})
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 110
    steps = steps_of(found)
    assert f"{100 * (steps.baselines['length'].f1.value or 0):.1f}" in text
    assert f"Brier score {steps.calibration.brier:.3f}" in text
    assert "not scored" in text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    cpmi_eval.evaluate("random", "synthetic", limit=30, output_path=tmp_path / "run")
    return tmp_path / "run"


def test_show_diagnostics_as_json(run: Path, cli: Cli) -> None:
    code, out, _ = cli("show", str(run), "--diagnostics", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["path"] == str(run)
    read = read_run(run)
    found = diagnose_run(read)
    assert document["diagnostics"] == json.loads(json.dumps({part: one.as_dict() for part, one in found.items()}))
    (part,) = found
    steps = document["diagnostics"][part]["steps"]
    stored = read.summary["results"][part]
    for name in ("f1", "acc_error", "acc_correct", "step_auc"):
        assert steps["scorer"][name]["value"] == pytest.approx(stored[name]["value"])
        assert steps["scorer"][name]["n"] == stored[name]["n"]
    assert steps["calibration"]["n"] == stored["step_auc"]["n"]


def test_show_diagnostics_as_tables(run: Path, cli: Cli) -> None:
    code, out, err = cli("show", str(run), "--diagnostics")
    assert (code, err) == (0, "")
    assert out.startswith("synthetic/arithmetic")
    for words in (
        "longer steps are worse †",
        "AUC within position",
        "calibration error",
        "lowest score is on the last",
    ):
        assert words in out


def test_a_labeler_without_threshold(tmp_path: Path, cli: Cli) -> None:
    cpmi_eval.evaluate("length", "synthetic", limit=30, output_path=tmp_path / "run")
    (found,) = diagnose_run(read_run(tmp_path / "run")).values()
    steps = steps_of(found)
    assert steps.scorer.f1.value is None
    assert steps.at_oracle == replace(
        steps.baselines["length"], within_position_auc=steps.at_oracle.within_position_auc
    )
    assert steps.scorer.within_position_auc == steps.baselines["length"].within_position_auc
    assert steps.calibration.reason is not None
    code, out, _ = cli("show", str(tmp_path / "run"), "--diagnostics")
    assert code == 0
    assert "calibration: none, scores range from -" in out


def test_diagnostics_of_one_trace_are_refused(run: Path, cli: Cli) -> None:
    code, out, err = cli("show", str(run), "--diagnostics", "--trace", "synthetic-0")
    assert (code, out) == (2, "")
    assert "--diagnostics" in err
    assert "--trace" in err


def test_diagnostics_of_what_is_no_run(tmp_path: Path, cli: Cli) -> None:
    code, out, err = cli("show", str(tmp_path), "--diagnostics")
    assert (code, out) == (2, "")
    assert "is not a run directory" in err
