r"""Find the final answer that a solution states: string work in linear time, on any input.

An answer is what stands in the last box, after the last ``####`` (GSM8K), or after the last "answer is" or "answer:",
whatever display, fence, list or emphasis it stands in and without the clause that goes on after it; else it is the
last value in the text. A value is a whole formula, or its right side, or a number as it is written: never a piece.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from cpmi_eval.grading.notation import unwrapped

CUT = "\0"  # where a text was cut off; a statement that runs into it may lack its end

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])[ \t]*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"[^\s${}]+")
_HASH_LINE = re.compile(r"####[ \t]*([^\n]*)")
_TAIL = 2000  # characters at the end of a text in which the last value is looked for


def final_answer(text: str) -> str | None:
    """Return the final answer a solution states, or ``None`` if it states none.

    In this order: the last box, the last ``####`` line (GSM8K), the last "answer is: ...", the last value.
    """
    return stated_answer(text) or _last_value(text)


def stated_answer(text: str, is_cut: bool = False) -> str | None:
    """Return the final answer where a solution says that it is one, as :func:`final_answer` but for the last value.

    Args:
        text: the solution.
        is_cut: whether the text was cut off. A statement that runs to its end may then lack its own, and is none.
    """
    text += CUT if is_cut else ""
    for find in (last_boxed, _after_hashes, _stated):
        if found := find(text):
            return None if CUT in found and is_cut else found
    return None


def clean(answer: str) -> str:
    """Strip what surrounds an answer in running text: math delimiters, emphasis, a final period, a lone ``$``."""
    answer = unwrapped(answer)
    if answer.count("$") == 1 and not answer.endswith(r"\$"):
        answer = answer.strip("$").strip()
    return answer


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


# --- boxes and hashes -------------------------------------------------------------------------------------------


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


def _after_hashes(text: str) -> str | None:
    """Return the last ``####`` line, unless it is a markdown heading: words with more text below."""
    line = _last(_HASH_LINE, text)
    if line is None:
        return None
    answer = clean(line.group(1))
    is_last = not text[line.end() :].strip()
    return answer if is_last or _NUMBER.fullmatch(answer) else None


# --- values in running text -------------------------------------------------------------------------------------

_SIGN = (
    r"(?:(?<![\w)\]}])[-−–](?=[\\$€£.\d])"
    r"|(?:(?<=[=:(,])|(?<=[=:(,][ ])|(?<=\bis[ ])|^)[-−–][ ](?=[\\$€£.\d]))?"
)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?"
_END = r"(?!\d|\.\d)"
_NUMBER = re.compile(
    rf"""{_SIGN}\\?[$€£]?(?<![\^_A-Za-z\d])(?:
    \d{{1,2}}:[0-5]\d(?![\d:])(?:\s?[aApP]\.?\s?[mM]\b)?
    |\d+(?::\d+)+
    |\d+[ ]\d+/\d+(?!/){_END}
    |\d*[½⅓⅔¼¾⅕⅛]
    |{_DIGITS}(?:[eE][-+]?\d+(?!\w){_END})?(?:/\d+(?!/){_END})?
        (?:\s?(?:×|\\times|\\cdot)\s?10(?=\^))?(?:\^(?:-?\d+|\{{-?\d+\}}))?
    )(?:\\?%)?""",
    re.VERBOSE,
)
_COMMAND = (
    r"(?:\\[dtc]?frac\s?(?:\d\d|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}\s?\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})"
    r"|\\sqrt\s?(?:\[\d+\])?(?:\d|\{[^{}]*\})|\\pi(?![A-Za-z])|\\infty(?![A-Za-z]))"
)
_WRITTEN = re.compile(  # LaTeX without delimiters, a point, an interval, a number
    rf"{_SIGN}(?:{_DIGITS}\s?)?{_COMMAND}(?:\s?{_COMMAND}|\s?/\s?\d+)*|[(\[]-?{_DIGITS}(?:,\s?-?{_DIGITS})+[)\]]"
    rf"|{_NUMBER.pattern}",
    re.VERBOSE,
)
_FORMULA = re.compile(
    r"\$\$(?P<a>.+?)\$\$|\\\[(?P<b>.+?)\\\]|\\\((?P<c>.+?)\\\)|(?<!\\)\$(?=\S)(?P<d>[^$\n]*[^$\s\\])\$(?!\d)", re.DOTALL
)


