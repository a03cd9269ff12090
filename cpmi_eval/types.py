"""The nouns of the program: what flows between tasks, labelers, backends, metrics and reports.

Everything here is a frozen dataclass without behaviour that needs a heavy import, so that a plug-in
can depend on this module alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

JSON: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """One chain of thought, as a labeler may see it: it carries nothing of the gold annotation.

    ``answer`` is the reference answer of the *problem*; the runner blanks it for labelers that do not
    declare that they need it. ``cluster`` identifies the problem, for resampling by problem.
    """

    id: str
    problem: str
    steps: tuple[str, ...]
    answer: str | None = None
    cluster: str = ""


@dataclass(frozen=True)
class Candidate:
    """The place of a trace among several solutions of one problem, of which a scorer selects one.

    ``problem`` identifies the problem. ``answer`` numbers the classes of equal final answers among the problem's
    candidates, in order of first appearance; ``None``: no answer could be read. ``groups``: what results are broken
    down by (``level``, ``subject``, ``generator``), each with this candidate's value.
    """

    problem: str
    answer: int | None
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gold:
    """What only metrics see. ``first_error`` is the 0-based index of the first wrong step, -1 if there is none.

    ``None``: nobody has annotated this trace; metrics over steps leave it out. ``candidate``: for tasks that select
    among solutions.
    """

    first_error: int | None
    final_answer_correct: bool | None = None
    candidate: Candidate | None = None

    def as_dict(self) -> JSON:
        """Return what a row of samples.jsonl holds; ``candidate`` only where there is one."""
        own: JSON = {"first_error": self.first_error, "final_answer_correct": self.final_answer_correct}
        return own if self.candidate is None else {**own, "candidate": asdict(self.candidate)}

    @classmethod
    def from_dict(cls, row: JSON) -> Gold:
        """Read what :meth:`as_dict` wrote."""
        candidate = row.get("candidate")
        return cls(
            row["first_error"], row["final_answer_correct"], None if candidate is None else Candidate(**candidate)
        )


@dataclass(frozen=True)
class Item:
    """A trace, its gold annotation, and the subset of the task it belongs to."""

    subset: str
    trace: Trace
    gold: Gold


@dataclass(frozen=True)
class Problem:
    """A problem with its reference answer.

    ``id`` is stable within the benchmark (``gsm8k-test-0``). ``groups``: what results are broken down by.
    """

    id: str
    problem: str
    answer: str
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Where one piece of data came from: a hub revision, or the SHA-256 of a file's bytes."""

    name: str
    revision: str | None = None
    sha256: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class TaskData:
    """A loaded task: its items in a fixed order and where they came from.

    ``references`` counts, per subset, where the traces' reference answers came from (``joined`` to a source,
    the trace's ``own_answer``, or ``none``); empty for tasks whose rows carry their answers. ``empty``: items without
    any step, such as candidates that came out blank; nobody is asked to score them, and metrics see them as failed.
    ``notes``: what else the task has to say about its data, by subset; kept in results.json.
    """

    items: tuple[Item, ...]
    provenance: tuple[Provenance, ...]
    references: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    empty: tuple[Item, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why one trace (or one request) has no score. Counted, shown, and a miss for every metric.

    ``kind`` is a short stable word (``no_reference``, ``too_long``, ``no_negatives``, ``non_finite``, ...).
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Tokens:
    """Token counts. ``requested``: what serving every request on its own would put through the model.

    ``computed``: what was put through it (padding not counted). ``generated``: decoded tokens; all but a completion's
    last are read again, so they are part of the other two counts.
    """

    requested: int = 0
    computed: int = 0
    generated: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        """Counts are additive."""
        return Tokens(
            self.requested + other.requested,
            self.computed + other.computed,
            self.generated + other.generated,
        )

    @property
    def reused(self) -> int:
        """Requested tokens that were not computed, because another request had computed them."""
        return self.requested - self.computed

    def as_dict(self) -> dict[str, int]:
        """Return the counts under the names used in run files."""
        return {
            "requested": self.requested,
            "computed": self.computed,
            "reused": self.reused,
            "generated": self.generated,
        }


@dataclass(frozen=True)
class StepScores:
    """One float per step, higher = better step, with whatever the labeler wants to keep as ``details``.

    ``prediction`` is the labeler's own decision (index of the first wrong step, -1 for none) where it is more than a
    threshold on ``values``, such as a majority vote; it holds under the ``native`` threshold. ``samples`` are the
    texts behind the scores (rollouts, critiques), kept in rollouts.jsonl where the run asks for them.
    """

    trace_id: str
    values: tuple[float, ...]
    tokens: Tokens = Tokens()
    details: Mapping[str, Any] = field(default_factory=dict)
    prediction: int | None = None
    samples: tuple[JSON, ...] = ()


@dataclass(frozen=True)
class TraceFailure:
    """A labeler's word that it could not score a trace, and why."""

    trace_id: str
    failure: Failure
    tokens: Tokens = Tokens()
    details: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[JSON, ...] = ()


Scored: TypeAlias = StepScores | TraceFailure


class Text:
    """A text that other texts begin with: what ``before`` holds, then ``piece``.

    The prefixes of a chain of steps, written as texts, take memory in its length; as strings, in its square.
    """

    __slots__ = ("_length", "before", "piece", "root")

    def __init__(self, piece: str, before: Text | None = None) -> None:
        """Continue ``before``, or begin a text."""
        self.piece = piece
        self.before = before
        self.root: str = piece if before is None else before.root  # the first piece
        self._length = len(piece) + (0 if before is None else len(before))

    def __add__(self, more: str) -> Text:
        """Return this text continued by ``more``."""
        return Text(more, self)

    def __len__(self) -> int:
        """Return the number of characters."""
        return self._length

    def __repr__(self) -> str:
        """Return the text as a string is shown."""
        return f"Text({str(self)!r})"

    def __str__(self) -> str:
        """Return the whole text."""
        pieces = []
        one: Text | None = self
        while one is not None:
            pieces.append(one.piece)
            one = one.before
        return "".join(reversed(pieces))


@dataclass(frozen=True)
class ScoreRequest:
    """log p(continuation | context) is wanted; ``context + continuation`` is tokenized whole.

    ``given`` is the context, a string or, where many contexts begin alike, a :class:`Text`.
    ``top_k`` / ``top_p``: renormalise each step's distribution over its truncated support (the target token
    is always kept in it). 0 / 1.0 leave the distribution whole.
    """

    given: str | Text
    continuation: str
    top_k: int = 0
    top_p: float = 1.0

    @property
    def context(self) -> str:
        """The context as one string."""
        return str(self.given)


@dataclass(frozen=True)
class LogProb:
    """Summed natural-log probability of a continuation over its ``n_tokens`` tokens, and what it cost."""

    total: float
    n_tokens: int
    tokens: Tokens = Tokens()


@dataclass(frozen=True)
class Sampling:
    """How to sample completions. ``temperature=0`` is greedy; ``stop`` strings end a completion and are cut off.

    In this order, as in transformers: repetition penalty (over prompt and completion), temperature, top-k, top-p.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One sampled text. ``finish``: ``stop`` (end of sequence or stop string), or ``length`` (``max_new_tokens``).

    ``sample`` is its place among the completions asked for of its prompt.
    """

    text: str
    n_tokens: int
    finish: Literal["stop", "length"]
    sample: int = 0


@dataclass(frozen=True)
class Generation:
    """The completions of one prompt in order of ``sample``, and what they cost together.

    Fewer than were asked for where the caller had enough before.
    """

    completions: tuple[Completion, ...]
    tokens: Tokens = Tokens()


Enough: TypeAlias = Callable[[int, Completion], bool]
