"""The ``hf`` backend: a causal language model in this process, through transformers.

Importing this module costs nothing; torch and transformers are imported when a model is opened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval import settings
from cpmi_eval.backends import loading, models
from cpmi_eval.description import ModelDescription
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError, UnknownNameError
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.types import JSON, Enough, Failure, Generation, LogProb, Sampling, ScoreRequest

if TYPE_CHECKING:
    from cpmi_eval.engine.encode import Encoder
    from cpmi_eval.engine.scoring import Generator, Limits

LIMITS = ("row_tokens", "batch_tokens", "slots", "cache_tokens", "max_length")
MODEL_ARGS = ("revision", "trust_remote_code", "attn_implementation", "device_map", "quantization", *LIMITS)


class HFBackend:
    """A loaded causal language model, its tokenizer and its readers."""

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "transformers in this process: shared prefixes, sampling; CPU or CUDA"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"loglikelihood", "generate"})

    def __init__(
        self, model: Any, tokenizer: Any, *, prefix_sharing: bool = True, args: Mapping[str, Any] | None = None
    ) -> None:
        """Wrap a model that is already loaded.

        Args:
            model: a ``transformers`` causal language model in evaluation mode.
            tokenizer: its fast tokenizer.
            prefix_sharing: read what sequences begin with once for all of them.
            args: ``row_tokens`` (nodes of a chunk), ``batch_tokens`` (tokens of one forward pass), ``slots``
                (completions decoded at a time), ``cache_tokens`` (tokens that these may hold together) and
                ``max_length`` override what is derived from the model.

        Raises:
            ModelError: prefixes cannot be shared on this model.
        """
        from cpmi_eval.engine.architecture import cache_tokens, devices, max_length, row_tokens
        from cpmi_eval.engine.encode import Encoder
        from cpmi_eval.engine.likelihood import Likelihood, distrusted
        from cpmi_eval.engine.plain import PlainGenerator
        from cpmi_eval.engine.reader import PackedReader
        from cpmi_eval.engine.rollouts import SharedGenerator
        from cpmi_eval.engine.scoring import Limits
        from cpmi_eval.engine.straight import StraightReader

        args = args or {}
        rows = models.positive(args, "row_tokens") or row_tokens(model)
        self.devices = devices(model)
        on_gpu = self.devices[0].type == "cuda"
        self.model = model
        self.encoder: Encoder = Encoder(tokenizer)
        self.limits: Limits = Limits(
            row_tokens=rows,
            batch_tokens=models.positive(args, "batch_tokens") or max(rows, 16384 if on_gpu else 1024),
            max_length=models.positive(args, "max_length") or max_length(model.config),
            slots=models.positive(args, "slots") or (512 if on_gpu else 128),
            cache_tokens=models.positive(args, "cache_tokens") or cache_tokens(model),
        )
        self.trie_difference: float | None = None
        self.branch_difference: float | None = None
        self.generator: Generator = PlainGenerator(model, self.encoder, self.limits.max_length)
        if settings.flag("prefix_sharing", prefix_sharing):
            reader = PackedReader(model, self.limits)
            self.trie_difference = distrusted(reader)
            # Over several devices every layer's branches would lie elsewhere: transformers' own generation does that.
            if len(self.devices) == 1 and not hasattr(model, "hf_device_map"):
                self.generator = SharedGenerator(reader.forward, self.encoder, self.limits)
            self.likelihood = Likelihood(reader)
        else:
            self.likelihood = Likelihood(StraightReader(model, self.limits))
        self._generating = 0.0
        self._options: BackendOptions | None = None
        self._identity: JSON = {}

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings before anything heavy is imported or loaded."""
        for key in options.model_args:
            if key not in MODEL_ARGS:
                raise UnknownNameError("model argument", key, MODEL_ARGS)
        for key in LIMITS:
            models.positive(options.model_args, key)
        loading.hub_args(options.model_args)
        settings.flag("prefix_sharing", options.prefix_sharing)
        models.check_placement(options.model_args, options.device)
        models.resolve(options.model)

    @classmethod
    def open(cls, options: BackendOptions) -> HFBackend:
        """Load the model that ``options`` names.

        Raises:
            ModelError: no such model, device or dtype, or one whose prefixes cannot be shared.
        """
        cls.check(options)
        source = models.resolve(options.model)
        device = models.pick_device(options.device)
        dtype = models.pick_dtype(options.dtype, device)
        sha256 = source.sha256()
        model, tokenizer = models.load_model(source, dtype, device, options.model_args, sha256)
        backend = cls(model, tokenizer, prefix_sharing=options.prefix_sharing, args=options.model_args)
        backend._options = options
        backend._identity = {
            "model": source.name,
            "sha256": sha256,
            "revision": getattr(model.config, "_commit_hash", None),
        }
        return backend

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that make a good batch for this model and device."""
        return self.limits.batch_tokens

    def describe(self) -> ModelDescription:
        """Return what a manifest should say about the loaded model; one given by hand is called by its class."""
        return ModelDescription(
            self.name,
            self._identity.get("model", type(self.model).__name__),
            models.device_name(self.devices),
            sha256=self._identity.get("sha256"),
            revision=self._identity.get("revision"),
            dtype=str(self.model.dtype).removeprefix("torch."),
            architecture=type(self.model).__name__,
            parameters=self.model.num_parameters(),
            attention=self.model.config._attn_implementation,
            scorer=self.likelihood.reader.name,
            generator=self.generator.name,
            row_tokens=self.limits.row_tokens,
            batch_tokens=self.limits.batch_tokens,
            slots=self.limits.slots,
            cache_tokens=self.limits.cache_tokens,
            max_length=self.limits.max_length,
            own={
                "trie_difference_per_token": self.trie_difference,
                "branch_difference_per_token": self.branch_difference,
            },
        )

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Run once what ``capabilities`` will run, so that nobody pays for a first call; measure the peak from here."""
        if "loglikelihood" in capabilities:
            self.loglikelihood([ScoreRequest("1 + 1 =", " 2")])
        if "generate" in capabilities:
            self._check_generator()
            self.generate(["1 + 1 ="], Sampling(max_new_tokens=2), [[0, 1]])
        memory.reset_peak(self.devices)

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return summed log-probabilities, in the order of the requests; see :class:`ScoreRequest`."""
        return self.likelihood.score(requests, self.encoder.encode) if requests else []

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        enough: Enough | None = None,
    ) -> list[Generation | Failure]:
        """Sample completions of each prompt, one per seed; see :class:`cpmi_eval.protocols.Backend`."""
        if not prompts:
            return []
        self._check_generator()
        begun = time.perf_counter()
        made = self.generator.generate(prompts, sampling, seeds, enough)
        self._generating += time.perf_counter() - begun
        return made

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer carries a chat template."""
        return bool(self.encoder.tokenizer.chat_template)

    def _check_generator(self) -> None:
        """Measure once whether sharing prefixes serves this model; see :func:`rollouts.distrust`."""
        from cpmi_eval.engine.rollouts import SharedGenerator, distrust

        if isinstance(self.generator, SharedGenerator) and self.branch_difference is None:
            self.branch_difference = distrust(self.generator)

    def chat_prompt(self, user: str) -> str:
        """Render one user turn through the model's chat template, up to where the assistant begins.

        Raises:
            ModelError: the model has no chat template.
        """
        tokenizer = self.encoder.tokenizer
        if not self.has_chat_template:
            raise ModelError("the model has no chat template; run without chat=true")
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
        )
        return text

    def another(self, model: str) -> HFBackend:
        """Load a second model beside this one, with the same dtype, device and sharing."""
        if self._options is None:
            raise ModelError("this backend wraps a model given to it; a second one cannot be loaded like it")
        return type(self).open(replace(self._options, model=model))

    def busy_seconds(self) -> float:
        """Return for how long the device has had work: batches that are scored, completions that are decoded."""
        return self.likelihood.reader.busy + self._generating

    def peak_memory_bytes(self) -> int:
        """Return the peak since :meth:`prepare`: of the device where it is a GPU, else of this process."""
        return memory.peak_bytes(self.devices)
