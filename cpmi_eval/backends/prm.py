"""The ``prm`` backend: a trained process reward model in this process, through transformers.

Importing this module costs nothing; torch and transformers are imported when a model is opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cpmi_eval import settings
from cpmi_eval.backends import loading, models
from cpmi_eval.description import ModelDescription
from cpmi_eval.engine import memory
from cpmi_eval.errors import ModelError, UnknownNameError
from cpmi_eval.prm import detect
from cpmi_eval.prm.encode import EncodedTrace, EncodingError, TraceEncoder
from cpmi_eval.prm.specs import Spec
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.types import JSON, Failure, Scored, StepScores, Tokens, Trace, TraceFailure

if TYPE_CHECKING:
    from cpmi_eval.engine.reader import Values
    from cpmi_eval.engine.scoring import Limits
    from cpmi_eval.prm.heads import ScoreHead

LIMITS = ("row_tokens", "batch_tokens", "max_length")
MODEL_ARGS = ("spec", "revision", "trust_remote_code", "attn_implementation", "device_map", "quantization", *LIMITS)
WARM_UP = Trace("warm-up", "1 + 1 = ?", ("1 + 1 = 2.", "The answer is 2."))


class PRMBackend:
    """A loaded decoder, its head, its tokenizer and the spec that says how a trace is read."""

    name: ClassVar[str] = "prm"
    summary: ClassVar[str] = "trained process reward models: all steps of a trace in one pass; CPU or CUDA"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"step_scores"})

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
            args: ``row_tokens`` (nodes of a chunk), ``batch_tokens`` (tokens of one forward pass) and
                ``max_length`` override what is derived from the model.

        Raises:
            ModelError: prefixes cannot be shared on this model, or the tokenizer the spec.
        """
        from cpmi_eval.engine.architecture import devices, max_length, row_tokens
        from cpmi_eval.engine.scoring import Limits
        from cpmi_eval.prm.reading import TraceReader

        args = args or {}
        rows = models.positive(args, "row_tokens") or row_tokens(model)
        self.model, self.head, self.spec = model, head, spec
        self.devices = devices(model)
        self.limits: Limits = Limits(
            row_tokens=rows,
            batch_tokens=models.positive(args, "batch_tokens")
            or max(rows, 16384 if self.devices[0].type == "cuda" else 1024),
            max_length=models.positive(args, "max_length") or max_length(model.config),
        )
        self.vocabulary: int = model.get_input_embeddings().weight.shape[0]
        self.encoder = _encoder(spec, tokenizer, self.vocabulary)
        sharing = settings.flag("prefix_sharing", prefix_sharing)
        self.reader = TraceReader(model, self.limits, prefix_sharing=sharing)
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
        source = models.resolve(detect.hub_id(options.model))
        if source.path is not None and options.model_args.get("revision") is not None:
            raise ModelError(f"revision is for models of the hub; {source.name} is read from {source.path}")

    @classmethod
    def open(cls, options: BackendOptions) -> PRMBackend:
        """Load the checkpoint that ``options`` names.

        Raises:
            ModelError: no such checkpoint, device or dtype; a tensor is missing; or prefixes cannot be shared.
            UsageError: nothing says what family the checkpoint is of.
        """
        cls.check(options)
        args = options.model_args
        name = detect.hub_id(options.model)
        spec = detect.resolve(name, args.get("spec"), args.get("revision"))
        source = models.resolve(name)
        device = models.pick_device(options.device)
        dtype = models.pick_dtype(options.dtype, device)
        sha256 = source.sha256()
        place = models.loadable(source, sha256)
        model, tokenizer = _load(place, spec, dtype, device, args)
        encoder = _encoder(spec, tokenizer, model.get_input_embeddings().weight.shape[0])
        head = _head(place, spec, model, encoder, args.get("revision"))
        model = models.placed(model, args, device)
        backend = cls(model, head, tokenizer, spec, prefix_sharing=options.prefix_sharing, args=args)
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
        from cpmi_eval.prm.specs import as_dict

        return ModelDescription(
            self.name,
            self._identity.get("model", type(self.model).__name__),
            models.device_name(self.devices),
            sha256=self._identity.get("sha256"),
            revision=self._identity.get("revision"),
            dtype=str(self.model.dtype).removeprefix("torch."),
            architecture=type(self.model).__name__,
            parameters=self.model.num_parameters() + (self.head.parameters if self.spec.read.head.layers else 0),
            attention=self.model.config._attn_implementation,
            scorer=self.reader.reader.name,
            row_tokens=self.limits.row_tokens,
            batch_tokens=self.limits.batch_tokens,
            max_length=self.limits.max_length,
            spec=as_dict(self.spec),
            own={"trie_difference": self.reader.difference},
        )

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Run once what a run will run, so that nobody pays for a first call; measure the peak from here."""
        if "step_scores" in capabilities:
            self.step_scores([WARM_UP])
        memory.reset_peak(self.devices)

    def busy_seconds(self) -> float:
        """Return for how long the device has had work."""
        return self.reader.reader.busy

    def peak_memory_bytes(self) -> int:
        """Return the peak since :meth:`prepare`: of the device where it is a GPU, else of this process."""
        return memory.peak_bytes(self.devices)

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


def _load(place: str, spec: Spec, dtype: str, device: str, args: Mapping[str, Any]) -> tuple[Any, Any]:
    """Load the decoder (or the language model, where the spec reads its logits) and the tokenizer.

    Raises:
        ModelError: nothing can be loaded, or a tensor of the decoder is missing, left over or of another shape.
    """
    from cpmi_eval.prm.heads import prefixes

    own_head = bool(spec.read.head.layers)
    config = loading.configuration(place, args)
    tokenizer = loading.tokenizer(place, args)
    model = loading.weights(
        place,
        "AutoModel" if own_head else "AutoModelForCausalLM",
        args,
        config=config,
        dtype=dtype,
        attn_implementation=args.get("attn_implementation") or models.attention(config),
        spare=(*prefixes(spec), "lm_head.") if own_head else (),
        left_over=f"which neither its decoder nor the spec {spec.name!r} uses; is it of another family? "
        "Name it with --prm_spec",
        **models.placement(args, dtype, device),
    )
    return (model.base_model if own_head else model), tokenizer


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
