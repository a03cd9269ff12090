"""A command that is killed at any of its writes, or that the disk refuses one, and is given again ends undisturbed."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commandline import Cli

from cpmi_eval.record import door

pytestmark = pytest.mark.usefixtures("plain")

SYNTHETIC = ("--task", "synthetic", "--task_args", "n=4")
RUN = ("run", "--labeler", "length", *SYNTHETIC, "--batch_size", "2", "--output_path", "made")
# what is there before, the command, and the files that it makes
VERBS: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...], tuple[str, ...]]] = {
    "run": (None, RUN, ("made/samples.jsonl", "made/traces.jsonl", "made/results.json")),
    "rescore": (
        RUN,
        ("rescore", "made", "--threshold", "fixed:0.5", "--output_path", "again"),
        ("again/samples.jsonl", "again/results.json"),
    ),
    "label": (
        None,
        ("label", "--labeler", "length", *SYNTHETIC, "--format", "scores", "--to", "labels.jsonl"),
        ("labels.jsonl", "labels.jsonl.json"),
    ),
    "label a run": (
        RUN,
        ("label", "--from", "made", "--format", "scores", "--to", "l.jsonl"),
        ("l.jsonl", "l.jsonl.json"),
    ),
    "compare": (
        None,
        ("compare", "--labelers", "length,random", *SYNTHETIC, "--output_path", "compared"),
        ("compared/compare.json",),
    ),
    "check": (RUN, ("check", "made", "--baseline", "base.json", "--update"), ("base.json",)),
    "leaderboard": (RUN, ("leaderboard", "add", "made", "--to", "boards"), ("boards/synthetic.jsonl",)),
    "export": (RUN, ("export", "made", "--format", "lm-eval", "--to", "out"), ()),
}


class Killed(BaseException):
    """What no handler expects."""


TIMES = r'"\w*(?:seconds|speed|started|created|date|time|sessions|load_\w+|warm_up|score|total|value)": [^,}\n]+'


def kept(files: tuple[str, ...]) -> dict[str, str]:
    """The contents of files but for what time decides."""
    return {name: re.sub(TIMES, "", Path(name).read_text(encoding="utf-8")) for name in files}


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> Any:
    return VERBS[request.param]


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int, fail: Callable[[], BaseException]) -> Callable[[], int]:
    """Let the ``at``-th write of the door stop half-way, as a process that dies leaves it; counts the writes."""
    seen = 0
    swap, write = os.replace, door.append

    def replace(source: Any, target: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            raise fail()
        swap(source, target)

    def append(path: Path, data: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            write(path, data[: len(data) // 2])
            with door.writing(path):
                raise fail()
        write(path, data)

    monkeypatch.setattr(door.os, "replace", replace)
    monkeypatch.setattr(door.os, "unlink", lambda name: None)  # nobody cleans up after a death
    monkeypatch.setattr(door, "append", append)
    return lambda: seen


def test_a_command_killed_at_any_write_ends_as_if_undisturbed(
    cli: Cli, verb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, command, files = verb
    at, whole = 0, None
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        monkeypatch.chdir(folder)
        if before:
            assert cli(*before).code == 0
        with monkeypatch.context() as patched:
            count = interrupted(patched, at, Killed)
            try:
                first = cli(*command)
            except Killed:
                first = None
        if first is not None and at > count():
            break  # there is no such write
        done = cli(*command) if first is None else first
        assert done.code == 0, (at, done.err)
        whole = whole or kept(files)
        assert kept(files) == whole, at
        at += 1
    assert at > 1


def test_a_disk_that_refuses_any_write_is_one_line_and_the_command_goes_on(
    cli: Cli, verb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, command, files = verb
    at = 1
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        monkeypatch.chdir(folder)
        if before:
            assert cli(*before).code == 0
        with monkeypatch.context() as patched:
            count = interrupted(patched, at, lambda: OSError(28, "No space left on device"))
            first = cli(*command)
        if at > count():
            break
        assert first.code in (1, 2), (at, first)
        assert "No space left on device" in first.err + first.out, (at, first)
        said = first.err.split("--- Logging error")[0]  # the handler of an earlier test writes to a stream of its own
        assert "Traceback" not in said
        done = cli(*command)
        assert done.code == 0, (at, done.err)
        assert all(Path(name).exists() for name in files)
        at += 1
    assert at > 1
