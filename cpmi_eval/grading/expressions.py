r"""Expressions: numbers, symbols, functions and what joins them, read by recursive descent.

The reader goes over the tokens once and computes nothing, so reading is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from cpmi_eval.grading import units
from cpmi_eval.grading.notation import Token, UndecidableError
from cpmi_eval.grading.spoken import NUMBERS, POSTFIXES, SCALES, share
from cpmi_eval.grading.units import Unit, vocabulary
from cpmi_eval.grading.values import UnreadableError, Value, many, number

MAX_DEPTH = 25

FUNCTIONS = vocabulary("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp gcd lcm max min")
_UNEVALUATED = vocabulary(r"\sum \int \prod \lim \iint \oint \partial \Gamma \nabla \infsum \bigcup \bigcap")
_CONSTANTS = {"pi": "pi", r"\pi": "pi", "e": "e", "i": "i"}
INFINITY = frozenset({r"\infty", "infty", "infinity", "Infinity", "inf", "Inf", r"\infin"})
RELATIONS = {"=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", r"\in": "in"} | dict.fromkeys(
    (r"\approx", r"\equiv", r"\sim"), "="
)
SET_OPERATIONS = {
    r"\cup": "union", r"\cap": "intersection", r"\setminus": "difference", r"\backslash": "difference",
}  # fmt: skip
SEPARATORS = {",": "", ";": "", "and": "", "or": "or", "&": ""} | {
    r"\lor": "or", r"\vee": "or", r"\land": "land", r"\wedge": "land",
}  # fmt: skip
_CLOSERS = frozenset({")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil", "|", r"\end", r"\\"})
_GROUPING = {"(": ")", "[": "]", r"\{": r"\}", "{": "}", r"\langle": r"\rangle"}
_ROUNDING = {r"\lfloor": ("floor", r"\rfloor"), r"\lceil": ("ceil", r"\rceil")}
_DECORATED = vocabulary(r"\overline \overrightarrow \overleftrightarrow \widehat \hat \vec \bar \angle \triangle")
_GREEK = vocabulary(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon "
    "phi chi psi omega ell hbar zz"
)
_MATH_WORDS = frozenset({"sqrt", "pi", "theta", "alpha", "beta", "phi", "lambda", "infty", "infinity"})
_APPLIED = re.compile(r"(\((?:[A-Za-z](?:[,|][A-Za-z])*|-?\d+|[A-Z]\\c[au]p[A-Z]|\\[a-z]+)\))=(?!=)")


class Cursor:
    """A place in the tokens, and whether a unit begins there."""

    def __init__(self, found: Sequence[Token]) -> None:
        self.tokens = list(found)
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.currency: Unit | None = None
        self.has_symbols = False  # in the quantity that is read

    def begin_quantity(self) -> None:
        """Forget the currency and the symbols of what was read before."""
        self.currency, self.has_symbols = None, False

    def peek(self, ahead: int = 0) -> str:
        """Return the text of a token ahead, empty past the end."""
        place = self.at + ahead
        return self.tokens[place].text if place < len(self.tokens) else ""

    def token(self, ahead: int = 0) -> Token:
        """Return a token ahead, an empty one past the end."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else Token("")

    def take(self) -> str:
        """Consume a token and return its text."""
        self.at += 1
        return self.tokens[self.at - 1].text

    def expect(self, text: str) -> None:
        """Consume a token that must be there."""
        if self.peek() != text:
            raise UnreadableError
        self.at += 1

    def unit_ahead(self, left: Value) -> tuple[Unit, int] | None:
        """Return the unit of ``left`` that begins here, up to the end of the item, and where it ends."""
        place, said = self.at, list[str]()
        first = self.token()
        if first.text == r"\pmod" or (first.text == "(" and self.peek(1) in (r"\bmod", "mod")):
            return self.modulus()
        while place < len(self.tokens) and not self.ends_item(self.tokens[place].text):
            token = self.tokens[place]
            word = token.text
            if said and token.gap and token.number is not None:
                break
            if word == "^":
                power = re.match(
                    r"(\{?)(-?\d)(\}?)(?!\d)", "".join(token.text for token in self.tokens[place + 1 : place + 5])
                )
                if not power or bool(power[1]) != bool(power[3]):
                    return None
                said.append(f"^{power[2]}")
                place += 1 + len(power[1]) + len(power[2]) + len(power[3])
                continue
            if said and token.number in (2, 3) and not token.gap:
                word = f"^{word}"  # ft2
            elif not (word[0].isalpha() or word in units.UNITS or word in ("*", "/", ".", "-")):
                return None
            said.append(word)
            place += 1
        if not said or not self.may_be_unit(first, said, left):
            return None
        unit = units.of_words(said)
        return None if unit is None else (unit, place)

    def ends_item(self, text: str) -> bool:
        """Return whether a token ends an item of a list or a side of a relation."""
        return text.casefold() in SEPARATORS or text in RELATIONS or text in _CLOSERS or text == ":"

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
        return (
            units.lookup(word) is not None
            or word in units.FILLERS
            or word in (*units.POWERS, *units.ATTACHED)
            or _is_noun(word)
        )

    def modulus(self) -> tuple[Unit, int] | None:
        """Return what ``(mod 7)`` says, which counts as a unit."""
        start = self.at
        closes = "}" if self.peek(1) == "{" else ")"
        closing = next((place for place in range(start, len(self.tokens)) if self.tokens[place].text == closes), None)
        if self.peek() == r"\pmod" and self.peek(1) != "{":
            return Unit(((f"mod {self.peek(1)}", 1),)), start + 2
        if closing is None:
            return None
        inside = [token.text for token in self.tokens[start + 1 : closing] if token.text not in (r"\bmod", "mod", "{")]
        return Unit((("mod " + "".join(inside), 1),)), closing + 1


