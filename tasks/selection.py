"""Best-of-N selection: candidate solutions joined to a benchmark's problems and graded, as the items of a task.

Reference answers, levels and subjects are the benchmark's; a candidate is graded by its own final answer, found in its
text and compared mathematically. What is not decided in bounded time counts as incorrect, and is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.grading import final_answer, verdict
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.tasks.candidates import Line, Solution, read_candidates
from cpmi_eval.tasks.problems import SOURCES, Problem, load_problems
from cpmi_eval.tasks.references import problem_key
from cpmi_eval.tasks.rows import Faults, check_names, show
from cpmi_eval.types import JSON, Candidate, Gold, Item, TaskData, Trace

SPLITS = ("auto", "blank", "line")
_BLANK_LINES = re.compile(r"\n\s*\n")


def load(task: str, options: LoadOptions) -> TaskData:
    """Return the candidates of a file as items of ``task`` (``gsm8k`` or ``math``), in the file's order.

    Settings: ``candidates`` (the file) and ``split`` (how a solution becomes steps, see :func:`split_steps`). One
    subset at a time, ``test`` if none is named. Candidates without any text cannot be scored; they are the data's
    ``empty``. ``notes`` says, by subset, what there is of problems and candidates, and how our grading compares with
    the file's ``is_correct`` marks.

    Raises:
        UsageError: no file, or a subset or a setting that does not exist.
        DataError: missing data; lines that are not of the form, not of this subset, or with another reference answer.
    """
    path, split = _settings(task, options.args or {})
    subset = _subset(task, options.subsets)
    problems, provenance = load_problems(task, subset, options.data_dir)
    lines, origin = read_candidates(path)
    matched = _join(path, lines, problems, _Place(task, subset, options.data_dir))
    graded = [one for line, problem in matched for one in grade(problem, line.candidates)]
    items = [(_item(subset, one, split), one) for one in graded]
    return TaskData(
        items=tuple(item for item, _ in items if item.trace.steps),
        provenance=(*provenance, origin),
        empty=tuple(item for item, _ in items if not item.trace.steps),
        notes={subset: {"split": split, **_notes(problems, matched, graded)}},
    )


def _settings(task: str, args: Mapping[str, Any]) -> tuple[Path, str]:
    check_names(task, "setting", args, ("candidates", "split"))
    path = args.get("candidates")
    if not isinstance(path, str | Path) or not str(path):
        given = f", not {path!r}; quote a name that looks like a number" if "candidates" in args else ""
        raise UsageError(
            f"the task {task} selects among solutions and needs a file of them: --candidates FILE{given}; "
            "`cpmi-eval generate` makes one"
        )
    return Path(path), settings.choice("split", args.get("split", "auto"), SPLITS)


def _subset(task: str, names: Sequence[str]) -> str:
    known = tuple(SOURCES[task])
    check_names(task, "subset", names, known)
    if len(set(names)) > 1:
        raise UsageError(f"a file of candidates belongs to one subset of {task}; choose one of {', '.join(names)}")
    return (*names, *known)[0]


def split_steps(solution: str, rule: str) -> tuple[str, ...]:
    """Cut a solution into steps, each without white space around it; what is blank is none.

    Args:
        solution: its text.
        rule: ``blank`` cuts at blank lines, ``line`` at every line end, ``auto`` at blank lines if there are any
            between texts and else at line ends.
    """
    solution = solution.strip()
    at_blank = rule == "blank" or (rule == "auto" and _BLANK_LINES.search(solution) is not None)
    parts = _BLANK_LINES.split(solution) if at_blank else solution.split("\n")
    return tuple(step for part in parts if (step := part.strip()))


# --- candidates and problems ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where problems are looked for."""

    task: str
    subset: str
    data_dir: Path | None

    def elsewhere(self) -> dict[str, set[str]]:
        """Return the problem keys of the other subsets that can be read."""
        found = {}
        for subset in SOURCES[self.task]:
            try:
                if subset != self.subset:
                    problems, _ = load_problems(self.task, subset, self.data_dir)
                    found[subset] = {problem_key(one.problem) for one in problems}
            except DataError:
                continue  # only the wording of an error depends on it
        return found


def _join(
    path: Path, lines: Mapping[int, Line], problems: Sequence[Problem], place: _Place
) -> list[tuple[Line, Problem]]:
    """Return each line with its problem; one error for all lines that have none or contradict it."""
    index: dict[str, list[Problem]] = {}
    for problem in problems:
        index.setdefault(problem_key(problem.problem), []).append(problem)
    known = all(problem_key(line.problem) in index for line in lines.values())
    others = {} if known else place.elsewhere()
    matched: list[tuple[Line, Problem]] = []
    owner: dict[str, int] = {}
    faults = Faults("line", "candidates")
    for number, line in lines.items():
        with faults.row():
            copies = index.get(problem_key(line.problem), [])
            found = _closest(line.problem, copies)
            if found is None:
                raise DataError(f"{path}:{number}: {_missing(line, bool(copies), place, others)}")
            if (first := owner.setdefault(found.id, number)) != number:
                raise DataError(
                    f"{path}:{number}: the problem is also that of line {first}; put its candidates in one line"
                )
            if line.answer is not None and verdict(line.answer, found.answer) is False:
                raise DataError(
                    f"{path}:{number}: the answer is {show(line.answer)}, that of {found.id} {show(found.answer)}"
                )
            matched.append((line, found))
    faults.refuse()
    return matched


