"""From ``--model CLASS --model_args ...`` to a loaded model of lm-eval and what encodes for it.

Text becomes token ids by the same rule as everywhere (see encode.py). lm-eval's own ``_encode_pair`` moves trailing
whitespace of a context into the continuation, and its API classes add no BOS of their own. Neither happens here:
requests reach a model tokenized, or are refused.

lm-eval is imported only inside functions. Source of names and behaviour: lm_eval 0.4.13, ``api/registry.py``,
``api/model.py`` and ``models/``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from cpmi_eval import settings
from cpmi_eval.backends import loading, models
from cpmi_eval.engine.encode import Encoded, Encoder
from cpmi_eval.errors import ModelError, UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.redaction import Redaction
from cpmi_eval.types import Failure, ScoreRequest

INSTALL = "lm-eval is not installed: pip install 'cpmi-eval[lm-eval]'"
LOCAL_WEIGHTS = ("hf", "hf-auto", "huggingface")  # classes that are nothing without ``pretrained``
PUT_TOGETHER = ("peft", "delta", "autogptq", "gptqmodel", "quantization_config", "subfolder")
LOCAL_SERVERS = ("local-completions", "local-chat-completions")
SECRET = re.compile(
    r"(^|_)(key|apikey|secret|password|authorization|headers?|auth_token|access_token|hf_token)$|^token$"
)
SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
CREDENTIALS = re.compile(r"^\w+://[^/]*@|[?&;](api_?key|key|token|auth)=", re.IGNORECASE)


@dataclass(frozen=True)
class Loaded:
    """A model of lm-eval. ``bases``: the names of the classes of lm-eval that it is made of.

    ``sha256`` identifies local weights; ``passed`` is what its class was given.
    """

    lm: Any
    bases: frozenset[str]
    name: str
    model: str | None
    sha256: str | None
    passed: Mapping[str, Any]


def check(options: BackendOptions) -> None:
    """Refuse what no class could be made of, before torch or any weight is loaded.

    Raises:
        ModelError: lm-eval is not installed.
        UnknownNameError: it has no such class.
        UsageError: a class without its weights, or a secret among the arguments.
    """
    known = _names()
    if options.model not in known:
        if options.model in models.PRESETS or "/" in options.model or Path(options.model).exists():
            raise UsageError(
                f"--backend lm-eval takes one of lm-eval's model classes in --model, and the weights in --model_args: "
                f"--model hf --model_args pretrained={options.model}"
            )
        raise UnknownNameError("model class of lm-eval", options.model, known)
    for name, value in options.model_args.items():
        if SECRET.search(name) or (isinstance(value, str) and CREDENTIALS.search(value)):
            raise UsageError(
                f"model argument {name} looks like a secret, and arguments are written into the run's manifest; keys "
                "come from the environment alone (OPENAI_API_KEY and the like; HF_TOKEN for the hub)"
            )
    loading.hub_args(options.model_args)
    if settings.flag("model argument logits_cache", options.model_args.get("logits_cache", False)):
        raise UsageError(
            "model argument logits_cache must stay off: lm-eval's reads the wrong positions where two requests share "
            "all but their last token and differ in where the continuation begins"
        )
    if not options.prefix_sharing:
        raise UsageError("--prefix_sharing off is for --backend hf; with lm-eval the model's class scores")
    if options.model in LOCAL_SERVERS:
        for names in (("base_url",), ("model", "pretrained")):
            if not any(options.model_args.get(name) for name in names):
                raise UsageError(
                    f"lm-eval's class {options.model!r} needs {names[0]}: --model_args "
                    "model=NAME_ON_THE_SERVER,base_url=http://HOST:PORT/v1/..., with the whole path of the endpoint"
                )
    if options.model in LOCAL_WEIGHTS:
        pretrained = options.model_args.get("pretrained")
        if pretrained is None:
            raise UsageError(
                f"lm-eval's class {options.model!r} needs weights: --model_args pretrained=NAME, a preset "
                f"({', '.join(models.PRESETS)}), a folder, a .gguf file or a hub id (org/name)"
            )
        if "gguf_file" not in options.model_args:
            models.resolve(str(pretrained))


def load(options: BackendOptions) -> Loaded:
    """Make the model that ``options`` describe.

    Raises:
        ModelError: the class lacks a package, or cannot be made with these arguments; says what lm-eval says.
    """
    check(options)
    cls = _class(options.model)
    bases = bases_of(cls)
    passed, model, sha256 = _arguments(cls, bases, options)
    try:
        with quiet():
            lm = cls.create_from_arg_obj(passed)
    except UsageError:
        raise
    except Exception as error:  # whatever a foreign constructor raises, its model cannot be had
        raise ModelError(f"lm-eval's class {options.model!r} cannot be made: {told(error)}") from error
    if getattr(lm, "backend", "causal") == "seq2seq":
        raise ModelError(f"{model} is an encoder-decoder model; labelers need a causal language model")
    return Loaded(lm, bases, options.model, model, sha256, passed)


def bases_of(cls: type) -> frozenset[str]:
    """Return the names of lm-eval's own classes that ``cls`` is made of; asks for no import."""
    return frozenset(one.__name__ for one in cls.__mro__ if one.__module__.split(".")[0] == "lm_eval")


