"""Threshold protocols against tables by hand and against trying every cut."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cpmi_eval.errors import UsageError
from cpmi_eval.metrics import first_error, thresholds
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.metrics.thresholds import decide, first_below, fit, fold_of, parse
from cpmi_eval.records import Record
from cpmi_eval.types import Gold


def record(
    first: int | None,
    *scores: float,
    part: str = "t/a",
    cluster: str = "",
    name: str = "",
    failed: bool = False,
    decision: int | None = None,
) -> Record:
    steps = tuple("x" for _ in scores)
    own = None if failed else tuple(scores)
    return Record(name, part, cluster or name, "p", steps, Gold(first), own, None, None, {}, {}, decision)


def f1_at(records: Sequence[Record], cut: float) -> float | None:
    outcomes = [
        Outcome(one.gold, one.scores, None if one.scores is None else first_below(one.scores, cut)) for one in records
    ]
    return first_error.compute(outcomes).metrics()["f1"].value


@pytest.mark.parametrize("text", ["native", "fixed:0.25", "fixed:-1000", "dev:gsm8k", "crossfit:5", "oracle"])
def test_protocols_are_written_as_they_are_read(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "native:1", "oracle:2", "fixed", "fixed:nan", "fixed:inf", "dev", "dev:", "crossfit", "crossfit:1", "best:3"],
)
def test_others_are_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="use native, fixed:x, dev:SUBSET, crossfit:K or oracle"):
        parse(text)


def test_the_best_cut_by_hand() -> None:
    """Wrong steps score .2 and .3, the lowest good ones .6, .5 and .25: above .3 and up to .5 both errors are found."""
    records = [record(1, 0.9, 0.2), record(0, 0.3, 0.1), record(-1, 0.6), record(-1, 0.5, 0.7), record(-1, 0.25)]
    assert fit(records) == pytest.approx(0.4)  # halfway between .3 and .5, the scores next to it
    assert f1_at(records, 0.4) == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))


def test_a_step_before_the_error_that_scores_lower_makes_it_unreachable() -> None:
    records = [record(1, 0.1, 0.2), record(-1, 0.5)]
    assert all(f1_at(records, cut) == 0 for cut in (0.05, 0.15, 0.3, 0.6))
    assert fit(records) == 0.1  # nothing helps: the lowest cut, below which no step is called wrong


def test_the_lowest_of_equally_good_cuts_is_taken() -> None:
    # the error .1 is found from above .1 on; the correct traces .2 and .9 are lost one by one
    records = [record(0, 0.1), record(-1, 0.9), record(-1, 0.2)]
    assert fit(records) == pytest.approx(0.15)


def test_neighbouring_floats_still_get_a_cut_between_them() -> None:
    low, high = 1.0, math.nextafter(1.0, 2.0)
    cut = fit([record(0, low), record(-1, high)])
    assert (low < cut, high < cut) == (True, False)


def test_failed_traces_count_and_set_no_cut() -> None:
    assert fit([record(0, failed=True), record(-1, failed=True)]) == 0.0
    assert fit([record(0, 0.1), record(-1, 0.9), record(-1, failed=True)]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "records", [[], [record(-1, 0.5)], [record(0, 0.5)], [record(None, 0.5), record(0, 0.1)]], ids=len
)
def test_one_class_alone_fits_nothing(records: list[Record]) -> None:
    with pytest.raises(UsageError, match="both are needed"):
        fit(records)


SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(-5, 5))


@st.composite
def annotated(draw: st.DrawFn) -> list[Record]:
    found = []
    for number in range(draw(st.integers(2, 12))):
        scores = draw(st.lists(SCORES, min_size=1, max_size=4))
        first = draw(st.integers(-1, len(scores) - 1))
        found.append(record(first, *scores, name=str(number), failed=draw(st.integers(0, 9)) == 0))
    assume({one.gold.first_error >= 0 for one in found if one.gold.first_error is not None} == {True, False})
    return found


@given(annotated())
def test_no_cut_is_better(records: list[Record]) -> None:
    found = f1_at(records, fit(records))
    values = sorted({score for one in records for score in one.scores or ()})
    tried = [*values, *(math.nextafter(value, math.inf) for value in values), -10.0, 10.0]
    assert found is not None
    assert found == pytest.approx(max(f1_at(records, cut) or 0.0 for cut in tried), abs=1e-12)


def test_native_is_the_scorers_own_decision_where_it_has_one() -> None:
    records = [record(0, 0.1, 0.9, decision=1), record(-1, 0.1), record(0, failed=True)]
    found = decide(parse("native"), 0.5, records, 0)
    assert (found.predictions, found.undecided, found.value) == ((1, 0, None), False, 0.5)
    assert decide(parse("fixed:0.5"), None, records, 0).predictions == (0, 0, None)
    assert decide(parse("native"), None, [record(-1, 0.1)], 0).undecided


TWO_PARTS = [
    *(record(0, 0.2, part="t/a", name="a0") for _ in range(1)),
    record(-1, 0.4, part="t/a", name="a1"),
    record(0, 0.25, part="t/b", name="b0"),
    record(-1, 0.35, part="t/b", name="b1"),
    record(-1, 0.28, part="t/b", name="b2"),
]


def test_dev_fits_on_its_subset_and_holds_it_out() -> None:
    found = decide(parse("dev:a"), None, TWO_PARTS, 0)
    assert found.cuts == {"t/a": (pytest.approx(0.3),)}
    assert found.held_out == "t/a"
    assert found.predictions[2:] == (0, -1, 0)  # .3 calls the last one wrong; b's own best cut would not
    assert not found.undecided


@pytest.mark.parametrize("protocol", ["dev:c", "dev:t"])
def test_dev_needs_its_subset_and_another(protocol: str) -> None:
    with pytest.raises(UsageError, match="this run has only a, b"):
        decide(parse(protocol), None, TWO_PARTS, 0)
    with pytest.raises(UsageError, match="this run has only a"):
        decide(parse("dev:a"), None, TWO_PARTS[:2], 0)


def test_oracle_fits_each_part_on_itself() -> None:
    found = decide(parse("oracle"), None, TWO_PARTS, 0)
    assert found.cuts == {"t/a": (pytest.approx(0.3),), "t/b": (pytest.approx(0.265),)}
    assert found.predictions == (0, -1, 0, -1, -1)


def test_a_fold_is_decided_by_the_others_only() -> None:
    records = [record(-1 if i % 2 else 0, i / 20 + 0.3 * (i % 2), name=str(i), cluster=f"p{i // 2}") for i in range(20)]
    folds = fold_of(records, 5, seed=3)
    found = decide(parse("crossfit:5"), None, records, 3)
    for fold in range(5):
        cut = fit([one for one, other in zip(records, folds, strict=True) if other != fold])
        assert found.cuts["t/a"][fold] == cut
        for one, other, prediction in zip(records, folds, found.predictions, strict=True):
            if other == fold:
                assert prediction == first_below(one.scores or (), cut)
    changed = [
        one if other else record(0, -9.0, name=one.id, cluster=one.cluster)
        for one, other in zip(records, folds, strict=True)
    ]
    again = decide(parse("crossfit:5"), None, changed, 3)
    assert again.cuts["t/a"][0] == found.cuts["t/a"][0]  # fold 0's own traces have no say in its cut


def test_problems_are_never_split_and_folds_are_even() -> None:
    records = [record(-1, 0.5, name=str(i), cluster=f"p{i % 13}") for i in range(60)]
    folds = fold_of(records, 4, seed=0)
    by_problem = {
        one.cluster: {f for o, f in zip(records, folds, strict=True) if o.cluster == one.cluster} for one in records
    }
    assert all(len(found) == 1 for found in by_problem.values())
    sizes = [sum(found == {fold} for found in by_problem.values()) for fold in range(4)]
    assert sorted(sizes) == [3, 3, 3, 4]
    assert fold_of(records, 4, seed=1) != folds
    with pytest.raises(UsageError, match="needs at least 14 problems"):
        fold_of(records, 14, seed=0)


def test_what_is_said_of_a_threshold_is_plain_data() -> None:
    assert decide(parse("native"), 0.5, TWO_PARTS, 0).as_dict() == {
        "protocol": "native",
        "value": 0.5,
        "undecided": False,
    }
    found = decide(parse("dev:a"), None, TWO_PARTS, 0).as_dict()
    assert (found["protocol"], found["held_out"], list(found["cuts"])) == ("dev:a", "t/a", ["t/a"])
    assert thresholds.Protocol("crossfit", folds=3).fitted
    assert not thresholds.Protocol("fixed", value=1.0).fitted
