"""The judge by hand on a stub backend that plays back texts and log-probabilities, and on a tiny real model."""

import math
import time
from itertools import pairwise

import pytest
import tinymodels
import torch

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.execution.guard import score_batch
from cpmi_eval.labelers.judge import Judge
from cpmi_eval.labelers.verdicts import parse_step_verdicts, parse_verdict, until_verdict
from cpmi_eval.protocols import Labeler
from cpmi_eval.seeding import derive_seed
from cpmi_eval.types import (
    Completion,
    Failure,
    Generation,
    LogProb,
    Sampling,
    ScoreRequest,
    StepScores,
    Tokens,
    Trace,
    TraceFailure,
)

TRACE = Trace("t1", "What is 5 + 7 + {steps}?", ("Add: 5 + 7.", "That is 13.", "So \\boxed{13}."), cluster="p1")
OTHER = Trace("t2", "What is 2 + 2?", ("It is 4.",), cluster="p2")
TOO_LONG = Failure("too_long", "9 tokens; the model takes 8")


class Stub:
    """Plays back what it is given, per trace found in the prompt, and remembers what was asked in each call."""

    def __init__(self, texts=None, logprobs=None, chat=False):
        self.texts = texts or {}
        self.logprobs = logprobs or {}
        self.has_chat_template = chat
        self.calls = []

    def generate(self, prompts, sampling, seeds, enough=None):
        self.calls.append((list(prompts), sampling, seeds))
        return [self._generation(prompt) for prompt in prompts]

    def _generation(self, prompt):
        texts = self.texts[TRACE.id if TRACE.problem in prompt else OTHER.id]
        if isinstance(texts, Failure):
            return texts
        made = [(text, "stop") if isinstance(text, str) else text for text in texts]
        return Generation(tuple(Completion(t, 5, f, k) for k, (t, f) in enumerate(made)), Tokens(30, 20, 10))

    def loglikelihood(self, requests):
        self.calls.append(list(requests))
        return [self._logprob(request) for request in requests]

    def _logprob(self, request):
        n = request.context.count("</step_")
        value = self.logprobs.get((n, request.continuation.strip(), OTHER.problem in request.context), -1.0)
        return value if isinstance(value, Failure) else LogProb(value, 1, Tokens(requested=10, computed=3))

    def chat_prompt(self, user):
        return f"<user>{user}</user>\n"


def judge_texts(*texts, **settings):
    (result,) = Judge(**settings).score([TRACE], Stub({"t1": texts}))
    return result


