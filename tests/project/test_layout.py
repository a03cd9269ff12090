"""How the tests lie: in the folders of the rooms, and none leans on another."""

import ast
from pathlib import Path

import pytest
from places import ROOT

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
NAMES = {path.stem for path in TESTS}


def imported(path: Path) -> set[str]:
    """The last parts of all names of modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.rpartition(".")[2] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_imported_from_a_test(path: Path) -> None:
    assert imported(path) & {*NAMES, "conftest"} == set(), "what tests share lies in tests/support or a conftest.py"


def test_every_test_has_a_room_and_a_name_of_its_own() -> None:
    assert [path.name for path in (ROOT / "tests").glob("test_*.py")] == []
    assert len(NAMES) == len(TESTS)
