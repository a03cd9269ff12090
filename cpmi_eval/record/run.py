"""A finished run, read once: manifest, results and traces. Everything after it takes a :class:`Run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cpmi_eval.record import door
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.record.results import Blank, Manifest, Results
from cpmi_eval.record.rows import Outcome, Record, by_part, join
from cpmi_eval.record.signature import Signature
from cpmi_eval.record.store import Store, read_manifest, read_results
from cpmi_eval.types import JSON


@dataclass(frozen=True)
class Run:
    """A finished run; ``records`` holds its traces in the order of the task.

    ``records`` holds all traces; a part that was only used to choose a threshold is not among ``parts``.
    """

    path: Path
    manifest: Manifest
    results: Results
    records: tuple[Record, ...]

    @property
    def model(self) -> ModelDescription | None:
        """The model that was used; ``None`` where none was."""
        return self.results.model

    @cached_property
    def summary(self) -> JSON:
        """The content of results.json as JSON values."""
        return self.results.as_dict()

    @cached_property
    def parts(self) -> dict[str, tuple[Record, ...]]:
        """The records by reported part of the task, in order."""
        held_out = self.results.threshold.held_out
        return {part: group for part, group in by_part(self.records).items() if part != held_out}

    def outcomes(self, part: str) -> list[Outcome]:
        """What metrics see of one part's traces, in the order of its records; then those without any step."""
        results = self.results
        found = [outcome(record, results.aggregation, undecided=self.undecided) for record in self.parts[part]]
        return found + empty(results.empty, part, results.aggregation)

    @property
    def undecided(self) -> bool:
        """Whether the scorer makes no decision under the run's threshold."""
        return not self.results.threshold.decides

    @cached_property
    def signature(self) -> Signature:
        """What this run is, and what another must share to be compared with it."""
        return Signature(self.manifest, self.results, len(self.records))


def outcome(record: Record, aggregation: str = "min", *, undecided: bool = False) -> Outcome:
    """What metrics see of a record."""
    return Outcome(record.gold, record.scores, record.prediction, undecided, aggregation, record.cluster)


def empty(blanks: Iterable[Blank], part: str, aggregation: str) -> list[Outcome]:
    """The outcomes of a part's traces without steps: nobody could score them."""
    return [
        Outcome(one.gold, None, None, aggregation=aggregation, cluster=one.cluster)
        for one in blanks
        if one.task == part
    ]


def read_run(path: Path) -> Run:
    """Read a finished run.

    Raises:
        StoreError: no run, one that is not finished, or damaged files; names file, line and field.
    """
    results, manifest, store = read_results(path), read_manifest(path), Store(path)
    rows = []
    if store.samples_path.exists():
        data = door.read_bytes(store.samples_path)
        rows = list(door.parse_lines(data[: data.rfind(b"\n") + 1], store.samples.kind, store.samples.source))
    return Run(path, manifest, results, join(rows, store.texts(), store.samples_path))
