"""ProcessBench: human-annotated first errors in step-by-step solutions (arXiv 2412.06559).

Rows name the 0-based index of the first wrong step, or -1. They carry no reference answer; it is joined from the
dataset each subset was drawn from (see :mod:`cpmi_eval.tasks.references`). Where no source problem matches but the
solution is annotated as ending right, its own final answer is the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cpmi_eval.errors import DataError, UnknownNameError
from cpmi_eval.grading import final_answer
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.tasks.references import REFERENCE_SOURCES, find_references, problem_cluster
from cpmi_eval.tasks.sources import Source, read_rows
from cpmi_eval.types import JSON, Gold, Item, Provenance, TaskData, Trace

REVISION = "3bdcd5371ed567559a78f559c01c13a6deee7604"  # the commit that fixed annotations after the first release
SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
SHOWN_ROWS = 5


@dataclass(frozen=True)
class Row:
    """A row that passed validation, and the subset it is in."""

    subset: str
    id: str
    problem: str
    steps: tuple[str, ...]
    final_answer_correct: bool
    label: int


class ProcessBench:
    """The benchmark as a task; it has no settings."""

    name: ClassVar[str] = "processbench"
    summary: ClassVar[str] = "find the first wrong step of a solution (ProcessBench, human annotations)"
    subsets: ClassVar[tuple[str, ...]] = SUBSETS
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = False

    def load(self, options: LoadOptions) -> TaskData:
        """Return the rows of the chosen subsets, with reference answers where there are any.

        Raises:
            UnknownNameError: a subset or a setting that does not exist.
            DataError: missing files, or rows that do not have the schema; all of them are reported at once.
        """
        for setting in options.args or ():
            raise UnknownNameError("setting", setting, ())
        subsets = _choose(options.subsets)
        rows, provenance = _read_subsets(subsets, options.data_dir)
        items: list[Item] = []
        references: dict[str, Mapping[str, int]] = {}
        for subset in subsets:
            chosen = [row for row in rows if row.subset == subset]
            found, consulted = find_references(
                (row.problem for row in chosen), REFERENCE_SOURCES[subset], options.data_dir
            )
            answers = [_answer(row, found) for row in chosen]
            items.extend(_item(row, answer) for row, (answer, _) in zip(chosen, answers, strict=True))
            counts = Counter(origin for _, origin in answers)
            references[subset] = {origin: counts[origin] for origin in ("joined", "own_answer", "none")}
            provenance.extend(consulted)
        return TaskData(tuple(items), tuple(provenance), references)


def _choose(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the subsets asked for (all, if none is named), in the benchmark's order."""
    for name in names:
        if name not in SUBSETS:
            raise UnknownNameError("subset", name, SUBSETS)
    return tuple(subset for subset in SUBSETS if not names or subset in names)


def _source(subset: str) -> Source:
    return Source(name="Qwen/ProcessBench", file=f"{subset}.json", hub_split=subset, revision=REVISION)


def _read_subsets(subsets: tuple[str, ...], data_dir: Path | None) -> tuple[list[Row], list[Provenance]]:
    """Read and validate the subsets; every bad row of every file goes into one error."""
    _suggest_present(subsets, data_dir)
    rows: list[Row] = []
    provenance: list[Provenance] = []
    complaints: list[str] = []
    seen: dict[str, str] = {}
    for subset in subsets:
        raw_rows, origin = read_rows(_source(subset), data_dir)
        provenance.append(origin)
        for number, raw in enumerate(raw_rows, start=1):
            place = f"{origin.name} row {number}"
            problems = [*_schema_problems(raw), *_duplicate(raw.get("id"), place, seen)]
            if problems:
                complaints.append(f"{place}{_id_note(raw)}: {'; '.join(problems)}")
            else:
                rows.append(_row(subset, raw))
    if complaints:
        raise DataError(_report(complaints))
    return rows, provenance


