"""What distinguishes one family of process reward models from another, as a validated value read from YAML.

A spec says how the token ids of a trace are built (:class:`Input`) and where and how its step scores are read
(:class:`Read`). The built-in ones are in ``specs/*.yaml``, each with its source. A checkpoint's folder may carry its
own (:data:`FILE`); any YAML or JSON file of the same shape serves.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from cpmi_eval.errors import UnknownNameError, UsageError

FILE = "prm_spec.json"
FOLDER = Path(__file__).parent / "specs"
Aggregation: TypeAlias = Literal["last", "min", "product", "mean", "max"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
OUTPUTS = {"lm": 2, "lm_mean": 1, "scalar": 1}  # of heads that have no other number of them
LAYERS = {"lm": (0, 0), "lm_mean": (0, 0), "classes": (1, 1), "scalar": (1, 1), "mlp": (2, 8)}


@dataclass(frozen=True)
class Input:
    """How the ids of a trace are built.

    ``form``: ``plain``: problem and steps one after another; ``chat``: one user turn with the problem, one assistant
    turn with all steps; ``turns``: one user turn per step, to each of which the assistant answers with the marker.
    ``before`` ({problem}) comes first, then for each step ``step`` ({step}, {n} from 1) and the marker, with
    ``between`` after every marker but the last and ``after`` at the end. ``marker`` is a text, ``marker_id`` an id.
    ``join``: ``ids``: every piece is tokenized apart; ``text``: the whole is tokenized at once. ``exclusive``: problem
    and steps must not contain the marker. ``bos``: one BOS leads (where the tokenizer has one); else none is added.
    """

    form: Literal["plain", "chat", "turns"]
    step: str
    before: str = "{problem}"
    between: str = ""
    after: str = ""
    system: str | None = None
    marker: str | None = None
    marker_id: int | None = None
    join: Literal["ids", "text"] = "text"
    exclusive: bool = True
    bos: bool = False


@dataclass(frozen=True)
class Layer:
    """A linear layer of a head, by the names its tensors have in the checkpoint."""

    weight: str
    bias: str | None = None
    bias_optional: bool = False


@dataclass(frozen=True)
class HeadLayout:
    """What turns a hidden state into numbers.

    ``lm``: the logits of two ``tokens`` (texts or ids); ``lm_mean``: the mean of all logits; ``classes`` / ``scalar``:
    one linear layer; ``mlp``: several, with ``activation`` between them. ``outputs``: how many numbers.
    """

    kind: Literal["lm", "lm_mean", "classes", "mlp", "scalar"]
    outputs: int = 0
    tokens: tuple[str | int, ...] = ()
    layers: tuple[Layer, ...] = ()
    activation: Literal["relu", "gelu", "silu", "tanh"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", self.outputs or OUTPUTS.get(self.kind, 0))


@dataclass(frozen=True)
class Transform:
    """What turns the head's numbers into the score.

    ``softmax``: the probability of ``classes[0]``; ``sum``: the summed probability of ``classes``; ``difference``: the
    probability of ``classes[0]`` less that of ``classes[1]``; ``sigmoid`` and ``identity``: of the only number.
    """

    kind: Literal["softmax", "sum", "difference", "sigmoid", "identity"]
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Read:
    """Where a step's score is read, and how.

    ``at``: the ``marker`` itself, the position ``before_marker`` (which predicts it), or ``last_of_step``. ``part``:
    which token of a marker of several, ``last`` or ``first``. ``drop_markers``: the model sees no markers at all.
    """

    at: Literal["marker", "before_marker", "last_of_step"]
    head: HeadLayout
    transform: Transform
    part: Literal["last", "first"] = "last"
    drop_markers: bool = False


@dataclass(frozen=True)
class Spec:
    """One family of process reward models.

    ``checkpoints``: ids on the hub known to be of it; ``architectures``: names in config.json that identify it.
    ``native_threshold``: a step scored below it is called wrong. ``aggregation``: how steps become a solution's score.
    """

    name: str
    summary: str
    source: str
    input: Input
    read: Read
    native_threshold: float
    aggregation: Aggregation
    checkpoints: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """The names of the built-in specs."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def _builtin(name: str) -> Spec:
    return read(FOLDER / f"{name}.yaml")


