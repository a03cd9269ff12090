r"""Find the final answer that a solution states: string work in linear time, on any input."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"[^\s${}]+")
_HASH_LINE = re.compile(r"####[ \t]*([^\n]*)")
_STATED = re.compile(r"\banswer(?:\s+is\b|\**\s*:)[\s:*]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|\*|$)")
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])[-−])?\\?\$?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:/\d+(?![\d.]))?(?:\\?%)?"
)
_MAX_WRAPPERS = 8
_WRAPPERS = (("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))


def last_boxed(text: str) -> str | None:
    r"""Return the contents of the last complete ``\boxed{...}`` or ``\fbox{...}`` (or ``\boxed 5``), if any."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    closing = dict(_brace_pairs(text, boxes[0].end()))
    for box in reversed(boxes):
        start = box.end()
        if text.startswith("{", start):
            if start in closing:
                return text[start + 1 : closing[start]].strip()
        elif bare := _BARE_BOX.match(text, start):
            return bare.group().rstrip(".,;:")
    return None


def _brace_pairs(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield (open, close) positions of matching braces; escaped braces are characters of the text."""
    opened: list[int] = []
    for brace in _BRACE.finditer(text, start):
        if brace.group() == "{":
            opened.append(brace.start())
        elif brace.group() == "}" and opened:
            yield opened.pop(), brace.start()


def final_answer(text: str) -> str | None:
    """Return the final answer a solution states, or ``None`` if it states none.

    In this order: the last box, the last ``####`` line (GSM8K), the last "answer is: ...", the last number.
    """
    return stated_answer(text) or _last_number(text)


def stated_answer(text: str) -> str | None:
    """Return the final answer where a solution says that it is one, as :func:`final_answer` but for the last number."""
    for find in (last_boxed, _after_hashes, _stated):
        if found := find(text):
            return found
    return None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _after_hashes(text: str) -> str | None:
    """Return the last ``####`` line, unless it is a markdown heading: words with more text below."""
    line = _last(_HASH_LINE, text)
    if line is None:
        return None
    answer = clean(line.group(1))
    is_last = not text[line.end() :].strip()
    return answer if is_last or _NUMBER.fullmatch(answer) else None


def _stated(text: str) -> str | None:
    stated = _last(_STATED, text)
    if stated is None:
        return None
    end = _SENTENCE_END.search(text, stated.end())
    return clean(text[stated.end() : end.start() if end else len(text)])


def _last_number(text: str) -> str | None:
    number = _last(_NUMBER, text)
    return clean(number.group()) if number else None


def clean(answer: str) -> str:
    """Strip what surrounds an answer in running text: math delimiters, bold marks, a final period."""
    answer = answer.strip()
    for _ in range(_MAX_WRAPPERS):
        before = answer
        answer = answer.rstrip(". \n")
        for left, right in _WRAPPERS:
            if answer.startswith(left) and answer.endswith(right) and len(answer) >= len(left) + len(right):
                answer = answer[len(left) : len(answer) - len(right)].strip()
        answer = _strip_dollars(answer.removesuffix("**")).strip()
        if answer == before:
            break
    return answer


def _strip_dollars(answer: str) -> str:
    """Drop ``$`` at the ends unless they belong to several formulas or are an escaped currency sign."""
    if answer.count("$") > 2 or (answer.count("$") == 2 and not (answer[0] == answer[-1] == "$")):
        return answer
    answer = answer.removeprefix("$")
    return answer if answer.endswith(r"\$") else answer.removesuffix("$")
