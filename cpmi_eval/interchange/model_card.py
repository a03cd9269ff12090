"""A run as metadata of the model it evaluates, in the two forms of the Hugging Face hub.

``model-index``   a block of a model card's metadata. Every part and metric is an entry
                  (https://github.com/huggingface/hub-docs/blob/main/modelcard.md).
``eval-results``  ``.eval_results/*.yaml`` in a model's repository, which the hub collects into the leaderboards of
                  datasets (https://huggingface.co/docs/hub/eval-results). One value per subset: F1, or best-of-N.

Values are in the units that the field writes: accuracies and F1 in percent, areas under ROC curves as fractions.
Metrics that are not defined and those that are details are left out; the mean over subsets is an entry of its own where
there are several. A metric's ``args`` say what it depends on. The hub ranks what is in ``eval-results``; what the
project itself would not rank beside models is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.interchange.described import Described
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.metrics.spec import spec_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, EvalResultEntry

UNKNOWN = "unknown"  # what cards say of data that is not on the hub
TASKS: Mapping[bool, tuple[str, str]] = MappingProxyType(
    {
        False: ("process-error-identification", "Process error identification"),
        True: ("best-of-n-selection", "Best-of-N selection"),
    }
)


def model_index(run: Described, source_url: str | None = None) -> str:
    """Return the YAML block of a model card that holds a run's results.

    Args:
        run: what was measured.
        source_url: where a reader finds more; every entry names it.

    Raises:
        DataError: no metric has a value.
    """
    from huggingface_hub import ModelCardData

    entries = [
        _entry(run, name, key, metric, source_url)
        for name in (*run.parts, *filter(None, [run.mean]))
        for key, metric in run.metrics(name).items()
        if metric.value is not None and not metric.detail
    ]
    if not entries:
        raise DataError(f"no metric of {run.run.path} has a value; there is nothing to put into a model card")
    card = ModelCardData(model_name=run.model or f"cpmi-eval {run.scorer}", eval_results=entries)
    return card.to_yaml() + "\n"


def _entry(run: Described, name: str, key: str, metric: Metric, source_url: str | None) -> EvalResult:
    from huggingface_hub import EvalResult

    task_type, task_name = TASKS[run.selects]
    datasets = [run.dataset(part) for part in (run.parts if name == run.mean else (name,))]
    first, alone = datasets[0], len(datasets) == 1
    hub_id = first.hub_id if len({one.hub_id for one in datasets}) == 1 else None
    revision = first.revision if len({one.revision for one in datasets}) == 1 else None
    subsets = ", ".join(part.partition("/")[2] for part in run.parts)
    return EvalResult(
        task_type=task_type,
        task_name=task_name,
        dataset_type=hub_id or UNKNOWN,
        dataset_name=_with_marks(run, name, name if alone else f"{name}, mean over {subsets}"),
        dataset_split=first.split if alone else None,
        dataset_revision=revision,
        metric_type=key,
        metric_name=_metric_name(run, key),
        metric_value=in_units(key, metric.value),
        metric_args=_args(run, name, key, metric),
        source_name="cpmi-eval" if source_url else None,
        source_url=source_url,
    )


def _with_marks(run: Described, name: str, text: str) -> str:
    marks = run.marks(name)
    return text + (f" ({', '.join(marks)})" if marks else "")


def _metric_name(run: Described, key: str) -> str:
    """Return a metric's name and, where decisions are behind it, the threshold."""
    decided = run.threshold is not None and spec_of(key).decides
    return spec_of(key).description + (f", threshold {run.threshold}" if decided else "")


def _args(run: Described, name: str, key: str, metric: Metric) -> dict[str, Any]:
    """Return what a value depends on; no threshold where no decision is behind it."""
    found: dict[str, Any] = {"unit": unit(key), "n": metric.n}
    if metric.interval is not None:
        found["interval_95"] = [in_units(key, bound) for bound in metric.interval]
    found |= run.about(name)
    if not spec_of(key).decides:
        found = {word: value for word, value in found.items() if not word.startswith("threshold")}
    if name != run.mean and (digest := run.dataset(name).sha256) is not None:
        found["dataset_sha256"] = digest
    return found


