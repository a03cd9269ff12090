"""The one door between bytes and objects: JSON, JSON lines and YAML become checked values here, and nowhere else.

Types are frozen dataclasses. msgspec decodes into them: it is strict about kinds, names the field that is wrong, and
imports in milliseconds. A damaged file is one typed error that names file, line and field, whatever the damage: wrong
kinds, NaN, numbers out of range, broken UTF-8 or surrogates, nesting without end, no permission.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import jsonlines
import msgspec
import yaml

from cpmi_eval.errors import StoreError, UsageError

T = TypeVar("T")
_BLANK = r"Expected `str` matching regex '\\S'"
Filled: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\S")]  # a text that is not blank


@dataclass(frozen=True)
class Source:
    """Where bytes come from, and how a fault in them is told.

    Args:
        name: the file, with the line where there is one.
        error: the type that a fault is raised as.
        advice: the next step, appended to every message about the content.
    """

    name: str
    error: type[UsageError] = StoreError
    advice: str = ""

    def fault(self, what: str) -> UsageError:
        """Return the error that says what is wrong with the content."""
        return self.error(f"{self.name} {what}" + (f"; {self.advice}" if self.advice else ""))

    def line(self, number: int) -> Source:
        """Return the source of one line, counted from 1."""
        return Source(f"{self.name}, line {number}", self.error, self.advice)


def convert(value: object, kind: type[T], source: Source) -> T:
    """Return plain JSON values as ``kind``.

    Raises:
        UsageError: of the source's type; a field is missing, unknown or of another kind, and is named.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise source.fault(_field(error)) from None
    except RecursionError:
        raise source.fault("is nested too deeply") from None


def parse_json(data: bytes | str, kind: type[T], source: Source) -> T:
    """Return one JSON document as ``kind``.

    Raises:
        UsageError: of the source's type; what is wrong, and where.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise source.fault(_field(error)) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise source.fault(f"is damaged ({error})") from None
    except RecursionError:
        raise source.fault("is nested too deeply") from None


def read_json(path: Path, kind: type[T], source: Source | None = None) -> T:
    """Read a JSON file as ``kind``.

    Raises:
        UsageError: of the source's type; the file cannot be read, or its content is not ``kind``.
    """
    source = source or Source(str(path))
    return parse_json(read_bytes(path, source), kind, source)


def read_lines(path: Path, kind: type[T], source: Source | None = None) -> Iterator[T]:
    """Read a file of JSON lines, one ``kind`` per line; only line feeds end a line.

    Raises:
        UsageError: of the source's type; the file cannot be read, or a line is not ``kind``; names the line.
    """
    source = source or Source(str(path))
    return parse_lines(read_bytes(path, source), kind, source)


def parse_lines(data: bytes, kind: type[T], source: Source, start: int = 1) -> Iterator[T]:
    """Return the lines of ``data`` that are not blank as ``kind``, counted from ``start``; see :func:`read_lines`."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start):  # not at U+2028 and the like
        if line.strip():
            yield parse_json(line, kind, source.line(number))


class _Plain(yaml.SafeLoader):
    """YAML of JSON's kinds: what looks like a date is text."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: bytes | str, kind: type[T], source: Source) -> T:
    """Return a YAML document as ``kind``.

    Raises:
        UsageError: of the source's type; no YAML, tags beyond JSON's kinds, or not ``kind``.
    """
    try:
        content = yaml.load(text, _Plain)
    except (yaml.YAMLError, ValueError) as error:
        raise source.fault(f"is no YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise source.fault("is nested too deeply") from None
    return convert(content, kind, source)


def read_yaml(path: Path, kind: type[T], source: Source | None = None) -> T:
    """Read a YAML file as ``kind``; see :func:`parse_yaml`."""
    source = source or Source(str(path))
    return parse_yaml(read_bytes(path, source), kind, source)


def read_bytes(path: Path, source: Source | None = None) -> bytes:
    """Read a whole file.

    Raises:
        UsageError: of the source's type; it does not exist or cannot be read.
    """
    source = source or Source(str(path))
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise source.error(f"{source.name} does not exist") from None
    except (OSError, ValueError) as error:
        raise source.error(f"{source.name} cannot be read: {_reason(error)}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever the disk refuses inside the block into one error that names the file and the reason.

    Raises:
        StoreError: no space, no permission, an input or output error.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {_reason(error)}") from error


def replace_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically: a reader or a crash sees the old one or the new one, whole.

    The scratch file lies beside the target under a name of its own, so that several writers do not meet. A symbolic
    link stays one, and what it points to is replaced.

    Raises:
        StoreError: the disk refuses; the old file is untouched.
    """
    target = Path(os.path.realpath(path))
    with writing(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), _mode(target))
                os.fsync(stream.fileno())
            os.replace(name, target)  # noqa: PTH105 - a name, not a Path
        except BaseException:
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108
            raise


def replace_text(path: Path, text: str) -> None:
    """Replace a file atomically by UTF-8 text; see :func:`replace_bytes`."""
    replace_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: object) -> None:
    """Replace a file atomically by an indented JSON document of dataclasses or plain values."""
    replace_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append(path: Path, data: bytes) -> None:
    """Append to a file and put it on disk before returning.

    Raises:
        StoreError: the disk refuses. What was written of ``data`` may lack its end: see :func:`whole_lines`.
    """
    with writing(path), path.open("ab") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def to_lines(rows: Iterable[object]) -> bytes:
    """Return dataclasses or plain values as JSON lines."""

    def dumps(row: object) -> str:
        return json.dumps(plain(row), ensure_ascii=False, allow_nan=False)

    found = io.StringIO()
    with jsonlines.Writer(found, dumps=dumps) as writer:
        writer.write_all(rows)
    return found.getvalue().encode("utf-8")


def plain(value: object) -> Any:
    """Return a dataclass as JSON values; plain values as they are."""
    return value if isinstance(value, Mapping) else msgspec.to_builtins(value)


def whole_lines(path: Path) -> bytes:
    """Return a file's whole lines, cutting a torn last one off the file."""
    data = read_bytes(path)
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with writing(path), path.open("r+b") as stream:
            stream.truncate(whole)
    return data[:whole]


def _mode(target: Path) -> int:
    """Return the permissions of the file that is replaced, or those that a new one gets."""
    with suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _field(error: msgspec.ValidationError) -> str:
    """Return what is wrong, after the name of the field: ``$.model.dtype`` becomes ``model.dtype``."""
    what, _, place = str(error).rpartition(" - at `")
    field = place.rstrip("`").removeprefix("$").removeprefix(".")
    what = what.replace(_BLANK, "blank, expected text")
    return f"is not valid: {f'{field}: ' if what and field else ''}{what or error}"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