def builtin() -> tuple[Spec, ...]:
    """The built-in specs, by name."""
    return tuple(map(_builtin, names()))


def load(name_or_path: str) -> Spec:
    """A built-in spec by name, or the one in a YAML or JSON file.

    Raises:
        UsageError: no such spec, or a file that is not a valid one.
    """
    if name_or_path in names():
        return _builtin(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return read(path)
    raise UsageError(f"{UnknownNameError('PRM spec', name_or_path, names())} A .yaml or .json file serves too.")


def read(path: Path) -> Spec:
    """The spec in a YAML or JSON file.

    Raises:
        UsageError: the file cannot be read, or does not hold a valid spec.
    """
    from cpmi_eval.record import door  # a machine that reads no spec need not have what it imports

    source = door.Source(str(path), UsageError)
    return parse(door.parse_yaml(door.read_bytes(path, source), object, source), str(path))


def as_dict(spec: Spec) -> dict[str, Any]:
    """What :func:`parse` reads back as the same spec: plain lists and mappings, nothing that is unset."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(one) for key, one in value.items() if one is not None and one != ()}
        return [plain(one) for one in value] if isinstance(value, tuple | list) else value

    document: dict[str, Any] = plain(asdict(spec))
    return document


def write(spec: Spec, folder: Path) -> Path:
    """Write a spec beside a checkpoint's weights, where :func:`cpmi_eval.prm.detect.resolve` finds it."""
    path = folder / FILE
    path.write_text(json.dumps(as_dict(spec), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def parse(content: object, place: str) -> Spec:
    """The spec that a document of plain JSON values describes; ``place`` is where they come from, for messages.

    Raises:
        UsageError: an unknown key or name (close ones are suggested), a wrong type, or settings that contradict each
            other.
    """
    from cpmi_eval.record import door

    _check_names(content, Spec, "", place)
    spec = door.convert(content, Spec, door.Source(place, UsageError))
    for fault in (*_input_faults(spec.input, spec.read), *_read_faults(spec.read, spec.input)):
        raise UsageError(f"{place}: {fault}")
    if not math.isfinite(spec.native_threshold):
        raise UsageError(f"{place}: native_threshold must be a number, not {spec.native_threshold}")
    return spec


def _check_names(value: object, kind: Any, path: str, place: str) -> None:
    """Refuse keys that there are not, and words that are no choice, before kinds are looked at."""
    choices = [one for part in (kind, *get_args(kind)) if get_origin(part) is Literal for one in get_args(part)]
    if choices and isinstance(value, str) and value not in choices:
        raise UsageError(f"{place}: {UnknownNameError(path, value, choices)}")
    if get_origin(kind) is tuple and isinstance(value, list):
        for index, one in enumerate(value):
            _check_names(one, get_args(kind)[0], f"{path}[{index}]", place)
    if not is_dataclass(kind):
        return
    if not isinstance(value, Mapping):
        raise UsageError(f"{place}: {path or 'the spec'} must be a mapping, not {type(value).__name__}")
    kinds = get_type_hints(kind)
    for key, one in value.items():
        if key not in kinds:
            unknown = UnknownNameError(f"key of {path or 'a PRM spec'}", str(key), kinds)
            raise UsageError(f"{place}: {unknown}")
        _check_names(one, kinds[key], f"{path}.{key}" if path else key, place)


def _input_faults(given: Input, reading: Read) -> Iterator[str]:
    yield from _template_faults("before", given.before, {"problem"}, "problem")
    yield from _template_faults("step", given.step, {"step", "n"}, "step")
    yield from _template_faults("between", given.between)
    yield from _template_faults("after", given.after)
    marked = given.marker is not None or given.marker_id is not None
    if given.marker is not None and given.marker_id is not None:
        yield "input.marker_id and marker are both given; one of them says what the marker is"
    if given.marker == "":
        yield "input.marker must not be empty"
    if given.marker_id is not None and given.marker_id < 0:
        yield "input.marker_id must not be negative"
    if reading.drop_markers and marked:
        yield "input.marker is given, but read.drop_markers says that the model sees no markers"
    if not marked and not reading.drop_markers:
        yield "input.marker is missing: give marker or marker_id, or set read.drop_markers"
    if given.marker_id is not None and given.join != "ids":
        yield "input.marker_id needs join: ids; a text cannot hold a token id"
    if given.form == "plain":
        if given.system is not None:
            yield "input.system needs form: chat or turns; put the text into before"
        return
    for key, value, plain in (("join", given.join, "text"), ("bos", given.bos, False), ("after", given.after, "")):
        if value != plain:
            yield f"input.{key} must be {plain!r} with form: {given.form}: the chat template sets it"
    if given.form == "turns" and given.between:
        yield "input.between has no place with form: turns"


def _template_faults(key: str, text: str, known: Set[str] = frozenset(), wanted: str | None = None) -> Iterator[str]:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        yield f"input.{key} is not a template: {error}; a literal brace is written twice"
        return
    found = {name for _, name, _, _ in parts if name is not None}
    if not found <= known or any(form or conversion for _, _, form, conversion in parts):
        usable = ", ".join(f"{{{name}}}" for name in sorted(known)) or "none"
        yield f"input.{key} has placeholders other than {usable}; a literal brace is written twice"
    if wanted and wanted not in found:
        yield f"input.{key} must contain {{{wanted}}}"


def _read_faults(reading: Read, given: Input) -> Iterator[str]:
    head, transform = reading.head, reading.transform
    if reading.drop_markers and (reading.at != "last_of_step" or given.join != "ids"):
        yield "read.drop_markers needs at: last_of_step and join: ids"
    if reading.part == "first" and reading.at != "marker":
        yield f"read.part chooses a token of the marker, but the score is read at {reading.at}"
    if given.form == "turns" and reading.at == "last_of_step":
        yield "read.at last_of_step cannot be told apart from the template with form: turns"
    if len(head.tokens) != (2 if head.kind == "lm" else 0):
        yield f"read.head.tokens must be {'two' if head.kind == 'lm' else 'left out'} with kind: {head.kind}"
    few, many = LAYERS[head.kind]
    if not few <= len(head.layers) <= many:
        yield f"read.head.layers are {len(head.layers)}; kind: {head.kind} has {few or 'none'}"
    for index, layer in enumerate(head.layers):
        if layer.bias_optional and layer.bias is None:
            yield f"read.head.layers[{index}].bias_optional is set where there is no bias"
    if (head.activation is None) == (head.kind == "mlp"):
        yield f"read.head.activation must be {'given' if head.kind == 'mlp' else 'left out'} here"
    least = 2 if head.kind == "classes" else 1
    if head.outputs < least or head.outputs != OUTPUTS.get(head.kind, head.outputs):
        yield f"read.head.outputs cannot be {head.outputs} with kind: {head.kind}"
    classes = transform.classes
    fixed = {"softmax": 1, "difference": 2, "sigmoid": 0, "identity": 0}
    count = fixed.get(transform.kind, len(classes) or 1)
    if len(classes) != count or len(set(classes)) != count:
        yield f"read.transform.classes must be {count} different classes with kind: {transform.kind}"
    if any(not 0 <= one < head.outputs for one in classes):
        yield f"read.transform.classes go past the head's {head.outputs} outputs"
    if (transform.kind in ("sigmoid", "identity")) != (head.outputs == 1):
        yield f"read.transform.kind {transform.kind} does not fit a head with {head.outputs} output(s)"
