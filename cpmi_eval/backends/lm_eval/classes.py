"""From ``--model CLASS --model_args ...`` to a loaded model of lm-eval, which is imported only inside functions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.backends import loading, models
from cpmi_eval.errors import ModelError, UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions

LOCAL_WEIGHTS = ("hf", "hf-auto", "huggingface")  # classes that are nothing without ``pretrained``
SERVED = (  # classes that send their requests to a server
    *("anthropic-chat", "anthropic-chat-completions", "anthropic-completions", "ggml", "gguf"),
    *("litellm", "litellm-chat", "litellm-chat-completions", "local-chat-completions", "local-completions"),
    *("openai-chat-completions", "openai-completions", "sglang-generate", "textsynth", "watsonx_llm"),
)
PUT_TOGETHER = ("peft", "delta", "autogptq", "gptqmodel", "quantization_config", "subfolder")
SECRET = re.compile(
    r"(^|_)(key|apikey|secret|password|authorization|headers?|auth_token|access_token|hf_token)$|^token$"
)
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
        UsageError: no such class, one that asks a server or lacks its weights, or a secret among the arguments.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ModelError("lm-eval is not installed: pip install 'cpmi-eval[lm-eval]'")
    import lm_eval.models  # noqa: F401 - fills the registry with names; imports no class
    from lm_eval.api.registry import model_registry

    known = [name for name in model_registry if name not in SERVED]
    if options.model in SERVED:
        raise _served(options.model)
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
                "come from the environment alone (HF_TOKEN for the hub)"
            )
    loading.hub_args(options.model_args)
    if settings.flag("model argument logits_cache", options.model_args.get("logits_cache", False)):
        raise UsageError(
            "model argument logits_cache must stay off: lm-eval's reads the wrong positions where two requests share "
            "all but their last token and differ in where the continuation begins"
        )
    if not options.prefix_sharing:
        raise UsageError("--prefix_sharing off is for --backend hf; with lm-eval the model's class scores")
    if options.model in LOCAL_WEIGHTS:
        pretrained = options.model_args.get("pretrained")
        if pretrained is None:
            raise UsageError(
                f"lm-eval's class {options.model!r} needs weights: --model_args pretrained=NAME, a preset "
                f"({', '.join(models.PRESETS)}), a folder, a .gguf file or a hub id (org/name)"
            )
        if "gguf_file" not in options.model_args:
            models.resolve(str(pretrained))


def _served(name: str) -> UsageError:
    return UsageError(
        f"lm-eval's class {name!r} sends its requests to a server: use --backend server --base_url "
        "http://HOST:PORT/v1 --model NAME_ON_THE_SERVER, which checks the answers, counts their tokens and hides keys"
    )


def load(options: BackendOptions) -> Loaded:
    """Make the model that ``options`` describe; raises as :func:`check`, and ModelError with what lm-eval says."""
    check(options)
    cls = _class(options.model)
    bases = frozenset(one.__name__ for one in cls.__mro__ if one.__module__.split(".")[0] == "lm_eval")
    if "TemplateAPI" in bases:
        raise _served(options.model)
    passed, model, sha256 = _arguments(cls, "HFLM" in bases, options)
    try:
        with quiet():
            lm = cls.create_from_arg_obj(passed)
    except UsageError:
        raise
    except Exception as error:  # whatever a foreign constructor raises, its model cannot be had
        raise ModelError(f"lm-eval's class {options.model!r} cannot be made: {loading.brief(error)}") from error
    if getattr(lm, "backend", "causal") == "seq2seq":
        raise ModelError(f"{model} is an encoder-decoder model; labelers need a causal language model")
    return Loaded(lm, bases, options.model, model, sha256, passed)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's own output off stdout, which belongs to results, and its bars off altogether.

    Some of its classes draw a bar whatever they are told, and some print what batch size they found.
    """
    from tqdm.std import tqdm

    original = tqdm.__init__

    def silent(bar: Any, *args: Any, **kwargs: Any) -> None:
        original(bar, *args, **{**kwargs, "disable": True})

    tqdm.__init__ = silent
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        tqdm.__init__ = original


def _class(name: str) -> Any:
    from lm_eval.api.registry import get_model

    try:
        with quiet():
            return get_model(name)
    except Exception as error:  # a module that cannot be imported fails in its own ways
        extras = importlib.metadata.metadata("lm_eval").get_all("Provides-Extra") or []
        remedy = f"; try pip install 'lm-eval[{name}]'" if name in extras else ""
        raise ModelError(f"lm-eval's class {name!r} cannot be imported here: {loading.brief(error)}{remedy}") from error


def _arguments(cls: type, in_process: bool, options: BackendOptions) -> tuple[dict[str, Any], str | None, str | None]:
    """What the class is given, the name of its model, and the hash of local weights.

    ``in_process``: whether it is ``hf`` or its kin, which take this program's models, devices and dtypes.
    """
    passed = dict(options.model_args)
    _check_flags(cls, passed)
    for name, flag in (("device", options.device), ("dtype", options.dtype)):
        if flag == "auto":
            continue
        if passed.get(name, flag) != flag:
            raise UsageError(f"{name} is given twice: --{name} {flag}, and {passed[name]!r} in --model_args")
        if not in_process and name not in _parameters(cls):
            raise UsageError(f"--{name} would do nothing: lm-eval's class {cls.__name__} takes no {name}")
        passed[name] = flag
    if in_process:
        passed["device"] = models.pick_device(str(passed.get("device", "auto")))
        passed.setdefault("dtype", models.pick_dtype("auto", passed["device"]))
        passed.setdefault("softmax_dtype", "float32")  # as every scorer here: log-probabilities in fp32
        passed.setdefault("logits_cache", False)
    tokenizer = passed.get("tokenizer")
    if isinstance(tokenizer, str) and tokenizer in models.PRESETS:
        passed["tokenizer"], _ = _local(tokenizer)
    model, sha256 = passed.get("pretrained"), None
    if isinstance(model, str):
        known = in_process and "gguf_file" not in passed
        if known or model in models.PRESETS or model.endswith(".gguf"):
            passed["pretrained"], sha256 = _local(model)
        if known and options.model in LOCAL_WEIGHTS:
            _check_weights(passed)
    return passed, None if model is None else str(model), sha256


def _parameters(cls: type) -> dict[str, str]:
    """The names that a class's constructor takes, those of its bases included, with their annotations."""
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
    """What transformers can load for a preset, folder, GGUF file or hub id, and the hash of local content."""
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
