"""Finding the final answer in a solution: tables worked by hand, hostile input, real solutions."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import data_dir

from cpmi_eval.grading import final_answer, verdict
from cpmi_eval.grading.comparing import is_number
from cpmi_eval.grading.finding import clean, last_boxed, stated_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"), (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"), (r"\fbox{ a{b}c }", "a{b}c"), (r"\boxed 5$.", "5"),
        (r"\boxed {7}", "7"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"), (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{3} but \boxed{4", "3"), (r"\boxed{4", None), (r"\boxed{}", ""), (r"\boxedness{4}", None),
        ("no box", None), ("", None),
    ],
)  # fmt: skip
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"The answer is 3. Check: \boxed{4}", "4"), ("She has 3 + 4 = <<3+4=7>>7 left.\n#### 7", "7"),
        ("#### 1,200\n", "1,200"), ("#### Conclusion\nThe answer is 5.", "5"),
        ("The answer is: **$\\frac12$**.", r"\frac12"), ("The answer is 3.5. I hope it is correct.", "3.5"),
        ("Final answer: \\(x + 1\\)\nDone", "x + 1"), ("**Final Answer:**\n\n$12$", "12"),
        ("The answer is 5 apples.", "5 apples"), ("so it costs $1,200.50.", "1,200.50"),
        ("the change is -5 degrees", "-5"), ("10-5", "5"), ("that is 3/4 of it", "3/4"), ("about .5 of it", ".5"),
        ("I do not know", None), ("", None), (r"\boxed{}. The answer is 3", "3"),
    ],
)  # fmt: skip
def test_final_answer(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # displays, fences, lists, emphasis, headings
        ("So\n\n**Final Answer:**\n\\[\n17\n\\]", "17"),
        ("The answer is\n$$\n17\n$$", "17"),
        ("The answer is \\[\n\\frac{1}{2}\n\\]", r"\frac{1}{2}"),
        ("The answer is:\n\\begin{align*}\nx &= 9+8 \\\\ &= 17\n\\end{align*}", "17"),
        ("Answer:\n```text\n17\n```", "17"),
        ("The answer is `17`.", "17"),
        ("Answer:\n\n* 17", "17"),
        ("Answer:\n1. 17", "17"),
        ("The answer is:\n> 17", "17"),
        ("Answer: ***17***", "17"),
        ("__Answer__: **17**", "17"),
        ("### Answer\n\n17", "17"),
        ("**Final answer**\n\n17", "17"),
        ("$$\n\\text{Final answer: } \\$17.50\n$$", r"\$17.50"),
        # what goes on after the value
        ("The answer is 17, which we wanted.", "17"),
        ("The answer is 17 (see above).", "17"),
        ("The answer is 17 (17 clips).", "17"),
        ("The answer is 17; done.", "17"),
        ("The answer is 17 because 9+8=17", "17"),
        ("The answer is 17 - since 9+8=17.", "17"),
        ("The answer is 17,\nas above", "17"),
        ("The answer is $17$, as expected.", "17"),
        ("Answer: **17 clips**, so we are done", "17 clips"),
        ("The answer is 17, obtained by adding 8 and 9.", "17"),
        ("The answer is 17 as 8+9=17.", "17"),
        ("The answer is 17 [see step 3].", "17"),
        ("The answer is 17: see above.", "17"),
        ("The answer is 17 for n=6.", "17"),
        ("The answer is 17 clips, half of 34.", "17 clips"),
        # several items
        ("The final answers are:\n- 2\n- 3\nas above", "2, 3"),
        ("Answer: 17 apples and 3 pears", "17 apples and 3 pears"),
        # a sentence around the value
        ("The answer is that he sold 17 clips.", "17"),
        ("Answer: Ann received $7.00 in change.", "7.00"),
        ("Answer: of the 20 clips he sold 17.", "17"),
        ("The answer is about 17.", "17"),
        ("The answer is option B.", "B"),
        ("The correct option is **B**.", "B"),
        (
            r"The answer is $\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$.",
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        ),
        ("The answer is 2 x 3 = 6.", "2 x 3 = 6"),
        ("So the answer is that $P$ is $\\frac12$.", r"\frac12"),
        # what is whole stays whole
        ("The answer is June 20.", "June 20"),
        ("The answer is Tuesday, as 20 is even.", "Tuesday"),
        ("The answer is 5 or 7.", "5 or 7"),
        ("The answer is 1, 2, 3.", "1, 2, 3"),
        ("The answers are $2$ and $3$.", "$2$ and $3$"),
        ("The answer is (3, 4).", "(3, 4)"),
        ("The answer is x = 5.", "x = 5"),
        ("The answer is 3 million.", "3 million"),
        ("The answer is 1 1/2 hours", "1 1/2 hours"),
        ("The answer is 10:30 a.m.", "10:30 a.m"),
        ("The answer is $42$ dollars.", "42 dollars"),
        ("The answer is not 6 but 5.", "5"),
        ("The answer is 3/8 or 0.375.", "3/8 or 0.375"),
    ],
)
def test_a_statement_is_read_without_what_is_around_it(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it took 1 1/2 hours.", "1 1/2"),
        ("He arrives at 10:30.", "10:30"),
        ("He arrives at 10:30 p.m.", "10:30 p.m"),
        ("It takes 5.0e3 steps", "5.0e3"),
        (r"It takes 2.5 \times 10^{3} steps", r"2.5 \times 10^{3}"),
        ("x = - 7", "- 7"),
        ("the result is - 7", "- 7"),
        ("It was 2½ hours.", "2½"),
        ("It is 3/4.", "3/4"),
        ("the count is 5.0e3.", "5.0e3"),
        ("It equals 2^{10}.", "2^{10}"),
        ("The ratio is 3:4.", "3:4"),
        ("It is (3, 4).", "(3, 4)"),
        ("It is [0, 5).", "[0, 5)"),
        ("The area is 5 cm^2.", "5"),
        ("The area is 12 m2", "12"),
        ("x=–7", "–7"),
        ("7 - 3", "3"),
        (r"so it is \frac{2}{3}.", r"\frac{2}{3}"),
        (r"we get -\frac{24}{25}", r"-\frac{24}{25}"),
        (r"the length is 3\sqrt{2} cm", r"3\sqrt{2}"),
        (r"the area is 2\pi", r"2\pi"),
        (r"the area is \(\frac{8\pi}{5}\) square units.", r"\frac{8\pi}{5}"),
        (r"Hence $\cos \angle RPS = -\frac{24}{25}$.", r"-\frac{24}{25}"),
        (r"\[a = 3 \cdot 4 = 12\]", "12"),
        (
            r"The range of $f$ is $\left[-\frac{\pi}{2}, \frac{\pi}{2}\right]$.",
            r"\left[-\frac{\pi}{2}, \frac{\pi}{2}\right]",
        ),
        ("Hence $x^2+y^2=4$.", "x^2+y^2=4"),
        ("so the value is $f(x=2)$.", "f(x=2)"),
        ("so $a = [0, 5)$.", "[0, 5)"),
        (r"$\begin{cases} x=1 \\ y=2 \end{cases}$", r"\begin{cases} x=1 \\ y=2 \end{cases}"),
        ("Hence $x = 1, y = 2$.", "x = 1, y = 2"),
        ("In all $5 and then $6.", "6"),
        (r"so there are 12 ways to choose \(k\).", "12"),
    ],
)
def test_the_last_value_is_whole(text, expected):
    assert final_answer(text) == expected


def test_a_statement_that_a_cut_goes_through_is_none():
    assert stated_answer("The answer is 7", is_cut=True) is None
    assert stated_answer("The answer is 7, which", is_cut=True) == "7"
    assert stated_answer(r"The answer is \(7\)", is_cut=True) is None
    assert stated_answer(r"\boxed{7", is_cut=True) is None


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


HOSTILE_UNITS = [
    "{", "}", r"\boxed{", r"\boxed ", r"\text{", r"\frac", r"\frac{", r"\sqrt{", "####", "answer is", "answer: ",
    "**", "$", "$5", r"\(", r"\[5", "`.", "1,111", "1/", "1 1/", "^", "9^", "(", "!", "-", "\\", " ", "\n", "A,", r"\!",
    ",\\!111", "x=", "1:", "answer is (", "answer:\n- ", "(a", "; a", "\\begin{align}",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE_UNITS)
def test_a_quarter_of_a_megabyte_of_anything_is_handled(unit):
    text = unit * (250_000 // len(unit))
    for hostile in (text, f"5 {text}5", f"The answer is {text}"):
        final_answer(hostile)
        last_boxed(hostile)
        assert verdict(hostile, hostile) is True
        assert verdict(hostile, hostile + "7") is not True


ANYTHING = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from([*"0123456789ax .,:;+-/^_=()[]{}|\\$%*`\n", "answer is ", r"\frac", r"\(", r"\)", r"\boxed{"])
    ).map("".join),
)


@given(ANYTHING)
@settings(max_examples=300, deadline=None)
def test_finding_never_raises(text):
    for find in (last_boxed, final_answer):
        found = find(text)
        assert found is None or isinstance(found, str)


@given(st.text(alphabet="0123456789abc+-{}^\\ ", min_size=1))
@settings(max_examples=100, deadline=None)
def test_what_is_boxed_is_found(content):
    escaped = content.replace("\\", "").replace("{", "").replace("}", "").strip()
    assert last_boxed(rf"text \boxed{{{escaped}}} more") == escaped


@given(
    st.fractions(min_value=0, max_denominator=99),
    st.sampled_from(["{}.", "\\[\n{}\n\\]", "**{}**, as shown", "${}$ (see 1)"]),
)
@settings(deadline=None)
def test_fractions_are_found_in_any_dress(value, dress):
    found = final_answer(f"The answer is {dress.format(f'{value.numerator}/{value.denominator}')}")
    assert verdict(found or "", str(value)) is True


def _rows(name):
    path = data_dir() / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def test_answers_of_math_are_found_in_their_solutions():
    rows = _rows("EleutherAI/hendrycks_math/test.jsonl")
    missed = [row["answer"] for row in rows if verdict(final_answer(row["solution"]) or "", row["answer"]) is not True]
    assert not missed


def test_answers_of_gsm8k_are_found_and_read_as_numbers():
    rows = _rows("openai/gsm8k/test.jsonl")
    answers = [final_answer(row["answer"]) or "" for row in rows]
    assert [row["answer"].rsplit("####", 1)[1].strip() for row in rows] == answers
    assert not [answer for answer in answers if not is_number(answer)]


@pytest.mark.parametrize(
    ("subset", "row", "answer"),
    [
        ("math", "math-890", r"\frac{8\pi}{5}"),
        ("math", "math-902", r"-\frac{24}{25}"),
        ("math", "math-633", r"-\frac{2 \sqrt{3}}{3}"),
        ("math", "math-837", r"\left[ -\frac{\pi}{2}, \frac{\pi}{2} \right]"),
        ("gsm8k", "gsm8k-299", "7"),
    ],
)
def test_right_answers_of_processbench_that_no_box_holds(subset, row, answer):
    (steps,) = [one["steps"] for one in _rows(f"Qwen/ProcessBench/{subset}.json") if one["id"] == row]
    assert verdict(final_answer(steps[-1]) or "", answer) is True
