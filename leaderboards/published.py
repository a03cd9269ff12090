"""Reference rows: results that others published, each marked as such and with its source.

One file of JSON lines per board lies beside this module. The rows are facts to hold a measured result against; they
were not produced by this program, are never ranked with what was, and say where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from cpmi_eval.types import JSON

FOLDER = "cpmi_eval.leaderboards"


@dataclass(frozen=True)
class Published:
    """One published result.

    ``results``: by task (``processbench/gsm8k``, and ``processbench`` for the mean over its subsets) and metric, in the
    units of results.json: accuracies and F1 as fractions. ``note`` says what else a reader must know.
    """

    task: str
    name: str
    kind: str
    results: Mapping[str, Mapping[str, float]]
    source: str
    note: str = ""


def names() -> tuple[str, ...]:
    """Return the boards that there are reference rows for."""
    return tuple(
        sorted(one.name.removesuffix(".jsonl") for one in files(FOLDER).iterdir() if one.name[-6:] == ".jsonl")
    )


def read(board: str) -> tuple[Published, ...]:
    """Return the reference rows of a board; none where it has no file."""
    if board not in names():
        return ()
    lines = files(FOLDER).joinpath(f"{board}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_row(json.loads(line)) for line in lines)


def _row(row: JSON) -> Published:
    if not row.pop("published"):
        raise ValueError(f"the reference row {row['name']!r} must say that it is published")
    return Published(**row)


def columns(rows: Sequence[Published], tasks: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Return the (task, metric) pairs that any of the rows has, in order; of ``tasks`` only, where some are named."""
    pairs = [(task, metric) for row in rows for task, metrics in row.results.items() for metric in metrics]
    return tuple(pair for pair in dict.fromkeys(pairs) if not tasks or pair[0] in tasks)
