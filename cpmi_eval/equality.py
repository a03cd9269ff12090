r"""Compare two answers mathematically, from cheap to dear.

The same text, plain numbers as exact fractions, and only then math-verify (https://github.com/huggingface/Math-Verify),
which parses LaTeX with sympy. What cannot be evaluated in bounded time is equal only as text.
"""

from __future__ import annotations

import cmath
import inspect
import logging
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import FrameType
from typing import Any

from cpmi_eval.answers import clean

MAX_EVALUATED_CHARS = 300
_MAX_DEPTH = 10
_MAX_EXPONENT_DIGITS = 5
_SECONDS = 2.0
_SAMPLE_TOLERANCE = 1e-5
_LARGEST_SAMPLE = 1e100

_THOUSANDS = re.compile(r"\{,\}|,\\[!,;:]\s*(?=\d{3})")
_SPACING = re.compile(r"(?<!\\)\\[!,;:> ]|\\(?:q?quad|left|right|displaystyle|limits)(?![A-Za-z])|~")
_FRAC = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_DEGREES = re.compile(r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])|°")
_TEXT_BOX = re.compile(r"\\(?:text(?:bf|rm|it|sf|tt|normal)?|mbox|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?([A-E])\)?\.?")
_WORDS = re.compile(r"[^\W\d_][^\W\d_'’.,() -]*(?:['’.,() -]+[^\W\d_]+)*[.,)]*")
_WORD = re.compile(r"[^\W\d_]{3,}")

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+"
_FRACTION = r"\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(-?\d+)\s*\}|(\d))"
_MIXED = re.compile(r"(?<![\d.,/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.,/])")
_PLAIN = re.compile(
    rf"([+-]?)\s*(?:({_DIGITS})\s*/\s*(\d+)(?![\d.,])|(?:({_DIGITS})\s*)?{_FRACTION}|({_DIGITS}))(\s*%)?(.*)", re.DOTALL
)
_UNIT = re.compile(r"(?:\s*\\[A-Za-z]+\s*\{|\s+(?:[^\W\d_]{2}|[mgshL]\b)|\s*(?:[cmk]m|k?g|mg|m[lL]|lbs?|oz|ft|mph)\b)")
_UNIT_WORDS = re.compile(r"(?:[^\W\d_]|[\s./-])+(?:\^\s*\{?\s*[23]\s*\}?)?")
_NOT_A_UNIT = frozenset({"and", "or", "to", "plus", "minus", "times", "over", "more", "less", "pi", "remainder"})
_SUBSCRIPT = re.compile(r"([0-9A-F,]+)\s*_\s*\{?\s*(\d+|\\text\s*\{[a-z]+\}|[a-z]+)\s*\}?")


def equal(a: str, b: str) -> bool:
    """Return whether two answers are mathematically equal. Symmetric; never raises.

    ``$``, thousands separators, degree signs and spacing are decoration. A unit may be missing on one side but must
    not differ. ``5%`` equals both ``5`` and ``0.05``, since problems ask for either. Words compare without case.
    Expressions too long or too explosive to evaluate are equal only as text.
    """
    return verdict(a, b) is True


def verdict(a: str, b: str) -> bool | None:
    """Return what :func:`equal` does, but ``None`` where the question cannot be decided in bounded time."""
    if max(len(a), len(b)) > MAX_EVALUATED_CHARS:
        return True if _squeeze(normalize(a)) == _squeeze(normalize(b)) else None
    return _verdict(a, b) if a <= b else _verdict(b, a)


@lru_cache(maxsize=1 << 16)
def _verdict(a: str, b: str) -> bool | None:
    a, b = normalize(a), normalize(b)
    if _squeeze(a) == _squeeze(b):
        return True
    if not a or not b:
        return False
    for compare in (_equal_choices, _equal_numbers, _equal_subscripts, _equal_ratios, _equal_words):
        decided = compare(a, b)
        if decided is not None:
            return decided
    return _verify(a, b) if is_tame(a) and is_tame(b) else None


