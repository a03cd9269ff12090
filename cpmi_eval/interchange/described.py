"""What every form of export says about a finished run: its scorer, its parts, their data, and what to beware of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cpmi_eval.analysis.compare import Spec
from cpmi_eval.errors import DataError
from cpmi_eval.metrics.outcome import Metric
from cpmi_eval.record.results import Coverage, Results
from cpmi_eval.record.run import Run, read_run
from cpmi_eval.record.store import Store

# How the tasks name their tables: a hub dataset and the file in a local copy of it, or the dataset and its split.
_TABLE = re.compile(r"(?P<hub_id>[\w.-]+/[\w.-]+)(/(?P<file>[^/:]+)|:(?P<split>[^/:]+))")


@dataclass(frozen=True)
class Dataset:
    """The table that a part's traces come from.

    ``hub_id`` and ``split`` are ``None`` where the data has no place on the hub. ``revision`` is set where it was read
    from the hub, ``sha256`` where it was read from a file. ``rows``: of the whole table.
    """

    hub_id: str | None
    split: str | None
    revision: str | None
    sha256: str | None
    rows: int | None


@dataclass(frozen=True)
class Described:
    """A finished run, and when its results were written (with a time zone)."""

    run: Run
    written: datetime

    @property
    def results(self) -> Results:
        """Its results."""
        return self.run.results

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts that have results, in order; one that only served to choose a threshold is not among them."""
        return tuple(part for part in self.run.parts if part in self.results.results)

    @property
    def mean(self) -> str | None:
        """The name of the mean over parts, where there are several."""
        return self.results.task if len(self.parts) > 1 else None

    def metrics(self, name: str) -> dict[str, Metric]:
        """Return the metrics of a part or of the mean, details included."""
        return dict(self.results.results[name])

    @property
    def selects(self) -> bool:
        """Whether the task selects among solutions, so that no single trace is decided on."""
        return self.results.selects

    @property
    def aggregation(self) -> str:
        """How step scores become one of the solution, where the task selects."""
        return self.results.aggregation

    @property
    def threshold(self) -> str | None:
        """The protocol that turned scores into decisions; ``None`` where there are none."""
        rule = self.results.threshold
        return rule.protocol if rule.decides and not self.selects else None

    @property
    def scorer(self) -> str:
        """A name of this scorer's own: the labeler, its settings and, where it is not its native one, the threshold."""
        protocol, args = self.results.threshold.protocol, self.settings
        if protocol != "native" and not self.selects:
            args["threshold"] = protocol
        return Spec(self.results.config.labeler, args, "").slug

    @property
    def settings(self) -> dict[str, Any]:
        """The labeler's settings: files without the folders they lie in, and no checkpoint, which is the model."""
        given = self.results.config.labeler_args
        return {key: _file_name(value) for key, value in given.items() if key != "checkpoint" or self.model is None}

    @property
    def model(self) -> str | None:
        """The model's name, of a local one its own without the folders it lies in; ``None`` where none ran."""
        if self.run.model is None:
            return None
        name = self.run.model.model
        local = name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.endswith(".gguf")
        return Path(name).name.removesuffix(".gguf") if local else name

    @property
    def uses_reference(self) -> bool:
        """Whether the scorer was given the reference answer."""
        return self.results.labeler.uses_reference

    def dataset(self, part: str) -> Dataset:
        """Return the table that a part's traces come from; one without a name where the run does not tell."""
        tables = [(one, _TABLE.fullmatch(one.name)) for one in self.results.data]
        subset = part.partition("/")[2]
        named = [
            (one, found) for one, found in tables if found and (found["split"] or Path(found["file"]).stem) == subset
        ]
        one, found = [*named, *tables][0] if named or (tables and len(self.parts) == 1) else (None, None)
        return Dataset(
            hub_id=found["hub_id"] if found else None,
            split=(found["split"] or Path(found["file"]).stem) if found else None,
            revision=None if one is None else one.revision,
            sha256=None if one is None else one.sha256,
            rows=None if one is None else one.rows,
        )

    def counts(self, name: str) -> dict[str, int]:
        """Return how many traces a part or the mean stands on (``traces``), and how many were scored (``scored``).

        Solutions without any step count as traces that were not scored.
        """
        coverage = self._coverage(name)
        return {
            "traces": sum(one.traces if one.candidates is None else one.candidates for one in coverage),
            "scored": sum(one.scored for one in coverage),
        }

    def _coverage(self, name: str) -> list[Coverage]:
        return [self.results.coverage[part] for part in (self.parts if name == self.mean else (name,))]

    def _problems(self, name: str) -> tuple[int, int]:
        """Return how many problems have solutions, and of how many; both 0 where the task does not select."""
        coverage = self._coverage(name)
        return sum(one.problems or 0 for one in coverage), sum(one.of_problems or 0 for one in coverage)

    def marks(self, name: str) -> tuple[str, ...]:
        """Return what a reader of a part's results must not miss, in words."""
        counts, problems, limit = self.counts(name), self._problems(name), self.results.config.limit
        marks = {
            "synthetic data": self.results.synthetic,
            "uses the reference answer": self.uses_reference,
            "oracle threshold": self.threshold == "oracle",
            f"limit {limit} per subset": limit is not None,
            "restricted to traces shared with other runs": self.run.signature.restricted,
            f"{problems[0]} of {problems[1]} problems": problems[0] < problems[1],
            f"{counts['scored']} of {counts['traces']} scored": counts["scored"] < counts["traces"],
        }
        return tuple(mark for mark, holds in marks.items() if holds)

    def about(self, name: str) -> dict[str, Any]:
        """Return what the metrics of a part or of the mean depend on, as plain values without ``None``."""
        results = self.results
        config, labeler, model = results.config, results.labeler, self.run.model
        found = {
            "scorer": config.labeler,
            "settings": self.settings or None,
            "kind": labeler.kind,
            "uses_reference": self.uses_reference,
            "threshold": self.threshold,
            "threshold_value": results.threshold.value if self.threshold else None,
            "aggregation": self.aggregation if self.selects else None,
            "model": self.model,
            "model_revision": model and model.revision,
            "model_sha256": model and model.sha256,
            "dtype": model and model.dtype,
            "synthetic": results.synthetic,
            "limit": config.limit,
            **self.counts(name),
            "cpmi_eval": results.versions["cpmi-eval"],
        }
        return {key: value for key, value in found.items() if value is not None}


def _file_name(value: object) -> object:
    """Return a setting as it may be published: of an absolute path its last part, anything else as it is."""
    return Path(value).name if isinstance(value, str) and "\n" not in value and Path(value).is_absolute() else value


def describe(path: Path) -> Described:
    """Read a finished run.

    Raises:
        StoreError: no run, one that is not finished, or damaged files.
        DataError: a run without any trace.
    """
    run, store = read_run(path), Store(path)
    found = Described(run, datetime.fromtimestamp(store.results_path.stat().st_mtime, UTC))
    if not found.parts:
        raise DataError(f"{path} has no traces with results; there is nothing to export")
    return found
