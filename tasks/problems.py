"""The problems of GSM8K and MATH, for solutions to be written for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cpmi_eval.errors import UnknownNameError
from cpmi_eval.tasks.gsm8k import GSM8K
from cpmi_eval.tasks.math import MATH
from cpmi_eval.tasks.selection import Problem, Selection
from cpmi_eval.types import Provenance

SOURCES: Mapping[str, type[Selection]] = {"gsm8k": GSM8K, "math": MATH}


def load_problems(task: str, subset: str, data_dir: Path | None) -> tuple[list[Problem], list[Provenance]]:
    """Return a task's problems; see :meth:`Selection.problems`."""
    if task not in SOURCES:
        raise UnknownNameError("benchmark", task, SOURCES)
    return SOURCES[task]().problems(subset, data_dir)
