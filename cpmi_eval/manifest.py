"""manifest.json: what a run is, and the check that a directory is not used for two different ones."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.backends.models import sha256_of
from cpmi_eval.config import RunConfig
from cpmi_eval.cost import Meter
from cpmi_eval.description import ModelDescription
from cpmi_eval.description import read as read_model
from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.store import SCHEMA_VERSION, Store, write_json
from cpmi_eval.types import JSON, TaskData

log = logging.getLogger(__name__)

PACKAGES = ("cpmi-eval", "torch", "transformers", "tokenizers", "datasets", "numpy", "scikit-learn", "mpmath")


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Say which of ``keys`` differ and how; empty if none does."""
    return "; ".join(
        f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} now" for key in keys if theirs.get(key) != ours.get(key)
    )


def open_manifest(store: Store, config: RunConfig, data: TaskData) -> JSON:
    """Return the directory's manifest, or write a new one.

    Raises:
        StoreError: the directory holds a different run; names the settings, data or files that differ.
    """
    identity = {
        **config.identity(),
        "data": [asdict(one) for one in data.provenance],
        "files": {name: sha256_of([path]) for name, path in _files(config.labeler_args)},
    }
    manifest = store.manifest()
    if manifest is not None and manifest.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{store.path} was written by another version of cpmi-eval (run format {manifest.get('schema_version')}, "
            f"here {SCHEMA_VERSION}); use another --output_path, or --fresh"
        )
    if manifest is not None and (manifest["sessions"] or store.samples_path.exists()):  # else it never got to score
        theirs = manifest.get("identity", {})
        differ = differences(theirs, identity, sorted({*identity, *theirs}))
        if differ:
            raise StoreError(f"{store.path} holds a different run ({differ}). Use another --output_path, or --fresh")
        return manifest
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.as_dict(),
        "identity": identity,
        "versions": package_versions(),
        "machine": {"platform": platform.platform(), "processor": platform.machine()},
        "data": identity["data"],
        "model": None,
        "sessions": [],
    }
    write_json(store.manifest_path, manifest)
    return manifest


def _files(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the files that settings name; also those of settings within a setting (``mc="prompt=FILE"``)."""
    for name, value in given.items():
        if _is_file(value):
            yield prefix + name, Path(value)
        elif isinstance(value, Mapping):
            yield from _files(value, f"{prefix}{name}.")
        elif isinstance(value, str) and "=" in value:
            with suppress(UsageError):  # a text that holds "=" need not be settings
                yield from _files(settings.parse_pairs(value), f"{prefix}{name}.")


def _is_file(value: object) -> bool:
    """Return whether a setting names a file; a long text or one with a zero byte does not."""
    try:
        return isinstance(value, str) and Path(value).is_file()
    except (OSError, ValueError):
        return False


def model_differences(theirs: ModelDescription | None, ours: ModelDescription | None) -> str:
    """Say how two models differ in what must not change within a run, and those beside them; empty if they do not."""
    there, here = ({} if one is None else one.fixed() for one in (theirs, ours))
    others, own = ({} if one is None else one.others for one in (theirs, ours))
    found = [differences(there, here, sorted({*there, *here}))]
    found += [model_differences(others.get(role), own.get(role)) for role in sorted({*others, *own})]
    return "; ".join(filter(None, found))


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def start_session(store: Store, manifest: JSON, model: ModelDescription | None, meter: Meter) -> None:
    """Record the model and what loading cost.

    Raises:
        StoreError: the run was begun with another model, device, dtype or batching.
    """
    theirs = read_model(manifest["model"], store.manifest_path)
    if theirs is not None and model is not None and (differ := model_differences(theirs, model)):
        raise StoreError(f"{store.path} was begun with another model or device ({differ}); use --fresh")
    manifest["model"] = None if model is None else model.as_dict()
    versions = package_versions()
    differ = differences(manifest["versions"], versions, sorted(versions))
    if differ and manifest["sessions"]:
        log.warning("this run was begun with other versions (%s); --fresh repeats all of it with these", differ)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest["sessions"].append({"started": started, "seconds": dict(meter.seconds), "versions": versions})
    write_json(store.manifest_path, manifest)
