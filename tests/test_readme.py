"""The README's examples run, and what it lists is what exists."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
import sys
import types
from pathlib import Path

import click
import pytest

import cpmi_eval
from cpmi_eval import registry, settings
from cpmi_eval.cli import cli
from cpmi_eval.cli.run import expand
from cpmi_eval.compare import parse_specs
from cpmi_eval.labelers.rollouts import RolloutSettings
from cpmi_eval.prm import specs

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Every cpmi-eval command line of the README, split as a shell would, without comments."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("cpmi-eval ")]


def test_the_python_example_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in blocks("python") if "cpmi_eval.evaluate(" in block]
    exec(example, {})
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0\.\d{3} over \d+ steps, 0 tokens", printed[0])
    assert len(printed) == 4
    assert (tmp_path / "runs/floor/results.json").is_file()


def test_the_plug_in_example_runs(tmp_path, monkeypatch):
    plugin = types.ModuleType("my_plugin")
    for block in blocks("python"):
        if "class " in block:
            exec(block, plugin.__dict__)
    monkeypatch.setitem(sys.modules, "my_plugin", plugin)
    monkeypatch.setitem(registry.BUILTIN["labelers"], "questions", "my_plugin:Questions")
    monkeypatch.setitem(registry.BUILTIN["tasks"], "two", "my_plugin:TwoTraces")
    registry.entries.cache_clear()
    try:
        result = cpmi_eval.evaluate("questions", "two", labeler_args={"penalty": 0.7}, output_path=tmp_path / "run")
    finally:
        monkeypatch.undo()
        registry.entries.cache_clear()
    assert result.results["two"]["f1"].value == 1.0
    assert [row["scores"] for row in result.rows] == [[1.0, 1.0], [pytest.approx(0.3), 1.0]]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_line_is_one_the_program_takes(command):
    name, *rest = command[1:]
    subcommand = cli.commands[name]
    with click.Context(cli, **cli.context_settings) as parent:
        arguments = [part.replace("*", "x") for part in rest]
        while isinstance(subcommand, click.Group):
            name, *arguments = arguments
            subcommand = subcommand.commands[name]
        context = subcommand.make_context(name, arguments, parent=parent, resilient_parsing=False)
    if name == "run":
        options = expand(context.params)
        registry.load("tasks", options["task"])
        labeler = registry.load("labelers", options["labeler"])
        if options["labeler"] != "prm":  # which would look for its checkpoint
            settings.construct("labeler", labeler, options["labeler_args"], seed=0)
    if name == "compare":
        for spec in parse_specs(context.params["labelers"]):
            settings.construct("labeler", registry.load("labelers", spec.name), spec.args, seed=0)


# options of pip, lm-eval, Ray and servers that the text mentions
OTHERS = {"--no-deps", "--batch_size", "--use_cache", "--metadata", "--head", "--address"} | {
    *("--model-path", "--logits_all", "--n_ctx", "--continuous-batching"),
}


def table_settings(heading: str) -> set[str]:
    """The settings that the table under ``| heading |`` lists in its first column."""
    rows = README.split(f"| {heading} |", 1)[1].splitlines()[2:]
    listed = itertools.takewhile(lambda line: line.startswith("|"), rows)
    return {name for line in listed for name in re.findall(r"`([\w-]+)`", line.split("|")[1])}


@pytest.mark.parametrize("name", ["cpmi", "mc", "pav", "judge", "cpmi-merge"])
def test_every_setting_of_a_labeler_is_in_its_table(name):
    heading = "setting (`--labeler_args`)" if name == "cpmi" else f"setting of `{name}`"
    taken = set(inspect.signature(registry.load("labelers", name)).parameters) - {"seed", "drawing"}
    further = set(inspect.signature(RolloutSettings).parameters) if name == "mc" else set()
    assert table_settings(heading) == taken | further


def test_the_table_of_prm_families_is_complete_and_right():
    rows = [line.split("|") for line in README.split("| spec |", 1)[1].splitlines()[2:]]
    rows = list(itertools.takewhile(lambda cells: len(cells) == 7, rows))
    assert {cells[1].strip(" `") for cells in rows} == set(specs.names())
    for cells in rows:
        spec = specs.load(cells[1].strip(" `"))
        assert float(cells[4]) == spec.native_threshold
        assert ("architecture" in cells[5]) == (bool(spec.architectures) or spec.name == "trl")
        assert ("hub name" in cells[5]) == bool(spec.checkpoints)


def test_the_two_set_up_commands_are_targets_of_the_makefile():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_the_readme_has_no_option_that_the_commands_lack():
    groups = [one for one in cli.commands.values() if isinstance(one, click.Group)]
    commands = [*cli.commands.values(), *(command for group in groups for command in group.commands.values())]
    parameters = [parameter for command in commands for parameter in command.params]
    known = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    own = README
    for block in blocks("sh"):  # those that call other programs are theirs
        own = own.replace(block, "".join(f"{line}\n" for line in block.splitlines() if line.startswith("cpmi-eval ")))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*", own)) - OTHERS
    assert {name.replace("-", "_") for name in mentioned} <= {name.replace("-", "_") for name in known}
