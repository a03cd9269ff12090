"""The ``lm-eval`` backend: lm-eval's model classes that run in this process, asked for log-probabilities and texts.

``--model`` names the class (``hf``, ``vllm``, ``sglang``, ...), ``--model_args`` go to its constructor. Classes that
ask a server are left to ``--backend server``. Importing this module costs nothing; lm-eval is imported when a model is
opened. Source of names and behaviour: lm_eval 0.4.13, ``api/`` and ``models/``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval.backends import loading, models
from cpmi_eval.description import ModelDescription
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.types import Enough, Failure, Generation, LogProb, Sampling, ScoreRequest, Tokens

if TYPE_CHECKING:
    from cpmi_eval.backends.lm_eval.classes import Loaded
    from cpmi_eval.engine.encode import Encoded

CPU_BATCH, BATCH = 1024, 16384  # tokens of trace text that are handed over at a time
ENGINES = {"VLLM", "SGLangLM"}  # on CUDA, without telling a device
IMPOSSIBLE = 0.01  # a log-probability above this is no rounding error


class LMEvalBackend:
    """A model of lm-eval behind this program's requests."""

    name: ClassVar[str] = "lm-eval"
    summary: ClassVar[str] = "model classes of lm-eval that run in this process (hf, vllm, ...), named by --model"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"loglikelihood", "generate"})

    def __init__(self, loaded: Loaded, options: BackendOptions) -> None:
        """Wrap a model that lm-eval has loaded; ModelError where it shows no fast tokenizer."""
        from cpmi_eval.backends.lm_eval.asking import Asker, ClassEncoder
        from cpmi_eval.backends.lm_eval.generation import LMEvalGenerator

        self.loaded, self._options = loaded, options
        self.lm: Any = loaded.lm
        if not getattr(getattr(self.lm, "tokenizer", None), "is_fast", False):
            raise ModelError(
                f"{self._class} shows no fast tokenizer of transformers, without which nobody can say which tokens it "
                "scores; use --backend hf"
            )
        told = any(loaded.passed.get(name) is not None for name in ("prefix_token_id", "custom_prefix_token_id"))
        first = int(self.lm.prefix_token_id) if told else None
        self.encoder = ClassEncoder(self.lm.tokenizer, loaded.passed.get("add_bos_token"), first)
        self.asker = Asker(loaded.name)
        self.generator = LMEvalGenerator(loaded, self.encoder, self.asker)
        self._device: Any = self.lm.device if "HFLM" in loaded.bases else None
        longest = getattr(self.lm, "max_length", None)
        # Tokens of the longest request that the class does not cut. HFLM predicts nothing from the last token; engines
        # want room for a new one. None: the class never says.
        self._room = longest + (1 if "HFLM" in loaded.bases else -1) if isinstance(longest, int) else None

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings before anything heavy is imported or loaded."""
        from cpmi_eval.backends.lm_eval.classes import check

        check(options)

    @classmethod
    def open(cls, options: BackendOptions) -> LMEvalBackend:
        """Make the model that ``options`` describe; ModelError says what lm-eval says where it cannot be."""
        from cpmi_eval.backends.lm_eval.classes import load

        return cls(load(options), options)

    @property
    def _class(self) -> str:
        return f"lm-eval's class {self.loaded.name!r}"

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that make a good batch."""
        return CPU_BATCH if self._device is not None and self._device.type == "cpu" else BATCH

    def describe(self) -> ModelDescription:
        """Return what a manifest should say: class, arguments, weights, versions. No argument holds a secret."""
        passed, way = self.loaded.passed, f"{self.loaded.name} of lm-eval {version('lm_eval')}"
        known: dict[str, Any] = {name: str(passed[name]) for name in ("revision", "dtype") if passed.get(name)}
        if self._device is None:
            device = str(
                self.lm.device or passed.get("device") or ("cuda" if self.loaded.bases & ENGINES else "not told")
            )
        else:
            device = models.device_name([self._device])
            if hasattr(self.lm.model, "config"):
                known = loading.identity(self.lm.model)
        return ModelDescription(
            self.name,
            self.loaded.model or self.loaded.name,
            device,
            sha256=self.loaded.sha256,
            **known,
            scorer=f"{way}, token ids",
            generator=f"{way}, seed {self.generator.seeding or 'not taken'}",
            batch_tokens=self.batch_tokens,
            max_length=getattr(self.lm, "max_length", None),
            own={
                "model_class": f"{type(self.lm).__module__}.{type(self.lm).__qualname__}",
                "model_args": {
                    name: value if isinstance(value, str | int | float | bool | None) else repr(value)
                    for name, value in sorted(passed.items())
                },
                "lm_eval": version("lm_eval"),
            },
        )

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Make sure that the class offers ``capabilities`` (else ModelError), and warm it up; measure from here."""
        if "loglikelihood" in capabilities:
            self._probe(ScoreRequest("1 + 1 =", " 2"))
        if "generate" in capabilities:
            (made,) = self.generate(["1 + 1 ="], Sampling(max_new_tokens=2, temperature=0.0), [[0]])
            if isinstance(made, Failure):
                raise ModelError(f"{self._class} cannot generate: {made.message} ({made.kind})")
        if self._device is not None:
            memory.reset_peak([self._device])

    def _probe(self, request: ScoreRequest) -> None:
        """Find out whether the class gives log-probabilities at all."""
        from cpmi_eval.backends.lm_eval.asking import instance
        from cpmi_eval.backends.lm_eval.classes import quiet

        if not hasattr(self.lm, "_loglikelihood_tokens"):
            raise ModelError(
                f"{self._class} takes text only, so that nobody can say which tokens it scores; use a class that takes "
                "token ids, or --backend hf"
            )
        try:
            with quiet():
                self.lm.loglikelihood([instance("loglikelihood", (request.context, request.continuation))])
        except Exception as error:  # classes say in many ways that they cannot
            raise ModelError(
                f"{self._class} gives no log-probabilities ({loading.brief(error)}); this labeler needs them: use "
                "another class, or --backend hf"
            ) from error
        (answer,) = self.loglikelihood([request])
        if isinstance(answer, Failure):
            raise ModelError(f"{self._class} cannot score: {answer.message} ({answer.kind})")

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return summed log-probabilities, in the order of the requests; see :class:`ScoreRequest`. Nothing is cut.

        Raises:
            UsageError: truncated distributions are asked for, which no class of lm-eval gives.
            ModelError: the class does not answer any more.
        """
        from cpmi_eval.backends.lm_eval.classes import quiet

        if any(request.top_k > 0 or request.top_p < 1.0 for request in requests):
            raise UsageError(
                "the labeler's settings top_k and top_p need whole distributions, and lm-eval's classes return one "
                "log-probability per request; leave them out, or use --backend hf"
            )
        encoded = self.encoder.encode(requests)
        refused = [self._refused(one) for one in encoded]
        ready = [place for place, failure in enumerate(refused) if failure is None]

        def ask(places: Sequence[int]) -> list[tuple[float, bool]]:
            asked = []
            for place in places:
                ids, start = encoded[place].ids.tolist(), encoded[place].start
                asked.append(((requests[place].context, requests[place].continuation), ids[:start], ids[start:]))
            return list(self.lm._loglikelihood_tokens(asked))

        with quiet():
            answers = iter(self.asker.each(ready, ask))
        return [failure or _result(one, next(answers)) for one, failure in zip(encoded, refused, strict=True)]

    def _refused(self, one: Encoded) -> Failure | None:
        if one.start == len(one):
            return Failure("empty_continuation", "the continuation has no tokens")
        if self._room is not None and len(one) > self._room:
            takes = f"{self._class} takes {self._room:,} and would cut the context"
            return Failure("too_long", f"{len(one):,} tokens; {takes}")
        return None

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None = None
    ) -> list[Generation | Failure]:
        """Make completions of each prompt, one per seed; see :class:`cpmi_eval.protocols.LanguageModel`.

        For ``hf`` and its kin all generators are set to the seed before a completion, which is made alone: the same
        seed gives the same text on the same machine and versions, not the text of ``--backend hf``. To vLLM the seed
        goes along with the request.

        Raises:
            UsageError: the class cannot sample as asked.
            ModelError: it does not answer any more.
        """
        return self.generator.generate(prompts, sampling, seeds, enough) if prompts else []

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer carries a chat template."""
        return bool(self.lm.tokenizer.chat_template)

    def chat_prompt(self, user: str) -> str:
        """Render one user turn, up to where the assistant begins; ModelError where there is no chat template."""
        if not self.has_chat_template:
            raise ModelError("the model has no chat template; run without chat=true")
        text: str = self.lm.apply_chat_template([{"role": "user", "content": user}])
        return text

    def another(self, model: str) -> LMEvalBackend:
        """Load a second model beside this one: the same class and arguments, other weights."""
        if "pretrained" not in self._options.model_args:
            raise ModelError(f"{self._class} does not load weights; no second model beside it")
        args = {**self._options.model_args, "pretrained": model}
        return type(self).open(replace(self._options, model_args=args))

    def peak_memory_bytes(self) -> int:
        """Return the peak since :meth:`prepare` of the model's device; 0 where the class does not tell it."""
        return memory.peak_bytes([self._device]) if self._device is not None else 0


def _result(one: Encoded, answer: tuple[float, bool] | Failure) -> LogProb | Failure:
    if isinstance(answer, Failure):
        return answer
    total, n = float(answer[0]), len(one)
    if not math.isfinite(total):
        return Failure("non_finite", f"the model gave a log-probability of {total}; try dtype=float32")
    if total > IMPOSSIBLE:
        return Failure("bad_output", f"the model gave a log-probability of {total}, above 0")
    return LogProb(total, n - one.start, Tokens(requested=n - 1, computed=n - 1))
