"""From lines of labels to token ids with a target at every step, built by the spec that will read the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpmi_eval.errors import DataError
from cpmi_eval.export.labels import Example, read_labels
from cpmi_eval.prm.encode import EncodingError, TraceEncoder
from cpmi_eval.seeding import derive_seed
from cpmi_eval.tasks.references import problem_cluster
from cpmi_eval.types import JSON


@dataclass(frozen=True)
class Target:
    """One example as the model sees it: ``ids``; ``reads`` are positions in it, ``goods`` how good the step there is.

    ``goods`` are probabilities, 0 or 1 for hard labels. ``cluster`` identifies the problem.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    goods: tuple[float, ...]
    cluster: str


def read_goods(path: Path, form: str, threshold: float | None) -> list[Example]:
    """Return the examples of a file with labels between 0 and 1.

    Raises:
        DataError: no example, or a soft label that is no probability.
    """
    examples = read_labels(path, form)
    if not examples:
        raise DataError(f"{path} has no labelled traces")
    made = []
    for number, example in enumerate(examples, 1):
        labels = tuple(map(float, example.labels))
        if threshold is not None:
            labels = tuple(float(label >= threshold) for label in labels)
        wrong = next((label for label in labels if not 0.0 <= label <= 1.0), None)
        if wrong is not None:
            raise DataError(
                f"{path}:{number} has a score of {wrong:g}, which is no probability; make soft labels with "
                "`cpmi-eval label --normalize zsig` (or quantile), or hard ones here with --threshold x"
            )
        made.append(Example(example.problem, example.steps, labels))
    return made


def encode(
    examples: Sequence[Example], encoder: TraceEncoder, max_length: int | None
) -> tuple[list[Target], list[JSON]]:
    """Return the examples that can be trained on, and those that cannot, each with the reason; nothing is cut."""
    targets: list[Target] = []
    left_out: list[JSON] = []
    for number, example in enumerate(examples, 1):
        try:
            encoded = encoder.encode(example.problem, example.steps)
        except EncodingError as error:
            left_out.append({"line": number, "reason": "not_encodable", "message": str(error)})
            continue
        if max_length is not None and len(encoded.ids) > max_length:
            message = f"{len(encoded.ids):,} tokens; the longest that is taken has {max_length:,}"
            left_out.append({"line": number, "reason": "too_long", "message": message})
            continue
        targets.append(Target(encoded.ids, encoded.reads, example.labels, problem_cluster(example.problem)))
    return targets, left_out


def split(targets: Sequence[Target], share: float, seed: int) -> tuple[list[Target], list[Target]]:
    """Return what is trained on and what is evaluated on: ``share`` of the problems, at random under the seed.

    All traces of a problem are on one side.

    Raises:
        DataError: so few problems that one side would be empty.
    """
    clusters = sorted({one.cluster for one in targets}, key=lambda one: derive_seed(seed, "split", one))
    count = max(1, round(share * len(clusters))) if share else 0
    if count >= len(clusters):
        raise DataError(f"{len(clusters)} problem(s) cannot be split into training and evaluation; use --eval_share 0")
    held = set(clusters[:count])
    kept = [one for one in targets if one.cluster not in held]
    return kept, [one for one in targets if one.cluster in held]
