"""Comparing answers: pairs of every kind worked by hand, what must hold for all, hostile input, real answers."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import data_dir

from cpmi_eval.grading import verdict
from cpmi_eval.grading.comparing import is_number
from cpmi_eval.grading.reader import read, words
from cpmi_eval.grading.units import UNITS

PAIRS = [
    (kind, *line.partition(sign))
    for kind, _, lines in (
        part.partition("\n") for part in Path(__file__).with_name("pairs.txt").read_text("utf-8").split("\n## ")[1:]
    )
    for line in lines.splitlines()
    for sign in (" == ", " != ")
    if sign in line
]


@pytest.mark.parametrize(("kind", "a", "sign", "b"), PAIRS)
def test_pairs(kind, a, sign, b):
    assert verdict(a, b) is verdict(b, a) is (sign == " == ")


@pytest.mark.parametrize(("a", "b"), [("", "5"), ("", "0"), (" ", "x")])
def test_nothing_equals_no_answer(a, b):
    assert verdict(a, b) is verdict(b, a) is False
    assert verdict(a, a) is True


def test_numbers_and_words_are_told_apart():
    assert words(r"\text{east}") == "east"
    assert words("C") is words("x+y") is words("three") is words("$x$") is None
    for number in (r"-1{,}250.50 \text{ dollars}", r"\frac{3}{4}", "3 million", "1 1/2", r"5\%", "12 cm"):
        assert is_number(number), number
    for other in ("(1,2)", r"\frac{1}{0}", "x", r"\sqrt{2}", "Tuesday", "9" * 400):
        assert not is_number(other), other


EXPLOSIVE = [
    r"9^{9^{9^9}}", "9**9**9**9", "(((((9^99)^99)^99)^99)^99)^{9^{9^9}}", r"10^{99999999999999}",
    r"9^\frac{999999999999999}{1}", "(99!)!", "3!!!!!", r"\binom{100000000}{50000000}", "1e999999999",
    r"\sin(10^{99999})", "(" * 40 + "1+x" + ")" * 40, "|" * 200, r"\sqrt" * 50 + "2", r"\sum_{k=1}^{1000000000} k^{k}",
    r"\int_0^1 e^{\sin(\cos(x^x))} dx", r"\lim_{x \to 0} \frac{\sin x}{x}",
]  # fmt: skip


@pytest.mark.parametrize("answer", EXPLOSIVE)
def test_what_would_explode_is_equal_to_its_own_text_only(answer):
    assert verdict(answer, rf"$\displaystyle {answer}$") is True
    assert verdict(answer, "7") is verdict("7", answer) is None


@pytest.mark.parametrize(
    ("answer", "near"),
    [
        ("2^{100000}", "2^{100001}"), ("7^{7^7}", "7^{49}"), ("9^{9^9}", "9^{81}"), ("2^{9999}+1", "2^{9999}+2"),
        (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3\cdot 2^{2006}}"),
        (r"\frac{1}{2004!}", r"\frac{1}{2005!}"), ("(x+1)" * 60, "(x+1)" * 59),
        (r"x^{50}+y^{50}=\sin(x)^{30}", r"x^{50}+y^{50}=\sin(x)^{31}"), ("(x+y+z+w)^{9999}", "(x+y+z)^{9999}"),
        ("7" * 4000, "7" * 3999 + "8"),
    ],
)  # fmt: skip
def test_large_values_are_told_apart(answer, near):
    assert verdict(answer, near) is verdict(near, answer) is False


def test_what_is_rounded_and_agrees_is_not_called_equal():
    assert verdict("2^{100000}+1", "2^{100000}") is None
    assert verdict("2^{100000}", "(2^{10})^{10000}") is None


def test_verdicts_are_those_of_any_thread():
    cases = [(r"\sin^2 t+\cos^2 t", "1"), (r"\int_0^1 e^{\cos(\sin(x^x))} dx", "7"), (r"2\sqrt{25}", "10.0")]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: verdict(*pair), cases * 20))
    assert found == [True, None, True] * 20


PIECES = [
    *"0123456789abxyACi .,:;+-*/^_=<>()[]{}|\\$%!'\"°√π½",
    *(r"\frac", r"\sqrt", r"\text{", r"\pm", r"\cup", r"\in", r"\sin", r"\infty", r"\begin{pmatrix}", r"\end{pmatrix}"),
    *(r"\\", "&", " cm", " and ", " million", " per ", "p.m.", r"\{", r"\}", r"\overline", r"\binom", r"\pmod"),
]
ANYTHING = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))


@given(ANYTHING, ANYTHING)
@settings(max_examples=500, deadline=None)
def test_comparing_never_raises_and_is_symmetric(a, b):
    assert verdict(a, b) is verdict(b, a)


@given(ANYTHING)
@settings(max_examples=500, deadline=None)
def test_comparing_is_reflexive(text):
    assert verdict(text, text) is True
    assert verdict(text, f" {text}\n") is True


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
@settings(max_examples=100, deadline=None)
def test_fractions_are_compared_exactly(a, b):
    assert verdict(f"{a.numerator}/{a.denominator}", rf"\frac{{{b.numerator}}}{{{b.denominator}}}") is (a == b)


@given(st.decimals(-(10**9), 10**9, places=6), st.integers(0, 40))
@settings(deadline=None)
def test_decimals_are_compared_exactly(value, power):
    digits = f"{value:f}"
    assert verdict(digits, f"{digits}000") is True
    assert verdict(digits, f"{digits}1") is False
    assert verdict(rf"{digits} \cdot 10^{{{power}}}", f"{digits}e{power}") is True


@given(st.integers(1, 10**6), st.sampled_from(sorted(unit for unit in UNITS if unit.isalpha())))
@settings(deadline=None)
def test_a_unit_may_be_left_out_and_must_not_differ(value, unit):
    assert verdict(rf"{value} \text{{ square {unit} }}", str(value)) is True
    assert verdict(rf"{value} \text{{ square {unit} }}", rf"{value} \text{{ furlongs }}") is False


def _math_answers():
    path = data_dir() / "EleutherAI/hendrycks_math/test.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return sorted({json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()})


def test_every_answer_of_math_is_read_and_equals_itself():
    answers = _math_answers()
    unread = [answer for answer in answers if read(answer).kind == "text" and words(answer) is None]
    assert unread == [r"\text{June 20}"]
    assert all(verdict(answer, rf"$\displaystyle {answer}$") is True for answer in answers)


def test_answers_of_math_differ_unless_they_are_the_same_number():
    """Of a sample of pairs; those that are equal differ in notation or in a unit."""
    rng = random.Random(0)
    answers = _math_answers()
    pairs = [rng.sample(answers, 2) for _ in range(3000)]
    assert all(verdict(*pair) is verdict(*reversed(pair)) for pair in pairs)
    assert sum(verdict(*pair) is not False for pair in pairs) <= 3


def test_a_double_superscript_is_undecided():
    assert verdict("2^{3}^{2}", "512") is None
    assert verdict("2^{3^{2}}", "512") is True
