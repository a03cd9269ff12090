"""One frozen description of a run. Everything that can change a result is in it, and in its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.record import door

NOT_IN_FINGERPRINT = {"data_dir", "output_path"}  # where, not what: data is identified by its content
PATIENCE = {"concurrency", "timeout", "retries", "give_up", "key_env"}  # model_args of servers: how they are asked


@dataclass(frozen=True)
class RunConfig:
    """What to run. ``limit``: an int is a number of traces per subset, a float below 1 a share of each."""

    labeler: str
    task: str
    labeler_args: Mapping[str, Any] = field(default_factory=dict)
    task_args: Mapping[str, Any] = field(default_factory=dict)
    subset: Sequence[str] = ()
    model: str = DEFAULT_MODEL
    model_args: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "hf"
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | str = "auto"
    prefix_sharing: bool = True
    threshold: str = "native"
    limit: int | float | None = None
    seed: int = 0
    log_samples: bool = False
    data_dir: str | os.PathLike[str] | None = None
    output_path: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Bring values into their form; refuse those that no task or labeler could make sense of."""
        for name in ("labeler_args", "task_args", "model_args"):
            if not isinstance(getattr(self, name), Mapping):
                raise UsageError(f"{name} must be a mapping of settings, not {getattr(self, name)!r}")
            if wrong := [key for key in getattr(self, name) if not isinstance(key, str)]:
                raise UsageError(f"the settings of {name} have names, not {wrong[0]!r:.60}")
        for name in ("labeler", "task", "model", "backend", "dtype", "device", "threshold"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} must be a text, not {getattr(self, name)!r:.60}")
        for name in ("data_dir", "output_path"):
            if getattr(self, name) is not None:
                if not isinstance(getattr(self, name), str | os.PathLike):
                    raise UsageError(f"{name} must be a path, not {getattr(self, name)!r:.60}")
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        names = (self.subset,) if isinstance(self.subset, str) else self.subset
        if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
            raise UsageError(f"subset must be a list of names, not {self.subset!r}")
        object.__setattr__(self, "subset", tuple(names))
        if self.batch_size != "auto":
            settings.integer("batch_size", self.batch_size, 1)
        settings.integer("seed", self.seed, 0)
        settings.flag("prefix_sharing", self.prefix_sharing)
        settings.flag("log_samples", self.log_samples)
        if isinstance(self.limit, float):
            if not 0 < self.limit < 1:
                raise UsageError(f"limit must be a whole number of at least 1 or a share below 1, not {self.limit}")
        elif self.limit is not None:
            settings.integer("limit", self.limit, 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON values."""
        return settings.recorded({**asdict(self), "subset": list(self.subset)})

    def identity(self) -> dict[str, Any]:
        """Return the part of the config that can change a result."""
        whole = {key: value for key, value in self.as_dict().items() if key not in NOT_IN_FINGERPRINT}
        return {**whole, "model_args": {key: value for key, value in self.model_args.items() if key not in PATIENCE}}

    def default_output(self, model: str | None) -> Path:
        """Return a run directory of this config's own, named after the model that it runs, if any."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True, default=str).encode()).hexdigest()
        name = [Path(model).name.removesuffix(".gguf").lower()] if model else []
        parts = [self.task, self.labeler, *name, digest[:8]]
        return Path("runs") / "-".join(parts)


def parse_limit(text: str) -> int | float:
    """Parse ``--limit``: ``50`` or ``0.1``."""
    value = settings.scalar(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"limit must be a whole number or a share below 1, not {text!r}")
    return value


def read_config_file(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read settings from YAML or JSON: a mapping with the names of the flags, or a run's ``manifest.json``.

    Args:
        path: the file.
        known: the settings there are. Of a manifest only these are taken: it may be of another command.

    Raises:
        UsageError: no such file, not a mapping.
        UnknownNameError: a key that is no setting; close names are suggested.
    """
    content: dict[str, Any] = door.read_yaml(path, dict, door.Source(f"config file {path}", UsageError))
    if isinstance(content.get("config"), dict):
        recorded = settings.unrecorded(content["config"])
        content = {key: value for key, value in recorded.items() if key in known and key != "output_path"}
    values = {str(key).replace("-", "_"): value for key, value in content.items()}
    if "scorer" in values and "prefix_sharing" in known:  # its name in earlier versions
        values.setdefault("prefix_sharing", values.pop("scorer"))
    for key in values:
        if key not in known:
            raise UnknownNameError(f"setting in {path}", key, known)
    return values
