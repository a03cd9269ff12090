"""What a run says of the model that it used.

In a manifest and in results.json it is one flat JSON object. ``backend``, ``model`` and ``device`` are always there;
whatever else a backend cannot honestly say (a server's dtype, for one) is left out. What no reader knows is the
backend's own and is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cpmi_eval.errors import UsageError
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
        """The one JSON object, without what is not known; :func:`shaped` is the way back."""
        known = {name: value for name in _NAMED if (value := getattr(self, name)) is not None}
        others = {role: one.as_dict() for role, one in self.others.items()}
        return {**self.own, **known, **({"others": others} if others else {})}

    def fixed(self) -> JSON:
        """What must not change between sessions, of this model alone."""
        return {name: getattr(self, name) for name in SAME_MODEL}


_NAMED = tuple(one.name for one in fields(ModelDescription) if one.name not in ("own", "others"))


def shaped(content: object) -> object:
    """Bring the flat object of a file into the form of a :class:`ModelDescription`; anything else stays as it is."""
    if not isinstance(content, dict):
        return content
    known = {name: value for name, value in content.items() if name in _NAMED}
    others = content.get("others") or {}
    if known.get("dtype") == _UNKNOWN:
        known["dtype"] = None
    return {
        **known,
        "own": {name: value for name, value in content.items() if name not in (*_NAMED, "others")},
        "others": {role: shaped(one) for role, one in others.items()} if isinstance(others, dict) else others,
    }


def checked(about: object, of: str) -> ModelDescription:
    """Return what a plug-in says of its model.

    Raises:
        UsageError: it is no :class:`ModelDescription`; ``of`` names the plug-in.
    """
    if not isinstance(about, ModelDescription):
        raise UsageError(
            f"{of} describes its model by a {type(about).__name__}; it must return a "
            "cpmi_eval.record.model.ModelDescription"
        )
    return about
