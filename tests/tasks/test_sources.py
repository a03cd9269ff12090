"""Reading raw rows: both file formats, every way a file can be bad, and a hub that is not there."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

from cpmi_eval.errors import DataError
from cpmi_eval.tasks.sources import Table, read_rows

REVISION = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Table("org/set", "rows.json", hub_split="test", revision=REVISION, role="test rows")
ROWS = [{"id": "a", "text": "één"}, {"id": "b", "text": "two\u2028lines"}]


@pytest.fixture
def write(tmp_path):
    def write_bytes(content: bytes | str) -> Path:
        path = SOURCE.path(tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return write_bytes


def message(data_dir: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(SOURCE, data_dir)
    return str(caught.value)


FORMATS = {
    "array": json.dumps(ROWS),
    "indented array": "\n  " + json.dumps(ROWS, indent=2, ensure_ascii=False),
    "lines": "\n".join(json.dumps(row) for row in ROWS),
    "unescaped lines, blank line, CRLF": "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\r\n",
    "byte order mark": "\ufeff" + json.dumps(ROWS),
}


@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS.keys())
def test_formats(write, content):
    rows, provenance = read_rows(SOURCE, write(content))
    assert rows == ROWS
    assert provenance.name == "org/set/rows.json"
    assert provenance.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert (provenance.revision, provenance.rows) == (None, 2)


def test_missing_data_dir(tmp_path):
    text = message(tmp_path / "nowhere")
    assert f"{tmp_path / 'nowhere'} does not exist" in text
    assert "--data-dir DIR" in text and "CPMI_EVAL_DATA_DIR" in text and "<org>/<dataset>/<file>" in text


def test_data_dir_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a directory" in message(tmp_path / "file")


def test_missing_file_lists_what_is_there(write):
    folder = write("[]") / "org" / "set"
    SOURCE.path(folder.parents[1]).rename(folder / "rows.jsonl")
    (folder / "more").mkdir()
    text = message(folder.parents[1])
    assert f"missing file {folder / 'rows.json'} (test rows)" in text
    assert f"{folder} holds more/, rows.jsonl" in text


def test_missing_folder_lists_the_nearest(tmp_path):
    (tmp_path / "org" / "sets").mkdir(parents=True)
    assert f"{tmp_path / 'org'} holds sets/" in message(tmp_path)


def test_empty_folder(tmp_path):
    assert f"{tmp_path} holds nothing" in message(tmp_path)


def test_long_listing_is_cut(tmp_path):
    for number in range(30):
        (tmp_path / f"entry{number:02}").touch()
    assert "entry19 and 10 more" in message(tmp_path)


BAD = {
    "not UTF-8": (b'[{"id": "caf\xe9"}]', " is damaged ('utf-8' codec"),
    "UTF-16": (json.dumps(ROWS).encode("utf-16"), ", line 1 is damaged"),
    "array": ('[\n  {"id": 1},\n  {"id" 2}\n]', " is damaged (JSON is malformed: expected ':' (byte 23))"),
    "truncated array": ('[{"id": 1}', " is damaged (Input data was truncated)"),
    "lines": ('{"id": 1}\n\n{"id": }\n', ", line 3 is damaged"),
    "object over several lines": ('{\n"id": 1\n}', ", line 1 is damaged"),
    "number too long to convert": (f'[{{"id": {"1" * 5000}}}]', " is not valid: [0][...]: Integer value out of range"),
    "nesting too deep": ("[" + '{"a":' * 200_000, " is nested too deeply"),
    "not json at all": ("<!DOCTYPE html>", ", line 1 is damaged"),
    "null in an array": ('[{"id": 1}, null]', " is not valid: [1]: Expected `object`, got `null`"),
    "number in a line": ('{"id": 1}\n3', ", line 2 is not valid: Expected `object`, got `int`"),
}


@pytest.mark.parametrize(("content", "fault"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_names_the_place_and_the_form(write, content, fault):
    text = message(write(content))
    assert f"rows.json{fault}" in text
    assert text.endswith("; expected a JSON array of objects or one object per line, in UTF-8")


@pytest.mark.parametrize("content", ["", " \n", "[]"])
def test_no_rows(write, content):
    assert "org/set/rows.json holds no rows" in message(write(content))


class Builder:
    """Stands in for a dataset builder: one row per configuration and split."""

    def __init__(self, config: str | None, revision: str) -> None:
        self.config = config
        self.hash = revision
        self.prepared = False

    def download_and_prepare(self) -> None:
        self.prepared = True

    def as_dataset(self, split: str) -> datasets.Dataset:
        assert self.prepared
        if split != "test":
            raise ValueError(f'Unknown split "{split}".')
        return datasets.Dataset.from_list([{"config": self.config, "n": 1}])


@pytest.fixture
def hub(monkeypatch):
    """A hub that has the dataset at REVISION."""
    asked = []

    def dataset_info(self, name, *, revision, timeout):
        asked.append((name, revision, timeout))

    def load_dataset_builder(name, config, revision):
        assert name == SOURCE.name
        return Builder(config, revision)

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    return asked


def test_hub_rows(hub):
    rows, provenance = read_rows(SOURCE, None)
    assert rows == [{"config": None, "n": 1}]
    assert (provenance.name, provenance.revision, provenance.sha256) == ("org/set:test", REVISION, None)
    assert [asked[:2] for asked in hub] == [("org/set", REVISION)]


def test_hub_configurations_are_concatenated(hub):
    source = Table("org/set", "rows.json", "test", REVISION, hub_configs=("one", "two"))
    rows, provenance = read_rows(source, None)
    assert [row["config"] for row in rows] == ["one", "two"]
    assert provenance.rows == 2


def test_hub_unknown_split(hub):
    source = Table("org/set", "rows.json", "dev", REVISION)
    with pytest.raises(DataError, match=r'split dev, .*Unknown split "dev"'):
        read_rows(source, None)


@pytest.mark.parametrize(
    "error",
    [
        HTTPError("connection refused"),
        OSError("connection refused"),
        datasets.exceptions.DatasetNotFoundError("connection refused"),
    ],
)
def test_hub_errors_say_what_to_do(hub, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(HfApi, "dataset_info", fail)
    text = message(None)
    assert f"cannot load dataset org/set (split test, revision {REVISION}; test rows) from the hub" in text
    assert "connection refused" in text
    assert "--data-dir DIR" in text and "CPMI_EVAL_DATA_DIR" in text and "<org>/<dataset>/<file>" in text
    assert "network" in text and "HF_HUB_OFFLINE" in text


def test_hub_programming_errors_are_not_hidden(hub, monkeypatch):
    def fail(*args, **kwargs):
        raise TypeError("a bug")

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(TypeError):
        read_rows(SOURCE, None)


def offline(*args, **kwargs):
    raise OfflineModeIsEnabled("offline mode is enabled")


def test_offline_uses_the_cached_revision(hub, monkeypatch):
    monkeypatch.setattr(HfApi, "dataset_info", offline)
    assert read_rows(SOURCE, None)[1].revision == REVISION


def test_offline_refuses_another_cached_revision(hub, monkeypatch):
    # Without the hub, `datasets` returns the newest revision in its cache, whatever was asked for.
    monkeypatch.setattr(HfApi, "dataset_info", offline)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name, config, revision: Builder(config, "f" * 40))
    text = message(None)
    assert REVISION in text and "f" * 40 in text and "--data-dir DIR" in text


REAL_TRY = """
import time
from cpmi_eval.errors import DataError
from cpmi_eval.tasks.sources import Table, read_rows
start = time.monotonic()
try:
    read_rows(Table("org/set", "rows.json", "test", "0" * 40), None)
except DataError as error:
    print(error)
    print(time.monotonic() - start)
"""


@pytest.mark.parametrize("settings", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "offline mode"])
def test_real_libraries_without_a_hub_fail_fast(settings, tmp_path):
    """In a process of its own: the libraries read where the hub is, and the offline switch, when imported."""
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", REAL_TRY], env=environment | settings, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    text, seconds = result.stdout.splitlines()
    assert text.startswith("cannot load dataset org/set (split test, revision 0000")
    assert "--data-dir DIR" in text
    assert float(seconds) < 20
