"""Best-of-N selection: candidate solutions joined to a benchmark's problems and graded, as the items of a task.

Reference answers, levels and subjects are the benchmark's; a candidate is graded by its own final answer, found in its
text and compared mathematically. What is not decided in bounded time counts as incorrect, and is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from cpmi_eval import settings
from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.grading import final_answer, verdict
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.tasks.candidates import Line, Solution, read_candidates
from cpmi_eval.tasks.references import ReferenceSource, problem_key, strict_key
from cpmi_eval.tasks.rows import Faults, check_names, show
from cpmi_eval.tasks.sources import read_typed
from cpmi_eval.types import JSON, Candidate, Gold, Item, Problem, Provenance, TaskData, Trace

SPLITS = ("auto", "blank", "line")
_BLANK_LINES = re.compile(r"\n\s*\n")


class Selection:
    """A benchmark of problems with answers, as a task that selects among solutions of them.

    Subclasses name its tables in ``sources``, or its ``subsets``, and then bring ``problems`` of their own. Rows of a
    table may have ``groups``, what results are broken down by, and ``worked``, a solution to learn from.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    sources: ClassVar[Mapping[str, ReferenceSource]]
    subsets: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]] = ("best_of_n",)
    synthetic: ClassVar[bool] = False
    selects: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """Take the subsets from the tables, where there are any."""
        if "sources" in vars(cls):
            cls.subsets = tuple(cls.sources)

    def problems(self, subset: str, data_dir: Path | None) -> tuple[list[Problem], list[Provenance]]:
        """Return all problems of a subset in the benchmark's order, and where they came from.

        Args:
            subset: one of the benchmark's.
            data_dir: a local copy of the hub; ``None`` loads the pinned revision from the hub.

        Raises:
            UnknownNameError: no such subset.
            DataError: the data is missing, or a row lacks its problem or its answer.
        """
        check_names("subset", [subset], self.subsets)
        rows, origin = read_typed(self.sources[subset].table, self.sources[subset].kind, data_dir)
        problems: list[Problem] = []
        for index, row in enumerate(rows):
            answer = row.reference
            if not row.problem.strip() or not answer:
                what = "no answer to its problem" if row.problem.strip() else "no problem"
                raise DataError(f"{origin.name} row {index + 1} gives {what}; download the file again")
            groups = getattr(row, "groups", {})
            problems.append(Problem(f"{self.name}-{subset}-{index}", row.problem, answer, groups))
        return problems, [origin]

    def worked(self, data_dir: Path | None) -> tuple[list[tuple[str, str]], list[Provenance]]:
        """Return problems of the training split with their solutions, and where they came from."""
        source = self.sources["test"]
        table = replace(source.table, file="train.jsonl", hub_split="train", role="worked examples for --shots")
        rows, origin = read_typed(table, source.kind, data_dir)
        found = [(row.problem, getattr(row, "worked", None)) for row in rows]
        return [(text, worked) for text, worked in found if text and worked], [origin]

    def load(self, options: LoadOptions) -> TaskData:
        """Return the candidates of a file as items, in the file's order.

        Settings: ``candidates`` (the file) and ``split`` (how a solution becomes steps, see :func:`split_steps`). One
        subset at a time, the first if none is named. Candidates without any text cannot be scored; they are the data's
        ``empty``. ``notes`` says, by subset, what there is of problems and candidates, and how our grading compares
        with the file's ``is_correct`` marks.

        Raises:
            UsageError: no file, or a subset or a setting that does not exist.
            DataError: missing data; lines that are not of the form, not of this subset, or with another answer.
        """
        path, split = self._settings(options.args or {})
        check_names("subset", options.subsets, self.subsets)
        if len(set(options.subsets)) > 1:
            listed = ", ".join(options.subsets)
            raise UsageError(f"a file of candidates belongs to one subset of {self.name}; choose one of {listed}")
        subset = (*options.subsets, *self.subsets)[0]
        problems, provenance = self.problems(subset, options.data_dir)
        lines, origin = read_candidates(path)
        matched = self._join(path, lines, problems, subset, options.data_dir)
        graded = [one for line, problem in matched for one in grade(problem, line.candidates)]
        items = [_item(subset, one, split) for one in graded]
        return TaskData(
            items=tuple(item for item in items if item.trace.steps),
            provenance=(*provenance, origin),
            empty=tuple(item for item in items if not item.trace.steps),
            notes={subset: {"split": split, **_notes(problems, matched, graded)}},
        )

    def _settings(self, args: Mapping[str, Any]) -> tuple[Path, str]:
        check_names("setting", args, ("candidates", "split"))
        path = args.get("candidates")
        if not isinstance(path, str | Path) or not str(path):
            given = f", not {path!r}; quote a name that looks like a number" if "candidates" in args else ""
            raise UsageError(
                f"the task {self.name} selects among solutions and needs a file of them: --candidates FILE{given}; "
                "`cpmi-eval generate` makes one"
            )
        return Path(path), settings.choice("split", args.get("split", "auto"), SPLITS)

    def _join(
        self, path: Path, lines: Mapping[int, Line], problems: Sequence[Problem], subset: str, data_dir: Path | None
    ) -> list[tuple[Line, Problem]]:
        """Return each line with its problem; one error for all lines that have none or contradict it."""
        index = _index(problems)
        known = all(problem_key(line.problem) in index for line in lines.values())
        others = {} if known else self._elsewhere(subset, data_dir)
        matched: list[tuple[Line, Problem]] = []
        owner: dict[str, int] = {}
        faults = Faults("line", "candidates")
        for number, line in lines.items():
            with faults.row():
                copies = index.get(problem_key(line.problem), [])
                found = _closest(line.problem, copies)
                if found is None:
                    what = self._missing(line, subset, bool(copies), others)
                elif (first := owner.setdefault(found.id, number)) != number:
                    what = f"the problem is also that of line {first}; put its candidates in one line"
                elif line.answer is not None and verdict(line.answer, found.answer) is False:
                    what = f"the answer is {show(line.answer)}, that of {found.id} {show(found.answer)}"
                else:
                    matched.append((line, found))
                    continue
                raise DataError(f"{path}:{number}: {what}")
        faults.refuse()
        return matched

    def _elsewhere(self, subset: str, data_dir: Path | None) -> dict[str, dict[str, list[Problem]]]:
        """Index the other subsets that can be read; only the wording of an error depends on it."""
        found = {}
        for other in self.subsets:
            with suppress(DataError):
                if other != subset:
                    found[other] = _index(self.problems(other, data_dir)[0])
        return found

    def _missing(self, line: Line, subset: str, ambiguous: bool, others: Mapping[str, Mapping[str, object]]) -> str:
        here, shown = f"{self.name} {subset}", show(line.problem)
        if ambiguous:
            return f"several problems of {here} differ from this one in signs only; copy its text exactly: {shown}"
        for other, keys in others.items():
            if problem_key(line.problem) in keys:
                return f"the problem is not in {here} but in {other}: --subset {other}; it is {shown}"
        known = ", ".join(others)
        return f"the problem is not in {here}" + (f", nor in {known}" if known else "") + f": {shown}"


