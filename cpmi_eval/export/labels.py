"""Training sets from a finished run: its step scores as labels, in the formats that reward-model trainers read.

``trl``            stepwise supervision as TRL's PRMTrainer takes it: prompt, completions, labels (true or false)
``math-shepherd``  the form of Math-Shepherd (arXiv 2312.08935): numbered steps, each closed by a tag; + or - for labels
``scores``         the scores themselves, for any trainer that takes soft labels

The first two need a threshold: a step is labelled good if its score is at least that. Nothing else decides: every step
gets a label of its own, those after a wrong one too, and a labeler's own verdict on the first error (the vote of a
critic) is not looked at. What cannot be labelled is listed with the reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import UNSET

from cpmi_eval import settings
from cpmi_eval.errors import DataError, UsageError
from cpmi_eval.labelers.normalize import NORMALIZE
from cpmi_eval.metrics.thresholds import Threshold, threshold
from cpmi_eval.record import door
from cpmi_eval.record.run import Run, read_run
from cpmi_eval.record.store import Store
from cpmi_eval.types import JSON, Failure

TAG = "ки"  # closes a step in Math-Shepherd's input


@dataclass(frozen=True)
class Example:
    """A solution with a label per step: whether it is good, or in the format ``scores`` how good."""

    problem: str
    steps: tuple[str, ...]
    labels: tuple[float, ...]


class Origin(NamedTuple):
    """What a line may say about where its example comes from."""

    id: str
    task: str
    answer: str | None
    labeler: str


# --- formats --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Format:
    """How examples are written and read. ``hard``: its labels are true or false.

    ``write`` returns a line's object, or why the format cannot hold the example. ``read`` is its inverse; it raises
    ValueError on an object of another form.
    """

    hard: bool
    write: Callable[[Example, Origin], JSON | Failure]
    read: Callable[[JSON], Example]


def _write_trl(example: Example, origin: Origin) -> JSON:
    labels = list(map(bool, example.labels))
    return {"prompt": example.problem, "completions": list(example.steps), "labels": labels, "id": origin.id}


def _read_trl(row: JSON) -> Example:
    return Example(_text(row, "prompt"), _texts(row, "completions"), _labels(row, "labels", "completions", (bool,)))


def _write_scores(example: Example, origin: Origin) -> JSON:
    return {
        "id": origin.id,
        "problem": example.problem,
        "steps": list(example.steps),
        "answer": origin.answer,
        "scores": list(example.labels),
        "labeler": origin.labeler,
    }


def _read_scores(row: JSON) -> Example:
    return Example(_text(row, "problem"), _texts(row, "steps"), _labels(row, "scores", "steps", (int, float)))


def _write_math_shepherd(example: Example, origin: Origin) -> JSON | Failure:
    texts = {"the problem": example.problem, **{f"step {i}": step for i, step in enumerate(example.steps)}}
    for name, text in texts.items():
        if TAG in text:
            return Failure("holds_tag", f"{name} holds {TAG!r}, which closes a step in this format")
    opened = [f"Step {number}: {step} " for number, step in enumerate(example.steps, 1)]
    signs = ["+" if label else "-" for label in example.labels]
    row = {
        "input": f"{example.problem} " + "\n".join(text + TAG for text in opened),
        "label": f"{example.problem} " + "\n".join(text + sign for text, sign in zip(opened, signs, strict=True)),
        "task": origin.task,
    }
    try:
        same = _read_math_shepherd(row) == example
    except ValueError:
        same = False
    return (
        row if same else Failure("ambiguous", "written in this format, its problem and steps could not be told apart")
    )


def _read_math_shepherd(row: JSON) -> Example:
    *parts, rest = _text(row, "input").split(TAG)
    if not parts or rest:
        raise ValueError(f"'input' does not end with a step closed by {TAG!r}")
    problem, start, first = parts[0].partition(" Step 1: ")
    if not start:
        raise ValueError("'input' has no ' Step 1: '")
    steps = [first]
    for number, part in enumerate(parts[1:], 2):
        if not part.startswith(heading := f"\nStep {number}: "):
            raise ValueError(f"'input' has no {heading!r} after step {number - 1}")
        steps.append(part.removeprefix(heading))
    if not all(step.endswith(" ") for step in steps):
        raise ValueError(f"'input' has a step without a space before {TAG!r}")
    return Example(problem, tuple(step[:-1] for step in steps), _signs(parts, _text(row, "label")))


def _signs(parts: Sequence[str], label: str) -> tuple[bool, ...]:
    """Return what stands in the place of each tag: + is true, - is false."""
    places = [end + number for number, end in enumerate(accumulate(map(len, parts)))]
    signs = [label[place : place + 1] for place in places]
    rebuilt = "".join(part + sign for part, sign in zip(parts, signs, strict=True))
    if rebuilt != label or not set(signs) <= {"+", "-"}:
        raise ValueError(f"'label' is not 'input' with + or - in the place of {TAG!r}")
    return tuple(sign == "+" for sign in signs)


def _text(row: JSON, key: str) -> str:
    if not isinstance(value := row.get(key), str):
        raise ValueError(f"{key!r} must be a string")
    return value


def _texts(row: JSON, key: str) -> tuple[str, ...]:
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key!r} must be a list of strings")
    return tuple(value)


def _labels(row: JSON, key: str, steps: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    value = row.get(key)
    if not isinstance(value, list) or not all(type(one) in kinds for one in value):
        raise ValueError(f"{key!r} must be a list of {'true and false' if bool in kinds else 'numbers'}")
    if len(value) != len(row[steps]):
        raise ValueError(f"{len(value)} {key} for {len(row[steps])} {steps}")
    return tuple(value)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "trl": Format(True, _write_trl, _read_trl),
        "math-shepherd": Format(True, _write_math_shepherd, _read_math_shepherd),
        "scores": Format(False, _write_scores, _read_scores),
    }
)


def read_labels(path: Path, form: str) -> list[Example]:
    """Read a training set.

    Args:
        path: a file of JSON lines, one example each; fields that the format does not know are left alone.
        form: the name of its format.

    Raises:
        UnknownNameError: no such format.
        DataError: the file cannot be read, or a line is of another form; names the line.
    """
    read = FORMATS[settings.choice("format", form, tuple(FORMATS))].read
    examples = []
    source = door.Source(str(path), DataError, f"a line of the format {form} is an object")
    for number, row in enumerate(door.read_lines(path, dict, source), 1):
        try:
            examples.append(read(row))
        except ValueError as error:
            raise DataError(f"{path}, line {number} is not a line of the format {form}: {error}") from error
    return examples


# --- from a run to a training set -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelling:
    """How scores become labels.

    ``threshold``: ``native`` or ``fixed:x`` where the format has hard labels, else None. ``normalize``: a name in
    NORMALIZE, applied to the scores of all steps of all traces together, before the threshold.
    """

    form: str
    threshold: str | None = None
    normalize: str | None = None

    def __post_init__(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: an unknown name, a threshold that is missing, not needed, or not on the scale of the scores.
        """
        settings.choice("format", self.form, tuple(FORMATS))
        if self.normalize is not None:
            settings.choice("normalisation", self.normalize, tuple(NORMALIZE))
        cut = None if self.threshold is None else threshold(self.threshold, None).value
        if FORMATS[self.form].hard and self.threshold is None:
            raise UsageError(
                f"the format {self.form} needs a decision: give --threshold native (the labeler's own) or fixed:x"
            )
        if not FORMATS[self.form].hard and self.threshold is not None:
            raise UsageError(f"the format {self.form} keeps the scores and takes no --threshold; leave it out")
        if self.threshold == "native" and self.normalize is not None:
            raise UsageError(
                "the native threshold is about raw scores; with --normalize give --threshold fixed:x, x between 0 and 1"
            )
        if self.normalize is not None and cut is not None and not 0 < cut < 1:
            raise UsageError(f"normalised scores are between 0 and 1; a threshold of {cut:g} tells none apart")

    def rule(self, labeler: str, native: float | None) -> Threshold | None:
        """Return the threshold to apply, None where the format takes none.

        Raises:
            UsageError: the native threshold is asked of a labeler that has none.
        """
        if self.threshold is None:
            return None
        rule = threshold(self.threshold, native)
        if rule.value is None:
            raise UsageError(f"the labeler {labeler!r} has no threshold of its own; give --threshold fixed:x")
        return rule


