"""Training sets: formats that give back what was put in, and the command from a labeler or a run to a file."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from commandline import Cli
from hypothesis import given
from hypothesis import strategies as st
from shop import Register

from cpmi_eval import StepScores
from cpmi_eval.errors import DataError, UnknownNameError
from cpmi_eval.export.labels import FORMATS, TAG, Example, Origin, read_labels
from cpmi_eval.record.door import to_lines, write_json
from cpmi_eval.types import Failure

pytestmark = pytest.mark.usefixtures("plain")

ORIGIN = Origin("gsm8k-1", "processbench/gsm8k", "4", "cpmi")
EXAMPLE = Example("2 + 2?", ("2 + 2 = 4.", "So it is 5."), (True, False))


def test_trl_is_what_its_documentation_says() -> None:
    row = FORMATS["trl"].write(EXAMPLE, ORIGIN)
    assert row == {
        "prompt": "2 + 2?",
        "completions": ["2 + 2 = 4.", "So it is 5."],
        "labels": [True, False],
        "id": "gsm8k-1",
    }


def test_math_shepherd_is_what_its_data_looks_like() -> None:
    row = FORMATS["math-shepherd"].write(EXAMPLE, ORIGIN)
    assert row == {
        "input": "2 + 2? Step 1: 2 + 2 = 4. ки\nStep 2: So it is 5. ки",
        "label": "2 + 2? Step 1: 2 + 2 = 4. +\nStep 2: So it is 5. -",
        "task": "processbench/gsm8k",
    }


def test_scores_are_kept_as_they_are() -> None:
    row = FORMATS["scores"].write(Example("2 + 2?", ("a", "b"), (-1.25, 1e-17)), ORIGIN)
    assert row == {
        "id": "gsm8k-1",
        "problem": "2 + 2?",
        "steps": ["a", "b"],
        "answer": "4",
        "scores": [-1.25, 1e-17],
        "labeler": "cpmi",
    }


pieces = st.sampled_from(
    ["Step 1: ", " Step 1: ", "\nStep 2: ", "Step 2:", " ", "\n", "+", "-", "к", "и", "\u2028", "\r"]
)
texts = st.lists(st.one_of(pieces, st.text(st.characters(exclude_categories=["Cs"]), max_size=5)), max_size=6).map(
    "".join
)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def examples(labels: st.SearchStrategy[Any]) -> st.SearchStrategy[Example]:
    steps = st.lists(st.tuples(texts, labels), min_size=1, max_size=4)
    return st.builds(
        lambda problem, pairs: Example(problem, *(tuple(part) for part in zip(*pairs, strict=True))), texts, steps
    )


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
def test_what_is_written_is_read_back_the_same(
    form: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    drawn = data.draw(st.lists(examples(st.booleans() if FORMATS[form].hard else numbers), max_size=3))
    written = [(one, row) for one in drawn if not isinstance(row := FORMATS[form].write(one, ORIGIN), Failure)]
    if form != "math-shepherd":
        assert len(written) == len(drawn)
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    path.write_bytes(to_lines(row for _, row in written))
    assert read_labels(path, form) == [one for one, _ in written]


@given(examples(st.booleans()))
def test_math_shepherd_refuses_only_what_it_cannot_hold(example: Example) -> None:
    row = FORMATS["math-shepherd"].write(example, ORIGIN)
    if any(TAG in text for text in (example.problem, *example.steps)):
        assert isinstance(row, Failure)
        assert row.kind == "holds_tag"
    elif " Step 1: " in f"{example.problem} Step 1:":
        assert isinstance(row, Failure)
        assert row.kind == "ambiguous"
    else:
        assert isinstance(row, dict)


@pytest.mark.parametrize(
    ("problem", "steps", "kind", "message"),
    [
        ("руки?", ("a",), "holds_tag", "the problem holds 'ки'"),
        ("a", ("b", "руки"), "holds_tag", "step 1 holds 'ки'"),
        ("Given Step 1: x", ("a",), "ambiguous", "could not be told apart"),
        ("a", (), "ambiguous", "could not be told apart"),
    ],
)
def test_what_math_shepherd_cannot_hold(problem: str, steps: tuple[str, ...], kind: str, message: str) -> None:
    failure = FORMATS["math-shepherd"].write(Example(problem, steps, (True,) * len(steps)), ORIGIN)
    assert isinstance(failure, Failure)
    assert failure.kind == kind
    assert message in failure.message


MALFORMED = {
    "no prompt": ("trl", {"completions": [], "labels": []}, "'prompt' must be a string"),
    "completions": (
        "trl",
        {"prompt": "a", "completions": "b", "labels": []},
        "'completions' must be a list of strings",
    ),
    "numbers": (
        "trl",
        {"prompt": "a", "completions": ["b"], "labels": [1]},
        "'labels' must be a list of true and false",
    ),
    "too few": ("trl", {"prompt": "a", "completions": ["b"], "labels": []}, "0 labels for 1 completions"),
    "words": ("scores", {"problem": "a", "steps": ["b"], "scores": ["c"]}, "'scores' must be a list of numbers"),
    "no tag": ("math-shepherd", {"input": "a Step 1: b", "label": ""}, "does not end with a step closed by 'ки'"),
    "no step": ("math-shepherd", {"input": "a ки", "label": "a +"}, "has no ' Step 1: '"),
    "skipped": (
        "math-shepherd",
        {"input": "a Step 1: b ки\nStep 3: c ки", "label": ""},
        "no '\\nStep 2: ' after step 1",
    ),
    "no space": ("math-shepherd", {"input": "a Step 1: bки", "label": "a Step 1: b+"}, "without a space before 'ки'"),
    "another sign": ("math-shepherd", {"input": "a Step 1: b ки", "label": "a Step 1: b ?"}, "with + or -"),
    "another text": ("math-shepherd", {"input": "a Step 1: b ки", "label": "a Step 1: c +"}, "with + or -"),
    "more text": ("math-shepherd", {"input": "a Step 1: b ки", "label": "a Step 1: b + c"}, "with + or -"),
}


@pytest.mark.parametrize(("form", "row", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_line_of_another_form_is_named(form: str, row: Any, message: str) -> None:
    good = EXAMPLE if FORMATS[form].hard else replace(EXAMPLE, labels=(0.5, -1.0))
    Path("labels.jsonl").write_bytes(to_lines([FORMATS[form].write(good, ORIGIN), row]))
    with pytest.raises(DataError) as caught:
        read_labels(Path("labels.jsonl"), form)
    assert str(caught.value).startswith(f"labels.jsonl, line 2 is not a line of the format {form}: ")
    assert message in str(caught.value)


def test_files_and_formats_that_do_not_exist() -> None:
    with pytest.raises(DataError, match="absent does not exist"):
        read_labels(Path("absent"), "trl")
    with pytest.raises(UnknownNameError, match="Did you mean 'math-shepherd'"):
        read_labels(Path("absent"), "math_shepherd")


RANDOM = ("label", "--labeler", "random", "--task", "synthetic", "--task_args", "n=6")
TRL = ("--format", "trl", "--to", "labels.jsonl")
SCORES = ("--format", "scores", "--to", "scores.jsonl")


def read_json(path: str) -> dict[str, Any]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def write_traces(*rows: dict[str, Any]) -> None:
    Path("mine.jsonl").write_bytes(to_lines(rows))


def test_from_a_labeler_to_a_training_set(cli: Cli) -> None:
    done = cli(*RANDOM, *TRL, "--threshold", "fixed:0.4", "--output_path", "run")
    assert (done.code, done.err) == (0, "")
    rows, traces = read_lines("run/samples.jsonl"), read_lines("run/traces.jsonl")
    made = read_labels(Path("labels.jsonl"), "trl")
    assert [one.problem for one in made] == [trace["problem"] for trace in traces]
    assert [one.steps for one in made] == [tuple(trace["steps"]) for trace in traces]
    assert [one.labels for one in made] == [tuple(score >= 0.4 for score in row["scores"]) for row in rows]
    labels = [label for one in made for label in one.labels]
    good = sum(labels)
    assert 0 < good < len(labels)
    assert f"labels.jsonl: 6 of 6 traces, {len(labels)} steps: {good} good, {len(labels) - good} wrong" in done.out
    about = read_json("labels.jsonl.json")
    labeler = {"name": "random", "kind": "baseline", "uses_reference": False, "native_threshold": 0.5, "args": {}}
    assert about["labeler"] == labeler
    assert about["threshold"] == {"protocol": "fixed:0.4", "value": 0.4}
    assert about["counts"] == {"traces": 6, "labelled": 6, "steps": len(labels), "good": good, "failed": {}}
    assert (about["format"], about["run"], about["model"], about["normalize"]) == ("trl", "run", None, None)
    assert about["data"] == read_json("run/manifest.json")["data"]
    assert about["sha256"] == hashlib.sha256(Path("labels.jsonl").read_bytes()).hexdigest()
    assert not Path("labels.jsonl.failed.jsonl").exists()


def test_a_step_scored_at_the_threshold_is_good(cli: Cli) -> None:
    args = ("label", "--labeler", "constant", "--task", "synthetic", "--limit", "2", *TRL)
    for cut, label in (("fixed:1", True), ("fixed:1.001", False), ("native", True)):
        assert cli(*args, "--threshold", cut).code == 0
        assert {label for one in read_labels(Path("labels.jsonl"), "trl") for label in one.labels} == {label}


def test_steps_after_a_wrong_one_keep_labels_of_their_own(cli: Cli) -> None:
    write_traces({"problem": "p", "steps": ["short", "a much longer step", "short"]})
    done = cli("label", "--labeler", "length", "--traces", "mine.jsonl", *TRL, "--threshold", "fixed:-10")
    assert done.code == 0
    assert read_labels(Path("labels.jsonl"), "trl") == [
        Example("p", ("short", "a much longer step", "short"), (True, False, True))
    ]


def test_traces_stands_for_the_task_with_a_path(cli: Cli) -> None:
    write_traces({"problem": "p", "steps": ["один", "два\u2028"], "id": "x", "answer": "3"})
    assert cli("label", "--labeler", "length", "--traces", "mine.jsonl", *SCORES, "--output_path", "run").code == 0
    config = read_json("run/manifest.json")["config"]
    assert (config["task"], config["task_args"]) == ("traces", {"path": "mine.jsonl"})
    assert read_lines("scores.jsonl") == [
        {
            "id": "x", "problem": "p", "steps": ["один", "два\u2028"], "answer": "3", "scores": [-4.0, -4.0],
            "labeler": "length",
        }
    ]  # fmt: skip
    (data,) = read_json("scores.jsonl.json")["data"]
    assert data["sha256"] == hashlib.sha256(Path("mine.jsonl").read_bytes()).hexdigest()


def test_from_a_finished_run_nothing_is_scored(cli: Cli) -> None:
    assert cli("run", *RANDOM[1:], "--output_path", "run").code == 0
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    assert cli("label", "--from", "run", *TRL, "--threshold", "native").code == 0
    exported = Path("labels.jsonl").read_bytes()
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    assert cli(*RANDOM, *TRL, "--threshold", "native").code == 0
    assert Path("labels.jsonl").read_bytes() == exported


def test_run_and_label_share_a_run_whatever_the_threshold(cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    assert cli("run", *RANDOM[1:]).code == 0
    assert cli(*RANDOM, *TRL, "--threshold", "fixed:0.9").code == 0
    assert len(list(Path("runs").iterdir())) == 1
    assert "is complete: nothing is scored again" in caplog.text


def test_normalised_scores_are_on_the_scale_of_the_whole_set(cli: Cli) -> None:
    write_traces({"problem": "p", "steps": ["aa", "a"]}, {"problem": "q", "steps": ["aaaa", "aaa"]})
    args = ("label", "--labeler", "length", "--traces", "mine.jsonl", "--normalize", "quantile")
    assert cli(*args, *SCORES).code == 0
    assert [row["scores"] for row in read_lines("scores.jsonl")] == [[0.625, 0.875], [0.125, 0.375]]
    assert cli(*args, *TRL, "--threshold", "fixed:0.5").code == 0
    assert [one.labels for one in read_labels(Path("labels.jsonl"), "trl")] == [(True, True), (False, False)]
    assert read_json("labels.jsonl.json")["normalize"] == "quantile"


def test_json_is_one_document(cli: Cli) -> None:
    done = cli(*RANDOM, *TRL, "--threshold", "native", "--json")
    document = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert document.pop("path") == "labels.jsonl"
    about = read_json("labels.jsonl.json")
    assert document == {key: value for key, value in about.items() if key != "sha256"}


class Picky:
    """Raises at every trace whose problem says so."""

    name: ClassVar[str] = "picky"
    summary: ClassVar[str] = "raises"
    kind: ClassVar[str] = "baseline"
    needs: ClassVar[frozenset[str]] = frozenset()
    capabilities: frozenset[str] = frozenset()
    native_threshold: float | None = 0.5

    def score(self, traces: Any, backend: Any) -> Iterator[StepScores]:
        for trace in traces:
            if "raise" in trace.problem:
                raise ZeroDivisionError(trace.problem)
            yield StepScores(trace.id, (1.0,) * len(trace.steps))


def test_what_cannot_be_labelled_is_listed(cli: Cli, register: Register) -> None:
    register("labelers", "picky", Picky)
    write_traces(
        {"problem": "fine", "steps": ["a"]},
        {"problem": "raise [bold]", "steps": ["a"]},
        {"problem": "руки", "steps": ["a"]},
        {"problem": "ноги", "steps": ["руки"]},
    )
    args = ("label", "--labeler", "picky", "--traces", "mine.jsonl", "--threshold", "native", "--to", "labels.jsonl")
    done = cli(*args, "--format", "math-shepherd")
    assert done.code == 1
    assert [one.problem for one in read_labels(Path("labels.jsonl"), "math-shepherd")] == ["fine"]
    failed = read_lines("labels.jsonl.failed.jsonl")
    assert [(row["id"], row["reason"]) for row in failed] == [
        ("line-2", "exception"),
        ("line-3", "holds_tag"),
        ("line-4", "holds_tag"),
    ]
    assert all(set(row) == {"id", "reason", "message"} for row in failed)
    assert "labels.jsonl: 1 of 4 traces, 1 steps" in done.out
    assert "line-2: ZeroDivisionError: raise [bold]" in done.out
    assert "labels.jsonl.failed.jsonl" in done.out
    counts = read_json("labels.jsonl.json")["counts"]
    assert (counts["traces"], counts["labelled"], counts["failed"]) == (4, 1, {"exception": 1, "holds_tag": 2})
    # Another format holds more of them, and a list of failures that no longer are any does not stay behind.
    assert cli(*args, "--format", "trl").code == 1
    assert [row["id"] for row in read_lines("labels.jsonl.failed.jsonl")] == ["line-2"]
    write_traces({"problem": "fine", "steps": ["a"]})
    assert cli(*args, "--format", "trl", "--output_path", "other").code == 0
    assert not Path("labels.jsonl.failed.jsonl").exists()


NATIVE = (*TRL, "--threshold", "native")
WRONG = {
    "no threshold": ((*RANDOM, *TRL), "the format trl needs a decision: give --threshold native"),
    "no threshold for the other": (
        (*RANDOM, "--format", "math-shepherd", "--to", "a"),
        "the format math-shepherd needs a decision",
    ),
    "a threshold for scores": (
        (*RANDOM, *SCORES, "--threshold", "native"),
        "the format scores keeps the scores and takes no --threshold",
    ),
    "another threshold": ((*RANDOM, *TRL, "--threshold", "fixd:1"), "use native or fixed:x"),
    "native and normalised": (
        (*RANDOM, *NATIVE, "--normalize", "zsig"),
        "the native threshold is about raw scores; with --normalize give --threshold fixed:x",
    ),
    "off the scale": (
        (*RANDOM, *TRL, "--threshold", "fixed:2", "--normalize", "zsig"),
        "a threshold of 2 tells none apart",
    ),
    "no native threshold": (
        ("label", "--labeler", "length", "--task", "synthetic", *NATIVE),
        "the labeler 'length' has no threshold of its own; give --threshold fixed:x",
    ),
    "format": ((*RANDOM, "--format", "tlr", "--to", "a"), "unknown format 'tlr'. Did you mean 'trl'"),
    "normalisation": ((*RANDOM, *SCORES, "--normalize", "zsgi"), "unknown normalisation 'zsgi'. Did you mean 'zsig'"),
    "no file": ((*RANDOM, "--format", "trl"), "Missing option '--to'"),
    "no format": ((*RANDOM, "--to", "a"), "Missing option '--format'"),
    "nothing to label": (("label", "--labeler", "random", *NATIVE), "one of --task NAME, --traces FILE and --from"),
    "two things to label": ((*RANDOM, "--traces", "a", *NATIVE), "one of --task NAME, --traces FILE and --from"),
    "no labeler": (("label", "--task", "synthetic", *NATIVE), "say what scores the steps"),
    "a path twice": (
        ("label", "--labeler", "random", "--traces", "a", "--task_args", "path=b", *NATIVE),
        "leave out --task_args",
    ),
    "settings of a finished run": (
        ("label", "--from", "run", *NATIVE, "--seed", "3", "--fresh"),
        "--from takes a finished run as it is; leave out --seed, --resume/--fresh",
    ),
    "a finished run and traces": (("label", "--from", "run", "--traces", "a", *NATIVE), "leave out --traces"),
    "no run": (("label", "--from", "absent", *NATIVE), "absent is not a run directory"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_usage(cli: Cli, args: tuple[str, ...], message: str) -> None:
    done = cli(*args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert list(Path().iterdir()) == []


def test_neither_environment_nor_file_chooses_the_threshold_of_labels(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("run", *RANDOM[1:], "--output_path", "run").code == 0
    monkeypatch.setenv("CPMI_EVAL_THRESHOLD", "native")
    assert "needs a decision" in cli("label", "--config", "run/manifest.json", *TRL).err
    assert cli("label", "--config", "run/manifest.json", *NATIVE, "--output_path", "run").code == 0


@pytest.mark.parametrize("threshold", ["fixed:0.1", "oracle"])
def test_the_native_threshold_of_a_run_under_another_one(cli: Cli, threshold: str) -> None:
    assert cli("run", *RANDOM[1:], "--output_path", "native").code == 0
    assert cli("run", *RANDOM[1:], "--threshold", threshold, "--output_path", "run").code == 0
    for path in ("native", "run"):
        assert cli("label", "--from", path, "--format", "trl", "--to", f"{path}.jsonl", *NATIVE[-2:]).code == 0
    assert Path("run.jsonl").read_bytes() == Path("native.jsonl").read_bytes()
    summary = json.loads(Path("run/results.json").read_text(encoding="utf-8"))
    del summary["labeler"]["native_threshold"]  # as written by earlier versions
    write_json(Path("run/results.json"), summary)
    done = cli("label", "--from", "run", *NATIVE)
    assert done.code == 2
    assert f"run was run with --threshold {threshold}" in done.err


def test_files_that_are_no_training_set_are_not_overwritten(cli: Cli) -> None:
    write_traces({"problem": "p", "steps": ["a"]})
    before = Path("mine.jsonl").read_bytes()
    args = ("label", "--labeler", "random", "--traces", "mine.jsonl", "--format", "scores", "--to")
    done = cli(*args, "mine.jsonl")
    assert done.code == 2
    assert "mine.jsonl exists and is no part of a training set" in done.err
    assert Path("mine.jsonl").read_bytes() == before
    Path("folder").mkdir()
    assert "folder is a directory; --to takes a file" in cli(*args, "folder").err
    assert "mine.jsonl cannot be made" in cli(*args, "mine.jsonl/labels.jsonl").err
    assert cli(*args, "folder/new/labels.jsonl").code == 0
    assert cli(*args, "folder/new/labels.jsonl").code == 0


def test_a_run_that_lost_its_traces(cli: Cli) -> None:
    assert cli("run", *RANDOM[1:], "--output_path", "run").code == 0
    Path("run/traces.jsonl").unlink()
    done = cli("label", "--from", "run", *NATIVE)
    assert done.code == 2
    assert "run has no traces.jsonl" in done.err
