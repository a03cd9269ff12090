"""Where tests find the published benchmark data, which is not part of this repository."""

import os
from pathlib import Path

import pytest
from places import ROOT

SIBLING = ROOT.parent / "shared" / "data"


def data_dir() -> Path:
    """Return a local copy of the hub; skip the test, saying what was looked for, if there is none."""
    named = os.environ.get("CPMI_EVAL_DATA_DIR")
    folder = Path(named) if named else SIBLING
    if not (folder / "Qwen" / "ProcessBench").is_dir():
        where = f"CPMI_EVAL_DATA_DIR={named}" if named else f"CPMI_EVAL_DATA_DIR is not set, and {SIBLING}"
        pytest.skip(f"no real data: {where} has no Qwen/ProcessBench")
    return folder
