"""A run directory that survives being killed at any moment.

``manifest.json``  what was run, on what, with which versions; replaced atomically, once per session
``traces.jsonl``   the texts of the run's traces; replaced atomically
``samples.jsonl``  one row per trace, appended and flushed batch by batch; a torn last line is dropped and redone
``rollouts.jsonl`` where the run asks for it, the sampled texts behind the rows; those of unfinished traces are redone
``results.json``   metrics and costs; replaced atomically when the run is complete
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from cpmi_eval.errors import StoreError
from cpmi_eval.record import door
from cpmi_eval.record.journal import AGAIN, Journal
from cpmi_eval.record.model import shaped
from cpmi_eval.record.results import FORMAT, Manifest, Results
from cpmi_eval.record.rows import Key, Row, TraceText
from cpmi_eval.types import JSON


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
        self.samples = Journal(self.samples_path, Row)
        self.rollouts: Journal[JSON] = Journal(self.rollouts_path, dict)
        self._lock = FileLock(str(path / ".lock"))

    def __enter__(self) -> Store:
        """Create the directory where needed and take its lock.

        Raises:
            StoreError: the path is a file, holds something else than a run, or another process is writing to it.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise StoreError(f"{self.path} is a file; --output_path takes a directory")
            names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
            ours = {name for name in names if name.startswith((".lock", ".manifest", "earlier-"))}
            if names - ours and "manifest.json" not in names:
                raise StoreError(f"{self.path} is not empty and holds no run; choose another --output_path")
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"another process is writing to {self.path}; wait for it or choose another path") from None
        except OSError as error:
            raise StoreError(f"{str(self.path)[:200]} cannot be written: {error.strerror or error}") from error
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

    def manifest(self) -> Manifest | None:
        """The manifest; ``None`` in a fresh directory."""
        return read_manifest(self.path) if self.manifest_path.exists() else None

    def keep(self, manifest: Manifest) -> Manifest:
        """Put a manifest on disk; return it."""
        door.write_json(self.manifest_path, manifest.as_dict())
        return manifest

    def drop_rollouts(self, finished: Container[Key]) -> None:
        """Drop the sampled texts of traces that are not among the ``finished``: they are drawn again."""
        if not self.rollouts_path.exists():
            return
        lines = self.rollouts.read()
        try:
            kept = [one for one in lines if (one["task"], one["id"]) in finished]
        except KeyError as error:
            raise StoreError(f"{self.rollouts_path} has a line without {error}; {AGAIN}") from None
        if len(kept) < len(lines):
            self.rollouts.replace(kept)

    def trace(self, task: str, name: str) -> TraceText:
        """The texts of one trace.

        Raises:
            StoreError: the run's traces.jsonl is missing or damaged, or lacks it.
        """
        for text in self.texts():
            if text.key == (task, name):
                return text
        raise StoreError(
            f"{self.traces_path} does not hold trace {name}; running the same command again rewrites the file"
        )

    def texts(self) -> list[TraceText]:
        """The texts of the run's traces.

        Raises:
            StoreError: traces.jsonl is missing or damaged.
        """
        advice = "running the same command again rewrites the file"
        if not self.traces_path.exists():
            raise StoreError(f"{self.path} has no {self.traces_path.name}; {advice}")
        return list(door.read_lines(self.traces_path, TraceText, door.Source(str(self.traces_path), advice=advice)))

    def write_texts(self, texts: Iterable[TraceText]) -> None:
        """Write the texts of the run's traces."""
        door.replace_bytes(self.traces_path, door.to_lines(texts))

    def append(self, rows: Iterable[Row], rollouts: Iterable[JSON] = ()) -> None:
        """Append rows and put them on disk before returning; the texts behind them first, so that no row lacks them."""
        self.rollouts.append(rollouts)
        self.samples.append(row.as_dict() for row in rows)

    def replace_rows(self, rows: Iterable[Row]) -> None:
        """Replace all rows at once, where they change when the last one is known."""
        self.samples.replace(row.as_dict() for row in rows)

    def write_results(self, results: Results) -> None:
        """Write results.json, which makes the run a finished one."""
        door.write_json(self.results_path, results.as_dict())


def make_aside(path: Path) -> Path:
    """Create and return the next numbered folder for what is set aside in ``path``."""
    number = 1
    while (folder := path / f"earlier-{number}").exists():
        number += 1
    folder.mkdir()
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Read a run's manifest.json.

    Raises:
        StoreError: no run, one of another format, or a damaged file; names the field.
    """
    content, source = _content(folder, "manifest.json")
    if content.get("schema_version") != FORMAT:
        raise StoreError(
            f"{folder} was written by another version of cpmi-eval (run format {content.get('schema_version')}, "
            f"here {FORMAT}); use another --output_path, or --fresh"
        )
    return door.convert(content, Manifest, source)


def read_results(folder: Path) -> Results:
    """Read a finished run's results.json.

    Raises:
        StoreError: no run, one that is not finished, or a damaged file; names the field.
    """
    if (folder / "manifest.json").exists() and not (folder / "results.json").exists():
        raise StoreError(
            f"{folder} is not finished: run its command again to complete it, or\n"
            f"cpmi-eval run --config {folder / 'manifest.json'} --output_path {folder}"
        )
    content, source = _content(folder, "results.json")
    return door.convert(content, Results, source)


def _content(folder: Path, name: str) -> tuple[JSON, door.Source]:
    path = folder / name
    source = door.Source(str(path), advice="restore the file, or repeat the run with --fresh")
    try:
        there = path.exists()
    except OSError:
        there = True  # reading says what is wrong
    if not there:
        raise StoreError(f"{folder} is not a run directory: it has no {name}")
    content: dict[str, Any] = door.read_json(path, dict, source)
    return {**content, "model": shaped(content.get("model"))}, source
