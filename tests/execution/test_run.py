"""The loop: what a labeler sees and owes, what becomes of failures, and that a killed run ends as if it never was."""

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from commandline import Cli
from shop import Asking, Counting, Even, Go, Register, Shop, by_id, items

import cpmi_eval
from cpmi_eval import Gold, Item, Progress, RunResult, StepScores, Tokens, Trace
from cpmi_eval.errors import DataError, ModelError, StoreError, UnknownNameError, UsageError
from cpmi_eval.protocols import Backend, BackendOptions, LoadOptions
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import Failure, Provenance, Scored, TaskData, TraceFailure


class Spy(Even):
    seen: ClassVar[list[Trace]] = []

    def one(self, trace: Trace) -> Scored:
        self.seen.append(trace)
        return super().one(trace)


class NeedySpy(Spy):
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})


@pytest.mark.parametrize(("labeler", "answer"), [(Spy, None), (NeedySpy, "4")])
def test_a_labeler_sees_the_answer_only_if_it_says_so(
    go: Go, monkeypatch: pytest.MonkeyPatch, labeler: type[Spy], answer: str | None
) -> None:
    monkeypatch.setattr(Spy, "seen", [])
    result = go(labeler)
    assert len(Spy.seen) == 13
    assert {one.answer for one in Spy.seen} == {answer}
    assert {type(one) for one in Spy.seen} == {Trace}
    assert {item.name for item in fields(Trace)} == {"id", "problem", "steps", "answer", "cluster"}  # nothing of Gold
    assert result.summary["labeler"]["uses_reference"] is (answer is not None)


