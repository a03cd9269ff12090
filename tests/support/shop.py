"""A task of 13 traces, labelers that score them all alike, and a backend that counts what it is asked."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

from cpmi_eval import Gold, Item, RunResult, StepScores, Tokens, Trace
from cpmi_eval.description import ModelDescription
from cpmi_eval.errors import ModelError
from cpmi_eval.protocols import Backend, BackendOptions, LoadOptions
from cpmi_eval.types import Failure, LogProb, Provenance, Scored, ScoreRequest, TaskData

Register = Callable[[str, str, Any], None]


class Even:
    """Scores every step 1; the other labelers here differ in one thing each."""

    name: ClassVar[str] = "even"
    summary: ClassVar[str] = "all steps alike"
    kind: ClassVar[str] = "baseline"
    needs: ClassVar[frozenset[str]] = frozenset()
    capabilities: frozenset[str] = frozenset()
    native_threshold: float | None = 0.5

    def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
        for trace in traces:
            yield self.one(trace)

    def one(self, trace: Trace) -> Scored:
        return StepScores(trace.id, (1.0,) * len(trace.steps))


def trace(name: str, n_steps: int = 2, answer: str | None = "4") -> Trace:
    return Trace(name, f"problem {name}", tuple(f"step {i}" for i in range(n_steps)), answer, f"cluster {name}")


def items(subset: str, n: int) -> list[Item]:
    """Return traces of 2 steps: the even ones correct, the odd ones wrong at step 1."""
    return [Item(subset, trace(f"{subset}{i}"), Gold(1 if i % 2 else -1, i % 2 == 0)) for i in range(n)]


class Shop:
    """A task of two subsets, 5 and 8 traces."""

    name: ClassVar[str] = "shop"
    summary: ClassVar[str] = "two subsets"
    subsets: ClassVar[tuple[str, ...]] = ("a", "b")
    metrics: ClassVar[tuple[str, ...]] = ("first_error", "step_auc")
    synthetic: ClassVar[bool] = False
    content: ClassVar[list[Item]] = [*items("a", 5), *items("b", 8)]

    def load(self, options: LoadOptions) -> TaskData:
        chosen = tuple(item for item in self.content if not options.subsets or item.subset in options.subsets)
        return TaskData(chosen, (Provenance("shop", sha256="00", rows=len(chosen)),))


class Counting:
    """A backend that scores by length and counts what it is asked."""

    name: ClassVar[str] = "counting"
    summary: ClassVar[str] = "no model"
    capabilities: ClassVar[frozenset[str]] = frozenset({"loglikelihood"})
    batch_tokens = 16
    opened: ClassVar[list[BackendOptions]] = []

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        if options.model == "absent":
            raise ModelError("no model 'absent'")

    @classmethod
    def open(cls, options: BackendOptions) -> Self:
        cls.opened.append(options)
        return cls()

    def prepare(self, capabilities: frozenset[str]) -> None:
        self.prepared = capabilities

    def describe(self) -> ModelDescription:
        return ModelDescription(self.name, "counting", "cpu", dtype="float32", scorer="trie")

    def peak_memory_bytes(self) -> int:
        return 1000 * len(self.opened)

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        return [LogProb(-float(len(one.context)), 1, Tokens(10, 4, 1)) for one in requests]


class Asking(Even):
    """Asks a backend one thing per step."""

    capabilities: frozenset[str] = frozenset({"loglikelihood"})
    native_threshold: float | None = 0.0

    def score(self, traces: Sequence[Trace], backend: Backend | None) -> Iterator[Scored]:
        assert backend is not None
        for one in traces:
            results = backend.loglikelihood([ScoreRequest(step, " ") for step in one.steps])
            yield StepScores(one.id, tuple(r.total for r in results), sum((r.tokens for r in results), Tokens()))


Go = Callable[..., RunResult]


def by_id(result: RunResult) -> dict[str, Any]:
    return {row["id"]: row for row in result.rows}
