"""A run in the layout of lm-eval 0.4.13: what its ``EvaluationTracker`` writes, for whatever reads that.

``<model>/results_<time>.json``  metrics by task, and by group for the mean over several subsets
``<model>/samples_<task>_<time>.jsonl``  a row per trace

Source of names and keys: lm_eval/loggers/evaluation_tracker.py, lm_eval/evaluator.py and lm_eval/result_schema.py.
lm-eval itself is not needed. What its layout has no place for is put where it lets a task keep anything, in
``configs.<task>.metadata``. Where the two programs think differently:

* The "model" is the scorer: a labeler with its settings, and the model it runs. Two labelers that run the same model
  are two models to lm-eval, or the later one would count as the newer result of the same thing.
* Values are fractions, as there. A standard error is half the width of the 95% interval / 1.96, which is what a
  normal distribution of that interval would have; the interval itself need not be symmetric.
* What is not defined (F1 of a scorer that decides nothing; a standard error where there is no interval) is ``N/A``, as
  lm-eval writes a standard error that it does not compute.
* A sample's ``resps`` are its step scores and ``filtered_resps`` the decision (or, where the task selects among
  solutions, the solution's score), as text, like all responses there. ``None``: there are none.
* Of a sample's metrics only those are given that one trace has: ``acc_error`` or ``acc_correct``.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from cpmi_eval.errors import DataError
from cpmi_eval.interchange.described import Described
from cpmi_eval.metrics.best_of_n import AGGREGATIONS
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.spec import spec_of
from cpmi_eval.metrics.uncertainty import RESAMPLES
from cpmi_eval.record.door import to_lines
from cpmi_eval.record.rows import Record
from cpmi_eval.types import JSON

LAYOUT = "0.4.13"
NOT_DEFINED = "N/A"
NORMAL_95 = 1.96


def files(run: Described) -> dict[PurePosixPath, str]:
    """Return the files of a run by their place in lm-eval's output folder; the one of results comes last.

    Raises:
        DataError: two parts have names that are the same in file names.
    """
    names = {part: task_name(part) for part in (*run.parts, *filter(None, [run.mean]))}
    if len(set(names.values())) < len(names):
        raise DataError(f"lm-eval's files cannot tell these parts apart: {', '.join(names)}")
    folder = PurePosixPath(sanitized(model_name(run)))
    time = run.written.replace(tzinfo=None).isoformat().replace(":", "-")
    samples = {names[part]: _samples(run, part) for part in run.parts}
    found = {folder / f"samples_{name}_{time}.jsonl": to_lines(rows).decode() for name, rows in samples.items()}
    results = _results(run, names, samples)
    dumped = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    return {**found, folder / f"results_{time}.json": dumped}


def model_name(run: Described) -> str:
    """Return what lm-eval is to take for the model's name: the scorer, and the model it runs."""
    return run.scorer if run.model is None else f"{run.scorer}/{run.model}"


def sanitized(model: str) -> str:
    """Return the folder name that lm-eval makes of a model's name."""
    return re.sub(r'["<>:/|\\?*\[\]]+', "__", model)


def task_name(part: str) -> str:
    """Return a part's name without the characters that lm-eval's readers trip over: ``processbench_gsm8k``."""
    return re.sub(r"\W", "_", part)


def stderr(metric: Metric) -> float | str:
    """Return the standard error that a normal distribution with the metric's 95% interval has."""
    if metric.interval is None or metric.value is None:
        return NOT_DEFINED
    low, high = metric.interval
    return (high - low) / 2 / NORMAL_95


# --- results --------------------------------------------------------------------------------------------------------