VERDICTS = [
    (r"\boxed{2}", 2), (r"\boxed{-1}", -1), (r"\boxed{0}", 0), (r"\boxed{ 3 }", 3),
    (r"The answer is $\boxed{3}$.", 3), (r"$$\boxed{3}$$ and some words after it, 4 of them", 3),
    (r"\[ \boxed{3} \]", 3), (r"\boxed{\text{2}}", 2), (r"\boxed{\textbf{-1}}", -1),
    (r"\boxed{\mathbf{\text{ 2 }}}", 2), (r"\boxed{\bf 2}", 2), (r"\boxed{step 2}", 2), (r"\boxed{Step_2}", 2),
    (r"\boxed{\text{Step\_2}}", 2), (r"\boxed{\text{step }2}", 2), (r"\boxed{step_{2}}", 2), (r"\boxed{STEP: 2}", 2),
    (r"\boxed{Step #2}", 2), (r"\boxed{step2}", 2), (r"\boxed{<step_2>}", 2), (r"\boxed{</step_2>}", 2),
    (r"\boxed{\text{\<step\_2\>}}", 2), (r"\boxed{paragraph 3}", 3), (r"\boxed{<paragraph_3>}", 3),
    (r"\boxed{index = 1}", 1), (r"\boxed{step -1}", -1), (r"\boxed{{2}}", 2), (r"\boxed{{{-1}}}", -1),
    (r"\boxed{-{1}}", -1), (r"\boxed{(2)}", 2), (r"\boxed{[2]}", 2), (r"\boxed{\boxed{2}}", 2), (r"\boxed{\(2\)}", 2),
    (r"\boxed{$2$}", 2), (r"\boxed{**2**}", 2), (r'\boxed{"2"}', 2), (r"\boxed{\,2\,}", 2), (r"\boxed 2", 2),
    (r"\boxed -1.", -1), (r"\boxed{−1}", -1), (r"\boxed{–1}", -1), (r"\boxed{- 1}", -1), (r"\boxed{+1}", 1),
    (r"\boxed{-0}", 0), (r"\boxed{02}", 2), (r"\boxed{2.}", 2), (r"\boxed{2.0}", 2), (r"\boxed{-1.0}", -1),
    (r"\fbox{2}", 2), ("\\boxed{\n2\n}", 2), (r"The solution boxes \boxed{13}, which follows. \boxed{-1}", -1),
    (r"\boxed{1} ... no, wait: \boxed{2}", 2),
    (r"\boxed{1} ... so \boxed{2", 1),  # cut off: the last complete box counts
    (r"\boxed{4}", "out_of_range"), (r"\boxed{-2}", "out_of_range"), (r"\boxed{13}", "out_of_range"),
    (rf"\boxed{{{'9' * 90}}}", "out_of_range"), (r"\boxed{1, 2}", "ambiguous"), (r"\boxed{1,2}", "ambiguous"),
    (r"\boxed{1,000}", "ambiguous"), (r"\boxed{1 or 2}", "ambiguous"), (r"\boxed{1-2}", "ambiguous"),
    (r"\boxed{step 1, step 2}", "ambiguous"), (r"\boxed{\frac{1}{2}}", "ambiguous"), (r"\boxed{1(2)}", "ambiguous"),
    (r"\boxed{1 2}", "ambiguous"), (r"\boxed{2.5}", "not_an_index"), (r"\boxed{step-1}", "not_an_index"),
    (r"\boxed{none}", "not_an_index"), (r"\boxed{\text{No error}}", "not_an_index"), (r"\boxed{x_2}", "not_an_index"),
    (r"\boxed{--1}", "not_an_index"), (r"\boxed{2²}", "not_an_index"), (r"\boxed{i}", "not_an_index"),
    (r"\boxed{}", "empty_box"), (r"\boxed{ \text{} }", "empty_box"), (r"\boxed{2", "unclosed_box"),
    (r"\boxed{\text{2}", "unclosed_box"), (r"\boxed{", "unclosed_box"), (r"\boxed", "unclosed_box"),
    ("\boxed{2}", "no_box"),  # not raw: a backspace and "oxed{2}"
    (r"\boxedtext{2}", "no_box"), ("The first error is in step 2.", "no_box"), ("", "no_box"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "verdict"), VERDICTS)
def test_verdicts_are_read_as_models_write_them(text, verdict):
    assert parse_verdict(text, 4) == verdict


HOSTILE = [
    r"\boxed{" * 100_000, r"\boxed{" * 50_000 + "}" * 50_000, r"\boxed{step" + " " * 1_000_000 + "x}",
    r"\boxed{" + "9" * 1_000_000 + "}", r"\boxed{" + r"\text{" * 100_000 + "2" + "}" * 100_001,
    r"\boxed" + " " * 1_000_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_refused_in_linear_time(text):
    start = time.perf_counter()
    assert isinstance(parse_verdict(text, 4), str)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("text", "values", "prediction"),
    [
        (r"Step 1 is off. \boxed{1}", (1.0, 0.0, 1.0), 1),
        (r"All fine: \boxed{-1}", (1.0, 1.0, 1.0), -1),
    ],
)
def test_one_greedy_critique_decides(text, values, prediction):
    result = judge_texts(text)
    assert isinstance(result, StepScores)
    assert result.values == values
    assert result.prediction == prediction
    assert result.tokens == Tokens(30, 20, 10)
    assert result.details == {"mode": "generate", "chat": False, "votes": [prediction], "unparsed": {}, "truncated": 0}
    assert result.samples == (
        {
            "role": "critic",
            "step": None,
            "sample": 0,
            "seed": derive_seed(0, "judge", "t1", 0),
            "text": text,
            "finish": "stop",
            "n_tokens": 5,
            "prediction": prediction,
            "error": None,
        },
    )


