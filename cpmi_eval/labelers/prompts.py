"""Prompts: read from a file where the user gives one, filled, and put into a chat turn where the model has chats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.protocols import LanguageModel

Chat = bool | Literal["auto"]


def read_prompt(path: Path, fields: Sequence[str]) -> str:
    """Read a prompt: a UTF-8 text that holds each of ``fields`` as ``{field}``. Other braces are left alone.

    Raises:
        UsageError: no such file, not UTF-8, or a field is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"prompt file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompt file {path} cannot be read: {error}") from error
    if missing := [f"{{{field}}}" for field in fields if f"{{{field}}}" not in text]:
        raise UsageError(f"prompt file {path} must hold {' and '.join(missing)}")
    return text


def fill(template: str, **values: str) -> str:
    """Replace ``{name}`` by its value for the given names, all at once: braces inside a value stay as they are."""
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda match: values[match.group(1)], template)


def check_chat(value: object) -> Chat:
    """Return the ``chat`` setting if it is true, false or auto."""
    if isinstance(value, bool):
        return value
    if value == "auto":
        return "auto"
    raise UnknownNameError("chat setting", str(value), ("true", "false", "auto"))


def uses_chat(chat: Chat, backend: LanguageModel) -> bool:
    """Return whether prompts go through the chat template; ``auto``: where the model has one."""
    return backend.has_chat_template if chat == "auto" else chat
