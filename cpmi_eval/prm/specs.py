"""What distinguishes one family of process reward models from another, as a validated value read from YAML.

A spec says how the token ids of a trace are built (:class:`Input`) and where and how its step scores are read
(:class:`Read`). The built-in ones are in ``specs/*.yaml``, each with its source. A checkpoint's folder may carry its
own (:data:`FILE`); any YAML or JSON file of the same shape serves.
"""

from __future__ import annotations

import difflib
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from cpmi_eval.errors import UnknownNameError, UsageError

FILE = "prm_spec.json"
FOLDER = Path(__file__).parent / "specs"
FORMS = ("plain", "chat", "turns")
JOINS = ("ids", "text")
PLACES = ("marker", "before_marker", "last_of_step")
HEADS = ("lm", "lm_mean", "classes", "mlp", "scalar")
TRANSFORMS = ("softmax", "sum", "difference", "sigmoid", "identity")
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
AGGREGATIONS = ("last", "min", "product", "mean", "max")


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

    form: str
    step: str
    before: str = "{problem}"
    between: str = ""
    after: str = ""
    system: str | None = None
    marker: str | None = None
    marker_id: int | None = None
    join: str = "text"
    exclusive: bool = True
    bos: bool = False


@dataclass(frozen=True)
class Layer:
    """A linear layer of a head, by the names its tensors have in the checkpoint."""

    weight: str
    bias: str | None = None
    bias_optional: bool = False


@dataclass(frozen=True)
class Head:
    """What turns a hidden state into numbers.

    ``lm``: the logits of two ``tokens`` (texts or ids); ``lm_mean``: the mean of all logits; ``classes`` / ``scalar``:
    one linear layer; ``mlp``: several, with ``activation`` between them. ``outputs``: how many numbers.
    """

    kind: str
    outputs: int
    tokens: tuple[str | int, ...] = ()
    layers: tuple[Layer, ...] = ()
    activation: str | None = None


@dataclass(frozen=True)
class Transform:
    """What turns the head's numbers into the score.

    ``softmax``: the probability of ``classes[0]``; ``sum``: the summed probability of ``classes``; ``difference``: the
    probability of ``classes[0]`` less that of ``classes[1]``; ``sigmoid`` and ``identity``: of the only number.
    """

    kind: str
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Read:
    """Where a step's score is read, and how.

    ``at``: the ``marker`` itself, the position ``before_marker`` (which predicts it), or ``last_of_step``. ``part``:
    which token of a marker of several, ``last`` or ``first``. ``drop_markers``: the model sees no markers at all.
    """

    at: str
    head: Head
    transform: Transform
    part: str = "last"
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
    aggregation: str
    checkpoints: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """Return the names of the built-in specs."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load(name_or_path: str) -> Spec:
    """Return a built-in spec by name, or the one in a YAML or JSON file.

    Raises:
        UsageError: no such spec, or a file that is not a valid one.
    """
    if name_or_path in names():
        return _builtin(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return read(path)
    close = difflib.get_close_matches(name_or_path, names(), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown PRM spec {name_or_path!r}.{hint} Known: {', '.join(names())}; or a .yaml or .json file")


def read(path: Path) -> Spec:
    """Return the spec in a YAML or JSON file.

    Raises:
        UsageError: the file cannot be read, or does not hold a valid spec.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the PRM spec {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"the PRM spec {path} is not valid YAML: {error}") from error
    return parse(document, str(path))


@cache
def _builtin(name: str) -> Spec:
    return read(FOLDER / f"{name}.yaml")


def as_dict(spec: Spec) -> dict[str, Any]:
    """Return what :func:`parse` reads back as the same spec: plain lists and mappings, nothing that is unset."""

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


def parse(mapping: Any, place: str) -> Spec:
    """Return the spec that a mapping describes.

    Args:
        mapping: the document.
        place: where it comes from, for messages.

    Raises:
        UsageError: an unknown key (close ones are suggested), a wrong type, or settings that contradict each other.
    """
    top = _Section(mapping, place, "", Spec)
    given = _Section(top.required("input", Mapping), place, "input", Input)
    spec = Spec(
        name=top.text("name"),
        summary=top.text("summary"),
        source=top.text("source"),
        checkpoints=top.texts("checkpoints"),
        architectures=top.texts("architectures"),
        native_threshold=top.number("native_threshold"),
        aggregation=top.choice("aggregation", AGGREGATIONS),
        input=Input(
            form=given.choice("form", FORMS),
            step=given.text("step"),
            before=given.text("before", "{problem}"),
            between=given.text("between", ""),
            after=given.text("after", ""),
            system=given.optional("system", str),
            marker=given.optional("marker", str),
            marker_id=given.optional("marker_id", int),
            join=given.choice("join", JOINS, "text"),
            exclusive=given.flag("exclusive", True),
            bos=given.flag("bos", False),
        ),
        read=_read(top.required("read", Mapping), place),
    )
    _check_input(given, spec)
    _check_read(_Section(mapping["read"], place, "read", Read), spec)
    return spec


