"""The ``lm-eval`` backend: any model class of lm-eval 0.4.13 or later, asked for log-probabilities and completions.

``--model`` names the class (``hf``, ``vllm``, ``local-completions``, ...), ``--model_args`` go to its constructor.
Importing this module costs nothing; lm-eval and what its classes need are imported when a model is opened.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval.backends import models
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import Enough, Failure, Generation, LogProb, Sampling, ScoreRequest

if TYPE_CHECKING:
    from cpmi_eval.backends.lm_eval_models import Loaded

CPU_BATCH, BATCH = 1024, 16384  # tokens of trace text that are handed over at a time


class LMEvalBackend:
    """A model of lm-eval behind this program's requests."""

    name: ClassVar[str] = "lm-eval"
    summary: ClassVar[str] = "any model class of lm-eval (hf, vllm, sglang, local-completions, ...), named by --model"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"loglikelihood", "generate"})

    def __init__(self, loaded: Loaded, options: BackendOptions) -> None:
        """Wrap a model that lm-eval has loaded.

        Raises:
            ModelError: its tokenizer cannot be had, or does not say enough.
        """
        from cpmi_eval.backends.lm_eval_generation import LMEvalGenerator
        from cpmi_eval.backends.lm_eval_models import encoder_of
        from cpmi_eval.backends.lm_eval_scoring import Asker, LMEvalScorer

        first = any(loaded.passed.get(name) is not None for name in ("prefix_token_id", "custom_prefix_token_id"))
        encoder = encoder_of(loaded.lm, loaded.passed.get("add_bos_token"), first)
        asker = Asker(loaded.name)
        self.loaded = loaded
        self.lm: Any = loaded.lm
        self.scorer = LMEvalScorer(loaded, encoder, asker)
        self.generator = LMEvalGenerator(loaded, encoder, asker)
        self._options = options

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings before anything heavy is imported or loaded."""
        from cpmi_eval.backends.lm_eval_models import check

        check(options)

    @classmethod
    def open(cls, options: BackendOptions) -> LMEvalBackend:
        """Make the model that ``options`` describe.

        Raises:
            ModelError: the class lacks a package or cannot be made; says what lm-eval says.
        """
        from cpmi_eval.backends.lm_eval_models import load

        return cls(load(options), options)

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that make a good batch."""
        return CPU_BATCH if self._device is not None and self._device.type == "cpu" else BATCH

    @property
    def _device(self) -> Any:
        """The torch device of a model in this process, ``None`` for one elsewhere."""
        return self.lm.device if "HFLM" in self.loaded.bases else None

    def describe(self) -> ModelDescription:
        """Return what a manifest should say: class, arguments, weights, versions. No argument holds a secret."""
        lm, device = self.lm, self._device
        model: Any = getattr(lm, "model", None)
        weights = device is not None and hasattr(model, "config")
        return ModelDescription(
            self.name,
            self.loaded.model or self.loaded.name,
            models.device_name([device]) if device is not None else _elsewhere(self.loaded),
            sha256=self.loaded.sha256,
            revision=getattr(model.config, "_commit_hash", None) if weights else self._passed("revision"),
            dtype=str(model.dtype).removeprefix("torch.") if weights else self._passed("dtype"),
            architecture=type(model).__name__ if weights else None,
            attention=getattr(model.config, "_attn_implementation", None) if weights else None,
            scorer=f"{self.loaded.name} of lm-eval {_version()}, {'token ids' if self.scorer.by_tokens else 'text'}",
            generator=f"{self.loaded.name} of lm-eval {_version()}, seed {self.generator.seeding or 'not taken'}",
            batch_tokens=self.batch_tokens,
            max_length=getattr(lm, "max_length", None),
            own={
                "model_class": f"{type(lm).__module__}.{type(lm).__qualname__}",
                "model_args": {name: _plain(value) for name, value in sorted(self.loaded.passed.items())},
                "lm_eval": _version(),
            },
        )

    def _passed(self, name: str) -> str | None:
        """Return an argument of the class as a text, where there is one."""
        value = self.loaded.passed.get(name)
        return None if value is None else str(value)

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Make sure that the class offers ``capabilities``, and warm it up; measure the peak from here.

        Raises:
            ModelError: it does not, such as a chat endpoint asked for log-probabilities.
        """
        if "loglikelihood" in capabilities:
            self.scorer.probe()
        if "generate" in capabilities:
            self.generator.probe()
        if self._device is not None:
            memory.reset_peak([self._device])

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return summed log-probabilities, in the order of the requests; see :class:`ScoreRequest`."""
        return self.scorer.score(requests) if requests else []

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[Sequence[int]],
        enough: Enough | None = None,
    ) -> list[Generation | Failure]:
        """Make completions of each prompt, one per seed; see :class:`cpmi_eval.protocols.LanguageModel`.

        In this process (``hf`` and its kin) all generators are set to the seed before a completion, which is made
        alone: the same seed gives the same text on the same machine and versions, not the text of ``--backend hf``.
        Elsewhere the seed goes along with the request, and is as good as the server's word.
        """
        return self.generator.generate(prompts, sampling, seeds, enough) if prompts else []

    @property
    def has_chat_template(self) -> bool:
        """Whether the class takes chat turns, or its tokenizer carries a template for them."""
        return self.generator.chat or bool(getattr(getattr(self.lm, "tokenizer", None), "chat_template", None))

    def chat_prompt(self, user: str) -> str:
        """Render one user turn, up to where the assistant begins; for a chat endpoint, as its messages in JSON.

        Raises:
            ModelError: there is no chat template.
        """
        from cpmi_eval.backends.lm_eval_generation import chat_messages

        if self.generator.chat:
            return chat_messages(user)
        if not self.has_chat_template:
            raise ModelError("the model has no chat template; run without chat=true")
        turns = [{"role": "user", "content": user}]
        rendered = self.lm.apply_chat_template(turns)
        if not isinstance(rendered, str):  # an API class that sends text renders for a chat endpoint
            rendered = self.lm.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        text: str = rendered
        return text

    def another(self, model: str) -> LMEvalBackend:
        """Load a second model beside this one: the same class and arguments, other weights.

        Raises:
            ModelError: the class does not load weights by name.
        """
        if "pretrained" not in self._options.model_args or "TemplateAPI" in self.loaded.bases:
            raise ModelError(f"lm-eval's class {self.loaded.name!r} does not load weights; no second model beside it")
        args = {**self._options.model_args, "pretrained": model}
        return type(self).open(replace(self._options, model_args=args))

    def peak_memory_bytes(self) -> int:
        """Return the peak since :meth:`prepare` of the model's device; 0 where that is not in this process."""
        return memory.peak_bytes([self._device]) if self._device is not None else 0


def _version() -> str:
    return importlib.metadata.version("lm_eval")


def _elsewhere(loaded: Loaded) -> str:
    """Say where a model that is not in this process runs."""
    if "TemplateAPI" in loaded.bases or "base_url" in loaded.passed:
        return f"server {loaded.passed.get('base_url', 'of the class')}"
    engine = "cuda" if loaded.bases & {"VLLM", "SGLangLM"} else "not told"
    return str(loaded.lm.device or loaded.passed.get("device") or engine)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
