"""Hard negatives: what the rules make of each kind of answer, and what must hold for all of them."""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import data_dir

from cpmi_eval.errors import UsageError
from cpmi_eval.grading import verdict
from cpmi_eval.grading.comparing import is_number
from cpmi_eval.labelers.negatives import MAX_CHARS, parse_sample, pick, read_file, rule_based, sampling_prompt


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # x+-2, x+-10, 1.1x = 52.8, 0.9x = 43.2
        ("48", ["50", "46", "53", "43", "58", "38"]),
        # 0.9x and 1.1x round back to 3; a change of sign makes up for them
        ("3", ["5", "1", "13", "-7"]),
        ("-3", ["-1", "-5", "-13", "7"]),
        ("0", ["2", "-2", "10", "-10"]),
        ("8", ["9", "7", "10", "6", "18"]),
        (r"\$18", [r"\$20", r"\$16", r"\$28", r"\$8"]),
        (r"7\%", [r"8\%", r"6\%", r"9\%", r"5\%", r"17\%"]),
        ("1,200", ["1,202", "1,198", "1,210", "1,190", "1,320", "1,080"]),
        (r"32,\!760", [r"32,\!762", r"32,\!758", r"32,\!770", r"32,\!750", r"36,\!036", r"29,\!484"]),
        ("1,000", ["1,002", "998", "1,010", "990", "1,100", "900"]),
        # 3.75: ceil, 0.9x = 3.375, 1.1x = 4.125, floor, then the steps
        ("3.75", ["4.00", "3.38", "4.13", "3.00", "5.75", "1.75", "13.75"]),
        (".35625", [".32063", ".39188", "1.00000", "2.35625", "10.35625"]),
        (r"12\text{ cm}", [rf"{n}\text{{ cm}}" for n in (13, 11, 14, 10, 22, 2)]),
        (r"45^\circ", [rf"{n}^\circ" for n in (47, 43, 41, 50, 55, 35)]),
    ],
)
def test_numbers_keep_their_form(answer, expected):
    assert rule_based(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # 2/3 and 4/3 over the same bottom (3/3 is whole), 1/4, 1/5, 1/2 and the negative; 3/1 is whole
        (r"\frac{1}{3}", [r"\frac{2}{3}", r"\frac{1}{4}", r"\frac{1}{2}", r"\frac{1}{5}", r"-\frac{1}{3}"]),
        (r"\frac43", [r"\frac{5}{3}", r"\frac{2}{3}", r"\frac{4}{5}", r"\frac{3}{4}", r"-\frac43"]),
        (r"-\dfrac{1}{2}", [r"-\dfrac{3}{2}", r"-\dfrac{1}{3}", r"-\dfrac{1}{4}", r"\dfrac{1}{2}"]),
        ("1/2", ["3/2", "1/3", "1/4", "-1/2"]),
        (r"\sqrt{5}", [r"\sqrt{6}", r"\sqrt{7}", r"\sqrt{3}", r"\sqrt{8}", r"\sqrt{2}", r"-\sqrt{5}"]),
        (r"-\sqrt3", [r"-\sqrt2", r"-\sqrt5", r"-\sqrt6", r"-\sqrt7", r"\sqrt3"]),
    ],
)
def test_fractions_and_roots(answer, expected):
    assert rule_based(answer) == expected


@pytest.mark.parametrize(
    ("answer", "included"),
    [
        (r"\frac{\sqrt6}3", {r"\frac{\sqrt7}3", r"\frac{\sqrt{10}}3", r"\frac{\sqrt6}5", r"-\frac{\sqrt6}3"}),
        (r"2\sqrt{3}", {r"4\sqrt{3}", r"2\sqrt{2}"}),
        (r"3 \sqrt{5}", {r"\sqrt{5}", r"5 \sqrt{5}"}),
        ("(5, -4)", {"(6, -4)", "(5, -6)", "(5, -2)"}),
        ("(1,200)", {"(3,200)", "(1,202)"}),
        ("x = -1", {"x = -3", "x = 1"}),
        ("4x-5y=-50", {"6x-5y=-50", "4x-6y=-50", "4x-5y=-48"}),
        ("20x - 69 = 0", {"22x - 69 = 0", "20x - 71 = 0", "20x + 69 = 0"}),
        (r"2 - 2\sqrt{2}", {r"4 - 2\sqrt{2}", r"2 + 2\sqrt{2}"}),
        (r"\left( \frac12, 3 \right)", {r"\left( \frac{3}{2}, 3 \right)", r"\left( \frac12, 5 \right)"}),
        (
            r"\begin{pmatrix} 1 \\ -3 \end{pmatrix}",
            {r"\begin{pmatrix} 3 \\ -3 \end{pmatrix}", r"\begin{pmatrix} 1 \\ -5 \end{pmatrix}"},
        ),
        ("x^2", {"x^3", "-x^2"}),
        ("3^{2007}", {"5^{2007}", "3^{2008}"}),
        (r"1.5\times 10^{6}", {r"1.7\times 10^{6}", r"3.5\times 10^{6}"}),
        ("3:2", {"5:2", "3:4"}),
        (r"\text{4:30 p.m.}", {r"\text{6:30 p.m.}", r"\text{4:32 p.m.}"}),
        ("[0,1)", {"[0,3)", "[-2,1)"}),
        # 195 in base 5 is 1240; neighbours use its digits only
        ("1210_5", {"1212_5", "1203_5", "1230_5", "1140_5"}),
        ("AB_{16}", {"AD_{16}", "A9_{16}"}),
        (r"\pi", {r"-\pi", r"2\pi", r"\pi+1"}),
        ("x+y", {"-(x+y)", "2(x+y)", "x+y+1"}),
        ("-x", {"x", "-x+1"}),
        (r"\text{A,C}", {r"\text{B,C}", r"\text{A,E}"}),
    ],
)
def test_composite_answers_change_in_one_place(answer, included):
    assert included <= set(rule_based(answer))


