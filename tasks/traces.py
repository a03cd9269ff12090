"""Traces of your own: a file of JSON lines, for labelers to score and, where lines are annotated, to be judged by.

A line is ``{"problem": "...", "steps": ["...", ...]}`` and may hold ``answer`` (the problem's reference answer), ``id``
(``line-N`` if not given) and ``label`` (the 0-based index of the first wrong step, -1 if there is none). Other fields
are left alone. Metrics stand on the annotated lines; a file without any has none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.record import door
from cpmi_eval.record.door import Filled
from cpmi_eval.tasks.references import problem_cluster
from cpmi_eval.tasks.rows import Faults, check_names, check_steps, numbered
from cpmi_eval.types import Gold, Item, Provenance, TaskData, Trace

SUBSET = "file"


@dataclass(frozen=True)
class Line:
    """A line of the file."""

    problem: Filled
    steps: tuple[Filled, ...]
    answer: Filled | None = None
    id: Filled | None = None
    label: int | None = None

    def __post_init__(self) -> None:
        """Hold the label against the steps."""
        check_steps(self.steps, self.label)


class Traces:
    """A file of traces as a task. Its one setting is ``path``."""

    name: ClassVar[str] = "traces"
    summary: ClassVar[str] = "traces of your own, from a file of JSON lines: --task_args path=FILE"
    subsets: ClassVar[tuple[str, ...]] = (SUBSET,)
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = False
    selects: ClassVar[bool] = False

    def load(self, options: LoadOptions) -> TaskData:
        """Return the file's traces in order.

        Raises:
            UsageError: no path, or a subset or a setting that does not exist.
            DataError: the file cannot be read, or lines are not traces; they are reported together.
        """
        args = options.args or {}
        check_names("subset", options.subsets, self.subsets)
        check_names("setting", args, ("path",))
        path = args.get("path")
        if not isinstance(path, str) or not path:
            given = f", not {path!r}; quote a name that looks like a number" if "path" in args else ""
            raise UsageError(f"the task traces needs a file: --task_args path=FILE{given}")
        content = door.read_bytes(Path(path), door.Source(path, DataError))
        faults = Faults("line", "traces")
        items: list[Item] = []
        for number, text in numbered(content):
            with faults.row():
                place = f"{path}:{number}"
                line = door.parse_json(text, Line, door.Source(place, DataError))
                name = line.id or f"line-{number}"
                faults.unique(name, place)
                trace = Trace(name, line.problem, line.steps, line.answer, problem_cluster(line.problem))
                items.append(Item(SUBSET, trace, Gold(line.label)))
        faults.refuse()
        if not items:
            raise DataError(f"{path} holds no traces; write one JSON object per line, with 'problem' and 'steps'")
        origin = Provenance(Path(path).name, sha256=hashlib.sha256(content).hexdigest(), rows=len(items))
        return TaskData(tuple(items), (origin,))
