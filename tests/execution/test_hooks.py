"""What a labeler may do besides scoring: decide, keep texts, load more models, see all rows; and sharing a backend."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from shop import Asking, Counting, Even, Go, by_id, items

from cpmi_eval import RunConfig, RunResult, StepScores, Trace
from cpmi_eval.description import ModelDescription
from cpmi_eval.engine import memory
from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.protocols import Backend, BackendOptions
from cpmi_eval.run import batches, run
from cpmi_eval.types import JSON, Failure, Scored, TraceFailure


class Deciding(Even):
    """Says itself that every trace is wrong at step 1, though no score is below the threshold."""

    def one(self, trace: Trace) -> Scored:
        return StepScores(trace.id, (1.0,) * len(trace.steps), prediction=1)


def test_a_labelers_own_decision_holds_under_its_native_threshold(go: Go) -> None:
    result = go(Deciding)
    assert {row["prediction"] for row in result.rows} == {1}
    assert result.results["shop/a"]["acc_error"].value == 1.0


def test_a_fixed_threshold_overrules_it(go: Go) -> None:
    assert {row["prediction"] for row in go(Deciding, threshold="fixed:0.5").rows} == {-1}


@pytest.mark.parametrize("wrong", [2, -2])
def test_a_decision_for_a_step_that_is_not_there_is_a_failure(go: Go, wrong: int) -> None:
    class Wild(Even):
        def one(self, trace: Trace) -> Scored:
            return StepScores(trace.id, (1.0,) * len(trace.steps), prediction=wrong)

    assert go(Wild).summary["errors"] == {"bad_output": 13}


class Talking(Even):
    """Keeps two texts per trace, one of them with characters that are line ends elsewhere; fails on trace a1."""

    def one(self, trace: Trace) -> Scored:
        samples = tuple({"role": "critic", "sample": k, "text": f"{trace.id} {k}\u2028\x85\n"} for k in range(2))
        if trace.id == "a1":
            return TraceFailure(trace.id, Failure("unparsed", "no box"), samples=samples)
        return StepScores(trace.id, (1.0,) * len(trace.steps), samples=samples)


def rollouts(result: RunResult) -> list[JSON]:
    return [json.loads(line) for line in (result.path / "rollouts.jsonl").read_bytes().splitlines()]


def test_texts_are_kept_where_the_run_asks_for_them(go: Go) -> None:
    kept = rollouts(go(Talking, log_samples=True))
    assert len(kept) == 26
    assert kept[2] == {"task": "shop/a", "id": "a1", "role": "critic", "sample": 0, "text": "a1 0\u2028\x85\n"}


def test_texts_are_not_kept_otherwise(go: Go) -> None:
    assert not (go(Talking).path / "rollouts.jsonl").exists()


def test_texts_that_cannot_be_stored_are_a_failure(go: Go) -> None:
    class Odd(Even):
        def one(self, trace: Trace) -> Scored:
            return StepScores(trace.id, (1.0,) * len(trace.steps), samples=({"text": object()},))

    assert go(Odd).summary["errors"] == {"bad_output": 13}


def test_a_resumed_run_has_each_text_once(go: Go) -> None:
    whole = go(Talking, log_samples=True, batch_size=4)
    expected = rollouts(whole)
    samples, texts = whole.path / "samples.jsonl", whole.path / "rollouts.jsonl"
    # Killed between the two files, in the middle of a line: texts of traces that have no row yet.
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:6]))
    texts.write_bytes(texts.read_bytes()[:-30])
    again = go(Talking, log_samples=True, batch_size=4)
    assert sorted(rollouts(again), key=str) == sorted(expected, key=str)


def test_keeping_texts_of_a_labeler_that_has_none_is_said(go: Go, caplog: pytest.LogCaptureFixture) -> None:
    go("even", log_samples=True)
    assert "even draws no samples" in caplog.text


class Ranking(Even):
    """The final score of a step is the rank of its trace's length among all."""

    def one(self, trace: Trace) -> Scored:
        if trace.id == "a1":
            return TraceFailure(trace.id, Failure("x", "x"))
        return StepScores(trace.id, (0.0,) * len(trace.steps), details={"size": int(trace.id[1:])})

    def finish(self, rows: Sequence[JSON]) -> list[list[float] | None]:
        sizes = sorted(row["details"]["size"] for row in rows if row["scores"] is not None)
        return [
            None if row["scores"] is None else [float(sizes.index(row["details"]["size"]))] * len(row["scores"])
            for row in rows
        ]


