"""A run directory that survives being killed at any moment.

``manifest.json``  what was run, on what, with which versions; replaced atomically, once per session
``traces.jsonl``   the texts of the run's traces; replaced atomically
``samples.jsonl``  one row per trace, appended and flushed batch by batch; a torn last line is dropped and redone
``rollouts.jsonl`` where the run asks for it, the sampled texts behind the rows; those of unfinished traces are redone
``results.json``   metrics and costs; replaced atomically when the run is complete
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from cpmi_eval.errors import StoreError
from cpmi_eval.types import JSON

SCHEMA_VERSION = 2  # 2: reused tokens and device seconds
SUMMARY_KEYS = (
    "results",
    "cost",
    "coverage",
    "errors",
    "labeler",
    "threshold",
    "synthetic",
    "config",
    "model",
    "data",
    "versions",
)
ROW_KEYS = ("id", "task", "scores", "prediction", "gold", "error", "cost", "details")


def replace_text(path: Path, text: str) -> None:
    """Replace ``path`` atomically: a reader or a crash sees the old file or the new one, whole."""
    scratch = path.with_name(f".{path.name}.tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace ``path`` atomically by a JSON document."""
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def to_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def make_aside(path: Path) -> Path:
    """Create and return the next numbered folder for what is set aside in ``path``."""
    number = 1
    while (folder := path / f"earlier-{number}").exists():
        number += 1
    folder.mkdir()
    return folder


def read_json(path: Path) -> JSON:
    """Read a JSON object of a run.

    Raises:
        StoreError: missing, unreadable or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path.parent} is not a run directory: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} must hold a JSON object")
    return content


def read_results(folder: Path) -> JSON:
    """Read a finished run's results.json.

    Raises:
        StoreError: no run, one that is not finished, or a file that lacks what results have.
    """
    path = folder / "results.json"
    if (folder / "manifest.json").exists() and not path.exists():
        raise StoreError(
            f"{folder} is not finished: run its command again to complete it, or\n"
            f"cpmi-eval run --config {folder / 'manifest.json'} --output_path {folder}"
        )
    summary = read_json(path)
    missing = [key for key in SUMMARY_KEYS if key not in summary]
    if missing:
        raise StoreError(f"{path} is not a run's results: it lacks {', '.join(missing)}")
    return summary


class Store:
    """One run directory, held by one process at a time (``with Store(path) as store``)."""

    def __init__(self, path: Path) -> None:
        """Name the directory; nothing is touched before it is entered."""
        self.path = path
        self.manifest_path = path / "manifest.json"
        self.samples_path = path / "samples.jsonl"
        self.results_path = path / "results.json"
        self.traces_path = path / "traces.jsonl"
        self.rollouts_path = path / "rollouts.jsonl"
        self._lock = FileLock(str(path / ".lock"))

    def __enter__(self) -> Store:
        """Create the directory where needed and take its lock.

        Raises:
            StoreError: the path is a file, holds something else than a run, or another process is writing to it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file; --output_path takes a directory")
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        ours = {name for name in names if name.startswith((".lock", ".manifest", "earlier-"))}
        if names - ours and "manifest.json" not in names:
            raise StoreError(f"{self.path} is not empty and holds no run; choose another --output_path")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"another process is writing to {self.path}; wait for it or choose another path") from None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._lock.release()

    def set_aside(self) -> Path | None:
        """Move an earlier run's files into a numbered folder beside them; return it, or None if there were none."""
        ours = [self.samples_path, self.rollouts_path, self.results_path, self.traces_path, self.manifest_path]
        files = [path for path in ours if path.exists()]  # the manifest goes last
        if not files:
            return None
        folder = make_aside(self.path)
        for file in files:
            file.rename(folder / file.name)
        return folder

    def manifest(self) -> JSON | None:
        """Return the manifest, or None in a fresh directory."""
        return read_json(self.manifest_path) if self.manifest_path.exists() else None

    def rows(self) -> list[JSON]:
        """Return the finished rows. A torn last line is cut off the file, so its trace is scored again.

        Raises:
            StoreError: a line that is not last is damaged.
        """
        if not self.samples_path.exists():
            return []
        return parse_rows(whole_lines(self.samples_path), self.samples_path)

    def drop_rollouts(self, finished: Container[tuple[str, str]]) -> None:
        """Drop the sampled texts of traces that are not among the ``finished`` (task, id): they are drawn again."""
        if not self.rollouts_path.exists():
            return
        lines = whole_lines(self.rollouts_path).splitlines(keepends=True)  # of bytes: a text may hold U+2028
        kept = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                owner = row["task"], row["id"]
            except (ValueError, KeyError, TypeError) as error:
                place = f"{self.rollouts_path}, line {number}"
                raise StoreError(f"{place} is damaged ({error!r}); start anew with --fresh") from error
            if owner in finished:
                kept.append(line)
        if len(kept) < len(lines):
            replace_text(self.rollouts_path, b"".join(kept).decode("utf-8"))

    def trace(self, task: str, name: str) -> JSON:
        """Return the texts of one trace.

        Raises:
            StoreError: the run's traces.jsonl is missing or damaged.
        """
        try:
            traces = map(json.loads, self.traces_path.read_bytes().splitlines())
            return next(trace for trace in traces if (trace["task"], trace["id"]) == (task, name))
        except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise StoreError(
                f"{self.traces_path} does not hold trace {name}; running the same command again rewrites the file"
            ) from error

    def write_traces(self, traces: Iterable[JSON]) -> None:
        """Write the texts of the run's traces."""
        replace_text(self.traces_path, to_lines(traces))

    def append(self, rows: Iterable[JSON], rollouts: Iterable[JSON] = ()) -> None:
        """Append rows and put them on disk before returning; the texts behind them first, so that no row lacks them."""
        for path, text in ((self.rollouts_path, to_lines(rollouts)), (self.samples_path, to_lines(rows))):
            if text:
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())

    def replace_rows(self, rows: Iterable[JSON]) -> None:
        """Replace all rows at once, where they change when the last one is known."""
        replace_text(self.samples_path, to_lines(rows))


def whole_lines(path: Path) -> bytes:
    """Return a file's whole lines, cutting a torn last one off the file."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as stream:
            stream.truncate(whole)
    return data[:whole]


def parse_rows(data: bytes, path: Path) -> list[JSON]:
    """Parse whole lines of a samples file, checking that each is a row.

    Raises:
        StoreError: a damaged line, with its number.
    """
    rows = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise StoreError(f"{path}, line {number} is damaged ({error}); start anew with --fresh") from error
        if not isinstance(row, dict) or not set(ROW_KEYS) <= set(row):
            raise StoreError(f"{path}, line {number} is not a result row; start anew with --fresh")
        rows.append(row)
    return rows
