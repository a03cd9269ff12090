"""Traces of your own: a file of JSON lines, for labelers to score and, where lines are annotated, to be judged by.

A line is ``{"problem": "...", "steps": ["...", ...]}`` and may hold ``answer`` (the problem's reference answer), ``id``
(``line-N`` if not given) and ``label`` (the 0-based index of the first wrong step, -1 if there is none). Other fields
are left alone. Metrics stand on the annotated lines; a file without any has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from cpmi_eval.errors import DataError, UnknownNameError, UsageError
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.tasks.references import problem_cluster
from cpmi_eval.types import JSON, Gold, Item, Provenance, TaskData, Trace

SUBSET = "file"
SHOWN_LINES = 5


class Traces:
    """A file of traces as a task. Its one setting is ``path``."""

    name: ClassVar[str] = "traces"
    summary: ClassVar[str] = "traces of your own, from a file of JSON lines: --task_args path=FILE"
    subsets: ClassVar[tuple[str, ...]] = (SUBSET,)
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = False

    def load(self, options: LoadOptions) -> TaskData:
        """Return the file's traces in order.

        Raises:
            UsageError: no path, or a subset or a setting that does not exist.
            DataError: the file cannot be read, or lines are not traces; they are reported together.
        """
        for subset in options.subsets:
            if subset not in self.subsets:
                raise UnknownNameError("subset", subset, self.subsets)
        path = _path(options.args or {})
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read traces from {path}: {error.strerror or error}") from error
        items = _items(content, path)
        digest = hashlib.sha256(content).hexdigest()
        return TaskData(items, (Provenance(path.name, sha256=digest, rows=len(items)),))


def _path(args: Mapping[str, Any]) -> Path:
    for name in args:
        if name != "path":
            raise UnknownNameError("setting of the task traces", name, ("path",))
    path = args.get("path")
    if not isinstance(path, str) or not path:
        given = f", not {path!r}; quote a name that looks like a number" if "path" in args else ""
        raise UsageError(f"the task traces needs a file: --task_args path=FILE{given}")
    return Path(path)


def _items(content: bytes, path: Path) -> tuple[Item, ...]:
    """Return one item per line that is not blank, or one error for all lines that are none."""
    items: list[Item] = []
    complaints: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):  # not at U+2028 and the like, which texts may hold
        if not line.strip():
            continue
        row, problems = _parse(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        name = row.get("id", f"line-{number}")
        if not problems and (first := lines.setdefault(name, number)) != number:
            problems = [f"the id {name!r} is also that of line {first}, expected unique ids"]
        if problems:
            complaints.append(f"{path}:{number}: {'; '.join(problems)}")
        else:
            items.append(_item(name, row))
    if complaints:
        raise DataError(_report(complaints))
    if not items:
        raise DataError(f"{path} holds no traces; write one JSON object per line, with 'problem' and 'steps'")
    return tuple(items)


def _report(complaints: list[str]) -> str:
    count = "1 line is" if len(complaints) == 1 else f"{len(complaints)} lines are"
    shown = "".join(f"\n  {complaint}" for complaint in complaints[:SHOWN_LINES])
    more = f"\n  ... and {len(complaints) - SHOWN_LINES} more" if len(complaints) > SHOWN_LINES else ""
    return f"{count} no trace; correct or remove what is named here:{shown}{more}"


def _parse(line: bytes) -> tuple[JSON, list[str]]:
    """Return a line's object and what is wrong with it; an empty object where it is none."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, [f"not UTF-8 ({error.reason} at byte {error.start})"]
    except (ValueError, RecursionError) as error:
        return {}, [f"not JSON ({error})"]
    if not isinstance(row, dict):
        return {}, [f"expected an object with 'problem' and 'steps', got {_show(row)}"]
    return row, list(_problems(row))


def _problems(row: JSON) -> Iterator[str]:
    """Yield what is wrong with an object, each with what was expected."""
    for key in ("problem", "steps"):
        if key not in row:
            yield f"{key!r} is missing; it has {', '.join(map(_show, row)) or 'nothing'}"
    texts: JSON = {key: row[key] for key in ("problem", "id") if key in row}
    if row.get("answer") is not None:
        texts["answer"] = row["answer"]
    for key, value in texts.items():
        yield from _text_problems(repr(key), value)
    if "steps" in row:
        yield from _steps_problems(row["steps"])
    if row.get("label") is not None:
        yield from _label_problems(row["label"], row.get("steps"))


def _steps_problems(steps: Any) -> Iterator[str]:
    if not isinstance(steps, list) or not steps:
        yield f"'steps' is {_show(steps)}, expected a list of at least one string"
        return
    for index, step in enumerate(steps):
        yield from _text_problems(f"step {index}", step)


def _label_problems(label: Any, steps: Any) -> Iterator[str]:
    last = len(steps) - 1 if isinstance(steps, list) else 0
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label <= last:
        yield f"'label' is {_show(label)}, expected the index of the first wrong step, -1 to {last}, or null"


def _text_problems(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} is {_show(value)}, expected a string"
    elif not value.strip():
        yield f"{name} is blank, expected text"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        yield f"{name} holds half a surrogate pair, expected valid Unicode"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _item(name: str, row: JSON) -> Item:
    trace = Trace(name, row["problem"], tuple(row["steps"]), row.get("answer"), problem_cluster(row["problem"]))
    return Item(SUBSET, trace, Gold(row.get("label")))
