"""Raw rows of a dataset, from a local copy or from the Hugging Face hub, and proof of which rows they were.

A local copy is laid out as the hub names things, ``<data_dir>/<org>/<dataset>/<file>``, each file a JSON array or JSON
lines; its proof is the SHA-256 of the file's bytes. From the hub, only the pinned revision will do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval.errors import DataError
from cpmi_eval.types import JSON, Provenance

DATA_DIR_HINT = "pass --data-dir DIR or set CPMI_EVAL_DATA_DIR (layout <org>/<dataset>/<file>)"
PROBE_TIMEOUT_S = 10.0
SHOWN_NAMES = 20


@dataclass(frozen=True)
class Source:
    """One table of rows.

    ``name`` is the hub's ``<org>/<dataset>`` and ``file`` the table's name in a local copy of it. On the hub the
    table is split ``hub_split`` at ``revision``, the rows of ``hub_configs`` one after the other. ``role`` says in
    error messages what the rows are needed for.
    """

    name: str
    file: str
    hub_split: str
    revision: str
    hub_configs: tuple[str | None, ...] = (None,)
    role: str = "benchmark rows"

    def path(self, data_dir: Path) -> Path:
        """Return where a local copy of the hub keeps this table."""
        return data_dir / self.name / self.file

    def label(self, data_dir: Path | None) -> str:
        """Return how messages and provenance call this table: by file, or by hub dataset and split."""
        return f"{self.name}/{self.file}" if data_dir else f"{self.name}:{self.hub_split}"


def read_rows(source: Source, data_dir: Path | None) -> tuple[list[JSON], Provenance]:
    """Return all rows of ``source``, in order, and where they came from.

    Raises:
        DataError: the rows are missing, unreachable, not UTF-8, not JSON, not objects, or none at all.
    """
    rows, provenance = _read_hub(source) if data_dir is None else _read_file(source, data_dir)
    if not rows:
        raise DataError(f"{provenance.name} holds no rows; download it again")
    return rows, provenance


def _read_file(source: Source, data_dir: Path) -> tuple[list[JSON], Provenance]:
    path = source.path(data_dir)
    if not path.is_file():
        raise DataError(_missing(source, data_dir))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    rows = _parse(_decode(content, path), path)
    return rows, Provenance(source.label(data_dir), sha256=hashlib.sha256(content).hexdigest(), rows=len(rows))


def _missing(source: Source, data_dir: Path) -> str:
    """Say what is not there, and what is."""
    if not data_dir.is_dir():
        what = "is not a directory" if data_dir.exists() else "does not exist"
        return f"data directory {data_dir} {what}; {DATA_DIR_HINT}, or leave it out to load from the hub"
    path = source.path(data_dir)
    folder = next(parent for parent in path.parents if parent.is_dir())
    return (
        f"missing file {path} ({source.role}); {folder} holds {_listing(folder)}. Put the rows of {source.name} "
        "there, as a JSON array or JSON lines"
    )


def _listing(folder: Path) -> str:
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        return f"what cannot be listed ({error.strerror or error})"
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (", ".join(names[:SHOWN_NAMES]) + more) or "nothing"


def _decode(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} ({error.reason}); "
            "convert it to UTF-8 or download it again"
        ) from error
    return text.removeprefix("\ufeff")


def _parse(text: str, path: Path) -> list[JSON]:
    """Parse a JSON array or JSON lines, told apart by the first character."""
    is_array = text.lstrip().startswith("[")
    numbered = enumerate(_loads(text, 1, path), start=1) if is_array else _parse_lines(text, path)
    place = "row" if is_array else "line"
    rows: list[JSON] = []
    for number, row in numbered:
        if not isinstance(row, dict):
            raise DataError(f"{path} {place} {number}: expected a JSON object, got {type(row).__name__}")
        rows.append(row)
    return rows


def _parse_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): it also splits at U+2028 and the like, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _loads(line, number, path)


def _loads(text: str, first_line: int, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place, why = f"line {first_line + error.lineno - 1}, column {error.colno}", error.msg
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits; nesting without end
        place, why = f"line {first_line}", str(error)
    raise DataError(
        f"{path} is not valid JSON at {place}: {why}. Expected a JSON array of objects or one object per line"
    )


def _read_hub(source: Source) -> tuple[list[JSON], Provenance]:
    """Load the pinned revision, or fail within seconds.

    ``datasets`` retries for long when the hub does not answer, and then takes whichever revision its cache holds.
    Hence one short request first, and a look at what came back.
    """
    import datasets

    # The base of httpx's errors; which httpx the client builds on has changed between its versions.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    rows: list[JSON] = []
    try:
        _probe(source)
        for config in source.hub_configs:
            builder = datasets.load_dataset_builder(source.name, config, revision=source.revision)
            if builder.hash != source.revision:
                raise DataError(_wrong_revision(source, builder.hash))
            builder.download_and_prepare()
            rows.extend(builder.as_dataset(split=source.hub_split).to_list())
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(_unreachable(source, error)) from error
    return rows, Provenance(source.label(None), revision=source.revision, rows=len(rows))


def _probe(source: Source) -> None:
    """Ask the hub once for the pinned revision; offline mode goes straight to the cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        HfApi().dataset_info(source.name, revision=source.revision, timeout=PROBE_TIMEOUT_S)
    except OfflineModeIsEnabled:
        return


def _unreachable(source: Source, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"cannot load dataset {source.name} (split {source.hub_split}, revision {source.revision}; {source.role}) from "
        f"the hub: {reason}. To use a local copy, {DATA_DIR_HINT}; otherwise check the network, or, if HF_HUB_OFFLINE "
        "is set, that this revision is in the local cache"
    )


def _wrong_revision(source: Source, got: str) -> str:
    return (
        f"dataset {source.name}: revision {source.revision} is wanted, but the local cache offers {got}. Load it once "
        f"with the hub in reach, or {DATA_DIR_HINT}"
    )
