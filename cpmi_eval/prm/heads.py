"""A PRM's head: read from the checkpoint by its published names, checked, and computed in fp32.

Nothing here is ever initialised: a tensor that is missing, of another shape, or left over is an error that names it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpmi_eval.engine.architecture import scaled
from cpmi_eval.errors import ModelError
from cpmi_eval.prm.specs import Spec, Transform

STORES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class WeightIndex:
    """Which file holds which tensor."""

    weight_map: dict[str, str]


class ScoreHead:
    """Linear layers (weight [out, in], bias [out] or None) with an activation between; fp32, or fp64 as the states."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor | None]], activation: str | None = None) -> None:
        self.layers = [(weight.float(), None if bias is None else bias.float()) for weight, bias in layers]
        self.activation = activation

    def __call__(self, hidden: Tensor) -> Tensor:
        """The head's numbers [n, outputs] of hidden states [n, width]."""
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
        self.config = model.config
        weight, bias = output.weight.detach(), getattr(output, "bias", None)
        bias = None if bias is None else bias.detach()
        if tokens is None and getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None:
            raise ModelError("the spec averages all logits, which this model caps: that is no PRM of this family")
        if tokens is not None and max(tokens) >= len(weight):
            raise ModelError(f"the spec reads the logit of token {max(tokens)}; the model has {len(weight)}")
        chosen = [
            one.float().mean(dim=0, keepdim=True) if tokens is None else one[list(tokens)].float()
            for one in (weight, bias)
            if one is not None
        ]
        super().__init__([(chosen[0], chosen[1] if len(chosen) > 1 else None)])

    def __call__(self, hidden: Tensor) -> Tensor:
        """The logits [n, tokens] (or their mean [n, 1]) at hidden states [n, width]."""
        logits: Tensor = scaled(super().__call__(hidden), self.config)
        return logits


def scores(values: Tensor, transform: Transform) -> Tensor:
    """One score per row of a head's numbers [n, outputs]."""
    if transform.kind in ("sigmoid", "identity"):
        only = values[:, 0]
        return only.sigmoid() if transform.kind == "sigmoid" else only
    chosen = values.softmax(dim=-1)[:, list(transform.classes)]
    return chosen[:, 0] - chosen[:, 1] if transform.kind == "difference" else chosen.sum(dim=-1)


def from_tensors(spec: Spec, tensors: Mapping[str, Tensor], width: int, place: str) -> ScoreHead:
    """Build the head that a spec describes from the tensors that the checkpoint ``place`` holds under its prefixes.

    ``width`` is that of the decoder's hidden states.

    Raises:
        ModelError: a tensor is missing, has another shape, or is one that the spec does not know.
    """
    head = spec.read.head
    used: set[str] = set()
    layers: list[tuple[Tensor, Tensor | None]] = []

    def tensor(name: str, *shape: int) -> Tensor:
        if name not in tensors:
            raise ModelError(
                f"{place} has no tensor {name}, which the spec {spec.name!r} reads its scores from; "
                "is it of another family? Name it with --prm_spec"
            )
        found = tensors[name]
        if tuple(found.shape) != shape:
            raise ModelError(f"{name} of {place} has the shape {tuple(found.shape)}, but {shape} is needed")
        used.add(name)
        return found

    for index, layer in enumerate(head.layers):
        inner = index + 1 < len(head.layers) and layer.weight in tensors
        out = tensors[layer.weight].shape[0] if inner else head.outputs  # of the last layer it is told
        weight, bias = tensor(layer.weight, out, width), None
        if layer.bias is not None and not (layer.bias_optional and layer.bias not in tensors):
            bias = tensor(layer.bias, out)
        layers.append((weight, bias))
        width = out
    unknown = sorted(set(tensors) - used)
    if unknown:
        raise ModelError(
            f"{place} holds {', '.join(unknown)} beside the head that the spec {spec.name!r} describes; "
            "is it of another family? Name it with --prm_spec"
        )
    return ScoreHead(layers, head.activation)


def prefixes(spec: Spec) -> tuple[str, ...]:
    """The first parts of the head's tensor names, such as ``score.``."""
    return tuple({f"{layer.weight.partition('.')[0]}." for layer in spec.read.head.layers})


def read_tensors(source: str, starts: tuple[str, ...], revision: str | None = None) -> dict[str, Tensor]:
    """Read the tensors whose names begin with ``starts``, and no others, from a folder's or hub id's weight files.

    Raises:
        ModelError: there are no weight files, or they cannot be read.
    """
    from cpmi_eval.prm.detect import file_of  # a machine that reads no checkpoint need not have what these import
    from cpmi_eval.record import door

    for store in STORES:
        index = file_of(source, f"{store}.index.json", revision)
        if index is not None:
            places = door.read_json(index, WeightIndex, door.Source(str(index), ModelError)).weight_map
            files = sorted({file for name, file in places.items() if name.startswith(starts)})
        elif file_of(source, store, revision) is not None:
            files = [store]
        else:
            continue
        found: dict[str, Tensor] = {}
        for file in files:
            path = file_of(source, file, revision)
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
