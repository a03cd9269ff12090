"""manifest.json: what a run is, and the check that a directory is not used for two different ones."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.backends.models import sha256_of
from cpmi_eval.cost import Meter
from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.plan import RunConfig
from cpmi_eval.record.journal import differences
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.record.results import FORMAT, Config, Manifest, Session
from cpmi_eval.record.store import Store
from cpmi_eval.types import JSON, TaskData

log = logging.getLogger(__name__)

PACKAGES = ("cpmi-eval", "torch", "transformers", "tokenizers", "datasets", "numpy", "scikit-learn", "mpmath")


def open_manifest(store: Store, config: RunConfig, data: TaskData) -> Manifest:
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
    if manifest is not None and (manifest.sessions or store.samples_path.exists()):  # else it never got to score
        theirs = manifest.identity
        differ = differences(theirs, identity, sorted({*identity, *theirs}))
        if differ:
            raise StoreError(f"{store.path} holds a different run ({differ}). Use another --output_path, or --fresh")
        return manifest
    return store.keep(
        Manifest(
            schema_version=FORMAT,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=Config(**{**config.as_dict(), "subset": tuple(config.subset)}),
            identity=identity,
            versions=package_versions(),
            machine={"platform": platform.platform(), "processor": platform.machine()},
            data=data.provenance,
            model=None,
            sessions=(),
        )
    )


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


def start_session(store: Store, manifest: Manifest, model: ModelDescription | None, meter: Meter) -> Manifest:
    """Record the model and what loading cost; return the manifest that is now on disk.

    Raises:
        StoreError: the run was begun with another model, device, dtype or batching.
    """
    theirs = manifest.model
    if theirs is not None and model is not None and (differ := model_differences(theirs, model)):
        raise StoreError(f"{store.path} was begun with another model or device ({differ}); use --fresh")
    versions = package_versions()
    differ = differences(manifest.versions, versions, sorted(versions))
    if differ and manifest.sessions:
        log.warning("this run was begun with other versions (%s); --fresh repeats all of it with these", differ)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    session = Session(started=started, seconds=dict(meter.seconds), versions=versions)
    return store.keep(manifest.replaced(model=model, sessions=(*manifest.sessions, session)))


def with_workers(store: Store, manifest: Manifest, workers: JSON | None) -> Manifest:
    """Keep what became of the last session's workers, where that has changed."""
    if workers is None or not manifest.sessions or manifest.sessions[-1].workers == workers:
        return manifest
    *earlier, last = manifest.sessions
    return store.keep(manifest.replaced(sessions=(*earlier, last.replaced(workers=workers))))
