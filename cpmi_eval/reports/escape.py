r"""Text that a model, a server or a user wrote, as it may be shown: one function for each form of output.

Control characters, escape sequences, marks that turn the direction of text, and lone surrogates are spelled out
(``\x1b``, ``\u202e``) in all of them, so that no form carries them to a terminal; line ends and tabs are kept.
"""

from __future__ import annotations

import html as _html
import json as _json
import re
from typing import Any

_CONTROL = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
_MARKUP = re.compile("[<>&]")
_MARKDOWN = re.compile(
    r"[\\`*|\[<~]"  # code, emphasis, cells, links, elements, strikes
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is no emphasis
    r"|&(?=#?\w+;)|(?<!\w)[@#](?=\w)"  # entities, mentions of people and issues
    r"|^[-+>#](?=\s)"  # lists, quotations, headings
)
_FORMULA = frozenset("=+-@\t\r＝＋－＠")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _spelled(found: re.Match[str]) -> str:
    point = ord(found[0])
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"


def terminal(text: str) -> str:
    """Text for a terminal or a file that is read on one; markup of rich is none unless it is printed as markup."""
    return text if text.isprintable() else _CONTROL.sub(_spelled, text)


def line(text: str) -> str:
    """Text for a terminal that must stay on its line."""
    return " ".join(terminal(text).split())


def markdown(text: str) -> str:
    """Text within a paragraph or a cell of GitHub's markdown, on one line."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", line(text))


def code(text: str) -> str:
    """Text as a code span of markdown; it may hold backticks."""
    text = line(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def csv(value: Any) -> Any:
    """A cell for a CSV writer; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = terminal(value)
    return f"'{text}" if value[:1] in _FORMULA else text


def html(text: str) -> str:
    """Text between tags or in an attribute of HTML."""
    return _html.escape(terminal(text))


def xml(text: str) -> str:
    """Text for an XML writer, which escapes markup: what XML cannot hold is replaced."""
    return _NOT_XML.sub("\ufffd", _CONTROL.sub(lambda found: found[0] if found[0] == "\r" else _spelled(found), text))


def json(value: Any, *, indent: int | None = None, markup: bool = True) -> str:
    """A JSON document, of the same value but without raw control characters.

    Args:
        value: what is written; numbers must be finite.
        indent: spaces per level; ``None``: all on one line, without blanks where there is no markup.
        markup: whether ``<``, ``>`` and ``&`` may stand as they are; not so within HTML.

    Raises:
        ValueError: a number is not finite.
    """
    separators = None if markup else (",", ":")
    text = _json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, separators=separators)
    text = _CONTROL.sub(_point, text)
    return text if markup else _MARKUP.sub(_point, text)


def _point(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
