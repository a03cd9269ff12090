"""Names and settings resolved into a frozen plan; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cpmi_eval import registry, settings
from cpmi_eval.config import RunConfig
from cpmi_eval.errors import UsageError
from cpmi_eval.metrics import thresholds
from cpmi_eval.metrics.thresholds import Threshold
from cpmi_eval.protocols import Backend, BackendOptions, BringsModel, Labeler, Task


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
