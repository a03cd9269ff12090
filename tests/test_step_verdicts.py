r"""Generative PRMs: verdicts read from boxes, and the odds of the two words where a box opens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.judge import Judge
from cpmi_eval.labelers.step_verdicts import parse_step_verdicts
from cpmi_eval.types import (
    Completion,
    Failure,
    Generation,
    LogProb,
    Sampling,
    Scored,
    ScoreRequest,
    StepScores,
    Tokens,
    Trace,
    TraceFailure,
)

WORDS = ("correct", "incorrect")
TRACE = Trace("t", "What is 1 + 1?", ("1 + 1 = 2.", "So 3."))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"Fine: \boxed{correct}. Then \boxed{incorrect}.", (True, False)),
        (r"\boxed{Correct} \boxed{\text{correct}}", (True, True)),
        (r"I get \boxed{2}, so \boxed{correct}; \boxed{ incorrect }", (True, False)),
        (r"\boxed{incorrect} and I stop", (False, False)),
        (r"\boxed{correct}", "too_few"),
        (r"\boxed{correct}\boxed{correct}\boxed{correct}", "too_many"),
        ("both are correct", "no_verdicts"),
        (r"\boxed{maybe}", "no_verdicts"),
        (r"\boxed{correct", "no_verdicts"),
    ],
)
def test_reading(text: str, expected: tuple[bool, ...] | str) -> None:
    assert parse_step_verdicts(text, 2, WORDS) == expected


class Model:
    """Writes given texts in turn; gives each (end of context, word) its log-probability."""

    has_chat_template = False

    def __init__(self, texts: Sequence[str | Failure], odds: Sequence[float] = ()) -> None:
        self.texts, self.odds = list(texts), list(odds)
        self.prompts: list[str] = []
        self.asked: list[ScoreRequest] = []
        self.sampling: Sampling | None = None

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Any = None
    ) -> list[Generation | Failure]:
        self.prompts += prompts
        self.sampling = sampling
        made: list[Generation | Failure] = []
        for own in seeds:
            texts = [self.texts.pop(0) for _ in own]
            failed = next((one for one in texts if isinstance(one, Failure)), None)
            done = tuple(Completion(str(one), 5, "stop", k) for k, one in enumerate(texts))
            made.append(failed or Generation(done, Tokens(20, 10, 5)))
        return made

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        self.asked += requests
        return [LogProb(self.odds.pop(0), 1, Tokens(8, 1, 0)) for _ in requests]


def one(judge: Judge, model: Any) -> Scored:
    (result,) = judge.score([TRACE], model)
    return result


def test_a_critique_with_a_verdict_per_step() -> None:
    model = Model([r"\boxed{correct} \boxed{incorrect}"])
    result = one(Judge(mode="steps"), model)
    assert isinstance(result, StepScores)
    assert result.values == (1.0, 0.0)
    assert result.tokens == Tokens(20, 10, 5)
    assert r"\boxed{correct} or \boxed{incorrect}" in model.prompts[0]
    assert "<step_1>\nSo 3.\n</step_1>" in model.prompts[0]
    assert (result.samples[0]["step"], result.samples[0]["error"]) == (None, None)


def test_votes_are_averaged_over_what_can_be_read() -> None:
    texts = [r"\boxed{correct}\boxed{correct}", "nothing", r"\boxed{correct}\boxed{incorrect}", r"\boxed{incorrect}"]
    result = one(Judge(mode="steps", votes=4), Model(texts))
    assert isinstance(result, StepScores)
    assert result.values == pytest.approx((2 / 3, 1 / 3))
    assert result.details["unparsed"] == {"no_verdicts": 1}
    assert result.details["votes"] == 3


def test_a_trace_without_any_readable_critique_fails_visibly() -> None:
    result = one(Judge(mode="steps", votes=2), Model(["?", r"\boxed{correct}"]))
    assert isinstance(result, TraceFailure)
    assert result.failure.kind == "unparsed"
    assert "no_verdicts 1, too_few 1" in result.failure.message
    assert result.tokens.generated == 5


def test_verifying_each_step_reads_the_odds_where_the_box_opens() -> None:
    model = Model(["Adds up: ", "No, 2 is not 3: "], [math.log(0.6), math.log(0.2), math.log(0.1), math.log(0.4)])
    result = one(Judge(mode="verify"), model)
    assert isinstance(result, StepScores)
    assert result.values == pytest.approx((0.75, 0.2))
    assert model.sampling is not None
    assert model.sampling.stop == ("\\boxed{",)
    assert "So 3." not in model.prompts[0]
    assert "So 3." in model.prompts[1]
    assert [request.continuation for request in model.asked] == ["Yes", "No", "Yes", "No"]
    assert model.asked[0].context == model.prompts[0] + "Adds up: \\boxed{"
    assert result.tokens == Tokens(20 * 2 + 8 * 4, 10 * 2 + 4, 10)
    assert [sample["step"] for sample in result.samples] == [0, 1]


def test_several_analyses_of_a_step_are_averaged() -> None:
    odds = [math.log(p) for good in (0.9, 0.5, 0.2, 0.4) for p in (good, 1 - good)]
    result = one(Judge(mode="verify", votes=2, verdicts="right|wrong"), Model(["a", "b", "c", "d"], odds))
    assert isinstance(result, StepScores)
    assert result.values == pytest.approx((0.7, 0.3))


def test_a_step_that_cannot_be_written_about_fails_its_trace_alone() -> None:
    other = Trace("u", "What is 2 + 2?", ("4.",))
    model = Model(["fine", Failure("too_long", "9 tokens"), "fine"], [-1.0, -1.0, -1.0, -1.0])
    first, second = Judge(mode="verify").score([TRACE, other], model)  # type: ignore[arg-type]
    assert isinstance(first, TraceFailure)
    assert first.failure.kind == "too_long"
    assert isinstance(second, StepScores)
    assert second.values == (0.5,)


def test_what_each_mode_asks_of_a_backend_and_its_rule() -> None:
    assert Judge(mode="steps").capabilities == {"generate"}
    assert Judge(mode="verify").capabilities == {"generate", "loglikelihood"}
    assert Judge(mode="verify").native_threshold == Judge(mode="steps").native_threshold == 0.5
    with pytest.raises(UsageError, match="verdicts would do nothing"):
        Judge(mode="generate", verdicts="a|b")
