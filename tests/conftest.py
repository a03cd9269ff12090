"""What tests of every room share: the command line, plug-ins that last for a test, tiny checkpoints, published data."""

import gc
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import Cli, Outcome

from cpmi_eval import registry
from cpmi_eval.cli import main

LONG = ("test_cluster.py", "test_server.py", "test_generate.py", "test_gpu_benchmark.py", "test_lm_eval_model.py")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, where files are dealt out to processes: else one of them ends alone."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """Leave what the imports made out of garbage collection: a run with a model collects, half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line in this process; what was printed before is forgotten."""

    def run(*args: Any) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(one) for one in args])
        return Outcome(caught.value.code or 0, *capsys.readouterr())

    return run


SHOWN_ELSEWHERE = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in an empty folder, without what the caller's environment says."""
    for name in [*SHOWN_ELSEWHERE, *(name for name in os.environ if name.startswith("CPMI_EVAL_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, Any], None]]:
    """Register a class under a name of a kind (tasks, labelers, backends), until the test ends."""
    module = types.ModuleType("registered_in_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def add(kind: str, name: str, thing: Any) -> None:
        attribute = f"{kind}_{name}".replace("-", "_")
        setattr(module, attribute, thing)
        monkeypatch.setitem(registry.BUILTIN[kind], name, f"{module.__name__}:{attribute}")
        registry.entries.cache_clear()

    yield add
    registry.entries.cache_clear()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random llama with its tokenizer, as save_pretrained writes them. Only read it."""
    import tinymodels

    return tinymodels.save(tmp_path_factory.mktemp("checkpoint"))
