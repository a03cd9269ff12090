"""What a run says of the model that it used, as a type: one writer, one reader.

In a manifest and in results.json it is one flat JSON object. ``backend``, ``model`` and ``device`` are always there;
whatever else a backend cannot honestly say (a server's dtype, for one) is left out. What no reader knows is the
backend's own and is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.types import JSON

SAME_MODEL = (  # what must not change between the sessions of a run
    *("model", "sha256", "revision", "dtype", "device", "attention"),
    *("spec", "scorer", "generator", "row_tokens", "batch_tokens", "slots", "cache_tokens"),
)
_UNKNOWN = "None"  # earlier versions wrote this for the dtype of a model that lm-eval asks for elsewhere


@dataclass(frozen=True)
class ModelDescription:
    """A loaded model, as :meth:`cpmi_eval.protocols.Backend.describe` returns it.

    Args:
        backend: the registered name of the backend.
        model: what the model is called: a name, a path, or what a server answers as.
        device: where it runs: ``cpu``, ``cuda (NVIDIA ...)``, ``server``, ...
        sha256: of its files, where they are read here.
        revision: the commit on the hub that they come from.
        dtype: of its weights, such as ``bfloat16``.
        architecture: the class of the model.
        parameters: how many it has.
        attention: the implementation.
        scorer: how it reads.
        generator: how it writes.
        row_tokens: nodes of a chunk under a dense mask.
        batch_tokens: tokens of trace text in a batch.
        slots: completions drawn at a time.
        cache_tokens: room for their keys and values.
        max_length: tokens of context.
        spec: how a process reward model is read.
        own: what is the backend's own, by names other than these; JSON values.
        others: further models of the run, by role.
    """

    backend: str
    model: str
    device: str
    sha256: str | None = None
    revision: str | None = None
    dtype: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    attention: str | None = None
    scorer: str | None = None
    generator: str | None = None
    row_tokens: int | None = None
    batch_tokens: int | None = None
    slots: int | None = None
    cache_tokens: int | None = None
    max_length: int | None = None
    spec: Mapping[str, Any] | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, ModelDescription] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Which weights they are: the hash, else the revision, else nothing."""
        return self.sha256 or self.revision or ""

    @property
    def on_gpu(self) -> bool:
        """Whether its device is a GPU of this process, so that device seconds are a GPU's."""
        return self.device.startswith("cuda")

    def as_dict(self) -> JSON:
        """Return it as one JSON object, without what is not known; :func:`read` is the way back."""
        known = {name: value for name in _NAMED if (value := getattr(self, name)) is not None}
        others = {role: one.as_dict() for role, one in self.others.items()}
        return {**self.own, **known, **({"others": others} if others else {})}

    def fixed(self) -> JSON:
        """Return what must not change between sessions, of this model alone."""
        return {name: getattr(self, name) for name in SAME_MODEL}


def checked(about: object, of: str) -> ModelDescription:
    """Return what a plug-in says of its model.

    Raises:
        UsageError: it is no :class:`ModelDescription`; ``of`` names the plug-in.
    """
    if not isinstance(about, ModelDescription):
        raise UsageError(
            f"{of} describes its model by a {type(about).__name__}; it must return a "
            "cpmi_eval.description.ModelDescription"
        )
    return about


_KINDS: Mapping[str, tuple[type, str]] = {
    "str": (str, "a text"),
    "int": (int, "a whole number"),
    "Mapping[str, Any]": (dict, "an object"),
}
_NAMED = {one.name: str(one.type) for one in fields(ModelDescription) if one.name not in ("own", "others")}


def read(content: object, path: Path, place: str = "model") -> ModelDescription | None:
    """Return the description that a run's files hold; ``None`` where no model ran.

    Args:
        content: the value of ``place`` in a manifest or in results.json.
        path: the file, for messages.
        place: the field, for messages.

    Raises:
        StoreError: a field is missing or of another kind; names file and field.
    """
    return None if content is None else _read(content, path, place)


def _read(content: object, path: Path, place: str) -> ModelDescription:
    if not isinstance(content, dict):
        raise _damaged(path, place, "an object")
    known: dict[str, Any] = {}
    for name, declared in _NAMED.items():
        value = content.get(name)
        kind, wanted = _KINDS[declared.removesuffix(" | None")]
        required = not declared.endswith("None")
        if required if value is None else not isinstance(value, kind) or isinstance(value, bool):
            raise _damaged(path, f"{place}.{name}", wanted)
        known[name] = value
    if known["dtype"] == _UNKNOWN:
        known["dtype"] = None
    others = content.get("others") or {}
    if not isinstance(others, dict):
        raise _damaged(path, f"{place}.others", "an object")
    return ModelDescription(
        **known,
        own={name: value for name, value in content.items() if name not in _NAMED and name != "others"},
        others={role: _read(one, path, f"{place}.others.{role}") for role, one in others.items()},
    )


def _damaged(path: Path, place: str, wanted: str) -> StoreError:
    return StoreError(f"{path}: {place} must be {wanted}; restore the file, or repeat the run with --fresh")