def test_final_scores_are_those_of_all_rows(go: Go) -> None:
    result = go(Ranking, batch_size=2)
    rows = by_id(result)
    assert rows["a1"]["scores"] is None
    assert rows["a0"]["scores"] == [0.0, 0.0]
    assert rows["b7"]["scores"] == [11.0, 11.0]
    assert rows["b7"]["prediction"] == -1
    assert rows["a0"]["prediction"] == 0  # below 0.5 now
    kept = [json.loads(line) for line in (result.path / "samples.jsonl").read_bytes().splitlines()]
    assert kept == list(result.rows)
    assert go(Ranking, batch_size=2).rows == result.rows


def test_a_description_that_is_none_is_told(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Second, "load", lambda self, backend: {"prover": {"model": "second"}})
    with pytest.raises(UsageError, match=r"labeler.*describes its model by a dict.*ModelDescription"):
        go(Second, backend="counting")
    monkeypatch.setattr(Counting, "describe", lambda self: {"model": "counting"})
    with pytest.raises(UsageError, match=r"the backend 'counting' describes its model by a dict"):
        go("asking", backend="counting")


class Second(Asking):
    """Needs a second model."""

    other: ClassVar[str] = "second"

    def load(self, backend: Backend | None) -> dict[str, ModelDescription]:
        return {"prover": ModelDescription("counting", self.other, "cpu", dtype="float32")}


def test_other_models_are_in_the_manifest(go: Go) -> None:
    result = go(Second, backend="counting")
    prover = {"backend": "counting", "model": "second", "device": "cpu", "dtype": "float32"}
    assert result.summary["model"]["others"] == {"prover": prover}


def test_another_second_model_is_another_run(go: Go) -> None:
    whole = go(Second, backend="counting", batch_size=4)
    samples = whole.path / "samples.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:4]))

    class Third(Second):
        other: ClassVar[str] = "third"

    with pytest.raises(StoreError, match=r"another model.*second.*third"):
        go(Third, backend="counting", batch_size=4)


def test_the_backend_is_prepared_for_what_will_be_asked(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[frozenset[str]] = []
    monkeypatch.setattr(Counting, "prepare", lambda self, capabilities: asked.append(capabilities))
    go("asking", backend="counting")
    assert asked == [frozenset({"loglikelihood"})]


def test_runs_can_share_a_loaded_model(register: Any, tmp_path: Path) -> None:
    backend = Counting()

    def opener(backend_class: type[Backend], options: BackendOptions) -> Backend:
        assert backend_class is Counting
        return backend

    for name in ("one", "two"):
        config = RunConfig("asking", "shop", backend="counting", output_path=str(tmp_path / name))
        assert run(config, opener=opener).failed == 0
    assert Counting.opened == []


def test_a_run_of_another_format_is_refused(go: Go) -> None:
    path = go("even").path / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "schema_version": 1}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"run format 1, here 2.*--fresh"):
        go("even")


def test_device_time_is_processor_time_where_there_is_no_gpu(go: Go) -> None:
    class Busy(Even):
        def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
            sum(range(300_000))
            yield from super().score(traces, backend)

    result = go(Busy)
    cost = result.summary["cost"]
    assert cost["device_seconds"] == pytest.approx(sum(row["cost"]["device_seconds"] for row in result.rows))
    assert cost["device_seconds"] > 0


def test_device_time_is_wall_time_on_a_gpu(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelDescription("counting", "counting", "cuda:0 (a card)")
    monkeypatch.setattr(Counting, "describe", lambda self: card)
    cost = go("asking", backend="counting").summary["cost"]
    assert cost["device_seconds"] == pytest.approx(cost["wall_seconds"]["score"])


def test_a_batch_factor_makes_larger_batches() -> None:
    sizes = {factor: [len(one) for one in batches(items("a", 12), "auto", Counting(), factor)] for factor in (1, 4)}
    assert sizes[1][0] * 3 <= sizes[4][0]
    assert sum(sizes[4]) == sum(sizes[1]) == 12


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory can be reset on Linux only")
def test_the_peak_is_measured_from_where_it_is_reset() -> None:
    import torch

    device = torch.device("cpu")
    large = torch.ones(30_000_000)
    before = memory.peak_bytes([device])
    del large
    memory.reset_peak([device])
    assert memory.peak_bytes([device]) < before - 60_000_000


@pytest.mark.parametrize("line", [b"{", b'{"id": "a0"}', b"3"])
def test_a_damaged_text_stops_a_resumed_run(go: Go, line: bytes) -> None:
    whole = go(Talking, log_samples=True, batch_size=4)
    samples, texts = whole.path / "samples.jsonl", whole.path / "rollouts.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:6]))
    texts.write_bytes(line + b"\n" + texts.read_bytes())
    with pytest.raises(StoreError, match=r"rollouts.jsonl, line 1 is damaged.*--fresh"):
        go(Talking, log_samples=True, batch_size=4)