def told(error: BaseException) -> str:
    """Return an exception as one line that says its type and holds no key."""
    strings = error.args and all(isinstance(part, str) for part in error.args)  # others may hold a request's headers
    text = redacted(" ".join(error.args) if strings else str(error))
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def redacted(text: str) -> str:
    """Return a text without the keys that the environment holds."""
    return _redaction(tuple(sorted(value for name, value in os.environ.items() if SECRET_VARIABLE.search(name))))(text)


@lru_cache(1)
def _redaction(secrets: tuple[str, ...]) -> Redaction:
    return Redaction(secrets)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's own output off stdout, which belongs to results, its bars off altogether, and keys out of its log.

    Some of its classes draw a bar whatever they are told, some print what batch size they found, and those of APIs log
    a failed request with its headers.
    """
    from tqdm.std import tqdm

    original = tqdm.__init__

    def silent(bar: Any, *args: Any, **kwargs: Any) -> None:
        original(bar, *args, **{**kwargs, "disable": True})

    theirs = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("lm_eval")]
    for logger in theirs:
        logger.addFilter(_redact)
    # For good: asyncio logs a request that failed unseen, headers and all, whenever it is collected as garbage.
    logging.getLogger("asyncio").addFilter(_redact)
    tqdm.__init__ = silent
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        tqdm.__init__ = original
        for logger in theirs:
            logger.removeFilter(_redact)


def _redact(record: logging.LogRecord) -> bool:
    record.msg, record.args = redacted(record.getMessage()), None
    if record.exc_info:
        record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        record.exc_info = None
    return True


def _names() -> list[str]:
    if importlib.util.find_spec("lm_eval") is None:
        raise ModelError(INSTALL)
    import lm_eval.models  # noqa: F401 - fills the registry with names; imports no class
    from lm_eval.api.registry import model_registry

    return list(model_registry)


def _class(name: str) -> Any:
    from lm_eval.api.registry import get_model

    try:
        with quiet():
            return get_model(name)
    except Exception as error:  # a module that cannot be imported fails in its own ways
        extras = importlib.metadata.metadata("lm_eval").get_all("Provides-Extra") or []
        remedy = f"; try pip install 'lm-eval[{name}]'" if name in extras else ""
        raise ModelError(f"lm-eval's class {name!r} cannot be imported here: {told(error)}{remedy}") from error


def _arguments(
    cls: Any, bases: frozenset[str], options: BackendOptions
) -> tuple[dict[str, Any], str | None, str | None]:
    """Return what the class is given, the name of its model, and the hash of local weights."""
    passed = dict(options.model_args)
    _check_flags(cls, passed)
    in_process = "HFLM" in bases
    _hand_on(passed, "device", options.device, cls, in_process)
    _hand_on(passed, "dtype", options.dtype, cls, in_process)
    if in_process:
        passed["device"] = models.pick_device(str(passed.get("device", "auto")))
        passed.setdefault("dtype", models.pick_dtype("auto", passed["device"]))
        passed.setdefault("softmax_dtype", "float32")  # as every scorer here: log-probabilities in fp32
        passed.setdefault("logits_cache", False)
    if isinstance(passed.get("tokenizer"), str) and passed["tokenizer"] in models.PRESETS:
        passed["tokenizer"], _ = _local(str(passed["tokenizer"]))
    name, sha256 = passed.get("model") or passed.get("pretrained"), None
    if isinstance(name, str) and "TemplateAPI" not in bases and "pretrained" in passed:
        known = in_process and "gguf_file" not in passed
        if known or name in models.PRESETS or name.endswith(".gguf"):
            passed["pretrained"], sha256 = _local(name)
        if known and options.model in LOCAL_WEIGHTS:
            _check_weights(passed)
    return passed, None if name is None else str(name), sha256


def _hand_on(passed: dict[str, Any], name: str, flag: str, cls: Any, in_process: bool) -> None:
    """Add the run's ``--dtype`` or ``--device`` to a class's arguments."""
    if flag == "auto":
        return
    if passed.get(name, flag) != flag:
        raise UsageError(f"{name} is given twice: --{name} {flag}, and {passed[name]!r} in --model_args")
    if not in_process and name not in _parameters(cls):
        raise UsageError(f"--{name} would do nothing: lm-eval's class {cls.__name__} takes no {name}")
    passed[name] = flag


def _parameters(cls: type) -> dict[str, str]:
    """Return what a class's constructor takes, that of its bases included: the names, with their annotations."""
    signatures = [inspect.signature(vars(one).get("__init__", object)) for one in reversed(cls.__mro__)]
    return {name: str(one.annotation) for own in signatures for name, one in own.parameters.items()}


