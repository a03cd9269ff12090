"""What a run is, and whether another may be compared with it: the one answer for boards, gate, exports and pages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cpmi_eval.record.model import ModelDescription
from cpmi_eval.record.results import Manifest, Results
from cpmi_eval.types import JSON

PRM = "prm"  # the labeler that is a checkpoint: what it scores with is known by the checkpoint's name

# Where an absolute path begins: a whole text, or a value within it (mc="prompt=/home/me/prompt.txt").
_ROOT = r"(?:/|~/|[A-Za-z]:[\\/])"
_WHOLE = re.compile(rf"{_ROOT}[^\n]+\Z")
_WITHIN = re.compile(rf"""(?<=[="']){_ROOT}[^\s,"']+""")


@dataclass(frozen=True)
class Signature:
    """A run as others know it. No path of the machine that it was made on is in what it says.

    Args:
        manifest: of the run.
        results: of the run; its threshold is the one that it was last judged by.
        total: how many traces it has.
    """

    manifest: Manifest
    results: Results
    total: int

    @property
    def model(self) -> ModelDescription | None:
        """The model that ran."""
        return self.results.model

    @cached_property
    def scorer(self) -> str:
        """The labeler, or the name of the checkpoint where that is what scores."""
        if self.results.labeler.name == PRM and self.model is not None:
            return str(known_as(self.model)["name"].rpartition("/")[2])
        return self.results.labeler.name

    @cached_property
    def settings(self) -> JSON:
        """The labeler's settings: models and files by their names; without a checkpoint, which is the scorer."""
        found: JSON = renamed(self.results.config.labeler_args, self._names)
        named = self.results.labeler.name == PRM and self.model is not None
        return {name: value for name, value in found.items() if not (named and name == "checkpoint")}

    @property
    def threshold(self) -> str:
        """The protocol that turned scores into decisions."""
        return self.results.threshold.protocol

    @property
    def aggregation(self) -> str | None:
        """How step scores become one of the solution, where the task selects among solutions."""
        return self.results.labeler.aggregation if self.results.selects else None

    @property
    def restricted(self) -> bool:
        """Whether traces were left out to match other runs."""
        return "only" in self.manifest.identity

    @property
    def limit(self) -> float | None:
        """What the run was restricted to: its limit, or as many traces as it was left with to match other runs."""
        limit = self.results.config.limit
        return self.total if limit is None and self.restricted else limit

    @property
    def hardware(self) -> JSON:
        """Device, platform and processor."""
        return {"device": None if self.model is None else self.model.device, **self.manifest.machine}

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what the run is: its configuration, data, files and model, wherever these are kept."""
        model = self.manifest.model
        what = {
            "identity": {**renamed(self.manifest.identity, _names(model)), "threshold": self.threshold},
            "model": None if model is None else known_as(model),
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def model_row(self) -> JSON | None:
        """The model as a leaderboard names it, with its dtype, backend and settings."""
        model = self.model
        if model is None:
            return None
        args = portable(self.results.config.model_args)
        dtype = {} if model.dtype is None else {"dtype": model.dtype}
        return {**known_as(model), **dtype, "backend": model.backend, **({"args": args} if args else {})}

    def comparable(self, *, fitted: bool) -> JSON:
        """What two runs have in common that may be held against each other: files and weights by hash.

        Args:
            fitted: whether the threshold's protocol chooses its cut from the traces, so that the cut may differ.
        """
        config, model = self.results.config, self.model
        files: Mapping[str, Any] = self.manifest.identity.get("files", {})
        named = models_of(model) if model else set()
        hashed = {*files, *(key for key, value in config.labeler_args.items() if value in named)}
        common: JSON = {
            "task": config.task,
            "labeler": config.labeler,
            "labeler_args": {key: value for key, value in config.labeler_args.items() if key not in hashed},
            "files": files,
            "seed": config.seed,
            "threshold": self.threshold,
            "threshold_value": None if fitted else self.results.threshold.value,
        }
        if model is None:
            return common
        ran = {name: getattr(config, name) for name in ("backend", "model_args", "batch_size", "scorer")}
        return {**common, **ran, "dtype": model.dtype, "model": weights_of(model)}

    @cached_property
    def _names(self) -> dict[str, str]:
        return _names(self.manifest.model)


def known_as(model: ModelDescription) -> JSON:
    """What identifies a model: its name (of a folder or a file, the last part) and a hash or a revision."""
    found: JSON = {"name": portable(model.model)}
    if model.sha256 is not None:
        found["name"] = found["name"].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    known = {"sha256": model.sha256, "revision": model.revision}
    found |= {key: value for key, value in known.items() if value is not None}
    if model.others:
        found["others"] = {role: known_as(one) for role, one in model.others.items()}
    return found


def models_of(model: ModelDescription) -> set[Any]:
    """The names, or paths, of a run's models: what weights are compared instead of."""
    return {model.model}.union(*map(models_of, model.others.values()))


def weights_of(model: ModelDescription) -> JSON:
    """Which weights ran: by hash where there is one, else by name and revision; those of others beside it."""
    own = {"sha256": model.sha256} if model.sha256 else {"model": model.model, "revision": model.revision}
    others = {role: weights_of(one) for role, one in model.others.items()}
    return {**own, **({"others": others} if others else {})}


def _names(model: ModelDescription | None) -> dict[str, str]:
    """The local models by the names they were given, each with the name that others know it by."""
    models = [] if model is None else [model, *model.others.values()]
    return {one.model: known_as(one)["name"] for one in models if one.sha256 is not None}


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Settings in which local models and files have the names that others know them by."""
    if isinstance(value, Mapping):
        return {key: renamed(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(one, names) for one in value]
    return names.get(value, portable(value)) if isinstance(value, str) else value


def portable(value: Any) -> Any:
    """A text, or settings, with absolute paths cut to the name of their file or folder."""
    if isinstance(value, str):
        if "/" not in value and "\\" not in value:
            return value
        return _last(value) if _WHOLE.match(value) else _WITHIN.sub(lambda match: _last(match[0]), value)
    if isinstance(value, Mapping):
        return {key: portable(one) for key, one in value.items()}
    return [portable(one) for one in value] if isinstance(value, list | tuple) else value


def _last(path: str) -> str:
    return next((name for name in reversed(re.split(r"[/\\]", path)) if name), path)
