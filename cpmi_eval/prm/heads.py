"""A PRM's head: read from the checkpoint by its published names, checked, and computed in fp32.

Nothing here is ever initialised: a tensor that is missing, of another shape, or left over is an error that names it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpmi_eval.errors import ModelError
from cpmi_eval.prm.specs import Spec, Transform

STORES = ("model.safetensors", "pytorch_model.bin")


class ScoreHead:
    """Linear layers with an activation between them; fp32, or fp64 for hidden states of that."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor | None]], activation: str | None = None) -> None:
        """Keep (weight [out, in], bias [out] or None) of each layer."""
        self.layers = [(weight.float(), None if bias is None else bias.float()) for weight, bias in layers]
        self.activation = activation

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the head's numbers [n, outputs] of hidden states [n, width]."""
        values = hidden if hidden.dtype == torch.float64 else hidden.float()
        self.layers = [(weight.to(values), None if bias is None else bias.to(values)) for weight, bias in self.layers]
        for index, (weight, bias) in enumerate(self.layers):
            if index and self.activation is not None:
                values = getattr(torch.nn.functional, self.activation)(values)
            values = torch.nn.functional.linear(values, weight, bias)
        return values

    @property
    def parameters(self) -> int:
        """How many weights the head has."""
        return sum(weight.numel() + (0 if bias is None else bias.numel()) for weight, bias in self.layers)


class TokenHead(ScoreHead):
    """The logits of some tokens of a language model, or the mean of all, as the model itself scales them."""

    def __init__(self, model: Any, tokens: Sequence[int] | None) -> None:
        """Take the rows of ``tokens`` from the model's output embeddings; ``None``: the mean row.

        Raises:
            ModelError: the model has no output embeddings, or caps its logits, so that their mean is not linear.
        """
        output = model.get_output_embeddings()
        if output is None:
            raise ModelError(f"{type(model).__name__} has no language-model head; the spec needs one")
        if output.weight.device.type == "meta":
            raise ModelError("the language-model head does not fit beside the rest; this spec reads its weights")
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        weight, bias = output.weight.detach(), getattr(output, "bias", None)
        bias = None if bias is None else bias.detach()
        if tokens is None and self.softcap is not None:
            raise ModelError("the spec averages all logits, which this model caps: that is no PRM of this family")
        if tokens is not None and max(tokens) >= len(weight):
            raise ModelError(f"the spec reads the logit of token {max(tokens)}; the model has {len(weight)}")
        rows = [_rows(one, tokens) for one in (weight, bias) if one is not None]
        super().__init__([(rows[0], rows[1] if len(rows) > 1 else None)])

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits [n, tokens] (or their mean [n, 1]) at hidden states [n, width]."""
        logits = super().__call__(hidden) * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def _rows(table: Tensor, tokens: Sequence[int] | None) -> Tensor:
    """Return the rows of ``tokens`` of a table [vocabulary, ...] in fp32, or their mean as one row."""
    return table.float().mean(dim=0, keepdim=True) if tokens is None else table[list(tokens)].float()


def scores(values: Tensor, transform: Transform) -> Tensor:
    """Return one score per row of a head's numbers [n, outputs]."""
    if transform.kind in ("sigmoid", "identity"):
        only = values[:, 0]
        return only.sigmoid() if transform.kind == "sigmoid" else only
    chosen = values.softmax(dim=-1)[:, list(transform.classes)]
    return chosen[:, 0] - chosen[:, 1] if transform.kind == "difference" else chosen.sum(dim=-1)


def from_tensors(spec: Spec, tensors: Mapping[str, Tensor], width: int, place: str) -> ScoreHead:
    """Build the head that a spec describes from named tensors.

    Args:
        spec: the family; its head has layers of its own.
        tensors: everything the checkpoint holds under the head's names and their prefixes.
        width: of the decoder's hidden states.
        place: the checkpoint, for messages.

    Raises:
        ModelError: a tensor is missing, has another shape, or is one that the spec does not know.
    """
    head = spec.read.head
    used: set[str] = set()
    layers: list[tuple[Tensor, Tensor | None]] = []
    for index, layer in enumerate(head.layers):
        last = index + 1 == len(head.layers)
        weight = _tensor(tensors, layer.weight, spec, place)
        out = head.outputs if last else weight.shape[0]
        _shape(weight, (out, width), layer.weight, place)
        bias = None
        if layer.bias is not None and not (layer.bias_optional and layer.bias not in tensors):
            bias = _tensor(tensors, layer.bias, spec, place)
            _shape(bias, (out,), layer.bias, place)
            used.add(layer.bias)
        used.add(layer.weight)
        layers.append((weight, bias))
        width = out
    unknown = sorted(set(tensors) - used)
    if unknown:
        raise ModelError(
            f"{place} holds {', '.join(unknown)} beside the head that the spec {spec.name!r} describes; "
            "is it of another family? Name it with --prm_spec"
        )
    return ScoreHead(layers, head.activation)


def _tensor(tensors: Mapping[str, Tensor], name: str, spec: Spec, place: str) -> Tensor:
    if name not in tensors:
        raise ModelError(
            f"{place} has no tensor {name}, which the spec {spec.name!r} reads its scores from; "
            "is it of another family? Name it with --prm_spec"
        )
    return tensors[name]


def _shape(tensor: Tensor, wanted: tuple[int, ...], name: str, place: str) -> None:
    if tuple(tensor.shape) != wanted:
        raise ModelError(f"{name} of {place} has the shape {tuple(tensor.shape)}, but {wanted} is needed")


def prefixes(spec: Spec) -> tuple[str, ...]:
    """Return the first parts of the head's tensor names, such as ``score.``."""
    return tuple({f"{layer.weight.partition('.')[0]}." for layer in spec.read.head.layers})


def read_tensors(source: str, starts: tuple[str, ...], revision: str | None = None) -> dict[str, Tensor]:
    """Read the tensors whose names begin with ``starts``, and no others, from a checkpoint's weight files.

    Args:
        source: a folder or hub id.
        starts: beginnings of names.
        revision: of the hub repository.

    Raises:
        ModelError: there are no weight files, or they cannot be read.
    """
    for store in STORES:
        index = _file(source, f"{store}.index.json", revision)
        if index is not None:
            try:
                places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                files = sorted({str(file) for name, file in places.items() if name.startswith(starts)})
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                raise ModelError(f"{index} is not an index of weights: {error}") from error
        elif _file(source, store, revision) is not None:
            files = [store]
        else:
            continue
        found: dict[str, Tensor] = {}
        for file in files:
            path = _file(source, file, revision)
            if path is None:
                raise ModelError(f"{source} has no {file}, which its index names")
            found.update(_read_file(path, starts))
        return found
    raise ModelError(f"{source} holds no weights: neither {' nor '.join(STORES)}, nor an index of them")


def _read_file(path: Path, starts: tuple[str, ...]) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        try:
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            return {name: tensor for name, tensor in held.items() if name.startswith(starts)}
        except Exception as error:  # torch would advise to run what is in it
            raise ModelError(f"{path} cannot be read as plain tensors") from error
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(starts)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _file(source: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a folder or hub repository, or None."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except EntryNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"cannot read {name} of {source} from the hub: {error}") from error
