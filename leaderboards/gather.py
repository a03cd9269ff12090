"""What a leaderboard shows: rows of run directories, of the user's files and of those that come with the package."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cpmi_eval import registry
from cpmi_eval.errors import DataError, UnknownNameError, UsageError
from cpmi_eval.leaderboards import files
from cpmi_eval.leaderboards.rows import row_of
from cpmi_eval.leaderboards.schema import Row
from cpmi_eval.record.run import Run, read_run

log = logging.getLogger(__name__)

DEFAULT = Path("leaderboards")


@dataclass(frozen=True)
class Gathered:
    """What was asked for.

    ``rows``: measured, each with the place of its run among ``runs`` where its traces are at hand. ``published``: of
    the tasks of all these. ``parts``: by task, those it is restricted to. ``named``: whether a task was named, rather
    than runs alone.
    """

    rows: tuple[tuple[Row, int | None], ...]
    runs: tuple[Run, ...]
    published: tuple[Row, ...]
    parts: dict[str, set[str]]
    named: bool


@dataclass
class _Asked:
    """What the arguments name: run directories, and parts by task (none: all of it)."""

    folders: list[Path] = field(default_factory=list)
    parts: dict[str, set[str]] = field(default_factory=dict)


def sources(folder: Path | None) -> dict[str, list[Path]]:
    """Return the files with rows by task: those of the user's folder first, then those of the package.

    Args:
        folder: the user's; ``None``: the default one, if it is there.

    Raises:
        DataError: the given folder is not there.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder} is no folder; `cpmi-eval leaderboard add RUN_DIR --to {folder}` makes it")
    own = folder if folder is not None else DEFAULT
    found: dict[str, list[Path]] = {}
    for listing in (files.found(own) if own.is_dir() else {}, files.shipped()):
        for task, path in listing.items():
            paths = found.setdefault(task, [])
            if all(path.resolve() != one.resolve() for one in paths):
                paths.append(path)
    return found


def gather(what: Sequence[str], folder: Path | None = None, kinds: Collection[str] = ()) -> Gathered:
    """Read what is asked for.

    Args:
        what: tasks (``processbench``), parts of them (``processbench/gsm8k``) and run directories, mixed.
        folder: the user's leaderboard files; ``None``: the default one, if it is there.
        kinds: restrict rows to these; empty: all.

    Raises:
        StoreError: a run that is not finished or not readable.
        DataError: a leaderboard file that is not valid.
        UsageError: something that is neither a run nor a task with rows.
    """
    known = sources(folder)
    asked = _asked(what, known)
    runs: dict[str, tuple[Row, Run]] = {}
    for path in asked.folders:
        run = read_run(path)
        row = row_of(run)
        one = runs.setdefault(row.fingerprint or "", (row, run))[1]
        if one.path.resolve() != run.path.resolve():
            log.warning("%s is the same run as %s (configuration, data, model): shown once", run.path, one.path)
    tasks = dict.fromkeys([*(row.task for row, _ in runs.values()), *asked.parts])
    stored = {task: [row for path in known.get(task, ()) for row in files.read(path)] for task in tasks}
    for task, parts in asked.parts.items():
        _check_parts(task, parts, [*stored[task], *(row for row, _ in runs.values())])
    rows: list[tuple[Row, int | None]] = [(row, number) for number, (row, _) in enumerate(runs.values())]
    rows += _measured([row for task in asked.parts for row in stored[task]], set(runs))
    published = dict.fromkeys(id_of(row) for group in stored.values() for row in group if row.origin == "published")
    by_id = {id_of(row): row for group in stored.values() for row in reversed(group)}
    return Gathered(
        rows=tuple((row, run) for row, run in rows if not kinds or row.kind in kinds),
        runs=tuple(run for _, run in runs.values()),
        published=tuple(by_id[one] for one in published if not kinds or by_id[one].kind in kinds),
        parts={task: parts for task, parts in asked.parts.items() if parts},
        named=bool(asked.parts),
    )


def id_of(row: Row) -> tuple[str, ...]:
    """Return what tells a published row from others: task, scorer, source, threshold."""
    return row.task, row.scorer, row.source or "", row.threshold or ""


def _asked(what: Sequence[str], known: Collection[str]) -> _Asked:
    asked = _Asked()
    for one in what:
        path, task = Path(one), one.partition("/")[0]
        if (path / "manifest.json").exists() or (task not in known and path.is_dir()):
            asked.folders.append(path)
        elif task in known:
            asked.parts.setdefault(task, set()).add(one)
        elif task in registry.entries("tasks"):
            raise UsageError(f"there are no rows of {task} yet; `cpmi-eval leaderboard add RUN_DIR` adds them")
        else:
            listed = ", ".join(sorted(known))
            raise UsageError(
                f"{one} is not a run directory: it has no manifest.json; nor a task with rows, which are: {listed}"
            )
    return _Asked(asked.folders, {task: set() if task in parts else parts for task, parts in asked.parts.items()})


def _check_parts(task: str, parts: Collection[str], rows: Sequence[Row]) -> None:
    there = {name for row in rows if row.task == task for name in row.parts}
    for name in parts:
        if name not in there:
            raise UnknownNameError(f"part of {task}", name, there)


def _measured(rows: Sequence[Row], seen: set[str]) -> list[tuple[Row, int | None]]:
    """Return measured rows, each fingerprint once."""
    found: list[tuple[Row, int | None]] = []
    for row in rows:
        if row.fingerprint is not None and row.fingerprint not in seen:
            seen.add(row.fingerprint)
            found.append((row, None))
    return found


def listing(folder: Path | None = None) -> list[dict[str, object]]:
    """Return the tasks that have rows: how many of them are measured and published, on which parts, in which files.

    Raises:
        DataError: a leaderboard file that is not valid, or no such folder.
    """
    found: list[dict[str, object]] = []
    for task, paths in sorted(sources(folder).items()):
        rows = [row for path in paths for row in files.read(path)]
        measured = _measured(rows, set())
        published = {id_of(row) for row in rows if row.origin == "published"}
        parts = list(dict.fromkeys(name for row in rows for name in row.parts if name != task)) or [task]
        entry = {"task": task, "measured": len(measured), "published": len(published), "parts": parts}
        found.append({**entry, "files": [str(path) for path in paths]})
    return found
