"""The traces that the example loop is trained on have their error where the label says."""

import importlib.util
import random

import pytest
from places import ROOT

PATH = ROOT / "examples" / "build_traces.py"
spec = importlib.util.spec_from_file_location("build_traces", PATH)
assert spec is not None
assert spec.loader is not None
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

ROW = {
    "question": "Ada has 48 clips and buys half as many. How many has she?",
    "answer": "She buys 48/2 = <<48/2=24>>24 clips.\nShe has 48+24 = <<48+24=72>>72 clips.\n#### 72",
}


@pytest.mark.parametrize("seed", range(6))
def test_a_problem_gives_its_solution_and_one_with_a_wrong_result(seed: int) -> None:
    right, wrong = build.traces([ROW], seed)
    assert right["steps"] == ["She buys 48/2 = 24 clips.", "She has 48+24 = 72 clips."]
    assert (right["label"], right["answer"]) == (-1, "72")
    at = wrong["label"]
    assert wrong["steps"][:at] == right["steps"][:at]
    assert wrong["steps"][at] != right["steps"][at]
    assert wrong["steps"][at].split(" = ")[0] == right["steps"][at].split(" = ")[0]  # what is computed stays
    assert not any("<<" in step for step in wrong["steps"])


def test_a_wrong_result_is_carried_on() -> None:
    lines, _ = build.solution(ROW)
    for seed in range(20):
        steps, at = build.corrupted(lines, random.Random(seed))
        if at == 0:
            assert "48+24" not in steps[1]
            assert "48+" in steps[1]
            return
    pytest.fail("no seed chose the first step")


def test_a_solution_without_results_has_no_wrong_twin() -> None:
    row = {"question": "Who?", "answer": "Ada does.\n#### 1"}
    assert [trace["label"] for trace in build.traces([row], 0)] == [-1]