def test_votes_by_hand():
    cut = ("and then", "length")
    result = judge_texts(r"\boxed{1}", "?", r"\boxed{2}", r"\boxed{1}", cut, r"\boxed{-1}", r"\boxed{3}", votes=7)
    # four can be read: two name step 1, one step 2, one none
    assert result.values == (1.0, 0.5, 0.75)
    assert result.prediction == 1
    assert result.details["votes"] == [1, None, 2, 1, None, -1, None]
    assert result.details["unparsed"] == {"no_box": 2, "out_of_range": 1}
    assert result.details["truncated"] == 1
    assert [one["error"] for one in result.samples] == [None, "no_box", None, None, "no_box", None, "out_of_range"]
    assert [one["sample"] for one in result.samples] == list(range(7))


TIES = [
    ((r"\boxed{2}", r"\boxed{0}"), 2), ((r"\boxed{0}", r"\boxed{2}"), 0),
    (("?", r"\boxed{-1}", r"\boxed{0}", r"\boxed{0}", r"\boxed{-1}"), -1),
    ((r"\boxed{-1}", r"\boxed{0}", r"\boxed{0}"), 0),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "prediction"), TIES)
def test_ties_go_to_the_verdict_that_was_drawn_first(texts, prediction):
    assert judge_texts(*texts, votes=len(texts)).prediction == prediction


def test_the_majority_is_the_prediction_where_a_threshold_would_miss_it():
    votes = [r"\boxed{1}", r"\boxed{1}", r"\boxed{1}", r"\boxed{-1}", r"\boxed{0}", r"\boxed{2}", r"\boxed{-1}"]
    result = judge_texts(*votes, votes=7)
    assert result.values[1] == pytest.approx(1 - 3 / 7)  # above the threshold of 0.5
    assert result.prediction == 1


def test_critiques_that_cannot_be_read_fail_the_trace_and_say_why():
    result = judge_texts("x" * 500 + " the end", (r"\boxed{9}", "length"), votes=2)
    assert isinstance(result, TraceFailure)
    assert result.failure.kind == "unparsed"
    assert "none of 2 critiques" in result.failure.message
    assert "no_box 1, out_of_range 1" in result.failure.message
    assert "1 cut off at max_new_tokens=1024" in result.failure.message
    assert result.failure.message.endswith("xxx the end'")
    assert len(result.failure.message) < 300
    assert result.tokens == Tokens(30, 20, 10)
    assert result.details["votes"] == [None, None]
    assert [one["error"] for one in result.samples] == ["no_box", "out_of_range"]
    assert "cut off" not in judge_texts("done").failure.message


def test_all_traces_are_critiqued_in_one_call_under_seeds_of_their_own():
    def asked(*traces, seed=0):
        stub = Stub({"t1": [r"\boxed{0}"] * 2, "t2": TOO_LONG})
        results = {one.trace_id: one for one in Judge(votes=2, seed=seed).score(traces, stub)}
        ((_, _, seeds),) = stub.calls
        return results, dict(zip([trace.id for trace in traces], seeds, strict=True))

    results, seeds = asked(TRACE, OTHER)
    assert results["t1"].prediction == 0
    assert results["t2"] == TraceFailure("t2", TOO_LONG)
    assert seeds == asked(OTHER, TRACE)[1]
    assert len({*seeds["t1"], *seeds["t2"]}) == 4
    assert asked(TRACE)[1]["t1"] == seeds["t1"] != asked(TRACE, seed=1)[1]["t1"]


def test_the_rendered_critic_prompt():
    stub = Stub({"t1": [r"\boxed{0}"]})
    list(Judge().score([TRACE], stub))
    (((prompt,), _, _),) = stub.calls
    assert r"in \boxed{}." in prompt
    assert prompt.replace("\n", "").isprintable()  # no backspace where the backslash was
    assert "\n<step_0>\nAdd: 5 + 7.\n</step_0>\n<step_1>\nThat is 13.\n</step_1>\n<step_2>\n" in prompt
    assert TRACE.problem in prompt  # its own braces are left alone
    assert "{problem}" not in prompt
    assert prompt.count("<step_0>") == 1
    assert prompt.endswith("\n\n")  # a model without chats begins its reply on a line of its own


