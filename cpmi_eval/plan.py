"""Names and settings: what a run is, as one frozen config, and that resolved into a plan. Nothing is loaded.

Everything that can change a result is in the config, and in its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpmi_eval import registry, settings
from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.metrics import thresholds
from cpmi_eval.protocols import Backend, BackendOptions, BringsModel, Labeler, Task
from cpmi_eval.record import door

if TYPE_CHECKING:
    from cpmi_eval.metrics.thresholds import Threshold

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


@dataclass(frozen=True)
class Plan:
    """Everything a run is made of before any data or weight is loaded."""

    config: RunConfig
    task: Task
    labeler: Labeler
    backend_class: type[Backend] | None
    options: BackendOptions
    protocol: thresholds.Protocol
    path: Path

    @property
    def rule(self) -> Threshold:
        """The rule that decides while traces are being scored."""
        return self.protocol.before(self.labeler.native_threshold)


def prepare(config: RunConfig) -> Plan:
    """Resolve names and check that labeler, backend and settings fit together. Loads nothing.

    Raises:
        UsageError: an unknown name or setting, or a backend that lacks what the labeler needs.
    """
    task = registry.load("tasks", config.task)()
    labeler = make_labeler(config)
    name, options = backend_of(labeler, config)
    backend_class = registry.load("backends", name)
    backend_class.check(options)
    missing = labeler.capabilities - backend_class.capabilities
    if missing:
        able = [name for name in registry.entries("backends") if labeler.capabilities <= _capabilities(name)]
        raise UsageError(
            f"the labeler {config.labeler!r} needs {', '.join(sorted(missing))}, which the backend {name!r} "
            f"does not offer; backends that do: {', '.join(able) or 'none'}"
        )
    for name in task.metrics:
        registry.load("metrics", name)
    protocol = thresholds.parse(config.threshold)
    model = bool(labeler.capabilities)
    path = Path(config.output_path) if config.output_path else config.default_output(options.model if model else None)
    return Plan(config, task, labeler, backend_class if model else None, options, protocol, path)


def make_labeler(config: RunConfig) -> Labeler:
    """Construct the labeler of a run with its settings."""
    kind, factory = f"{config.labeler} labeler", registry.load("labelers", config.labeler)
    labeler: Labeler = settings.construct(kind, factory, config.labeler_args, seed=config.seed)
    return labeler


def backend_of(labeler: Labeler, config: RunConfig) -> tuple[str, BackendOptions]:
    """The name of the backend that a labeler runs on, and what that is to load."""
    options = BackendOptions(config.model, config.model_args, config.dtype, config.device, config.prefix_sharing)
    return labeler.brings(options) if isinstance(labeler, BringsModel) else (config.backend, options)


def _capabilities(backend: str) -> frozenset[str]:
    return frozenset(registry.load("backends", backend).capabilities)
