r"""One spelling for answers: of LaTeX, of unicode and of plain text; then words, numbers and signs.

What is only decoration (fonts, colours, sizes, spacing commands, delimiters) goes; white space stays, because it tells
``3 1/2`` from ``31/2`` and ``1, 200`` from ``1,200``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SIGNS = str.maketrans(
    dict.fromkeys("−–—‐‑‒﹣－", "-")
    | dict.fromkeys("×∗·⋅∙•", "*") | dict.fromkeys("÷⁄∕", "/") | dict.fromkeys("′’", "'")
    | {
        "∞": r"\infty ", "ℝ": r"\mathbb{R} ", "ℤ": r"\mathbb{Z} ", "∅": r"\emptyset ", "º": "°", "″": "''",
        "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∧": r"\land ", "∨": r"\lor ", "∖": r"\setminus ",
    }
)  # fmt: skip
_RAISED = {ord(raised): plain for raised, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿˣ", "0123456789+-nx", strict=True)}
_LOWERED = {ord(lowered): plain for lowered, plain in zip("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n", strict=True)}
_HIGH = re.compile(f"[{''.join(map(chr, _RAISED))}]+")
_LOW = re.compile(f"[{''.join(map(chr, _LOWERED))}]+")
_ROOT = re.compile(r"([√∛])\s*(\d+(?:\.\d+)?|[A-Za-z])?")
_TEXT = re.compile(r"\\(?:text(?:bf|rm|it|sf|tt|normal|up|sc)?|[mh]box|mathrm|operatorname\*?)\s*\{([^{}]*)\}")
# Commands that mean the same as another, or only say how something looks.
_MEANINGS = {
    "": "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm limits nolimits mathop "
    "displaystyle textstyle scriptstyle mathbf mathit mathsf mathcal mathrm boldsymbol bm ensuremath underline emph "
    "boxed fbox text textbf textrm textit textsf texttt textnormal textup textsc mbox hbox operatorname",
    " ": "bf rm it sf tt em bfseries rmfamily itshape boldmath large Large LARGE huge Huge small tiny normalsize",
    "*": "times cdot ast bullet", "/": "div", "|": "vert lvert rvert mid", ":": "colon", "'": "prime",
    "<": "lt", ">": "gt", "<=": "le leq leqq leqslant", ">=": "ge geq geqq geqslant", "!=": "ne neq",
    "°": "degree degrees", r"\frac": "dfrac tfrac cfrac sfrac nicefrac", r"\binom": "dbinom tbinom",
    r"\emptyset ": "varnothing O", r"\{": "lbrace", r"\}": "rbrace",
    r"\ldots ": "dots ldots cdots dotsb dotsc dotsm dotso",
}  # fmt: skip
_COMMANDS = {command: meaning for meaning, commands in _MEANINGS.items() for command in commands.split()}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_ARGUMENTS = re.compile(  # what is dropped with what follows it
    r"(?<!\\)\{\s*\}|\\(?:left|right)\s*\.|\\(?:text)?color(?:box)?\s*(?:\[\w*\])?\s*\{[^{}]*\}"
)
_DEGREE = r"(?:°|\b[Dd]eg(?:rees?|\.)?)\s*"
_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:mathbb|Bbb)\s*\{?\s*([RZ])\s*\}?|\\([RZ])(?![A-Za-z])", r"\\\1\2\1\2 "),
        (r"\\var(phi|epsilon|theta|rho|sigma|pi)(?![A-Za-z])", r"\\\1"),
        (r"\{\s*([,:.=])\s*\}", r"\1"),
        (r"\*\*", "^"),
        (r"=<", "<="),
        (r"\\not\s*=", "!="),
        (r"\.\.\.+", r"\\ldots "),
        (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*(?:\\circ|°)\s*\}|°)", "°"),
        (_DEGREE + r"C(?![A-Za-z])", " celsius "),
        (_DEGREE + r"F(?![A-Za-z])", " fahrenheit "),
        (_DEGREE + r"([Cc]elsius|[Ff]ahrenheit)\b", r" \1 "),
        (r"\^\s*(?:('+)|\{\s*('+)\s*\})", r"\1\2"),
        (r"''", '"'),
        (r"\bper\s+cent\b", "percent"),
        (r"\bUS\s*\$", "$"),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", "*"),
        (r"\A([A-J])\s*\)\Z", r"\1"),
    )
)
_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|,?\\!|\\,)\s*(?=\d{3}(?!\d))")
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|q?quad(?![A-Za-z])|hfill(?![A-Za-z])|hspace\*?\s*\{[^{}]*\})|~|(?<!\\)\\(?=\s)"
)
_WRAPPERS = (("$$", "$$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"), ("$", "$"), ('"', '"'), ("“", "”"))


def unwrapped(answer: str) -> str:
    """Strip what surrounds an answer in running text: math delimiters, emphasis, a final period."""
    answer = answer.strip()
    for _ in range(8):
        before = answer
        answer = re.sub(r"(?:\s|(?<!\\)(?:[,;]|(?<!\.)\.|\\\\))+\Z", "", answer)
        for left, right in _WRAPPERS:
            inner = answer[len(left) : len(answer) - len(right)]
            fits = answer.startswith(left) and answer.endswith(right) and len(answer) >= len(left) + len(right)
            if fits and left not in inner and not answer.endswith(r"\$"):
                answer = inner.strip()
        if answer.count("**") == 1:
            answer = answer.removesuffix("**").strip()
        if answer == before:
            break
    return answer


def tidy(answer: str) -> str:
    """Return ``answer`` in one spelling, without decoration."""
    if not answer.isascii():
        answer = _ascii(answer)
    answer = unwrapped(re.sub(r"(\.\d+)\.{3,}", r"\1\\ldots ", answer))
    if answer.isalnum():
        return answer
    for _ in range(3):  # fonts nest, seldom deeper
        answer = _TEXT.sub(r" \1 ", answer)
    answer = _GROUPS.sub("", re.sub(r"(?<!\\)\\[()\[\]]", " ", answer)).replace(r"\!", "")
    money = answer.replace(r"\$", "\0")
    if money.count("$") % 2 == 0:
        money = money.replace("$", " ")
    answer = re.sub(r"\\([%&#_])", r"\1", _SPACE.sub(" ", money.replace("\0", "$")))
    answer = _ARGUMENTS.sub(" ", answer)
    answer = _COMMAND.sub(lambda command: _COMMANDS.get(command[1], command[0]), answer)
    for pattern, replacement in _RULES:
        answer = pattern.sub(replacement, answer)
    return answer.strip()


def has_text(answer: str) -> bool:
    r"""Return whether some of an answer is set as text (``\\text{...}``)."""
    return _TEXT.search(answer) is not None


def _ascii(answer: str) -> str:
    answer = _ROOT.sub(
        lambda root: r"\sqrt" + "[3]" * (root[1] == "∛") + (f"{{{root[2]}}}" if root[2] else ""),
        _INVISIBLE.sub("", answer),
    )
    answer = _LOW.sub(r"_{\g<0>}", _HIGH.sub(r"^{\g<0>}", answer)).translate(_SIGNS | _RAISED | _LOWERED)
    return unicodedata.normalize("NFKC", "".join(map(_spelled, answer)))


def _spelled(char: str) -> str:
    """Return a letter of the Greek alphabet as its command, a fraction in one sign as a fraction."""
    if char.isascii():
        return char
    if (parts := unicodedata.normalize("NFKC", char)).count("⁄") == 1:
        return r" \frac{{{}}}{{{}}} ".format(*parts.split("⁄"))
    greek = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(char, ""))
    if greek:
        letter = greek[2].lower().replace("lamda", "lambda")
        return f"\\{letter if greek[1] == 'SMALL' else letter.capitalize()} "
    return char


# --- words, numbers, signs --------------------------------------------------------------------------------------

MAX_POWER_OF_TEN = 4000  # digits that a number in scientific notation may have


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a command, a sign or a number (``number``: its exact value). ``gap``: white space comes before it."""

    text: str
    gap: bool = False
    number: Fraction | None = None