def _last_value(text: str) -> str | None:
    """Return the last formula or number; of a formula that is an equation, the value it comes to."""
    for end in (len(text), 1 + max(map(text.rfind, "0123456789"))):  # the end of the text, else the last digit
        start = max(0, end - _TAIL)
        if start:
            gap = re.compile(r"\s").search(text, start, end)
            start = gap.end() if gap else len(text[:start].rstrip("0123456789.,"))
            if end - start > 2 * _TAIL:
                return None  # rather than a piece of a number
        if values := deque(_values(text[start:end]), maxlen=1):
            return values[0]
    return None


def _values(text: str) -> Iterator[str]:
    """Yield the values in a text in order: formulas, and what is written outside them."""
    outside = 0
    for formula in [*_FORMULA.finditer(text), None]:
        until = formula.start() if formula else len(text)
        yield from (clean(one.group()) for one in _WRITTEN.finditer(text, outside, until))
        if formula is not None:
            outside = formula.end()
            content = next(filter(None, formula.groups()))
            if re.search(r"\d|\\(?:pi|infty|frac|sqrt)", content):
                yield _value_of(content)


def _value_of(formula: str) -> str:
    """Return what a formula comes to: of ``a = b = c`` the last side, of an equation in unknowns all of it."""
    if not _TABLE.search(formula):
        formula = _LAYOUT.sub(" ", formula)
    formula = clean(formula.strip().rstrip(".,;"))
    sides = _SIDES.split(formula)
    is_cut = any(len(re.findall(a, sides[-1])) != len(re.findall(b, sides[-1])) for a, b in _BRACKETS)
    is_list = len(sides) > 2 and _JOINT.search(formula)
    is_equation = len(sides) == 2 and re.search(r"[-+^]", sides[0]) and _UNKNOWN.search(sides[0])
    return formula if is_cut or is_list or is_equation else clean(sides[-1])


_LAYOUT = re.compile(r"\\(?:begin|end)\s*\{(?:align|aligned|equation|gather|split)\*?\}|(?<!\\)&|\\\\")
_TABLE = re.compile(r"\\begin\s*\{(?:\w?matrix|array|cases)")
_BRACKETS = ((r"\\begin", r"\\end"), (r"\{", r"\}"), (r"[(\[]", r"[)\]]"))
_SIDES = re.compile(r"(?<![<>!\\])=|\\(?:approx|equiv)(?![A-Za-z])")
_JOINT = re.compile(r"[,;]|\\(?:text|quad|implies|Rightarrow)")
_UNKNOWN = re.compile(r"(?<![A-Za-z\\])[a-z](?![A-Za-z])")

# --- statements -------------------------------------------------------------------------------------------------

_STATED = re.compile(
    r"\b(?:answers?|(?:correct|right)\s+(?:option|choice))(?:\s+(?:is|are)\b|[\s*_]*[:=])"
    r"|^[#*_ \t]*(?:final\s+)?answer[*_ \t]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_OPENING = re.compile(r"(?:[\s:=}*_]|```[a-z]*\n|`|(?<=\n)(?:[-•+>]|\d\d?[.)])[ \t]+(?=\S)|\\quad)+")