def _closest(text: str, copies: Sequence[Problem]) -> Problem | None:
    """Return the problem with the text's letters and digits; of several, the one that agrees but for white space."""
    if len(copies) == 1:
        return copies[0]
    same = [one for one in copies if "".join(one.problem.split()) == "".join(text.split())]
    return same[0] if same else None


def _missing(line: Line, ambiguous: bool, place: _Place, others: Mapping[str, set[str]]) -> str:
    here = f"{place.task} {place.subset}"
    shown = show(line.problem)
    if ambiguous:
        return f"several problems of {here} differ from this one in signs only; copy its text exactly: {shown}"
    having = [subset for subset, keys in others.items() if problem_key(line.problem) in keys]
    if having:
        return f"the problem is not in {here} but in {having[0]}: --subset {having[0]}; it is {shown}"
    known = ", ".join(others)
    return f"the problem is not in {here}" + (f", nor in {known}" if known else "") + f": {shown}"


# --- grading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Graded:
    """A candidate and what its final answer is worth.

    ``index`` is its place among the problem's candidates. ``answer``: its text, ``None`` if none was found; ``group``
    numbers the classes of equal answers. ``verdict``: whether it equals the reference answer, ``None``: not decided.
    """

    problem: Problem
    index: int
    made: Solution
    answer: str | None
    group: int | None
    verdict: bool | None

    @property
    def id(self) -> str:
        """The name of its trace."""
        return f"{self.problem.id}/{self.index}"

    @property
    def correct(self) -> bool:
        """Whether it counts as correct."""
        return self.verdict is True


def grade(problem: Problem, solutions: Sequence[Solution]) -> list[Graded]:
    """Grade a problem's candidates and group them by mathematically equal answers, in order of first appearance.

    Equality of answers is not transitive (``5%`` equals ``5`` and ``0.05``). All that equal the reference are one
    group, so that a group is either correct or not; another answer joins the first group whose first answer it equals.
    """
    graded: list[Graded] = []
    opened: list[tuple[str, bool]] = []
    for index, solution in enumerate(solutions):
        answer = final_answer(solution.solution)
        found = False if answer is None else verdict(answer, problem.answer)
        group = None if answer is None else _group(answer, found is True, opened)
        graded.append(Graded(problem, index, solution, answer, group, found))
    return graded


def _group(answer: str, correct: bool, opened: list[tuple[str, bool]]) -> int:
    """Return the number of the answer's group; a new one is added to ``opened`` (first answer, whether correct)."""
    for number, (first, is_correct) in enumerate(opened):
        if correct == is_correct and (correct or verdict(answer, first) is True):
            return number
    opened.append((answer, correct))
    return len(opened) - 1


def _item(subset: str, one: Graded, split: str) -> Item:
    problem, generator = one.problem, one.made.generator
    groups = {**problem.groups, **({} if generator is None else {"generator": generator})}
    steps = split_steps(one.made.solution, split)
    trace = Trace(one.id, problem.problem, steps, problem.answer, cluster=problem.id)
    return Item(subset, trace, Gold(None, one.correct, Candidate(problem.id, one.group, groups)))


def _notes(problems: Sequence[Problem], matched: Sequence[tuple[Line, Problem]], graded: Sequence[Graded]) -> JSON:
    """Say what the file holds, all of it, whatever a run's limit is."""
    marked = [one for one in graded if one.made.is_correct is not None]
    differing = list(_disagreements(marked))
    written = [one for one in graded if one.made.solution.strip()]
    return {
        "problems": len(problems),
        "with_candidates": sum(bool(line.candidates) for line, _ in matched),
        "candidates": len(graded),
        "per_problem": {str(n): count for n, count in sorted(Counter(len(x.candidates) for x, _ in matched).items())},
        "empty": len(graded) - len(written),
        "no_answer": sum(one.answer is None for one in written),
        "undecided": sum(one.verdict is None for one in graded),
        "marks": {"marked": len(marked), "agree": len(marked) - len(differing), "disagree": differing},
    }


def _disagreements(marked: Sequence[Graded]) -> Iterator[JSON]:
    for one in marked:
        if one.made.is_correct is not one.correct:
            yield {
                "id": one.id,
                "marked": one.made.is_correct,
                "graded": one.verdict,
                "answer": one.answer,
                "reference": one.problem.answer,
            }