_GROUPED = r"[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)(?:\.\d+)?|"
_TOKEN = r"""(?P<gap>\s*)(?:
    (?P<head>\d*\.\d*)(?:\\(?:overline|bar|dot)\s*\{?\s*(?P<barred>\d+)\s*\}?|\((?P<bracketed>\d+)\))
    |(?P<begun>\d*\.\d+)\\ldots
    |(?P<number>GROUPED(?:\d+(?:\.\d+|\.(?![\d.]))?|\.\d+))(?P<power>[eE][+-]?\d+(?![\d.]))?
    |(?P<sign>\\[A-Za-z]+|\\.|[^\W\d_]+(?:'[a-z]+)?|[<>!]=|.))"""
_OUTSIDE = re.compile(_TOKEN.replace("GROUPED", _GROUPED), re.VERBOSE | re.DOTALL)
_INSIDE = re.compile(_TOKEN.replace("GROUPED", ""), re.VERBOSE | re.DOTALL)  # where commas part the items of a list


def tokens(text: str) -> list[Token]:
    """Split tidy text. A number in scientific notation that is too large to write down has no value."""
    found: list[Token] = []
    position = depth = 0
    text = text.rstrip()
    while position < len(text):
        match = (_INSIDE if depth else _OUTSIDE).match(text, position)
        if match is None:
            break
        position = match.end()
        depth += (match["sign"] in ("(", "[", r"\{")) - (match["sign"] in (")", "]", r"\}"))
        shown = match[0].strip()
        found.append(Token(shown, bool(match["gap"]), None if match["sign"] else _value(match)))
    return found


def _value(match: re.Match[str]) -> Fraction | None:
    if match["number"]:
        power = int(match["power"][1:][:9]) if match["power"] else 0
        if abs(power) > MAX_POWER_OF_TEN:
            return None
        return Fraction(match["number"].replace(",", "").rstrip(".")) * Fraction(10) ** power
    if match["begun"]:
        return _continued(match["begun"])
    return _repeating(match["head"], match["barred"] or match["bracketed"])


def _repeating(head: str, period: str) -> Fraction:
    whole, _, decimals = head.partition(".")
    value = Fraction(f"{whole or 0}.{decimals or 0}")
    return value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(decimals))


def _continued(text: str) -> Fraction | None:
    """Return the value of ``0.1666...``; ``None`` where the digits do not say how they go on."""
    decimals = text.partition(".")[2]
    for size in range(1, len(decimals) // 2 + 1):
        period = decimals[-size:]
        times = 3 if size == 1 and decimals.strip(period) else 2
        if decimals.endswith(period * times):
            return _repeating(text[: len(text) - size], period)
    return None