def _read(mapping: Any, place: str) -> Read:
    section = _Section(mapping, place, "read", Read)
    head = _Section(section.required("head", Mapping), place, "read.head", Head)
    transform = _Section(section.required("transform", Mapping), place, "read.transform", Transform)
    layers = []
    for index, one in enumerate(head.items("layers")):
        layer = _Section(one, place, f"read.head.layers[{index}]", Layer)
        layers.append(
            Layer(layer.text("weight"), layer.optional("bias", str), layer.flag("bias_optional", False)),
        )
        if layers[-1].bias_optional and layers[-1].bias is None:
            raise layer.error("bias_optional", "is set where there is no bias")
    tokens = head.items("tokens")
    if any(isinstance(token, bool) or not isinstance(token, str | int) for token in tokens):
        raise head.error("tokens", f"must be texts or token ids, not {tokens!r}")
    classes = transform.items("classes")
    if any(isinstance(one, bool) or not isinstance(one, int) for one in classes):
        raise transform.error("classes", f"must be whole numbers, not {classes!r}")
    kind = head.choice("kind", HEADS)
    default = {"lm": 2, "lm_mean": 1, "scalar": 1}.get(kind)
    return Read(
        at=section.choice("at", PLACES),
        part=section.choice("part", ("last", "first"), "last"),
        drop_markers=section.flag("drop_markers", False),
        head=Head(
            kind=kind,
            outputs=head.whole("outputs", default),
            tokens=tuple(tokens),
            layers=tuple(layers),
            activation=head.choice("activation", ACTIVATIONS) if "activation" in head.mapping else None,
        ),
        transform=Transform(transform.choice("kind", TRANSFORMS), tuple(classes)),
    )


def _check_input(section: _Section, spec: Spec) -> None:
    """Refuse input settings that contradict each other."""
    given, reading = spec.input, spec.read
    for key, known, wanted in (
        ("before", {"problem"}, {"problem"}),
        ("step", {"step", "n"}, {"step"}),
        ("between", set[str](), set[str]()),
        ("after", set[str](), set[str]()),
    ):
        section.template(key, getattr(given, key), known, wanted)
    if given.marker is not None and given.marker_id is not None:
        raise section.error("marker_id", "and marker are both given; one of them says what the marker is")
    if given.marker == "" or (given.marker_id is not None and given.marker_id < 0):
        raise section.error("marker" if given.marker == "" else "marker_id", "must not be empty or negative")
    has_marker = given.marker is not None or given.marker_id is not None
    if reading.drop_markers and has_marker:
        raise section.error("marker", "is given, but read.drop_markers says that the model sees no markers")
    if not has_marker and not reading.drop_markers:
        raise section.error("marker", "is missing: give marker or marker_id, or set read.drop_markers")
    if given.marker_id is not None and given.join != "ids":
        raise section.error("marker_id", "needs join: ids; a text cannot hold a token id")
    if given.form != "plain":
        for key, value, plain in (("join", given.join, "text"), ("bos", given.bos, False), ("after", given.after, "")):
            if value != plain:
                raise section.error(key, f"must be {plain!r} with form: {given.form}: the chat template sets it")
    elif given.system is not None:
        raise section.error("system", "needs form: chat or turns; put the text into before")
    if given.form == "turns" and given.between:
        raise section.error("between", "has no place with form: turns")