@dataclass(frozen=True)
class TrainingSet:
    """``rows``: lines in the format asked for. ``failures``: what is not among them. ``about``: how it was made."""

    rows: tuple[JSON, ...]
    failures: tuple[JSON, ...]
    about: JSON

    def save(self, path: Path) -> None:
        """Replace ``path`` and what lies beside it: PATH.json (``about``) and, if any, PATH.failed.jsonl."""
        lines, failed = door.to_lines(self.rows), failed_path(path)
        about = {**self.about, "sha256": hashlib.sha256(lines).hexdigest()}
        door.write_json(about_path(path), about)  # first: it tells a file that is its own from one that is not
        if self.failures:
            door.replace_bytes(failed, door.to_lines(self.failures))
        else:
            with door.writing(failed):
                failed.unlink(missing_ok=True)
        door.replace_bytes(path, lines)


def failed_path(path: Path) -> Path:
    """Return where the failures of a training set are listed."""
    return path.with_name(f"{path.name}.failed.jsonl")


def about_path(path: Path) -> Path:
    """Return where it is written how a training set was made."""
    return path.with_name(f"{path.name}.json")


def check_target(path: Path) -> None:
    """Make sure that a training set may be written to ``path``, before anything is scored for it.

    Raises:
        UsageError: a directory, a file that is not known to be a training set, or a folder that cannot be made.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory; --to takes a file")
    about = about_path(path)
    if path.exists() and not about.exists():
        raise UsageError(f"{path} exists and is no part of a training set; remove it or choose another --to")
    if about.exists() and "sha256" not in door.read_json(about, dict):
        raise UsageError(f"{about} exists and is no part of a training set; remove it or choose another --to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made: {error.strerror or error}") from error


def label_run(folder: Path, labelling: Labelling) -> TrainingSet:
    """Label the traces of a finished run, in the order of its task.

    Raises:
        StoreError: no finished run.
        UsageError: the native threshold is asked of a run that has none.
    """
    run, answers = read_run(folder), {text.key: text.answer for text in Store(folder).texts()}
    rule = _rule(labelling, run)
    scores = _normalized([record.scores or () for record in run.records], labelling.normalize)
    labels: list[float] = []
    rows: list[JSON] = []
    failures: list[JSON] = []
    for record, own in zip(run.records, scores, strict=True):
        if record.error:
            failures.append(_failure(record.id, record.error))
            continue
        example = Example(record.problem, record.steps, _decided(own, rule))
        origin = Origin(record.id, record.part, answers[record.part, record.id], run.results.labeler.name)
        written = FORMATS[labelling.form].write(example, origin)
        if isinstance(written, Failure):
            failures.append(_failure(record.id, written))
        else:
            rows.append(written)
            labels += example.labels
    about = {**_basis(run, labelling, rule), "counts": _counts(labels, rule, rows, failures)}
    return TrainingSet(tuple(rows), tuple(failures), about)


def _rule(labelling: Labelling, run: Run) -> Threshold | None:
    recorded, own = run.results.threshold, run.results.labeler.native_threshold
    native = recorded.value if recorded.protocol == "native" else None if own is UNSET else own
    if labelling.threshold == "native" and recorded.protocol != "native" and own is UNSET:
        raise UsageError(
            f"{run.path} was run with --threshold {recorded.protocol} and does not say what is native to its labeler; "
            "give --threshold fixed:x"
        )
    return labelling.rule(run.results.labeler.name, native)


def _normalized(scores: Sequence[Sequence[float]], name: str | None) -> Iterator[Sequence[float]]:
    """Yield the scores of each trace, on the scale of all of them together where ``name`` asks for it."""
    if name is None:
        yield from scores
        return
    together = NORMALIZE[name]([score for own in scores for score in own]).tolist()
    ends = accumulate(map(len, scores), initial=0)
    yield from (together[start:end] for start, end in pairwise(ends))


def _decided(scores: Sequence[float], rule: Threshold | None) -> tuple[float, ...]:
    cut = None if rule is None else rule.value
    return tuple(scores) if cut is None else tuple(score >= cut for score in scores)


def _failure(name: str, failure: Failure) -> JSON:
    return {"id": name, "reason": failure.kind, "message": failure.message}


def _basis(run: Run, labelling: Labelling, rule: Threshold | None) -> JSON:
    """Return what the labels depend on."""
    results, summary = run.results, run.summary
    return {
        "format": labelling.form,
        "threshold": None if rule is None else asdict(rule),
        "normalize": labelling.normalize,
        "labeler": {**results.labeler.as_dict(), "args": results.config.labeler_args},
        **{name: summary[name] for name in ("model", "data", "versions")},
        "task": results.task,
        "run": str(run.path),
    }


def _counts(
    labels: Sequence[float], rule: Threshold | None, rows: Sequence[JSON], failures: Sequence[JSON]
) -> dict[str, Any]:
    return {
        "traces": len(rows) + len(failures),
        "labelled": len(rows),
        "steps": len(labels),
        "good": None if rule is None else int(sum(labels)),
        "failed": dict(Counter(failure["reason"] for failure in failures)),
    }
