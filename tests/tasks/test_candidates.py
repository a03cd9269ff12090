"""Candidates: the file, its way to the benchmark's problems, steps, grading and groups of equal answers."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import realdata
from hypothesis import given
from hypothesis import strategies as st

from cpmi_eval import registry
from cpmi_eval.errors import DataError, UnknownNameError, UsageError
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.tasks.candidates import Line, Solution, read_candidates
from cpmi_eval.tasks.selection import grade, split_steps
from cpmi_eval.types import Problem, TaskData

GSM8K = [
    {"question": "Tom has 3 apples and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "A car costs $1,200. Two cars?", "answer": "2 * 1200\n#### 2,400"},
]
TRAIN = [{"question": "What is left of 9 after 2 go?", "answer": "#### 7"}]
MATH = [
    {"problem": "Find $x+1$ if $x=1$.", "level": "Level 1", "type": "Algebra", "solution": r"It is $\boxed{2}$."},
    {"problem": "Find $x-1$ if $x=1$.", "level": "Level ?", "type": "Algebra", "solution": r"So $\boxed{0}$."},
]
MATH500 = [{"problem": "What is $2^3$?", "solution": "...", "answer": "8", "subject": "Prealgebra", "level": 2}]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Return a local copy of the hub with a few made-up problems."""
    files = {
        "openai/gsm8k/test.jsonl": GSM8K,
        "openai/gsm8k/train.jsonl": TRAIN,
        "EleutherAI/hendrycks_math/test.jsonl": MATH,
        "HuggingFaceH4/MATH-500/test.jsonl": MATH500,
    }
    for name, rows in files.items():
        path = tmp_path / "hub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "hub"


def line(problem: str, *solutions: str | dict[str, Any], **more: Any) -> dict[str, Any]:
    made = [{"solution": one} if isinstance(one, str) else one for one in solutions]
    return {"problem": problem, "candidates": made, **more}


def load(hub: Path, *lines: Any, task: str = "gsm8k", subset: tuple[str, ...] = (), **args: Any) -> TaskData:
    path = hub.parent / "solutions.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    options = LoadOptions(subset, hub, 0, {"candidates": str(path), **args})
    return registry.load("tasks", task)().load(options)


def test_problems_carry_answers_and_groups(hub: Path) -> None:
    assert [(one.id, one.answer, one.groups) for one in registry.load("tasks", "gsm8k")().problems("test", hub)[0]] == [
        ("gsm8k-test-0", "7", {}),
        ("gsm8k-test-1", "2400", {}),
    ]
    assert registry.load("tasks", "gsm8k")().problems("train", hub)[0][0].id == "gsm8k-train-0"
    assert [(one.id, one.answer, one.groups) for one in registry.load("tasks", "math")().problems("test", hub)[0]] == [
        ("math-test-0", "2", {"level": "1", "subject": "Algebra"}),
        ("math-test-1", "0", {"level": "?", "subject": "Algebra"}),
    ]
    ((eight,), (origin,)) = registry.load("tasks", "math")().problems("math500", hub)
    assert (eight.id, eight.groups) == ("math-math500-0", {"level": "2", "subject": "Prealgebra"})
    assert origin.name == "HuggingFaceH4/MATH-500/test.jsonl"


