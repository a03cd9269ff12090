"""ProcessBench's critic protocol (arXiv 2412.06559) as an lm-eval task.

The prompt, the reading of verdicts and the metrics are those of the ``judge`` labeler in mode ``generate`` and of the
``processbench`` task, so that a model gets the same numbers here and there. The tasks' YAML files name these functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lm_eval.api.task import ConfigurableTask
from lm_eval.api.utils import Message

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.labelers.judge import CRITIC_PROMPT, tagged
from cpmi_eval.labelers.prompts import fill
from cpmi_eval.labelers.verdicts import parse_verdict
from cpmi_eval.metrics.first_error import compute
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.tasks.processbench import SUBSETS, read_subsets
from cpmi_eval.types import Gold

Decision: TypeAlias = "tuple[int, int | None]"  # annotated first error, predicted one
DATA_DIR = "CPMI_EVAL_DATA_DIR"


class CriticTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose prompt loses the white space around it inside a chat turn, and keeps it in plain text."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take the configuration of the YAML file."""
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def build_qa_turn(self, **turn: Any) -> list[Message]:
        """Return lm-eval's messages; what is stripped from the question follows it in plain text only."""
        question: str = turn["q"]
        first, *rest = super().build_qa_turn(**{**turn, "q": question.strip()})
        tail = question[len(question.rstrip()) :]
        return [Message(first.role, first.content, tail + first._delimiter), *rest]


def load(subset: str, data_dir: str | None = None, **_: Any) -> dict[str, Any]:
    """Return the rows of a subset as lm-eval's test split.

    Args:
        subset: one of ProcessBench's four.
        data_dir: a folder that stands in for the hub (``<data_dir>/Qwen/ProcessBench/<subset>.json``), from lm-eval's
            ``--metadata``; not given: that of ``CPMI_EVAL_DATA_DIR``, else the hub at the pinned revision.
        _: what else lm-eval passes on, such as the model's arguments.

    Raises:
        UnknownNameError: no such subset.
        DataError: rows are missing or malformed.
    """
    from datasets import Dataset

    if subset not in SUBSETS:
        raise UnknownNameError("subset", subset, SUBSETS)
    folder = data_dir or os.environ.get(DATA_DIR)
    rows, _origin = read_subsets((subset,), Path(folder) if folder else None)
    columns = [
        {"id": row.id, "problem": row.problem, "steps": list(row.steps), "label": row.label} for row in rows[subset]
    ]
    return {"test": Dataset.from_list(columns)}


def prompt(doc: Mapping[str, Any]) -> str:
    """Return the critic's prompt."""
    return fill(CRITIC_PROMPT, problem=doc["problem"], steps=tagged(doc["steps"]))


def target(doc: Mapping[str, Any]) -> str:
    """Return the verdict that the annotation would have."""
    return rf"\boxed{{{doc['label']}}}"


def decide(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Return what each metric aggregates, of one solution and its critique."""
    verdict = parse_verdict(results[0], len(doc["steps"]))
    prediction = verdict if isinstance(verdict, int) else None
    decision: Decision = (doc["label"], prediction)
    return {**dict.fromkeys(("f1", "acc_error", "acc_correct"), decision), "unparsed": float(prediction is None)}


def f1(decisions: Sequence[Decision]) -> float:
    """Return the harmonic mean of the two accuracies, NaN where one is not defined."""
    return _metric("f1", decisions)


def acc_error(decisions: Sequence[Decision]) -> float:
    """Return the share of erroneous solutions whose first error is named exactly, NaN where there are none."""
    return _metric("acc_error", decisions)


def acc_correct(decisions: Sequence[Decision]) -> float:
    """Return the share of correct solutions that are left alone, NaN where there are none."""
    return _metric("acc_correct", decisions)


def _metric(name: str, decisions: Sequence[Decision]) -> float:
    outcomes = [Outcome(Gold(label), None, prediction) for label, prediction in decisions]
    value = compute(outcomes).metrics()[name].value
    return float("nan") if value is None else value
