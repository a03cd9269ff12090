"""ProcessBench as a task: validation, joined reference answers, and the published data."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import realdata

from cpmi_eval.errors import DataError, UnknownNameError
from cpmi_eval.protocols import LoadOptions, Task
from cpmi_eval.registry import load as load_plugin
from cpmi_eval.tasks.processbench import REFERENCE_SOURCES, ProcessBench
from cpmi_eval.tasks.references import ReferenceTable, problem_cluster, problem_key

PROBLEM = "Ann has $2 + 3$ apples.  How many?"


def row(**changes):
    base = {
        "id": "gsm8k-0",
        "generator": "some-model",
        "problem": PROBLEM,
        "steps": ["2 plus 3 is 5.", "The answer is 6."],
        "final_answer_correct": False,
        "label": 1,
    }
    return {key: value for key, value in (base | changes).items() if value is not ...}


def write_json(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")


@pytest.fixture
def data_dir(tmp_path):
    """A local copy of the hub with one row, and a source that has its problem."""
    write_json(tmp_path / "Qwen/ProcessBench/gsm8k.json", [row()])
    write_json(tmp_path / "openai/gsm8k/test.jsonl", [{"question": PROBLEM, "answer": "2 + 3 = 5\n#### 5"}])
    write_json(tmp_path / "openai/gsm8k/train.jsonl", [{"question": "Another?", "answer": "#### 1,234,567"}])
    return tmp_path


def load(data_dir: Path, *subsets: str):
    return ProcessBench().load(LoadOptions(subsets=subsets or ("gsm8k",), data_dir=data_dir))


def load_rows(data_dir: Path, *rows):
    write_json(data_dir / "Qwen/ProcessBench/gsm8k.json", rows)
    return load(data_dir)


def complaint(data_dir: Path, *rows) -> str:
    with pytest.raises(DataError) as caught:
        load_rows(data_dir, *rows)
    return str(caught.value)


def test_is_a_task():
    assert load_plugin("tasks", "processbench") is ProcessBench
    assert isinstance(ProcessBench(), Task)


def test_item(data_dir):
    data = load(data_dir)
    (item,) = data.items
    assert item.subset == "gsm8k"
    assert (item.trace.id, item.trace.problem, item.trace.answer) == ("gsm8k-0", PROBLEM, "5")
    assert item.trace.steps == ("2 plus 3 is 5.", "The answer is 6.")
    assert (item.gold.first_error, item.gold.final_answer_correct) == (1, False)
    assert data.references == {"gsm8k": {"joined": 1, "own_answer": 0, "none": 0}}


def test_trace_carries_no_gold(data_dir):
    before = asdict(load(data_dir).items[0].trace)
    other = row(label=-1, final_answer_correct=True, generator="other-model")
    assert asdict(load_rows(data_dir, other).items[0].trace) == before
    assert "some-model" not in json.dumps(before)


def test_provenance_names_files_and_hashes(data_dir):
    provenance = load(data_dir).provenance
    assert [origin.name for origin in provenance] == ["Qwen/ProcessBench/gsm8k.json", "openai/gsm8k/test.jsonl"]
    for origin in provenance:
        assert origin.sha256 == hashlib.sha256((data_dir / origin.name).read_bytes()).hexdigest()


BAD_ROWS = {
    "missing key": (row(label=...), "Object missing required field `label`"),
    "id number": (row(id=7), "id: Expected `str`, got `int`"),
    "id blank": (row(id=""), "id: blank, expected text"),
    "problem null": (row(problem=None), "problem: Expected `str`, got `null`"),
    "problem blank": (row(problem=" \n"), "problem: blank, expected text"),
    "steps string": (row(steps="one"), "steps: Expected `array`, got `str`"),
    "steps empty": (row(steps=[]), "steps: empty, expected at least one step"),
    "step number": (row(steps=["a", 2]), "steps[1]: Expected `str`, got `int`"),
    "step blank": (row(steps=["a", "\t"]), "steps[1]: blank, expected text"),
    "correct string": (row(final_answer_correct="yes"), "final_answer_correct: Expected `bool`, got `str`"),
    "correct number": (row(final_answer_correct=1), "final_answer_correct: Expected `bool`, got `int`"),
    "label bool": (row(label=True), "label: Expected `int`, got `bool`"),
    "label float": (row(label=1.0), "label: Expected `int`, got `float`"),
    "label null": (row(label=None), "label: Expected `int`, got `null`"),
    "label high": (row(label=2), "label: 2, expected -1 to 1 (2 steps)"),
    "label low": (row(label=-2), "label: -2, expected -1 to 1 (2 steps)"),
}


@pytest.mark.parametrize(("bad", "expected"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_row(data_dir, bad, expected):
    text = complaint(data_dir, row(id="good"), bad)
    name = f" (id {bad['id']!r})" if bad["id"] else ""
    assert f"Qwen/ProcessBench/gsm8k.json row 2{name} is not valid: {expected}" in text
    assert "row 1" not in text.replace("1 row of", "")


def test_all_bad_rows_are_counted_and_five_shown(data_dir):
    text = complaint(data_dir, *(row(id=f"r{n}", label=n) for n in range(10)))
    assert text.startswith("8 rows of ProcessBench")
    assert [f"row {n} " in text for n in range(3, 11)] == [True] * 5 + [False] * 3
    assert "and 3 more" in text


def test_bad_rows_of_several_files_are_reported_together(data_dir):
    write_json(data_dir / "Qwen/ProcessBench/gsm8k.json", [row(label=5)])
    write_json(data_dir / "Qwen/ProcessBench/math.json", [row(id="math-0", steps=[])])
    with pytest.raises(DataError, match=r"(?s)gsm8k\.json row 1.*math\.json row 1"):
        load(data_dir, "gsm8k", "math")


def test_duplicate_ids(data_dir):
    text = complaint(data_dir, row(), row(id="other"), row())
    assert "row 3: the id 'gsm8k-0' is also that of Qwen/ProcessBench/gsm8k.json row 1" in text


def test_duplicate_ids_across_subsets(data_dir):
    write_json(data_dir / "Qwen/ProcessBench/math.json", [row()])
    with pytest.raises(DataError, match=r"math\.json row 1: .*also that of Qwen/ProcessBench/gsm8k\.json row 1"):
        load(data_dir, "gsm8k", "math")


def test_long_values_are_cut_in_messages(data_dir):
    assert len(complaint(data_dir, row(id="x" * 10_000, steps="y" * 1_000_000))) < 1_000


def test_extra_keys_and_long_steps_are_fine(data_dir):
    step = "x" * 1_000_000
    assert load_rows(data_dir, row(steps=[step, "b"], note={"any": 1})).items[0].trace.steps[0] == step


@pytest.mark.parametrize("content", [b'[{"id": "\xff"}]', json.dumps([row(steps=["a", "b\ud83d"])]).encode()])
def test_malformed_file(data_dir, content):
    (data_dir / "Qwen/ProcessBench/gsm8k.json").write_bytes(content)
    with pytest.raises(DataError, match=r"gsm8k\.json is damaged .*; expected a JSON array"):
        load(data_dir)


def test_unknown_names(data_dir):
    with pytest.raises(UnknownNameError, match=r"unknown subset 'gsm8'. Did you mean 'gsm8k'"):
        load(data_dir, "gsm8")
    with pytest.raises(UnknownNameError, match="unknown setting 'shots'"):
        ProcessBench().load(LoadOptions(args={"shots": 3}))


def test_subsets_that_are_missing(data_dir):
    write_json(data_dir / "Qwen/ProcessBench/math.json", [row(id="math-0")])
    with pytest.raises(DataError) as caught:
        ProcessBench().load(LoadOptions(data_dir=data_dir))
    assert "olympiadbench.json" in str(caught.value) and "omnimath.json" in str(caught.value)
    assert "--subset gsm8k,math" in str(caught.value)


def test_all_files_missing(tmp_path):
    with pytest.raises(DataError, match=r"missing file .*gsm8k\.json \(benchmark rows\); .* holds nothing"):
        load(tmp_path)


def test_missing_reference_source(data_dir):
    (data_dir / "openai/gsm8k/test.jsonl").unlink()
    with pytest.raises(DataError, match=r"missing file .*test\.jsonl \(reference answers .*holds train\.jsonl"):
        load(data_dir)


def test_subsets_keep_the_benchmarks_order_and_are_not_repeated(data_dir):
    write_json(data_dir / "Qwen/ProcessBench/math.json", [row(id="math-0")])
    write_json(data_dir / "EleutherAI/hendrycks_math/test.jsonl", [{"problem": PROBLEM, "answer": "5"}])
    items = load(data_dir, "math", "gsm8k", "math").items
    assert [item.subset for item in items] == ["gsm8k", "math"]
    assert items[0].trace.cluster == items[1].trace.cluster


COPIES = {
    "white space": "Ann has $ 2+3 $\n apples. How many ?",
    "punctuation": r"Ann has \$2 + 3\$ apples - how many",
    "case": PROBLEM.upper(),
    "full width": "Ann has $２ + ３$ apples.  How many?",
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_copies_of_a_problem_join(data_dir, copy):
    (item,) = load_rows(data_dir, row(problem=copy)).items
    assert item.trace.answer == "5"
    assert item.trace.problem == copy
    assert item.trace.cluster == problem_cluster(PROBLEM)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann’s “two” apples", 'Ann\'s "two" apples'), ("Café", "Cafe\u0301"), (r"$x\,=\,1$", "$x=1$")],
)
def test_key_ignores_typography(one, other):
    assert problem_key(one) == problem_key(other)


def test_key_of_text_without_letters():
    assert problem_key(" + ?") == "+?"
    assert problem_key("+") != problem_key("-")


def test_cluster_is_short_hex():
    assert len(problem_cluster(PROBLEM)) == len(f"{int(problem_cluster(PROBLEM), 16):016x}")
    assert problem_cluster(PROBLEM) != problem_cluster("Another?")


def test_collision_is_decided_by_the_exact_copy_or_not_at_all():
    table = ReferenceTable.build([("What is $1 + 1$?", "2"), ("What is $1-1$?", "0"), ("What is 3?", "3")])
    assert table.find("What is $1+1$?") == "2"
    assert table.find("What is $1 - 1$?") == "0"
    assert table.find("What is 1 * 1?") is None
    assert table.find("What  is 3") == "3"
    assert table.find("What is 4?") is None


def test_same_text_with_two_answers_has_no_reference():
    assert ReferenceTable.build([("What?", "1"), ("What?", "2")]).find("What?") is None
    assert ReferenceTable.build([("What?", "1"), ("what", "1")]).find("WHAT") == "1"


def test_second_source_is_read_only_if_needed(data_dir):
    data = load_rows(data_dir, row(), row(id="gsm8k-1", problem="Another?"))
    assert [item.trace.answer for item in data.items] == ["5", "1234567"]
    assert data.provenance[-1].name == "openai/gsm8k/train.jsonl"
    assert data.references["gsm8k"]["joined"] == 2


OWN = [
    (["It is 7, so \\boxed{8}."], True, "8", "own_answer"),
    (["It is \\boxed{8}.", "That is what we wanted."], True, "8", "own_answer"),
    (["No number.", "None here."], True, None, "none"),
    (["It is \\boxed{8}."], False, None, "none"),
]


@pytest.mark.parametrize(("steps", "correct", "answer", "origin"), OWN)
def test_own_answer_only_if_annotated_correct(data_dir, steps, correct, answer, origin):
    unknown = row(problem="Nowhere to be found", steps=steps, final_answer_correct=correct, label=-1)
    data = load_rows(data_dir, unknown)
    assert data.items[0].trace.answer == answer
    assert data.references["gsm8k"] == {"joined": 0, "own_answer": 0, "none": 0, origin: 1}


def test_source_wins_over_own_answer(data_dir):
    data = load_rows(data_dir, row(final_answer_correct=True, label=-1))
    assert data.items[0].trace.answer == "5"


ANSWERS = [
    ("gsm8k", {"answer": "so 1,5 and\n#### 12,345 "}, "12345"),
    ("gsm8k", {"answer": "#### 1\n#### -2.50"}, "-2.50"),
    ("math", {"answer": " \\frac{1}{2} ", "solution": "\\boxed{3}"}, "\\frac{1}{2}"),
    ("math", {"solution": "\\boxed{1} then \\boxed{\\frac{1}{2}}"}, "\\frac{1}{2}"),
    ("math", {"solution": "no box"}, None),
    ("olympiadbench", {"final_answer": ["$5$"]}, "5"),
    ("olympiadbench", {"final_answer": ["$(1,8), (2,7)$", "$3$"]}, "(1,8), (2,7), 3"),
    ("olympiadbench", {"final_answer": None}, None),
    ("olympiadbench", {"final_answer": []}, None),
    ("omnimath", {"answer": "$\\sqrt{2}$"}, "\\sqrt{2}"),
    ("omnimath", {"answer": ""}, None),
    ("omnimath", {"answer": None}, None),
]


@pytest.mark.parametrize(("subset", "fields", "answer"), ANSWERS)
def test_answer_of_a_source_row(tmp_path, subset, fields, answer):
    write_json(tmp_path / f"Qwen/ProcessBench/{subset}.json", [row()])
    for source in REFERENCE_SOURCES[subset]:
        write_json(source.table.path(tmp_path), [{"problem": PROBLEM, "question": PROBLEM, **fields}])
    assert load(tmp_path, subset).items[0].trace.answer == answer


BAD_SOURCES = [
    ("gsm8k", {"question": PROBLEM, "answer": "5"}, "answer: no '####' line"),
    ("gsm8k", {"problem": PROBLEM, "answer": "#### 5"}, "Object missing required field `question`"),
    ("gsm8k", {"question": PROBLEM, "answer": 5}, "answer: Expected `str`, got `int`"),
    ("math", {"problem": PROBLEM}, "solution: missing, and there is no answer"),
    ("olympiadbench", {"question": PROBLEM}, "Object missing required field `final_answer`"),
    ("olympiadbench", {"question": PROBLEM, "final_answer": "5"}, "final_answer: Expected `array | null`, got `str`"),
    ("omnimath", {"problem": PROBLEM}, "Object missing required field `answer`"),
]


@pytest.mark.parametrize(("subset", "bad", "expected"), BAD_SOURCES)
def test_bad_source_row(tmp_path, subset, bad, expected):
    write_json(tmp_path / f"Qwen/ProcessBench/{subset}.json", [row()])
    table = REFERENCE_SOURCES[subset][0].table
    write_json(table.path(tmp_path), [bad])
    with pytest.raises(DataError) as caught:
        load(tmp_path, subset)
    assert f"{table.name}/{table.file} row 1 is not valid: {expected}" in str(caught.value)


def test_every_source_is_pinned_to_a_commit():
    for references in REFERENCE_SOURCES.values():
        for reference in references:
            assert len(bytes.fromhex(reference.table.revision)) == 20


PUBLISHED = [("gsm8k", 400, 193, 7, 375), ("math", 1000, 406, 94, 955)]


@pytest.mark.parametrize(("subset", "rows", "correct", "right_by_luck", "problems"), PUBLISHED)
def test_published_data(subset, rows, correct, right_by_luck, problems):
    data = load(realdata.data_dir(), subset)
    assert data.references == {subset: {"joined": rows, "own_answer": 0, "none": 0}}
    assert len(data.items) == rows
    wrong = [item for item in data.items if item.gold.first_error != -1]
    assert len(wrong) == rows - correct
    assert sum(item.gold.final_answer_correct is True for item in wrong) == right_by_luck
    assert len({item.trace.cluster for item in data.items}) == problems
