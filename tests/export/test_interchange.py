"""Runs in the forms of other programs: read back by those programs, against values worked out by hand."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from commandline import Cli
from huggingface_hub import EvalResult, ModelCard, ModelCardData, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results
from maderuns import PLAIN

import cpmi_eval
from cpmi_eval.analysis.rescore import rescore
from cpmi_eval.errors import DataError, StoreError, UnknownNameError, UsageError
from cpmi_eval.interchange.export import FORMATS, export
from cpmi_eval.record.door import to_lines, write_json

PLAIN_COST = {"requested": 9, "computed": 6, "reused": 3, "generated": 0}
VERSIONS = {"python": "3.12.0", "cpmi-eval": "9.8.7", "torch": "2.0", "transformers": "5.1"}
WRITTEN = 1_750_000_000.25  # 2025-06-15T15:06:40.25 UTC

# Per part: (id, first error, scores, prediction). Each decision is the first score below 0.5.
TRACES: dict[str, list[tuple[str, int, list[float] | None, int | None]]] = {
    "processbench/gsm8k": [
        ("gsm8k-0", 1, [0.9, 0.2], 1),
        ("gsm8k-1", 0, [0.9, 0.8], -1),
        ("gsm8k-2", -1, [0.9, 0.7], -1),
        ("gsm8k-3", -1, [0.25, 0.7], 0),
    ],
    "processbench/math": [("math-0", 0, [0.1, 0.9], 0), ("math-1", -1, [0.9, 0.6], -1), ("math-2", -1, [0.6], -1)],
}
# acc_error 1/2 and acc_correct 1/2 on gsm8k, 1 and 1 on math.
RESULTS: dict[str, dict[str, Any]] = {
    "processbench/gsm8k": {
        "f1": {"value": 0.5, "n": 4, "interval": [0.304, 0.696]},
        "acc_error": {"value": 0.5, "n": 2, "interval": [0.0, 1.0]},
        "acc_correct": {"value": 0.5, "n": 2, "interval": [0.0, 1.0]},
        "step_auc": {"value": 0.61234, "n": 6, "interval": [0.5, 0.696]},
    },
    "processbench/math": {
        "f1": {"value": 1.0, "n": 3},
        "acc_error": {"value": 1.0, "n": 1},
        "acc_correct": {"value": 1.0, "n": 2},
        "step_auc": {"value": 1.0, "n": 4},
    },
    "processbench": {
        "f1": {"value": 0.75, "n": 7, "interval": [0.652, 0.848]},
        "acc_error": {"value": 0.75, "n": 3},
        "acc_correct": {"value": 0.75, "n": 4},
        "step_auc": {"value": 0.80617, "n": 10},
    },
}
MODEL = {
    "backend": "prm", "model": "Qwen/Qwen2.5-Math-PRM-7B", "sha256": None, "revision": "abc123",
    "parameters": 7_000_000_000, "dtype": "bfloat16", "device": "cuda",
}  # fmt: skip


def trace_rows(part: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a part's rows of samples.jsonl and traces.jsonl."""
    samples, traces = [], []
    for name, first_error, scores, prediction in TRACES[part]:
        gold = {"first_error": first_error, "final_answer_correct": first_error < 0}
        cost = {"seconds": 1.0, "device_seconds": 0.5, "tokens": PLAIN_COST, "peak_memory_bytes": 5}
        row = {"id": name, "task": part, "scores": scores, "prediction": prediction, "gold": gold, "error": None}
        samples.append({**row, "cost": cost, "details": {}})
        steps = [f"{name} step {number}\u2028" for number in range(len(scores or [0.0, 0.0]))]
        text = {"id": name, "task": part, "problem": f"problem of {name}", "steps": steps}
        traces.append({**text, "answer": "4", "cluster": f"c-{name}"})
    return samples, traces