LEFT_ALONE = [
    (r"\frac{\sqrt{2}}{2}", "{-"),  # no sign in a denominator
    (r"\frac{x}{2}", "{0}"), ("4x-5y=-50", "--"), ("2x", "0x"), ("3x", "1x"), (r"2\pi", "22"), ("x_1", "_2"),
    (r"\log_2 8", "_4"), (r"\sqrt[3]{2}", "[5]"), (r"5\text{ cm}^2", "^3"), ("[0,1)", "[2,1)"), ("007", "-"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "excluded"), LEFT_ALONE)
def test_structure_is_left_alone(answer, excluded):
    negatives = rule_based(answer)
    assert negatives
    assert not [negative for negative in negatives if excluded in negative]


NOT_NUMBERS = [
    ("(C)", ["(A)", "(B)", "(D)", "(E)"]),
    (r"\text{(B)}", [r"\text{(A)}", r"\text{(C)}", r"\text{(D)}", r"\text{(E)}"]),
    (r"(\text{E})", [r"(\text{A})", r"(\text{B})", r"(\text{C})", r"(\text{D})"]), ("C", ["A", "B", "D", "E"]),
    ("yes", ["no"]), ("No", ["Yes"]), ("TRUE", ["FALSE"]), (r"\text{even}", [r"\text{odd}", r"\text{neither}"]),
    (r"\text{East}", [r"\text{South}", r"\text{West}", r"\text{North}"]), ("Navin", []), ("all real numbers", []),
    (r"\emptyset", []), (r"(-\infty,\infty)", []), ("(a,b)", []), ("", []), ("  ", []), ("1" * 1000, []),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "expected"), NOT_NUMBERS)
def test_answers_that_are_not_numbers(answer, expected):
    assert rule_based(answer) == expected


ANSWERS = st.one_of(
    st.integers(-(10**7), 10**7).map(str),
    st.integers(1000, 10**9).map(lambda n: f"{n:,}"),
    st.decimals(-1000, 1000, places=2).map(str),
    st.tuples(st.integers(-99, 99), st.integers(1, 99)).map(lambda f: rf"\frac{{{f[0]}}}{{{f[1]}}}"),
    st.tuples(st.integers(2, 99), st.integers(2, 99)).map(lambda f: rf"{f[0]}\sqrt{{{f[1]}}}"),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(lambda f: f"({f[0]}, {f[1]})"),
    st.tuples(st.integers(2, 9), st.integers(1, 9)).map(lambda f: f"{f[0]}x + {f[1]}"),
    st.lists(st.sampled_from([*"0123456789xyAi .,+-/^_=()[]{}\\$%", r"\frac", r"\sqrt"]), max_size=12).map("".join),
)


@given(ANSWERS)
@settings(max_examples=120, deadline=None)
def test_negatives_are_wrong_distinct_and_reproducible(answer):
    negatives = rule_based(answer)
    assert negatives == rule_based(answer)
    for one, other in itertools.combinations([answer, *negatives], 2):
        assert verdict(one, other) is not True


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_is_survived(text):
    assert text not in rule_based(text)
    assert text not in pick(text, 3, random.Random(0))


def test_preferred_negatives_come_first_if_usable():
    preferred = ["48.0", "  52 ", "", "52.00", "x" * (MAX_CHARS + 1), "12"]
    picked = pick("48", 4, random.Random(1), preferred)
    assert picked[:2] == ["52", "12"]
    assert len(picked) == 4
    assert set(picked[2:]) <= set(rule_based("48"))


def test_picking_is_shuffled_by_the_generator_alone():
    assert pick("48", 4, random.Random(3)) == pick("48", 4, random.Random(3))
    assert len({tuple(pick("48", 4, random.Random(seed))) for seed in range(20)}) > 5


def test_rules_do_not_repeat_a_preferred_negative():
    picked = pick("48", 10, random.Random(0), ["50.0"])
    assert picked[0] == "50.0"
    assert sorted(picked[1:]) == sorted(set(rule_based("48")) - {"50"})


def test_fewer_come_back_when_there_are_no_more():
    assert pick("yes", 4, random.Random(0)) == ["no"]
    assert pick("Navin", 4, random.Random(0)) == []
    assert pick("48", 0, random.Random(0), ["50"]) == []