def _results(run: Described, names: dict[str, str], samples: dict[str, list[JSON]]) -> JSON:
    """Return the content of the results file, its keys in lm-eval's order."""
    results, every = run.results, [*run.parts, *filter(None, [run.mean])]
    version = results.versions["cpmi-eval"]
    found: JSON = {"results": {names[name]: _metrics(run, name, names) for name in every}}
    if run.mean:
        found["groups"] = {names[run.mean]: found["results"][names[run.mean]]}
    return {
        **found,
        "group_subtasks": {names[run.mean]: [names[part] for part in run.parts]} if run.mean else {},
        "configs": {names[part]: _task_config(run, part, names[part]) for part in sorted(run.parts)},
        "versions": {names[name]: version for name in sorted(every)},
        "n-shot": {names[name]: 0 for name in sorted(every)},
        "higher_is_better": {
            names[name]: {key: spec_of(key).higher_is_better for key in run.metrics(name)} for name in sorted(every)
        },
        "n-samples": {names[part]: _sample_count(run, part) for part in run.parts},
        "config": _config(run),
        "git_hash": None,
        "date": datetime.fromisoformat(_started(run)).timestamp(),
        "pretty_env_info": "\n".join(
            f"{name}: {one}" for name, one in {**results.versions, **run.run.manifest.machine}.items()
        ),
        "transformers_version": results.versions["transformers"],
        "lm_eval_version": f"N/A (layout of {LAYOUT}, written by cpmi-eval {version})",
        "upper_git_hash": None,
        "task_hashes": {
            name: _hash("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))
            for name, rows in samples.items()
        },
        "model_source": "cpmi-eval",
        "model_name": model_name(run),
        "model_name_sanitized": sanitized(model_name(run)),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "total_evaluation_time_seconds": str(results.cost.wall_seconds["total"]),
    }


def _metrics(run: Described, name: str, names: dict[str, str]) -> JSON:
    """Return a task's or group's entry; its alias, which tables show, carries the marks."""
    marks, metrics = run.marks(name), run.metrics(name)
    found: JSON = {
        "name": names[name],
        "alias": names[name] + (f" ({', '.join(marks)})" if marks else ""),
        "sample_len": run.counts(name)["traces"],
    }
    if name == run.mean:
        found["sample_count"] = {f"{key},none": metric.n for key, metric in metrics.items()}
    for key, metric in metrics.items():
        found[f"{key},none"] = NOT_DEFINED if metric.value is None else float(metric.value)
        found[f"{key}_stderr,none"] = stderr(metric)
    return found


def _sample_count(run: Described, part: str) -> dict[str, int]:
    effective = run.counts(part)["traces"]
    whole = None if run.selects else run.dataset(part).rows  # a table of problems says nothing of their solutions
    return {"original": effective if whole is None else max(whole, effective), "effective": effective}


def _task_config(run: Described, part: str, name: str) -> JSON:
    """Return a part as lm-eval describes a task.

    ``output_type`` says which form the samples have: the response to one request, as text.
    """
    dataset, coverage = run.dataset(part), run.results.coverage[part].as_dict()
    intervals = {key: metric.interval for key, metric in run.metrics(part).items() if metric.interval is not None}
    return {
        "task": name,
        "task_alias": part,
        "dataset_path": dataset.hub_id,
        "test_split": dataset.split,
        "output_type": "generate_until",
        "metric_list": [
            {"metric": key, "aggregation": "cpmi_eval", "higher_is_better": spec_of(key).higher_is_better}
            for key in run.metrics(part)
        ],
        "num_fewshot": 0,
        "repeats": 1,
        "should_decontaminate": False,
        "metadata": {
            "version": run.results.versions["cpmi-eval"],
            **run.about(part),
            "marks": list(run.marks(part)),
            "coverage": coverage,
            "errors": run.results.errors,
            "dataset_revision": dataset.revision,
            "dataset_sha256": dataset.sha256,
            "n": {key: metric.n for key, metric in run.metrics(part).items()},
            "interval_95": {key: list(bounds) for key, bounds in intervals.items()},
            "stderr": f"half the width of interval_95 / {NORMAL_95}",
        },
    }


def _config(run: Described) -> JSON:
    """Return lm-eval's description of model and execution."""
    config, model = run.results.config, run.run.model
    about: JSON = {"scorer": config.labeler, **run.settings, "threshold": run.threshold}
    known: JSON = {}
    if model is not None:
        about |= {"pretrained": run.model, "backend": model.backend, "sha256": model.sha256}
        known = {"model_num_parameters": model.parameters, "model_dtype": model.dtype}
        known |= {"model_revision": model.revision}
    any_interval = any(metric.interval is not None for part in run.parts for metric in run.metrics(part).values())
    return {
        "model": "cpmi-eval",
        "model_args": {key: value for key, value in about.items() if value is not None},
        **{key: value for key, value in known.items() if value is not None},
        "batch_size": str(config.batch_size),
        "batch_sizes": [],
        "device": None if model is None else model.device,
        "use_cache": None,
        "limit": config.limit,
        "bootstrap_iters": RESAMPLES if any_interval else 0,
        "gen_kwargs": None,
        **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), config.seed),
    }


def _started(run: Described) -> str:
    manifest = run.run.manifest
    return manifest.sessions[0].started if manifest.sessions else manifest.created


# --- samples --------------------------------------------------------------------------------------------------------


def _samples(run: Described, part: str) -> list[JSON]:
    return [_sample(run, number, record) for number, record in enumerate(run.run.parts[part])]


def _sample(run: Described, number: int, record: Record) -> JSON:
    """Return a trace as lm-eval logs a sample, its keys in lm-eval's order."""
    gold = record.gold
    target = str(gold.final_answer_correct if run.selects else gold.first_error)
    doc = {"id": record.id, "cluster": record.cluster, "problem": record.problem, "steps": list(record.steps)}
    doc |= gold.as_dict()
    metrics = _sample_metrics(run, record)
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": record.problem, "arg_1": "\n\n".join(record.steps)}},
        "resps": [[str(None if record.scores is None else list(record.scores))]],
        "filtered_resps": [str(_response(run, record))],
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(record.problem),
        "target_hash": _hash(target),
        **metrics,
    }


def _response(run: Described, record: Record) -> Any:
    """Return what the scorer says of a trace: its first wrong step or, where solutions are selected, its score."""
    if not run.selects:
        return record.prediction
    return AGGREGATIONS[run.aggregation](record.scores) if record.scores else None


def _sample_metrics(run: Described, record: Record) -> dict[str, float]:
    first_error = record.gold.first_error
    if first_error is None or run.threshold is None:
        return {}
    return {"acc_correct" if first_error < 0 else "acc_error": float(record.prediction == first_error)}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
