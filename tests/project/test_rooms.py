"""The order of the rooms: each imports only what is listed before it, and there is no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

PACKAGE = ROOT / "cpmi_eval"
ORDER = (
    ("errors",),
    ("types", "settings", "registry", "seeding"),
    ("cost",),
    ("record",),
    ("metrics", "grading", "protocols"),
    ("engine",),
    ("prm",),
    ("backends", "labelers", "tasks"),
    ("lm_eval", "plan"),
    ("manifest",),
    ("execution", "summary"),
    ("run", "generate"),
    ("analysis",),
    ("leaderboards",),
    ("gate",),
    ("interchange", "export"),
    ("training", "reports"),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
ROOT_MODULES = 14


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """The cpmi_eval modules and names that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cpmi_eval":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("cpmi_eval."))


def room(module: str, name: str) -> str:
    parts = [*module.split("."), name]
    return parts[1] if parts[1] in LEVEL else ""


PLACES = {PACKAGE: "", ROOT / "tasks": "tasks", ROOT / "leaderboards": "leaderboards"}
FILES = {
    path: name or path.relative_to(folder).parts[0].removesuffix(".py")
    for folder, name in PLACES.items()
    for path in sorted(folder.rglob("*.py"))
    if folder != PACKAGE or path.parent != PACKAGE or not path.stem.startswith("__")
}


def test_every_room_has_its_place() -> None:
    assert set(FILES.values()) <= LEVEL.keys()


@pytest.mark.parametrize("own", sorted(set(FILES.values())))
def test_a_room_imports_only_what_lies_below_it(own: str) -> None:
    wanted = {room(*one) for path, name in FILES.items() if name == own for one in imports(path)} - {own, ""}
    upward = {(own, other) for other in wanted - {own} if LEVEL[other] >= LEVEL[own]}
    assert upward == set()


def test_nothing_private_is_imported() -> None:
    taken = [(path.name, name) for path in FILES for _, name in imports(path) if name.startswith("_")]
    assert [one for one in taken if not one[1].startswith("__")] == []


def test_the_root_is_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= ROOT_MODULES
