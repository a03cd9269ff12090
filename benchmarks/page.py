"""The HTML page of a leaderboard with many runs: its size, the time to make it, and how fast a browser shows it.

    python benchmarks/page.py --data-dir DIR    # ProcessBench, gsm8k and math; CPMI_EVAL_DATA_DIR does the same
    python benchmarks/page.py                   # the synthetic task

One run of the labeler ``random`` is made; the others have scores of their own on the same traces. The browser is that
of the tests (``tests/support/browser.py``); without one, its times are left out. Times are medians of ``--repeat``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import cpmi_eval
from cpmi_eval.leaderboards.rows import row_of
from cpmi_eval.leaderboards.schema import Row
from cpmi_eval.metrics.thresholds import first_below
from cpmi_eval.record.rows import Record
from cpmi_eval.record.run import Run, read_run
from cpmi_eval.reports.page import Board, Placed, page

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import browser

READY = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
SORT = "document.querySelector('th[data-column=f1] button').click()"
FIND = """((one) => { one.value = 'therefore'; one.dispatchEvent(new Event('input')); })
(document.querySelector('.traces input'))"""


def variant(run: Run, seed: int) -> Run:
    """Return the run with other random scores."""
    rng = np.random.default_rng(seed)

    def rescored(record: Record) -> Record:
        scores = tuple(map(float, rng.random(len(record.steps))))
        return replace(record, scores=scores, prediction=first_below(scores, 0.5))

    return Run(run.path, run.summary, tuple(map(rescored, run.records)))


def boards(row: Row, n: int) -> list[Board]:
    """Return a board for each part of the row, with ``n`` rows that differ by seed and by kind."""
    kinds = ("baseline", "prm", "critic")
    rows = [replace(row, settings={"seed": place}, kind=kinds[place % 3]) for place in range(n)]
    return [
        Board(part, part, "f1", tuple(Placed(one, str(place // 3 + 1), run=place) for place, one in enumerate(rows)))
        for part in row.parts
    ]


def traces_on(file: Path) -> int:
    """Return how many traces of a run can be browsed on the page."""
    text = file.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0]
    return sum(len(one["texts"]) for one in json.loads(text)["sets"])


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def shown(file: Path, folder: Path, repeat: int) -> dict[str, float]:
    """Return the seconds until the page can be used, and those that working with it takes until the next frame."""
    found: dict[str, list[float]] = {}
    with browser.Browser(folder) as one:
        for _ in range(repeat):
            one.open(file)
            found.setdefault("until the page can be used", []).append(one.run(READY) / 1000)
            for name, script in (
                ("sort a table", SORT),
                ("open a run", "location.hash = '#run=7'"),
                ("search its traces", FIND),
            ):
                found.setdefault(name, []).append(seconds(lambda script=script: (one.run(script), one.settle())))
        if one.messages:
            raise SystemExit(f"the page complained: {one.messages}")
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--subset", default="gsm8k,math", help="of ProcessBench")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    task = "processbench" if args.data_dir else "synthetic"
    table = Table("what", "value", title=f"{args.runs} runs on {task}", title_justify="left")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {"data_dir": Path(args.data_dir), "subset": args.subset.split(",")} if args.data_dir else {}
        cpmi_eval.evaluate("random", task, output_path=folder / "run", **given)
        run = read_run(folder / "run")
        runs = [variant(run, seed) for seed in range(args.runs)]
        made = boards(row_of(run), args.runs)
        file = folder / "page.html"
        taken = seconds(lambda: file.write_text(page("Benchmark", made, runs), encoding="utf-8"))
        table.add_row("traces of each run", f"{len(run.records):,}")
        table.add_row("of these on the page", f"{traces_on(file):,}")
        table.add_row("size", f"{file.stat().st_size / 1e6:.2f} MB")
        table.add_row("made in", f"{taken:.1f} s")
        if browser.MISSING is None:
            for what, value in shown(file, folder, args.repeat).items():
                table.add_row(what, f"{1000 * value:.0f} ms")
        else:
            table.add_row("in a browser", browser.MISSING)
    Console().print(table)


if __name__ == "__main__":
    main()