def _suggest_present(subsets: tuple[str, ...], data_dir: Path | None) -> None:
    """Where a local copy has some of the subsets, say how to choose those."""
    if data_dir is None:
        return
    files = {subset: _source(subset).path(data_dir) for subset in subsets}
    present = [subset for subset, path in files.items() if path.is_file()]
    missing = [str(path) for path in files.values() if not path.is_file()]
    if present and missing:
        raise DataError(
            f"missing {', '.join(missing)}; add what is missing, or choose the subsets that are there with "
            f"--subset {','.join(present)}"
        )


def _report(complaints: list[str]) -> str:
    shown = "".join(f"\n  {complaint}" for complaint in complaints[:SHOWN_ROWS])
    more = f"\n  ... and {len(complaints) - SHOWN_ROWS} more" if len(complaints) > SHOWN_ROWS else ""
    count = "1 row" if len(complaints) == 1 else f"{len(complaints)} rows"
    return f"{count} of ProcessBench cannot be used; correct or download again:{shown}{more}"


def _id_note(raw: JSON) -> str:
    return f" (id {_show(raw['id'])})" if isinstance(raw.get("id"), str) else ""


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _schema_problems(raw: JSON) -> Iterator[str]:
    """Yield what is wrong with a row, each with what was expected."""
    required = ("id", "problem", "steps", "final_answer_correct", "label")
    missing = [key for key in required if key not in raw]
    if missing:
        yield f"missing {', '.join(map(repr, missing))}; it has {', '.join(map(_show, raw)) or 'nothing'}"
    for key in ("id", "problem"):
        if key in raw and (problem := _text_problem(raw[key])):
            yield f"{key!r} {problem}"
    if "steps" in raw:
        yield from _steps_problems(raw["steps"])
    if not isinstance(raw.get("final_answer_correct", True), bool):
        yield f"'final_answer_correct' is {_show(raw['final_answer_correct'])}, expected true or false"
    if "label" in raw:
        yield from _label_problems(raw["label"], raw.get("steps"))


def _text_problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"is {_show(value)}, expected a string"
    if not value.strip():
        return "is blank, expected text"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"has half a surrogate pair at character {error.start}, expected valid Unicode"
    return None


def _steps_problems(steps: Any) -> Iterator[str]:
    if not isinstance(steps, list):
        yield f"'steps' is {_show(steps)}, expected a list of strings"
    elif not steps:
        yield "'steps' is empty, expected at least one step"
    else:
        for index, step in enumerate(steps):
            if problem := _text_problem(step):
                yield f"step {index} {problem}"


def _label_problems(label: Any, steps: Any) -> Iterator[str]:
    if not isinstance(label, int) or isinstance(label, bool):
        yield f"'label' is {_show(label)}, expected an integer"
    elif label < -1 or (isinstance(steps, list) and steps and label >= len(steps)):
        allowed = f" to {len(steps) - 1} ({len(steps)} steps)" if isinstance(steps, list) and steps else " or more"
        yield f"'label' is {label}, expected -1{allowed}"


def _duplicate(row_id: Any, place: str, seen: dict[str, str]) -> Iterator[str]:
    if not isinstance(row_id, str):
        return
    first = seen.setdefault(row_id, place)
    if first != place:
        yield f"the id is also that of {first}, expected unique ids"


def _row(subset: str, raw: JSON) -> Row:
    return Row(
        subset=subset,
        id=raw["id"],
        problem=raw["problem"],
        steps=tuple(raw["steps"]),
        final_answer_correct=raw["final_answer_correct"],
        label=raw["label"],
    )


def _answer(row: Row, found: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the reference answer and its origin: joined, the row's own where it is known to be right, or none."""
    if row.problem in found:
        return found[row.problem], "joined"
    if row.final_answer_correct:
        for step in reversed(row.steps):
            if stated := final_answer(step):
                return stated, "own_answer"
    return None, "none"


def _item(row: Row, answer: str | None) -> Item:
    trace = Trace(row.id, row.problem, row.steps, answer, problem_cluster(row.problem))
    return Item(row.subset, trace, Gold(row.label, row.final_answer_correct))
