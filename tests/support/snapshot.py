"""Texts that people see, kept as files. UPDATE_SNAPSHOTS=1 rewrites them; read the diff before keeping it."""

import difflib
import os

from places import SNAPSHOTS


def check(name: str, text: str) -> None:
    """Compare ``text`` with snapshots/NAME.txt. Spaces at line ends, which tables pad with, are not kept."""
    text = "".join(f"{line.rstrip()}\n" for line in text.split("\n")).rstrip("\n") + "\n"
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.is_file(), f"no snapshot {path.name} yet; write it with UPDATE_SNAPSHOTS=1"
    kept = path.read_text(encoding="utf-8")
    diff = difflib.unified_diff(kept.splitlines(), text.splitlines(), f"kept {path.name}", "now", lineterm="")
    assert text == kept, "\n".join([*diff, "if this is what should be shown: UPDATE_SNAPSHOTS=1"])
