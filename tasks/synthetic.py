"""Seeded arithmetic word problems with worked solutions, some of them wrong from a known step on.

The benchmark that needs no download. A problem is a small program: every step computes ``a op b`` from numbers of
the problem, a unit fact or earlier results. A wrong solution spoils one step and computes on from the wrong value,
so the spoiled step is the first wrong one by construction. Every problem is accepted only if each of its steps can
be spoiled, so that problems, lengths and wordings are distributed alike with and without an error.

Original to this project.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import ClassVar, NamedTuple

from cpmi_eval import settings
from cpmi_eval.errors import UsageError
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.seeding import derive_rng
from cpmi_eval.tasks.rows import check_names
from cpmi_eval.types import Gold, Item, Provenance, TaskData, Trace

NAME, SUBSET = "synthetic", "arithmetic"
# The kinds of error and how they are weighed where a step allows several; the rare chances are taken more often.
KINDS = {"arithmetic": 2, "operation": 2, "copy": 2, "dropped": 3, "unit": 6}
SHARED = 0.5  # how often two neighbouring traces solve the same problem
CLOSED = 0.4  # how often a problem ends in a closing operation rather than a plain question

# First the sentences of steps by their part in the story, in which {now} and {then} are the family's clause around the
# equation and around its result. Then one block per family. `start`, `then` and `close` lines carry their operation
# (`=`: a bare number, no step), then: what the problem says | how a step refers to it (`close`: what it says) | the
# group of {a} times {b} | a unit fact.
STORIES = "synthetic_stories.txt"
PEOPLE = "Amara, Bruno, Chidi, Dalia, Emil, Farah, Goran, Hana, Ines, Jonas, Keiko, Lucia, Mateo, Nadia, Oskar, Priya"
# The true value of each unit fact, what it is mistaken for, and how a step states it.
FACTS: dict[str, tuple[int, tuple[int, ...], str]] = {
    "dozen": (12, (10, 6), "there are {b} in a dozen"),
    "pound": (16, (12, 10), "there are {b} ounces in a pound"),
    "week": (7, (5, 6), "there are {b} days in a week"),
}
LINKS = ("", "", "Then ", "Later, ", "After that, ", "Next, ")
CONFUSED = {"+": "-", "-": "+", "*": "+", "/": "-*"}
OFFSETS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 20, 100)


@dataclass(frozen=True)
class Settings:
    """How many traces, how long their solutions are, and the probability that one contains an error.

    Raises:
        UsageError: a value is no number or out of range; names the setting and the range.
    """

    n: int = 200
    min_steps: int = 3
    max_steps: int = 7
    error_share: float = 0.5

    def __post_init__(self) -> None:
        """Check the ranges."""
        settings.integer("n", self.n, 1, 100_000)
        settings.integer("min_steps", self.min_steps, 2, 20)
        settings.integer("max_steps", self.max_steps, 2, 20)
        settings.number("error_share", self.error_share, 0.0, 1.0)
        if self.min_steps > self.max_steps:
            raise UsageError(
                f"min_steps={self.min_steps} is more than max_steps={self.max_steps}: set both, "
                "2 <= min_steps <= max_steps <= 20"
            )


class Event(NamedTuple):
    """A line of a story family: an operation on the running amount and the words for it."""

    op: str
    tell: str
    by: str = ""
    group: str = ""
    fact: str = ""


class Family(NamedTuple):
    """A block of STORIES."""

    words: dict[str, str]
    events: dict[str, tuple[Event, ...]]


class Line(NamedTuple):
    """An equation as a solution writes it, ``a op b = c``, true or not."""

    a: int
    op: str
    b: int
    c: int


class Operand(NamedTuple):
    """A number of the problem, a unit fact (``slips``: what it is mistaken for) or the result of step ``step``."""

    value: int = 0
    step: int | None = None
    slips: tuple[int, ...] = ()


class Step(NamedTuple):
    """One operation of a problem, with its possible wordings around {a}, {b}, {c} and {eq}."""

    op: str
    left: Operand
    right: Operand
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """An item with what no labeler and no metric sees: the kind of its error and the correct solution."""

    item: Item
    kind: str | None
    solution: tuple[str, ...]


@cache
def _blocks() -> list[str]:
    return files("cpmi_eval.tasks").joinpath(STORIES).read_text(encoding="utf-8").strip().split("\n\n")


@cache
def _frames() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _blocks()[0].splitlines():
        role, _, text = line.partition(": ")
        found.setdefault(role, []).append(text)
    return found


@cache
def _families() -> tuple[Family, ...]:
    return tuple(map(_family, _blocks()[1:]))


def _family(block: str) -> Family:
    words: dict[str, str] = {}
    events: dict[str, tuple[Event, ...]] = {"start": (), "then": (), "close": ()}
    for row in block.splitlines():
        head, _, text = row.partition(": ")
        key, _, op = head.partition(" ")
        if op:
            events[key] += (Event(op, *(part.strip() for part in text.split("|"))),)
        else:
            words[key] = PEOPLE if text == "people" else text
    return Family(words, events)


def compute(a: int, op: str, b: int) -> int | None:
    """Return ``a op b`` if it is a positive integer; no story has room for anything else."""
    if op == "/":
        return a // b if a % b == 0 else None
    result = {"+": a + b, "-": a - b, "*": a * b}[op]
    return result if result > 0 else None


def solve(steps: Sequence[Step], spoiled: int = -1, wrong: Line | None = None) -> list[Line]:
    """Return every step's equation, with ``wrong`` in place of step ``spoiled``; none at all if one has no result."""
    lines: list[Line] = []
    for index, step in enumerate(steps):
        if index == spoiled and wrong is not None:
            lines.append(wrong)
            continue
        a, b = (lines[part.step].c if part.step is not None else part.value for part in (step.left, step.right))
        c = compute(a, step.op, b)
        if c is None:
            return []
        lines.append(Line(a, step.op, b, c))
    return lines


