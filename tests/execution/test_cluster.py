"""Runs on Ray workers: equal to one process whatever dies in between, bounded, counted, and nothing left behind."""

import importlib.util
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import Cli

import cpmi_eval
from cpmi_eval import Progress, RunConfig, RunResult, registry
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.execution.session import Share, share
from cpmi_eval.execution.workers import Workers
from cpmi_eval.run import run

N_TRACES = 16
STORE_BYTES = 80_000_000
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install '.[ray]'")

PLUGIN = '''
import hashlib, os, signal, time
from pathlib import Path
from cpmi_eval import StepScores, Tokens
from cpmi_eval.errors import UsageError


class Probe:
    """Scores by a hash of the text; leaves a line per batch; dies, raises or refuses where it is told to."""

    name, summary, kind = "probe", "for tests", "baseline"
    needs, capabilities, native_threshold = frozenset(), frozenset(), 0.5

    def __init__(self, folder, pause=0.0, dies_on="", raises_on="", refuses_on="", seed=0):
        self.folder, self.pause, self.seed = Path(str(folder)), pause, seed
        self.dies_on, self.raises_on, self.refuses_on = dies_on, raises_on, refuses_on

    def score(self, traces, backend):
        with (self.folder / "batches").open("a") as stream:
            stream.write(f"{os.getpid()} {' '.join(one.id for one in traces)}\\n")
        time.sleep(self.pause)
        for one in traces:
            if one.id == self.dies_on or (self.dies_on == "any" and (self.folder / "deadly").exists()):
                os.kill(os.getpid(), signal.SIGKILL)
            if one.id == self.raises_on:
                raise ValueError("cannot read this")
            if one.id == self.refuses_on and (self.folder / "refusing").exists():
                raise UsageError("the server is gone")
            values = [self.value(f"{self.seed} {one.problem} {step}") for step in one.steps]
            samples = ({"role": "probe", "sample": 0, "text": one.problem},)
            yield StepScores(one.id, tuple(values), Tokens(9, len(one.steps), 1), {"n": len(values)}, samples=samples)

    @staticmethod
    def value(text):
        return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


class Ranked(Probe):
    """Its final scores are ranks among all traces."""

    name = "probe-ranked"

    def finish(self, rows):
        order = sorted(row.id for row in rows)
        return [[float(order.index(row.id))] * row.details["n"] for row in rows]


class Asking(Probe):
    """Runs on a model."""

    name, capabilities = "probe-asking", frozenset({"loglikelihood"})


class Unlike:
    """A backend that is another model in every process."""

    name, summary, capabilities, batch_tokens = "unlike", "for tests", frozenset({"loglikelihood"}), 16
    check = classmethod(lambda cls, options: None)
    open = classmethod(lambda cls, options: cls())
    prepare = lambda self, capabilities: None
    peak_memory_bytes = lambda self: 0

    def describe(self):
        from cpmi_eval.record.model import ModelDescription

        return ModelDescription(self.name, "unlike", "cpu", sha256=str(os.getpid()), dtype="float32")
'''
ENTRY_POINTS = """
[cpmi_eval.labelers]
probe = cluster_plugin:Probe
probe-ranked = cluster_plugin:Ranked
probe-asking = cluster_plugin:Asking

[cpmi_eval.backends]
unlike = cluster_plugin:Unlike
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed distribution that registers labelers and a backend, as workers will find it too."""
    folder = tmp_path_factory.mktemp("plugin")
    about = folder / "cluster_plugin-1.0.dist-info"
    about.mkdir()
    (folder / "cluster_plugin.py").write_text(PLUGIN, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cluster-plugin\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
        registry.entries.cache_clear()
        yield folder
    registry.entries.cache_clear()
    sys.modules.pop("cluster_plugin", None)


@pytest.fixture(scope="module")
def cluster(plugin: Path) -> Iterator[Any]:
    """A Ray cluster of one machine with two CPUs, on the loopback address, that this process is connected to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        import ray
        from ray.cluster_utils import Cluster

        started = Cluster()
        try:
            checks = {"health_check_period_ms": 500}  # a machine is missed within seconds, not in a quarter of a minute
            started.add_node(
                num_cpus=2, object_store_memory=STORE_BYTES, include_dashboard=False, _system_config=checks
            )
            ray.init(address=started.address, log_to_driver=False, configure_logging=False)
            yield started
        finally:
            ray.shutdown()
            started.shutdown()


@pytest.fixture
def go(plugin: Path, tmp_path: Path) -> Callable[..., RunResult]:
    """Run the probe on synthetic traces, in a directory of the test's own; ``name`` is the run's."""

    def go(
        name: str = "run", labeler: str = "probe", progress: Any = None, workers: Workers | None = None, **more: Any
    ) -> RunResult:
        labeler_args = {"folder": str(tmp_path), **more.pop("labeler_args", {})}
        config = RunConfig(
            labeler, "synthetic", labeler_args, {"n": N_TRACES},
            **{"batch_size": 2, "output_path": str(tmp_path / name), **more},
        )  # fmt: skip
        return run(config, progress=progress, workers=workers)

    return go


Go = Callable[..., RunResult]


def same(result: RunResult, expected: RunResult) -> bool:
    """Whether two runs found the same, to the last bit, in order; and nothing is twice in the store."""
    kept = [json.loads(line)["id"] for line in (result.path / "samples.jsonl").read_bytes().splitlines()]
    assert sorted(kept) == sorted(row["id"] for row in expected.rows)
    rows, others = ([{**row, "cost": row["cost"]["tokens"]} for row in one.rows] for one in (result, expected))
    parts = ("results", "coverage", "errors", "threshold", "model", "labeler")
    return rows == others and all(result.summary[part] == expected.summary[part] for part in parts)


def batches(folder: Path) -> list[tuple[int, list[str]]]:
    """Return who scored what, so far."""
    lines = (folder / "batches").read_text(encoding="utf-8").splitlines() if (folder / "batches").exists() else []
    return [(int(line.split()[0]), line.split()[1:]) for line in lines]


def gone(pid: int) -> bool:
    """Whether a process ends soon."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def wait_for_machines(n: int) -> None:
    """Wait until Ray knows how many machines there are: it notices a lost one after some seconds."""
    import ray

    deadline = time.monotonic() + 120
    while sum(node["Alive"] for node in ray.nodes()) != n:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def session(result: RunResult) -> dict[str, Any]:
    manifest = json.loads((result.path / "manifest.json").read_text(encoding="utf-8"))
    return dict(manifest["sessions"][-1]["workers"])


@needs_ray
def test_workers_find_what_one_process_finds(cluster: Any, go: Go, tmp_path: Path) -> None:
    alone = go("alone", log_samples=True)
    (tmp_path / "batches").unlink()
    result = go("spread", log_samples=True, workers=Workers(2))
    assert same(result, alone)
    assert {pid for pid, _ in batches(tmp_path)} != {os.getpid()}
    assert len({pid for pid, _ in batches(tmp_path)}) == 2
    texts, others = (sorted((one.path / "rollouts.jsonl").read_text().splitlines()) for one in (result, alone))
    assert texts == others
    assert "workers" not in result.summary["config"]
    assert session(result) == {
        "count": 2, "address": None, "machines": 1, "cpus_each": 1, "gpus_each": 0, "restarts": 0, "retried_batches": 0,
    }  # fmt: skip


@needs_ray
def test_time_passed_is_told_from_time_spent(cluster: Any, go: Go) -> None:
    class EnoughError(Exception):
        pass

    def stop(step: Progress) -> None:
        if step.done >= 6:
            raise EnoughError

    with pytest.raises(EnoughError):
        go(progress=stop)  # the first session is one process
    rows = {row["id"]: row["cost"] for row in go(workers=Workers(2), labeler_args={}).rows}
    result = go()
    cost = result.summary["cost"]
    spread = [one for one in rows.values() if "wall_seconds" in one]
    single = [one for one in rows.values() if "wall_seconds" not in one]
    assert (len(spread), len(single)) == (N_TRACES - 6, 6)
    passed = sum(one["wall_seconds"] for one in spread) + sum(one["seconds"] for one in single)
    assert cost["wall_seconds"]["score"] == pytest.approx(passed)
    assert cost["device_seconds"] == pytest.approx(sum(one["device_seconds"] for one in rows.values()))
    assert (cost["workers"], cost["worker_restarts"], cost["retried_batches"], cost["sessions"]) == (2, 0, 0, 2)
    assert {"load_data", "start_workers", "load_model", "score"} < set(cost["wall_seconds"])


@needs_ray
def test_scores_that_need_all_rows_are_made_in_the_driver(cluster: Any, go: Go) -> None:
    result = go("spread", labeler="probe-ranked", workers=Workers(2))
    assert same(result, go("alone", labeler="probe-ranked"))


@needs_ray
def test_a_model_on_workers_scores_as_here(cluster: Any, go: Go, tmp_path: Path) -> None:
    import tinymodels

    options: dict[str, Any] = {"model": str(tinymodels.save(tmp_path / "model")), "dtype": "float32", "device": "cpu"}
    config = {"labeler": "cpmi", "task": "synthetic", "task_args": {"n": 6}, "batch_size": 2, **options}
    alone = cpmi_eval.evaluate(**config, output_path=str(tmp_path / "alone"))
    result = cpmi_eval.evaluate(**config, output_path=str(tmp_path / "spread"), workers=2)
    assert same(result, alone)
    assert result.failed == 0
    assert result.summary["model"]["sha256"] == alone.summary["model"]["sha256"]
    assert result.summary["cost"]["peak_memory_bytes"] > 0


@needs_ray
def test_a_trace_that_fails_fails_alone(cluster: Any, go: Go, caplog: pytest.LogCaptureFixture) -> None:
    alone = go("alone", labeler_args={"raises_on": "synthetic-0003"})
    assert alone.summary["errors"] == {"exception": 1}
    caplog.clear()
    with caplog.at_level(logging.WARNING, "cpmi_eval"):
        assert same(go("spread", labeler_args={"raises_on": "synthetic-0003"}, workers=Workers(2)), alone)
    assert "worker" in caplog.text
    assert "trace synthetic-0003: ValueError: cannot read this" in caplog.text


@needs_ray
def test_a_run_that_cannot_go_on_keeps_what_was_scored(cluster: Any, go: Go, tmp_path: Path) -> None:
    labeler_args = {"refuses_on": "synthetic-0005"}
    alone = go("alone", labeler_args=labeler_args)
    (tmp_path / "refusing").touch()
    with pytest.raises(UsageError, match=r"worker \d on .*: the server is gone"):
        go("spread", labeler_args=labeler_args, workers=Workers(2))
    kept = (tmp_path / "spread" / "samples.jsonl").read_bytes()
    assert kept.count(b"\n") >= 2
    (tmp_path / "refusing").unlink()
    result = go("spread", labeler_args=labeler_args, workers=Workers(1))
    assert (result.path / "samples.jsonl").read_bytes().startswith(kept)
    assert same(result, alone)


@needs_ray
def test_workers_with_different_models_are_refused(cluster: Any, go: Go) -> None:
    with pytest.raises(UsageError, match=r"worker \d on .* loaded another model.*sha256"):
        go(labeler="probe-asking", backend="unlike", workers=Workers(2))


@needs_ray
def test_more_workers_than_there_is_room_for_are_refused(cluster: Any, go: Go, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Ray sees 2 CPUs on 1 machines: no room for 3 workers"):
        go(workers=Workers(3))
    with pytest.raises(UsageError, match=r"Ray sees 0 GPUs.*--device cpu"):
        go(labeler="probe-asking", backend="unlike", device="cuda", workers=Workers(1))


@needs_ray
def test_batches_are_taken_as_they_are_needed(cluster: Any, go: Go, tmp_path: Path) -> None:
    from cpmi_eval.cost import Meter
    from cpmi_eval.execution.driver import IN_FLIGHT, OnWorkers
    from cpmi_eval.execution.local import Batch
    from cpmi_eval.protocols import LoadOptions

    data = registry.load("tasks", "synthetic")().load(LoadOptions(args={"n": 30}))
    taken = finished = most = 0

    def source() -> Iterator[Batch]:
        nonlocal taken, most
        for item in data.items:
            taken += 1
            most = max(most, taken - finished)
            yield Batch((item,), (item,))

    executor = OnWorkers(RunConfig("probe", "synthetic", {"folder": str(tmp_path)}), None, Workers(2))
    try:
        executor.open(Meter())
        for _ in executor.score(source()):
            finished += 1
    finally:
        executor.close()
    assert finished == 30
    assert most <= 2 * IN_FLIGHT


@needs_ray
def test_a_killed_worker_costs_nothing_but_time(cluster: Any, go: Go, tmp_path: Path) -> None:
    alone = go("alone")
    (tmp_path / "batches").unlink()
    killed: list[int] = []

    def kill(step: Progress) -> None:
        if step.done and not killed:
            killed.append(batches(tmp_path)[-1][0])
            os.kill(killed[0], signal.SIGKILL)

    result = go("spread", progress=kill, workers=Workers(2), labeler_args={"pause": 0.1})
    assert [{**row, "cost": 0} for row in result.rows] == [{**row, "cost": 0} for row in alone.rows]
    kept = Counter(json.loads(line)["id"] for line in (result.path / "samples.jsonl").read_bytes().splitlines())
    assert kept == Counter(row["id"] for row in alone.rows)
    cost = result.summary["cost"]
    assert cost["worker_restarts"] == 1
    assert 1 <= cost["retried_batches"] <= 2
    assert session(result)["retried_batches"] == cost["retried_batches"]


@needs_ray
def test_a_lost_machine_costs_nothing_but_time(cluster: Any, go: Go, tmp_path: Path) -> None:
    """Two machines of two CPUs, so each worker has one to itself; there is no room for a worker in its place."""
    alone = go("alone")
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
    left = [node]

    def remove(step: Progress) -> None:
        if step.done and left:
            cluster.remove_node(left.pop(), allow_graceful=False)

    try:
        result = go("spread", progress=remove, workers=Workers(2), labeler_args={"pause": 0.25})
    finally:
        for one in left:
            cluster.remove_node(one)
        wait_for_machines(1)
    assert [{**row, "cost": 0} for row in result.rows] == [{**row, "cost": 0} for row in alone.rows]
    assert session(result)["cpus_each"] == 2
    assert session(result)["restarts"] == 1
    assert session(result)["retried_batches"] >= 1


@needs_ray
def test_a_trace_that_kills_workers_is_found_and_given_up(
    cluster: Any, go: Go, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cpmi_eval.execution import driver as executor

    monkeypatch.setattr(executor, "DEATHS", 2)
    alone = go("alone")
    (tmp_path / "batches").unlink()
    result = go("spread", labeler_args={"dies_on": "synthetic-0006"}, workers=Workers(2))
    failed = [row for row in result.rows if row["error"]]
    assert [row["id"] for row in failed] == ["synthetic-0006"]
    assert failed[0]["error"]["kind"] == "worker_died"
    assert failed[0]["error"]["message"].startswith("2 workers died while they scored it")
    assert result.failed == 1
    others = [row["scores"] for row in alone.rows if row["id"] != "synthetic-0006"]
    assert [row["scores"] for row in result.rows if not row["error"]] == others
    tried = Counter(tuple(ids) for _, ids in batches(tmp_path) if "synthetic-0006" in ids)
    assert sorted(tried.values()) == [2, 2]  # its batch, then by itself
    assert session(result)["restarts"] == 4


@needs_ray
def test_a_run_whose_workers_all_die_stops_and_can_go_on(cluster: Any, go: Go, tmp_path: Path) -> None:
    (tmp_path / "deadly").touch()
    labeler_args = {"dies_on": "any"}
    with pytest.raises(UsageError, match=r"2 workers were lost one after another.*the same command goes on"):
        go("spread", labeler_args=labeler_args, workers=Workers(1, max_restarts=1))
    (tmp_path / "deadly").unlink()
    assert same(go("spread", labeler_args=labeler_args, workers=Workers(2)), go("alone", labeler_args=labeler_args))


def command(tmp_path: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-c", "from cpmi_eval.cli import main; main()", "run", "--labeler", "probe"),
        *("--task", "synthetic", "--task_args", f"n={N_TRACES}", "--batch_size", "2", "--labeler_args"),
        *(f"folder={tmp_path},pause=0.2", "--output_path", str(tmp_path / "run"), *more),
    ]


def interrupt(args: list[str], tmp_path: Path, number: int) -> tuple[int, str, str]:
    """Start a run, send it a signal once two rows are on disk; return exit code, stdout and stderr."""
    samples = tmp_path / "run" / "samples.jsonl"
    process = subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    try:
        deadline = time.monotonic() + 120
        while (
            process.poll() is None and time.monotonic() < deadline and not (samples.exists() and samples.read_bytes())
        ):
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


@needs_ray
def test_a_killed_driver_goes_on_where_it_was(cluster: Any, go: Go, tmp_path: Path) -> None:
    args = command(tmp_path, "--workers", "2", "--ray_address", cluster.address)
    code, _, err = interrupt(args, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL, err
    samples = tmp_path / "run" / "samples.jsonl"
    kept = samples.read_bytes()
    assert 0 < kept.count(b"\n") < N_TRACES
    assert all(gone(pid) for pid in {pid for pid, _ in batches(tmp_path)})  # Ray ends the workers of a dead driver
    result = go("run", labeler_args={"pause": 0.2}, workers=Workers(1))  # with another number of workers
    assert samples.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert same(result, go("alone", labeler_args={"pause": 0.2}))
    assert (result.summary["cost"]["sessions"], result.summary["cost"]["workers"]) == (2, 2)


@needs_ray
def test_ctrl_c_ends_the_workers_and_ray(plugin: Path, cli: Cli, tmp_path: Path) -> None:
    """With a Ray of its own: nothing of it is left, and stdout holds the result alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        code, out, err = interrupt(command(tmp_path, "--workers", "1", "--json"), tmp_path, signal.SIGINT)
        assert (code, out) == (130, ""), err
        assert "the same command goes on from there" in err
        pids = {pid for pid, _ in batches(tmp_path)}
        assert pids
        assert all(map(gone, pids))
    done = cli(*command(tmp_path, "--json")[3:])
    assert done.code == 0, done.err
    assert json.loads(done.out)["cost"]["sessions"] == 2


@pytest.mark.parametrize(
    ("nodes", "count", "device", "expected"),
    [
        ([{"CPU": 2.0}], 1, "auto", Share(2, 0)),
        ([{"CPU": 2.0}], 2, "auto", Share(1, 0)),
        ([{"CPU": 8.0}, {"CPU": 3.0}], 3, None, Share(3, 0)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}], 4, "auto", Share(1, 1)),
        ([{"CPU": 8.0, "GPU": 2.0}], 1, "cuda", Share(1, 1)),
        ([{"CPU": 8.0, "GPU": 2.0}], 2, "cpu", Share(4, 0)),
        ([{"CPU": 8.0, "GPU": 2.0}], 4, None, Share(2, 0)),
    ],
)
def test_workers_share_what_there_is(
    nodes: list[dict[str, float]], count: int, device: str | None, expected: Share
) -> None:
    assert share(nodes, count, device) == expected


@pytest.mark.parametrize(
    ("nodes", "count", "device", "message"),
    [
        ([{"CPU": 8.0, "GPU": 2.0}], 3, "auto", "Ray sees 2 GPUs on 1 machines, and 3 workers need one each"),
        ([{"CPU": 8.0}], 1, "cuda", "Ray sees 0 GPUs"),
        ([{"CPU": 8.0, "GPU": 2.0}], 1, "cuda:1", "each worker gets a card of its own"),
        ([{}], 1, None, "no room for 1 workers"),
    ],
)
def test_what_there_is_too_little_of_is_said(
    nodes: list[dict[str, float]], count: int, device: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        share(nodes, count, device)


@needs_ray
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be a whole number of at|workers must be a whole number at least 1"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"workers": 2, "ray_address": "here"}, "ray_address must be auto or host:port, not 'here'"),
        ({"workers": 2, "ray_address": "ray://head:10001"}, "ray_address must be auto or host:port"),
        ({"ray_address": "auto"}, "say how many: --workers N"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cpmi_eval.evaluate("random", "synthetic", output_path=str(tmp_path / "run"), **options)
    assert not (tmp_path / "run").exists()


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'cpmi-eval\[ray\]'"):
        cpmi_eval.evaluate("random", "synthetic", output_path=str(tmp_path / "run"), workers=2)


@needs_ray
def test_a_model_loaded_here_is_not_for_workers(go: Go, tmp_path: Path) -> None:
    config = RunConfig("random", "synthetic", output_path=str(tmp_path / "run"))
    with pytest.raises(UsageError, match="leave out either workers or opener"):
        run(config, opener=lambda backend_class, options: backend_class.open(options), workers=Workers(1))


def test_ray_is_not_imported_until_it_is_needed() -> None:
    code = (
        "import sys, cpmi_eval.cli, cpmi_eval.execution.workers; "
        "sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
