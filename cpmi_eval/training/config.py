"""What a training is: its settings, checked before anything heavy is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.backends.models import DEFAULT_MODEL, resolve
from cpmi_eval.errors import UsageError
from cpmi_eval.export.labels import FORMATS
from cpmi_eval.prm import specs
from cpmi_eval.types import JSON

LORA = {"r": 16, "alpha": 32, "dropout": 0.0}
GOOD_IS_ONE = {("softmax", (1,)), ("difference", (1, 0))}
WHERE = {"labels", "to", "save_steps"}  # cannot change the weights; the labels count by their content


@dataclass(frozen=True)
class TrainConfig:
    """A training. ``labels``: a file of the format ``form``; ``to``: the folder that the PRM is written to.

    ``threshold``: labels of the format ``scores`` become hard at it (good from there on); ``None`` keeps them soft.
    ``batch_size``: examples per forward pass, ``gradient_accumulation`` of which make an update. ``max_length``: tokens
    of an example; longer ones are left out and listed. ``eval_share``: share of the problems that is not trained on.
    ``lora``: ``r``, ``alpha`` and ``dropout`` of low-rank adapters; empty trains all weights. ``save_steps``: updates
    between two checkpoints.
    """

    labels: str
    form: str
    to: str
    model: str = DEFAULT_MODEL
    prm_spec: str = "trl"
    threshold: float | None = None
    epochs: float = 1.0
    learning_rate: float | None = None
    batch_size: int = 8
    gradient_accumulation: int = 1
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_length: int | None = None
    eval_share: float = 0.1
    lora: Mapping[str, Any] = field(default_factory=dict)
    save_steps: int = 100
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training could make sense of.

        Raises:
            UsageError: names the setting.
        """
        settings.choice("format", self.form, tuple(FORMATS))
        if self.threshold is not None:
            settings.number("threshold", self.threshold)
            if FORMATS[self.form].hard:
                raise UsageError(f"the format {self.form} has hard labels already; leave out --threshold")
        for name in ("batch_size", "gradient_accumulation", "save_steps"):
            settings.integer(name, getattr(self, name), 1)
        settings.integer("seed", self.seed, 0)
        settings.number("epochs", self.epochs, 1e-6)
        settings.number("warmup", self.warmup, 0.0, 0.99)
        settings.number("weight_decay", self.weight_decay, 0.0)
        settings.number("eval_share", self.eval_share, 0.0, 0.9)
        if self.max_length is not None:
            settings.integer("max_length", self.max_length, 2)
        if self.learning_rate is not None:
            settings.number("learning_rate", self.learning_rate, 1e-12)
        for name in self.lora:
            settings.choice("LoRA setting", name, tuple(LORA))
        if self.lora:
            settings.integer("r", self.adapters["r"], 1)
            settings.number("alpha", self.adapters["alpha"], 1e-6)
            settings.number("dropout", self.adapters["dropout"], 0.0, 0.9)

    @property
    def adapters(self) -> Mapping[str, Any]:
        """The settings of the adapters, with the defaults of those that are not given."""
        return {**LORA, **self.lora}

    @property
    def rate(self) -> float:
        """The peak learning rate: what was given, else 5e-5 for all weights and 5e-4 for adapters."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-4 if self.lora else 5e-5

    @property
    def spec(self) -> specs.Spec:
        """How inputs are built and read.

        Raises:
            UsageError: a spec whose scores are not those of a token classifier with two classes.
        """
        spec = specs.load(self.prm_spec)
        head, transform = spec.read.head, spec.read.transform
        weights = [(layer.weight, layer.bias) for layer in head.layers]
        good_is_one = (transform.kind, transform.classes) in GOOD_IS_ONE
        if (
            head.kind != "classes"
            or head.outputs != 2
            or weights != [("score.weight", "score.bias")]
            or not good_is_one
        ):
            raise UsageError(
                f"--prm_spec {self.prm_spec} is not read from a two-class head named score, with class 1 for good, "
                "which is what is trained here; use trl, or a file of that layout"
            )
        return spec

    def identity(self) -> JSON:
        """Return what can change the trained weights: the settings, and the content of the labels."""
        try:
            content = Path(self.labels).read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read labels from {self.labels}: {error.strerror or error}") from error
        own = {key: value for key, value in asdict(self).items() if key not in WHERE}
        digests = {"labels_sha256": hashlib.sha256(content).hexdigest(), "model_sha256": resolve(self.model).sha256()}
        return {**own, "lora": dict(self.lora), **digests, "spec": specs.as_dict(self.spec)}
