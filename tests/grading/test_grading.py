"""Which answer a rollout ends in, and whether it is right: in bounded time, whatever a model writes."""

import threading

import pytest

from cpmi_eval.grading import verdict
from cpmi_eval.labelers.grading import Grade, grade, rollout_answer

STATED_STEP = (r"We get \boxed{3}.", "Then 4.")
PLAIN_STEP = ("Add 1 and 2.", "That makes 4.")


@pytest.mark.parametrize(
    ("steps", "text", "answer"),
    [
        # a statement of the continuation, whichever way it is made, comes first
        (STATED_STEP, r"So \boxed{7}, as 5 < 9.", "7"), (STATED_STEP, "The answer is 7. And 9.", "7"),
        (STATED_STEP, "#### 7", "7"), (PLAIN_STEP, r"\boxed{7} 9", "7"),
        # then one of the steps
        (STATED_STEP, "Which is 9.", "3"), (STATED_STEP, "", "3"),
        (("The answer is 8.", "Check: 2 * 4."), "Right, 2 * 4 holds.", "8"),
        # then the last number of the continuation
        (PLAIN_STEP, "And 5 more: 9", "9"), (("No numbers.",), "Nine, that is 9", "9"),
        # then the last number of the steps
        (PLAIN_STEP, "Done.", "4"), (PLAIN_STEP, "", "4"),
        # then there is none
        (("No numbers.",), "None at all.", None), ((), "", None),
        # a box that is never closed states nothing
        (PLAIN_STEP, r"\boxed{7", "7"), (STATED_STEP, r"\boxed{7", "3"), (STATED_STEP, r"\boxed{}", "3"),
        # the last statement counts
        (PLAIN_STEP, r"\boxed{7}, no: \boxed{8}", "8"),
    ],
)  # fmt: skip
def test_where_the_answer_is_found(steps, text, answer):
    assert rollout_answer(steps, text, is_complete=True) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{7}", "7"), (r"So \boxed{7} because", "7"), (r"\boxed{7}, or rather \boxed{8", "7"),
        ("The answer is 7.\nLet me check", "7"), ("#### 7\nCheck", "7"), ("#### 7\n", "7"),
        ("It makes 7", None),  # a number is no statement
        ("", None), (r"\boxed{7", None),
        # a statement that the cut goes through may be half of another one
        ("The answer is 7", None), ("The answer is 7.", None), ("#### 7", None), (r"\boxed 7", None),
    ],
)  # fmt: skip
def test_of_a_rollout_that_was_cut_off_only_whole_statements_count(text, answer):
    for steps in (STATED_STEP, PLAIN_STEP):  # what was given is not what it came to
        assert rollout_answer(steps, text, is_complete=False) == answer


def test_a_cut_off_rollout_is_no_success_by_chance():
    assert grade("4", PLAIN_STEP, "so that", is_complete=True) == Grade("4", True)
    assert grade("4", PLAIN_STEP, "so that", is_complete=False) == Grade(None, False)
    assert grade("12", (), "The answer is 12", is_complete=False).correct is False  # of 120, say
    assert grade("12", (), r"\boxed{12} and", is_complete=False) == Grade("12", True)


@pytest.mark.parametrize(
    ("reference", "answer", "correct"),
    [
        ("3/4", r"\frac{3}{4}", True), (r"\frac{3}{4}", "0.75", True), (r"\frac{3}{4}", r"\dfrac34", True),
        ("1.5", r"1\frac{1}{2}", True), ("3/4", r"\frac{4}{3}", False), ("12", r"12 \text{ cm}", True),
        (r"12\text{ cm}", r"12\text{ m}", False), ("1200", "1,200", True), ("1200", r"1{,}200", True),
        (r"\$1,200", "1200", True), ("1,200", "1,201", False), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
        ("2x+2", "2(x+1)", True), ("2x+2", "2x+1", False), ("x=3", "3", True), ("(1,2]", r"\left(1, 2\right]", True),
        ("(1,2]", "(1,2)", False), ("(1,2)", "(2,1)", False), (r"(-\infty, 3]", r"\left(-\infty,3\right]", True),
        ("5%", "5", True), (r"5\%", "0.05", True), (r"5\%", "0.5", False), ("(C)", "C", True),
        ("(C)", r"\text{C}", True), ("(C)", "(D)", False), (r"\text{Tuesday}", "tuesday", True), ("12", "-12", False),
        ("12", "", False), ("", "12", False), ("90", r"90^\circ", True),
    ],
)  # fmt: skip
def test_equality_is_mathematical(reference, answer, correct):
    got = grade(reference, ("No numbers.",), rf"So \boxed{{{answer}}}.", is_complete=True)
    assert got == Grade(answer or None, correct)
    assert verdict(answer, reference) is verdict(reference, answer)


