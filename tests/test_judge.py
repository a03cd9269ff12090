"""The judge by hand on a stub backend that plays back texts and log-probabilities, and on a tiny real model."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import tinymodels
import torch

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.guard import score_batch
from cpmi_eval.labelers.judge import Judge
from cpmi_eval.labelers.verdicts import parse_verdict
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


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (r"\boxed{2}", 2),
        (r"\boxed{-1}", -1),
        (r"\boxed{0}", 0),
        (r"\boxed{ 3 }", 3),
        (r"The answer is $\boxed{3}$.", 3),
        (r"$$\boxed{3}$$ and some words after it, 4 of them", 3),
        (r"\[ \boxed{3} \]", 3),
        (r"\boxed{\text{2}}", 2),
        (r"\boxed{\textbf{-1}}", -1),
        (r"\boxed{\mathbf{\text{ 2 }}}", 2),
        (r"\boxed{\bf 2}", 2),
        (r"\boxed{step 2}", 2),
        (r"\boxed{Step_2}", 2),
        (r"\boxed{\text{Step\_2}}", 2),
        (r"\boxed{\text{step }2}", 2),
        (r"\boxed{step_{2}}", 2),
        (r"\boxed{STEP: 2}", 2),
        (r"\boxed{Step #2}", 2),
        (r"\boxed{step2}", 2),
        (r"\boxed{<step_2>}", 2),
        (r"\boxed{</step_2>}", 2),
        (r"\boxed{\text{\<step\_2\>}}", 2),
        (r"\boxed{paragraph 3}", 3),
        (r"\boxed{<paragraph_3>}", 3),
        (r"\boxed{index = 1}", 1),
        (r"\boxed{step -1}", -1),
        (r"\boxed{{2}}", 2),
        (r"\boxed{{{-1}}}", -1),
        (r"\boxed{-{1}}", -1),
        (r"\boxed{(2)}", 2),
        (r"\boxed{[2]}", 2),
        (r"\boxed{\boxed{2}}", 2),
        (r"\boxed{\(2\)}", 2),
        (r"\boxed{$2$}", 2),
        (r"\boxed{**2**}", 2),
        (r'\boxed{"2"}', 2),
        (r"\boxed{\,2\,}", 2),
        (r"\boxed 2", 2),
        (r"\boxed -1.", -1),
        (r"\boxed{−1}", -1),
        (r"\boxed{–1}", -1),
        (r"\boxed{- 1}", -1),
        (r"\boxed{+1}", 1),
        (r"\boxed{-0}", 0),
        (r"\boxed{02}", 2),
        (r"\boxed{2.}", 2),
        (r"\boxed{2.0}", 2),
        (r"\boxed{-1.0}", -1),
        (r"\fbox{2}", 2),
        ("\\boxed{\n2\n}", 2),
        (r"The solution boxes \boxed{13}, which follows. \boxed{-1}", -1),
        (r"\boxed{1} ... no, wait: \boxed{2}", 2),
        (r"\boxed{1} ... so \boxed{2", 1),  # cut off: the last complete box counts
        (r"\boxed{4}", "out_of_range"),
        (r"\boxed{-2}", "out_of_range"),
        (r"\boxed{13}", "out_of_range"),
        (rf"\boxed{{{'9' * 90}}}", "out_of_range"),
        (r"\boxed{1, 2}", "ambiguous"),
        (r"\boxed{1,2}", "ambiguous"),
        (r"\boxed{1,000}", "ambiguous"),
        (r"\boxed{1 or 2}", "ambiguous"),
        (r"\boxed{1-2}", "ambiguous"),
        (r"\boxed{step 1, step 2}", "ambiguous"),
        (r"\boxed{\frac{1}{2}}", "ambiguous"),
        (r"\boxed{1(2)}", "ambiguous"),
        (r"\boxed{1 2}", "ambiguous"),
        (r"\boxed{2.5}", "not_an_index"),
        (r"\boxed{step-1}", "not_an_index"),
        (r"\boxed{none}", "not_an_index"),
        (r"\boxed{\text{No error}}", "not_an_index"),
        (r"\boxed{x_2}", "not_an_index"),
        (r"\boxed{--1}", "not_an_index"),
        (r"\boxed{2²}", "not_an_index"),
        (r"\boxed{i}", "not_an_index"),
        (r"\boxed{}", "empty_box"),
        (r"\boxed{ \text{} }", "empty_box"),
        (r"\boxed{2", "unclosed_box"),
        (r"\boxed{\text{2}", "unclosed_box"),
        (r"\boxed{", "unclosed_box"),
        (r"\boxed", "unclosed_box"),
        ("\boxed{2}", "no_box"),  # not raw: a backspace and "oxed{2}"
        (r"\boxedtext{2}", "no_box"),
        ("The first error is in step 2.", "no_box"),
        ("", "no_box"),
    ],
)
def test_verdicts_are_read_as_models_write_them(text, verdict):
    assert parse_verdict(text, 4) == verdict


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        r"\boxed{" * 50_000 + "}" * 50_000,
        r"\boxed{step" + " " * 1_000_000 + "x}",
        r"\boxed{" + "9" * 1_000_000 + "}",
        r"\boxed{" + r"\text{" * 100_000 + "2" + "}" * 100_001,
        r"\boxed" + " " * 1_000_000,
    ],
)
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


@pytest.mark.parametrize(
    ("texts", "prediction"),
    [
        ((r"\boxed{2}", r"\boxed{0}"), 2),
        ((r"\boxed{0}", r"\boxed{2}"), 0),
        (("?", r"\boxed{-1}", r"\boxed{0}", r"\boxed{0}", r"\boxed{-1}"), -1),
        ((r"\boxed{-1}", r"\boxed{0}", r"\boxed{0}"), 0),
    ],
)
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
    assert isinstance(written, Labeler)
    assert Judge.needs == frozenset()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "logits"}, "Did you mean 'logit'"),
        ({"votes": 0}, "votes must be a whole number at least 1"),
        ({"votes": 2.5}, "votes must be a whole number"),
        ({"votes": True}, "votes must be a whole number"),
        ({"temperature": 0.7}, "temperature would do nothing with votes=1"),
        ({"votes": 1, "top_p": 0.8, "top_k": 20}, "top_p and top_k would do nothing with votes=1"),
        ({"votes": 2, "temperature": 0}, "temperature must be a number"),
        ({"votes": 2, "top_p": 1.5}, "top_p must be a number"),
        ({"votes": 2, "top_k": -1}, "top_k must be a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number at least 1"),
        ({"verdicts": "Yes|No"}, "verdicts would do nothing in mode=generate"),
        ({"mode": "logit", "votes": 1}, "votes would do nothing in mode=logit"),
        ({"mode": "logit", "temperature": 1.0, "max_new_tokens": 9}, "temperature and max_new_tokens would do nothing"),
        ({"mode": "logit", "verdicts": "Yes"}, "verdicts must be two different words such as Yes|No, not 'Yes'"),
        ({"mode": "logit", "verdicts": "Yes| "}, "verdicts must be two different words"),
        ({"mode": "logit", "verdicts": "Yes|No|Maybe"}, "verdicts must be two different words"),
        ({"mode": "logit", "verdicts": "Yes | Yes"}, "verdicts must be two different words"),
        ({"mode": "logit", "verdicts": True}, "verdicts must be two different words"),
        ({"chat": "yes"}, "unknown chat setting 'yes'"),
        ({"prompt": "nowhere.txt"}, "nowhere.txt does not exist"),
        ({"prompt": 7}, "prompt file 7 does not exist"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings, message):
    with pytest.raises(UsageError) as error:
        Judge(**settings)
    assert message in str(error.value)


@pytest.mark.parametrize("mode", ["generate", "logit"])
def test_a_prompt_file_must_hold_problem_and_steps(tmp_path, mode):
    path = tmp_path / "prompt.txt"
    path.write_text("{problem}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"prompt.txt must hold \{steps\}"):
        Judge(mode=mode, prompt=str(path))


def test_without_a_model_it_says_so():
    with pytest.raises(UsageError, match="needs a model"):
        list(Judge().score([TRACE], None))


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