def _check_flags(cls: type, passed: Mapping[str, Any]) -> None:
    """Refuse a text where a class takes true or false: it would read any text but the empty one as true."""
    annotations = _parameters(cls)
    for name, value in passed.items():
        kinds = set(re.findall(r"\w+", annotations.get(name, ""))) - {"class", "typing", "Optional", "Union"}
        if kinds in ({"bool"}, {"bool", "None"}, {"bool", "NoneType"}):
            settings.optional_flag(f"model argument {name}", value)


def _local(name: str) -> tuple[str, str | None]:
    """Return what transformers can load for a preset, folder, GGUF file or hub id, and the hash of local content."""
    source = models.resolve(name)
    sha256 = source.sha256()
    return models.loadable(source, sha256), sha256


def _check_weights(passed: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that its class would fill up with random weights; reads names and shapes, no numbers.

    What adapters, deltas and quantized weights amount to is put together by libraries of their own, and not checked.
    """
    if any(passed.get(name) for name in PUT_TOGETHER):
        return
    place = str(passed["pretrained"])
    config = loading.configuration(place, passed)
    if getattr(config, "quantization_config", None) is None and not config.is_encoder_decoder:
        nowhere = {"": "meta"}
        loading.weights(place, "AutoModelForCausalLM", passed, config=config, dtype="float32", device_map=nowhere)


class PairEncoder(Protocol):
    """Tokenizes requests and prompts for one model."""

    def pairs(self, requests: Sequence[ScoreRequest]) -> list[Encoded | Failure]:
        """Return the ids of each request whole and where its continuation begins, or why that cannot be told."""

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt to continue, with exactly one BOS where one belongs."""

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text by itself, without special ones."""


class FastEncoder(Encoder):
    """Encodes with a fast tokenizer of transformers, which tells what characters a token covers."""

    def __init__(self, tokenizer: Any, add_bos: bool | None, first: int | None) -> None:
        """Take the tokenizer.

        Args:
            tokenizer: the model's.
            add_bos: whether a BOS leads every text; ``None``: where the tokenizer wants it.
            first: what stands before a text that nothing else leads; ``None``: BOS, else the end of a text.
        """
        super().__init__(tokenizer)
        if add_bos is False:
            self.prefix = []
        elif add_bos and not self.prefix:
            self.prefix = [Encoder._first(self)]
        self.first = first

    def _first(self) -> int:
        return super()._first() if self.first is None else self.first

    def pairs(self, requests: Sequence[ScoreRequest]) -> list[Encoded | Failure]:
        """Return the ids of each request whole and where its continuation begins."""
        return list(self.encode(requests))

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with exactly one BOS where one belongs."""
        return self.encode_prompt(text)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text by itself."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


class PlainEncoder:
    """Encodes through a class's own ``tok_encode`` where no character offsets are to be had (tiktoken, a server's)."""

    def __init__(self, lm: Any, add_bos: bool | None) -> None:
        """Take a model of lm-eval.

        Raises:
            ModelError: nobody has said whether a BOS belongs before a text.
        """
        self.lm = lm
        if add_bos is None and getattr(lm.tokenizer, "bos_token", None):
            raise ModelError(
                "this tokenizer has a BOS and does not tell whether it belongs before every text; "
                "say so: --model_args add_bos_token=true or false"
            )
        self.prefix: list[int] = [int(lm.prefix_token_id)] if add_bos else []

    def pairs(self, requests: Sequence[ScoreRequest]) -> list[Encoded | Failure]:
        """Return the ids of each request; a Failure where a token straddles the boundary, for all that can be seen."""
        return [self._pair(request) for request in requests]

    def _pair(self, request: ScoreRequest) -> Encoded | Failure:
        whole, context = self.ids(request.context + request.continuation), self.ids(request.context)
        if whole[: len(context)] != context:
            return Failure(
                "unaligned",
                "a token lies across the boundary between context and continuation, and the tokenizer gives no "
                "character offsets to tell where it belongs; use a fast tokenizer (tokenizer_backend=huggingface)",
            )
        lead = [] if whole[: len(self.prefix)] == self.prefix else self.prefix
        if not lead and not context:
            lead = [int(self.lm.prefix_token_id)]
        return Encoded([*lead, *whole], len(lead) + len(context))

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt, with exactly one BOS where one belongs."""
        ids = self.ids(text)
        led = ids if self.prefix and ids[: len(self.prefix)] == self.prefix else [*self.prefix, *ids]
        return led or [int(self.lm.prefix_token_id)]

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text by itself."""
        return [int(one) for one in self.lm.tok_encode(text, add_special_tokens=False)] if text else []


def encoder_of(lm: Any, add_bos: bool | None, explicit_first: bool) -> PairEncoder | None:
    """Return what encodes for a model of lm-eval; ``None`` where it has no tokenizer.

    Args:
        lm: the model.
        add_bos: its argument ``add_bos_token``, if it was given one.
        explicit_first: whether it was given a token to lead texts with (``prefix_token_id``).

    Raises:
        ModelError: its tokenizer cannot be had, or does not say enough.
    """
    try:
        tokenizer = getattr(lm, "tokenizer", None)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the tokenizer of {type(lm).__name__} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    if tokenizer is None:
        return None
    if getattr(tokenizer, "is_fast", False):
        return FastEncoder(tokenizer, add_bos, int(lm.prefix_token_id) if explicit_first else None)
    return PlainEncoder(lm, add_bos) if hasattr(lm, "tok_encode") else None


def boundary_is_plain(encoder: PairEncoder, request: ScoreRequest) -> bool:
    """Return whether a model that is handed text scores the same tokens, however it cuts at the boundary."""
    if request.context != request.context.rstrip():
        return False  # lm-eval's convention would move the whitespace
    apart = [*encoder.ids(request.context), *encoder.ids(request.continuation)]
    return encoder.ids(request.context + request.continuation) == apart
