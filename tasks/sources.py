"""Raw rows of a dataset, from a local copy or from the Hugging Face hub, and proof of which rows they were.

A local copy is laid out as the hub names things, ``<data_dir>/<org>/<dataset>/<file>``, each file a JSON array or JSON
lines; its proof is the SHA-256 of the file's bytes. From the hub, only the pinned revision will do.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cpmi_eval.errors import DataError
from cpmi_eval.record import door
from cpmi_eval.tasks.rows import Faults, show
from cpmi_eval.types import JSON, Provenance

DATA_DIR_HINT = "pass --data-dir DIR or set CPMI_EVAL_DATA_DIR (layout <org>/<dataset>/<file>)"
PROBE_TIMEOUT_S = 10.0
SHOWN_NAMES = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
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
        """Name the file in a local copy of the hub."""
        return data_dir / self.name / self.file

    def label(self, data_dir: Path | None) -> str:
        """Name the table in messages and provenance: by file, or by hub dataset and split."""
        return f"{self.name}/{self.file}" if data_dir else f"{self.name}:{self.hub_split}"


def read_rows(table: Table, data_dir: Path | None) -> tuple[list[JSON], Provenance]:
    """Return all rows of ``table``, in order, and where they came from.

    Raises:
        DataError: the rows are missing, unreachable, not UTF-8, not JSON, not objects, or none at all.
    """
    rows, provenance = _read_hub(table) if data_dir is None else _read_file(table, data_dir)
    if not rows:
        raise DataError(f"{provenance.name} holds no rows; download it again")
    return rows, provenance


def read_typed(
    table: Table, kind: type[T], data_dir: Path | None, key: str | None = None, faults: Faults | None = None
) -> tuple[list[T], Provenance]:
    """Return the rows of ``table`` as ``kind``, a frozen dataclass; fields that it does not have are left alone.

    Args:
        table: what to read.
        kind: what a row is; a ValueError of its ``__post_init__`` is a fault of the row.
        data_dir: as of :func:`read_rows`.
        key: the field that names a row, unique among all rows.
        faults: collects bad rows, for the caller to refuse; else they are refused here.

    Raises:
        DataError: the rows cannot be read, or are not of the kind.
    """
    raw, origin = read_rows(table, data_dir)
    collected = faults or Faults("row", table.name)
    rows = []
    for number, row in enumerate(raw, 1):
        with collected.row():
            place, name = f"{origin.name} row {number}", row.get(key) if key else None
            whole = f"{place} ({key} {show(name)})" if name else place
            rows.append(door.convert(row, kind, door.Source(whole, DataError)))
            if name:
                collected.unique(name, place)
    if faults is None:
        collected.refuse()
    return rows, origin


def _read_file(table: Table, data_dir: Path) -> tuple[list[JSON], Provenance]:
    path = table.path(data_dir)
    if not path.is_file():
        raise DataError(_missing(table, data_dir))
    place = door.Source(str(path), DataError, "expected a JSON array of objects or one object per line, in UTF-8")
    content = door.read_bytes(path, place)
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_array = text.startswith(b"[")
    rows = door.parse_json(text, list[JSON], place) if is_array else list(door.parse_lines(content, JSON, place))
    return rows, Provenance(table.label(data_dir), sha256=hashlib.sha256(content).hexdigest(), rows=len(rows))


def _missing(table: Table, data_dir: Path) -> str:
    """Say what is not there, and what is."""
    if not data_dir.is_dir():
        what = "is not a directory" if data_dir.exists() else "does not exist"
        return f"data directory {data_dir} {what}; {DATA_DIR_HINT}, or leave it out to load from the hub"
    path = table.path(data_dir)
    folder = next(parent for parent in path.parents if parent.is_dir())
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        names = [f"what cannot be listed ({error.strerror or error})"]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (
        f"missing file {path} ({table.role}); {folder} holds {', '.join(names[:SHOWN_NAMES]) or 'nothing'}{more}. "
        f"Put the rows of {table.name} there, as a JSON array or JSON lines"
    )


def _read_hub(table: Table) -> tuple[list[JSON], Provenance]:
    """Load the pinned revision, or fail within seconds.

    ``datasets`` retries for long when the hub does not answer, and then takes whichever revision its cache holds.
    Hence one short request first, and a look at what came back.
    """
    import datasets
    from huggingface_hub import HfApi

    # HTTPError is the base of httpx's errors; which httpx the client builds on has changed between its versions.
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    rows: list[JSON] = []
    try:
        with suppress(OfflineModeIsEnabled):  # then straight to the cache
            HfApi().dataset_info(table.name, revision=table.revision, timeout=PROBE_TIMEOUT_S)
        for config in table.hub_configs:
            builder = datasets.load_dataset_builder(table.name, config, revision=table.revision)
            if builder.hash != table.revision:
                raise DataError(
                    f"dataset {table.name}: revision {table.revision} is wanted, but the local cache offers "
                    f"{builder.hash}. Load it once with the hub in reach, or {DATA_DIR_HINT}"
                )
            builder.download_and_prepare()
            rows.extend(builder.as_dataset(split=table.hub_split).to_list())
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(
            f"cannot load dataset {table.name} (split {table.hub_split}, revision {table.revision}; {table.role}) from "
            f"the hub: {reason}. To use a local copy, {DATA_DIR_HINT}; otherwise check the network, or, if "
            "HF_HUB_OFFLINE is set, that this revision is in the local cache"
        ) from error
    return rows, Provenance(table.label(None), revision=table.revision, rows=len(rows))