def test_problems_of_nothing(hub: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'math500'"):
        registry.load("tasks", "math")().problems("math50", hub)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": " ", "answer": "#### 1"}, "row 1 gives no problem"),
        ({"question": "What?", "answer": "1"}, "row 1 is not valid: answer: no '####' line"),
        ({"question": "What?", "answer": "####"}, "row 1 gives no answer"),
    ],
)
def test_a_damaged_benchmark_names_the_row(hub: Path, row: dict[str, str], message: str) -> None:
    (hub / "openai/gsm8k/test.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        registry.load("tasks", "gsm8k")().problems("test", hub)


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "solutions.jsonl"
    solutions = [{"solution": "a\u2028b", "generator": "g", "is_correct": True}, {"solution": ""}]
    content = b"\xef\xbb\xbf" + json.dumps(line("P", *solutions, id="x", answer="7"), ensure_ascii=False).encode()
    path.write_bytes(content + b"\n\n" + json.dumps(line("Q")).encode())
    lines, origin = read_candidates(path)
    assert lines == {
        1: Line("P", (Solution("a\u2028b", "g", True), Solution("")), "7", "x"),
        3: Line("Q", ()),
    }
    assert (origin.name, origin.rows) == ("solutions.jsonl", 2)
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[1]", "is not valid: Expected `object`, got `array`"),
        ('{"problem": "P"}', "Object missing required field `candidates`"),
        ('{"candidates": []}', "Object missing required field `problem`"),
        ('{"problem": " ", "candidates": []}', "problem: blank, expected text"),
        ('{"problem": "P", "candidates": [], "answer": 7}', "answer: Expected `str | null`, got `int`"),
        ('{"problem": "P", "candidates": {}}', "candidates: Expected `array`, got `object`"),
        ('{"problem": "P", "candidates": ["x"]}', "candidates[0]: Expected `object`, got `str`"),
        ('{"problem": "P", "candidates": [{"text": "x"}]}', "candidates[0]: Object missing required field `solution`"),
        ('{"problem": "P", "candidates": [{"solution": null}]}', "candidates[0].solution: Expected `str`, got `null`"),
        ('{"problem": "P", "candidates": [{"solution": "\\ud800"}]}', "is damaged"),
        ('{"problem": "P", "candidates": [{"solution": "", "generator": 1}]}', "candidates[0].generator: Expected"),
        ('{"problem": "P", "candidates": [{"solution": "", "is_correct": 1}]}', "candidates[0].is_correct: Expected"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps(line("Fine", "x")) + "\n" + text + "\n")
    with pytest.raises(DataError, match=rf"solutions\.jsonl:2 .*{re.escape(message)}"):
        read_candidates(path)


def test_bad_lines_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "solutions.jsonl"
    path.write_text("{}\n" * 7)
    with pytest.raises(DataError, match="7 lines of candidates cannot be used") as raised:
        read_candidates(path)
    assert str(raised.value).count("solutions.jsonl:") == 5
    assert str(raised.value).endswith("... and 2 more")


def test_a_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl does not exist; `cpmi-eval generate`"):
        read_candidates(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no candidates; `cpmi-eval generate` makes"):
        read_candidates(tmp_path / "empty.jsonl")


def test_settings_are_checked(hub: Path) -> None:
    task = registry.load("tasks", "gsm8k")()
    for args in ({}, {"candidates": 3}, {"candidates": ""}):
        with pytest.raises(UsageError, match=r"needs a file of them: --candidates FILE.*`cpmi-eval generate`"):
            task.load(LoadOptions((), hub, 0, args))
    with pytest.raises(UnknownNameError, match="Did you mean 'candidates'"):
        task.load(LoadOptions((), hub, 0, {"candidate": "x"}))
    some = line(GSM8K[0]["question"], "7")
    with pytest.raises(UnknownNameError, match=r"unknown split 'lines'\. Did you mean 'line'"):
        load(hub, some, split="lines")
    with pytest.raises(UnknownNameError, match="unknown subset 'tests'"):
        load(hub, some, subset=("tests",))
    with pytest.raises(UsageError, match="one subset of gsm8k; choose one of test, train"):
        load(hub, some, subset=("test", "train"))


def test_candidates_become_items(hub: Path) -> None:
    # Quotes, spaces and the dollar's backslash differ between copies of a problem.
    data = load(
        hub,
        line("A car costs \\$1,200.  Two cars?", {"solution": "2 * 1200\nA: 2400.00", "generator": "g"}, "No idea."),
        line(GSM8K[0]["question"], "It is 8."),
    )
    first, second, third = data.items
    assert [item.trace.id for item in data.items] == ["gsm8k-test-1/0", "gsm8k-test-1/1", "gsm8k-test-0/0"]
    assert {item.subset for item in data.items} == {"test"}
    assert first.trace.problem == GSM8K[1]["question"]  # the benchmark's own copy
    assert (first.trace.steps, first.trace.answer) == (("2 * 1200", "A: 2400.00"), "2400")
    assert first.trace.cluster == second.trace.cluster == "gsm8k-test-1"
    assert (first.gold.first_error, first.gold.final_answer_correct) == (None, True)
    assert first.gold.candidate is not None and second.gold.candidate is not None
    assert (first.gold.candidate.answer, first.gold.candidate.groups) == (0, {"generator": "g"})
    assert (second.gold.candidate.answer, second.gold.final_answer_correct) == (None, False)
    assert second.gold.candidate.groups == {}
    assert third.gold.final_answer_correct is False
    assert [one.name for one in data.provenance] == ["openai/gsm8k/test.jsonl", "solutions.jsonl"]
    assert data.notes["test"] == {
        "split": "auto", "problems": 2, "with_candidates": 2, "candidates": 3, "per_problem": {"1": 1, "2": 1},
        "empty": 0, "no_answer": 1, "undecided": 0, "marks": {"marked": 0, "agree": 0, "disagree": []},
    }  # fmt: skip


def test_problems_that_differ_in_signs_only_are_told_apart(hub: Path) -> None:
    data = load(hub, line("Find $x - 1$ if $x = 1$.", "0"), line("Find $x+1$ if $x=1$.", "2"), task="math")
    assert [item.trace.cluster for item in data.items] == ["math-test-1", "math-test-0"]
    assert all(item.gold.final_answer_correct for item in data.items)
    with pytest.raises(DataError, match=":1: several problems of math test differ from this one in signs only"):
        load(hub, line("Find $x*1$ if $x=1$.", "0"), task="math")


def test_a_problem_of_another_subset_says_which(hub: Path) -> None:
    with pytest.raises(DataError, match=r":1: the problem is not in gsm8k test but in train: --subset train; it is"):
        load(hub, line(TRAIN[0]["question"], "7"))
    assert load(hub, line(TRAIN[0]["question"], "7"), subset=("train",)).items[0].gold.final_answer_correct is True
    with pytest.raises(DataError, match=r":2: the problem is not in gsm8k test, nor in train: 'Who\?'"):
        load(hub, line(GSM8K[0]["question"], "7"), line("Who?", "7"))
    (hub / "openai/gsm8k/train.jsonl").unlink()
    with pytest.raises(DataError, match=r":1: the problem is not in gsm8k test: 'Who\?'"):
        load(hub, line("Who?", "7"))


def test_another_reference_answer_is_an_error(hub: Path) -> None:
    question = GSM8K[1]["question"]
    assert load(hub, line(question, "x", answer="\\$2,400.00")).items
    with pytest.raises(DataError, match=":1: the answer is '2401', that of gsm8k-test-1 '2400'"):
        load(hub, line(question, "x", answer="2401"))


def test_a_problem_in_two_lines_is_an_error(hub: Path) -> None:
    with pytest.raises(DataError, match=":2: the problem is also that of line 1"):
        load(hub, line(GSM8K[0]["question"], "7"), line(GSM8K[0]["question"] + " ", "8"))


def test_what_is_empty_is_kept_apart(hub: Path) -> None:
    data = load(hub, line(GSM8K[0]["question"], " \n", "7", ""), line(GSM8K[1]["question"]))
    assert [item.trace.id for item in data.items] == ["gsm8k-test-0/1"]
    assert [(item.trace.id, item.trace.steps) for item in data.empty] == [
        ("gsm8k-test-0/0", ()),
        ("gsm8k-test-0/2", ()),
    ]
    assert all(item.gold.final_answer_correct is False for item in data.empty)
    notes = data.notes["test"]
    assert (notes["with_candidates"], notes["empty"], notes["no_answer"]) == (1, 2, 0)
    assert notes["per_problem"] == {"0": 1, "3": 1}


STEPS = [
    ("a\nb\n", ["a", "b"], ["a\nb"], ["a", "b"]), ("a\nb\n \t\nc", ["a\nb", "c"], ["a\nb", "c"], ["a", "b", "c"]),
    ("\n\n a\nb \n\n", ["a", "b"], ["a\nb"], ["a", "b"]), ("a\r\n\r\n\r\nb", ["a", "b"], ["a", "b"], ["a", "b"]),
    ("one", ["one"], ["one"], ["one"]), (" \n\n ", [], [], []),
]  # fmt: skip


@pytest.mark.parametrize(("solution", "auto", "blank", "by_line"), STEPS)
def test_steps(solution: str, auto: list[str], blank: list[str], by_line: list[str]) -> None:
    assert list(split_steps(solution, "auto")) == auto
    assert list(split_steps(solution, "blank")) == blank
    assert list(split_steps(solution, "line")) == by_line


@given(st.text(alphabet="ab \t\n\r", max_size=30), st.sampled_from(["auto", "blank", "line"]))
def test_no_text_is_lost_between_steps(solution: str, rule: str) -> None:
    steps = split_steps(solution, rule)
    assert all(step == step.strip() != "" for step in steps)
    assert "".join("".join(steps).split()) == "".join(solution.split())


def graded(reference: str, *solutions: str) -> list[tuple[int | None, bool | None]]:
    problem = Problem("p", "What?", reference)
    return [(one.group, one.verdict) for one in grade(problem, [Solution(text) for text in solutions])]


def test_equal_answers_are_one_group_in_order_of_appearance() -> None:
    found = graded(
        r"\frac12", r"\boxed{3}", r"\boxed{0.5}", "The answer is unknown.", "It is 3.0", r"\boxed{1/2}", "Hm"
    )
    assert found == [(0, False), (1, True), (2, False), (0, False), (1, True), (None, False)]


def test_a_group_is_right_or_wrong_as_a_whole() -> None:
    """5% equals 5 and 0.05, which are not equal: what equals the reference is together, whatever came first."""
    assert graded("5", r"\boxed{0.05}", r"\boxed{5\%}", r"\boxed{5}") == [(0, False), (1, True), (1, True)]


def test_what_cannot_be_decided_is_incorrect_and_counted(hub: Path) -> None:
    tower = r"\boxed{9^{9^{9^{9}}}}"
    data = load(hub, line(GSM8K[0]["question"], {"solution": tower, "is_correct": True}))
    assert data.items[0].gold.final_answer_correct is False
    notes = data.notes["test"]
    assert notes["undecided"] == 1
    assert notes["marks"] == {
        "marked": 1,
        "agree": 0,
        "disagree": [
            {"id": "gsm8k-test-0/0", "marked": True, "graded": None, "answer": "9^{9^{9^{9}}}", "reference": "7"}
        ],
    }


@pytest.mark.parametrize(
    ("task", "file", "n"), [("gsm8k", "gsm8k_test_openai_4", 5276), ("math", "math_100_qwen_8", 800)]
)
def test_our_grading_agrees_with_published_marks(task: str, file: str, n: int) -> None:
    folder = realdata.data_dir()
    path = folder / "candidates" / f"{file}.jsonl"
    if not path.is_file():
        pytest.skip(f"no real data: {path} does not exist")
    data = registry.load("tasks", task)().load(LoadOptions((), folder, 0, {"candidates": str(path)}))
    marks = data.notes["test"]["marks"]
    assert marks["marked"] == len(data.items) == n
    generator = {item.trace.id: item.gold.candidate.groups["generator"] for item in data.items if item.gold.candidate}
    rows = Counter(generator.values())
    differing = Counter(generator[one["id"]] for one in marks["disagree"])
    if task == "gsm8k":
        assert rows == dict.fromkeys(rows, 1319) and len(rows) == 4
        assert all(differing[name] <= 0.01 * rows[name] for name in rows)
        return
    # All of these are answers that are right but not written as the reference is.
    assert {(one["marked"], one["graded"]) for one in marks["disagree"]} == {(False, True)}
    assert {(one["answer"], one["reference"]) for one in marks["disagree"]} == {
        (r"4:30 \text{ p.m.}", r"\text{4:30 p.m.}"),
        ("10000", "10{,}000"),
    }
    levels = Counter(item.gold.candidate.groups["level"] for item in data.items if item.gold.candidate)
    assert levels == {"1": 88, "2": 128, "3": 192, "4": 192, "5": 200}
