"""The ``hf`` backend: a causal language model in this process, through transformers.

Importing this module costs nothing; torch and transformers are imported when a model is opened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval import settings
from cpmi_eval.backends import models
from cpmi_eval.backends.local import HUB_ARGS, LocalModel
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import Enough, Failure, Generation, LogProb, Sampling, ScoreRequest

if TYPE_CHECKING:
    from cpmi_eval.engine.encode import Encoder
    from cpmi_eval.engine.plain import PlainGenerator
    from cpmi_eval.engine.rollouts import SharedGenerator

BUDGETS = (*LocalModel.budgets, "slots", "cache_tokens")
MODEL_ARGS = (*HUB_ARGS, *BUDGETS)


class HFBackend(LocalModel):
    """A loaded causal language model, its tokenizer and its readers."""

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "transformers in this process: shared prefixes, sampling; CPU or CUDA"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"loglikelihood", "generate"})
    budgets = BUDGETS

    def __init__(
        self, model: Any, tokenizer: Any, *, prefix_sharing: bool = True, args: Mapping[str, Any] | None = None
    ) -> None:
        """Wrap a model that is already loaded.

        Args:
            model: a ``transformers`` causal language model in evaluation mode.
            tokenizer: its fast tokenizer.
            prefix_sharing: read what sequences begin with once for all of them.
            args: any of :data:`BUDGETS`, which override what is derived from the model; see docs/backends.md.

        Raises:
            ModelError: prefixes cannot be shared on this model.
        """
        from cpmi_eval.engine.architecture import cache_tokens
        from cpmi_eval.engine.encode import Encoder
        from cpmi_eval.engine.likelihood import Likelihood, distrusted
        from cpmi_eval.engine.plain import PlainGenerator
        from cpmi_eval.engine.reader import PackedReader
        from cpmi_eval.engine.rollouts import SharedGenerator
        from cpmi_eval.engine.straight import StraightReader

        args = args or {}
        super().__init__(model, args)
        self.limits = replace(
            self.limits,
            slots=models.positive(args, "slots") or (512 if self.on_gpu else 128),
            cache_tokens=models.positive(args, "cache_tokens") or cache_tokens(model),
        )
        self.encoder: Encoder = Encoder(tokenizer)
        self.branch_difference: float | None = None
        self.generator: PlainGenerator | SharedGenerator = PlainGenerator(model, self.encoder, self.limits.max_length)
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

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings before anything heavy is imported or loaded."""
        cls.checked(options, options.model)

    @classmethod
    def open(cls, options: BackendOptions) -> HFBackend:
        """Load the model that ``options`` names; ModelError where it, its device or dtype cannot be had."""
        source = cls.checked(options, options.model)
        sha256, sharing = source.sha256(), options.prefix_sharing
        model, tokenizer = models.read_model(source, options, sha256)
        backend = cls(models.placed(model, options), tokenizer, prefix_sharing=sharing, args=options.model_args)
        backend._options, backend.source, backend.sha256 = options, source, sha256
        return backend

    def describe(self) -> ModelDescription:
        """Return what a manifest should say about the loaded model."""
        return self.described(
            scorer=self.likelihood.reader.name,
            generator=self.generator.name,
            slots=self.limits.slots,
            cache_tokens=self.limits.cache_tokens,
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
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None = None
    ) -> list[Generation | Failure]:
        """Sample completions of each prompt, one per seed; see :class:`cpmi_eval.protocols.LanguageModel`."""
        if not prompts:
            return []
        self._check_generator()
        begun = time.perf_counter()
        made = self.generator.generate(prompts, sampling, seeds, enough)
        self._generating += time.perf_counter() - begun
        return made

    def _check_generator(self) -> None:
        """Measure once whether sharing prefixes serves this model; see :func:`rollouts.distrust`."""
        from cpmi_eval.engine.rollouts import SharedGenerator, distrust

        if isinstance(self.generator, SharedGenerator) and self.branch_difference is None:
            self.branch_difference = distrust(self.generator)

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer carries a chat template."""
        return bool(self.encoder.tokenizer.chat_template)

    def chat_prompt(self, user: str) -> str:
        """Render one user turn through the model's chat template, up to where the assistant begins.

        Raises:
            ModelError: the model has no chat template.
        """
        if not self.has_chat_template:
            raise ModelError("the model has no chat template; run without chat=true")
        turns = [{"role": "user", "content": user}]
        text: str = self.encoder.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    def another(self, model: str) -> HFBackend:
        """Load a second model beside this one, with the same dtype, device and sharing."""
        if self._options is None:
            raise ModelError("this backend wraps a model given to it; a second one cannot be loaded like it")
        return type(self).open(replace(self._options, model=model))

    def busy_seconds(self) -> float:
        """Return for how long the device has had work: batches that are scored, completions that are decoded."""
        return self.likelihood.reader.busy + self._generating
