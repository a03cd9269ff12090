"""What it takes to show a leaderboard of many rows, in every format, after imports.

    python benchmarks/leaderboard.py               # 10,000 made-up rows of one task with two parts
    python benchmarks/leaderboard.py --rows 1000

Rows are read from a leaderboard file and validated, ranked and written, as `cpmi-eval leaderboard show` does.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from cpmi_eval.cli import cli
from cpmi_eval.leaderboards import files
from cpmi_eval.leaderboards.schema import Cost, Part, Row, TraceSet, Value

TASK = "made_up"
FORMATS = ("rich", "markdown", "csv", "json")


def made_up(count: int) -> Iterator[Row]:
    """Yield rows of two parts and their mean: four metrics with intervals each, four kinds of scorer."""
    rng = random.Random(0)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in (f"{TASK}/a", f"{TASK}/b", TASK)}
    for number in range(count):
        kind, uses_reference = rng.choice([("labeler", True), ("prm", False), ("critic", False), ("baseline", False)])
        yield Row(
            task=TASK,
            origin="measured",
            scorer=f"scorer-{number}",
            kind=kind,
            parts={name: part(rng, digest) for name, digest in digests.items()},
            settings={"n": rng.randint(1, 16)},
            uses_reference=uses_reference,
            model={"name": "model", "sha256": "0" * 64, "dtype": "bfloat16", "backend": "hf"},
            threshold="native",
            hardware={"device": "cpu", "platform": "Linux", "processor": "x86_64"},
            versions={"cpmi-eval": "0.1.0", "python": "3.11", "torch": "2.5", "transformers": "5.0"},
            fingerprint=hashlib.sha256(str(number).encode()).hexdigest(),
            date="2026-01-02T03:04:05+00:00",
        )


def part(rng: random.Random, digest: str) -> Part:
    """Return made-up results on 400 traces."""
    values = {name: rng.uniform(0.05, 0.9) for name in ("f1", "acc_error", "acc_correct", "step_auc")}
    metrics = {name: Value(value, value - 0.04, value + 0.04, 400) for name, value in values.items()}
    tokens = rng.randrange(10**6)
    return Part(metrics, TraceSet(digest, 400, 400), Cost(rng.uniform(1, 900), 1.0, 3 * tokens, tokens, 0, 10**9))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{TASK}{files.SUFFIX}")
        files.write(path, list(made_up(args.rows)))
        print(
            f"{args.rows:,} rows, {path.stat().st_size / 1e6:.1f} MB; the median of {args.repeat}, after a first call"
        )
        for style in FORMATS:
            wall, process = zip(*(show(folder, style) for _ in range(args.repeat + 1)), strict=True)
            print(f"{style:<10}{statistics.median(wall[1:]):6.2f} s wall{statistics.median(process[1:]):8.2f} s CPU")


def show(folder: str, style: str) -> tuple[float, float]:
    """Show one part's board through the command line, in this process; return wall and CPU seconds."""
    wall, process = time.perf_counter(), time.process_time()
    done = CliRunner().invoke(cli, ["leaderboard", "show", f"{TASK}/a", "--boards", folder, "--format", style])
    if done.exit_code != 0 or not done.output:
        raise SystemExit(f"{style} failed: {done.output} {done.exception}")
    return time.perf_counter() - wall, time.process_time() - process


if __name__ == "__main__":
    main()