def test_texts_are_kept_beside_the_rows(go: Go) -> None:
    texts = [json.loads(line) for line in (go().path / "traces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["id"] for one in texts] == [item.trace.id for item in Shop.content]
    assert texts[0] == {
        "id": "a0",
        "task": "shop/a",
        "problem": "problem a0",
        "steps": ["step 0", "step 1"],
        "answer": "4",
        "cluster": "cluster a0",
    }


def returning(values: Any) -> type[Even]:
    """Return a labeler that answers ``values`` for trace a1 and is good otherwise."""

    class Odd(Even):
        def one(self, trace: Trace) -> Scored:
            return StepScores(trace.id, values, Tokens(3, 2, 1)) if trace.id == "a1" else super().one(trace)

    return Odd


class Silent(Even):
    def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
        return (self.one(one) for one in traces if one.id != "a1")


class Raising(Even):
    def one(self, trace: Trace) -> Scored:
        if trace.id == "a1":
            raise ZeroDivisionError("division by zero")
        return super().one(trace)


class Renaming(Even):
    def one(self, trace: Trace) -> Scored:
        return StepScores("A1" if trace.id == "a1" else trace.id, (1.0,) * len(trace.steps))


class TooLong(Even):
    def one(self, trace: Trace) -> Scored:
        if trace.id == "a1":
            return TraceFailure(trace.id, Failure("too_long", "9,000 tokens"), Tokens(3, 2, 1), {"tried": 1})
        return super().one(trace)


CONTRACT = {
    "one score too few": (returning((1.0,)), "wrong_count", "1 scores for 2 steps"),
    "one score too many": (returning((1.0,) * 3), "wrong_count", "3 scores for 2 steps"),
    "no scores": (returning(()), "wrong_count", "0 scores for 2 steps"),
    "NaN": (returning((1.0, math.nan)), "non_finite", "nan"),
    "infinity": (returning((-math.inf, 1.0)), "non_finite", "inf"),
    "nothing for a trace": (Silent, "missing", "nothing for this trace"),
    "under another id": (Renaming, "missing", "nothing for this trace"),
    "an exception": (Raising, "exception", "ZeroDivisionError: division by zero"),
    "its own word": (TooLong, "too_long", "9,000 tokens"),
}


@pytest.mark.parametrize("batch_size", ["auto", 1, 3])
@pytest.mark.parametrize(("labeler", "kind", "message"), CONTRACT.values(), ids=CONTRACT.keys())
def test_a_broken_contract_costs_one_row(
    go: Go, labeler: type[Even], kind: str, message: str, batch_size: int | str
) -> None:
    result = go(labeler, batch_size=batch_size)
    rows = by_id(result)
    bad = rows.pop("a1")
    assert bad["error"]["kind"] == kind
    assert message in bad["error"]["message"]
    assert (bad["scores"], bad["prediction"]) == (None, None)
    assert len(rows) == 12
    assert all(row["error"] is None and row["scores"] == [1.0, 1.0] for row in rows.values())
    assert result.failed == 1
    assert result.summary["errors"] == {kind: 1}
    assert result.summary["coverage"]["shop/a"] == {"traces": 5, "scored": 4, "no_reference": 0, "failed": 1}
    assert result.summary["coverage"]["shop/b"] == {"traces": 8, "scored": 8, "no_reference": 0, "failed": 0}


def test_tokens_of_a_failure_count(go: Go) -> None:
    row = by_id(go(TooLong))["a1"]
    assert row["cost"]["tokens"] == {"requested": 3, "computed": 2, "reused": 1, "generated": 1}
    assert row["details"] == {"tried": 1}


def test_a_failure_is_a_miss(go: Go) -> None:
    # Correct traces are a0, a2, a4 and all are called correct, unless the one that fails is among them.
    class Fails(Even):
        def one(self, trace: Trace) -> Scored:
            return TraceFailure(trace.id, Failure("x", "x")) if trace.id == "a0" else super().one(trace)

    result = go(Fails)
    found = [result.results[part]["acc_correct"] for part in ("shop/a", "shop/b")]
    assert [(one.value, one.n) for one in found] == [(pytest.approx(2 / 3), 3), (1.0, 4)]
    assert result.results["shop/a"]["step_auc"].n == 8  # 2 correct traces and 2 erroneous ones of 2 steps


def test_results_of_other_traces_are_not_taken(go: Go) -> None:
    class Generous(Even):
        def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
            yield StepScores("nobody", (0.0,))
            yield from super().score(traces, backend)

    result = go(Generous)
    assert [row["id"] for row in result.rows] == [item.trace.id for item in Shop.content]
    assert result.failed == 0


def test_results_in_any_order_belong_to_their_traces(go: Go) -> None:
    class Backwards(Even):
        def score(self, traces: Sequence[Trace], backend: Backend | None) -> list[Scored]:
            return [StepScores(one.id, (float(one.id[1:]), 1.0)) for one in reversed(traces)]

    assert [row["scores"][0] for row in go(Backwards).rows] == [*map(float, range(5)), *map(float, range(8))]


def test_usage_errors_stop_the_run_and_keep_what_is_scored(go: Go, tmp_path: Path) -> None:
    class Stops(Even):
        broken: ClassVar[bool] = True

        def one(self, trace: Trace) -> Scored:
            if trace.id == "a4" and self.broken:
                raise UsageError("the judge needs a key: set JUDGE_KEY")
            return super().one(trace)

    with pytest.raises(UsageError, match="set JUDGE_KEY"):
        go(Stops, batch_size=2)
    kept = (tmp_path / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in kept] == ["a0", "a1", "a2", "a3"]
    assert not (tmp_path / "run" / "results.json").exists()
    Stops.broken = False
    assert len(go(Stops, batch_size=2).rows) == 13


# A labeler's output is data: whatever it is, the run goes on.
BAD_OUTPUT = {
    "scores that are None": StepScores("a1", None),
    "scores that are text": StepScores("a1", ("high", "low")),
    "details that are no JSON": StepScores("a1", (1.0, 1.0), details={"why": {1, 2}}),
    "details with NaN": StepScores("a1", (1.0, 1.0), details={"why": math.nan}),
    "half a surrogate pair": StepScores("a1", (1.0, 1.0), details={"text": "\ud800"}),
    "something else": ("a1", (1.0, 1.0)),
    "failure details that are no JSON": TraceFailure("a1", Failure("x", "x"), details={"why": {1, 2}}),
}


@pytest.mark.parametrize("output", BAD_OUTPUT.values(), ids=BAD_OUTPUT.keys())
def test_any_output_of_a_labeler_costs_at_most_its_row(go: Go, output: Any) -> None:
    class Odd(Even):
        def one(self, trace: Trace) -> Scored:
            return output if trace.id == "a1" else super().one(trace)

    result = go(Odd)
    assert [row["id"] for row in result.rows if row["error"]] == ["a1"]


def test_scores_may_be_numpy_numbers(go: Go) -> None:
    numpy = pytest.importorskip("numpy")

    class Vector(Even):
        def one(self, trace: Trace) -> Scored:
            return StepScores(trace.id, numpy.linspace(0, 1, len(trace.steps), dtype="float32"))

    assert {tuple(row["scores"]) for row in go(Vector).rows} == {(0.0, 1.0)}


class Unreferenced(Even):
    needs: ClassVar[frozenset[str]] = frozenset({"answer"})

    def one(self, trace: Trace) -> Scored:
        if trace.id == "a1":
            return TraceFailure(trace.id, Failure("no_reference", "no reference answer is known"))
        return super().one(trace)


@pytest.mark.parametrize(("labeler", "failed", "code"), [(Even, 0, 0), (Unreferenced, 0, 0), (Raising, 1, 1)])
def test_failed_rows_make_the_exit_code(
    cli: Cli, register: Register, tmp_path: Path, labeler: type[Even], failed: int, code: int
) -> None:
    register("labelers", "given", labeler)
    path = tmp_path / "run"
    assert cli("run", "--labeler", "given", "--task", "shop", "--output_path", path).code == code
    assert cpmi_eval.evaluate("given", "shop", output_path=str(path)).failed == failed


def test_a_trace_without_reference_is_a_miss_but_no_failure(go: Go) -> None:
    summary = go(Unreferenced).summary
    assert summary["errors"] == {"no_reference": 1}
    assert summary["coverage"]["shop/a"] == {"traces": 5, "scored": 4, "no_reference": 1, "failed": 0}


def ids(result: RunResult) -> list[str]:
    return [row["id"] for row in result.rows]


def test_limit_is_per_subset_and_keeps_the_order(go: Go) -> None:
    chosen = ids(go(limit=3))
    assert [name[0] for name in chosen] == ["a"] * 3 + ["b"] * 3
    assert chosen == sorted(chosen)
    assert ids(go(limit=100, fresh=True)) == [item.trace.id for item in Shop.content]


def test_limits_are_nested(go: Go) -> None:
    sets = [set(ids(go(limit=limit, fresh=True))) for limit in (1, 2, 4, 6)]
    assert [len(one) for one in sets] == [2, 4, 8, 11]
    assert all(small < large for small, large in itertools.pairwise(sets))


def test_limit_is_chosen_under_the_seed_and_not_the_head(go: Go) -> None:
    drawn = [ids(go(limit=3, seed=seed, fresh=True)) for seed in range(6)]
    assert drawn == [ids(go(limit=3, seed=seed, fresh=True)) for seed in range(6)]
    assert len({tuple(one) for one in drawn}) > 1
    assert any(one != ["a0", "a1", "a2", "b0", "b1", "b2"] for one in drawn)


@pytest.mark.parametrize(("share", "n"), [(0.01, (1, 1)), (0.25, (2, 2)), (0.5, (3, 4)), (0.99, (5, 8))])
def test_a_share_is_of_each_subset_and_rounded_up(go: Go, share: float, n: tuple[int, int]) -> None:
    chosen = ids(go(limit=share))
    assert (sum(name[0] == "a" for name in chosen), sum(name[0] == "b" for name in chosen)) == n


@pytest.mark.parametrize("limit", [0, -1, 1.0, 0.0, 2.5, True, "3"])
def test_other_limits_are_refused(go: Go, limit: Any) -> None:
    with pytest.raises(UsageError, match="limit"):
        go(limit=limit)


def test_subset(go: Go) -> None:
    result = go(subset=("b",))
    assert list(result.results) == ["shop/b", "shop"]
    assert result.results["shop/b"] == result.results["shop"]


def test_one_subset_may_be_given_as_text() -> None:
    with pytest.raises(UnknownNameError, match="unknown subset 'arithmetics'"):
        cpmi_eval.evaluate("random", "synthetic", subset="arithmetics")


@pytest.mark.parametrize("labeler", ["random", "length", "asking"])
def test_scores_do_not_depend_on_batches(tmp_path: Path, register: Register, labeler: str) -> None:
    runs = [
        cpmi_eval.evaluate(labeler, "shop", backend="counting", batch_size=size, output_path=str(tmp_path / str(size)))
        for size in (1, 2, 5, 100, "auto")
    ]
    assert len({json.dumps([row["scores"] for row in run.rows]) for run in runs}) == 1
    assert len({json.dumps(run.summary["results"]) for run in runs}) == 1
    assert len({json.dumps(run.summary["cost"]["tokens"]) for run in runs}) == 1


def batch_sizes(go: Go, labeler: type[Even], **options: Any) -> list[int]:
    sizes: list[int] = []

    class Watched(labeler):
        def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
            sizes.append(len(traces))
            return super().score(traces, backend)

    go(Watched, **options)
    return sizes


def test_batch_sizes(go: Go) -> None:
    assert batch_sizes(go, Even, batch_size=5) == [5, 5, 3]
    assert batch_sizes(go, Even, fresh=True) == [13]
    # 16 tokens of 4 characters; a trace is 22 characters long, so three pass the budget
    assert batch_sizes(go, Asking, backend="counting", fresh=True) == [3, 3, 3, 3, 1]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True, "many"])
