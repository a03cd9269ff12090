"""Where the repository keeps things that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
SNAPSHOTS = ROOT / "tests" / "snapshots"
