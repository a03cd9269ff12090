"""From a checkpoint to its spec: told, carried by the checkpoint, known by name, or known by architecture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.prm import specs
from cpmi_eval.prm.specs import Spec

log = logging.getLogger(__name__)

TOKEN_CLASSIFICATION = "ForTokenClassification"


def resolve(checkpoint: str, spec: str | None, revision: str | None = None) -> Spec:
    """The spec of a checkpoint: a folder, a hub id, or the last part of a known hub id in any case.

    In this order: ``spec`` if given (a built-in one's name, or a YAML or JSON file); the ``prm_spec.json`` in its
    folder or hub repository; its name, where a built-in spec lists it; the ``architectures`` of its config.json.

    Raises:
        UsageError: nothing says what family the checkpoint is of, or ``spec`` is not valid.
        ModelError: the hub has to be asked and cannot be reached.
    """
    if spec is not None:
        return specs.load(spec)
    name = hub_id(checkpoint)
    folder = Path(name).expanduser()
    local = folder.exists()
    called = (folder.resolve().name if local else name).lower()
    ids = {(_short(known) if local else known).lower(): one for one in specs.builtin() for known in one.checkpoints}
    known = ids.get(called)
    if known is not None and not local:  # what the hub holds under these names is known: no need to ask
        return known
    carried = file_of(name, specs.FILE, revision, required=False)
    if carried is not None:
        return specs.read(carried)
    found = known or _by_architecture(name, revision)
    if found is None:
        raise UsageError(
            f"nothing says how {checkpoint} is to be read: it has no {specs.FILE}, and neither its name nor the "
            f"architectures of its config.json are known. Name its family with --prm_spec: "
            f"{', '.join(specs.names())}, or a .yaml or .json file"
        )
    return found


def hub_id(checkpoint: str) -> str:
    """The hub id that a short name stands for; anything else as it is."""
    if Path(checkpoint).expanduser().exists():
        return checkpoint
    known = {called.lower(): one for one in checkpoints() for called in (one, _short(one))}
    return known.get(checkpoint.lower(), checkpoint)


def _short(checkpoint: str) -> str:
    return checkpoint.rpartition("/")[2]


def _by_architecture(name: str, revision: str | None) -> Spec | None:
    from cpmi_eval.record import door  # not needed to score with a head and a spec made by hand

    path = file_of(name, "config.json", revision)
    if path is None:  # beside a single file there is none: nothing but its name can tell
        return None
    config: Mapping[str, Any] = door.read_json(path, dict, door.Source(str(path), ModelError))
    named = config.get("architectures")
    architectures = [one for one in named if isinstance(one, str)] if isinstance(named, list) else []
    for one in specs.builtin():
        if set(architectures) & set(one.architectures):
            return one
    classifies = any(name.endswith(TOKEN_CLASSIFICATION) for name in architectures)
    return specs.load("trl") if classifies and _labels(config) == 2 else None


def _labels(config: Mapping[str, Any]) -> int:
    """Transformers leaves out the default of two."""
    named, number = config.get("id2label"), config.get("num_labels", 2)
    if isinstance(named, dict) and named:
        return len(named)
    return number if isinstance(number, int) else 0


def file_of(name: str, file: str, revision: str | None, *, required: bool = True) -> Path | None:
    """A file of a folder or hub repository, downloaded or from the cache; ``None`` if there is none.

    Raises:
        ModelError: the hub cannot be reached or has no such repository, and the file is ``required``.
    """
    folder = Path(name).expanduser()
    if folder.exists():
        return folder / file if (folder / file).is_file() else None
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"no checkpoint {name!r}: not a folder here, not a hub id (org/name), and not the short name of a known "
            f"one ({', '.join(map(_short, checkpoints()))})"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except (OSError, HfHubHTTPError, ValueError) as error:
        absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
        if absent:
            return None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not required:
            log.warning(
                "the hub cannot say whether %s has a %s (%s); going by name and architecture", name, file, reason
            )
            return None
        raise ModelError(
            f"cannot read {file} of {name} from the hub: {reason}\n"
            "Without a connection: give a local folder, or use a checkpoint already in the hub's cache (HF_HOME)"
        ) from error


def checkpoints() -> tuple[str, ...]:
    """All hub ids that the built-in specs list."""
    return tuple(known for one in specs.builtin() for known in one.checkpoints)
