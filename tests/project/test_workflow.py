"""The GitHub Actions example does what it says: its commands are run, on a labeler that needs no model."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from places import ROOT

from cpmi_eval.gate import baseline as baselines

WORKFLOW = yaml.load((ROOT / "examples" / "github-actions.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["gate"]["steps"]


class Done(NamedTuple):
    code: int
    err: str


def step(name: str) -> dict[str, Any]:
    (found,) = [one for one in STEPS if one.get("name") == name]
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the workflow sets, with a labeler that needs no model, and what GitHub sets."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "cpmi-eval"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m cpmi_eval "$@"\n')
    program.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("CPMI_EVAL_")}
    workflow = {**WORKFLOW["env"], "CPMI_EVAL_CACHE": str(tmp_path / "cache")}
    assert {"LABELER", "TASK"} <= workflow.keys()
    ours = {"LABELER": "random", "TASK": "synthetic", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    return {**own, **workflow, **ours, "PATH": f"{programs}{os.pathsep}{own['PATH']}"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def execute(command: str, work: Path, environment: dict[str, str]) -> Done:
    """Run a step as GitHub does where no shell is named."""
    script = work.parent / "step.sh"
    script.write_text(command)
    done = subprocess.run(["bash", "-e", str(script)], cwd=work, env=environment, capture_output=True, text=True)
    return Done(done.returncode, done.stderr)


def test_its_commands_run(work: Path, environment: dict[str, str]) -> None:
    summary, baseline = Path(environment["GITHUB_STEP_SUMMARY"]), work / environment["BASELINE"]
    done = execute(step("Run")["run"], work, environment)
    assert done.code == 0, done.err
    assert (work / environment["RUN_DIR"] / "results.json").is_file()
    done = execute(step("Check")["run"], work, environment)
    assert done.code == 2
    assert "there is no baseline" in done.err
    done = execute(step("Write the baseline")["run"], work, environment)
    assert done.code == 0, done.err
    assert len(baselines.read(baseline).traces) == int(environment["LIMIT"])
    done = execute(step("Check")["run"], work, environment)
    assert done.code == 0, done.err
    assert summary.read_text().startswith("### cpmi-eval check: passed")

    first = baselines.read(baseline).traces[0]
    assert first.scores is not None
    baseline.write_text(baseline.read_text().replace(str(first.scores[0]), str(first.scores[0] + 0.25), 1))
    done = execute(step("Check")["run"], work, environment)
    assert done.code == 1, done.err
    assert f"{first.id}, step 0" in summary.read_text()
    assert "the largest deviation is 0.25" in summary.read_text()


def test_every_command_of_ours_is_in_a_step_that_is_run_here() -> None:
    ours = {one.get("name") for one in STEPS if "cpmi-eval" in one.get("run", "").replace("cpmi-eval-", "")}
    assert ours == {"Run", "Check", "Write the baseline"}


def test_it_checks_pull_requests_and_keeps_what_is_needed_to_understand_a_failure() -> None:
    assert set(WORKFLOW["on"]) == {"pull_request", "workflow_dispatch"}
    assert step("Check")["if"] == "github.event_name == 'pull_request'"
    assert step("Write the baseline")["if"] == "github.event_name == 'workflow_dispatch'"
    upload = step("Keep the run")
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split("\n")[:2] == ["${{ env.RUN_DIR }}", "${{ env.BASELINE }}"]
    assert step("Keep the converted model")["with"]["path"] == "${{ env.CPMI_EVAL_CACHE }}"
    assert all(set(one) <= {"name", "uses", "with", "run", "if"} for one in STEPS)


def test_what_it_installs_is_what_the_makefile_installs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in step("Install")["run"].splitlines():
        wanted = line.split("'")[1].lstrip(".")
        assert wanted in makefile
    assert (ROOT / WORKFLOW["env"]["BASELINE"]).is_file()
