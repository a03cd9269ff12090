"""A metric of one's own, in one file: it brings its label, unit and direction to every table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commandline import Cli
from shop import Even, Register, Shop

import cpmi_eval
from cpmi_eval.metrics.outcome import Floats, Metric, Outcome
from cpmi_eval.metrics.spec import MetricSpec, describes
from cpmi_eval.types import Scored, StepScores, Trace


@dataclass(frozen=True)
class Regret:
    """The plug-in: how much score first errors get, the less the better."""

    wasted: Floats

    def metrics(self) -> dict[str, Metric]:
        return {"regret": Metric(float(self.wasted.mean()), len(self.wasted))}

    def resampled(self, weights: Floats) -> dict[str, Floats]:
        return {"regret": weights @ self.wasted / weights.sum(axis=1)}


@describes(MetricSpec("regret", "regret ↓", "score of errors", unit="fraction", higher_is_better=False, headline=True))
def compute(outcomes: Sequence[Outcome]) -> Regret:
    firsts = [(one.scores or (0.0,), one.gold.first_error or 0) for one in outcomes]
    return Regret(np.array([scores[first] if first >= 0 else 0.0 for scores, first in firsts]))


class Judged(Shop):
    metrics = ("regret",)


class Low(Even):
    """Scores first errors of the shop, always at step 1, low."""

    def one(self, trace: Trace) -> Scored:
        return StepScores(trace.id, (1.0, 0.1 + 0.01 * len(trace.id)))


@pytest.fixture
def runs(tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    register("metrics", "regret", compute)
    register("tasks", "shop", Judged)
    register("labelers", "even", Even)
    register("labelers", "low", Low)
    return [cpmi_eval.evaluate(name, "shop", output_path=name).path for name in ("even", "low")]


def test_tables_name_it_and_write_it_in_its_unit(runs: list[Path], cli: Cli) -> None:
    shown = cli("show", runs[1]).out
    assert "regret ↓" in shown
    assert "0.048" in shown


def test_a_paired_test_knows_its_direction(runs: list[Path], cli: Cli) -> None:
    shown = cli("paired", *runs, "--format", "markdown").out
    assert "| A – B | regret ↓ |" in shown
    assert "B is better" in shown


def test_a_board_is_ranked_by_it_the_lower_first(runs: list[Path], cli: Cli) -> None:
    shown = cli("leaderboard", "show", *runs, "--format", "markdown").out
    assert "ranked by regret ↓ within each kind" in shown
    (board, *_) = json.loads(cli("leaderboard", "show", *runs, "--json").out)["boards"]
    assert [row["scorer"] for row in board["rows"]] == ["low", "even"]
    page = cli("leaderboard", "show", *runs, "--format", "html").out
    assert '"regret":{"label":"score of errors","form":"fraction","lower":true}' in page


def test_the_gate_fails_where_it_grows(runs: list[Path], register: Register, cli: Cli) -> None:
    high, low = Path("changed/high"), Path("changed/low")
    for path, labeler in ((high, Even), (low, Low)):
        register("labelers", "changing", labeler)
        cpmi_eval.evaluate("changing", "shop", output_path=path)
    for base, run, code in ((low, high, 1), (high, low, 0)):
        assert cli("check", base, "--baseline", "base.json", "--update").code == 0
        tolerance = "scores=off,tokens=off,speed=off,quality=0.02"
        done = cli("check", run, "--baseline", "base.json", "--tolerance", tolerance, "--format", "github")
        assert (done.code, "worse: shop/a regret" in done.out) == (code, code == 1), done.out
        Path("base.json").unlink()


def test_a_comparison_has_a_column_for_it(runs: list[Path], cli: Cli) -> None:
    shown = cli("compare", "--labelers", "even,low", "--task", "shop", "--format", "markdown").out
    assert "| labeler | kind | regret ↓ |" in shown