@pytest.mark.parametrize(
    ("chat", "template", "used"),
    [("auto", True, True), ("auto", False, False), (True, True, True), (False, True, False)],
)
@pytest.mark.parametrize("mode", ["generate", "logit"])
def test_chat_is_one_user_turn(mode, chat, template, used):
    stub = Stub({"t1": [r"\boxed{0}"]}, chat=template)
    (result,) = Judge(mode=mode, chat=chat).score([TRACE], stub)
    assert result.details["chat"] is used
    (call,) = stub.calls
    for prompt in call[0] if mode == "generate" else [request.context for request in call]:
        assert prompt.startswith("<user>") is used
        assert not used or prompt.endswith((".</user>\n", ":</user>\n"))


def test_how_critiques_are_sampled_follows_the_settings():
    def sampling(**settings):
        stub = Stub({"t1": [r"\boxed{0}"]})
        list(Judge(**settings).score([TRACE], stub))
        return stub.calls[0][1]

    assert sampling() == Sampling(1024, temperature=0.0)
    assert sampling(votes=1, max_new_tokens=8192) == Sampling(8192, temperature=0.0)
    assert sampling(votes=8) == Sampling(1024, temperature=1.0, top_p=0.9, top_k=0)
    given = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
    assert sampling(votes=8, **given) == Sampling(1024, **given)


def test_log_odds_by_hand():
    table = {
        (1, "Yes", False): -0.5,
        (1, "No", False): -2.0,
        (2, "Yes", False): -3.0,
        (2, "No", False): -1.0,
        (3, "Yes", False): -1.25,
        (3, "No", False): -1.25,
        (1, "Yes", True): -1.0,
        (1, "No", True): -5.0,
    }
    stub = Stub(logprobs=table)
    first, second = Judge(mode="logit").score([TRACE, OTHER], stub)
    assert first.values == (1.5, -2.0, 0.0)
    assert first.prediction is None  # the threshold decides
    assert first.details == {
        "mode": "logit",
        "chat": False,
        "positive": [-0.5, -3.0, -1.25],
        "negative": [-2.0, -1.0, -1.25],
    }
    assert first.tokens == Tokens(requested=60, computed=18)
    assert second.values == (4.0,)
    assert len(stub.calls) == 1


def test_verdict_contexts_share_all_but_their_ends():
    stub = Stub()
    list(Judge(mode="logit", verdicts="right | wrong").score([TRACE], stub))
    (requests,) = stub.calls
    assert [request.continuation for request in requests] == [" right", " wrong"] * 3
    contexts = [request.context for request in requests[::2]]
    assert contexts == [request.context for request in requests[1::2]]
    for i, (context, following) in enumerate(pairwise(contexts)):
        head, mark, question = context.partition(f"</step_{i}>")
        assert following.startswith(head + mark)
        assert "Say right or wrong." in question
        assert TRACE.steps[i + 1] not in context


@pytest.mark.parametrize(("ending", "continuation"), [("Right?", " Yes"), ("Right?\n", "Yes"), ("Right? ", "Yes")])
def test_a_verdict_gets_a_space_unless_there_is_one(tmp_path, ending, continuation):
    path = tmp_path / "prompt.txt"
    path.write_text("{problem}\n{steps}\n" + ending, encoding="utf-8")
    stub = Stub()
    list(Judge(mode="logit", prompt=str(path)).score([OTHER], stub))
    assert stub.calls[0][0] == ScoreRequest(f"{OTHER.problem}\n<step_0>\nIt is 4.\n</step_0>\n{ending}", continuation)


def test_a_failed_request_fails_its_trace_alone_and_keeps_what_it_cost():
    stub = Stub(logprobs={(2, "No", False): TOO_LONG})
    failed, fine = Judge(mode="logit").score([TRACE, OTHER], stub)
    assert failed == TraceFailure("t1", TOO_LONG, Tokens(requested=50, computed=15))
    assert fine.values == (0.0,)


def test_capabilities_and_threshold_follow_the_mode():
    written, odds = Judge(), Judge(mode="logit")
    assert (written.capabilities, written.native_threshold) == ({"generate"}, 0.5)
    assert (odds.capabilities, odds.native_threshold) == ({"loglikelihood"}, 0.0)
    whole, single = Judge(mode="steps"), Judge(mode="verify")
    assert (whole.capabilities, whole.native_threshold) == ({"generate"}, 0.5)
    assert (single.capabilities, single.native_threshold) == ({"generate", "loglikelihood"}, 0.5)
    assert isinstance(written, Labeler)
    assert Judge.needs == frozenset()


