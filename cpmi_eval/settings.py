"""Settings of labelers, tasks and models: ``k=v,k=v`` on a command line, a mapping in a config file, checked once."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cpmi_eval.errors import UnknownNameError, UsageError

log = logging.getLogger(__name__)
T = TypeVar("T")
_PAIR = re.compile(r"""\s*(?P<key>[A-Za-z_][\w-]*)=(?P<value>"(?:[^"\\]|\\.)*"|[^,]*)(?:,|$)""")
_SHARING = {"trie": True, "pairwise": False}  # prefix_sharing, as files and earlier versions call it: the scorer
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def parse_pairs(text: str) -> dict[str, Any]:
    """Parse ``a=1,b=x,c="with, comma"``; numbers and true/false/none become themselves, ``-`` in keys ``_``.

    Raises:
        UsageError: not of that form; shows where parsing stopped.
    """
    pairs: dict[str, Any] = {}
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise UsageError(f"expected key=value[,key=value...], stopped at {text[at:]!r} of {text!r}")
        key, value = match["key"].replace("-", "_"), match["value"]
        if key in pairs:
            raise UsageError(f"{key} is given twice in {text!r}")
        quoted = len(value) > 1 and value.startswith('"')
        pairs[key] = re.sub(r'\\(["\\])', r"\1", value[1:-1]) if quoted else scalar(value.strip())
        at = match.end()
    return pairs


def scalar(text: str) -> Any:
    """Return the int, float, bool or None that ``text`` spells, else the text itself."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def unescape(text: str) -> str:
    r"""Turn the two characters ``\n`` into a newline, likewise ``\t``, ``\r`` and ``\\``; leave all else alone."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text)


def construct(kind: str, factory: Callable[..., T], settings: Mapping[str, Any], **fixed: Any) -> T:
    """Call ``factory`` with ``settings`` and those of ``fixed`` that it takes.

    A factory that takes any keyword may say in ``passes_on`` what it hands them to: their names are checked too.

    Raises:
        UnknownNameError: a setting that the factory does not have; close names are suggested.
    """
    parameters = inspect.signature(factory).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    passes_on = getattr(factory, "passes_on", None)
    if not takes_any or passes_on is not None:
        further = inspect.signature(passes_on).parameters if passes_on is not None else {}
        own = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
        known = [name for name in (*own, *further) if name not in fixed]
        for name in settings:
            if name not in known:
                raise UnknownNameError(f"{kind} setting", name, known)
        fixed = {name: value for name, value in fixed.items() if name in own}
    try:
        inspect.signature(factory).bind(**settings, **fixed)
    except TypeError as error:
        raise UsageError(f"{kind}: {error}") from error
    return factory(**settings, **fixed)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``options``."""
    if value not in options:
        raise UnknownNameError(name, str(value), options)
    return str(value)


MAX_INTEGER = 2**63 - 1


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` if it is a whole number in range, of 64 bits at most."""
    most = MAX_INTEGER if high is None else high
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UsageError(f"{name} must be a whole number of at most 64 bits")
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= most:
        bound = f"at least {low}" if high is None else f"between {low} and {high}"
        raise UsageError(f"{name} must be a whole number {bound}, not {value!r}")
    return value


def number(name: str, value: Any, low: float = float("-inf"), high: float = float("inf")) -> float:
    """Return ``value`` as a float if it is a finite number in range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or value - value != 0:
        raise UsageError(f"{name} must be a number between {low} and {high}, not {value!r}")
    return float(value)


def text(name: str, value: Any) -> str:
    r"""Return ``value`` as text, with ``\n`` and the like understood; a number on a command line is text, too."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{name} must be a text, not {value!r}")
    return unescape(str(value))


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is true or false: whatever is on or off passes through here.

    A text never does: ``no``, ``off`` and ``"false"`` would all count as true.

    Raises:
        UsageError: anything but ``True`` and ``False``; names the setting and the value.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false, not {value!r}")
    return value


def optional_flag(name: str, value: Any) -> bool | None:
    """Return ``value`` if it is true, false or ``None``, where that leaves the choice to somebody else."""
    return None if value is None else flag(name, value)


def switch(name: str, value: Any) -> bool:
    """Return whether ``value`` is true, or ``on`` on a command line; the names of earlier versions are told."""
    if isinstance(value, str) and value in _SHARING:
        on = _SHARING[value]
        log.warning("scorer %s is now %s %s; the old name goes in the next version", value, name, "on" if on else "off")
        return on
    given = scalar(value) if isinstance(value, str) else value
    return given if isinstance(given, bool) else choice(name, given, ("on", "off")) == "on"


def recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as files hold them, where ``prefix_sharing`` is ``scorer``, so that no fingerprint moves."""
    words = {on: word for word, on in _SHARING.items()}
    return dict(("scorer", words[one]) if key == "prefix_sharing" else (key, one) for key, one in config.items())


def unrecorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that :func:`recorded` has put into a file."""
    return dict(
        ("prefix_sharing", _SHARING.get(str(one), one)) if key == "scorer" else (key, one)
        for key, one in config.items()
    )
