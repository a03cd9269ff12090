"""The synthetic task against an oracle that reads its texts and shares no code with it."""

import json
import math
import re
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cpmi_eval import registry
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.protocols import LoadOptions, Task
from cpmi_eval.tasks.synthetic import (
    KINDS,
    Draft,
    Operand,
    Settings,
    Step,
    Synthetic,
    build,
    solve,
    spoilings,
)
from cpmi_eval.types import Item

EQUATION = re.compile(r"(\d+) ([-+*×/÷]) (\d+) = (\d+)")
ANSWER = re.compile(r"answer is (?:\\boxed\{)?(\d+)\}?\.$")
SIGN = {"×": "*", "÷": "/"}
TRUE_FACTS = {"dozen": 12, "pound": 16, "week": 7}
FACT = re.compile(r"here are (\d+) (?:\w+ )?in a (dozen|pound|week)")


class Equation(NamedTuple):
    a: int
    op: str
    b: int
    c: int

    @property
    def holds(self) -> bool:
        a, b = Fraction(self.a), Fraction(self.b)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[self.op]
        return value == self.c


def equations(steps: tuple[str, ...]) -> list[Equation]:
    """Read the one equation of every step."""
    read = []
    for step in steps:
        ((a, op, b, c),) = EQUATION.findall(step)
        read.append(Equation(int(a), SIGN.get(op, op), int(b), int(c)))
    return read


