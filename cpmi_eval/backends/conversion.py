"""GGUF files become standard checkpoints in the user's cache: once, whole, and checked before each use.

A folder there is named after the file and its hash. What was written is noted in ``converted.json``, since a name alone
would vouch for any weights that lie under it.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from cpmi_eval.backends import loading
from cpmi_eval.errors import ModelError

log = logging.getLogger(__name__)

RECORD = "converted.json"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def converted(gguf: Path, sha256: str, models: Path) -> Path:
    """Return the folder with the checkpoint made from a GGUF file of hash ``sha256``, made now unless it is whole.

    ``models``: where converted checkpoints lie; need not be writable if this one is there.

    Raises:
        ModelError: the file cannot be read, would be read in part, or its checkpoint cannot be written.
    """
    target = models / f"{gguf.stem}-{sha256[:12]}"
    if _is_whole(target, sha256):
        return target
    from safetensors import SafetensorError

    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not _is_whole(target, sha256):
                _make_room(target)
                _convert(gguf, sha256, target)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot write the checkpoint made from {gguf} into {models}: {loading.brief(error)}; set "
            "CPMI_EVAL_CACHE to a folder that can be written, on a disk with room"
        ) from error
    return target


def _is_whole(folder: Path, sha256: str) -> bool:
    """Whether a folder holds what was written into it when the file of this hash was converted, and nothing else.

    Files are read again only where size or times differ from the noted ones, as in a cache that was copied.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = {path.name: path for path in folder.iterdir() if path.name != RECORD}
        return (
            record["source"] == sha256
            and record["files"].keys() == files.keys()
            and all(
                noted["stamp"] == _stamp(files[name]) or noted["sha256"] == digest(files[name])
                for name, noted in record["files"].items()
            )
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False  # no such folder, or no record of ours in it


def _stamp(path: Path) -> list[int]:
    """What a file cannot be changed without: size, and times in ns of its content and of its entry on disk."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _make_room(target: Path) -> None:
    """Remove what a killed conversion left behind, and a folder that is not what was converted; under its lock."""
    for left in target.parent.glob(f".{glob.escape(target.name)}-????????"):
        shutil.rmtree(left)
    if target.exists():
        log.warning("%s is not as it was converted; it is made again", target)
        shutil.rmtree(target)


def _convert(gguf: Path, sha256: str, target: Path) -> None:
    """Write a GGUF file's weights (dequantized, fp32) and tokenizer as a standard checkpoint, all or nothing."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"reading {gguf.name} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM

    try:
        reader = GGUFReader(gguf)
    except Exception as error:  # of a damaged file the reader makes anything
        raise ModelError(f"{gguf} is no GGUF file, or damaged or cut short: {loading.brief(error)}") from error
    folder, file = str(gguf.parent), {"gguf_file": gguf.name, "shown": str(gguf)}
    tokenizer = loading.tokenizer(folder, {}, **file)
    read = loading.weights(folder, "AutoModelForCausalLM", {}, dtype="float32", **file)
    with loading.told("the weights of", str(gguf)):
        _refuse_dropped(gguf, reader, read)
        # A model read from GGUF counts as quantized and refuses to be saved: its weights go into a fresh one.
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = AutoModelForCausalLM.from_config(config, dtype="float32", trust_remote_code=False)
        model.load_state_dict(read.state_dict())
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        files = {path.name: {"sha256": digest(path), "stamp": _stamp(path)} for path in sorted(scratch.iterdir())}
        (scratch / RECORD).write_text(json.dumps({"source": sha256, "files": files}, indent=1), encoding="utf-8")
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_dropped(gguf: Path, reader: Any, model: Any) -> None:
    """Refuse a file of more numbers than the model: transformers passes over tensors that it has no name for.

    Such as ``rope_freqs``, by which Llama 3.1 and later scale their rotary angles; without it every score is off.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    held = sum(int(tensor.n_elements) for tensor in reader.tensors)
    used = sum(parameter.numel() for parameter in model.parameters())  # a tied one counts once
    if held == used:
        return
    name = reader.fields["general.architecture"].contents()
    architecture = next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == name)
    names = get_tensor_name_map(architecture, model.config.num_hidden_layers)
    read = {names.get_name(key, (".weight", ".bias")) for key in model.state_dict()}
    dropped = [tensor.name for tensor in reader.tensors if tensor.name not in read]
    raise ModelError(
        f"transformers reads {used:,} of the {held:,} numbers in {gguf}; left out: {loading.some(dropped)}. "
        "Give --model the checkpoint that the file was made from"
    )