def unit(key: str) -> str:
    """Return the unit that a metric's values are written in."""
    return "fraction" if spec_of(key).unit == "fraction" else "percent"


def in_units(key: str, value: float | None) -> float | None:
    """Return a metric's value in its :func:`unit`, to a hundredth of a percent: 0.52348 as 52.35 (AUC: 0.5235)."""
    if value is None:
        return None
    return round(float(value), 4) if unit(key) == "fraction" else round(100 * float(value), 2)


# --- .eval_results --------------------------------------------------------------------------------------------------


def eval_results(run: Described, source_url: str | None = None) -> dict[PurePosixPath, str]:
    """Return the files of a run for the root of its model's repository, one per subset.

    A subset is a ``task_id``. The dataset's owner defines these in its ``eval.yaml``; that they are called like the
    subsets is assumed.

    Raises:
        UsageError: the run would not be ranked beside others, there is no model, or it decides nothing.
    """
    from huggingface_hub.constants import EVAL_RESULTS_FOLDER

    reasons = _not_ranked(run)
    if reasons:
        raise UsageError(
            f"the hub ranks what is in {EVAL_RESULTS_FOLDER}, and {run.run.path} cannot stand there: "
            f"{'; '.join(reasons)}. --format model-index takes it"
        )
    entries = [_ranked_entry(run, part, source_url) for part in run.parts]
    return {PurePosixPath(EVAL_RESULTS_FOLDER, _file_name(entry)): _yaml(entry) for entry in entries}


def _not_ranked(run: Described) -> list[str]:
    found = [mark for part in run.parts for mark in run.marks(part)]
    found += ["no model was evaluated"] if run.model is None else []
    found += [f"{part} is not a dataset of the hub" for part in run.parts if run.dataset(part).hub_id is None]
    found += [
        f"{key} of {part} is not defined (`cpmi-eval rescore` applies a threshold)"
        for part in run.parts
        for key in [main_metric(run, part)]
        if run.metrics(part)[key].value is None
    ]
    return list(dict.fromkeys(found))


def main_metric(run: Described, part: str) -> str:
    """Return the metric that stands for a part: F1, or the accuracy of the solution selected among all.

    Raises:
        UsageError: the task has neither.
    """
    for key in run.metrics(part):
        if spec_of(key).headline:
            return key
    raise UsageError(f"{part} has no F1 and no best-of-N; nothing of it can be ranked. --format model-index takes it")


def _ranked_entry(run: Described, part: str, source_url: str | None) -> EvalResultEntry:
    from huggingface_hub import EvalResultEntry

    dataset, key = run.dataset(part), main_metric(run, part)
    metric = run.metrics(part)[key]
    return EvalResultEntry(
        dataset_id=str(dataset.hub_id),
        task_id=str(dataset.split),
        dataset_revision=dataset.revision,
        value=in_units(key, metric.value),
        date=run.written.date().isoformat(),
        source_url=source_url,
        source_name="cpmi-eval" if source_url else None,
        notes=_notes(run, key, metric),
    )


def _notes(run: Described, key: str, metric: Metric) -> str:
    """Return in one line how a value came about."""
    rule = f"{run.aggregation} of step scores" if run.selects else f"threshold {run.threshold}"
    facts = [f"{spec_of(key).description} in {unit(key)}", f"n {metric.n}", f"scorer {run.scorer}", rule]
    if metric.interval is not None:
        low, high = (in_units(key, bound) for bound in metric.interval)
        facts.insert(1, f"95% interval {low} to {high}")
    return "; ".join([*facts, f"cpmi-eval {run.results.versions['cpmi-eval']}"])


def _file_name(entry: EvalResultEntry) -> str:
    words = f"{entry.dataset_id.rpartition('/')[2]} {entry.task_id}"
    return re.sub(r"[^a-z0-9]+", "_", words.lower()) + ".yaml"


def _yaml(entry: EvalResultEntry) -> str:
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