@pytest.mark.parametrize("mode", ["generate", "logit", "steps", "verify"])
def test_a_prompt_file_must_hold_problem_and_steps(tmp_path, mode):
    path = tmp_path / "prompt.txt"
    path.write_text("{problem}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"prompt.txt must hold \{steps\}"):
        Judge(mode=mode, prompt=str(path))


def short_prompt(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("{problem}\n{steps}\nWhich? \\boxed{}", encoding="utf-8")
    return str(path)


def rendered(trace, n):
    tagged = "\n".join(f"<step_{i}>\n{step}\n</step_{i}>" for i, step in enumerate(trace.steps[:n]))
    return f"{trace.problem}\n{tagged}\nWhich? \\boxed{{}}"


@pytest.mark.parametrize("chat", [True, False])
def test_a_real_model_writes_critiques(tmp_path, chat):
    backend = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(bos=True))
    labeler = Judge(votes=2, max_new_tokens=6, prompt=short_prompt(tmp_path), chat=chat)
    long = Trace("t3", "word " * 600, ("A step.",))
    results = score_batch(labeler, [OTHER, long], backend)
    assert results["t3"].failure.kind == "too_long"
    critiqued = results["t2"]  # a random model gives no verdict
    assert critiqued.failure.kind == "unparsed"
    assert critiqued.details["chat"] is chat

    prompt = backend.chat_prompt(rendered(OTHER, 1)) if chat else rendered(OTHER, 1)
    seeds = [derive_seed(0, "judge", "t2", k) for k in range(2)]
    (direct,) = backend.generate([prompt], Sampling(6, 1.0, 0.9), [seeds])
    assert [one["text"] for one in critiqued.samples] == [one.text for one in direct.completions]
    assert critiqued.tokens == direct.tokens
    assert critiqued.tokens.generated > 0


def test_a_real_model_without_a_chat_template_cannot_be_made_to_chat():
    class Plain(HFBackend):
        has_chat_template = False

    backend = Plain(tinymodels.model("llama"), tinymodels.tokenizer(bos=True))
    with pytest.raises(ModelError, match="no chat template"):
        list(Judge(chat=True).score([OTHER], backend))


@pytest.mark.parametrize("chat", [True, False])
def test_log_odds_equal_those_computed_straight_on_a_model(tmp_path, chat):
    """Each log-probability is one unbatched forward pass over the whole text, written out here."""
    model, tokenizer = tinymodels.model("llama", torch.float32), tinymodels.tokenizer(bos=True)
    backend = HFBackend(model, tokenizer)
    labeler = Judge(mode="logit", prompt=short_prompt(tmp_path), chat=chat, verdicts="Right|Wrong so")
    result = score_batch(labeler, [TRACE], backend)["t1"]

    def total(n, verdict):
        context = rendered(TRACE, n)
        if chat:
            context = f"<bos>[user] {context}\n[assistant]"  # the template ends in a space, which the verdict takes up
        ids = [0, *tokenizer((context + " " + verdict).removeprefix("<bos>"), add_special_tokens=False)["input_ids"]]
        length = len(tokenizer(" " + verdict, add_special_tokens=False)["input_ids"])
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[-length:].sum().item()

    expected = [total(n, "Right") - total(n, "Wrong so") for n in (1, 2, 3)]
    assert list(result.values) == pytest.approx(expected, abs=1e-4)
    assert result.details["chat"] is chat
    assert result.tokens.computed * 2 < result.tokens.requested  # the steps before are read once


WORDS = ("correct", "incorrect")
GOOD, BAD = r"\boxed{correct}", r"\boxed{incorrect}"


STEP_VERDICTS = [
    (f"Step 0: {GOOD} Step 1: {GOOD} Step 2: {GOOD}", (True, True, True)),
    (f"{GOOD}\n{BAD}\n{GOOD}", (True, False, True)),
    (f"{GOOD} {BAD}", (True, False, False)),  # stops at the first wrong step
    (BAD, (False, False, False)),
    (rf"It boxes \boxed{{13}}. {GOOD} {GOOD} So \boxed{{5 + 7}}: {GOOD}", (True, True, True)),
    (r"\boxed{Correct} \boxed{\text{correct}} \fbox{ INCORRECT. }", (True, True, False)),
    (r"\boxed {correct} \boxed{**correct**} \boxed{\mathbf{incorrect}}", (True, True, False)),
    (f"<think>{GOOD}, no: {BAD}, hm {BAD} {GOOD}</think>{GOOD} {BAD}", (True, False, False)),
    (f"<think>{GOOD} {GOOD} {GOOD}</think>Is the solution correct? Yes", (True, True, True)),
    (f"{GOOD} {GOOD}", "too_few"), (f"{GOOD}", "too_few"),
    (f"{BAD} {BAD}", "too_few"),  # did not stop at the first
    (f"{BAD} {GOOD}", "too_few"), (f"{GOOD} {GOOD} {GOOD} {GOOD}", "too_many"),
    (f"{GOOD} {GOOD} {GOOD} {BAD}", "too_many"), (r"\boxed{2}", "no_verdict"),
    (r"\boxed{partially correct}", "no_verdict"), (r"\boxed{correct", "no_verdict"),
    ("All steps are correct.", "no_box"), ("", "no_box"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "verdicts"), STEP_VERDICTS)
def test_a_verdict_for_every_step_is_read_in_order(text, verdicts):
    assert parse_step_verdicts(text, 3, WORDS) == verdicts


HOSTILE_CRITIQUES = [
    r"\boxed{" + " " * 500_000 + "x", r"\boxed{" * 100_000, (r"\boxed{" + " " * 50) * 10_000,
    r"\boxed{" + "{" * 200_000, r"\boxed{" + r"\text{a}" * 50_000, "</think>" * 100_000, r"\boxed" + "\t" * 1_000_000,
    (r"\boxed{\text" + " " * 20) * 20_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_CRITIQUES)
def test_hostile_critiques_are_refused_in_linear_time(text):
    start = time.perf_counter()
    assert isinstance(parse_step_verdicts(text, 3, WORDS), str)
    until_verdict(text, WORDS)
    assert time.perf_counter() - start < 3


def test_one_critique_gives_every_step_a_verdict():
    result = judge_texts(f"{GOOD} {BAD} {GOOD}", mode="steps")
    assert result.values == (1.0, 0.0, 1.0)
    assert result.prediction is None  # the threshold of 0.5 decides
    assert result.tokens == Tokens(30, 20, 10)
    assert result.details == {"mode": "steps", "chat": False, "votes": [1], "unparsed": {}, "truncated": 0}
    (sample,) = result.samples
    assert (sample["role"], sample["step"], sample["prediction"], sample["error"]) == ("critic", None, 1, None)
    assert sample["seed"] == derive_seed(0, "judge-steps", "t1", 0)


def test_a_step_scores_the_share_of_readable_critiques_that_approve():
    votes = [f"{GOOD} {BAD}", "?", f"{GOOD} {GOOD} {GOOD}", (f"{GOOD} {GOOD}", "length"), f"{GOOD} {BAD} {GOOD}"]
    result = judge_texts(*votes, mode="steps", votes=5)
    assert result.values == pytest.approx((1.0, 1 / 3, 2 / 3))  # of the first, third and fifth
    assert result.details["votes"] == [1, None, -1, None, 1]
    assert result.details["unparsed"] == {"no_box": 1, "too_few": 1}
    assert result.details["truncated"] == 1
    assert [one["error"] for one in result.samples] == [None, "no_box", None, "too_few", None]


def test_critiques_with_a_wrong_number_of_verdicts_fail_the_trace():
    result = judge_texts(GOOD * 4, (GOOD, "length"), mode="steps", votes=2)
    assert isinstance(result, TraceFailure)
    assert result.failure.kind == "unparsed"
    assert "none of 2 critiques" in result.failure.message
    assert "too_many 1, too_few 1; 1 cut off at max_new_tokens=1024" in result.failure.message
    assert result.tokens == Tokens(30, 20, 10)
    assert len(result.samples) == 2


def test_a_failed_critique_of_all_steps_fails_its_trace_alone():
    stub = Stub({"t1": TOO_LONG, "t2": [r"\boxed{right}"]})
    failed, fine = Judge(mode="steps", verdicts="right|wrong").score([TRACE, OTHER], stub)
    assert failed == TraceFailure("t1", TOO_LONG)
    assert fine.values == (1.0,)
    ((prompts, sampling, _),) = stub.calls
    assert sampling == Sampling(1024, temperature=0.0)
    assert r"\boxed{right} or \boxed{wrong}" in prompts[0]
    assert "\n<step_2>\n" in prompts[0]
    assert TRACE.problem in prompts[0]


class StepStub(Stub):
    """Plays back texts per (trace, number of steps shown), and log-probabilities that know the context's last words."""

    def _generation(self, prompt):
        name = TRACE.id if TRACE.problem in prompt else OTHER.id
        texts = self.texts[name, prompt.count("</step_")]
        if isinstance(texts, Failure):
            return texts
        made = [(text, "stop") if isinstance(text, str) else text for text in texts]
        return Generation(tuple(Completion(t, 5, f, k) for k, (t, f) in enumerate(made)), Tokens(30, 20, 10))

    def _logprob(self, request):
        value = self.logprobs[request.context.rpartition("\n\n")[2], request.continuation]
        return value if isinstance(value, Failure) else LogProb(value, 1, Tokens(requested=10, computed=3))


def test_the_probability_of_a_verdict_where_its_box_opens():
    texts = {
        ("t1", 1): [r"Fine. \boxed"],  # stopped at "{Yes}"
        ("t1", 2): [r"12, not 13. $\boxed{\text"],
        ("t1", 3): [r"It says \boxed{13}; so \boxed{ no }, it is wrong"],
        ("t2", 1): [r"OK \boxed"],
    }
    odds = {
        (r"Fine. \boxed{", "Yes"): math.log(0.6),
        (r"Fine. \boxed{", "No"): math.log(0.2),
        (r"12, not 13. $\boxed{\text{", "Yes"): math.log(0.1),
        (r"12, not 13. $\boxed{\text{", "No"): math.log(0.3),
        (r"It says \boxed{13}; so \boxed{", "Yes"): -2000.0,
        (r"It says \boxed{13}; so \boxed{", "No"): 0.0,
        (r"OK \boxed{", "Yes"): 0.0,
        (r"OK \boxed{", "No"): -2000.0,
    }
    stub = StepStub(texts, odds)
    first, second = Judge(mode="verify").score([TRACE, OTHER], stub)
    assert first.values == pytest.approx((0.75, 0.25, 0.0))
    assert second.values == (1.0,)
    assert first.prediction is None
    assert first.tokens == Tokens(requested=3 * 30 + 6 * 10, computed=3 * 20 + 6 * 3, generated=30)
    assert first.details["votes"] == [[pytest.approx(0.75)], [pytest.approx(0.25)], [pytest.approx(0.0)]]
    assert first.details["forced"] == 0
    assert [one["step"] for one in first.samples] == [0, 1, 2]
    (prompts, sampling, seeds), requests = stub.calls  # one call each, whatever the number of steps
    assert sampling == Sampling(1024, temperature=0.0, stop=("{Yes}", "{No}"))
    assert len({seed for own in seeds for seed in own}) == len(prompts) == 4
    assert len(requests) == 8
    assert [prompt.count("</step_") for prompt in prompts] == [1, 2, 3, 1]
    assert r"\boxed{Yes} or \boxed{No}" in prompts[0]


def test_analyses_are_averaged_and_those_without_a_verdict_are_given_a_box_and_counted():
    texts = {("t2", 1): [r"a \boxed", "Right. ", r"b \boxed", (r"as \boxed{4} is", "length")]}
    odds = {}
    for context, good in (("a \\boxed{", 0.5), ("\\boxed{", 0.2), ("b \\boxed{", 0.9)):
        odds |= {(context, "good"): math.log(good), (context, "bad"): math.log(1 - good)}
    stub = StepStub(texts, odds)
    (result,) = Judge(mode="verify", votes=4, verdicts="good|bad").score([OTHER], stub)
    assert result.details["votes"] == [pytest.approx([0.5, 0.2, 0.9, 0.2])]
    assert result.values == pytest.approx((0.45,))
    assert (result.details["forced"], result.details["truncated"]) == (2, 1)
    assert [one["forced"] for one in result.samples] == [False, True, False, True]
    assert stub.calls[1][2].context.endswith("\n\nRight.\n\n\\boxed{")
    assert stub.calls[1][6].context.endswith("as \\boxed{4} is\n\n\\boxed{")  # a quoted answer is no verdict


def test_what_fails_at_one_step_fails_the_trace():
    texts = {("t1", 1): [r"\boxed"], ("t1", 2): TOO_LONG, ("t1", 3): [r"\boxed"], ("t2", 1): [r"\boxed"]}
    odds = {(r"\boxed{", "Yes"): -1.0, (r"\boxed{", "No"): -1.0}
    failed, fine = Judge(mode="verify").score([TRACE, OTHER], StepStub(texts, odds))
    assert failed.failure == TOO_LONG
    assert failed.tokens == Tokens(requested=2 * 30 + 4 * 10, computed=2 * 20 + 4 * 3, generated=20)
    assert fine.values == (0.5,)
    odds[r"\boxed{", "No"] = TOO_LONG
    (failed,) = Judge(mode="verify").score([OTHER], StepStub(texts, odds))
    assert failed.failure == TOO_LONG


ANALYSES = [
    (r"so \boxed", r"so \boxed{"), (r"so \boxed{\text", r"so \boxed{\text{"),
    (r"so \boxed{\mathbf", r"so \boxed{\mathbf{"), (r"so \boxed{incorrect}", r"so \boxed{"),
    (r"so \boxed{ Correct. } and \boxed{incorrect}", r"so \boxed{"),
    (r"so \boxed{\text{correct}}", r"so \boxed{\text{"),
    (r"it boxes \boxed{4}: \boxed", r"it boxes \boxed{4}: \boxed{"), (r"it boxes \boxed{4}", None),
    (r"the set {x}, \boxed{incorrectly}", None), ("correct", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "end"), ANALYSES)
def test_an_analysis_is_read_up_to_its_verdict(text, end):
    assert until_verdict(text, WORDS) == end


@pytest.mark.parametrize("chat", [True, False])
def test_a_real_model_scores_the_verdicts_where_its_analysis_ends(monkeypatch, chat):
    """The texts are put into its mouth; each log-probability is one forward pass over the whole text, done here."""
    model, tokenizer = tinymodels.model("llama", torch.float32), tinymodels.tokenizer(bos=True)
    backend = HFBackend(model, tokenizer)
    asked = []

    def write(prompts, sampling, seeds, enough=None):
        asked.extend(prompts)
        return [Generation((Completion(rf" It is {i}. \boxed", 4, "stop"),)) for i in range(len(prompts))]

    monkeypatch.setattr(backend, "generate", write)
    result = score_batch(Judge(mode="verify", chat=chat), [OTHER], backend)["t2"]

    def total(word):
        context = asked[0] + r" It is 0. \boxed{"
        encoded = tokenizer(context + word, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        start = next(i for i, (_, stop) in enumerate(offsets) if stop > len(context))
        if ids[0] != tokenizer.bos_token_id:
            ids, start = [tokenizer.bos_token_id, *ids], start + 1
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[start - 1 :].sum().item()

    yes, no = math.exp(total("Yes")), math.exp(total("No"))
    assert result.values == pytest.approx((yes / (yes + no),), abs=1e-4)
    assert result.details["chat"] is chat


@pytest.mark.parametrize("mode", ["steps", "verify"])
def test_a_random_model_writes_no_verdicts_and_long_problems_fail_alone(mode):
    backend = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(bos=True))
    long = Trace("t3", "word " * 600, ("A step.",))
    results = score_batch(Judge(mode=mode, votes=2, max_new_tokens=4, chat=False), [OTHER, long], backend)
    assert results["t3"].failure.kind == "too_long"
    result = results["t2"]
    assert [one["n_tokens"] for one in result.samples] == [4, 4]
    if mode == "steps":
        assert result.failure.kind == "unparsed"
        assert result.tokens.generated == 8
    else:
        assert result.details["forced"] == 2
        assert result.values == pytest.approx((sum(one["score"] for one in result.samples) / 2,))
