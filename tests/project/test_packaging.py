"""What is installed is what works: wheel and sdist, away from the checkout, and packages of third parties."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from places import ROOT

NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "venv", "node_modules", "*.pyc"
)
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-deps"]

# Looked up, not imported: setuptools replaces distutils as it is imported, which must not happen in this process.
MISSING = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"building needs {' and '.join(MISSING)}")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def environment(*paths: Path) -> dict[str, str]:
    """Return the environment without this checkout's settings, with ``paths`` before anything installed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CPMI_EVAL_", "PYTHON", "PIP_"))}
    shown = {"COLUMNS": "110", "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return {**kept, **shown, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def execute(args: list[str], cwd: Path, *paths: Path) -> Outcome:
    done = subprocess.run(
        args, cwd=cwd, env=environment(*paths), capture_output=True, text=True, check=False, timeout=120
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def build(args: list[str], cwd: Path) -> None:
    done = execute(args, cwd)
    assert done.code == 0, done.out + done.err


def sources() -> list[Path]:
    """Return the files of the checkout that git tracks or would; all but the usual debris where there is no git."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    git = shutil.which("git")
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False) if git else None
    if found is None or found.returncode != 0 or not found.stdout:
        return []
    return [Path(name) for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the sources, so that building leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("build") / "source"
    files = sources()
    if not files:
        shutil.copytree(ROOT, folder, ignore=NOT_SOURCE)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / file)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def build_wheel(project: Path, target: Path) -> Path:
    build([*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", str(target), str(project)], target)
    (found,) = target.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    build([sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(target)], checkout)
    (found,) = target.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("installed"))


def install(what: Path, target: Path) -> Path:
    build(
        [*PIP, "install", *OFFLINE, "--no-build-isolation", "--no-compile", "--target", str(target), str(what)], target
    )
    return target


def cli(cwd: Path, *args: str, paths: tuple[Path, ...]) -> Outcome:
    return execute([sys.executable, "-c", "from cpmi_eval.cli import main; main()", *args], cwd, *paths)


def modules(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.py")}


def expected() -> set[str]:
    """Return the modules of the checkout under the names they are imported by."""
    inner = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cpmi_eval").rglob("*.py")}
    outer = {f"cpmi_eval/{name}/{module}" for name in ("tasks", "leaderboards") for module in modules(ROOT / name)}
    return inner | outer


def test_the_wheel_holds_every_module_and_no_generic_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.endswith(".py")} == expected()
    assert "cpmi_eval/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"cpmi_eval", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}


def test_the_sdist_holds_what_a_build_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md"} <= names
    for folder in ("tasks", "leaderboards"):
        assert {f"{folder}/{module}" for module in modules(ROOT / folder)} <= names


def test_a_wheel_of_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    again = build_wheel(sdist, tmp_path)

    def content(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}

    assert content(again) == content(wheel)


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    script = (
        "import cpmi_eval, cpmi_eval.tasks.synthetic, cpmi_eval.leaderboards.board\n"
        "from cpmi_eval.cli import main\n"
        "for module in (cpmi_eval, cpmi_eval.tasks.synthetic, cpmi_eval.leaderboards.board): print(module.__file__)\n"
        "main(['ls', 'tasks', '--json'])\n"
    )
    done = execute([sys.executable, "-c", script], tmp_path, installed)
    assert done.code == 0, done.err
    *files, document = done.out.split("\n", 3)
    assert [Path(file).relative_to(installed).as_posix() for file in files] == [
        "cpmi_eval/__init__.py",
        "cpmi_eval/tasks/synthetic.py",
        "cpmi_eval/leaderboards/board.py",
    ]
    assert {row["name"] for row in json.loads(document)} >= {"processbench", "synthetic"}


def test_the_installed_package_runs_and_ranks(installed: Path, tmp_path: Path) -> None:
    args = ("run", "--labeler", "random", "--task", "synthetic", "--task_args", "n=5", "--output_path", "a", "--json")
    done = cli(tmp_path, *args, paths=(installed,))
    assert done.code == 0, done.err
    assert json.loads(done.out)["coverage"]["synthetic/arithmetic"]["scored"] == 5
    assert "random" in cli(tmp_path, "leaderboard", "show", "a", paths=(installed,)).out


def test_the_console_script_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert archive.read(name).decode().split() == ["[console_scripts]", "cpmi-eval", "=", "cpmi_eval.cli:main"]


PLUGIN = {
    "setup.py": """
        from setuptools import setup

        setup(
            name="step-plugins",
            version="1.0",
            py_modules=["step_plugins", "step_broken", "step_crashing"],
            entry_points={
                "cpmi_eval.tasks": ["parity = step_plugins:Parity"],
                "cpmi_eval.labelers": [
                    "oracle = step_plugins:Oracle",
                    "broken = step_broken:Broken",
                    "crashing = step_crashing:Crashing",
                    "misspelt = step_plugins:Orakle",
                ],
            },
        )
    """,
    # What a plug-in may rely on: the types and the protocols' shapes, nothing to inherit.
    "step_plugins.py": """
        from cpmi_eval import Gold, Item, StepScores, Trace
        from cpmi_eval.types import Provenance, TaskData


        class Parity:
            name = "parity"
            summary = "is every number even?"
            subsets = ("small",)
            metrics = ("first_error", "step_auc")
            synthetic = True

            def load(self, options):
                steps = [("2", "4"), ("2", "3"), ("5", "8", "9"), ("6",)]
                items = []
                for number, texts in enumerate(steps):
                    first = next((i for i, text in enumerate(texts) if int(text) % 2), -1)
                    trace = Trace(f"parity-{number}", "even?", texts, cluster=str(number))
                    items.append(Item("small", trace, Gold(first)))
                return TaskData(tuple(items), (Provenance("parity", rows=len(items)),))


        class Oracle:
            name = "oracle"
            summary = "knows even from odd"
            kind = "critic"
            needs = frozenset()
            capabilities = frozenset()

            def __init__(self, wrong: float = -1.0):
                self.wrong = wrong
                self.native_threshold = 0.0

            def score(self, traces, backend):
                for trace in traces:
                    yield StepScores(trace.id, tuple(self.wrong if int(s) % 2 else 1.0 for s in trace.steps))
    """,
    "step_broken.py": """
        import a_package_that_nobody_has


        class Broken:
            pass
    """,
    "step_crashing.py": "raise RuntimeError('no licence file')",
}
CLASHING = {
    "setup.py": """
        from setuptools import setup

        setup(
            name="step-clash",
            version="1.0",
            py_modules=["step_clash"],
            entry_points={"cpmi_eval.labelers": ["random = step_clash:Random"]},
        )
    """,
    "step_clash.py": "class Random: pass",
}


def write_project(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).write_text(textwrap.dedent(content).lstrip(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(write_project(tmp_path_factory.mktemp("plugin"), PLUGIN), tmp_path_factory.mktemp("installed"))


def run_plugin(cwd: Path, plugin: Path, *args: str) -> dict[str, Any]:
    done = cli(cwd, "run", "--labeler", "oracle", "--task", "parity", *args, "--json", paths=(plugin,))
    assert done.code == 0, done.err
    document: dict[str, Any] = json.loads(done.out)
    return document


def test_a_plugins_task_and_labeler_run(plugin: Path, tmp_path: Path) -> None:
    document = run_plugin(tmp_path, plugin, "--output_path", "a")
    assert {name: entry["value"] for name, entry in document["results"]["parity"].items()} == {
        "f1": 1.0,
        "acc_error": 1.0,
        "acc_correct": 1.0,
        "step_auc": 1.0,
    }
    assert document["labeler"] == {"name": "oracle", "kind": "critic", "uses_reference": False, "native_threshold": 0.0}
    assert document["coverage"] == {"parity/small": {"traces": 4, "scored": 4, "no_reference": 0, "failed": 0}}
    assert "oracle on parity (synthetic data)" in cli(tmp_path, "show", "a", paths=(plugin,)).out


def test_a_plugins_settings_are_checked_and_heard(plugin: Path, tmp_path: Path) -> None:
    document = run_plugin(tmp_path, plugin, "--labeler_args", "wrong=2", "--output_path", "a")
    assert document["results"]["parity"]["acc_error"]["value"] == 0.0
    args = ("run", "--labeler", "oracle", "--task", "parity", "--labeler_args", "wrogn=2")
    done = cli(tmp_path, *args, paths=(plugin,))
    assert done.code == 2
    assert "unknown oracle labeler setting 'wrogn'. Did you mean 'wrong'" in done.err


def test_plugins_are_listed_with_their_origin(plugin: Path, tmp_path: Path) -> None:
    done = cli(tmp_path, "ls", "tasks", "--json", paths=(plugin,))
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert rows["parity"] == {
        "name": "parity",
        "summary": "is every number even?",
        "subsets": "small",
        "from": "step-plugins",
    }
    assert rows["synthetic"]["from"] == "cpmi-eval"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken", "No module named 'a_package_that_nobody_has'"),
        ("misspelt", "has no attribute 'Orakle'"),
        ("crashing", "no licence file"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_when_it_is_used(
    plugin: Path, tmp_path: Path, name: str, reason: str
) -> None:
    done = cli(tmp_path, "run", "--labeler", name, "--task", "synthetic", paths=(plugin,))
    assert (done.code, done.out) == (2, "")
    assert f"the labeler {name!r} of step-plugins cannot be imported" in done.err
    assert reason in done.err
    assert "Traceback" not in done.err


def test_a_plugin_that_cannot_be_imported_does_not_hide_the_others(plugin: Path, tmp_path: Path) -> None:
    done = cli(tmp_path, "ls", "labelers", paths=(plugin,))
    assert done.code == 0, done.err
    assert "oracle" in done.out
    assert "broken" in done.out


def test_two_claims_to_one_name_name_both(tmp_path: Path) -> None:
    project, target = tmp_path / "project", tmp_path / "installed"
    project.mkdir()
    target.mkdir()
    install(write_project(project, CLASHING), target)
    done = cli(tmp_path, "run", "--labeler", "random", "--task", "synthetic", paths=(target,))
    assert (done.code, done.out) == (2, "")
    assert "two distributions register the labeler 'random'" in done.err
    assert "cpmi-eval (cpmi_eval.labelers.baselines:RandomBaseline)" in done.err
    assert "step-clash (step_clash:Random)" in done.err