def _index(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem_key(problem.problem), []).append(problem)
    return found


def _closest(text: str, copies: Sequence[Problem]) -> Problem | None:
    """Return the problem with the text's letters and digits; of several, the one that agrees but for white space."""
    if len(copies) == 1:
        return copies[0]
    return next((one for one in copies if strict_key(one.problem) == strict_key(text)), None)


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
    def disagreement(self) -> JSON | None:
        """How the file's own grading differs from ours, if it does."""
        if self.made.is_correct in (None, self.verdict is True):
            return None
        own = {"id": self.id, "marked": self.made.is_correct, "graded": self.verdict}
        return {**own, "answer": self.answer, "reference": self.problem.answer}


def grade(problem: Problem, solutions: Sequence[Solution]) -> list[Graded]:
    """Grade a problem's candidates and group them by mathematically equal answers, in order of first appearance.

    Equality of answers is not transitive (``5%`` equals ``5`` and ``0.05``). All that equal the reference are one
    group, so that a group is either correct or not; another answer joins the first group whose first answer it equals.
    """
    graded: list[Graded] = []
    groups: list[tuple[str, bool]] = []  # the first answer, and whether it is correct
    for index, solution in enumerate(solutions):
        answer = final_answer(solution.solution)
        found = False if answer is None else verdict(answer, problem.answer)
        group = None
        if answer is not None:
            right = found is True
            equal = (n for n, (one, ok) in enumerate(groups) if ok == right and (ok or verdict(answer, one) is True))
            group = next(equal, len(groups))
            if group == len(groups):
                groups.append((answer, right))
        graded.append(Graded(problem, index, solution, answer, group, found))
    return graded


def _item(subset: str, one: Graded, split: str) -> Item:
    problem, generator = one.problem, one.made.generator
    groups = {**problem.groups, **({} if generator is None else {"generator": generator})}
    steps = split_steps(one.made.solution, split)
    trace = Trace(one.id, problem.problem, steps, problem.answer, cluster=problem.id)
    return Item(subset, trace, Gold(None, one.verdict is True, Candidate(problem.id, one.group, groups)))


def _notes(problems: Sequence[Problem], matched: Sequence[tuple[Line, Problem]], graded: Sequence[Graded]) -> JSON:
    """Say what the file holds, all of it, whatever a run's limit is."""
    marked = sum(one.made.is_correct is not None for one in graded)
    differing = [one.disagreement for one in graded if one.disagreement is not None]
    written = [one for one in graded if one.made.solution.strip()]
    return {
        "problems": len(problems),
        "with_candidates": sum(bool(line.candidates) for line, _ in matched),
        "candidates": len(graded),
        "per_problem": {str(n): count for n, count in sorted(Counter(len(x.candidates) for x, _ in matched).items())},
        "empty": len(graded) - len(written),
        "no_answer": sum(one.answer is None for one in written),
        "undecided": sum(one.verdict is None for one in graded),
        "marks": {"marked": marked, "agree": marked - len(differing), "disagree": differing},
    }