def normalize(answer: str) -> str:
    r"""Return ``answer`` without decoration: spacing commands, ``\left``, currency signs, fraction sizes, degrees."""
    answer = _THOUSANDS.sub(",", clean(answer)).replace("−", "-")
    answer = _SPACING.sub(lambda space: " " if space.group() in ("\\ ", "~") else "", answer)
    answer = _DEGREES.sub("", _FRAC.sub(r"\\frac", answer))
    whole = _TEXT_BOX.fullmatch(answer)
    if whole and re.search(r"\d", answer):  # \text{4:30 p.m.} and the like are not words
        answer = whole.group(1)
    return answer.replace(r"\$", "").replace("$", "").replace(r"\%", "%").strip()


def _squeeze(answer: str) -> str:
    return "".join(_TEXT_BOX.sub(r"\1", answer).split())


def _equal_choices(a: str, b: str) -> bool | None:
    r"""Compare multiple-choice letters: ``(C)``, ``C`` and ``\text{C}`` are one."""
    letters = [_CHOICE.fullmatch(_squeeze(answer)) for answer in (a, b)]
    if letters[0] and letters[1]:
        return letters[0].group(1) == letters[1].group(1)
    return None


@dataclass(frozen=True)
class Number:
    """A plain number read exactly. ``places`` counts decimals as written; ``None`` for a fraction."""

    value: Fraction
    percent: bool
    unit: str
    places: int | None


def plain_number(answer: str) -> Number | None:
    r"""Read ``1,200``, ``\$3.50``, ``5\%``, ``-3/4``, ``\frac34``, ``1\frac{1}{2}``, ``12 \text{ cm}`` as a number."""
    if len(answer) > MAX_EVALUATED_CHARS:
        return None
    match = _PLAIN.fullmatch(_MIXED.sub(r"\1\\frac{\2}{\3}", normalize(answer)))
    if not match:
        return None
    sign, top, bottom, whole, *parts, decimal, percent, rest = match.groups()
    value = _fraction(top or whole or decimal, bottom, parts)
    unit = _unit(rest)
    if value is None or unit is None:
        return None
    is_percent = bool(percent) or unit.startswith("percent")
    places = len(decimal.partition(".")[2]) if decimal else None
    return Number(-value if sign == "-" else value, is_percent, "" if is_percent else unit, places)


def _fraction(number: str | None, bottom: str | None, parts: list[str | None]) -> Fraction | None:
    """Return number/bottom, or number + numerator/denominator (a mixed number); ``None`` for division by zero."""
    value = Fraction(number.replace(",", "").rstrip(".") if number else 0)
    denominator = int(bottom or parts[2] or parts[3] or 1)
    if denominator == 0:
        return None
    if bottom:
        return value / denominator
    return value + Fraction(int(parts[0] or parts[1] or 0), denominator)


def _unit(rest: str) -> str | None:
    """Return the unit after a number in a comparable form, or ``None`` if what follows is not a unit."""
    if not rest.strip():
        return ""
    words = _TEXT_BOX.sub(r" \1 ", rest).strip()
    if not words:
        return ""
    if not _UNIT.match(rest) or not _UNIT_WORDS.fullmatch(words):
        return None
    unit = words.casefold()
    if not _NOT_A_UNIT.isdisjoint(re.split(r"[^a-z]+", unit)) or any(char in unit for char in "\\="):
        return None
    unit = re.sub(r"[\s.{}]+", "", unit)
    return "" if unit.startswith("degree") else re.sub(r"(?:es|s|e)$", "", unit)


def _equal_numbers(a: str, b: str) -> bool | None:
    left, right = plain_number(a), plain_number(b)
    if left is None or right is None:
        return None
    if left.unit and right.unit and left.unit != right.unit:
        return False
    if _same_value(left, right):
        return True
    if left.percent == right.percent:
        return False
    return left.value == right.value * 100 if left.percent else left.value * 100 == right.value