def _check_read(section: _Section, spec: Spec) -> None:
    """Refuse read settings that contradict each other."""
    reading, head, transform = spec.read, spec.read.head, spec.read.transform
    if reading.drop_markers and (reading.at != "last_of_step" or spec.input.join != "ids"):
        raise section.error("drop_markers", "needs at: last_of_step and join: ids")
    if reading.part == "first" and reading.at != "marker":
        raise section.error("part", f"chooses a token of the marker, but the score is read at {reading.at}")
    if spec.input.form == "turns" and reading.at == "last_of_step":
        raise section.error("at", "last_of_step cannot be told apart from the template with form: turns")
    if (len(head.tokens) != 2) if head.kind == "lm" else bool(head.tokens):
        raise section.error(
            "head.tokens", f"must be {'two' if head.kind == 'lm' else 'left out'} with kind: {head.kind}"
        )
    wanted = {"lm": (0, 0), "lm_mean": (0, 0), "classes": (1, 1), "scalar": (1, 1), "mlp": (2, 8)}[head.kind]
    if not wanted[0] <= len(head.layers) <= wanted[1]:
        raise section.error("head.layers", f"are {len(head.layers)}; kind: {head.kind} has {wanted[0] or 'none'}")
    if (head.activation is None) == (head.kind == "mlp"):
        raise section.error("head.activation", f"must be {'given' if head.kind == 'mlp' else 'left out'} here")
    fixed = {"lm": 2, "lm_mean": 1, "scalar": 1}.get(head.kind)
    if (
        head.outputs < 1
        or (fixed is not None and head.outputs != fixed)
        or (head.kind == "classes" and head.outputs < 2)
    ):
        raise section.error("head.outputs", f"cannot be {head.outputs} with kind: {head.kind}")
    count = {"softmax": 1, "difference": 2, "sigmoid": 0, "identity": 0}.get(
        transform.kind, len(transform.classes) or 1
    )
    if len(transform.classes) != count or len(set(transform.classes)) != count:
        raise section.error("transform.classes", f"must be {count} different classes with kind: {transform.kind}")
    if any(not 0 <= one < head.outputs for one in transform.classes):
        raise section.error("transform.classes", f"go past the head's {head.outputs} outputs")
    if (transform.kind in ("sigmoid", "identity")) != (head.outputs == 1):
        raise section.error("transform.kind", f"{transform.kind} does not fit a head with {head.outputs} output(s)")


class _Section:
    """One mapping of a spec: typed look-ups whose errors name the file and the key."""

    def __init__(self, mapping: Any, place: str, path: str, kind: type) -> None:
        self.place, self.path = place, path
        if not isinstance(mapping, Mapping):
            raise UsageError(f"{place}: {path or 'the spec'} must be a mapping, not {type(mapping).__name__}")
        self.mapping = mapping
        known = [field.name for field in fields(kind)]
        for key in mapping:
            if key not in known:
                unknown = UnknownNameError(f"key of {path or 'a PRM spec'}", str(key), known)
                raise UsageError(f"{place}: {unknown}")

    def error(self, key: str, problem: str) -> UsageError:
        """Return an error about one key."""
        return UsageError(f"{self.place}: {self.path + '.' if self.path else ''}{key} {problem}")

    def required(self, key: str, kind: type) -> Any:
        """Return the value of a key that must be there, of one type."""
        if key not in self.mapping:
            raise self.error(key, "is missing")
        return self._typed(key, self.mapping[key], kind)

    def optional(self, key: str, kind: type) -> Any:
        """Return the value of a key, or None."""
        return None if self.mapping.get(key) is None else self._typed(key, self.mapping[key], kind)

    def _typed(self, key: str, value: Any, kind: type) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            words = {Mapping: "a mapping", str: "a text", int: "a whole number", bool: "true or false"}
            raise self.error(key, f"must be {words[kind]}, not {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        return str(self.required(key, str)) if default is None or key in self.mapping else default

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        return bool(self.required(key, bool)) if key in self.mapping else default

    def whole(self, key: str, default: int | None) -> int:
        """Return a whole number."""
        return int(self.required(key, int)) if default is None or key in self.mapping else default

    def number(self, key: str) -> float:
        """Return a finite number."""
        value = self.mapping.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise self.error(key, f"must be a number, not {value!r}")
        return float(value)

    def choice(self, key: str, options: Sequence[str], default: str | None = None) -> str:
        """Return one of ``options``."""
        value = self.text(key, default)
        if value not in options:
            unknown = UnknownNameError(f"{self.path + '.' if self.path else ''}{key}", value, options)
            raise UsageError(f"{self.place}: {unknown}")
        return value

    def items(self, key: str) -> list[Any]:
        """Return a list."""
        value = self.mapping.get(key, [])
        if not isinstance(value, list | tuple):
            raise self.error(key, f"must be a list, not {value!r}")
        return list(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self.items(key)
        if not all(isinstance(one, str) for one in value):
            raise self.error(key, f"must be a list of texts, not {value!r}")
        return tuple(value)

    def template(self, key: str, value: str, known: set[str], wanted: set[str]) -> None:
        """Check the placeholders of a template."""
        try:
            parts = list(string.Formatter().parse(value))
        except ValueError as error:
            raise self.error(key, f"is not a template: {error}; a literal brace is written twice") from error
        found = {name for _, name, _, _ in parts if name is not None}
        if not found <= known or any(form or conversion for _, _, form, conversion in parts):
            usable = ", ".join(f"{{{name}}}" for name in sorted(known)) or "none"
            raise self.error(key, f"has placeholders other than {usable}; a literal brace is written twice")
        if not wanted <= found:
            raise self.error(key, f"must contain {', '.join(f'{{{name}}}' for name in sorted(wanted - found))}")
