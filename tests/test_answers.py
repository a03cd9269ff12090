"""Finding and comparing final answers: tables worked by hand, properties, hostile input, real answers."""

from __future__ import annotations

import json
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import data_dir

from cpmi_eval.answers import clean, final_answer, last_boxed
from cpmi_eval.equality import equal, is_tame, normalize, plain_number, words

# --- finding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{ a{b}c }", "a{b}c"),
        (r"\boxed 5$.", "5"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{3} but \boxed{4", "3"),
        (r"\boxed{4", None),
        (r"\boxed{}", ""),
        (r"\boxedness{4}", None),
        ("no box", None),
        ("", None),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"The answer is 3. Check: \boxed{4}", "4"),
        ("She has 3 + 4 = <<3+4=7>>7 left.\n#### 7", "7"),
        ("#### 1,200\n", "1,200"),
        ("#### Conclusion\nThe answer is 5.", "5"),
        ("The answer is: **$\\frac12$**.", r"\frac12"),
        ("The answer is 3.5. I hope it is correct.", "3.5"),
        ("Final answer: \\(x + 1\\)\nDone", "x + 1"),
        ("**Final Answer:**\n\n$12$", "12"),
        ("The answer is 5 apples.", "5 apples"),
        ("so it costs $1,200.50.", "1,200.50"),
        ("the change is -5 degrees", "-5"),
        ("10-5", "5"),
        ("that is 3/4 of it", "3/4"),
        ("about .5 of it", ".5"),
        ("I do not know", None),
        ("", None),
        (r"\boxed{}. The answer is 3", "3"),
    ],
)
def test_final_answer(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (" **$12$**. ", "12"),
        (r"\$5", r"\$5"),
        ("$5", "5"),
        (r"\[x\]", "x"),
        ("$x$ and $y$", "$x$ and $y$"),
        ("", ""),
    ],
)
def test_clean(raw, expected):
    assert clean(raw) == expected


# --- comparing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5", "5.0"),
        ("5", "5."),
        (".5", "0.5"),
        ("1,200", "1200"),
        ("1{,}200", "1200"),
        (r"32,\!760", "32760"),
        (r"11,\! 111", "11111"),
        (r"10\,000", "10,000"),
        (r"\$1,200.50", "1200.5"),
        ("$5$", "5"),
        (r"5\%", "5"),
        (r"5\%", "0.05"),
        (r"50\%", r"\frac12"),
        ("5 percent", "5%"),
        (r"12 \text{ cm}", "12"),
        ("12 cm", r"12\text{ cm}"),
        ("12 inches", "12 inch"),
        (r"5\text{ cm}^2", "5 cm^2"),
        (r"90^\circ", "90"),
        ("90 degrees", r"90^{\circ}"),
        (r"\frac{3}{4}", "3/4"),
        (r"\frac34", "0.75"),
        (r"\dfrac{3}{4}", r"\tfrac 34"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        (r"1\frac{1}{2}", "3/2"),
        ("1 1/2", "3/2"),
        ("0.333333", "1/3"),
        ("−3", "-3"),
        (r"2\sqrt{9}", "6"),
        (r"12\text{ cm}", r"2\sqrt{36}"),
        (r"\frac{\sqrt6}{3}", r"\frac{\sqrt{6}}3"),
        ("sqrt(2)", r"\sqrt2"),
        ("2**3", "8"),
        ("6!", "720"),
        ("10^{12}", "1000000000000"),
        ("pi", r"\pi"),
        ("x=5", "5"),
        ("(1,2)", "(1, 2)"),
        (r"\left(\frac12,3\right)", "(0.5,3)"),
        ("1,2", "2,1"),
        (r"2\text{ and }3", "2,3"),
        (r"(-\infty, 3)", r"(-\infty,3)"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("x+y", "y+x"),
        ("x^2-1", "(x-1)(x+1)"),
        ("4x-5y=-50", "8x-10y=-100"),
        (r"\sin^2 x+\cos^2 x", "1"),
        ("1210_5", "1210_{5}"),
        ("1210_5", "1210"),
        (r"\text{(B)}", "B"),
        ("(C)", r"\text{C}"),
        (r"\text{Tuesday}", "tuesday"),
        ("Yes", "yes."),
        (r"\text{A,C}", "C, A"),
        (r"\text{4:30 p.m.}", "4:30 p.m."),
        (r"10^{10^{10}}", r"10^{10^{10}}"),
    ],
)
def test_equal(a, b):
    assert equal(a, b)
    assert equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5", "6"),
        ("5", "-5"),
        ("", "5"),
        ("0.33", "1/3"),
        (r"5\%", "0.5"),
        ("12 cm", "12 km"),
        ("12 cm", "12 m"),
        ("3m", "3"),
        ("5x", "5"),
        ("5 and 7", "7"),
        ("2 or more", "2"),
        (r"\frac{1}{0}", r"\frac{2}{0}"),
        ("(1,2)", "(2,1)"),
        ("(3,4)", "[3,4]"),
        ("1,2", "1,3"),
        (r"\sqrt{5}", r"\sqrt{6}"),
        ("4x-5y=-50", "4x-5y=-48"),
        (r"\frac{x^2}{16} - \frac{y^2}{9} = 1", r"\frac{x^2}{16} - \frac{y^2}{9} = 3"),
        (r"4, -2 + 3i, -2 - 3i", r"4, -2 + 3i, -2 - 5i"),
        (r"(-\infty, -2)", r"(-\infty, -3)"),
        ("1210_5", "1210_6"),
        ("10:30", "1:3"),
        ("3^{2007}", "5^{2007}"),
        ("C", "D"),
        ("yes", "no"),
        ("a", "b"),
        ("Tuesday", "Wednesday"),
        (r"\text{A,C}", r"\text{A,D}"),
    ],
)
def test_not_equal(a, b):
    assert not equal(a, b)
    assert not equal(b, a)