_DISPLAY = re.compile(r"\\begin\s*\{((?:align|equation|gather)\w*\*?)\}(.*?)\\end", re.DOTALL)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|\*|$)|```")
_CLAUSE = re.compile(
    r"""[,;:]\s+(?:which|so|because|since|as|where|when|that|this|it|not|with|meaning|given|but|after|rounded|i\.e|hence
        |thus|therefore|done|for|see|[a-z]{3,}ed|and\s+(?:so|this|that|it|we))\b
    |;\s+[A-Za-z]{2}|\s+(?:because|since|which|so\s+that|when|where|if|for|as\s+(?:required|desired|we|shown|expected|it|\d))\b
    |\s+[(\[](?!mod\b)(?:\d+\s+)?[A-Za-z]{2}|\s+[-–—]{1,3}\s+[A-Za-z]{2}""",
    re.VERBOSE,
)
_LEAD = re.compile(
    r"(?:(?:that|simply|just|only|exactly|about|approximately|roughly|therefore|thus|indeed|option|choice),?\s+"
    r"|not\s+\S+,?\s+but\s+)+",
    re.IGNORECASE,
)
_CONNECTIVE = re.compile(r"(?:[\s,;]|and|or|\\text\{[^{}]*\})*")
_EMPHASIS = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
_UNIT_WORDS = re.compile(r"\s*[A-Za-z°%][\w°%/^.]*(?:\s+(?:[A-Za-z]+|per\s\w+)){0,2}\s*")
_GOES_ON = re.compile(
    r"\A\s*(?:[-+*/^=<>:×÷]|\\times|x\s*\d|(?:or|and|to|plus|minus|times|over|remainder|R)\b)|\b(?:and|or|to)\s+\$?\d"
)
_NAMED = re.compile(r"(?:\S+\s+)?\S+\s*\Z")  # a word or two before a number: "June 20", "Room 7"
STATEMENT = 2000  # characters of a statement that are read


def _stated(text: str) -> str | None:
    """Return what the last "answer is" or "answer:" names."""
    stated = _last(_STATED, text)
    if stated is None:
        return None
    rest = re.sub(r"[ \t]+", " ", text[stated.end() : stated.end() + STATEMENT])
    listed = re.match(r"[\s:*]*\n((?:[-•*+] .+\n?){2,})", rest)
    if listed:
        return ", ".join(filter(None, (_statement(line[2:]) for line in listed.group(1).splitlines())))
    opening = _OPENING.match(rest)
    return _statement(rest[opening.end() :] if opening else rest)


def _statement(rest: str) -> str | None:
    """Return the value at the beginning of ``rest``, without the clause that goes on after it."""
    if display := _DISPLAY.match(rest):
        return _value_of(display.group(2))
    formula = _FORMULA.match(rest)
    start = formula.end() if formula else 0
    ended = _SENTENCE_END.search(rest, start)
    line = rest[: ended.start() if ended else len(rest)]
    clause = _CLAUSE.search(line, start)
    said = line[: clause.start() if clause else len(line)]
    if CUT in said:
        return CUT
    if formula is None:
        said = _LEAD.sub("", _EMPHASIS.sub("", said).rstrip("*_` ,;:"), count=1)
    return _said(said, formula)


def _said(said: str, formula: re.Match[str] | None) -> str | None:
    """Return the value that a clause names: a formula with its unit, a number with its unit, or the words."""
    formulas = list(_FORMULA.finditer(said))
    if formulas:
        between = [said[one.end() : other.start()] for one, other in pairwise(formulas)]
        after = said[formulas[-1].end() :].strip()
        if formula and len(formulas) > 1 and all(map(_CONNECTIVE.fullmatch, between)):
            return clean(said)
        chosen = formulas[0] if formula else formulas[-1]
        content = _value_of(next(filter(None, chosen.groups())))
        return f"{content} {after}" if after and chosen is formulas[-1] and _UNIT_WORDS.fullmatch(after) else content
    number = _NUMBER.search(said)
    if number is None or "\\" in said:
        return clean(re.sub(r"(?:\$\$|\\\]|\\\))\s*\Z", "", said))
    before, after = said[: number.start()], said[number.end() :]
    if not before.strip("*_ ("):
        is_whole = _GOES_ON.search(after) or len(after.split()) <= 3
        return clean(said if is_whole else f"{number.group()} {after.split()[0]}".rstrip(" ,;:"))
    if not re.search(r"[A-Za-z]{2}", before) or (_NAMED.fullmatch(before) and len(before.split()) < 2):
        return clean(said)
    numbers = [one for one in _NUMBER.finditer(said) if not re.search(r"\bof\s+(?:the\s+)?\Z", said[: one.start()])]
    return clean((numbers or [number])[0].group())
