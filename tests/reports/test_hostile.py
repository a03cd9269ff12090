"""Text of models, servers and users reaches no terminal, table or spreadsheet as anything but text."""

import csv
import io
import json
import re
from pathlib import Path
from typing import ClassVar

import pytest
from commandline import Cli
from rich.console import Console
from shop import Even, Register

import cpmi_eval
from cpmi_eval import Item, Trace
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.reports import grid
from cpmi_eval.reports.grid import Cell, Column, Grid, Line
from cpmi_eval.types import Failure, Gold, Provenance, Scored, TaskData, TraceFailure

HOSTILE = "=x\x1b[31mRED\x1b]0;title\x07\x9b2K\u202egnol\u2069 [bold]b[/bold] <b>|*_`\\"
RAW = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    assert not RAW.search(text), RAW.findall(text)
    return text


TABLE = Grid(
    (Column(HOSTILE, name="first"), Column("second", right=True, fold=True, name="second")),
    (([HOSTILE, Cell(HOSTILE, "bold", HOSTILE, HOSTILE)],), (["a", Cell("b", value=-1.5)],)),
    HOSTILE,
    (Line.of(HOSTILE, "dim"),),
)


@pytest.mark.parametrize("look", [{}, {"boxed": True}, {"narrow": True, "dense": True}])
@pytest.mark.parametrize("width", [20, 400])
def test_a_terminal(look: dict[str, bool], width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(grid.drawn([Grid(**{**vars(TABLE), **look}), Line.of(HOSTILE)], width))
    shown = plain(captured.get())
    assert width < 400 or "[bold]b[/bold]" in shown
    assert width < 400 or "\\x1b[31mRED" in shown


def test_markdown() -> None:
    written = plain(grid.markdown([TABLE, Line.of(HOSTILE)]))
    rows = [re.split(r"(?<!\\)\|", line) for line in written.split("\n") if line.startswith("|")]
    assert {len(row) for row in rows} == {4}
    assert not re.search(r"(?<!\\)[<`*\[]", written)


def test_tables_for_programs() -> None:
    records = grid.records(TABLE)
    assert records == [{"first": None, "second": HOSTILE}, {"first": None, "second": -1.5}]
    (_, *rows) = csv.reader(io.StringIO(plain(grid.csv(["first", "second"], records))))
    assert [row[1][:2] for row in rows] == ["'=", "-1"]


class Hostile:
    """A task whose every text is hostile."""

    name: ClassVar[str] = "hostile"
    summary: ClassVar[str] = HOSTILE
    subsets: ClassVar[tuple[str, ...]] = ("one",)
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = False

    def load(self, options: LoadOptions) -> TaskData:
        traces = [Trace(f"{HOSTILE}{i}", HOSTILE, (HOSTILE, HOSTILE), HOSTILE, f"{HOSTILE}{i}") for i in range(4)]
        items = tuple(Item("one", trace, Gold(i % 2 - 1)) for i, trace in enumerate(traces))
        return TaskData(items, (Provenance(HOSTILE, revision=HOSTILE, rows=4),))


class Failing(Even):
    """Fails on the last trace, in words of its own."""

    def one(self, trace: Trace) -> Scored:
        return TraceFailure(trace.id, Failure(HOSTILE, HOSTILE)) if trace.id.endswith("3") else super().one(trace)


@pytest.fixture
def runs(tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    register("tasks", "hostile", Hostile)
    register("labelers", "even", Even)
    register("labelers", "failing", Failing)
    for name in ("even", "failing"):
        cpmi_eval.evaluate(name, "hostile", output_path=f"run \x1b[31m{name}")
    return [f"run \x1b[31m{name}" for name in ("even", "failing")]


@pytest.mark.parametrize(
    "call",
    [
        ("show", 1),
        ("show", 1, "--json"),
        ("show", 1, "--trace", f"{HOSTILE}3"),
        ("show", 1, "--trace", f"{HOSTILE}2", "--json"),
        ("show", 1, "--trace", "\x1b[31m"),
        ("show", 1, "--diagnostics"),
        ("paired", 0, 1),
        ("paired", 0, 1, "--format", "markdown"),
        ("paired", 0, 1, "--format", "json"),
        ("ls", "tasks"),
        ("ls", "--json"),
        ("ls", "\x1b[31m"),
        ("label", "--from", 1, "--format", "scores", "--to", "set \x1b[31m.jsonl"),
        ("leaderboard", "add", 1),
        *(("leaderboard", "show", 0, 1, "--format", style) for style in ("rich", "markdown", "csv", "json", "html")),
        ("rescore", 1, "--threshold", "\x1b[31m"),
        ("run", "--task", "\x1b[31m", "--labeler", "even"),
        ("run", "--\x1b[31m"),
        ("compare", "--labelers", "even,failing", "--task", "hostile"),
        ("compare", "--labelers", "even,failing", "--task", "hostile", "--format", "markdown"),
        ("check", 1, "--baseline", "missing \x1b[31m.json"),
    ],
    ids=lambda call: " ".join(map(str, call)).replace(HOSTILE, "x").replace("\x1b[31m", "x"),
)
def test_the_command_line(runs: list[str], cli: Cli, call: tuple[str | int, ...]) -> None:
    done = cli(*(runs[one] if isinstance(one, int) else one for one in call))
    plain(done.out)
    plain(done.err)
    assert done.out or done.err
    if call[-1] in ("json", "--json"):
        json.loads(done.out)


@pytest.mark.parametrize("style", ["text", "github", "junit", "json"])
def test_the_gate(runs: list[str], cli: Cli, style: str) -> None:
    plain(cli("check", runs[0], "--baseline", "base.json", "--update").out)
    plain(cli("check", runs[1], "--baseline", "base.json", "--format", style).out)
