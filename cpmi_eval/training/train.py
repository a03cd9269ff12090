"""From a file of labels to a PRM in a folder, which can be interrupted at any moment and goes on where it stopped.

The folder holds a standard checkpoint, its tokenizer, ``prm_spec.json`` and ``train.json``; while it is being made also
``checkpoints/``. ``left_out.jsonl`` lists the examples that could not be trained on.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cpmi_eval.errors import StoreError, UsageError
from cpmi_eval.export.labels import about_path
from cpmi_eval.manifest import package_versions
from cpmi_eval.record import door
from cpmi_eval.record.journal import differences
from cpmi_eval.record.store import make_aside
from cpmi_eval.training.config import TrainConfig
from cpmi_eval.types import JSON

REPORT = "train.json"
LEFT_OUT = "left_out.jsonl"
CHECKPOINTS = "checkpoints"
SCHEMA_VERSION = 1
NEEDED = {"accelerate": "training", "peft": "--lora"}


@dataclass(frozen=True)
class Trained:
    """A finished training. ``about`` is the content of train.json, ``left_out`` what was not trained on."""

    path: Path
    about: JSON
    left_out: tuple[JSON, ...]


def train(
    config: TrainConfig, *, fresh: bool = False, progress: Callable[[str, int, int], None] | None = None
) -> Trained:
    """Train a PRM, or finish a training that was interrupted in the same folder.

    Args:
        config: what to train on what.
        fresh: set an earlier training in the folder aside instead of resuming it.
        progress: called with a phase, updates done and updates in all.

    Raises:
        UsageError: the labels, the model or the folder cannot be used; says why.
    """
    for package in ("accelerate", *(["peft"] if config.lora else [])):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{NEEDED[package]} needs {package}: pip install 'cpmi-eval[train]'")
    identity, folder = config.identity(), Path(config.to)
    lock = FileLock(str(_claimed(folder) / ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreError(f"another process is training into {folder}; wait for it or choose another --to") from None
    with lock:
        if fresh:
            _set_aside(folder)
        begun = _begun(folder, identity)
        if begun is not None and begun["finished"]:
            return Trained(folder, begun, _left_out(folder))
        if begun is None:
            door.write_json(
                folder / REPORT, {"schema_version": SCHEMA_VERSION, "identity": identity, "finished": False}
            )
        return _train(config, identity, folder, progress or (lambda *_: None))


def _claimed(folder: Path) -> Path:
    """Create the folder, or make sure that it holds a training."""
    if folder.is_file():
        raise StoreError(f"{folder} is a file; --to takes a folder")
    if folder.is_dir():
        names = {one.name for one in folder.iterdir() if not one.name.startswith((".", "earlier-"))}
        if names and REPORT not in names:
            raise StoreError(f"{folder} is not empty and holds no training; choose another --to")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _set_aside(folder: Path) -> None:
    ours = [one for one in folder.iterdir() if not one.name.startswith((".", "earlier-"))]
    if not ours:
        return
    aside = make_aside(folder)
    for one in ours:
        one.rename(aside / one.name)


def _begun(folder: Path, identity: JSON) -> JSON | None:
    """Return what is known of the training in the folder, if there is one.

    Raises:
        StoreError: it is another training; names what differs.
    """
    if not (folder / REPORT).exists():
        return None
    begun: JSON = door.read_json(folder / REPORT, dict)
    theirs, ours = begun.get("identity", {}), json.loads(json.dumps(identity))
    if differ := differences(theirs, ours, sorted({*theirs, *ours})):
        raise StoreError(f"{folder} holds a different training ({differ}). Choose another --to, or --fresh")
    return begun


def _left_out(folder: Path) -> tuple[JSON, ...]:
    path = folder / LEFT_OUT
    return tuple(door.read_lines(path, dict)) if path.exists() else ()


def _train(config: TrainConfig, identity: JSON, folder: Path, progress: Callable[[str, int, int], None]) -> Trained:
    """Load, fit, save."""
    from cpmi_eval.backends.models import pick_device, pick_dtype
    from cpmi_eval.engine.architecture import max_length
    from cpmi_eval.prm import specs
    from cpmi_eval.prm.encode import EncodingError, TraceEncoder
    from cpmi_eval.training.examples import encode, read_goods, split
    from cpmi_eval.training.fit import arguments, evaluate, fit

    progress("loading", 0, 0)
    device = pick_device(config.device)
    half = pick_dtype(config.dtype, device) == "bfloat16"
    examples = read_goods(Path(config.labels), config.form, config.threshold)
    model, tokenizer = load(config, device)
    try:
        encoder = TraceEncoder(config.spec, tokenizer)
    except EncodingError as error:
        raise UsageError(f"{config.model} cannot be read by --prm_spec {config.prm_spec}: {error}") from error
    longest = max_length(model.config)
    if config.max_length is not None and longest is not None and config.max_length > longest:
        raise UsageError(
            f"--max_length {config.max_length} is more than the {longest:,} tokens that {config.model} takes"
        )
    targets, left_out = encode(examples, encoder, config.max_length or longest)
    if not targets:
        raise UsageError(f"none of the {len(examples)} examples can be trained on: {left_out[0]['message']}")
    kept, held = split(targets, config.eval_share, config.seed)
    progress("evaluating", 0, 0)
    before = evaluate(model, held, config.batch_size, half)
    args = arguments(config, str(folder / CHECKPOINTS), device == "cpu", half)
    resume = _last_checkpoint(folder / CHECKPOINTS)
    started = time.time()
    fitted = fit(model, kept, args, resume, lambda done, total: progress("training", done, total))
    model = model.merge_and_unload() if config.lora else model
    after = evaluate(model, held, config.batch_size, half)
    _save(model, tokenizer, folder)
    specs.write(config.spec, folder)
    door.replace_bytes(folder / LEFT_OUT, door.to_lines(left_out))
    labels = about_path(Path(config.labels))
    about = {
        "schema_version": SCHEMA_VERSION,
        "identity": identity,
        "finished": True,
        "config": {**asdict(config), "lora": dict(config.lora)},
        "labels": door.read_json(labels, dict) if labels.exists() else None,
        "model": {"parameters": model.num_parameters(), "device": device, "dtype": "bfloat16" if half else "float32"},
        "examples": {"read": len(examples), "trained": len(kept), "held_out": len(held), "left_out": len(left_out)},
        "tokens": {"per_epoch": sum(len(one.ids) for one in kept), "steps": sum(len(one.reads) for one in kept)},
        "evaluation": {"before": before, "after": after},
        "fit": {**fitted, "resumed": resume is not None, "began": started},
        "versions": package_versions(),
    }
    door.write_json(folder / REPORT, about)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Trained(folder, about, tuple(left_out))


def _last_checkpoint(folder: Path) -> str | None:
    """Return the newest whole checkpoint; one that was being written when the process died is removed."""
    whole = []
    for one in folder.glob("checkpoint-*"):
        try:
            door.read_json(one / "trainer_state.json", dict)
        except UsageError:
            shutil.rmtree(one)
        else:
            whole.append(one)
    return str(max(whole, key=lambda one: int(one.name.rpartition("-")[2]))) if whole else None


def load(config: TrainConfig, device: str) -> tuple[Any, Any]:
    """Return the model with a new two-class head, initialised under the seed, and its tokenizer.

    Raises:
        ModelError: the model cannot be loaded whole, or transformers has no token classifier for it.
    """
    from transformers import set_seed

    from cpmi_eval.backends import loading
    from cpmi_eval.backends.models import loadable, resolve

    source = resolve(config.model)
    where = loadable(source, source.sha256())
    tokenizer = loading.tokenizer(where, {})
    set_seed(config.seed)
    model = loading.weights(
        where,
        "AutoModelForTokenClassification",
        {},
        dtype="float32",
        num_labels=2,
        spare=("lm_head.",),
        new=("score.",),
    )
    model.config.use_cache = False
    if config.lora:
        model = _adapted(model, config)
    return model.to(device), tokenizer


def _adapted(model: Any, config: TrainConfig) -> Any:
    """Return the model with low-rank adapters on all linear layers of its decoder; the new head is trained whole."""
    from peft import LoraConfig, get_peft_model

    settings = config.adapters
    return get_peft_model(
        model,
        LoraConfig(
            task_type="TOKEN_CLS",
            r=settings["r"],
            lora_alpha=settings["alpha"],
            lora_dropout=settings["dropout"],
            target_modules="all-linear",
            modules_to_save=["score"],
        ),
    )


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the checkpoint; ``train.json`` says only afterwards that it is whole."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