def test_other_batch_sizes_are_refused(go: Go, batch_size: Any) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        go(batch_size=batch_size)


def test_progress_counts_up_to_the_total(go: Go) -> None:
    seen: list[Progress] = []
    go("asking", backend="counting", batch_size=5, progress=seen.append)
    assert [(step.done, step.total) for step in seen if step.phase == "scoring"] == [(5, 13), (10, 13), (13, 13)]
    assert [step.computed for step in seen if step.phase == "scoring"] == [40, 80, 104]
    assert seen[0] == Progress(0, 13, "loading the model")


def test_thresholds(go: Go) -> None:
    native = go()
    assert {row["prediction"] for row in native.rows} == {-1}
    assert native.summary["threshold"] == {"protocol": "native", "value": 0.5, "undecided": False}
    fixed = go(threshold="fixed:1.5", fresh=True)
    assert {row["prediction"] for row in fixed.rows} == {0}
    assert fixed.summary["threshold"] == {"protocol": "fixed:1.5", "value": 1.5, "undecided": False}


@pytest.mark.parametrize("text", ["fixd:0.5", "fixed:half", "fixed:nan", "0.5"])
def test_other_thresholds_are_refused_before_anything_is_written(go: Go, tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown threshold '{re.escape(text)}'; use native, fixed:x, dev:SUBSET"):
        go(threshold=text)
    assert not (tmp_path / "run").exists()


def test_a_scorer_that_decides_nothing_has_an_auc_and_no_f1(go: Go) -> None:
    result = go("length")
    for name in ("shop", "shop/a", "shop/b"):
        found = result.results[name]
        assert [found[key].value for key in ("f1", "acc_error", "acc_correct")] == [None] * 3
        assert found["step_auc"].value == 0.5
    assert result.summary["threshold"] == {"protocol": "native", "value": None, "undecided": True}
    assert {row["prediction"] for row in result.rows} == {None}
    assert go("length", threshold="fixed:-5", fresh=True).results["shop"]["f1"].value is not None


def test_a_different_run_in_the_same_directory_is_refused_by_what_differs(go: Go) -> None:
    go(seed=1, limit=2)
    with pytest.raises(StoreError) as caught:
        go(seed=2, limit=3)
    message = str(caught.value)
    assert "limit: 2 there, 3 now" in message
    assert "seed: 1 there, 2 now" in message
    assert "labeler" not in message
    assert "--fresh" in message


def test_where_the_data_lies_is_no_difference(go: Go, tmp_path: Path) -> None:
    before = go()
    assert go(data_dir=str(tmp_path)).rows == before.rows


def test_changed_data_is_refused(go: Go, register: Register) -> None:
    class Changed(Shop):
        def load(self, options: LoadOptions) -> TaskData:
            return TaskData(tuple(self.content), (Provenance("shop", sha256="01", rows=13),))

    go()
    register("tasks", "shop", Changed)
    with pytest.raises(StoreError, match=r"data: .*'00'.* there, .*'01'.* now"):
        go()


class Reading(Even):
    def __init__(self, templates: str = "", seed: int = 0) -> None:
        self.seed = seed


def test_a_changed_file_among_the_settings_is_refused(go: Go, tmp_path: Path) -> None:
    file = tmp_path / "templates.yaml"
    file.write_text("- '{problem}'\n")
    go(Reading, labeler_args={"templates": str(file)})
    go(Reading, labeler_args={"templates": str(file)})  # untouched, it is the same run
    file.write_text("- 'Problem: {problem}'\n")
    with pytest.raises(StoreError, match=r"files: .*templates.* there"):
        go(Reading, labeler_args={"templates": str(file)})


@pytest.mark.parametrize(
    ("setting", "content"),
    [
        ("templates", "- 'Q: {problem}'\n"),
        ("negatives_file", "".join(f'{{"id": "synthetic-000{i}", "negatives": ["1.5"]}}\n' for i in range(3))),
    ],
)
def test_a_changed_file_of_cpmi_is_refused(go: Go, tmp_path: Path, setting: str, content: str) -> None:
    file = tmp_path / "settings.txt"
    file.write_text(content)
    options = {"task": "synthetic", "task_args": {"n": 3}, "backend": "counting", "labeler_args": {setting: str(file)}}
    first = go("cpmi", **options)
    assert first.failed == 0
    assert go("cpmi", **options).rows == first.rows
    file.write_text(content.replace("Q", "Question").replace("1.5", "2.5"))
    with pytest.raises(StoreError, match=f"files: .*{setting}.* there"):
        go("cpmi", **options)


def test_a_long_text_among_the_settings_is_no_file(go: Go) -> None:
    assert go(Reading, labeler_args={"templates": "x" * 5000}).failed == 0


def test_a_run_that_scored_nothing_does_not_claim_its_directory(go: Go, register: Register) -> None:
    class NoSuchDtype(Counting):
        @classmethod
        def open(cls, options: BackendOptions) -> Counting:
            if options.dtype == "flot32":
                raise ModelError("unknown dtype 'flot32'")
            return super().open(options)

    def attempt(dtype: str) -> RunResult:
        return go("asking", backend="strict", dtype=dtype)

    register("backends", "strict", NoSuchDtype)
    with pytest.raises(ModelError):
        attempt("flot32")
    assert attempt("float32").failed == 0


def test_paths_may_be_paths(register: Register, tmp_path: Path) -> None:
    result = cpmi_eval.evaluate("even", "shop", output_path=tmp_path / "run", data_dir=tmp_path)
    assert result.path == tmp_path / "run"
    assert cpmi_eval.evaluate("even", "shop", output_path=str(tmp_path / "run")).rows == result.rows


def test_rows_of_other_traces_are_refused(go: Go, register: Register) -> None:
    class Shrunk(Shop):
        content: ClassVar[list[Item]] = Shop.content[1:]

        def load(self, options: LoadOptions) -> TaskData:
            return TaskData(tuple(self.content), (Provenance("shop", sha256="00", rows=13),))

    go()
    register("tasks", "shop", Shrunk)
    with pytest.raises(StoreError, match=r"samples\.jsonl has rows of other traces.*--fresh"):
        go()


def test_the_default_directory_is_this_configurations_own(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = cpmi_eval.evaluate("even", "shop")
    assert first.path.parent == Path("runs")
    assert first.path.name.startswith("shop-even-")
    assert cpmi_eval.evaluate("even", "shop").path == first.path
    assert cpmi_eval.evaluate("even", "shop", data_dir="elsewhere").path == first.path
    assert cpmi_eval.evaluate("even", "shop", seed=1).path != first.path


def test_a_finished_run_loads_no_model(go: Go) -> None:
    first = go("asking", backend="counting")
    again = go("asking", backend="counting")
    assert len(Counting.opened) == 1
    assert again.rows == first.rows
    assert again.summary == first.summary
    assert again.summary["model"]["model"] == "counting"


def test_a_labeler_without_capabilities_loads_no_model(go: Go) -> None:
    assert go("even", backend="counting").summary["model"] is None
    assert Counting.opened == []


class Mute(Counting):
    name: ClassVar[str] = "mute"
    capabilities: ClassVar[frozenset[str]] = frozenset()


class Sampling(Asking):
    capabilities: frozenset[str] = frozenset({"generate"})


def test_a_backend_that_cannot_is_refused_before_weights(go: Go, register: Register, tmp_path: Path) -> None:
    register("backends", "mute", Mute)
    with pytest.raises(UsageError) as caught:
        go("asking", backend="mute")
    message = str(caught.value)
    assert "'asking' needs loglikelihood, which the backend 'mute' does not offer" in message
    assert set(message.partition("backends that do: ")[2].split(", ")) == {"counting", "hf", "lm-eval", "server"}
    assert Counting.opened == []
    assert not (tmp_path / "run").exists()


def test_no_other_backend_is_named_unless_it_offers_all(go: Go) -> None:
    with pytest.raises(UsageError, match=r"'given' needs generate.*backends that do: hf, lm-eval, server$"):
        go(Sampling, backend="counting")


def test_a_model_that_is_not_there_is_refused_before_data(go: Go, register: Register, tmp_path: Path) -> None:
    class Forbidden(Shop):
        def load(self, options: LoadOptions) -> TaskData:
            raise AssertionError("data was loaded first")

    register("tasks", "shop", Forbidden)
    with pytest.raises(ModelError, match="absent"):
        go("asking", backend="counting", model="absent")


def test_another_model_in_the_same_run_is_refused(go: Go, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go("asking", backend="counting")
    samples = tmp_path / "run" / "samples.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:4]))
    before = samples.read_bytes()
    half = ModelDescription("counting", "counting", "cpu", dtype="bfloat16")
    monkeypatch.setattr(Counting, "describe", lambda self: half)
    with pytest.raises(StoreError, match=r"begun with another model or device.*dtype: 'float32' there, 'bfloat16' now"):
        go("asking", backend="counting")
    assert samples.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labeler": "evn"}, "unknown labeler 'evn'. Did you mean 'even'"),
        ({"task": "shp"}, "unknown task 'shp'. Did you mean 'shop'"),
        ({"backend": "countng", "labeler": "asking"}, "unknown backend 'countng'. Did you mean 'counting'"),
        ({"labeler": "cpmi", "labeler_args": {"varaint": 1}}, "unknown cpmi labeler setting 'varaint'. Did you mean"),
        ({"limt": 3}, "limt"),
    ],
)
def test_unknown_names(go: Go, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        go(**options)
    assert message in str(caught.value)


def test_a_typo_in_what_this_labeler_does_not_use_is_still_a_typo(go: Go) -> None:
    with pytest.raises(UnknownNameError, match="unknown backend 'hff'"):
        go("even", backend="hff")


def shop_of(content: list[Item]) -> type[Shop]:
    class Other(Shop):
        def load(self, options: LoadOptions) -> TaskData:
            return TaskData(tuple(content), (Provenance("shop"),))

    return Other


def test_a_task_without_traces_is_an_error(go: Go, register: Register) -> None:
    register("tasks", "shop", shop_of([]))
    with pytest.raises(DataError):
        go()


def test_the_same_id_twice_in_a_subset_is_an_error(go: Go, register: Register) -> None:
    register("tasks", "shop", shop_of([*items("a", 2), *items("a", 1)]))
    with pytest.raises(DataError, match="a0"):
        go()


def test_the_same_id_in_two_subsets_never_mixes_their_scores(go: Go, register: Register) -> None:
    class Numbered(Even):
        def one(self, trace: Trace) -> Scored:
            return StepScores(trace.id, (float(len(trace.problem)),) * len(trace.steps))

    mixed = [Item(subset, Trace("0", problem, ("x",)), Gold(-1)) for subset, problem in (("a", "1"), ("b", "22"))]
    register("tasks", "shop", shop_of(mixed))
    try:
        result = go(Numbered)
    except DataError:
        return  # refusing is as good
    assert [row["scores"] for row in result.rows] == [[1.0], [2.0]]


def test_results_say_what_was_measured_and_on_what(go: Go, tmp_path: Path) -> None:
    result = go("asking", backend="counting", seed=3)
    kept = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert kept == result.summary
    assert list(kept["results"]) == ["shop/a", "shop/b", "shop"]
    for metrics in kept["results"].values():
        assert set(metrics) == {"f1", "acc_error", "acc_correct", "step_auc"}
        assert all(set(entry) - {"interval"} == {"value", "n"} for entry in metrics.values())
    low, high = kept["results"]["shop/b"]["step_auc"]["interval"]
    assert low <= kept["results"]["shop/b"]["step_auc"]["value"] <= high
    cost = kept["cost"]
    assert set(cost) == {"wall_seconds", "device_seconds", "tokens", "peak_memory_bytes", "sessions"}
    assert set(cost["wall_seconds"]) == {"load_data", "load_model", "warm_up", "score", "total"}
    assert cost["wall_seconds"]["total"] == pytest.approx(sum(cost["wall_seconds"].values()) / 2)
    assert cost["tokens"] == {"requested": 26 * 10, "computed": 26 * 4, "reused": 26 * 6, "generated": 26}
    assert (cost["peak_memory_bytes"], cost["sessions"]) == (1000, 1)
    assert kept["errors"] == {}
    scorer = {"name": "asking", "kind": "baseline", "uses_reference": False, "native_threshold": 0.0}
    assert kept["labeler"] == scorer
    assert kept["config"] == {
        "labeler": "asking", "task": "shop", "labeler_args": {}, "task_args": {}, "subset": [], "model": "smollm2-135m",
        "model_args": {}, "backend": "counting", "dtype": "auto", "device": "auto", "batch_size": "auto",
        "scorer": "trie", "threshold": "native", "limit": None, "seed": 3, "log_samples": False, "data_dir": None,
        "output_path": str(tmp_path / "run"),
    }  # fmt: skip
    assert kept["versions"]["cpmi-eval"] == cpmi_eval.__version__
    assert {"python", "torch", "transformers", "numpy"} <= set(kept["versions"])
    assert kept["data"] == [{"name": "shop", "revision": None, "sha256": "00", "rows": 13}]
    assert kept["model"] == {
        "backend": "counting", "model": "counting", "dtype": "float32", "device": "cpu", "scorer": "trie",
    }  # fmt: skip
    assert (kept["schema_version"], kept["synthetic"]) == (2, False)


def test_cost_adds_up_over_sessions(go: Go, tmp_path: Path) -> None:
    class Interrupted(Asking):
        patience: ClassVar[int] = 1

        def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
            if self.patience == 0:
                raise KeyboardInterrupt
            type(self).patience -= 1
            yield from super().score(traces, backend)

    options = {"backend": "counting", "batch_size": 5}
    with pytest.raises(KeyboardInterrupt):
        go(Interrupted, **options)
    first = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["sessions"]
    Interrupted.patience = 9
    result = go(Interrupted, **options)
    sessions = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["sessions"]
    assert len(sessions) == 2
    assert sessions[:1] == first
    cost = result.summary["cost"]
    assert cost["sessions"] == 2
    assert cost["tokens"] == {"requested": 260, "computed": 104, "reused": 156, "generated": 26}
    assert cost["peak_memory_bytes"] == 2000  # the larger of the two sessions
    for phase in ("load_data", "load_model"):
        assert cost["wall_seconds"][phase] == pytest.approx(sum(session["seconds"][phase] for session in sessions))
    scoring = sum(row["cost"]["seconds"] for row in result.rows)
    assert cost["wall_seconds"]["score"] == pytest.approx(scoring)


CLI = [sys.executable, "-c", "from cpmi_eval.cli import main; main()"]
N_TRACES = 24


def command(checkpoint: Path, output: Path) -> list[str]:
    return [
        "run", "--labeler", "cpmi", "--model", str(checkpoint), "--task", "synthetic",
        "--task_args", f"n={N_TRACES}", "--dtype", "float32", "--batch_size", "2", "--output_path", str(output),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CPMI_EVAL_")}
    # One thread: threads that wait for each other are very slow on a busy machine, and the model is tiny.
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def kill_when_scoring(args: list[str], samples: Path) -> int:
    """Start a run, kill it once some rows are on disk, and return how many are."""
    process = subprocess.Popen(args, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if samples.exists() and samples.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    return samples.read_bytes().count(b"\n")


def test_a_killed_run_ends_as_if_it_had_not_been(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    samples = killed / "samples.jsonl"
    whole = kill_when_scoring([*CLI, *command(checkpoint, killed)], samples)
    assert 0 < whole < N_TRACES
    assert not (killed / "results.json").exists()
    # A row more than a batch boundary, so that a batch must be split; and half a line after it.
    lines = samples.read_bytes().splitlines(keepends=True)[:5]
    samples.write_bytes(b"".join(lines) + lines[0][:50])

    for path in (killed, undisturbed):
        done = cli(*command(checkpoint, path))
        assert done.code == 0, done.err
    assert samples.read_bytes().startswith(b"".join(lines))  # what was scored before the kill is as it was

    def read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        rows = [json.loads(line) for line in (path / "samples.jsonl").read_bytes().splitlines()]
        return rows, json.loads((path / "results.json").read_bytes())

    (rows, summary), (expected_rows, expected) = read(killed), read(undisturbed)
    assert len(rows) == len({row["id"] for row in rows}) == N_TRACES
    for place, (row, other) in enumerate(zip(rows, expected_rows, strict=True)):
        for key in ("id", "task", "scores", "prediction", "gold", "error", "details"):
            assert row[key] == other[key]  # floats too: to the last bit
        # The first row owed also pays for the row of its batch that was scored again.
        assert (row["cost"]["tokens"] == other["cost"]["tokens"]) == (place != len(lines))
    assert summary["results"] == expected["results"]
    assert summary["coverage"] == expected["coverage"]
    assert (summary["cost"]["sessions"], expected["cost"]["sessions"]) == (2, 1)
    for key, count in expected["cost"]["tokens"].items():
        assert summary["cost"]["tokens"][key] > count or key == "generated"


def test_what_a_resumed_batch_computes_again_is_counted(go: Go, tmp_path: Path) -> None:
    """Two rows of a batch of four survive: the whole batch is scored again, its finished rows stay as they are."""
    whole = go("asking", batch_size=4, backend="counting")
    path = whole.path / "samples.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2]), encoding="utf-8")
    again = go("asking", batch_size=4, backend="counting")
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in whole.rows]
    per_trace = 2 * 4  # two steps of four tokens
    computed = [result.summary["cost"]["tokens"]["computed"] for result in (whole, again)]
    assert computed == [13 * per_trace, 15 * per_trace]
    assert again.summary["cost"]["sessions"] == 2
