"""A benchmark is one file: one here whose traces are annotated, one whose problems are solved and selected among."""

import importlib.util
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import realdata

import cpmi_eval
from cpmi_eval import registry
from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.generate import GenerateConfig, offering
from cpmi_eval.protocols import LoadOptions, OffersProblems, Task

ANNOTATED = '''
    """PRMBench (arXiv 2501.03124): solutions with errors put in; every wrong step is named."""

    from dataclasses import dataclass

    from cpmi_eval.record.door import Filled
    from cpmi_eval.tasks.references import problem_cluster
    from cpmi_eval.tasks.sources import Table, read_typed
    from cpmi_eval.types import Gold, Item, TaskData, Trace

    TABLE = Table("hitsmy/PRMBench_Preview", "prmbench_preview.jsonl", "train", "0" * 40)


    @dataclass(frozen=True)
    class Row:
        idx: Filled
        modified_question: Filled
        modified_process: tuple[str, ...]
        error_steps: tuple[int, ...]

        def __post_init__(self):
            if self.error_steps and min(self.error_steps) < 1:
                raise ValueError("error_steps: are counted from 1")


    class PRMBench:
        name = "prmbench"
        summary = "find the first wrong step (PRMBench)"
        subsets = ("all",)
        metrics = ("first_error", "step_auc")
        synthetic = False
        selects = False

        def load(self, options):
            rows, origin = read_typed(TABLE, Row, options.data_dir)
            return TaskData(tuple(self.item(n, row) for n, row in enumerate(rows)), (origin,))

        def item(self, n, row):
            question, steps = row.modified_question, row.modified_process
            errors = [step - 1 for step in row.error_steps if step <= len(steps)]
            trace = Trace(f"{row.idx}-{n}", question, steps, cluster=problem_cluster(question))
            return Item("all", trace, Gold(min(errors, default=-1)))
'''
SOLVED = '''
    """A benchmark of sums, with its problems made on the spot."""

    from cpmi_eval.tasks.selection import Selection
    from cpmi_eval.types import Problem, Provenance


    class Sums(Selection):
        name = "sums"
        summary = "select among solutions of sums: --candidates FILE"
        subsets = ("small",)

        def problems(self, subset, data_dir):
            made = [Problem(f"sums-{n}", f"What is {n} + {n}?", str(2 * n), {"level": "1"}) for n in range(1, 4)]
            return made, [Provenance("sums", rows=len(made))]
'''


@pytest.fixture
def plugin(tmp_path: Path, register: Callable[[str, str, Any], None]) -> Callable[[str, str, str], ModuleType]:
    """Write a module, import it, and register a task of it."""

    def add(source: str, name: str, attribute: str) -> ModuleType:
        path = tmp_path / f"my_{name}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        register("tasks", name, getattr(module, attribute))
        return module

    return add


def test_a_benchmark_of_annotated_traces(tmp_path: Path, plugin: Callable[[str, str, str], ModuleType]) -> None:
    plugin(ANNOTATED, "prmbench", "PRMBench")
    row = {"idx": "a", "modified_question": "1 + 1?", "error_steps": [2]}
    row["modified_process"] = ["1. Two.", "2. So 3."]
    path = tmp_path / "hitsmy/PRMBench_Preview/prmbench_preview.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(json.dumps(one) for one in (row, {**row, "idx": "b", "error_steps": [9]})))
    result = cpmi_eval.evaluate("length", "prmbench", data_dir=tmp_path, output_path=tmp_path / "run")
    assert [row["gold"]["first_error"] for row in result.rows] == [1, -1]
    path.write_text("\n".join(json.dumps(one) for one in (row, {**row, "idx": "b", "error_steps": [0]})))
    with pytest.raises(DataError, match="row 2 is not valid: error_steps: are counted from 1"):
        registry.load("tasks", "prmbench")().load(LoadOptions(data_dir=tmp_path))


def test_the_published_table_is_read(plugin: Callable[[str, str, str], ModuleType]) -> None:
    plugin(ANNOTATED, "prmbench", "PRMBench")
    folder = realdata.data_dir()
    if not (folder / "hitsmy").is_dir():
        pytest.skip(f"no PRMBench in {folder}")
    items = registry.load("tasks", "prmbench")().load(LoadOptions(data_dir=folder)).items
    assert (len({item.trace.id for item in items}), sum(len(item.trace.steps) for item in items)) == (6216, 83456)


def test_a_benchmark_of_problems_to_solve(tmp_path: Path, plugin: Callable[[str, str, str], ModuleType]) -> None:
    plugin(SOLVED, "sums", "Sums")
    assert isinstance(offering("sums"), OffersProblems)
    assert isinstance(offering("sums"), Task)
    assert GenerateConfig(task="sums", to="x", subset="small").subset == "small"
    candidates = tmp_path / "solutions.jsonl"
    lines = [{"problem": f"What is {n} + {n}?", "candidates": [{"solution": "It is 4."}] * 2} for n in (1, 2)]
    candidates.write_text("\n".join(map(json.dumps, lines)))
    args = {"candidates": str(candidates)}
    result = cpmi_eval.evaluate("random", "sums", task_args=args, output_path=tmp_path / "run")
    assert [row["gold"]["final_answer_correct"] for row in result.rows] == [False, False, True, True]
    with pytest.raises(UsageError, match="the task 'processbench' offers no problems to solve"):
        offering("processbench")