def _same_value(left: Number, right: Number) -> bool:
    """Exact, except that six or more decimals may stand for a fraction (``0.333333`` for 1/3)."""
    if left.value == right.value:
        return True
    if (left.places is None) == (right.places is None):
        return False
    places = left.places or right.places or 0
    return places >= 6 and abs(left.value - right.value) < Fraction(1, 10**places)


def _equal_subscripts(a: str, b: str) -> bool | None:
    """Compare numerals with a base (``1210_5``); a base given on one side only is taken as understood."""
    left, right = _SUBSCRIPT.fullmatch(_squeeze(a)), _SUBSCRIPT.fullmatch(_squeeze(b))
    if left and right:
        return left.groups() == right.groups()
    if left or right:
        based, other = (left, b) if left else (right, a)
        return based is not None and based.group(1) == _squeeze(other)
    return None


def _equal_ratios(a: str, b: str) -> bool | None:
    """Compare clock times and ratios part by part: 10:30 is not 1:3."""
    if ":" not in a or ":" not in b:
        return None
    left, right = a.split(":"), b.split(":")
    return len(left) == len(right) and all(map(equal, left, right))


def _equal_words(a: str, b: str) -> bool | None:
    if words(a) is None and words(b) is None:
        return None
    return _spoken(a) == _spoken(b)


def words(answer: str) -> str | None:
    r"""Return a verbal answer (``\text{Tuesday}``, ``yes``) without LaTeX and decoration, else ``None``."""
    normal = normalize(answer)
    bare = _TEXT_BOX.sub(r"\1", normal).strip()
    if _WORDS.fullmatch(bare) and (bare != normal or _WORD.search(bare)):
        return bare
    return None


def _spoken(answer: str) -> list[str] | None:
    """Return the casefolded words of an answer, letters of a list sorted; ``None`` if it is more than words."""
    bare = _TEXT_BOX.sub(r"\1", answer).strip()
    if not _WORDS.fullmatch(bare):
        return None
    found = re.findall(r"[^\W\d_]+", bare.casefold())
    is_list = "," in bare and max(map(len, found)) == 1
    return sorted(found) if is_list else found


# --- the expensive path -----------------------------------------------------------------------------------------

_NUMERIC_POWER = re.compile(r"\d[\s)}\]|]*(?:\^|\*\*)")
_HUGE = re.compile(r"\d{41}|\d[eE][+-]?\d{3}")
_FACTORIAL = re.compile(r"(?<!\\)!")
_SMALL_FACTORIAL = re.compile(r"(?:(?<!\d)\d{1,3}|(?<![A-Za-z])[a-z])\s*$")
_BINOMIAL = re.compile(r"\\(?:[dt]?binom|choose)(?![A-Za-z])")
_POWER = re.compile(r"\^|\*\*")
_TOKEN = re.compile(r"\s*[-+]?(?:(\\[A-Za-z]+)|([\d.]+|[A-Za-z]))?\s*")
_UNIT_BOX = re.compile(r"(?<=[\d)}])\s*\\(?:text|mbox|mathrm)\s*\{(?!\s*(?:and|or)\b)[^{}\d]*\}(?:\s*\^\s*\{?[23]\}?)?")
_TO_LATEX = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)|√\(([^()]*)\)|√(\d+)"), r"\\sqrt{\1\2\3}"),
    (re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])|π"), r"\\pi "),
    (re.compile(r"×"), r"\\times "),
)


