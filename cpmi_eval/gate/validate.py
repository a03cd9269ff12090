"""Is everything that can be named in order? Tasks, PRM specs and leaderboard files, each checked on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval import registry
from cpmi_eval.errors import UsageError
from cpmi_eval.leaderboards import files, gather
from cpmi_eval.prm import specs
from cpmi_eval.protocols import LoadOptions, Task
from cpmi_eval.types import TaskData


@dataclass(frozen=True)
class Checked:
    """One thing that was checked. ``problem`` says what is wrong with it; empty: nothing. ``about``: what was found."""

    kind: str
    name: str
    problem: str = ""
    about: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problem


def everything(spec_files: Sequence[str] = (), boards: Path | None = None) -> Iterator[Checked]:
    """Check every registered task, every PRM spec and every leaderboard file.

    Args:
        spec_files: PRM specs beside the built-in ones.
        boards: a folder of leaderboard files beside those of the package; ``None``: the default one, if it is there.

    Raises:
        DataError: there is no such folder.
    """
    sources = gather.sources(boards)
    try:
        names = sorted(registry.entries("tasks"))
    except UsageError as error:
        yield Checked("tasks", "all", str(error))
        names = []
    for name in names:
        yield _checked("task", name, task)
    for name in (*specs.names(), *spec_files):
        yield _checked("spec", name, spec)
    for paths in sources.values():
        for path in paths:
            yield _checked("leaderboard", str(path), leaderboard)


def _checked(kind: str, name: str, check: Callable[[str], str]) -> Checked:
    try:
        return Checked(kind, name, about=check(name))
    except UsageError as error:
        return Checked(kind, name, problem=str(error))


def task(name: str) -> str:
    """Check one registered task: that it can be imported, is what a task must be, and names metrics that exist.

    One whose data is embedded is loaded, too.

    Returns:
        What it was found to hold.

    Raises:
        UsageError: what is wrong.
    """
    made = _make(name, registry.load("tasks", name))
    if not isinstance(made, Task):
        wanted = ("name", "summary", "subsets", "metrics", "synthetic", "load")
        raise UsageError(f"it lacks {', '.join(one for one in wanted if getattr(made, one, None) is None)}")
    if made.name != name:
        raise UsageError(f"it is registered as {name!r} and calls itself {made.name!r}")
    for key, kind, words in (("summary", str, "a text"), ("synthetic", bool, "True or False")):
        if not isinstance(getattr(made, key), kind):
            raise UsageError(f"{key} must be {words}, not {getattr(made, key)!r}")
    for key in ("subsets", "metrics"):
        _names(key, getattr(made, key))
    if not made.subsets:
        raise UsageError("subsets is empty; a task has at least one")
    for metric in made.metrics:
        if not callable(registry.load("metrics", metric)):
            raise UsageError(f"its metric {metric!r} cannot be called")
    subsets = f"subsets {', '.join(made.subsets)}; metrics {', '.join(made.metrics) or 'none'}"
    if not made.synthetic:
        return f"{subsets}; data not loaded"
    return f"{subsets}; {len(_load(made).items):,} traces loaded"


def _make(name: str, found: Any) -> Any:
    try:
        return found()
    except Exception as error:
        raise UsageError(f"{name} cannot be made without arguments: {type(error).__name__}: {error}") from error


def _names(key: str, given: Any) -> None:
    if not isinstance(given, tuple) or not all(isinstance(one, str) and one for one in given):
        raise UsageError(f"{key} must be a tuple of names, not {given!r}")
    if len(set(given)) < len(given):
        raise UsageError(f"{key} names one thing twice: {', '.join(given)}")


def _load(made: Task) -> TaskData:
    """Load a task's embedded data and check what comes."""
    try:
        data = made.load(LoadOptions(args={}))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"its data cannot be loaded: {type(error).__name__}: {error}") from error
    if not data.items:
        raise UsageError("it has no traces")
    seen: set[str] = set()
    for item in data.items:
        if item.subset not in made.subsets:
            raise UsageError(f"the trace {item.trace.id!r} is of the subset {item.subset!r}, which it does not name")
        if item.trace.id in seen:
            raise UsageError(f"the trace id {item.trace.id!r} is there twice")
        first = item.gold.first_error
        if first is not None and not -1 <= first < len(item.trace.steps):
            raise UsageError(f"the trace {item.trace.id!r} has {len(item.trace.steps)} steps and its error at {first}")
        seen.add(item.trace.id)
    return data


def spec(name_or_path: str) -> str:
    """Check one PRM spec: that it is valid, and that what is written of it is read back as the same.

    Returns:
        Its summary.

    Raises:
        UsageError: what is wrong.
    """
    found = specs.load(name_or_path)
    if specs.parse(specs.as_dict(found), name_or_path) != found:
        raise UsageError("it is not the same once written and read back")
    if name_or_path in specs.names() and found.name != name_or_path:
        raise UsageError(f"its file is {name_or_path}.yaml and it calls itself {found.name!r}")
    return found.summary


def leaderboard(path: str) -> str:
    """Check every line of one leaderboard file.

    Returns:
        How many rows it has.

    Raises:
        UsageError: what is wrong, line by line.
    """
    wrong = files.problems(Path(path))
    if wrong:
        raise UsageError("\n".join(one.removeprefix(f"{path}, ") for one in wrong))
    rows = files.read(Path(path))
    measured = sum(row.origin == "measured" for row in rows)
    return f"{measured:,} measured and {len(rows) - measured:,} published rows"
