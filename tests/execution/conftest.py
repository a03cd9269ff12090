"""The shop, its labelers and its backend are registered in these tests."""

from pathlib import Path
from typing import Any

import pytest
from shop import Asking, Counting, Even, Go, Register, Shop

import cpmi_eval
from cpmi_eval import RunResult


@pytest.fixture
def register(register: Register, monkeypatch: pytest.MonkeyPatch) -> Register:
    monkeypatch.setattr(Counting, "opened", [])
    register("tasks", "shop", Shop)
    register("labelers", "even", Even)
    register("labelers", "asking", Asking)
    register("backends", "counting", Counting)
    return register


@pytest.fixture
def go(tmp_path: Path, register: Register) -> Go:
    """Run a labeler on the shop, or one that the test gives, in a run directory of this test."""

    def run(labeler: str | type = "even", **options: Any) -> RunResult:
        if not isinstance(labeler, str):
            register("labelers", "given", labeler)
            labeler = "given"
        options = {"task": "shop", "output_path": str(tmp_path / "run"), **options}
        return cpmi_eval.evaluate(labeler, **options)

    return run