HOSTILE = {
    "tower": "9^{9^{9^9}}", "power": "10^{10^{10^{10}}}", "parentheses": "(" * 5000 + "1" + ")" * 5000,
    "braces": "{" * 5000 + "1" + "}" * 5000, "fractions": r"\frac{1}{" * 40 + "2" + "}" * 40,
    "roots": r"\sqrt{" * 40 + "2" + "}" * 40, "digits": "7" * 100_000, "terms": "x+" * 50_000 + "1",
    "power of a factorial": "2^{30!}", "binomial": r"\binom{99999999}{4999999}", "exponent": "1e999999999",
    "sum": r"\sum_{n=1}^{99999999} \frac{1}{n^2+n+1}", "product": r"\prod_{n=1}^{9999999} (n^2+1)",
    "series": r"\sum_{n=1}^{\infty} \frac{\sin(n^2)}{n^3+1}", "integral": r"\int \sin(x^2)\cos(x^3)e^{x}\,dx",
}  # fmt: skip
LARGE = {  # large, and yet told apart
    "long power": "7^{999999}",
    "longer power": "10^{10^{10}}",
    "factorial": "99999999!",
    "spaced factorial": "99999999 !",
    "factorials": "((3!)!)!",
    "expansion": "(x+y+z+w)^{9999}",
}


def hostile_grade(answer):
    return grade("x+1", ("No numbers.",), rf"\boxed{{{answer}}}", is_complete=True)


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_answer_is_unchecked(answer):
    assert hostile_grade(answer) == Grade(answer, None, "unchecked")
    assert verdict("x+1", answer) is verdict(answer, "x+1") is None


@pytest.mark.parametrize("answer", LARGE.values(), ids=LARGE.keys())
def test_a_large_answer_is_decided(answer):
    assert hostile_grade(answer) == Grade(answer, False)
    assert verdict("x+1", answer) is False


def test_other_threads_grade_as_the_main_one():
    cases = [(r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"), ("x^2-4", "(x-2)(x+2)"), ("7", "8"), ("a", "b")]
    cases += [(answer, answer) for answer in HOSTILE.values()]
    found = {}

    def work(name):
        found[name] = [grade(reference, (), rf"\boxed{{{answer}}}", True) for reference, answer in cases]

    workers = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(timeout=60)
    work("main")
    assert found[0] == found[1] == found["main"]
    assert [one.correct for one in found["main"][:3]] == [True, True, False]
    assert all(one.correct is True for one in found["main"][-len(HOSTILE) :])  # the same text needs no evaluation


def test_undecided_is_not_wrong():
    assert verdict("9^{9^{9^9}}", "9^{9^{9^9}}") is True
    assert verdict("9^{9^{9^9}}", "1") is None
    assert verdict("2", "1") is False
    assert verdict("x+" * 200 + "1", "x+" * 200 + "2") is None
    assert verdict("x+" * 200 + "1", f"${'x+' * 200}1$") is True


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 50_000, r"\boxed{1}" * 50_000, r"\boxed{" + "{}" * 50_000 + "}", "answer is " * 30_000,
        "answer" + "*" * 100_000, ("answer" + " " * 100) * 1_000, "####" * 50_000, "1,111" * 40_000, "1/" * 100_000,
        "-" * 200_000, "$" * 200_000, "answer is " + "**" * 50_000 + "1" + "**" * 50_000, "answer: " + ". " * 100_000,
        "answer is \x00\ud800\U0001d7d7",
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
@pytest.mark.parametrize("is_complete", [True, False])
def test_long_and_odd_texts_are_read(text, is_complete):
    for steps, continuation in (((), text), ((text,), "")):
        assert grade("x+1", steps, continuation, is_complete).correct is not True
