"""What the backends ``hf`` and ``prm`` share: settings checked, a checkpoint read, its budgets, identity, peak memory.

Importing this module costs nothing; torch and transformers are imported when a model is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval import settings
from cpmi_eval.backends import loading, models
from cpmi_eval.description import ModelDescription
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError, UnknownNameError
from cpmi_eval.protocols import BackendOptions

if TYPE_CHECKING:
    from cpmi_eval.engine.scoring import Limits

HUB_ARGS = ("revision", "trust_remote_code", "attn_implementation", "device_map", "quantization")


class LocalModel:
    """A model in this process. ``budgets`` and ``own_args`` name the model arguments beside :data:`HUB_ARGS`."""

    name: ClassVar[str]
    budgets: ClassVar[tuple[str, ...]] = ("row_tokens", "batch_tokens", "max_length")
    own_args: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Any, args: Mapping[str, Any]) -> None:
        """Wrap a model that is already loaded; ``args`` override what its budgets are derived from."""
        from cpmi_eval.engine.architecture import devices, max_length, row_tokens
        from cpmi_eval.engine.scoring import Limits

        rows = models.positive(args, "row_tokens") or row_tokens(model)
        self.model = model
        self.devices = devices(model)
        self.on_gpu = self.devices[0].type == "cuda"
        self.limits: Limits = Limits(
            row_tokens=rows,
            batch_tokens=models.positive(args, "batch_tokens") or max(rows, 16384 if self.on_gpu else 1024),
            max_length=models.positive(args, "max_length") or max_length(model.config),
        )
        self.vocabulary: int = model.get_input_embeddings().weight.shape[0]
        self.trie_difference: float | None = None
        self.source: models.ModelSource | None = None
        self.sha256: str | None = None

    @classmethod
    def checked(cls, options: BackendOptions, model: str) -> models.ModelSource:
        """Return where ``model`` lies; refuse wrong settings before anything heavy is imported or loaded."""
        known = (*HUB_ARGS, *cls.own_args, *cls.budgets)
        for key in options.model_args:
            if key not in known:
                raise UnknownNameError("model argument", key, known)
        for key in cls.budgets:
            models.positive(options.model_args, key)
        loading.hub_args(options.model_args)
        settings.flag("prefix_sharing", options.prefix_sharing)
        models.check_placement(options.model_args, options.device)
        source = models.resolve(model)
        if source.path is not None and options.model_args.get("revision") is not None:
            raise ModelError(f"revision is for models of the hub; {source.name} is read from {source.path}")
        return source

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that make a good batch for this model and device."""
        return self.limits.batch_tokens

    def described(self, **more: Any) -> ModelDescription:
        """Return what a manifest should say about the loaded model; one given by hand is called by its class."""
        return ModelDescription(
            self.name,
            self.source.name if self.source else type(self.model).__name__,
            models.device_name(self.devices),
            **{
                "sha256": self.sha256,
                **loading.identity(self.model),
                "parameters": self.model.num_parameters(),
                "row_tokens": self.limits.row_tokens,
                "batch_tokens": self.limits.batch_tokens,
                "max_length": self.limits.max_length,
                **more,
            },
        )

    def peak_memory_bytes(self) -> int:
        """Return the peak since ``prepare``: of the device where it is a GPU, else of this process."""
        return memory.peak_bytes(self.devices)
