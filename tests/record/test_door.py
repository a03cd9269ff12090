"""The door between bytes and objects: strict about kinds, and one typed error for whatever is damaged."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

from cpmi_eval.errors import DataError, StoreError
from cpmi_eval.record import door


@dataclass(frozen=True)
class Inner:
    value: float
    n: int | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    on: bool = False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"name": "a", "inner": {"value": "1"}}', "inner.value: Expected `float`, got `str`"),
        (b'{"name": "a", "inner": {"value": true}}', "inner.value: Expected `float`, got `bool`"),
        (b'{"name": "a", "inner": {}}', "inner: Object missing required field `value`"),
        (b'{"name": 1, "inner": {"value": 1}}', "name: Expected `str`, got `int`"),
        (b'{"name": "a", "inner": {"value": NaN}}', "is damaged"),
        (b'{"name": "a", "inner": {"value": 1e400}}', "inner.value: Number out of range"),
        (b'{"name": "\\ud800", "inner": {"value": 1}}', "is damaged"),
        (b'{"name": "\xff", "inner": {"value": 1}}', "is damaged"),
        (b'{"x": ' * 100_000, "is nested too deeply"),
        (b'{"name": "a"', "is damaged"),
        (b"", "is damaged"),
        (b"[]", "Expected `object`, got `array`"),
    ],
)
def test_a_damaged_document_is_one_error_that_names_file_and_field(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(text)
    with pytest.raises(StoreError, match=re.escape(message)) as caught:
        door.read_json(path, Outer)
    assert str(path) in str(caught.value)
    path.write_bytes(b'{"name": "a", "inner": {"value": 1}}\n' + text + b"\n")
    if text:
        with pytest.raises(StoreError, match=f"{re.escape(f'{path}, line 2')}.*{re.escape(message)}"):
            list(door.read_lines(path, Outer))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [Outer("a\u2028b", Inner(0.1, 2)), Outer("ü", Inner(1e-300), on=True)]
    path = tmp_path / "rows.jsonl"
    door.append(path, door.to_lines(rows[:1]))
    door.append(path, door.to_lines(rows[1:]))
    assert list(door.read_lines(path, Outer)) == rows
    door.write_json(path, rows[0])
    assert door.read_json(path, Outer) == rows[0]
    assert list(door.parse_lines(b"", Outer, door.Source("nothing"))) == []
    assert list(door.parse_lines(b'\xef\xbb\xbf{"value": 1}\r\n \n{"value": 2}', Inner, door.Source("x"))) == [
        Inner(1.0),
        Inner(2.0),
    ]


def test_blank_texts_can_be_refused() -> None:
    assert door.parse_json(b'[" a"]', list[door.Filled], door.Source("x")) == [" a"]
    with pytest.raises(StoreError, match=re.escape("x is not valid: [1]: blank, expected text")):
        door.parse_json(b'["a", " \\n"]', list[door.Filled], door.Source("x"))


def test_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        door.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: 2", "name: Expected `str`, got `int`"),
        ("name: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("a: [", "is no YAML"),
        ("{a: " * 50_000, "is nested too deeply"),
        ("\x00", "is no YAML"),
    ],
)
def test_yaml_is_as_strict(text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        door.parse_yaml(text, Outer, door.Source("spec.yaml", DataError))


def test_yaml_dates_are_text() -> None:
    assert door.parse_yaml("a: 2026-01-02", dict, door.Source("x")) == {"a": "2026-01-02"}


def test_a_fault_says_the_next_step() -> None:
    with pytest.raises(StoreError, match=r"^rows is damaged \(.*\); start anew with --fresh$"):
        door.parse_json(b"{", Outer, door.Source("rows", advice="start anew with --fresh"))


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no", "does not exist"), (tmp_path, "cannot be read: Is a directory")):
        with pytest.raises(StoreError, match=reason) as caught:
            door.read_bytes(path)
        assert str(path) in str(caught.value)


def test_replacing_keeps_links_and_permissions_and_leaves_no_scratch(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    door.replace_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    door.replace_text(tmp_path / "fresh", "new")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o666 & ~mask
    assert {one.name for one in tmp_path.iterdir()} == {"target", "link", "fresh"}


def test_a_scratch_file_that_someone_prepared_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".page.html.tmp").symlink_to(victim)
    door.replace_text(tmp_path / "page.html", "page")
    assert victim.read_text() == "precious"


def test_a_disk_that_refuses_is_one_error_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    path.write_text("old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=re.escape(f"{path} cannot be written: No space left on device")):
        door.replace_text(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "torn"
    path.write_bytes(b'{"a": 1}\n{"a"')
    assert door.whole_lines(path) == b'{"a": 1}\n'
    assert path.read_bytes() == b'{"a": 1}\n'