def numbers(text: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", text)]


def stated_answer(steps: tuple[str, ...]) -> str:
    found = ANSWER.search(steps[-1])
    assert found, steps[-1]
    return found[1]


def check_solution(problem: str, steps: tuple[str, ...], answer: str) -> None:
    """A correct solution: true equations and facts, operands that come from somewhere, every number used."""
    read = equations(steps)
    assert all(each.holds for each in read)
    assert stated_answer(steps) == answer == str(read[-1].c)
    used: Counter[int] = Counter()
    results: set[int] = set()
    for step, each in zip(steps, read, strict=True):
        facts = {unit: int(value) for value, unit in FACT.findall(step)}
        assert all(TRUE_FACTS[unit] == value for unit, value in facts.items())
        assert {each.a, each.b} <= {*numbers(problem), *results, *facts.values()}
        assert each.c > 0
        used.update((each.a, each.b))
        results.add(each.c)
    assert Counter(numbers(problem)) <= used
    # Every result is used later, up to the last one: no step is idle, so no error can pass without effect.
    for index, each in enumerate(read[:-1]):
        assert any(each.c in (later.a, later.b) for later in read[index + 1 :])


def check_error(draft: Draft) -> None:
    """The first error is where the gold says, of the kind recorded, and the rest follows from it."""
    trace, first = draft.item.trace, draft.item.gold.first_error
    assert 0 <= first < len(trace.steps) == len(draft.solution)
    assert trace.steps[:first] == draft.solution[:first]
    right, wrong = equations(draft.solution), equations(trace.steps)
    assert wrong[first].c != right[first].c
    check_kind(draft.kind, trace.problem, right[: first + 1], wrong[first])
    for index in range(first + 1, len(wrong)):
        assert wrong[index].holds
        assert wrong[index].op == right[index].op
        for now, then in ((wrong[index].a, right[index].a), (wrong[index].b, right[index].b)):
            carried = {wrong[at].c for at in range(index) if right[at].c == then}
            assert now == then or now in carried


def check_kind(kind: str | None, problem: str, right: list[Equation], wrong: Equation) -> None:
    true = right[-1]
    same = (wrong.a == true.a, wrong.op == true.op, wrong.b == true.b)
    assert wrong.holds == (kind != "arithmetic")
    if kind == "arithmetic":
        assert same == (True, True, True)
    elif kind == "operation":
        assert same == (True, False, True)
    else:
        assert same in {(False, True, True), (True, True, False)}
        was, now = (true.b, wrong.b) if same[0] else (true.a, wrong.a)
        if kind == "copy":
            assert was in numbers(problem)
            differing = sum(x != y for x, y in zip(str(was), str(now), strict=True))
            assert differing == 1 or str(was) == str(now)[::-1]
        elif kind == "unit":
            assert was in TRUE_FACTS.values()
        else:
            assert kind == "dropped"
            assert any(was == each.c and now in (each.a, each.b) for each in right[:-1])


def check(draft: Draft) -> None:
    trace, gold = draft.item.trace, draft.item.gold
    assert trace.answer is not None
    check_solution(trace.problem, draft.solution, trace.answer)
    assert gold.final_answer_correct == (stated_answer(trace.steps) == trace.answer)
    assert stated_answer(trace.steps) == str(equations(trace.steps)[-1].c)
    if gold.first_error == -1:
        assert draft.kind is None
        assert trace.steps == draft.solution
    else:
        check_error(draft)


def load(seed: int = 0, **args: object) -> tuple[Item, ...]:
    return Synthetic().load(LoadOptions(seed=seed, args=args)).items


@pytest.fixture(scope="module")
def drafts() -> list[Draft]:
    return [build(11, index, Settings()) for index in range(2000)]


def test_texts_agree_with_the_gold(drafts: list[Draft]) -> None:
    for draft in drafts:
        check(draft)


@given(
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6),
    steps=st.tuples(st.integers(2, 20), st.integers(2, 20)).map(sorted),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_holds_for_any_settings(seed: int, index: int, steps: list[int], share: float) -> None:
    draft = build(seed, index, Settings(min_steps=steps[0], max_steps=steps[1], error_share=share))
    assert steps[0] <= len(draft.item.trace.steps) <= steps[1]
    assert share == 0.5 or (draft.kind is not None) == bool(share)
    check(draft)


def test_the_oracle_notices_a_moved_error(drafts: list[Draft]) -> None:
    """A check that cannot fail proves nothing."""
    draft = next(each for each in drafts if each.item.gold.first_error == 1)
    for elsewhere in (0, 2):
        gold = replace(draft.item.gold, first_error=elsewhere)
        with pytest.raises(AssertionError):
            check(replace(draft, item=replace(draft.item, gold=gold)))
    with pytest.raises(AssertionError):
        check_solution(draft.item.trace.problem, draft.item.trace.steps, stated_answer(draft.item.trace.steps))


# 2 * 2 = 4; 4 dozen are 48; together 52; a quarter of that is 13.
WORKED = (
    Step("*", Operand(2), Operand(2), ()),
    Step("*", Operand(4), Operand(12, slips=(10, 6)), ()),
    Step("+", Operand(step=0), Operand(step=1), ()),
    Step("/", Operand(step=2), Operand(4), ()),
)


@pytest.mark.parametrize(
    ("kind", "at", "expected"),
    [
        ("operation", 0, []),  # 2 + 2 is no error
        ("operation", 2, []),  # 4 - 48 is negative
        ("operation", 3, [(52, "-", 4, 48), (52, "*", 4, 208)]),
        ("unit", 0, []),
        ("unit", 1, [(4, "*", 10, 40), (4, "*", 6, 24)]),
        ("dropped", 0, []),
        ("dropped", 2, [(4, "+", 4, 8), (4, "+", 12, 16)]),  # 2 + 48 cannot be quartered
        ("dropped", 3, [(4, "/", 4, 1)]),
        ("copy", 2, []),
        ("copy", 3, [(52, "/", 2, 26)]),
        ("arithmetic", 2, [(4, "+", 48, c) for c in (56, 48, 60, 44, 64, 40, 72, 32)]),
    ],
)
def test_errors_worked_by_hand(kind: str, at: int, expected: list[tuple[int, str, int, int]]) -> None:
    lines = solve(WORKED)
    assert [line.c for line in lines] == [4, 48, 52, 13]
    found = list(spoilings(kind, at, WORKED, lines))
    assert [each[at] for each in found] == expected
    assert all(each[:at] == lines[:at] and len(each) == 4 for each in found)


def test_a_misread_number_is_another_number() -> None:
    steps = (Step("+", Operand(33), Operand(21), ()),)
    found = [each[0] for each in spoilings("copy", 0, steps, solve(steps))]
    assert (33, "+", 12, 45) in found
    assert all(line.c != 54 for line in found)


def test_every_kind_of_error_occurs(drafts: list[Draft]) -> None:
    seen = Counter(draft.kind for draft in drafts if draft.kind)
    assert set(seen) == set(KINDS)
    assert min(seen.values()) >= 0.02 * seen.total()
    assert max(seen.values()) <= 0.5 * seen.total()


def test_texts_are_clean(drafts: list[Draft]) -> None:
    for draft in drafts:
        trace = draft.item.trace
        for text in (trace.problem, *trace.steps):
            assert "{" not in text.replace("\\boxed{", "")
            assert "  " not in text
            assert text == text.strip()
            assert text[0].isupper() or text[0].isdigit()
            assert text[-1] in ".?"
        assert trace.problem.endswith("?")
        assert all(len(re.findall(r"[.:?](?: |$)", step)) <= 4 for step in trace.steps)
        assert min(numbers(trace.problem)) >= 2


def test_ids_and_clusters_say_nothing(drafts: list[Draft]) -> None:
    assert drafts[7].item.trace.id == "synthetic-0007"
    assert [draft.item.trace.id for draft in drafts] == [f"synthetic-{index:04d}" for index in range(len(drafts))]
    assert all(re.fullmatch(r"synthetic-problem-\d{4,}", draft.item.trace.cluster) for draft in drafts)
    # Neither half of a pair is more often wrong, nor are shared problems.
    shared = Counter(draft.item.trace.cluster for draft in drafts)
    for group in (drafts[::2], drafts[1::2], [each for each in drafts if shared[each.item.trace.cluster] == 2]):
        assert share_wrong(group) == pytest.approx(0.5, abs=0.08)


def test_clusters_are_problems(drafts: list[Draft]) -> None:
    groups = defaultdict(list)
    for draft in drafts:
        groups[draft.item.trace.cluster].append(draft)
    assert len({draft.item.trace.problem for draft in drafts}) == len(groups) < len(drafts)
    for group in groups.values():
        assert len({(each.item.trace.problem, each.item.trace.answer) for each in group}) == 1
    assert any({each.kind is None for each in group} == {True, False} for group in groups.values())
    assert len({(draft.item.trace.problem, draft.item.trace.steps) for draft in drafts}) == len(drafts)


def share_wrong(drafts: list[Draft]) -> float:
    return sum(draft.item.gold.first_error >= 0 for draft in drafts) / len(drafts)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 1.0])
