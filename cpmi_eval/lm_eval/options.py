"""What ``--model_args`` and lm-eval's own options mean to ``cpmi-hf``; each is used or refused."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cpmi_eval.backends import loading, models
from cpmi_eval.backends.hf import MODEL_ARGS, HFBackend
from cpmi_eval.errors import ModelError, UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions

if TYPE_CHECKING:
    from cpmi_eval.engine.scoring import Limits

log = logging.getLogger(__name__)

OWN_ARGS = (
    *("pretrained", "dtype", "device", "batch_size", "max_batch_size", "add_bos_token", "prefix_token_id"),
    *("chat_template_args", "enable_thinking", "think_end_token"),
)
LM_EVAL_DEVICE = "cuda:0"  # what lm-eval's command line passes where --device is not given


def check_names(args: Mapping[str, Any]) -> None:
    """Refuse model arguments that nothing here uses (UsageError), or that lm-eval does not know either."""
    from lm_eval.models.huggingface import HFLM

    for key in args:
        if key in inspect.signature(HFLM).parameters:
            raise UsageError(f"cpmi-hf does not take {key}, which lm-eval's own --model hf does")
        raise UnknownNameError("model argument", key, (*OWN_ARGS, *MODEL_ARGS))


def open_backend(pretrained: str, dtype: str, device: str | None, args: Mapping[str, Any]) -> HFBackend:
    """Load the model.

    Args:
        pretrained: a preset, a hub id, a folder or a GGUF file.
        dtype: a torch dtype's name; ``auto`` is that of the checkpoint, as everywhere in lm-eval.
        device: a torch device; ``None`` is a GPU where there is one. lm-eval's default, ``cuda:0``, is the CPU where
            there is none, as with lm-eval's own models.
        args: those of ``MODEL_ARGS`` that are given.

    Raises:
        UsageError: several processes, or arguments that do not fit.
        ModelError: the model cannot be loaded, or a trie cannot serve it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("cpmi-hf runs in one process; start it without accelerate launch or torchrun")
    if device == LM_EVAL_DEVICE and models.pick_device("auto") == "cpu":
        log.warning("no GPU here: running on the CPU (--device is %s where it is not given)", LM_EVAL_DEVICE)
        device = "cpu"
    if dtype == "auto":
        source = models.resolve(pretrained)
        config = loading.configuration(models.loadable(source, source.sha256()), args)
        if getattr(config, "dtype", None) is None:
            raise UsageError(f"{pretrained} does not say its dtype; add dtype=float32 or dtype=bfloat16")
        dtype = str(config.dtype).removeprefix("torch.")
    try:
        return HFBackend.open(BackendOptions(pretrained, args, dtype, device or "auto"))
    except ModelError as error:
        raise without_pairwise(error) from error


def without_pairwise(error: ModelError) -> ModelError:
    """Return an error whose advice is one that lm-eval's user can follow: the pairwise way is lm-eval's own model."""
    return ModelError(str(error).replace("--prefix_sharing off", "lm-eval's own model, --model hf"))


def batch_count(batch_size: int | str, max_batch_size: int | None) -> int | None:
    """Return the batch size as a number, ``None`` for ``auto``; UsageError where it is no batch size."""
    text = str(batch_size)
    if text.startswith("auto:"):
        raise UsageError(f"batch_size {text}: nothing is detected by trial here that could be repeated; use auto")
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise UsageError(f"batch_size must be auto or a positive whole number, not {batch_size!r}")
    if max_batch_size is not None and (not isinstance(max_batch_size, int) or max_batch_size < 1):
        raise UsageError(f"max_batch_size must be a positive whole number, not {max_batch_size!r}")
    return None if text == "auto" else int(text)


def budgets(
    limits: Limits, batch_size: int | None, max_batch_size: int | None, max_length: int, args: Mapping[str, Any]
) -> Limits:
    """Return the budgets that a batch size stands for.

    Args:
        limits: what the model and the device suggest; they stay as they are for ``auto``.
        batch_size: how many packed rows go through the model at a time, and how many completions are decoded at a
            time; ``None`` for ``auto``.
        max_batch_size: an upper bound for ``auto``.
        max_length: the longest sequence, as lm-eval sees it.
        args: ``batch_tokens`` and ``slots``, where they are given, are not touched.
    """
    made = {"batch_tokens": limits.batch_tokens, "slots": limits.slots}
    if batch_size is not None:
        made = {"batch_tokens": batch_size * limits.row_tokens, "slots": batch_size}
    elif max_batch_size is not None:
        most = {"batch_tokens": max_batch_size * limits.row_tokens, "slots": max_batch_size}
        made = {name: min(made[name], most[name]) for name in made}
    given = {name: getattr(limits, name) for name in made if name in args}
    return replace(limits, max_length=max_length, **{**made, **given})
