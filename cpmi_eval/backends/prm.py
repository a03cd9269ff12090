"""The ``prm`` backend: a trained process reward model in this process, through transformers.

Importing this module costs nothing; torch and transformers are imported when a model is opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval import settings
from cpmi_eval.backends import models
from cpmi_eval.backends.local import LocalModel
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError
from cpmi_eval.prm import detect
from cpmi_eval.prm.encode import EncodedTrace, EncodingError, TraceEncoder
from cpmi_eval.prm.specs import Spec
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import Failure, Scored, StepScores, Tokens, Trace, TraceFailure

if TYPE_CHECKING:
    from cpmi_eval.engine.reader import Values
    from cpmi_eval.prm.heads import ScoreHead

WARM_UP = Trace("warm-up", "1 + 1 = ?", ("1 + 1 = 2.", "The answer is 2."))


class PRMBackend(LocalModel):
    """A loaded decoder, its head, its tokenizer and the spec that says how a trace is read."""

    name: ClassVar[str] = "prm"
    summary: ClassVar[str] = "trained process reward models: all steps of a trace in one pass; CPU or CUDA"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"step_scores"})
    own_args = ("spec",)

    def __init__(
        self,
        model: Any,
        head: ScoreHead,
        tokenizer: Any,
        spec: Spec,
        *,
        prefix_sharing: bool = True,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a model that is already loaded.

        Args:
            model: a ``transformers`` decoder, or a causal language model, in evaluation mode.
            head: what turns its final hidden states into numbers.
            tokenizer: its tokenizer.
            spec: how traces are built and read.
            prefix_sharing: read what sequences begin with once for all of them.
            args: any of ``budgets``, which override what is derived from the model; see docs/backends.md.

        Raises:
            ModelError: prefixes cannot be shared on this model, or the tokenizer the spec.
        """
        from cpmi_eval.prm.reading import TraceReader

        super().__init__(model, args or {})
        self.head, self.spec = head, spec
        self.encoder = _encoder(spec, tokenizer, self.vocabulary)
        sharing = settings.flag("prefix_sharing", prefix_sharing)
        self.reader = TraceReader(model, self.limits, prefix_sharing=sharing)
        self.trie_difference = self.reader.difference

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings before anything heavy is imported or loaded."""
        cls.checked(options, detect.hub_id(options.model))

    @classmethod
    def open(cls, options: BackendOptions) -> PRMBackend:
        """Load the checkpoint that ``options`` names; UsageError where nothing says what family it is of."""
        from cpmi_eval.prm.heads import prefixes

        args, name = options.model_args, detect.hub_id(options.model)
        source = cls.checked(options, name)
        spec = detect.resolve(name, args.get("spec"), args.get("revision"))
        sha256 = source.sha256()
        own_head = bool(spec.read.head.layers)
        model, tokenizer = models.read_model(
            source,
            options,
            sha256,
            kind="AutoModel" if own_head else "AutoModelForCausalLM",
            spare=(*prefixes(spec), "lm_head.") if own_head else (),
            left_over=f"which neither its decoder nor the spec {spec.name!r} uses; is it of another family? "
            "Name it with --prm_spec",
        )
        model = model.base_model if own_head else model
        encoder = _encoder(spec, tokenizer, model.get_input_embeddings().weight.shape[0])
        head = _head(models.loadable(source, sha256), spec, model, encoder, args.get("revision"))
        model = models.placed(model, options)
        backend = cls(model, head, tokenizer, spec, prefix_sharing=options.prefix_sharing, args=args)
        backend.source, backend.sha256 = source, sha256
        return backend

    def describe(self) -> ModelDescription:
        """Return what a manifest should say about the loaded model."""
        from cpmi_eval.prm.specs import as_dict

        return self.described(
            parameters=self.model.num_parameters() + (self.head.parameters if self.spec.read.head.layers else 0),
            scorer=self.reader.reader.name,
            spec=as_dict(self.spec),
            own={"trie_difference": self.trie_difference},
        )

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Run once what a run will run, so that nobody pays for a first call; measure the peak from here."""
        if "step_scores" in capabilities:
            self.step_scores([WARM_UP])
        memory.reset_peak(self.devices)

    def busy_seconds(self) -> float:
        """Return for how long the device has had work."""
        return self.reader.reader.busy

    def step_scores(self, traces: Sequence[Trace]) -> list[Scored]:
        """Return one result per trace, in their order; whatever cannot be read whole is a failure, never cut."""
        encoded = [self._encoded(trace) for trace in traces]
        ready = [one for one in encoded if isinstance(one, EncodedTrace)]
        read = iter(self.reader.read(ready, self.head) if ready else [])
        return [
            TraceFailure(trace.id, one) if isinstance(one, Failure) else self._scored(trace, one, next(read))
            for trace, one in zip(traces, encoded, strict=True)
        ]

    def _encoded(self, trace: Trace) -> EncodedTrace | Failure:
        try:
            encoded = self.encoder.encode(trace.problem, trace.steps)
        except EncodingError as error:
            return Failure("encoding", str(error))
        if max(encoded.ids) >= self.vocabulary:
            return Failure("encoding", f"token {max(encoded.ids)} is past the model's {self.vocabulary} embeddings")
        return encoded

    def _scored(self, trace: Trace, encoded: EncodedTrace, found: Values | Failure) -> Scored:
        from cpmi_eval.prm.heads import scores

        if isinstance(found, Failure):
            return TraceFailure(trace.id, found)
        tokens = Tokens(requested=sum(encoded.reads) + len(encoded.reads), computed=found.computed)
        values = tuple(scores(found.values, self.spec.read.transform).tolist())
        bad = [step for step, value in enumerate(values) if not math.isfinite(value)]
        if bad:
            message = f"the model gave step {bad[0]} a score of {values[bad[0]]}; try --dtype float32"
            return TraceFailure(trace.id, Failure("non_finite", message), tokens)
        return StepScores(trace.id, values, tokens)


def _encoder(spec: Spec, tokenizer: Any, vocabulary: int) -> TraceEncoder:
    """Return an encoder whose marker the model has an embedding for."""
    try:
        encoder = TraceEncoder(spec, tokenizer)
    except EncodingError as error:
        raise ModelError(str(error)) from error
    if any(token >= vocabulary for token in encoder.marker):
        raise ModelError(
            f"the step marker of the spec {spec.name!r} is token {max(encoder.marker)}, "
            f"but the model has {vocabulary} embeddings"
        )
    return encoder


def _head(place: str, spec: Spec, model: Any, encoder: TraceEncoder, revision: str | None) -> ScoreHead:
    """Read the head that the spec describes."""
    from cpmi_eval.prm import heads

    if spec.read.head.layers:
        tensors = heads.read_tensors(place, heads.prefixes(spec), revision)
        return heads.from_tensors(spec, tensors, model.config.get_text_config().hidden_size, place)
    try:
        return heads.TokenHead(model, encoder.head_tokens() if spec.read.head.kind == "lm" else None)
    except EncodingError as error:
        raise ModelError(str(error)) from error