def changed(summary: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a summary with what ``section__key`` says put in place."""
    for name, value in changes.items():
        section, _, key = name.partition("__")
        if key:
            summary[section] = {**summary[section], key: value}
        else:
            summary[section] = value
    return summary


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Return how to write a finished run of a PRM on two subsets of ProcessBench."""

    def write(name: str = "run", parts: tuple[str, ...] = tuple(TRACES), **changes: Any) -> Path:
        path = tmp_path / name
        path.mkdir()
        rows = [trace_rows(part) for part in parts]
        config = {
            "labeler": "prm", "task": "processbench", "labeler_args": {"checkpoint": "Qwen/Qwen2.5-Math-PRM-7B"},
            "task_args": {}, "batch_size": "auto", "threshold": "native", "limit": None, "seed": 7,
        }  # fmt: skip
        kept = {key: value for key, value in RESULTS.items() if key in parts}
        mean = RESULTS["processbench"] if len(parts) > 1 else RESULTS[parts[0]]
        summary = {
            "schema_version": 2,
            "results": {**kept, "processbench": mean},
            "groups": {},
            "selects": False,
            "notes": {},
            "cost": {**PLAIN["cost"], "wall_seconds": {"score": 3.0, "total": 4.5}},
            "coverage": {
                part: {"traces": len(TRACES[part]), "scored": len(TRACES[part]), "no_reference": 0, "failed": 0}
                for part in parts
            },
            "errors": {},
            "labeler": {"name": "prm", "kind": "prm", "uses_reference": False, "native_threshold": 0.5},
            "threshold": {"protocol": "native", "value": 0.5, "undecided": False},
            "synthetic": False,
            "config": config,
            "model": MODEL,
            "data": [
                {
                    "name": f"Qwen/ProcessBench:{part.partition('/')[2]}",
                    "revision": "3bdcd53",
                    "sha256": None,
                    "rows": 9,
                }
                for part in parts
            ],
            "versions": VERSIONS,
        }
        summary = changed(summary, changes)
        manifest = {
            "schema_version": 2,
            "created": "2025-06-15T14:59:00+00:00",
            "sessions": [{"started": "2025-06-15T15:00:00+00:00", "seconds": {}}],
            "identity": {},
            "machine": {"platform": "Linux", "processor": "x86_64"},
            **{key: summary[key] for key in ("config", "versions", "data", "model")},
        }
        write_json(path / "manifest.json", manifest)
        (path / "samples.jsonl").write_bytes(to_lines(row for one, _ in rows for row in one))
        (path / "traces.jsonl").write_bytes(to_lines(row for _, one in rows for row in one))
        write_json(path / "results.json", summary)
        os.utime(path / "results.json", (WRITTEN, WRITTEN))
        return path

    return write


def lm_eval_files(run_dir: Path, to: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Export to lm-eval's layout; return the results and, by task, the samples."""
    *samples, results = export(run_dir, "lm-eval", to)
    rows = {path.name.removeprefix("samples_").rpartition("_")[0]: path for path in samples}
    parsed = {name: [json.loads(line) for line in path.read_bytes().splitlines()] for name, path in rows.items()}
    return json.loads(results.read_text(encoding="utf-8")), parsed


def test_lm_eval_folders_and_files_are_named_as_lm_eval_finds_them(run: Callable[..., Path], tmp_path: Path) -> None:
    from lm_eval import utils

    files = export(run(), "lm-eval", tmp_path / "out")
    time = "2025-06-15T15-06-40.250000"
    folder = tmp_path / "out" / "prm__Qwen__Qwen2.5-Math-PRM-7B"
    assert [path.relative_to(folder).as_posix() for path in files] == [
        f"samples_processbench_gsm8k_{time}.jsonl",
        f"samples_processbench_math_{time}.jsonl",
        f"results_{time}.json",
    ]
    names = [path.relative_to(tmp_path).as_posix() for path in files]
    assert utils.get_results_filenames(names) == names[2:]
    assert utils.get_sample_results_filenames(names) == names[:2]
    assert [utils.get_file_task_name(path.name) for path in files[:2]] == ["processbench_gsm8k", "processbench_math"]
    assert {utils.get_file_datetime(path.name) for path in files} == {time, f"{time}.json"}
    earlier = "samples_processbench_gsm8k_2025-06-15T15-06-39.9.jsonl"
    assert utils.get_latest_filename([earlier, files[0].name]) == files[0].name
    results = json.loads(files[2].read_text())
    assert utils.sanitize_model_name(results["model_name"]) == results["model_name_sanitized"] == folder.name


def test_lm_eval_results_by_hand(run: Callable[..., Path], tmp_path: Path) -> None:
    found, _ = lm_eval_files(run(), tmp_path / "out")
    gsm8k, mean = found["results"]["processbench_gsm8k"], found["results"]["processbench"]
    assert (gsm8k["name"], gsm8k["alias"], gsm8k["sample_len"]) == ("processbench_gsm8k", "processbench_gsm8k", 4)
    assert gsm8k["f1,none"] == 0.5
    assert gsm8k["f1_stderr,none"] == pytest.approx(0.1)  # (0.696 - 0.304) / 2 / 1.96
    assert gsm8k["acc_error_stderr,none"] == pytest.approx(0.5 / 1.96)
    assert (gsm8k["step_auc,none"], gsm8k["step_auc_stderr,none"]) == (0.61234, pytest.approx(0.05))
    assert found["results"]["processbench_math"]["f1_stderr,none"] == "N/A"
    assert (mean["f1,none"], mean["f1_stderr,none"]) == (0.75, pytest.approx(0.05))
    assert (mean["sample_len"], mean["sample_count"]["f1,none"]) == (7, 7)
    assert found["groups"] == {"processbench": mean}
    assert found["group_subtasks"] == {"processbench": ["processbench_gsm8k", "processbench_math"]}
    assert found["n-samples"]["processbench_gsm8k"] == {"original": 9, "effective": 4}
    assert found["higher_is_better"]["processbench"] == dict.fromkeys(RESULTS["processbench"], True)
    assert found["date"] == 1_749_999_600.0  # 2025-06-15T15:00:00 UTC
    assert found["total_evaluation_time_seconds"] == "4.5"
    config = found["config"]
    assert config["model_args"] == {
        "scorer": "prm",
        "threshold": "native",
        "pretrained": "Qwen/Qwen2.5-Math-PRM-7B",
        "backend": "prm",
    }
    assert (config["model_num_parameters"], config["model_revision"]) == (7_000_000_000, "abc123")
    assert (config["random_seed"], config["limit"], config["bootstrap_iters"]) == (7, None, 2000)
    task = found["configs"]["processbench_gsm8k"]
    assert (task["dataset_path"], task["test_split"]) == ("Qwen/ProcessBench", "gsm8k")
    assert task["metadata"]["interval_95"]["f1"] == [0.304, 0.696]
    assert task["metadata"]["n"] == {"f1": 4, "acc_error": 2, "acc_correct": 2, "step_auc": 6}
    assert (task["metadata"]["threshold"], task["metadata"]["uses_reference"]) == ("native", False)
    assert task["metadata"]["dataset_revision"] == "3bdcd53"


def test_lm_eval_samples_by_hand(run: Callable[..., Path], tmp_path: Path) -> None:
    found, samples = lm_eval_files(run(), tmp_path / "out")
    rows = samples["processbench_gsm8k"]
    first = rows[0]
    doc = {
        "id": "gsm8k-0",
        "cluster": "c-gsm8k-0",
        "problem": "problem of gsm8k-0",
        "steps": ["gsm8k-0 step 0\u2028", "gsm8k-0 step 1\u2028"],
        "first_error": 1,
        "final_answer_correct": False,
    }

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    steps = "gsm8k-0 step 0\u2028\n\ngsm8k-0 step 1\u2028"
    assert first == {
        "doc_id": 0, "doc": doc, "target": "1",
        "arguments": {"gen_args_0": {"arg_0": "problem of gsm8k-0", "arg_1": steps}}, "resps": [["[0.9, 0.2]"]],
        "filtered_resps": ["1"], "filter": "none", "metrics": ["acc_error"],
        "doc_hash": digest(json.dumps(doc, indent=2, ensure_ascii=False)), "prompt_hash": digest("problem of gsm8k-0"),
        "target_hash": digest("1"), "acc_error": 1.0,
    }  # fmt: skip
    hashes = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows)
    assert found["task_hashes"]["processbench_gsm8k"] == digest(hashes)
    for task, of_task in samples.items():
        for metric in ("acc_error", "acc_correct"):
            values = [row[metric] for row in of_task if metric in row["metrics"]]
            assert sum(values) / len(values) == found["results"][task][f"{metric},none"]


def test_lm_eval_alone_a_subset_is_no_group(run: Callable[..., Path], tmp_path: Path) -> None:
    found, _ = lm_eval_files(run(parts=("processbench/math",)), tmp_path / "out")
    assert list(found["results"]) == ["processbench_math"]
    assert "groups" not in found
    assert found["group_subtasks"] == {}
    assert found["config"]["bootstrap_iters"] == 0


@pytest.fixture
def made_by_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return results and one sample of a group of two tasks that lm-eval itself evaluated and wrote."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    for name in ("huggingface_hub.constants.HF_HUB_OFFLINE", "datasets.config.HF_HUB_OFFLINE"):
        monkeypatch.setattr(name, True)  # its tasks are local files; no time is lost on asking
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"q": "1+1", "a": "2"}\n{"q": "1+2", "a": "3"}\n')
    for name in ("t_a", "t_b"):
        config = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(folder / "rows.jsonl")},
                "cache_dir": str(tmp_path / "cache"),
            },
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "generation_kwargs": {"until": ["x"]},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            "metadata": {"version": 1.0},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    mean = {"metric": "exact_match", "aggregation": "mean", "weight_by_size": False}
    group = {"group": "g", "task": ["t_a", "t_b"], "aggregate_metric_list": [mean], "metadata": {"version": 1.0}}
    (folder / "g.yaml").write_text(yaml.safe_dump(group))
    tracker = EvaluationTracker(output_path=str(tmp_path / "theirs"))
    results = simple_evaluate(
        model="dummy",
        tasks=["g"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        evaluation_tracker=tracker,
        bootstrap_iters=10,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    [written] = (tmp_path / "theirs").glob("*/results_*.json")
    [rows] = (tmp_path / "theirs").glob("*/samples_t_a_*.jsonl")
    return json.loads(written.read_text()), json.loads(rows.read_text().splitlines()[0])


def test_lm_eval_writes_the_same_keys(
    made_by_lm_eval: tuple[dict[str, Any], dict[str, Any]], run: Callable[..., Path], tmp_path: Path
) -> None:
    theirs, their_sample = made_by_lm_eval
    ours, samples = lm_eval_files(run(), tmp_path / "out")
    assert list(ours) == list(theirs)
    shared = {"name", "alias", "sample_len"}
    for name, other in (("processbench", "g"), ("processbench_gsm8k", "t_a")):
        fixed = {key for key in ours["results"][name] if "," not in key}
        assert fixed == {key for key in theirs["results"][other] if "," not in key}
        assert fixed >= shared
    described = {"model_num_parameters", "model_dtype", "model_revision"}  # what lm-eval says of its model hf
    assert set(ours["config"]) - described == set(theirs["config"])
    assert set(ours["n-samples"]["processbench_gsm8k"]) == set(theirs["n-samples"]["t_a"])
    known = {*theirs["configs"]["t_a"], "task_alias"}
    assert set(ours["configs"]["processbench_gsm8k"]) <= known
    own = {"acc_error", "exact_match"}
    row = samples["processbench_gsm8k"][0]
    assert [key for key in row if key not in own] == [key for key in their_sample if key not in own]
    for key in ("doc_id", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash"):
        assert type(row[key]) is type(their_sample[key])
    assert type(row["resps"][0][0]) is type(their_sample["resps"][0][0])


def test_lm_evals_schema_knows_every_key(run: Callable[..., Path], tmp_path: Path) -> None:
    from lm_eval import result_schema
    from lm_eval.config.task import TaskConfig

    found, samples = lm_eval_files(run(), tmp_path / "out")
    assert set(found) <= set(result_schema.EvalResults.__annotations__)
    assert set(found["config"]) <= set(get_type_hints(result_schema._EvalConfig))
    fixed = set(result_schema.SampleResult.__annotations__)
    for row in samples["processbench_math"]:
        assert set(row) - set(row["metrics"]) == fixed
    for config in found["configs"].values():
        assert TaskConfig(**config).metadata["threshold"] == "native"


def test_lm_evals_table(run: Callable[..., Path], tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    found, _ = lm_eval_files(run(), tmp_path / "out")

    def cells(column: str) -> list[list[str]]:
        lines = make_table(found, column).splitlines()[2:]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.strip()]

    rows = cells("results")
    assert [row[0] for row in rows if row[0]] == ["processbench", "- processbench_gsm8k", "- processbench_math"]
    assert rows[2] == ["", "", "none", "0", "f1", "↑", "0.7500", "±", "0.0500"]
    values = {(row[4], row[6], row[8]) for row in rows}
    assert {("f1", "0.5000", "0.1000"), ("f1", "1.0000", "N/A"), ("step_auc", "0.6123", "0.0500")} <= values
    assert [row[0] for row in cells("groups") if row[0]] == ["processbench"]


def test_lm_evals_loggers_read_results(run: Callable[..., Path], tmp_path: Path) -> None:
    from lm_eval.loggers.wandb_logger import WandbLogger

    path = run(
        threshold={"protocol": "native", "value": None, "undecided": True},
        results__processbench={"f1": {"value": None, "n": 7}, "step_auc": {"value": 0.8, "n": 10}},
    )
    found, _ = lm_eval_files(path, tmp_path / "out")
    logger = WandbLogger.__new__(WandbLogger)  # without a connection
    logger.post_init(found)
    texts, numbers = logger._sanitize_results_dict()
    assert numbers["processbench/step_auc"] == 0.8
    assert numbers["processbench_gsm8k/f1_stderr"] == pytest.approx(0.1)
    assert texts["processbench/f1"] == "N/A"


def test_samples_load_as_a_dataset(run: Callable[..., Path], tmp_path: Path) -> None:
    import datasets

    files = export(run(), "lm-eval", tmp_path / "out")
    loaded = datasets.load_dataset("json", data_files=[str(files[0])], split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["target"][:] == ["1", "0", "-1", "-1"]
    assert loaded["acc_correct"][:] == [None, None, 1.0, 0.0]


def test_what_is_not_defined_is_said(tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    cpmi_eval.evaluate("length", "synthetic", limit=8, output_path=tmp_path / "run")  # ranks, decides nothing
    found, samples = lm_eval_files(tmp_path / "run", tmp_path / "out")
    task = found["results"]["synthetic_arithmetic"]
    assert (task["f1,none"], task["f1_stderr,none"]) == ("N/A", "N/A")
    assert isinstance(task["step_auc,none"], float)
    assert all(row["metrics"] == [] and row["filtered_resps"] == ["None"] for row in samples["synthetic_arithmetic"])
    assert "threshold" not in found["config"]["model_args"]
    assert "N/A" in make_table(found)
    [path] = export(tmp_path / "run", "model-index", tmp_path / "card.yaml")
    _, entries = model_index_to_eval_results(yaml.safe_load(path.read_text())["model-index"])
    assert [one.metric_type for one in entries] == ["step_auc"]


def test_synthetic_data_and_limits_are_marked(tmp_path: Path) -> None:
    cpmi_eval.evaluate("random", "synthetic", limit=8, output_path=tmp_path / "run")
    found, _ = lm_eval_files(tmp_path / "run", tmp_path / "out")
    marks = ["synthetic data", "limit 8 per subset"]
    assert found["results"]["synthetic_arithmetic"]["alias"] == f"synthetic_arithmetic ({', '.join(marks)})"
    assert found["configs"]["synthetic_arithmetic"]["metadata"]["marks"] == marks
    assert found["n-samples"]["synthetic_arithmetic"] == {"original": 200, "effective": 8}
    assert (found["config"]["limit"], found["model_name"]) == (8, "random")
    [path] = export(tmp_path / "run", "model-index", tmp_path / "card.yaml")
    name, entries = model_index_to_eval_results(yaml.safe_load(path.read_text())["model-index"])
    assert name == "cpmi-eval random"
    assert entries[0].dataset_type == "unknown"
    assert entries[0].dataset_name == f"synthetic/arithmetic ({', '.join(marks)})"
    assert entries[0].metric_args["synthetic"] is True


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({"labeler__uses_reference": True}, "uses the reference answer"),
        ({"threshold__protocol": "oracle"}, "oracle threshold"),
        ({"config__limit": 0.5}, "limit 0.5 per subset"),
    ],
)
def test_marks_are_shown_and_keep_a_run_off_the_hubs_leaderboards(
    run: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], mark: str
) -> None:
    path = run(**changes)
    found, _ = lm_eval_files(path, tmp_path / "out")
    assert found["results"]["processbench"]["alias"] == f"processbench ({mark})"
    [card] = export(path, "model-index", tmp_path / "card.yaml")
    _, entries = model_index_to_eval_results(yaml.safe_load(card.read_text())["model-index"])
    assert all(one.dataset_name.endswith(f"({mark})") for one in entries)
    with pytest.raises(UsageError, match=rf"cannot stand there: {mark}\. --format model-index"):
        export(path, "eval-results", tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_traces_that_failed_are_counted_and_logged(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run(parts=("processbench/math",))
    rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    rows[0] |= {"scores": None, "prediction": None, "error": {"kind": "too_long", "message": "9 tokens"}}
    (path / "samples.jsonl").write_bytes(to_lines(rows))
    summary = json.loads((path / "results.json").read_text())
    summary["coverage"]["processbench/math"] |= {"scored": 2, "failed": 1}
    write_json(path / "results.json", {**summary, "errors": {"too_long": 1}})
    found, samples = lm_eval_files(path, tmp_path / "out")
    failed = samples["processbench_math"][0]
    assert (failed["resps"], failed["filtered_resps"], failed["acc_error"]) == ([["None"]], ["None"], 0.0)
    assert found["configs"]["processbench_math"]["metadata"]["errors"] == {"too_long": 1}
    assert found["results"]["processbench_math"]["alias"] == "processbench_math (2 of 3 scored)"


def test_rescored_runs_are_other_models_to_lm_eval(tmp_path: Path) -> None:
    cpmi_eval.evaluate("random", "synthetic", limit=30, output_path=tmp_path / "run")
    rescore(tmp_path / "run", "crossfit:3", output_path=tmp_path / "fitted")
    native, _ = lm_eval_files(tmp_path / "run", tmp_path / "out")
    fitted, samples = lm_eval_files(tmp_path / "fitted", tmp_path / "out")
    assert native["model_name"] == "random"
    assert fitted["model_name"].startswith("random-threshold-crossfit-3-")
    assert fitted["config"]["model_args"]["threshold"] == "crossfit:3"
    values = [row["acc_error"] for row in samples["synthetic_arithmetic"] if "acc_error" in row]
    assert sum(values) / len(values) == pytest.approx(fitted["results"]["synthetic_arithmetic"]["acc_error,none"])


def test_runs_restricted_to_shared_traces_are_marked(tmp_path: Path) -> None:
    for name, limit in (("long", 30), ("short", 8)):
        cpmi_eval.evaluate("random", "synthetic", limit=limit, output_path=tmp_path / name)
    rescore(tmp_path / "long", only=[tmp_path / "short"], output_path=tmp_path / "shared")
    found, samples = lm_eval_files(tmp_path / "shared", tmp_path / "out")
    shared = {row["doc"]["id"] for row in samples["synthetic_arithmetic"]}
    assert shared < {json.loads(line)["id"] for line in (tmp_path / "long" / "samples.jsonl").read_text().splitlines()}
    marks = found["configs"]["synthetic_arithmetic"]["metadata"]["marks"]
    assert marks == ["synthetic data", "limit 30 per subset", "restricted to traces shared with other runs"]


def test_a_part_that_chose_the_threshold_is_not_exported(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run(threshold={"protocol": "dev:gsm8k", "value": 0.4, "undecided": False, "held_out": "processbench/gsm8k"})
    summary = json.loads((path / "results.json").read_text())
    del summary["results"]["processbench/gsm8k"]
    summary["results"]["processbench"] = summary["results"]["processbench/math"]
    write_json(path / "results.json", summary)
    found, samples = lm_eval_files(path, tmp_path / "out")
    assert list(found["results"]) == list(samples) == ["processbench_math"]


def test_settings_are_published_without_the_folders_of_files(run: Callable[..., Path], tmp_path: Path) -> None:
    local = {**MODEL, "model": "/home/me/models/tiny-prm", "revision": None, "sha256": "f00"}
    args = {"checkpoint": "/home/me/models/tiny-prm", "spec": "/home/me/specs/tiny.yaml"}
    path = run(model=local, config__labeler_args=args)
    for form, to in (("lm-eval", "out"), ("model-index", "card.yaml")):
        for file in export(path, form, tmp_path / to):
            assert "/home/me" not in file.read_text()
            assert file.suffix == ".jsonl" or {"tiny-prm", "tiny.yaml", "f00"} <= set(
                file.read_text().replace('"', " ").replace(",", " ").split()
            )


@pytest.fixture
def selecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a run that selects among the three solutions of each of two problems, one of them blank."""
    folder = tmp_path / "hub" / "openai" / "gsm8k"
    folder.mkdir(parents=True)
    problems = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in (1, 2, 3)]
    (folder / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
    texts = [["Add.\n\nThe answer is 2.", "The answer is 9.", ""], ["The answer is 3.", "The answer is 4.", "No."]]
    lines = [
        {"problem": problem["question"], "candidates": [{"solution": text} for text in solutions]}
        for problem, solutions in zip(problems, texts, strict=False)
    ]
    (tmp_path / "solutions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    cpmi_eval.evaluate(
        "random",
        "gsm8k",
        task_args={"candidates": str(tmp_path / "solutions.jsonl")},
        data_dir=tmp_path / "hub",
        output_path=tmp_path / "run",
    )
    yield tmp_path / "run"


def test_best_of_n(selecting: Path, tmp_path: Path) -> None:
    summary = json.loads((selecting / "results.json").read_text())
    found, samples = lm_eval_files(selecting, tmp_path / "out")
    metrics = found["results"]["gsm8k_test"]
    names = {key.partition(",")[0] for key in metrics if "," in key and "_stderr" not in key}
    assert names == set(summary["results"]["gsm8k/test"])  # details too
    assert metrics["pass@1,none"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert metrics["alias"] == "gsm8k_test (2 of 3 problems, 5 of 6 scored)"
    rows = samples["gsm8k_test"]
    assert [row["target"] for row in rows] == ["True", "False", "True", "False", "False"]
    stored = [json.loads(line) for line in (selecting / "samples.jsonl").read_text().splitlines()]
    assert [json.loads(row["resps"][0][0]) for row in rows] == [one["scores"] for one in stored]
    smallest = [min(one["scores"]) for one in stored]
    assert [float(row["filtered_resps"][0]) for row in rows] == pytest.approx(smallest)
    assert all(row["metrics"] == [] for row in rows)
    assert found["configs"]["gsm8k_test"]["metadata"]["aggregation"] == "min"
    assert "threshold" not in found["config"]["model_args"]


def test_best_of_n_in_a_model_card(selecting: Path, tmp_path: Path) -> None:
    [path] = export(selecting, "model-index", tmp_path / "card.yaml")
    _, entries = model_index_to_eval_results(yaml.safe_load(path.read_text())["model-index"])
    types = {one.metric_type: one for one in entries}
    assert list(types) == ["pass@1", "maj@3", "bon@3", "wvote@3", "pass@3", "outcome_auc"]  # no details
    assert (types["pass@1"].metric_value, types["pass@3"].metric_value) == (33.33, 100.0)
    assert types["pass@3"].metric_args["aggregation"] == "min"
    assert "threshold" not in types["pass@3"].metric_args
    assert {(one.task_type, one.dataset_type, one.dataset_split) for one in entries} == {
        ("best-of-n-selection", "openai/gsm8k", "test")
    }


def test_model_index_by_hand(run: Callable[..., Path], tmp_path: Path) -> None:
    [path] = export(run(), "model-index", tmp_path / "card.yaml", "https://example.org/log")
    name, entries = model_index_to_eval_results(yaml.safe_load(path.read_text())["model-index"])
    assert name == "Qwen/Qwen2.5-Math-PRM-7B"
    assert len(entries) == 12  # two subsets and their mean, four metrics each
    assert entries[0] == EvalResult(
        task_type="process-error-identification",
        task_name="Process error identification",
        dataset_type="Qwen/ProcessBench",
        dataset_name="processbench/gsm8k",
        dataset_split="gsm8k",
        dataset_revision="3bdcd53",
        metric_type="f1",
        metric_value=50.0,
        metric_name="F1 (harmonic mean of acc_error and acc_correct), threshold native",
        metric_args={
            "unit": "percent", "n": 4, "interval_95": [30.4, 69.6], "scorer": "prm", "kind": "prm",
            "uses_reference": False, "threshold": "native", "threshold_value": 0.5, "model": "Qwen/Qwen2.5-Math-PRM-7B",
            "model_revision": "abc123", "dtype": "bfloat16", "synthetic": False, "traces": 4, "scored": 4,
            "cpmi_eval": "9.8.7",
        },
        source_name="cpmi-eval",
        source_url="https://example.org/log",
    )  # fmt: skip
    auc = entries[3]
    assert (auc.metric_type, auc.metric_value, auc.metric_args["unit"]) == ("step_auc", 0.6123, "fraction")
    assert auc.metric_args["interval_95"] == [0.5, 0.696]
    assert not any(key.startswith("threshold") for key in auc.metric_args)
    mean = entries[8]
    assert (mean.dataset_name, mean.dataset_type) == ("processbench, mean over gsm8k, math", "Qwen/ProcessBench")
    assert (mean.dataset_split, mean.dataset_revision) == (None, "3bdcd53")
    assert (mean.metric_type, mean.metric_value, mean.metric_args["n"]) == ("f1", 75.0, 7)


def test_model_index_is_metadata_of_a_card(run: Callable[..., Path], tmp_path: Path) -> None:
    [path] = export(run(), "model-index", tmp_path / "card.yaml")
    card = ModelCard(f"---\n{path.read_text()}---\n# A model\n")
    assert isinstance(card.data, ModelCardData)
    assert card.data.model_name == "Qwen/Qwen2.5-Math-PRM-7B"
    assert [one.metric_value for one in card.data.eval_results[:3]] == [50.0, 50.0, 50.0]
    assert all(one.source_url is None for one in card.data.eval_results)
    assert card.data.to_yaml() == path.read_text().strip()


def test_model_index_of_local_data_names_its_content(run: Callable[..., Path], tmp_path: Path) -> None:
    data = [{"name": "Qwen/ProcessBench/math.json", "revision": None, "sha256": "beef", "rows": 3}]
    [path] = export(run(parts=("processbench/math",), data=data), "model-index", tmp_path / "card.yaml")
    _, entries = model_index_to_eval_results(yaml.safe_load(path.read_text())["model-index"])
    assert (entries[0].dataset_type, entries[0].dataset_split) == ("Qwen/ProcessBench", "math")
    assert (entries[0].dataset_revision, entries[0].metric_args["dataset_sha256"]) == (None, "beef")


def test_reference_answers_are_no_benchmark(run: Callable[..., Path], tmp_path: Path) -> None:
    """Sources of answers are among a run's data too, and may be called like the subset."""
    data = [
        {"name": "Qwen/ProcessBench:gsm8k", "revision": "1", "sha256": None, "rows": 4},
        {"name": "Qwen/ProcessBench:math", "revision": "1", "sha256": None, "rows": 3},
        {"name": "openai/math:math", "revision": "2", "sha256": None, "rows": 5000},
    ]
    found, _ = lm_eval_files(run(data=data), tmp_path / "out")
    assert found["configs"]["processbench_math"]["dataset_path"] == "Qwen/ProcessBench"
    assert found["n-samples"]["processbench_math"] == {"original": 3, "effective": 3}


def test_nothing_to_put_into_a_card(run: Callable[..., Path], tmp_path: Path) -> None:
    nothing = {"processbench/math": {"f1": {"value": None, "n": 3}}, "processbench": {"f1": {"value": None, "n": 3}}}
    path = run(parts=("processbench/math",), results=nothing)
    with pytest.raises(DataError, match=r"no metric of .* has a value"):
        export(path, "model-index", tmp_path / "card.yaml")


def test_eval_results_by_hand(run: Callable[..., Path], tmp_path: Path) -> None:
    files = export(run(), "eval-results", tmp_path / "repo", "https://example.org/log")
    assert [path.relative_to(tmp_path / "repo").as_posix() for path in files] == [
        ".eval_results/processbench_gsm8k.yaml",
        ".eval_results/processbench_math.yaml",
    ]
    assert yaml.safe_load(files[0].read_text()) == [
        {
            "dataset": {"id": "Qwen/ProcessBench", "task_id": "gsm8k", "revision": "3bdcd53"},
            "value": 50.0,
            "date": "2025-06-15",
            "source": {"url": "https://example.org/log", "name": "cpmi-eval"},
            "notes": "F1 (harmonic mean of acc_error and acc_correct) in percent; 95% interval 30.4 to 69.6; n 4; "
            "scorer prm; threshold native; cpmi-eval 9.8.7",
        }
    ]
    [entry] = parse_eval_result_entries(yaml.safe_load(files[1].read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("Qwen/ProcessBench", "math", 100.0)
    assert "interval" not in entry.notes


def test_eval_results_need_a_model_hub_data_and_a_decision(run: Callable[..., Path], tmp_path: Path) -> None:
    cpmi_eval.evaluate("length", "synthetic", limit=8, output_path=tmp_path / "floor")
    with pytest.raises(UsageError) as caught:
        export(tmp_path / "floor", "eval-results", tmp_path / "repo")
    for reason in (
        "synthetic data",
        "no model was evaluated",
        "is not a dataset of the hub",
        "f1 of .* is not defined",
    ):
        assert caught.match(reason)
    metrics = {"mean_step": {"value": 0.5, "n": 3}}
    path = run(parts=("processbench/math",), results={"processbench/math": metrics, "processbench": metrics})
    with pytest.raises(UsageError, match="has no F1 and no best-of-N"):
        export(path, "eval-results", tmp_path / "repo")


@pytest.mark.parametrize(("form", "to"), [("lm-eval", "out"), ("model-index", "card.yaml"), ("eval-results", "repo")])
def test_writing_again_changes_nothing(run: Callable[..., Path], tmp_path: Path, form: str, to: str) -> None:
    path = run()
    before = {file: file.read_bytes() for file in path.iterdir()}
    first = export(path, form, tmp_path / to)
    stamps = [file.stat().st_mtime_ns for file in first]
    assert export(path, form, tmp_path / to) == first
    assert [file.stat().st_mtime_ns for file in first] == stamps
    assert {file: file.read_bytes() for file in path.iterdir()} == before  # the run is only read
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(("form", "to"), [("lm-eval", "out"), ("model-index", "card.yaml"), ("eval-results", "repo")])
def test_files_with_other_content_are_not_touched(run: Callable[..., Path], tmp_path: Path, form: str, to: str) -> None:
    path = run()
    files = export(path, form, tmp_path / to)
    for file in files:
        file.unlink()
    files[-1].write_text("mine")
    with pytest.raises(StoreError, match="exists and holds something else; remove it"):
        export(path, form, tmp_path / to)
    assert files[-1].read_text() == "mine"
    assert not any(file.exists() for file in files[:-1])  # nothing is written where not all can be


@pytest.mark.parametrize("form", FORMATS)
def test_unfinished_runs_are_refused(run: Callable[..., Path], tmp_path: Path, form: str) -> None:
    path = run()
    (path / "results.json").unlink()
    with pytest.raises(StoreError, match="is not finished"):
        export(path, form, tmp_path / "out")
    with pytest.raises(StoreError, match="is not a run directory"):
        export(tmp_path / "nowhere", form, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places_that_are_no_good(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run()
    (tmp_path / "file").write_text("")
    for form in ("lm-eval", "eval-results"):
        with pytest.raises(UsageError, match=r"is a file; --format .* writes into a folder"):
            export(path, form, tmp_path / "file")
    with pytest.raises(UsageError, match="is a folder; name a file in it"):
        export(path, "model-index", tmp_path)
    with pytest.raises(StoreError, match="cannot be read or written"):
        export(path, "model-index", tmp_path / "file" / "card.yaml")
    with pytest.raises(UnknownNameError, match="Did you mean 'lm-eval'"):
        export(path, "lm_eval", tmp_path / "out")
    with pytest.raises(UsageError, match="no place for a source"):
        export(path, "lm-eval", tmp_path / "out", "https://example.org")


def test_parts_that_file_names_cannot_tell_apart(run: Callable[..., Path], tmp_path: Path) -> None:
    path = run()
    for name in ("samples.jsonl", "traces.jsonl", "results.json"):
        text = (path / name).read_text().replace("processbench/math", "processbench-gsm8k")
        (path / name).write_text(text)
    with pytest.raises(DataError, match="cannot tell these parts apart"):
        export(path, "lm-eval", tmp_path / "out")


def test_the_command_prints_the_files_and_nothing_else(run: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    path = run()
    code, out, err = cli("export", path, "--format", "lm-eval", "--to", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(one) for one in export(path, "lm-eval", tmp_path / "out")]
    for spelling in ("--source-url", "--source_url"):
        card = tmp_path / f"card{spelling}.yaml"
        code, out, _ = cli("export", path, "--format", "model_index", "--to", card, spelling, "https://example.org")
        assert (code, out) == (0, f"{card}\n")
        assert "https://example.org" in card.read_text()


def test_the_command_says_what_is_wrong(run: Callable[..., Path], cli: Cli, tmp_path: Path) -> None:
    path = run(labeler__uses_reference=True)
    code, out, err = cli("export", path, "--format", "eval-results", "--to", tmp_path / "repo")
    assert (code, out) == (2, "")
    assert err.startswith("Error: the hub ranks what is in .eval_results")
    assert cli("export", path, "--format", "csv", "--to", tmp_path / "out")[0] == 2
    assert cli("export", path, "--format", "lm-eval")[0] == 2


def test_the_command_offers_the_formats_there_are(cli: Cli) -> None:
    code, out, _ = cli("export", "--help")
    assert code == 0
    assert f"--format {'|'.join(FORMATS)}\n" in out