def is_tame(answer: str) -> bool:
    """Return whether sympy can evaluate ``answer`` without building enormous integers.

    Big-integer arithmetic runs outside the interpreter, where no deadline reaches it, so it must not start.
    """
    return not (
        len(answer) > MAX_EVALUATED_CHARS
        or _depth(answer) > _MAX_DEPTH
        or _HUGE.search(answer)
        or any(not _SMALL_FACTORIAL.search(answer[: bang.start()]) for bang in _FACTORIAL.finditer(answer))
        or (_BINOMIAL.search(answer) and re.search(r"\d{4}|\^|!", answer))
        or not _has_tame_powers(answer)
    )


def _depth(answer: str) -> int:
    depth = deepest = 0
    for char in answer:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _has_tame_powers(answer: str) -> bool:
    """Bound the digits of exponents. Powers of groups may contain powers, so their exponents multiply."""
    largest = of_groups = 0
    for power in _POWER.finditer(answer):
        end = _argument_end(answer, power.end())
        exponent = answer[power.end() : end]
        is_tower = _NUMERIC_POWER.search(exponent) or _POWER.match(answer[end:].lstrip())
        if is_tower or "!" in exponent:
            return False
        digits = sum(map(str.isdigit, exponent))
        if answer[: power.start()].rstrip().endswith((")", "}", "]", "|")):
            of_groups += digits
        largest = max(largest, digits)
    return largest + of_groups <= _MAX_EXPONENT_DIGITS


def _argument_end(answer: str, start: int) -> int:
    """Return where the exponent that begins at ``start`` ends: a number, a letter, a group, a command with groups."""
    token = _TOKEN.match(answer, start)
    if token is None or token.group(2):
        return token.end() if token else start
    end = _group_end(answer, token.end())
    while token.group(1) and end < len(answer) and answer[end] in "([{":
        end = _group_end(answer, end)
    return end


def _group_end(answer: str, start: int) -> int:
    depth = 0
    for end in range(start, len(answer)):
        depth += (answer[end] in "([{") - (answer[end] in ")]}")
        if depth <= 0:
            return end + 1 if end > start else end
    return len(answer)


class _DeadlineError(BaseException):
    """Not an ``Exception``, so that no handler inside sympy takes it for a failed attempt."""


def _is_swallowing(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_GENERATOR) or frame.f_code.co_name == "__del__"


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise ``_DeadlineError`` in this thread once it has used ``seconds`` of processor time.

    Processor time, so that a busy machine does not turn equal answers into different ones.

    math-verify's own timeouts use signals, which exist in the main thread only and would clobber a caller's alarm.
    A profile hook works in every thread. Under an active profiler there is no deadline; ``is_tame`` still holds.
    """
    if sys.getprofile() is not None:
        yield
        return
    end = time.thread_time() + seconds

    def check(frame: FrameType, event: str, argument: Any) -> None:
        # Raised while a generator is closed or in __del__, it would be swallowed and the hook be lost.
        if event == "call" and time.thread_time() > end and not _is_swallowing(frame):
            raise _DeadlineError

    sys.setprofile(check)
    try:
        yield
    finally:
        sys.setprofile(None)


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Callable[[str], list[Any]], Callable[[Any, Any], bool]]:
    """Import math-verify late (it takes sympy with it) and return its parser and verifier without timeouts."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    # It warns that its timeouts are off, and about every answer it cannot read: expected here, and in bulk.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # Its unit removal takes the m of 3m for metres; units are dealt with here instead.
    cleaning = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    latex = [LatexExtractionConfig(normalization_config=cleaning, boxed_match_priority=-1)]

    def read(answer: str) -> list[Any]:
        found = parse(f"${answer}$", latex, fallback_mode="no_fallback", parsing_timeout=None)
        return list(found)

    def same(a: Any, b: Any) -> bool:
        return bool(verify(a, b, timeout_seconds=None))

    return read, same


@lru_cache(maxsize=1 << 12)
def _read(answer: str) -> tuple[list[Any], _Sample | None]:
    parsed = _math_verify()[0](_to_latex(answer))
    return parsed, _sample(parsed[0]) if parsed else None