def _misread(number: int) -> Iterator[int]:
    digits = str(number)
    for at, digit in enumerate(digits):
        yield from (int(digits[:at] + other + digits[at + 1 :]) for other in "23456789" if other != digit)
    if len(digits) == 2 and digits[1] != "0":
        yield int(digits[::-1])


def _replaced(kind: str, part: Operand, steps: Sequence[Step], lines: Sequence[Line]) -> Iterator[int]:
    """Yield the numbers that an error of ``kind`` puts in the place of an operand."""
    if kind == "unit":
        yield from part.slips
    elif kind == "copy" and part.step is None and not part.slips:
        yield from _misread(part.value)
    elif kind == "dropped" and part.step is not None:
        source = lines[part.step]
        yield source.a
        # Where the earlier result joins two numbers of the problem, either of them may be forgotten.
        if steps[part.step].left.step is None and source.op in "+*":
            yield source.b


def spoilings(kind: str, index: int, steps: Sequence[Step], lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield every solution whose first error is of ``kind`` and at step ``index``."""
    a, op, b, true = lines[index]
    wrong: list[tuple[int, str, int, int | None]] = []
    if kind == "arithmetic":
        wrong = [(a, op, b, true + sign * offset) for offset in OFFSETS for sign in (1, -1) if offset < true]
    elif kind == "operation":
        wrong = [(a, other, b, compute(a, other, b)) for other in CONFUSED[op]]
    else:
        lefts = _replaced(kind, steps[index].left, steps, lines)
        rights = _replaced(kind, steps[index].right, steps, lines)
        wrong = [(left, op, b, compute(left, op, b)) for left in lefts]
        wrong += [(a, op, right, compute(a, op, right)) for right in rights]
    for left, sign, right, c in wrong:
        if c is not None and c != true:
            spoiled = solve(steps, index, Line(left, sign, right, c))
            if spoiled:
                yield spoiled


def _fill(text: str, **slots: str) -> str:
    for slot, words in slots.items():
        text = text.replace(f"{{{slot}}}", words)
    return text


class _Story:
    """A problem while it is being told: its sentences, its steps and where the running amount comes from."""

    def __init__(self, family: Family, rng: random.Random) -> None:
        self.words, self.events, self.rng = family.words, family.events, rng
        self.who, self.unit = (rng.choice(family.words[key].split(", ")) for key in ("who", "unit"))
        self.sentences: list[str] = []
        self.steps: list[Step] = []
        self.pool: list[Event] = rng.sample(self.events["then"], len(self.events["then"]))
        self.amount = self._start(rng.choice(self.events["start"]))

    def _start(self, event: Event) -> Operand:
        low, high = (3, 9) if event.op == "*" else (20, 150)
        a = self.rng.randint(low, high)
        b = self._rate(event, *((8, 20) if event.op == "*" else (20, 150)))
        self._tell(event.tell, a, b.value)
        if event.op == "=":
            return Operand(a)
        return self._add("fact" if event.fact else "start", event, event.op, Operand(a), b)

    def go_on(self, room: int) -> None:
        """Add an event that fits into ``room`` steps; when none does, let all but * and / happen again."""
        for event in self.pool:
            numbers = self._numbers(event) if room > bool(event.group) else None
            if numbers is not None:
                self.pool.remove(event)
                a, b = numbers
                self._tell(self.rng.choice(LINKS) + event.tell, a, b.value)
                change = self._add("fact" if event.fact else "group", event, "*", Operand(a), b) if event.group else b
                self.amount = self._add("then", event, event.op, self.amount, change)
                return
        again = [event for event in self.events["then"] if event.op in "+-"]
        self.pool = self.rng.sample(again, len(again))

    def end(self, closing: bool) -> None:
        """Close with a last operation or with the plain question."""
        if not closing:
            self._tell(self.words["ask"], 0, 0)
            return
        choices = [(event, self._numbers(event, most=12)) for event in self.events["close"]]
        event, (_, b) = self.rng.choice([(event, numbers) for event, numbers in choices if numbers is not None])
        self._tell(event.tell, 0, b.value)
        self._add("close", event, event.op, self.amount, b)

    def _numbers(self, event: Event, most: int = 4) -> tuple[int, Operand] | None:
        """Draw an event's numbers so that the running amount stays sensible; None if there are none."""
        value = self.amount.value if self.amount.step is None else solve(self.steps)[self.amount.step].c
        if event.op == "/":
            divisors = [b for b in range(2, 9) if value % b == 0 and value // b >= 5]
            return (0, Operand(self.rng.choice(divisors))) if divisors else None
        if event.op == "*":
            return (0, self._rate(event, 2, most))
        a, b = self.rng.randint(2, 6), self._rate(event, 3, 18 if event.group else 95)
        change = a * b.value if event.group else b.value
        return (a, b) if event.op == "+" or 3 * change <= 2 * value else None

    def _rate(self, event: Event, low: int, high: int) -> Operand:
        if event.fact:
            value, slips, _ = FACTS[event.fact]
            return Operand(value, slips=slips)
        return Operand(self.rng.randint(low, high))

    def _tell(self, text: str, a: int, b: int) -> None:
        told = _fill(text, who=self.who, unit=self.unit).format(a=a, b=b)
        self.sentences.append(told[0].upper() + told[1:] + ("" if told.endswith("?") else "."))

    def _add(self, role: str, event: Event, op: str, left: Operand, right: Operand) -> Operand:
        clause = event.by if role == "close" else self.words["now"]
        fact = FACTS[event.fact][2] if event.fact else ""
        slots = {"now": _fill(clause, x="{eq}"), "then": _fill(clause, x="{c}")}
        slots |= {"by": event.by, "group": event.group, "fact": fact, "who": self.who, "unit": self.unit}
        self.steps.append(Step(op, left, right, tuple(_fill(frame, **slots) for frame in _frames()[role])))
        return Operand(step=len(self.steps) - 1)


def _compose(length: int, rng: random.Random) -> _Story:
    family = rng.choice(_families())
    closing = rng.random() < CLOSED
    while True:
        story = _Story(family, rng)
        while (room := length - closing - len(story.steps)) > 0:
            story.go_on(room)
        story.end(closing)
        lines = solve(story.steps)
        if all(any(any(spoilings(kind, at, story.steps, lines)) for kind in KINDS) for at in range(length)):
            return story


def _render(steps: Sequence[Step], lines: Sequence[Line], rng: random.Random) -> tuple[str, ...]:
    """Word a solution; the draws do not depend on ``lines``, so that a wrong solution is worded like the right one."""
    signs = {"+": "+", "-": "-", "*": rng.choice("*×"), "/": rng.choice("/÷")}
    texts = []
    for step, (a, op, b, c) in zip(steps, lines, strict=True):
        equation = f"{a} {signs[op]} {b} = {c}"
        text = rng.choice(step.wordings).format(a=a, b=b, c=c, eq=equation)
        texts.append(text[0].upper() + text[1:])
    texts[-1] += " " + rng.choice(_frames()["answer"]).format(c=lines[-1].c)
    return tuple(texts)


def _spoil(steps: Sequence[Step], lines: Sequence[Line], rng: random.Random) -> tuple[int, str, list[Line]]:
    """Draw where the first error is, then its kind, then the error: every position is equally likely."""
    index = rng.randrange(len(steps))
    found = {kind: list(spoilings(kind, index, steps, lines)) for kind in KINDS}
    (kind,) = rng.choices(list(KINDS), [weight if found[kind] else 0 for kind, weight in KINDS.items()])
    return index, kind, rng.choice(found[kind])


def build(seed: int, index: int, how: Settings) -> Draft:
    """Return trace ``index``, a function of its arguments alone (and not of ``how.n``)."""
    shared = derive_rng(NAME, "shared", seed, index // 2).random() < SHARED
    number = index - index % 2 if shared else index
    telling = derive_rng(NAME, "problem", seed, number, how.min_steps, how.max_steps)
    story = _compose(telling.randint(how.min_steps, how.max_steps), telling)
    lines = written = solve(story.steps)
    first_error, kind = -1, None
    fate = derive_rng(NAME, "error", seed, index)
    if fate.random() < how.error_share:
        first_error, kind, written = _spoil(story.steps, lines, fate)
    solution, steps = (
        _render(story.steps, each, derive_rng(NAME, "wording", seed, index)) for each in (lines, written)
    )
    text, cluster = " ".join(story.sentences), f"synthetic-problem-{number:04d}"
    trace = Trace(f"synthetic-{index:04d}", text, steps, str(lines[-1].c), cluster)
    gold = Gold(first_error, written[-1].c == lines[-1].c)
    return Draft(Item(SUBSET, trace, gold), kind, solution)


class Synthetic:
    """The default benchmark. Settings: ``n``, ``min_steps``, ``max_steps``, ``error_share`` (see :class:`Settings`)."""

    name: ClassVar[str] = NAME
    summary: ClassVar[str] = (
        "arithmetic word problems made on the spot, with errors at known steps; nothing to download"
    )
    subsets: ClassVar[tuple[str, ...]] = (SUBSET,)
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = True
    selects: ClassVar[bool] = False

    def load(self, options: LoadOptions) -> TaskData:
        """Return ``n`` items; a longer set begins with the shorter one of the same seed and other settings."""
        check_names("subset", options.subsets, self.subsets)
        how = settings.construct("synthetic task", Settings, options.args or {})
        items = tuple(build(options.seed, index, how).item for index in range(how.n))
        content = json.dumps([asdict(item) for item in items], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return TaskData(items, (Provenance(self.name, sha256=digest, rows=len(items)),))
