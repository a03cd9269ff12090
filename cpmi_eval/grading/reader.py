r"""Read an answer: lists of relations between sets, ratios and quantities; what cannot be read as these is text.

By recursive descent over the tokens, which are gone over once; nothing is computed, so reading is linear in the text::

    items     relation {("," | "and" | "or" | ...) relation}      lists, and what stands in brackets
    relation  ratio {("=" | "<" | "in" | ...) ratio}
    ratio     operation {":" operation}                           operation: quantities with union, intersection
    quantity  sum [scale] [percent | unit [smaller unit]]         sum of products of powers of atoms
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from cpmi_eval.grading import units
from cpmi_eval.grading.notation import Token, has_text, tidy, tokens
from cpmi_eval.grading.units import NUMBERS, SCALES, Unit, names_number, share, vocabulary
from cpmi_eval.grading.values import UndecidableError, Value, number

MAX_DEPTH = 25

FUNCTIONS = vocabulary("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp gcd lcm max min")
_UNEVALUATED = vocabulary(r"\sum \int \prod \lim \iint \oint \partial \Gamma \nabla \infsum \bigcup \bigcap")
_CONSTANTS = {"pi": "pi", r"\pi": "pi", "e": "e", "i": "i"}
_INFINITY = frozenset({r"\infty", "infty", "infinity", "Infinity", "inf", "Inf", r"\infin"})
_RELATIONS = {"=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", r"\in": "in"} | dict.fromkeys(
    (r"\approx", r"\equiv", r"\sim"), "="
)
_SET_OPERATIONS = {
    r"\cup": "union", r"\cap": "intersection", r"\setminus": "difference", r"\backslash": "difference",
}  # fmt: skip
_SEPARATORS = {",": "", ";": "", "and": "and", "or": "or", "&": ""} | {
    r"\lor": "or", r"\vee": "or", r"\land": "land", r"\wedge": "land",
}  # fmt: skip
_GROUPING = {"(": ")", "[": "]", r"\{": r"\}", "{": "}", r"\langle": r"\rangle"}
_BARS = {"|": ("abs", "|"), r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil")}
_ENDS = {*_SEPARATORS, *_RELATIONS, *_GROUPING.values(), *(closing for _, closing in _BARS.values())} | {
    ":", r"\end", r"\\",
}  # fmt: skip
_NO_FACTOR = frozenset({*_SET_OPERATIONS, r"\pm", r"\mp", r"\pmod", r"\\", r"\ldots", r"\choose"})
_DECORATED = vocabulary(r"\overline \overrightarrow \overleftrightarrow \widehat \hat \vec \bar \angle \triangle")
_MATRICES = vocabulary("pmatrix bmatrix matrix vmatrix array smallmatrix Bmatrix")
_GREEK = vocabulary(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi "
    "psi omega ell hbar zz"
)
_MATH_WORDS = frozenset({"sqrt", "pi", "theta", "alpha", "beta", "phi", "lambda", "infty", "infinity"})
_PERCENT = ("%", "percent", "pct", "percentage")
_APPLIED = re.compile(r"(\((?:[A-Za-z](?:[,|][A-Za-z])*|-?\d+|[A-Z]\\c[au]p[A-Z]|\\[a-z]+)\))=(?!=)")
_EXPONENT = re.compile(r"(\{?)(-?\d)(\}?)(?!\d)")

_CLOCK = re.compile(r"(\d{1,2})(?::([0-5]\d))?\s*(?:([ap])\s*\.?\s*m\b\s*\.?)?", re.IGNORECASE)
_WORDS = re.compile(r"[^\W\d_]+(?:[-'.,/() \s]+[^\W\d_]+)*[.)]*|\([^\W\d_]+\)")
_PLAIN_WORDS = vocabulary("yes no none true false even odd left right up down dne")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DATE = re.compile(
    rf"(\d\d?)\s*(?:st|nd|rd|th)?\s+(?:of\s+)?({_MONTHS})|({_MONTHS})\s+(\d\d?)\s*(?:st|nd|rd|th)?", re.IGNORECASE
)
_REALS = re.compile(r"all real(?: number)?s|(?:the )?real numbers", re.IGNORECASE)
_NOTHING = re.compile(r"no (?:real )?solutions?", re.IGNORECASE)


class UnreadableError(Exception):
    """The text is no mathematics that the reader knows."""


def read(answer: str) -> Value:
    r"""Read an answer; what cannot be read as mathematics is text.

    Raises:
        UndecidableError: it nests too deep, or is a sum, integral or limit, which are not evaluated.
    """
    text = tidy(answer)
    clock = _CLOCK.fullmatch(text)
    if clock and (clock[2] or clock[3]) and int(clock[1]) < 25:
        return _clock(int(clock[1]), int(clock[2] or 0), clock[3] or "")
    if date := _DATE.fullmatch(text):
        return Value("text", name=f"{date[2] or date[3]} {date[1] or date[4]}".casefold())
    if _REALS.fullmatch(text) or _NOTHING.fullmatch(text):
        return Value("reals" if _REALS.fullmatch(text) else "set")
    found = tokens(text)
    if not _is_verbal(text):
        try:
            return _Reader(found).answer()
        except UnreadableError:
            pass
    return Value("text", name=_said(text, found))


def words(answer: str) -> str | None:
    r"""Return a verbal answer (``\text{Tuesday}``, ``yes``) without LaTeX, else ``None``."""
    text = tidy(answer)
    return text if _is_verbal(text) or (has_text(answer) and _WORDS.fullmatch(text)) else None


def _is_verbal(text: str) -> bool:
    """Whether the text is words, none of which stand for a number or a letter of the alphabet."""
    if not _WORDS.fullmatch(text):
        return False
    found = [word.casefold() for word in re.findall(r"[^\W\d_]+", text)]
    if (len(found[0]) == 1 and found[0] not in "ai") or any(map(names_number, found)) or text in _INFINITY:
        return False  # "x units"
    return any(len(word) > 3 or word in _PLAIN_WORDS for word in found) and not FUNCTIONS & set(found)


def _said(text: str, found: Sequence[Token]) -> str:
    """Return a normal form of text: of words without case and punctuation, those of a list in order."""
    if re.search(r"\d|\\", text):
        return " ".join(token.text for token in found if token.text not in (",", "st", "nd", "rd", "th"))
    items = re.split(r",|\band\b|&", text.casefold())
    return ", ".join(sorted(filter(None, (" ".join(re.findall(r"[^\W_]+|[^\w\s.()]", item)) for item in items))))


def _clock(hour: int, minute: int, half: str) -> Value:
    if not half and (hour > 12 or hour == 0):
        half = "a" if hour % 24 == 0 else "p"
    return Value("clock", name=f"{half.lower()}m", number=Fraction(60 * (hour % 12) + minute))


def _many(kind: str, parts: Sequence[Value]) -> Value:
    """Return a sum, product or the like; of one part, that part."""
    return parts[0] if len(parts) == 1 else Value(kind, tuple(parts))


def _is_noun(word: str) -> bool:
    if word in FUNCTIONS or word in _MATH_WORDS:
        return False
    return len(word) > 3 or (len(word) == 3 and not set(word) <= set("abcxyz"))


class _Reader:
    """A place in the tokens. Methods consume what they name, or raise :class:`UnreadableError`."""

    def __init__(self, found: Sequence[Token]) -> None:
        self.tokens = list(found)
        self.at = self.depth = self.bars = 0
        self.currency: Unit | None = None
        self.has_symbols = False  # in the quantity that is read

    def begin(self) -> None:
        """Forget the currency and the symbols of what was read before."""
        self.currency, self.has_symbols = None, False

    def token(self, ahead: int = 0) -> Token:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else Token("")

    def peek(self, ahead: int = 0) -> str:
        return self.token(ahead).text

    def take(self) -> str:
        self.at += 1
        return self.token(-1).text

    def expect(self, text: str) -> None:
        if self.peek() != text:
            raise UnreadableError
        self.at += 1

    def passes(self, *texts: str) -> bool:
        """Consume a token if it is one of these."""
        is_one = self.peek() in texts
        self.at += is_one
        return is_one

    # --- answers

    def answer(self) -> Value:
        while self.passes(r"\therefore", "=", r"\approx"):
            pass
        found = self.items()
        if self.at < len(self.tokens):
            raise UnreadableError
        return found

    def items(self) -> Value:
        """Read a list up to a closing bracket; what is alone is no list."""
        found, joints = [self.relation()], set()
        while self.peek().casefold() in _SEPARATORS:
            while self.peek().casefold() in _SEPARATORS:
                joints.add(_SEPARATORS[self.take().casefold()])
            found.append(self.relation())
        return found[0] if len(found) == 1 else Value("list", tuple(found), *(joints if len(joints) == 1 else ()))

    def relation(self) -> Value:
        parts, names = [self.ratio()], []
        while self.peek() in _RELATIONS:
            names.append(_RELATIONS[self.take()])
            parts.append(self.ratio())
        return parts[0] if not names else Value("chain", tuple(parts), " ".join(names))

    def ratio(self) -> Value:
        parts = [self.operation()]
        while self.passes(":"):
            parts.append(self.operation())
        return _many("ratio", parts)

    def operation(self) -> Value:
        left = self.quantity()
        while self.peek() in _SET_OPERATIONS:
            left = Value(_SET_OPERATIONS[self.take()], (left, self.quantity()))
        return left

    # --- quantities

    def quantity(self) -> Value:
        """Read an expression with what follows it in words: a scale, a percent sign, a unit."""
        self.begin()
        left = self.sum()
        currency = self.currency
        left = self.scaled(left)
        sign, inner = (left.kind == "neg", left.parts[0]) if left.kind == "neg" else (False, left)
        if inner.kind == "°":
            angle = Value("neg", inner.parts) if sign else inner.parts[0]
            return Value("quantity", (angle,), unit=units.UNITS["°"])
        if self.peek().casefold() in _PERCENT:
            self.at += 1
            return Value("percent", (left,), unit=self.unit(left))
        unit = self.unit(left)
        if currency is not None and unit != currency:
            unit = currency if unit is None else currency.times(unit)
        if unit is None:
            return left
        found = Value("quantity", (left,), unit=unit)
        return found if currency else self.compound(found, unit)

    def compound(self, left: Value, unit: Unit) -> Value:
        """Add a smaller unit of the same kind: ``5 ft 6 in``, ``2 hours and 30 minutes``."""
        start = self.at
        self.passes("and", ",")
        if self.token().number is not None:
            right = self.quantity()
            smaller = right.unit
            if smaller and smaller.dimension == unit.dimension and smaller.scale < unit.scale:
                parts = (left.parts[0], Value("*", (right.parts[0], number(smaller.scale / unit.scale))))
                return Value("quantity", (Value("+", parts),), unit=unit)
        self.at = start
        return left

    def scaled(self, left: Value) -> Value:
        while True:
            word = self.peek().casefold()
            part = share(word) if left.is_constant else None
            if word in SCALES and left.is_constant:
                left = Value("*", (left, number(SCALES[word])))
            elif part is not None:
                left = Value("*", (left, number(part)))
            elif word in units.RAISED:
                left = Value("^", (left, number(units.RAISED[word])))
            elif word == "factorial":
                left = Value("!", (left,))
            elif word == "and" and self.peek(1) in ("a", "an", "one") and (extra := share(self.peek(2).casefold())):
                self.at += 2
                left = Value("+", (left, number(extra)))
            else:
                return left
            self.at += 1

    def unit(self, left: Value) -> Unit | None:
        """Take the unit that follows, if there is one: up to the end or the next item of a list."""
        found = self.unit_ahead(left)
        if found is None:
            return None
        unit, self.at = found
        return unit if unit.dimension else None

    def unit_ahead(self, left: Value) -> tuple[Unit, int] | None:
        """Return the unit of ``left`` that begins here, up to the end of the item, and where it ends."""
        place, said = self.at, list[str]()
        first = self.token()
        if first.text == r"\pmod" or (first.text == "(" and self.peek(1) in (r"\bmod", "mod")):
            return self.modulus()
        while place < len(self.tokens) and self.tokens[place].text.casefold() not in _ENDS:
            token = self.tokens[place]
            word = token.text
            if said and token.gap and token.number is not None:
                break
            if word == "^":
                power = _EXPONENT.match("".join(token.text for token in self.tokens[place + 1 : place + 5]))
                if not power or bool(power[1]) != bool(power[3]):
                    return None
                word = f"^{power[2]}"
                place += power.end()
            elif said and token.number in (2, 3):
                word = f"^{word}"  # ft2
            elif not (word[0].isalpha() or word in units.UNITS or word in ("*", "/", ".", "-")):
                return None
            said.append(word)
            place += 1
        if not said or not self.may_be_unit(first, said, left):
            return None
        unit = units.of_words(said)
        return None if unit is None else (unit, place)

    def may_be_unit(self, first: Token, said: Sequence[str], left: Value) -> bool:
        """Return whether words after ``left`` are a unit rather than letters that it is multiplied with."""
        word = first.text
        if word in units.UNITS and not word.isalpha():
            return left.is_constant
        if word == "/" and len(said) > 1:
            return left.is_constant and said[1].isalpha() and (len(said[1]) > 2 or said[1] in units.LETTERS)
        if not word[0].isalpha():
            return False
        if len(word) == 1:
            return first.gap and not self.has_symbols and word in units.LETTERS
        if not first.gap and word not in units.ATTACHED:
            return left.is_constant and len(word) > 3 and bool(units.lookup(word))
        is_known = word in units.FILLERS or word in units.POWERS or word in units.ATTACHED
        return is_known or units.lookup(word) is not None or _is_noun(word)

    def modulus(self) -> tuple[Unit, int] | None:
        """Return what ``(mod 7)`` says, which counts as a unit."""
        rest = [token.text for token in self.tokens[self.at :]]
        if rest[0] == r"\pmod" and self.peek(1) != "{":
            return Unit(((f"mod {self.peek(1)}", 1),)), self.at + 2
        closes = "}" if self.peek(1) == "{" else ")"
        if closes not in rest:
            return None
        size = rest.index(closes)
        inside = "".join(text for text in rest[1:size] if text not in (r"\bmod", "mod", "{"))
        return Unit(((f"mod {inside}", 1),)), self.at + size + 1

    # --- expressions

    def sum(self) -> Value:
        terms = [self.term(self.sign())]
        while self.peek() in ("+", "-", r"\pm", r"\mp"):
            if self.peek() in ("+", "-"):
                terms.append(self.term(self.take() == "-"))
            else:
                terms = [Value(self.take()[1:], (_many("+", terms), self.product()))]
        return _many("+", terms)

    def sign(self) -> bool:
        """Take the signs before a term; return whether they negate it."""
        negative = False
        while self.peek() in ("+", "-") or self.peek().casefold() in ("negative", "minus"):
            negative ^= self.take() != "+"
        return negative

    def term(self, negative: bool) -> Value:
        """Read a term that may begin with plus-minus."""
        if self.peek() in (r"\pm", r"\mp"):
            return Value(self.take()[1:], (self.term(negative),))
        product = self.product()
        return Value("neg", (product,)) if negative else product

    def product(self) -> Value:
        """Read factors, with and without signs between them, up to a unit or a scale."""
        factors = [self.power()]
        while True:
            operator = self.peek()
            left = factors[-1] if self.has_symbols else _many("*", factors)
            if operator in ("*", "/"):
                if self.unit_ahead(left):
                    break
                self.at += 1
                right = self.signed()
                factors.append(Value("inv", (right,)) if operator == "/" else right)
            elif self.begins_factor() and not self.unit_ahead(left) and not self.is_scale(left):
                if self.token().number is not None and self.token(-1).number is not None:
                    raise UnreadableError  # two numbers side by side
                factors.append(self.power())
            else:
                break
        return _many("*", factors)

    def is_scale(self, left: Value) -> bool:
        """Return whether the next word multiplies or raises all that stands before it."""
        word = self.peek().casefold()
        is_postfix = word in SCALES or word in units.RAISED or word in (*_PERCENT, "factorial")
        return is_postfix or (share(word) is not None and left.is_constant)

    def signed(self) -> Value:
        """Read a factor that may have signs of its own."""
        negative = self.sign()
        factor = self.power()
        return Value("neg", (factor,)) if negative else factor

    def begins_factor(self) -> bool:
        text = self.peek()
        if not text or text.casefold() in _ENDS:
            return text == "|" and not self.bars
        return text[0].isalnum() or text[0] in "([{." or (text[0] == "\\" and text not in _NO_FACTOR)

    def power(self) -> Value:
        """Read a base with its exponents, factorials and degree signs."""
        base = self.mixed() or self.primary()
        for _ in range(MAX_DEPTH):
            if self.passes("^"):
                base = Value("^", (base, self.exponent()))
            elif self.peek() in ("!", "°"):
                base = Value(self.take(), (base,))
            else:
                return base
        raise UndecidableError

    def exponent(self) -> Value:
        """Read an exponent, or a tower of them: a whole number, or what LaTeX takes for an argument."""
        negative = self.sign()
        is_group = self.peek() == "{"
        power = self.primary() if self.token().number is not None else self.argument()
        if self.passes("^"):
            if is_group:
                raise UndecidableError  # a double superscript, which LaTeX refuses
            self.depth += 1
            power = Value("^", (power, self.exponent()))
            self.depth -= 1
        return Value("neg", (power,)) if negative else power

    def mixed(self) -> Value | None:
        r"""Read ``3 1/2`` or ``3\frac12``: a whole number and a fraction of whole numbers."""
        whole, top, bottom = self.token(), self.token(1), self.token(3)
        if whole.number is None or not whole.text.replace(",", "").isdigit():
            return None
        if top.text == r"\frac":
            start = self.at
            self.at += 1
            part = self.primary()
            if all(one.kind == "number" and one.number.denominator == 1 for one in part.parts) and self.peek() != "^":
                return Value("+", (number(whole.number), part))
            self.at = start
        elif top.gap and top.text.isdigit() and self.peek(2) == "/" and bottom.text.isdigit():
            self.at += 4
            part = Value("/", (number(top.number or 0), number(bottom.number or 0)))
            return Value("+", (number(whole.number), part))
        return None

    def primary(self) -> Value:
        """Read a number, a symbol, a function or a group; every level of nesting comes through here."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UndecidableError
        found = self.atom()
        self.depth -= 1
        return found

    def atom(self) -> Value:
        token = self.token()
        text = token.text
        if token.number is not None:
            self.at += 1
            return self.numeral(token)
        if text in units.CURRENCIES:
            self.at += 1
            self.currency = units.lookup(text)
            self.passes(".")
            return self.signed()
        if text in _GROUPING:
            return self.group()
        if text in _BARS:
            return self.bracketed(*_BARS[text])
        if text[:1] == "\\":
            return self.command()
        if text[:1].isalpha():
            return self.word()
        if text[:1].isdigit() and "e" in text.lower():
            raise UndecidableError  # a number that is too large to write down
        raise UnreadableError

    def numeral(self, token: Token) -> Value:
        """Read a number, or digits with a base: ``1210_5``."""
        if not self.passes("_"):
            return number(token.number or 0)
        base = self.argument()
        name = str(base.number) if base.kind == "number" else base.name
        return Value("numeral", name=f"{token.text}_{name}")

    def group(self) -> Value:
        """Read a group, tuple, interval or set."""
        opening = self.take()
        closing = _GROUPING[opening]
        if opening == r"\{":
            if self.passes(closing):
                return Value("set")
            self.skip_builder()
        bars, self.bars = self.bars, 0
        inner = self.items()
        if opening == "{" and self.passes(r"\choose"):
            inner = Value("binom", (inner, self.items()))
        self.bars = bars
        self.expect(self.peek() if opening in "([" and self.peek() in (")", "]") else closing)
        if opening == r"\{" and inner.kind == "chain":
            return inner
        if opening == r"\{" or (opening == "{" and inner.kind == "list"):
            return Value("set", inner.parts if inner.kind == "list" else (inner,))
        if inner.kind == "list":
            return Value("tuple", inner.parts, opening + self.peek(-1))
        return inner

    def skip_builder(self) -> None:
        r"""Pass over ``x :`` and ``x \in R :``, so that a set is what its condition says."""
        for ahead in (1, 3):
            if self.peek().isalpha() and self.peek(ahead) in (":", "|") and (ahead == 1 or self.peek(2) == r"\RR"):
                self.at += ahead + 1

    def bracketed(self, kind: str, closing: str) -> Value:
        """Read what stands between bars or rounding brackets."""
        self.at += 1
        self.bars += closing == "|"
        inner = self.sum()
        self.bars -= closing == "|"
        self.expect(closing)
        return Value(kind, (inner,))

    def argument(self) -> Value:
        """Read what LaTeX takes for a command's argument: a group, a command, or one digit or letter."""
        text = self.peek()
        if len(text) > 1 and text.isdigit():
            self.tokens[self.at : self.at + 1] = [Token(digit, number=Fraction(digit)) for digit in text]
        elif len(text) > 1 and text.isalpha():
            self.tokens[self.at : self.at + 1] = [Token(letter) for letter in text]
        return self.primary()

    # --- commands and words

    def command(self) -> Value:
        """Read a LaTeX command with its arguments."""
        name = self.take()
        if name in (r"\frac", r"\binom"):
            return Value("/" if name == r"\frac" else "binom", (self.argument(), self.argument()))
        if name == r"\sqrt":
            return self.root()
        if name == r"\begin":
            return self.matrix()
        if name in _INFINITY or name in _LEAVES:
            return Value(_LEAVES.get(name, "infinity"))
        if name[1:] in FUNCTIONS:
            return self.function(name[1:])
        if name in _UNEVALUATED:
            raise UndecidableError
        if name in _DECORATED:
            label = self.label()
            return Value("symbol", name=label if len(label) > 1 else name + label)
        if name[1:].lower() in _GREEK:
            return self.symbol(_CONSTANTS.get(name, name))
        raise UnreadableError

    def label(self) -> str:
        """Return the letters that a decoration stands over or before."""
        if not self.passes("{"):
            return self.take() if self.at < len(self.tokens) else ""
        start = self.at
        while self.at < len(self.tokens) and self.take() != "}":
            pass
        return "".join(token.text for token in self.tokens[start : self.at - 1])

    def root(self) -> Value:
        """Read a root with its degree."""
        degree = number(2)
        if self.passes("["):
            degree = self.sum()
            self.expect("]")
        return Value("sqrt", (self.argument(), degree))

    def function(self, name: str) -> Value:
        """Read a function with exponent, base and argument; without brackets, that is a product."""
        exponent = base = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                exponent = self.exponent()
            else:
                base = self.argument()
        if self.peek() == "(":
            inner = self.group()
            parts = inner.parts if inner.kind == "tuple" else (inner,)
        else:
            inner = self.signed()
            while self.begins_factor() and self.peek().lstrip("\\") not in FUNCTIONS and not self.unit_ahead(inner):
                inner = Value("*", (inner, self.power()))
            parts = (inner,)
        if exponent == Value("neg", (number(1),)) and name in ("sin", "cos", "tan"):
            return Value("apply", parts, f"arc{name}")
        value = Value("apply", parts if base is None else (*parts, base), name)
        return value if exponent is None else Value("^", (value, exponent))

    def matrix(self) -> Value:
        """Read the rows of a matrix or determinant."""
        name = self.label().strip("*")
        if name not in _MATRICES:
            raise UnreadableError
        if self.peek() == "{":  # the columns of an array
            self.label()
        rows = [[self.relation()]]
        while self.peek() in ("&", r"\\"):
            if self.take() == r"\\":
                rows.append([])
            if self.peek() != r"\end":
                rows[-1].append(self.relation())
        self.expect(r"\end")
        self.label()
        return Value("det" if name == "vmatrix" else "matrix", tuple(Value("row", tuple(row)) for row in rows if row))

    def word(self) -> Value:
        """Read a word: a function, a constant, a number in words, a name, or letters that are multiplied."""
        word = self.peek()
        lower = word.casefold()
        if lower in NUMBERS or (lower in ("a", "an", "half") and self.is_spoken(lower)):
            return self.spoken()
        if lower in FUNCTIONS or lower == "sqrt" or word in _INFINITY:
            self.at += 1
            return self.root() if lower == "sqrt" else self.function(lower) if lower in FUNCTIONS else Value("infinity")
        if word in _MATH_WORDS:
            self.at += 1
            return self.symbol(_CONSTANTS.get(word, "\\" + word))
        if len(word) > 1 and not word.isupper():
            if len(word) > 3 or word in ("or", "and", "to") or not word.isascii():
                return self.unknown()
            self.tokens[self.at : self.at + 1] = [Token(word[0], self.token().gap), *map(Token, word[1:])]
        name = self.take()
        return self.symbol(_CONSTANTS.get(name, name))

    def unknown(self) -> Value:
        """Read a long word as a name where it is one side of an equation."""
        is_right = self.at > 0 and self.peek(-1) == "="
        name = self.take()
        while self.peek().isalpha() and self.peek().casefold() not in _SEPARATORS:
            name += " " + self.take()
        if self.peek() != "=" and not is_right:
            raise UnreadableError
        return self.marked(name)

    def is_spoken(self, lower: str) -> bool:
        """Return whether "a" or "half" begins a number in words."""
        following = self.peek(1).casefold()
        return following in SCALES or share(following) is not None or (lower == "half" and not following.strip("."))

    def spoken(self) -> Value:
        """Read a number in words: twenty-one, one hundred and five, half."""
        total = group = 0
        start = self.at
        while True:
            word, following = self.peek().casefold(), self.peek(1).casefold()
            if word in NUMBERS:
                if self.at > start and group % 100 and not (group % 10 == 0 and group % 100 > 10 > NUMBERS[word]):
                    raise UnreadableError
                group += NUMBERS[word]
            elif word == "half" and self.at == start:
                self.at += 1
                return number(Fraction(1, 2))
            elif word in ("a", "an") and self.at == start:
                group = 1
            elif word == "hundred":
                group = (group or 1) * 100
            elif word in SCALES:
                total, group = total + (group or 1) * SCALES[word], 0
            elif not (
                self.at > start
                and ((word in ("-", "and") and following in NUMBERS) or (word == "-" and share(following)))
                and not (word == "and" and group % 100)
            ):
                return number(total + group)
            self.at += 1

    def symbol(self, name: str) -> Value:
        """Read what may follow the name of a symbol."""
        if name in _CONSTANTS.values() and self.peek() != "_":
            return Value("constant", name=name)
        if name == "m" and self.peek() == r"\angle":
            return self.power()
        return self.marked(name)

    def marked(self, name: str) -> Value:
        """Add primes, a subscript and arguments (``f(x) =``) to a name."""
        while self.peek() in ("'", '"'):
            name += self.take()
        if self.passes("_"):
            name += "_" + self.label()
        if match := _APPLIED.match("".join(token.text for token in self.tokens[self.at : self.at + 8])):
            name += match[1]
            self.at += len(re.findall(r"\\[a-z]+|\d+|.", match[1]))
        self.has_symbols = True
        return Value("symbol", name=name)


_LEAVES = {r"\RR": "reals", r"\emptyset": "set", r"\ldots": "dots"}