def _verify(a: str, b: str) -> bool | None:
    """Ask math-verify, in both directions because its answer depends on which side is the reference.

    ``None`` where it takes too long.
    """
    same = _math_verify()[1]
    try:
        with _deadline(_SECONDS):
            (left, left_sample), (right, right_sample) = _read(a), _read(b)
            if not left or not right or _differ(left_sample, right_sample):
                return False
            return same(left, right) or same(right, left)
    except _DeadlineError:
        return None


def _to_latex(answer: str) -> str:
    for pattern, replacement in ((_UNIT_BOX, ""), *_TO_LATEX):
        answer = pattern.sub(replacement, answer)
    return " ".join(answer.split())


@dataclass(frozen=True)
class _Sample:
    """Values of an expression at points that depend on its symbols' names only.

    Simplifying a difference takes sympy tens of milliseconds and solving equations seconds; values that differ say
    the same at once. They are never taken as proof of equality.
    """

    kind: str
    values: tuple[complex, ...]


def _differ(a: _Sample | None, b: _Sample | None) -> bool:
    if a is None or b is None or a.kind != b.kind:
        return False
    if len(a.values) != len(b.values):
        return True
    return any(map(_apart, a.values, b.values))


def _apart(a: complex, b: complex) -> bool:
    if not cmath.isfinite(a - b):  # endpoints of intervals may be infinite; NaN tells nothing
        return cmath.isinf(a - b)
    return abs(a - b) > _SAMPLE_TOLERANCE * max(1.0, min(abs(a), abs(b)))


def _sample(parsed: Any) -> _Sample | None:
    """Sample terms, tuples, finite sets, intervals, matrices and polynomial equations; ``None`` for all else."""
    import sympy  # type: ignore[import-untyped]

    try:
        if isinstance(parsed, sympy.Eq):
            return _sample_curve(parsed.lhs - parsed.rhs)
        if isinstance(parsed, sympy.FiniteSet):
            elements = [_value(element, 0) for element in parsed]
            return _Sample(f"set{len(elements)}", (sum(elements), sum(element**2 for element in elements)))
        if isinstance(parsed, sympy.Interval):
            kind, parts = f"tuple{parsed.left_open}{parsed.right_open}", list(parsed.args[:2])
        elif isinstance(parsed, sympy.Tuple):
            kind, parts = "tupleTrueTrue", list(parsed)
        elif isinstance(parsed, sympy.MatrixBase):
            kind, parts = f"matrix{parsed.shape}", list(parsed.flat())
        elif isinstance(parsed, sympy.Expr) and not parsed.has(sympy.UnevaluatedExpr):
            kind, parts = "term", [parsed]
        else:
            return None
        return _Sample(kind, tuple(_value(part, 0) for part in parts))
    except (TypeError, ValueError, ArithmeticError, AttributeError, RecursionError):
        return None


def _sample_curve(difference: Any) -> _Sample | None:
    """Sample a polynomial equation up to a factor; ``None`` for others, which may agree without being multiples."""
    symbols = difference.free_symbols
    if not symbols or not difference.is_polynomial(*symbols):
        return None
    first, *others = (_value(difference, step) for step in range(3))
    degree = difference.as_poly(*symbols).total_degree()
    return _Sample(f"curve{degree}", tuple(other / first for other in others))


def _value(expression: Any, step: int) -> complex:
    """Evaluate at the ``step``-th of a few fixed points. Sets and relations raise ``TypeError``."""
    points = {symbol: _coordinate(str(symbol), step) for symbol in expression.free_symbols}
    value = complex(expression.subs(points).evalf(15))
    if cmath.isfinite(value) and abs(value) > _LARGEST_SAMPLE:
        raise OverflowError  # differences of such values may not be representable
    return value


def _coordinate(name: str, step: int) -> float:
    rng = random.Random(name)
    return rng.uniform(0.3, 1.2) + step * rng.uniform(0.1, 0.4)