def test_error_share(share: float) -> None:
    drafts = [build(3, index, Settings(error_share=share)) for index in range(1500)]
    # Four standard errors of a proportion.
    assert share_wrong(drafts) == pytest.approx(share, abs=4 * (share * (1 - share) / len(drafts)) ** 0.5)


def test_error_share_leaves_the_problems_alone() -> None:
    few, many = ([build(3, at, Settings(error_share=share)) for at in range(50)] for share in (0.0, 1.0))
    for one, other in zip(few, many, strict=True):
        assert one.item.trace.problem == other.item.trace.problem
        assert one.solution == other.solution


def test_first_errors_are_anywhere() -> None:
    settings = Settings(min_steps=5, max_steps=5, error_share=1.0)
    seen = Counter(build(4, index, settings).item.gold.first_error for index in range(1500))
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert all(count == pytest.approx(300, abs=65) for count in seen.values())


def test_lengths_do_not_tell_right_from_wrong(drafts: list[Draft]) -> None:
    right = [draft.item.trace for draft in drafts if draft.kind is None]
    wrong = [draft.item.trace for draft in drafts if draft.kind is not None]
    counts = [Counter(len(trace.steps) for trace in group) for group in (right, wrong)]
    for length in range(3, 8):
        shares = [each[length] / each.total() for each in counts]
        assert shares[0] == pytest.approx(shares[1], abs=0.08)
    characters = [sum(len(" ".join(trace.steps)) for trace in group) / len(group) for group in (right, wrong)]
    assert characters[0] == pytest.approx(characters[1], rel=0.06)


def test_stories_vary(drafts: list[Draft]) -> None:
    stripped = {re.sub(r"\d+", "#", step) for draft in drafts for step in draft.item.trace.steps}
    assert len(stripped) > 1000
    assert len({draft.item.trace.answer for draft in drafts}) > 300


def test_same_seed_same_items_and_a_longer_set_begins_with_the_shorter() -> None:
    assert load(5, n=30) == load(5, n=30)
    assert load(5, n=80)[:30] == load(5, n=30)
    assert not set(load(5, n=30)) & set(load(6, n=30))


def test_provenance_is_a_hash_of_the_content() -> None:
    first, again, other = (Synthetic().load(LoadOptions(seed=seed, args={"n": 20})) for seed in (1, 1, 2))
    (provenance,) = first.provenance
    assert (provenance.name, provenance.revision, provenance.rows) == ("synthetic", None, 20)
    assert re.fullmatch(r"[0-9a-f]{64}", provenance.sha256 or "")
    assert first.provenance == again.provenance != other.provenance


def test_default_set() -> None:
    data = Synthetic().load(LoadOptions())
    assert len(data.items) == 200
    assert {item.subset for item in data.items} == {"arithmetic"}
    json.dumps([asdict(item) for item in data.items])


def test_is_a_registered_task() -> None:
    task = Synthetic()
    assert isinstance(task, Task)
    assert registry.load("tasks", "synthetic") is Synthetic
    assert (task.name, task.subsets, task.metrics) == ("synthetic", ("arithmetic",), ("first_error", "step_auc"))
    assert task.synthetic is True
    assert task.summary


def test_subsets_and_data_dir(tmp_path: Path) -> None:
    options = LoadOptions(subsets=("arithmetic",), data_dir=tmp_path / "absent", args={"n": 3})
    assert Synthetic().load(options).items == load(n=3)
    with pytest.raises(UnknownNameError, match=r"unknown subset .* Did you mean 'arithmetic'\?"):
        Synthetic().load(LoadOptions(subsets=("arithmetic", "arithmetics")))


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        *(("n", value, "whole number between 1 and 100000") for value in (0, -1, 100_001, "many", 2.0, True, None)),
        *(("min_steps", value, "whole number between 2 and 20") for value in (1, 21, "", [3])),
        *(("max_steps", value, "whole number between 2 and 20") for value in (1, 21)),
        *(("error_share", value, "number between 0.0 and 1.0") for value in (-0.1, 1.01, math.nan, False, "half")),
    ],
)
def test_bad_values_are_refused(name: str, value: object, limits: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{name} must be a {limits}, not {value!r}")):
        load(**{name: value})


def test_unknown_and_contradictory_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown synthetic task setting 'max_step'\. Did you mean 'max_steps'"):
        load(max_step=4)
    with pytest.raises(UsageError, match="min_steps=9 is more than max_steps=7"):
        load(min_steps=9)
