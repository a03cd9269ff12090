"""Checkpoints through transformers: whole, or not at all.

For a tensor that a checkpoint lacks or that has another shape, transformers draws random numbers; one that it has no
use for it leaves out; a log line says so. Here each is an error that names the tensor. So is whatever the libraries
underneath make of a damaged file: one line, with the file where it can be told.

JSON is read here and in conversion.py rather than at record/door.py: a GPU machine has this and no msgspec.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cpmi_eval import settings
from cpmi_eval.errors import ModelError, UsageError

# Tensors of old checkpoints that follow from the configuration: rotary angles, and the causal masks of GPT-2, GPT-Neo
# and GPT-NeoX. What a model ties is not missing, and what transformers knows not to load (heads for predicting several
# tokens ahead) is not left over: its report holds neither.
COMPUTED = ("rotary_emb.inv_freq", ".attn.bias", ".attention.bias", ".masked_bias")
OBJECTS = tuple(
    f"{name}.json" for name in ("config", "generation_config", "tokenizer", "tokenizer_config", "special_tokens_map")
)
SHOWN = 3


def hub_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``revision``, where it is given, and ``trust_remote_code`` (true or false, else UsageError) of ``args``.

    The latter is always there: what is not told, transformers may ask a person at the terminal.
    """
    trusted = settings.flag("model argument trust_remote_code", args.get("trust_remote_code", False))
    told = {} if args.get("revision") is None else {"revision": args["revision"]}
    return {**told, "trust_remote_code": trusted}


def identity(model: Any) -> dict[str, Any]:
    """Return what a description says of a loaded model of transformers, by its fields."""
    return {
        "revision": getattr(model.config, "_commit_hash", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "architecture": type(model).__name__,
        "attention": model.config._attn_implementation,
    }


def configuration(place: str, args: Mapping[str, Any]) -> Any:
    """Return the configuration in a folder or hub repository; ModelError where none can be made sense of."""
    from transformers import AutoConfig

    with told("the configuration of", place):
        return AutoConfig.from_pretrained(place, **hub_args(args))


def tokenizer(place: str, args: Mapping[str, Any], *, shown: str | None = None, **more: Any) -> Any:
    """Return the tokenizer in a folder or hub repository; ModelError where none can be made sense of.

    ``shown``: what messages name instead of ``place``. ``more``: what else transformers is given.
    """
    from transformers import AutoTokenizer

    with told("the tokenizer of", shown or place):
        return AutoTokenizer.from_pretrained(place, **hub_args(args), **more)


def weights(
    place: str,
    kind: str,
    args: Mapping[str, Any],
    *,
    dtype: str,
    spare: Sequence[str] = (),
    new: Sequence[str] = (),
    left_over: str = "which its configuration has no place for",
    shown: str | None = None,
    **more: Any,
) -> Any:
    """Return the model in a folder or hub repository, every weight of it read from there and none left out.

    Args:
        place: the folder or hub id; messages name ``shown`` instead, where it is given.
        kind: a class of transformers, such as ``AutoModelForCausalLM``.
        args: ``revision`` and ``trust_remote_code``.
        dtype: a torch dtype's name.
        spare: beginnings of the names of tensors that need not be used.
        new: beginnings of the names of weights that need not be there, as they are to be trained.
        left_over: what a message says of tensors that are not used.
        shown: see ``place``.
        **more: what else transformers is given.

    Raises:
        ModelError: the weights cannot be read, or some are missing, left over or of another shape; names them.
    """
    import torch
    import transformers

    where = shown or place
    with told("the weights of", where), _quiet():
        model, report = getattr(transformers, kind).from_pretrained(
            place,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they come back in the report, with their names
            **hub_args(args),
            **more,
        )
    prefix = f"{model.base_model_prefix}." if kind == "AutoModel" else ""  # a decoder by itself leaves it out
    if gaps := _gaps(report, prefix, tuple(spare), tuple(new), left_over):
        raise ModelError(f"{where} {'; '.join(gaps)}")
    return model


def _gaps(
    report: Mapping[str, Any], prefix: str, spare: tuple[str, ...], new: tuple[str, ...], left_over: str
) -> list[str]:
    """What a report of transformers holds against a checkpoint; ``prefix`` leads the report's names in files."""
    gaps = []
    missing = sorted(f"{prefix}{key}" for key in report["missing_keys"])
    if missing := [key for key in missing if not key.startswith(new)]:
        gaps.append(f"lacks {some(missing)}; with random weights in their place every score would be random")
    says = "where its configuration says"
    mismatched = sorted(report["mismatched_keys"])
    if wrong := [f"{prefix}{name} of shape {tuple(theirs)} {says} {tuple(ours)}" for name, theirs, ours in mismatched]:
        gaps.append(f"holds {some(wrong)}")
    unexpected = sorted(report["unexpected_keys"])
    if unused := [key for key in unexpected if not key.startswith(spare) and not key.endswith(COMPUTED)]:
        gaps.append(f"holds {some(unused)}, {left_over}")
    return gaps


def some(names: Sequence[str]) -> str:
    """Return the first few of ``names``, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@contextmanager
def told(what: str, place: str) -> Iterator[None]:
    """Turn whatever reading a checkpoint raises into one line that names the checkpoint and, if it can, the file."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # a damaged file makes the libraries that read it raise anything
        local = Path(place).exists()
        reason = (_damage(Path(place)) if local else None) or brief(error)
        if "trust_remote_code" in str(error):
            reason += " Nothing of it is run unless you add --model_args trust_remote_code=true"
        elif Path(place).is_dir() and isinstance(error, ArithmeticError | TypeError | AttributeError | LookupError):
            reason += "; is its config.json right?"
        if not local:
            reason += (
                "\nWithout a connection: give a local folder or .gguf file, or use what is already in the hub's cache "
                "(HF_HOME)"
            )
        raise ModelError(f"cannot load {what} {place}: {reason}") from error


def brief(error: BaseException) -> str:
    """Return an exception's message as one line, after its type where that is half of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _damage(folder: Path) -> str | None:
    """Say which file of a folder cannot be read, after something could not; ``None`` where all can."""
    indices = sorted(folder.glob("*.index.json"))
    for path in [*(folder / name for name in OBJECTS if (folder / name).exists()), *indices]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            return f"{path.name} cannot be read: {brief(error)}"
        if not isinstance(content, dict):
            return f"{path.name} is not a JSON object"
        if path in indices:
            shards = content.get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(one, str) for one in shards.values()):
                return f"{path.name} does not say which file holds which tensor"
            if absent := sorted(one for one in {*shards.values()} if not (folder / one).is_file()):
                return f"{path.name} names {some(absent)}, which {'is' if len(absent) == 1 else 'are'} not there"
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        try:
            _open(path)
        except ModelError as error:
            return str(error)
    return None


def _open(path: Path) -> None:
    """Open a file of tensors, which checks that it is whole."""
    import torch
    from safetensors import safe_open

    try:
        if path.suffix == ".safetensors":
            safe_open(path, framework="pt")
        else:
            torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # see told; of a pickle, torch would advise to run what is in it
        reason = f": {brief(error)}" if path.suffix == ".safetensors" else ""
        raise ModelError(f"{path.name} is damaged or no file of plain tensors{reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars, as the caller has its own, and from reporting what is an error here."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