def _is_noun(word: str) -> bool:
    if word in FUNCTIONS or word in _MATH_WORDS:
        return False
    return len(word) > 3 or (len(word) == 3 and not set(word) <= set("abcxyz"))


class Expressions(Cursor):
    """Reads expressions. Methods consume what they name, or raise :class:`UnreadableError`."""

    def items(self) -> Value:
        """Read what stands in brackets: a list, or what is alone."""
        raise NotImplementedError

    def relation(self) -> Value:
        """Read an item of a list or a cell of a matrix."""
        raise NotImplementedError

    def sum(self) -> Value:
        """Read terms with their signs."""
        terms = [self.term(self.sign())]
        while self.peek() in ("+", "-", r"\pm", r"\mp"):
            if self.peek() in ("+", "-"):
                terms.append(self.term(self.take() == "-"))
            else:
                kind = self.take()[1:]
                terms = [Value(kind, (many("+", terms), self.product()))]
        return many("+", terms)

    def sign(self) -> bool:
        """Take the signs before a term; return whether they negate it."""
        negative = False
        while self.peek() in ("+", "-") or self.peek().casefold() in ("negative", "minus"):
            negative ^= self.take() != "+"
        return negative

    def term(self, negative: bool) -> Value:
        """Read a term that may begin with plus-minus."""
        if self.peek() in (r"\pm", r"\mp"):
            kind = self.take()[1:]
            return Value(kind, (self.term(negative),))
        product = self.product()
        return Value("neg", (product,)) if negative else product

    def product(self) -> Value:
        """Read factors, with and without signs between them, up to a unit or a scale."""
        factors = [self.power()]
        while True:
            operator = self.peek()
            left = factors[-1] if self.has_symbols else many("*", factors)
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
        return many("*", factors)

    def is_scale(self, left: Value) -> bool:
        """Return whether the next word multiplies or raises all that stands before it."""
        word = self.peek().casefold()
        return word in SCALES or word in POSTFIXES or (share(word) is not None and left.is_constant)

    def signed(self) -> Value:
        """Read a factor that may have signs of its own."""
        negative = self.sign()
        factor = self.power()
        return Value("neg", (factor,)) if negative else factor

    def begins_factor(self) -> bool:
        """Return whether a factor may begin here."""
        text = self.peek()
        if not text or self.ends_item(text):
            return text == "|" and not self.bars
        return (
            text[0].isalnum()
            or text[0] in "([{."
            or (
                text[0] == "\\"
                and text not in SET_OPERATIONS
                and text not in (r"\pm", r"\mp", r"\pmod", r"\\", r"\ldots", r"\choose")
            )
        )

    def power(self) -> Value:
        """Read a base with its exponents, factorials and degree signs."""
        base = self.mixed() or self.primary()
        for _ in range(MAX_DEPTH):
            text = self.peek()
            if text == "^":
                self.at += 1
                base = Value("^", (base, self.exponent()))
            elif text in ("!", "°") and not (text == "!" and self.peek(1) == "="):
                self.at += 1
                base = Value(text, (base,))
            else:
                return base
        raise UndecidableError

    def exponent(self) -> Value:
        """Read an exponent, or a tower of them: a whole number, or what LaTeX takes for an argument."""
        negative = self.sign()
        bases = [self.primary() if self.token().number is not None else self.argument()]
        while self.peek() == "^" and len(bases) < MAX_DEPTH:
            self.at += 1
            bases.append(self.primary() if self.token().number is not None else self.argument())
        power = bases.pop()
        while bases:
            power = Value("^", (bases.pop(), power))
        return Value("neg", (power,)) if negative else power

    def mixed(self) -> Value | None:
        r"""Read ``3 1/2`` or ``3\frac12``: a whole number and a fraction of whole numbers."""
        whole, top = self.token(), self.token(1)
        if whole.number is None or whole.number.denominator > 1 or not whole.text.replace(",", "").isdigit():
            return None
        if top.text == r"\frac":
            start = self.at
            self.at += 1
            part = self.primary()
            if all(one.kind == "number" and one.number.denominator == 1 for one in part.parts) and self.peek() != "^":
                return Value("+", (number(whole.number), part))
            self.at = start
        elif top.gap and top.text.isdigit() and self.peek(2) == "/" and self.peek(3).isdigit():
            self.at += 4
            bottom = self.token(-1).number or Fraction(0)
            return Value("+", (number(whole.number), Value("/", (number(top.number or 0), number(bottom)))))
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
        """Read what a token begins."""
        token = self.token()
        text = token.text
        if not text:
            raise UnreadableError
        if token.number is not None:
            self.at += 1
            return self.numeral(token) or Value("number", number=token.number)
        if text in units.CURRENCIES:
            self.at += 1
            self.currency = units.lookup(text) or units.lookup("inr")
            if self.peek() == ".":
                self.at += 1
            return self.signed()
        if text in _GROUPING:
            return self.group()
        if text == "|":
            return self.bracketed("abs", "|")
        if text in _ROUNDING:
            return self.bracketed(*_ROUNDING[text])
        if text[0] == "\\":
            return self.command()
        if text[0].isalpha():
            return self.word()
        if text[0].isdigit() and "e" in text.lower():
            raise UndecidableError  # a number that is too large to write down
        raise UnreadableError

    def numeral(self, token: Token) -> Value | None:
        """Read ``1210_5``: digits with a base."""
        if self.peek() != "_":
            return None
        self.at += 1
        base = self.argument()
        name = str(base.number) if base.kind == "number" else base.name
        return Value("numeral", name=f"{token.text}_{name}")

    def group(self) -> Value:
        """Read a group, tuple, interval or set."""
        opening = self.take()
        closing = _GROUPING[opening]
        if self.peek() == closing:
            self.at += 1
            if opening == r"\{":
                return Value("set")
            raise UnreadableError
        if opening == r"\{":
            self.skip_builder()
        bars, self.bars = self.bars, 0
        inner = self.items()
        if opening == "{" and self.peek() == r"\choose":
            self.at += 1
            inner = Value("binom", (inner, self.items()))
        self.bars = bars
        if opening in "([" and self.peek() in (")", "]"):
            closing = self.peek()
        self.expect(closing)
        if opening == r"\{" and inner.kind == "chain":
            return inner
        if opening in (r"\{", "{") and (opening != "{" or inner.kind == "list"):
            return Value("set", inner.parts if inner.kind == "list" else (inner,))
        if inner.kind == "list":
            return Value("tuple", inner.parts, opening + closing)
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
        token = self.token()
        if token.number is not None and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at : self.at + 1] = [Token(digit, number=Fraction(digit)) for digit in token.text]
        elif token.text.isalpha() and len(token.text) > 1:
            self.tokens[self.at : self.at + 1] = [Token(letter) for letter in token.text]
        return self.primary()

    def command(self) -> Value:
        """Read a LaTeX command with its arguments."""
        name = self.take()
        if name == r"\frac":
            return Value("/", (self.argument(), self.argument()))
        if name == r"\binom":
            return Value("binom", (self.argument(), self.argument()))
        if name == r"\sqrt":
            return self.root()
        if name in (r"\RR", r"\emptyset"):
            return Value("reals") if name == r"\RR" else Value("set")
        if name == r"\ldots":
            return Value("dots")
        if name in INFINITY:
            return Value("infinity")
        if name == r"\begin":
            return self.matrix()
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
        if self.peek() != "{":
            return self.take() if self.at < len(self.tokens) else ""
        start = self.at
        while self.at < len(self.tokens) and self.take() != "}":
            pass
        return "".join(token.text for token in self.tokens[start + 1 : self.at - 1])

    def root(self) -> Value:
        """Read a root with its degree."""
        degree = number(2)
        if self.peek() == "[":
            self.at += 1
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
        if exponent == Value("neg", (number(1),)) and name[:3] in ("sin", "cos", "tan"):
            return Value("apply", parts, f"arc{name}")
        value = Value("apply", parts if base is None else (*parts, base), name)
        return value if exponent is None else Value("^", (value, exponent))

    def matrix(self) -> Value:
        """Read the rows of a matrix or determinant."""
        self.expect("{")
        name = ""
        while self.peek() not in ("}", ""):
            name += self.take()
        self.expect("}")
        if self.peek() == "{":  # the columns of an array
            self.label()
        rows, row = [], [self.relation()]
        while self.peek() in ("&", r"\\"):
            if self.take() == r"\\":
                rows.append(Value("list", tuple(row)))
                row = []
            if self.peek() != r"\end":
                row.append(self.relation())
        rows += [Value("list", tuple(row))] if row else []
        self.expect(r"\end")
        self.label()
        if name.strip("*") not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "array", "smallmatrix", "Bmatrix"):
            raise UnreadableError
        return Value("det" if name == "vmatrix" else "matrix", tuple(rows))

    def word(self) -> Value:
        """Read a word: a function, a constant, a number in words, a name, or letters that are multiplied."""
        token = self.token()
        word = token.text
        lower = word.casefold()
        if lower in NUMBERS or (lower in ("a", "an", "half") and self.is_spoken(lower)):
            return self.spoken()
        if lower in FUNCTIONS and len(word) > 1:
            self.at += 1
            return self.function(lower)
        if lower == "sqrt":
            self.at += 1
            return self.root()
        if word in INFINITY:
            self.at += 1
            return Value("infinity")
        if word in _MATH_WORDS:
            self.at += 1
            return self.symbol(_CONSTANTS.get(word, "\\" + word))
        if len(word) > 1 and not word.isupper():
            if len(word) > 3 or word in ("or", "and", "to") or not word.isascii():
                return self.unknown()
            self.tokens[self.at : self.at + 1] = [Token(word[0], token.gap), *(Token(letter) for letter in word[1:])]
        return self.symbol(_CONSTANTS.get(self.peek(), self.peek()), consume=True)

    def unknown(self) -> Value:
        """Read a long word as a name where it is one side of an equation."""
        start = self.at
        name = self.take()
        while self.peek().isalpha() and self.peek().casefold() not in SEPARATORS:
            name += " " + self.take()
        if self.peek() != "=" and not (start and self.tokens[start - 1].text == "="):
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
            word = self.peek().casefold()
            if word in NUMBERS:
                if self.at > start and group % 100 and not (group % 10 == 0 and group % 100 > 10 > NUMBERS[word]):
                    raise UnreadableError
                group += NUMBERS[word]
            elif word == "half" and self.at == start:
                self.at += 1
                return Value("number", number=Fraction(1, 2))
            elif word in ("a", "an") and self.at == start:
                group = 1
            elif word == "hundred":
                group = (group or 1) * 100
            elif word in SCALES:
                total, group = total + (group or 1) * SCALES[word], 0
            elif word == "-" and share(self.peek(1).casefold()):
                self.at += 1
                return number(total + group)
            elif not (word in ("-", "and") and self.at > start and self.peek(1).casefold() in NUMBERS) or (
                word == "and" and group % 100
            ):
                return number(total + group)
            self.at += 1

    def symbol(self, name: str, consume: bool = False) -> Value:
        """Read what may follow the name of a symbol."""
        self.at += consume
        if name in ("e", "i", "pi") and self.peek() != "_":
            return Value("constant", name=name)
        if name == "m" and self.peek() == r"\angle":
            return self.power()
        return self.marked(name)

    def marked(self, name: str) -> Value:
        """Add primes and a subscript to a name."""
        while self.peek() in ("'", '"'):
            name += self.take()
        if self.peek() == "_":
            self.at += 1
            name += "_" + self.label()
        applied = "".join(token.text for token in self.tokens[self.at : self.at + 8])
        if match := _APPLIED.match(applied):
            name += match[1]
            self.at += len(re.findall(r"\\[a-z]+|\d+|.", match[1]))
        self.has_symbols = True
        return Value("symbol", name=name)
