"""What README.md and docs/*.md show runs, what they link to is there, and what they list is what exists."""

import importlib
import inspect
import itertools
import re
import sys
from pathlib import Path

import click
import pages
import pytest
from click.testing import CliRunner

from cpmi_eval import registry, settings
from cpmi_eval.analysis.compare import parse_specs
from cpmi_eval.cli import cli
from cpmi_eval.cli.run import expand
from cpmi_eval.labelers.rollouts import RolloutSettings
from cpmi_eval.prm import specs

TEXTS = {name: pages.read(path) for name, path in zip(pages.NAMES, pages.PAGES, strict=True)}
ALL = "\n".join(TEXTS.values())
SCORING = {"run", "compare", "label", "generate"}  # exit code 1: some traces failed, which a random model's may
every_page = pytest.mark.parametrize("page", pages.NAMES)


def program() -> dict[str, click.Command]:
    """Every command by its name, those of groups as ``leaderboard add``."""
    found: dict[str, click.Command] = {}
    for name, command in cli.commands.items():
        inner = command.commands if isinstance(command, click.Group) else None
        found |= {name: command} if inner is None else {f"{name} {sub}": one for sub, one in inner.items()}
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return folders of benchmark rows, a language model and a PRM."""
    folder = tmp_path_factory.mktemp("world")
    return pages.write_data(folder / "data"), *pages.write_models(folder)


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    """Stand in an empty folder where the default model is tiny and data is at hand; forget its plug-ins after."""
    data, model, prm = world
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/checkpoint").symlink_to(prm)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in {"MODEL": model, "DATA_DIR": data, "CACHE": tmp_path / "cache"}.items():
        monkeypatch.setenv(f"CPMI_EVAL_{name}", str(value))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    modules = set(sys.modules)
    registry.entries.cache_clear()
    yield tmp_path
    registry.entries.cache_clear()
    for name in set(sys.modules) - modules:
        if (tmp_path / f"{name}.py").is_file():
            del sys.modules[name]


def run_line(line: pages.Line) -> None:
    if line.file is not None:
        Path(line.file).write_text(line.content, encoding="utf-8")
        return
    assert line.words[0] == "cpmi-eval", f"{line}: another program's command; mark the block as not run"
    found = [sorted(map(str, Path().glob(part))) if "*" in part else [part] for part in line.words[1:]]
    words = list(itertools.chain(*found))
    done = CliRunner().invoke(cli, words)
    allowed = {0, 1} if words[0] in SCORING else {0}
    unexpected = done.exception is not None and not isinstance(done.exception, SystemExit)
    assert not unexpected, f"{line}: {done.exception}"
    assert done.exit_code in allowed, f"{line}: exit code {done.exit_code}\n{done.output}"


@every_page
def test_what_a_page_shows_runs(page, place):
    for block in pages.blocks(TEXTS[page]):
        if block.mark is not None:
            continue
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
            if block.file == "pyproject.toml":
                pages.install(block.text, place)
                importlib.invalidate_caches()
                registry.entries.cache_clear()
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), {})
        elif block.language == "sh":
            for line in pages.lines(block):
                run_line(line)


@every_page
def test_what_is_not_run_says_why_and_in_the_one_way(page):
    marks = [block.mark for block in pages.blocks(TEXTS[page]) if block.mark is not None]
    assert all(len(mark.split()) >= 2 for mark in marks)
    assert len(re.findall(r"^<!--", TEXTS[page], flags=re.MULTILINE)) == len(marks)


LINES = [(page, command) for page, text in TEXTS.items() for command in pages.commands(text, run=False)]


@pytest.mark.parametrize(("page", "command"), LINES, ids=[f"{page}: {' '.join(words)}" for page, words in LINES])
def test_every_command_that_is_not_run_is_one_the_program_takes(page, command):
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


def test_the_python_example_of_the_readme_prints_what_it_says(place, capsys):
    (example,) = [block for block in pages.blocks(TEXTS["README.md"]) if block.language == "python"]
    exec(example.text, {})
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0\.\d{3} over \d+ steps, 0 tokens", printed[0])
    assert len(printed) == 4
    assert (place / "runs/floor/results.json").is_file()


def test_files_that_a_page_names_and_targets_that_it_makes_are_there():
    shell = "\n".join(block.text for block in pages.blocks(ALL) if block.language == "sh")
    makefile = (pages.ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", shell, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for path in re.findall(r"`((?:benchmarks|cpmi_eval|examples|leaderboards|tasks|tests)/[\w./-]*)`", ALL):
        assert (pages.ROOT / path).exists(), path


@pytest.mark.parametrize("page", [*pages.NAMES, "benchmarks/README.md"])
def test_links_and_anchors_resolve(page):
    path = pages.ROOT / page
    for target in pages.links(pages.read(path)):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in pages.anchors(linked.read_text(encoding="utf-8")), target


def test_the_readme_is_short_and_leads_to_every_page():
    readme = TEXTS["README.md"]
    assert len(readme.splitlines()) <= 150
    assert {target.partition("#")[0] for target in pages.links(readme)} >= set(pages.NAMES) - {"README.md"}


@every_page
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page):
    text = pages.BLOCK.sub("", TEXTS[page])
    for table in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        rows = [len(re.split(r"(?<!\\)\|", row.strip("|\n"))) for row in table.splitlines()]
        assert len(set(rows)) == 1, table
        assert re.fullmatch(r"[|:\- ]+", table.splitlines()[1])


@pytest.mark.parametrize("kind", ["labelers", "tasks", "backends", "metrics"])
def test_whatever_is_registered_is_named_in_some_page(kind):
    assert {name for name in registry.BUILTIN[kind] if f"`{name}`" not in ALL} == set()


def test_every_verb_and_prm_family_is_named_in_some_page():
    assert {name for name in program() if f"cpmi-eval {name}" not in ALL} == set()
    assert {name for name in specs.names() if f"`{name}`" not in ALL} == set()


def table(heading: str) -> list[list[str]]:
    """The cells of the table with ``| heading |``, row by row."""
    rows = ALL.split(f"| {heading} |", 1)[1].splitlines()[2:]
    return [line.split("|") for line in itertools.takewhile(lambda line: line.startswith("|"), rows)]


@pytest.mark.parametrize("name", ["cpmi", "mc", "pav", "judge", "cpmi-merge"])
def test_every_setting_of_a_labeler_is_in_its_table(name):
    listed = {setting for cells in table(f"setting of `{name}`") for setting in re.findall(r"`([\w-]+)`", cells[1])}
    taken = set(inspect.signature(registry.load("labelers", name)).parameters) - {"seed", "drawing"}
    further = set(inspect.signature(RolloutSettings).parameters) if name == "mc" else set()
    assert listed == taken | further


def test_the_table_of_prm_families_is_complete_and_right():
    rows = table("spec")
    assert {cells[1].strip(" `") for cells in rows} == set(specs.names())
    for cells in rows:
        spec = specs.load(cells[1].strip(" `"))
        assert float(cells[4]) == spec.native_threshold
        assert ("architecture" in cells[5]) == (bool(spec.architectures) or spec.name == "trl")
        assert ("hub name" in cells[5]) == bool(spec.checkpoints)


# options of pip, lm-eval, Ray and servers that the pages mention
OTHERS = {"--no-deps", "--batch_size", "--use_cache", "--metadata", "--head", "--address"} | {
    *("--model-path", "--logits_all", "--n_ctx", "--continuous-batching"),
}


def test_no_page_has_an_option_that_the_commands_lack():
    parameters = [parameter for command in program().values() for parameter in command.params]
    known = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    own = pages.prose(ALL) + "\n".join(" ".join(words) for text in TEXTS.values() for words in pages.commands(text))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*", own)) - OTHERS
    assert {name.replace("-", "_") for name in mentioned} <= {name.replace("-", "_") for name in known}
