"""ProcessBench: human-annotated first errors in step-by-step solutions (arXiv 2412.06559).

Rows name the 0-based index of the first wrong step, or -1. They carry no reference answer; it is joined from the
dataset each subset was drawn from (see :mod:`cpmi_eval.tasks.references`). Where no source problem matches but the
solution is annotated as ending right, its own final answer is the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cpmi_eval.errors import DataError
from cpmi_eval.grading import final_answer
from cpmi_eval.grading.finding import clean
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.record.door import Filled
from cpmi_eval.tasks import gsm8k, math
from cpmi_eval.tasks.references import ReferenceSource, find_references, problem_cluster
from cpmi_eval.tasks.rows import Faults, check_names, check_steps
from cpmi_eval.tasks.sources import Table, read_typed
from cpmi_eval.types import Gold, Item, Provenance, TaskData, Trace

REVISION = "3bdcd5371ed567559a78f559c01c13a6deee7604"  # the commit that fixed annotations after the first release
SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
TABLES = {name: Table("Qwen/ProcessBench", f"{name}.json", hub_split=name, revision=REVISION) for name in SUBSETS}


@dataclass(frozen=True)
class _OlympiadBench:
    question: str
    final_answer: tuple[str, ...] | None  # its parts; proofs have none

    @property
    def problem(self) -> str:
        return self.question

    @property
    def reference(self) -> str:
        return ", ".join(filter(None, map(clean, self.final_answer or ())))


@dataclass(frozen=True)
class _OmniMATH:
    problem: str
    answer: str | None

    @property
    def reference(self) -> str:
        return clean(self.answer or "")


# Open-ended, text-only, mathematics, English: the other configurations have no answers, or images, or other problems.
_OLYMPIADBENCH = Table(
    *("Hothan/OlympiadBench", "OE_TO_maths_en_COMP.jsonl", "train", "91184b52131e7fc9455fef848035173aea8cc01a"),
    hub_configs=("OE_TO_maths_en_COMP",),
    role="reference answers of olympiadbench problems",
)
_OMNIMATH = Table(
    *("KbsdJames/Omni-MATH", "test.jsonl", "test", "40ba231d8f16e29ecd40e6407e2c8640145a8f62"),
    role="reference answers of omnimath problems",
)
REFERENCE_SOURCES: Mapping[str, tuple[ReferenceSource, ...]] = {
    "gsm8k": (gsm8k.source("test"), gsm8k.source("train")),
    "math": (math.SOURCE,),
    "olympiadbench": (ReferenceSource(_OLYMPIADBENCH, _OlympiadBench),),
    "omnimath": (ReferenceSource(_OMNIMATH, _OmniMATH),),
}


@dataclass(frozen=True)
class Row:
    """A row of a subset: a solution and the index of its first wrong step, -1 if there is none."""

    id: Filled
    problem: Filled
    steps: tuple[Filled, ...]
    final_answer_correct: bool
    label: int

    def __post_init__(self) -> None:
        """Hold the label against the steps."""
        check_steps(self.steps, self.label)


class ProcessBench:
    """The benchmark as a task; it has no settings."""

    name: ClassVar[str] = "processbench"
    summary: ClassVar[str] = "find the first wrong step of a solution (ProcessBench, human annotations)"
    subsets: ClassVar[tuple[str, ...]] = SUBSETS
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = False
    selects: ClassVar[bool] = False

    def load(self, options: LoadOptions) -> TaskData:
        """Return the rows of the chosen subsets, with reference answers where there are any.

        Raises:
            UnknownNameError: a subset or a setting that does not exist.
            DataError: missing files, or rows that do not have the schema; all of them are reported at once.
        """
        check_names("setting", options.args or (), ())
        check_names("subset", options.subsets, SUBSETS)
        subsets = [subset for subset in SUBSETS if not options.subsets or subset in options.subsets]
        rows, provenance = read_subsets(subsets, options.data_dir)
        items: list[Item] = []
        references: dict[str, Mapping[str, int]] = {}
        for subset, chosen in rows.items():
            found, consulted = find_references(
                (row.problem for row in chosen), REFERENCE_SOURCES[subset], options.data_dir
            )
            answers = [_answer(row, found) for row in chosen]
            for row, (answer, _) in zip(chosen, answers, strict=True):
                trace = Trace(row.id, row.problem, row.steps, answer, problem_cluster(row.problem))
                items.append(Item(subset, trace, Gold(row.label, row.final_answer_correct)))
            counts = Counter(origin for _, origin in answers)
            references[subset] = {origin: counts[origin] for origin in ("joined", "own_answer", "none")}
            provenance.extend(consulted)
        return TaskData(tuple(items), tuple(provenance), references)


def read_subsets(subsets: Sequence[str], data_dir: Path | None) -> tuple[dict[str, list[Row]], list[Provenance]]:
    """Return the rows of each subset, and where they came from; ids are unique among all of them.

    Raises:
        DataError: missing files, or bad rows; those of all files are in one error.
    """
    paths = {} if data_dir is None else {subset: TABLES[subset].path(data_dir) for subset in subsets}
    missing = [subset for subset, path in paths.items() if not path.is_file()]
    if 0 < len(missing) < len(paths):
        present = [subset for subset in paths if subset not in missing]
        raise DataError(
            f"missing {', '.join(str(paths[subset]) for subset in missing)}; add what is missing, or choose the "
            f"subsets that are there with --subset {','.join(present)}"
        )
    faults = Faults("row", "ProcessBench")
    read = {subset: read_typed(TABLES[subset], Row, data_dir, "id", faults) for subset in subsets}
    faults.refuse()
    return {subset: rows for subset, (rows, _) in read.items()}, [origin for _, origin in read.values()]


def _answer(row: Row, found: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the reference answer and its origin: joined, the row's own where it is known to be right, or none."""
    if row.problem in found:
        return found[row.problem], "joined"
    if row.final_answer_correct:
        for step in reversed(row.steps):
            if stated := final_answer(step):
                return stated, "own_answer"
    return None, "none"