@given(ANSWERS, st.integers(0, 6), st.lists(ANSWERS, max_size=5), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_picked_negatives_are_wrong_and_distinct(answer, m, preferred, seed):
    picked = pick(answer, m, random.Random(seed), preferred)
    assert len(picked) <= m
    for one, other in itertools.combinations([answer, *picked], 2):
        assert verdict(one, other) is not True


def test_the_prompt_shows_problem_solution_and_reference():
    prompt = sampling_prompt("What is 6 x 7?", ["Six sevens.", "That is 42."], "42")
    for part in ("What is 6 x 7?", "Six sevens.\n\nThat is 42.", "Correct final answer: 42\n"):
        assert part in prompt
    assert "\\b" not in repr(prompt).replace("\\n", "")


SAMPLES = [
    (" 36", "42", "36"), ("\n\n 36\nbecause of a slip", "42", "36"), ("Answer: 36.", "42", "36"),
    ("The wrong final answer is $36$.", "42", "36"), (r"\boxed{36}", "42", "36"), ("36 apples", "42", "36 apples"),
    ("They would get 36 instead", "42", "36"), ("1. 36", "42", "36"), ("**36**", "42", "36"), ('"36"', "42", "36"),
    (r"It would be $\frac{1}{3}$ then", r"\frac12", r"\frac{1}{3}"), (r"$(2, 3)$", "(1, 2)", "(2, 3)"),
    ("x + 2", "x + 1", "x + 2"), ("(B)", "(C)", "(B)"), ("Wednesday", "Tuesday", "Wednesday"),
    ("I am not sure", "42", None), ("", "42", None), ("...", "x", None), ("blah " * 40, "x", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer", "expected"), SAMPLES)
def test_parse_sample(text, answer, expected):
    assert parse_sample(text, answer) == expected


@given(st.text(), ANSWERS)
@settings(max_examples=100, deadline=None)
def test_parse_sample_gives_something_usable_or_nothing(text, answer):
    parsed = parse_sample(text, answer)
    assert parsed is None or 0 < len(parsed) <= MAX_CHARS
    if parsed is not None and is_number(answer):
        assert is_number(parsed)


def test_read_file(tmp_path):
    path = tmp_path / "negatives.jsonl"
    path.write_text('{"id": "a", "negatives": ["1", "2"]}\n\n{"id": "b", "negatives": ["é"]}\n', encoding="utf-8")
    assert read_file(path) == {"a": ("1", "2"), "b": ("é",)}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "line 2 is damaged"),
        (b"[1]", "line 2 is not valid: Expected `object`, got `array`"),
        (b'{"id": 1, "negatives": ["1"]}', "line 2 is not valid: id: Expected `str`"),
        (b'{"id": "b"}', "line 2 is not valid: Object missing required field `negatives`"),
        (b'{"id": "b", "negatives": []}', "line 2 is not valid: negatives: expected at least one text"),
        (b'{"id": "b", "negatives": "12"}', "line 2 is not valid: negatives: Expected `array`"),
        (b'{"id": "b", "negatives": [1]}', r"line 2 is not valid: negatives\[0\]: Expected `str`"),
        (b'{"id": "b", "negatives": [" "]}', "line 2 is not valid: negatives: .* none that is blank"),
        (b'{"id": "a", "negatives": ["3"]}', "has the id 'a' twice"),
        (b'{"id": "\xff", "negatives": ["3"]}', "line 2 is damaged .*utf-8"),
        (b"[" * 100_000, "line 2 is "),
    ],
)
def test_read_file_names_the_line(tmp_path, content, complaint):
    path = tmp_path / "negatives.jsonl"
    path.write_bytes(b'{"id": "a", "negatives": ["1"]}\n' + content + b"\n")
    with pytest.raises(UsageError, match=rf"negatives\.jsonl,? {complaint}.*; a line is"):
        read_file(path)


def test_read_file_that_is_missing_or_a_folder(tmp_path):
    for path, why in ((tmp_path / "none.jsonl", "does not exist"), (tmp_path, "cannot be read")):
        with pytest.raises(UsageError, match=why):
            read_file(path)


def _rows(name):
    path = data_dir() / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_nearly_every_math_answer_gets_four_negatives():
    rows = random.Random(0).sample(_rows("EleutherAI/hendrycks_math/test.jsonl"), 300)
    found = {row["answer"]: pick(row["answer"], 4, random.Random(0)) for row in rows}
    lacking = [row["answer"] for row in rows if len(found[row["answer"]]) < 4]
    without = [answer for answer in lacking if not found[answer]]
    assert len(lacking) <= 0.03 * len(rows), f"fewer than 4: {lacking}; none: {without}"


def test_every_gsm8k_answer_gets_four_negatives_in_its_form():
    answers = [row["answer"].rsplit("####", 1)[1].strip() for row in _rows("openai/gsm8k/test.jsonl")]
    for answer in answers:
        negatives = rule_based(answer)
        assert len(negatives) >= 4, answer
        assert all(("," in negative) == (len(negative.lstrip("-")) > 3) for negative in negatives if "," in answer)