def test_words_and_numbers_are_told_apart():
    assert words(r"\text{east}") == "east"
    assert words("C") is None
    assert words("x+y") is None
    number = plain_number(r"-1{,}250.50 \text{ dollars}")
    assert number is not None
    assert (float(number.value), number.unit, number.places) == (-1250.5, "dollar", 2)
    assert plain_number("(1,2)") is None
    assert plain_number(r"\frac{1}{0}") is None


EXPLOSIVE = [
    r"10^{10^{10}}",
    "9**9**9**9",
    r"9^{9^{9^9}}",
    "(((((9^99)^99)^99)^99)^99)",
    r"10^{99999999999}",
    r"9^\frac{999999999999}{1}",
    r"9^{(9)(9)(9)(9)(9)(9)(9)(9)(9)}",
    "999999!",
    "(99!)!",
    "3!!!!!",
    r"\binom{100000000}{50000000}",
    "1e999999999",
    "9" * 50 + r"\sqrt{2}",
    "(" * 40 + "1+x" + ")" * 40,
]


@pytest.mark.parametrize("answer", EXPLOSIVE)
def test_explosive_expressions_are_compared_as_text(answer):
    assert not is_tame(normalize(answer))
    assert equal(answer, f" {answer} ")
    assert not equal(answer, "7")
    assert not equal("7x", answer)


@pytest.mark.parametrize("answer", [r"\int_0^1 e^{\sin(\cos(x^x))} dx", r"\sum_{k=1}^{1000000000} k^{k}"])
def test_slow_evaluation_is_given_up(answer):
    assert not equal(answer, "7")


def test_works_outside_the_main_thread():
    verdicts = []
    cases = [(r"\sin^2 t+\cos^2 t", "1"), (r"\int_0^1 e^{\cos(\sin(x^x))} dx", "7"), (r"2\sqrt{25}", "10")]
    thread = threading.Thread(target=lambda: verdicts.extend(equal(a, b) for a, b in cases))
    thread.start()
    thread.join()
    assert verdicts == [True, False, True]


HOSTILE_UNITS = [
    "{", "}", r"\boxed{", r"\boxed ", r"\text{", r"\frac", r"\sqrt{", "####", "answer is", "answer: ", "answer ",
    "**", "$", "`.", "1,111", "1/", "^", "9^", "(", "!", "-", "\\", " ", "\n", "A,", r"\!", ",\\!111", "x=", "1:",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_a_megabyte_of_anything_is_handled(unit):
    text = unit * (10**6 // len(unit))
    for hostile in (text, f"5 {text}5"):
        final_answer(hostile)
        last_boxed(hostile)
        assert equal(hostile, hostile)
        assert not equal(hostile, hostile + "7")


# --- properties -------------------------------------------------------------------------------------------------

MATHS = st.lists(st.sampled_from([*"0123456789abxyACi .,:;+-*/^_=<>()[]{}|\\$%!", r"\frac", r"\sqrt", r"\text{"])).map(
    "".join
)
ANYTHING = st.one_of(st.text(), MATHS)


@given(ANYTHING)
@settings(max_examples=200, deadline=None)
def test_finding_never_raises(text):
    for find in (last_boxed, final_answer):
        found = find(text)
        assert found is None or isinstance(found, str)


@given(ANYTHING, ANYTHING)
@settings(max_examples=80, deadline=None)
def test_comparing_never_raises_and_is_symmetric(a, b):
    assert equal(a, b) is equal(b, a)


@given(ANYTHING)
@settings(max_examples=100, deadline=None)
def test_comparing_is_reflexive(text):
    assert equal(text, text)
    assert equal(text, f" {text}\n")


@given(st.text(alphabet="0123456789abc+-{}^\\ ", min_size=1))
@settings(max_examples=100)
def test_what_is_boxed_is_found(content):
    escaped = content.replace("\\", "").replace("{", "").replace("}", "").strip()
    assert last_boxed(rf"text \boxed{{{escaped}}} more") == escaped


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
@settings(max_examples=100)
def test_fractions_are_compared_exactly(a, b):
    assert equal(f"{a.numerator}/{a.denominator}", rf"\frac{{{b.numerator}}}{{{b.denominator}}}") is (a == b)


# --- real answers -----------------------------------------------------------------------------------------------


def _rows(name):
    path = data_dir() / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_of_math_are_found_in_their_solutions():
    rows = _rows("EleutherAI/hendrycks_math/test.jsonl")
    missed = [row["answer"] for row in rows if not equal(final_answer(row["solution"]) or "", row["answer"])]
    assert not missed


def test_answers_of_gsm8k_are_found_and_read_as_numbers():
    rows = _rows("openai/gsm8k/test.jsonl")
    answers = [final_answer(row["answer"]) or "" for row in rows]
    assert [row["answer"].rsplit("####", 1)[1].strip() for row in rows] == answers
    assert not [answer for answer in answers if plain_number(answer) is None]


def test_math_answers_differ_unless_written_alike():
    answers = sorted({row["answer"] for row in _rows("EleutherAI/hendrycks_math/test.jsonl")})
    rng = random.Random(0)
    pairs = [tuple(rng.sample(answers, 2)) for _ in range(300)]
    alike = [pair for pair in pairs if equal(*pair)]
    assert len(alike) <= 3, alike
