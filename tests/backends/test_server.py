"""The server backend against a stub on loopback: values equal to the hf backend's, order, bounds, and every fault."""

import asyncio
import json
import logging
import math
import subprocess
import sys
import threading
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import stubserver
from click.testing import CliRunner
from stubserver import Canned, Fault, Tiny

import cpmi_eval
from cpmi_eval.cli import cli
from cpmi_eval.errors import ModelError, UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import Completion, Failure, Generation, LogProb, Sampling, ScoreRequest, Tokens

pytest.importorskip("openai", reason="the server backend needs openai: pip install 'cpmi-eval[server]'")

from stubbed import FakeTime, made, on, options, run

from cpmi_eval.backends.server import SEED_BITS, ServerBackend, alignment, chat, client, probing
from cpmi_eval.backends.server.alignment import Bos
from cpmi_eval.backends.server.faults import RequestError, ServerStoppedError
from cpmi_eval.backends.server.replies import Listed, Usage
from cpmi_eval.backends.server.requests import ServerSettings, clean_url

KEY = "sk-a-very-secret-key-0123456789"


def one(backend: ServerBackend, prompt: str = "ask") -> Generation | Failure:
    return backend.generate([prompt], Sampling(8), [[5]])[0]


REQUESTS = [
    ScoreRequest("Problem: 3 apples\n\n", "The answer is: 35"),
    ScoreRequest("The answer is: ", "144 miles."),  # the space may merge into what follows
    ScoreRequest("Problem: é€漢 apples ", "4 €漢 2"),
    ScoreRequest("漢字: ", "字漢字"),
    ScoreRequest("Question: how many", " miles"),
    ScoreRequest("Question: how m", "any miles"),  # a boundary inside a word
]


@pytest.mark.parametrize(
    "engine",
    [
        Tiny(),
        Tiny(bos=True),
        Tiny(bos=True, lists_bos=False),
        Tiny(scoring="prompt_logprobs"),
        Tiny(bos=True, scoring="prompt_logprobs"),
    ],
    ids=["echo", "echo-bos", "echo-bos-unlisted", "prompt_logprobs", "prompt_logprobs-bos"],
)
def test_scores_equal_those_of_the_hf_backend(engine: Tiny, stubs: Any) -> None:
    stub = stubs(engine)
    backend = made(stub)
    scored, expected = backend.loglikelihood(REQUESTS), engine.hf.loglikelihood(REQUESTS)
    for own, other in zip(scored, expected, strict=True):
        assert isinstance(own, LogProb) and isinstance(other, LogProb), own
        assert own.total == pytest.approx(other.total, abs=1e-4)
        assert own.n_tokens == other.n_tokens
        assert own.tokens.requested == other.tokens.requested + 1  # the server reads the last token, too
        assert own.tokens.generated == 1  # and is made to generate one
    assert backend.describe().as_dict()["probes"]["scoring"]["mode"] == engine.scoring


def test_texts_equal_those_of_the_hf_backend_in_the_order_of_the_requests(stubs: Any) -> None:
    engine = Tiny()
    stub = stubs(engine)
    stub.delay = lambda body: 0.03 * (body.get("seed", 0) % 3)
    backend = made(stub, concurrency=6)
    prompts = ["Problem: Ada has 12", "Question: how many", "The answer"]
    seeds = [[1 << 40 | 5, 7, 8], [9], [10, 11, 1 << 62]]
    sampling = Sampling(10, 0.8, 0.9, 20, 1.1, stop=(" miles",))
    own = backend.generate(prompts, sampling, seeds)
    expected = engine.hf.generate(prompts, sampling, [[seed & SEED_BITS for seed in some] for some in seeds])
    for generation, other in zip(own, expected, strict=True):
        assert isinstance(generation, Generation) and isinstance(other, Generation)
        assert generation.completions == other.completions
        assert generation.tokens.generated == other.tokens.generated
        assert generation.tokens.computed == generation.tokens.requested  # the stub caches nothing


def test_greedy_text_is_asked_for_once_and_given_as_often_as_it_is_asked_for(stubs: Any) -> None:
    stub = stubs(Canned())
    backend = made(stub)
    backend.prepare(frozenset({"generate"}))
    before = len(stub.bodies)
    (generation,) = backend.generate(["ask"], Sampling(20, temperature=0.0), [[1, 2, 3]])
    assert len(stub.bodies) == before + 1
    assert isinstance(generation, Generation)
    assert [made.sample for made in generation.completions] == [0, 1, 2]
    assert len({made.text for made in generation.completions}) == 1
    n = generation.completions[0].n_tokens
    assert generation.tokens == Tokens(requested=3 * n, computed=n, generated=n)  # one word of prompt


def test_cached_tokens_are_requested_and_not_computed(stubs: Any) -> None:
    def cache(reply: dict[str, Any]) -> None:
        reply["usage"]["prompt_tokens_details"] = {"cached_tokens": 3}

    stub = stubs(Canned(), on("ask", stubserver.edited(cache)))
    generation = one(made(stub), "ask for four words")
    assert isinstance(generation, Generation)
    n = generation.tokens.generated
    assert generation.tokens == Tokens(4 + n - 1, 4 + n - 1 - 3, n)


def test_a_prompt_without_seeds_has_no_completions(stubs: Any) -> None:
    assert made(stubs(Canned())).generate(["a", "b"], Sampling(4), [[], [1]])[0] == Generation(())


def test_stop_strings_are_cut_off_where_the_server_does_not(stubs: Any) -> None:
    stub = stubs(Canned())  # it ignores them
    (generation,) = made(stub).generate(["ask"], Sampling(20, stop=("Seed", "boxed")), [[4]])
    assert isinstance(generation, Generation)
    assert generation.completions[0].text == " so it is \\"
    assert generation.completions[0].finish == "stop"


def test_finish_reasons(stubs: Any) -> None:
    generation = made(stubs(Canned())).generate(["ask"], Sampling(2), [[4]])[0]
    assert isinstance(generation, Generation) and generation.completions[0].finish == "length"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_under_way_than_allowed(concurrency: int, stubs: Any) -> None:
    stub = stubs(Canned())
    backend = made(stub, concurrency=concurrency)
    backend.prepare(frozenset({"generate"}))
    together = threading.Barrier(concurrency)
    stub.delay = lambda _: min(0.0, together.wait(60))
    stub.most_in_flight = 0
    backend.generate(["a", "b", "c"], Sampling(4), [[1, 2, 3, 4]] * 3)
    assert stub.most_in_flight == concurrency


def test_enough_stops_what_is_left_of_a_prompt_and_drops_what_runs(stubs: Any) -> None:
    stub = stubs(Canned())
    stub.delay = lambda body: 20.0 if body.get("seed") == 22 else 0.0  # never awaited
    backend = made(stub, concurrency=2)
    backend.prepare(frozenset({"generate"}))
    before = len(stub.bodies)
    threads: set[int] = set()

    def enough(prompt: int, completion: Completion) -> bool:
        threads.add(threading.get_ident())
        return prompt == 0 or completion.sample == 2

    first, second = backend.generate(["a", "b"], Sampling(4), [[2000, 22, 3, 4, 5], [6, 7, 8, 9]], enough)
    assert isinstance(first, Generation) and isinstance(second, Generation)
    assert [made.sample for made in first.completions] == [0]
    came = [made.sample for made in second.completions]  # two at a time: one before or after may come in or not
    assert came == sorted(came)
    assert 2 in came
    assert len(stub.bodies) - before <= 6
    assert threads == {threading.get_ident()}  # the caller's own: graders may depend on it


def test_an_error_of_the_caller_ends_the_requests(stubs: Any) -> None:
    stub = stubs(Canned())
    backend = made(stub)
    with pytest.raises(KeyboardInterrupt):
        backend.generate(["a"], Sampling(4), [list(range(50))], lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert not [thread for thread in threading.enumerate() if thread.name == "cpmi-eval-server"]


def test_it_runs_inside_a_running_event_loop(stubs: Any) -> None:
    async def within() -> Generation | Failure:
        return one(made(stubs(Canned())))

    assert isinstance(asyncio.run(within()), Generation)


def drop(name: str) -> Fault:
    return stubserver.edited(lambda reply: reply.pop(name))


def usage(**counts: object) -> Fault:
    return stubserver.edited(lambda reply: reply["usage"].update(counts))


FAULTS: dict[str, tuple[Fault, str, str]] = {
    "404": (stubserver.status(404, "no such model"), "server_error", "HTTP 404: no such model"),
    "401": (stubserver.status(401, "who are you"), "server_error", "HTTP 401"),
    "too long": (stubserver.status(400, "This model's maximum context length is 8 tokens"), "too_long", "8 tokens"),
    "too long, 500": (stubserver.status(500, "exceed context window of 8"), "too_long", "8"),
    "error with 200": (stubserver.body(b'{"error": {"message": "overloaded"}}'), "server_error", "overloaded"),
    "error text with 200": (stubserver.body(b'{"error": "boom"}'), "server_error", "boom"),
    "truncated": (stubserver.body(b'{"model": "canned", "choi', 900), "server_error", ""),
    "half a document": (stubserver.body(b'{"model": "canned", "choi'), "bad_response", "not JSON"),
    "html": (stubserver.body(b"<html>sorry</html>"), "bad_response", "sorry"),
    "not utf-8": (stubserver.body(b"\xff\xfe"), "bad_response", "not JSON"),
    "empty": (stubserver.body(b""), "bad_response", "empty"),
    "a list": (stubserver.body(b"[1]"), "bad_response", "object"),
    "null": (stubserver.body(b"null"), "bad_response", "object"),
    "reset": (stubserver.reset, "server_error", ""),
    "other model": (stubserver.edited(lambda r: r.update(model="another")), "wrong_model", "'another'"),
    "no model": (drop("model"), "wrong_model", "None"),
    "no choices": (drop("choices"), "bad_response", "without choices"),
    "empty choices": (stubserver.edited(lambda r: r.update(choices=[])), "bad_response", "without choices"),
    "null choice": (stubserver.edited(lambda r: r.update(choices=[None])), "bad_response", "without choices"),
    "no text": (stubserver.edited(lambda r: r["choices"][0].pop("text")), "bad_response", "without text"),
    "no finish": (stubserver.edited(lambda r: r["choices"][0].update(finish_reason=None)), "bad_response", "None"),
    "filtered": (
        stubserver.edited(lambda r: r["choices"][0].update(finish_reason="content_filter")),
        "bad_response",
        "content_filter",
    ),
    "no usage": (drop("usage"), "no_usage", "costs would be unknown"),
    "null usage": (stubserver.edited(lambda r: r.update(usage=None)), "no_usage", ""),
    "no prompt tokens": (usage(prompt_tokens=None), "no_usage", "cannot be"),
    "zero prompt tokens": (usage(prompt_tokens=0), "no_usage", "cannot be"),
    "negative tokens": (usage(completion_tokens=-3), "no_usage", "cannot be"),
    "no tokens for a text": (usage(completion_tokens=0), "no_usage", "0 tokens"),
    "more cached than read": (usage(prompt_tokens_details={"cached_tokens": 99}), "no_usage", "cannot be"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_typed_failure_of_its_request_alone(name: str, stubs: Any) -> None:
    fault, kind, words = FAULTS[name]
    stub = stubs(Canned(), on("ask", fault))
    backend = made(stub, retries=1)
    before, failed, after = backend.generate(["one", "ask", "two"], Sampling(8), [[1], [1, 2], [1]])
    assert isinstance(before, Generation) and isinstance(after, Generation)
    assert isinstance(failed, Failure) and failed.kind == kind and words in failed.message, failed


@pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 529])
def test_passing_faults_are_tried_again(code: int, stubs: Any) -> None:
    fake = FakeTime()
    stub = stubs(Canned(), on("ask", stubserver.status(code), stubserver.reset, stubserver.status(code), None))
    assert isinstance(one(made(stub, fake)), Generation)
    waits = fake.waits
    assert len(waits) == 3
    for n, wait in enumerate(waits):
        assert 0.5 * 2**n <= wait <= 0.5 * 2**n + client.JITTER


def test_attempts_end_and_lasting_faults_are_not_repeated(stubs: Any) -> None:
    for fault, attempts in ((stubserver.status(503), 4), (stubserver.status(400, "bad"), 1), (drop("usage"), 1)):
        stub = stubs(Canned(), on("ask", fault))
        assert isinstance(one(made(stub, retries=3)), Failure)
        assert sum("ask" in str(body.get("prompt")) for body in stub.bodies) == attempts


def test_retry_after_is_honoured_as_a_number_and_as_a_date(stubs: Any) -> None:
    fake = FakeTime()
    stub = stubs(Canned(), on("ask", stubserver.status(429, Retry_After="7.5"), None))
    assert isinstance(one(made(stub, fake)), Generation)
    assert fake.waits == [7.5]
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert client.retry_after(date) == pytest.approx(60, abs=3)
    assert client.retry_after("soon") is None and client.retry_after("-1") == 0.0


def test_no_wait_goes_past_the_deadline(stubs: Any) -> None:
    fake = FakeTime()
    stub = stubs(Canned(), on("ask", stubserver.status(429, "later", Retry_After="500")))
    failed = one(made(stub, fake, timeout=100))
    assert isinstance(failed, Failure) and failed.kind == "server_error" and "later" in failed.message
    assert fake.waits == []  # it would have been too long, so it is not begun
    other = FakeTime()
    stub = stubs(Canned(), on("ask", stubserver.status(503)))
    assert isinstance(one(made(stub, other, timeout=10, retries=50)), Failure)
    assert 0 < sum(other.waits) < 10


def test_a_reply_that_never_ends_is_cut_off_at_the_deadline(stubs: Any) -> None:
    stub = stubs(Canned(), on("ask", stubserver.hang(30)))
    failed = one(made(stub, timeout=0.4))
    assert isinstance(failed, Failure) and failed.kind == "timeout" and "0.4 seconds" in failed.message


def scoring_fault(change: Any) -> Fault:
    """Change the log-probabilities of a reply."""
    return stubserver.edited(lambda reply: change(reply["choices"][0]["logprobs"]))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda given: given["token_logprobs"].__setitem__(-2, math.nan), "non_finite"),
        (lambda given: given["token_logprobs"].__setitem__(-2, -math.inf), "non_finite"),
        (lambda given: given["token_logprobs"].__setitem__(-2, -9999.0), "non_finite"),
        (lambda given: given["token_logprobs"].__setitem__(-2, None), "non_finite"),
        (lambda given: given["token_logprobs"].__setitem__(-2, "x"), "bad_response"),
        (lambda given: given["token_logprobs"].__setitem__(-2, 0.5), "bad_response"),
        (lambda given: given["token_logprobs"].pop(), "bad_response"),
        (lambda given: given.pop("tokens"), "bad_response"),
        (lambda given: given["tokens"].__setitem__(1, "other"), "unaligned"),
        (lambda given: [part.insert(1, part[1]) for part in given.values()], "unaligned"),
        (lambda given: [part.__delitem__(slice(3, None)) for part in given.values()], "unaligned"),
    ],
)
def test_log_probabilities_that_cannot_be_are_failures(change: Any, kind: str, stubs: Any) -> None:
    stub = stubs(Tiny(), on("miles and", scoring_fault(change)))
    good = ScoreRequest("The answer is:", " 35")
    results = made(stub).loglikelihood([good, ScoreRequest("3 miles and", " 5% of it"), good])
    assert isinstance(results[0], LogProb) and isinstance(results[2], LogProb)
    assert isinstance(results[1], Failure) and results[1].kind == kind, results[1]


def test_what_has_nothing_before_it_or_in_it_is_a_failure(stubs: Any) -> None:
    backend = made(stubs(Tiny()))
    (within,) = backend.loglikelihood([ScoreRequest("漢", "字漢字")])  # nobody can tell where the first character ends
    assert isinstance(within, Failure) and within.kind == "unaligned" and "inside a character" in within.message
    nothing_before, empty = backend.loglikelihood([ScoreRequest("", "35"), ScoreRequest("The answer", "")])
    assert isinstance(nothing_before, Failure) and nothing_before.kind == "unaligned"
    assert isinstance(empty, Failure) and empty.kind == "empty_continuation"


def test_truncated_distributions_are_refused(stubs: Any) -> None:
    with pytest.raises(ModelError, match="top_k=0,top_p=1"):
        made(stubs(Tiny())).loglikelihood([ScoreRequest("a", "b", top_k=5)])


@pytest.mark.parametrize(
    ("tokens", "text", "boundary", "first"),
    [
        (["ab", "cd"], "abcd", 2, 1),
        (["ab", "cd"], "abcd", 3, 1),  # a token across the boundary belongs to what follows
        (["<s>", "ab", "cd"], "abcd", 2, 2),
        (["", "ab", "cd"], "abcd", 2, 2),
        ([" ab", " cd"], "ab cd", 2, 1),  # a space before the first word
        (["<s>", " ab", " cd"], "ab cd", 2, 2),
        (["ab", "\ufffd", "\ufffd", "cd"], "ab€cd", 2, 1),
        (["ab", "\ufffd", "\ufffd", "cd"], "ab€cd", 3, 3),
        (["ab", "", "", "cd"], "ab€cd", 3, 3),
        (["ab", "bytes:\\xe2\\x82", "bytes:\\xac", "cd"], "ab€cd", 3, 3),
        (["ab", " caf\ufffd", "\ufffd", "cd"], "ab cafécd", 2, 1),
        (["ab", "\ufffd", "\ufffd"], "ab€", 2, 1),
    ],
)
def test_tokens_are_found_in_the_prompt(tokens: list[str], text: str, boundary: int, first: int) -> None:
    place = alignment.align([*tokens, "next"], text, 1)
    assert place.skipped + place.first_after(boundary) == first
    assert place.skipped + len(place.ends) == len(tokens)


@pytest.mark.parametrize("tokens", [["ab", "ce"], ["ab"], [], ["b", "cd"], ["abc", "cd"], ["x", "abcd"]])
def test_tokens_that_do_not_spell_the_prompt_are_refused(tokens: list[str]) -> None:
    with pytest.raises(RequestError, match="unaligned"):
        alignment.align(tokens, "abcd", 0)


def test_a_boundary_inside_a_cut_character_run_is_refused() -> None:
    place = alignment.align(["a", "\ufffd", "\ufffd", "\ufffd", "b"], "a€漢b", 0)
    with pytest.raises(RequestError, match="inside a character"):
        place.first_after(2)


def test_an_unlisted_beginning_is_part_of_the_prompt() -> None:
    place = alignment.align(["ab", "cd", "next"], "<s>abcd", 1, unlisted="<s>")
    assert place.first_after(len("<s>ab")) == 1


def test_counts_of_a_prompt_that_contradict_its_list_are_refused() -> None:
    found = Listed(("ab", "cd", "x"), (None, -1.0, -2.0), 1)
    assert alignment.logprob(found, "abcd", 2, Usage(2, 0, 1), Bos("", 0)).total == -1.0
    assert alignment.logprob(found, "abcd", 2, Usage(3, 0, 1), Bos("", 1)).total == -1.0
    for counted in (1, 3, 9):
        with pytest.raises(RequestError, match=f"counts {counted} tokens"):
            alignment.logprob(found, "abcd", 2, Usage(counted, 0, 1), Bos("", 0))


def test_log_probabilities_of_other_tokens_are_found_out_and_bos_puts_them_right(stubs: Any) -> None:
    engine = Tiny(shift=True)
    stub = stubs(engine)
    with pytest.raises(ModelError, match="belong to other tokens") as caught:
        made(stub).prepare(frozenset({"loglikelihood"}))
    assert "bos=TEXT" in str(caught.value) and "vLLM" in str(caught.value)
    backend = made(stub, bos="<bos>")
    (own,) = backend.loglikelihood([ScoreRequest("Question: how many", " miles in 3 hours?")])
    (expected,) = engine.hf.loglikelihood([ScoreRequest("<bos>Question: how many", " miles in 3 hours?")])
    assert isinstance(own, LogProb) and isinstance(expected, LogProb)
    assert own.total == pytest.approx(expected.total, abs=1e-4)
    assert backend.describe().as_dict()["probes"]["scoring"]["unlisted"] == 1


def test_redirects_are_refused(stubs: Any) -> None:
    stub = stubs(Canned(), on("ask", stubserver.status(307, "elsewhere", Location="http://127.0.0.1:9/v1")))
    failed = one(made(stub))
    assert isinstance(failed, Failure) and "HTTP 307" in failed.message


def test_bos_leads_every_prompt_once(stubs: Any) -> None:
    engine = Tiny()
    stub = stubs(engine)
    backend = made(stub, bos="<bos>")
    led = ScoreRequest("<bos>The answer is:", " 35")
    own = backend.loglikelihood([ScoreRequest("The answer is:", " 35"), led])
    (expected,) = engine.hf.loglikelihood([led])
    assert isinstance(expected, LogProb)
    for result in own:
        assert isinstance(result, LogProb) and result.total == pytest.approx(expected.total, abs=1e-4)
    backend.generate(["Question"], Sampling(2), [[1]])
    assert stub.bodies[-1]["prompt"] == "<bos>Question"


def test_a_server_without_log_probabilities_is_refused_before_a_trace_is_scored(stubs: Any, tmp_path: Path) -> None:
    stub = stubs(Canned())
    with pytest.raises(ModelError, match=r"no usable log-probabilities.*vLLM.*llama-cpp-python.*--backend hf"):
        run(stub, tmp_path, labeler="cpmi")
    assert not (tmp_path / "run" / "samples.jsonl").exists()
    assert all("Problem: 12 apples" in str(b["prompt"]) or b["max_tokens"] == 1 for b in stub.bodies)  # probes


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp", "transformers"])
def test_the_dialect_is_found_by_what_a_server_accepts_and_refuses(dialect: str, stubs: Any) -> None:
    stub = stubs(Canned(dialect=dialect))
    backend = made(stub)
    backend.generate(["ask"], Sampling(4, 0.6, 0.95, 20, 1.05), [[1]])
    assert backend.describe().as_dict()["dialect"] == dialect
    last = stub.bodies[-1]
    if dialect == "vllm":
        assert (last["top_k"], last["repetition_penalty"], last["min_p"]) == (20, 1.05, 0.0)
    elif dialect == "llama.cpp":
        assert (last["top_k"], last["repeat_penalty"], last["min_p"]) == (20, 1.05, 0.0)
    else:
        config = json.loads(last["generation_config"])
        assert (config["do_sample"], config["top_k"], config["repetition_penalty"]) == (True, 20, 1.05)


def test_a_server_that_fails_for_reasons_of_its_own_has_no_dialect(stubs: Any) -> None:
    requests = [0]

    def plan(_: int, body: dict[str, Any]) -> Fault | None:
        requests[0] += 1
        return None if requests[0] <= 2 or "top_k" not in body else stubserver.status(500)

    stub = stubs(Canned(dialect=None), plan)
    backend = made(stub)
    one(backend)
    assert backend.describe().as_dict()["dialect"] == "none"


def test_what_a_server_has_no_field_for_is_refused_with_the_setting_to_change(stubs: Any) -> None:
    stub = stubs(Canned(dialect=None))  # takes anything, also nonsense: it ignores what it does not know
    backend = made(stub)
    before = len(stub.bodies)
    with pytest.raises(ModelError, match=r"no top_k=20 and repetition_penalty=1.05.*top_k=0,repetition_penalty=1.0"):
        backend.generate(["ask"], Sampling(4, 0.6, 0.95, 20, 1.05), [[1]])
    assert not any(body["prompt"] == "ask" for body in stub.bodies[before:])
    assert isinstance(one(backend), Generation)
    assert "top_k" not in stub.bodies[-1]
    backend = made(stub, extra="vllm")  # unless it is told
    backend.generate(["ask"], Sampling(4, top_k=0), [[1]])
    assert stub.bodies[-1]["top_k"] == -1


def test_the_owner_of_a_model_names_its_dialect() -> None:
    def refuse(_: Any) -> Any:
        raise RequestError("server_error", "no")

    own = ServerSettings("m", "http://127.0.0.1:9/v1")
    found = [probing.dialect(own, owner, refuse) for owner in ("vllm", "SGLang", "llamacpp", "me", None)]
    assert found == ["vllm", "sglang", "llama.cpp", "none", "none"]


class Greedy(Canned):
    """Decodes greedily whatever it is asked."""

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        return super().reply({**body, "temperature": 0.0})


class Unseeded(Canned):
    """Ignores seeds."""

    count = 0

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        type(self).count += 1
        return super().reply({**body, "seed": type(self).count})


def test_a_server_that_only_decodes_greedily_does_not_sample(stubs: Any) -> None:
    backend = made(stubs(Greedy()))
    with pytest.raises(ModelError, match="decodes greedily"):
        one(backend)
    assert isinstance(backend.generate(["ask"], Sampling(4, temperature=0.0), [[1]])[0], Generation)


def test_whether_seeds_are_honoured_is_on_record(stubs: Any) -> None:
    for engine, honours in ((Canned(), True), (Unseeded(), False)):
        backend = made(stubs(engine))
        one(backend)
        assert backend.describe().as_dict()["probes"]["sampling"] == {"samples": True, "honours_seeds": honours}


def test_marked_prompts_survive_any_text() -> None:
    for user in ("plain", "", "\ue000chat:3\ue001abc", "two\n\nlines"):
        assert chat.read(chat.mark(user)) == chat.Turns(user, "")
        assert chat.read(chat.mark(user) + "Step one.\n\n") == chat.Turns(user, "Step one.\n\n")
    assert chat.read("plain") is None


def test_chat_prompts_become_messages_and_begun_answers_are_continued(stubs: Any) -> None:
    stub = stubs(Canned())
    backend = made(stub, api="chat")
    assert backend.has_chat_template
    first, second = backend.generate(
        [backend.chat_prompt("Ask?"), backend.chat_prompt("Ask?") + "Step.\n\n"], Sampling(8), [[1], [1]]
    )
    assert isinstance(first, Generation) and isinstance(second, Generation)
    by_turns = {len(body["messages"]): body for body in stub.bodies[-2:]}
    assert by_turns[1]["messages"] == [{"role": "user", "content": "Ask?"}]
    assert by_turns[2]["messages"][1] == {"role": "assistant", "content": "Step.\n\n"}
    assert by_turns[2]["continue_final_message"] is True and by_turns[2]["add_generation_prompt"] is False
    assert "continue_final_message" not in by_turns[1]
    assert set(stub.paths) == {"/v1/chat/completions"}


class NewTurn(Canned):
    """Does not go on with an assistant's turn."""

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        return super().reply({name: value for name, value in body.items() if name != "continue_final_message"})


def test_begun_answers_are_refused_where_a_server_begins_a_new_turn(stubs: Any) -> None:
    backend = made(stubs(NewTurn()), api="chat")
    assert isinstance(one(backend, backend.chat_prompt("Ask?")), Generation)
    with pytest.raises(ModelError, match="begins a new turn"):
        one(backend, backend.chat_prompt("Ask?") + "Step.")


def test_plain_prompts_and_scores_are_refused_under_the_chat_api(stubs: Any) -> None:
    backend = made(stubs(Canned()), api="chat")
    with pytest.raises(ModelError, match="chat turns only"):
        one(backend, "plain")
    with pytest.raises(ModelError, match="the chat API scores no prompt"):
        backend.prepare(frozenset({"loglikelihood"}))
    with pytest.raises(ModelError, match="no chat turns"):
        made(stubs(Canned())).chat_prompt("x")


@pytest.mark.parametrize("name", ["api_key", "key", "token", "authorization", "password", "headers"])
def test_a_key_among_the_settings_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        ServerBackend.check(options(**{name: KEY}))
    assert KEY not in str(caught.value)
    with pytest.raises(UsageError, match="name of an environment variable") as caught:
        ServerBackend.check(options(key_env=KEY))
    assert KEY not in str(caught.value)


def test_urls_with_secrets_are_refused_and_not_repeated() -> None:
    for url in (f"http://me:{KEY}@host/v1", f"https://{KEY}@host/v1", f"https://host/v1?key={KEY}", f"ftp://x#{KEY}"):
        with pytest.raises(UsageError) as caught:
            clean_url(url)
        assert KEY not in str(caught.value)
    assert clean_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize("url", [None, "", "host/v1", "ftp://host", "http://", "http://host:99999999/v1", 7])
def test_what_is_no_url_is_refused(url: object) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:8000/v1"):
        clean_url(url)


@pytest.mark.parametrize(
    "args",
    [
        {"api": "responses"},
        {"concurrency": 0},
        {"concurrency": "many"},
        {"timeout": 0},
        {"retries": -1},
        {"give_up": 0},
        {"extra": "tgi"},
        {"bos": "<s>", "api": "chat"},
        {"key_env": "CPMI_EVAL_NO_SUCH_VARIABLE"},
        {"revision": "main"},
    ],
)
def test_wrong_settings_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ServerBackend.check(options(**args))


@pytest.mark.parametrize("changed", [{"dtype": "float32"}, {"device": "cpu"}, {"prefix_sharing": False}])
def test_settings_that_would_do_nothing_are_refused(changed: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="would do nothing"):
        ServerBackend.check(BackendOptions("m", {"base_url": "http://127.0.0.1:9/v1"}, **changed))


def test_nobody_there_another_model_and_a_wrong_key_are_told_apart(stubs: Any, monkeypatch: Any) -> None:
    port = stubserver.free_port()
    with pytest.raises(ModelError, match="no server answers"):
        ServerBackend.open(BackendOptions("m", {"base_url": f"http://127.0.0.1:{port}/v1", "retries": 0}))
    stub = stubs(Canned(), lambda *_: stubserver.status(404, "the model `x` does not exist"))
    backend = ServerBackend.open(BackendOptions("x", {"base_url": stub.base_url}))
    with pytest.raises(ModelError, match=r"does not exist; --model must be one that it serves: canned"):
        backend.prepare(frozenset({"generate"}))
    stub = stubs(Canned(), lambda *_: stubserver.edited(lambda reply: reply.update(model="other")))
    with pytest.raises(ModelError, match="answers as 'other'"):
        made(stub).prepare(frozenset({"generate"}))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub = stubs(Canned(), lambda *_: stubserver.status(401, f"wrong key {KEY}"))
    with pytest.raises(ModelError, match="wants another key") as caught:
        made(stub).prepare(frozenset({"generate"}))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_never_says_what_it_takes_is_refused_at_once(stubs: Any) -> None:
    with pytest.raises(ModelError, match="no_usage"):
        made(stubs(Canned(), lambda *_: drop("usage"))).prepare(frozenset({"generate"}))


def test_a_server_need_not_list_its_models(stubs: Any) -> None:
    stub = stubs(Canned())
    stub.lists = None
    backend = ServerBackend.open(BackendOptions("canned", {"base_url": stub.base_url}))
    assert isinstance(one(backend), Generation)
    assert backend.describe().as_dict()["served"] == []


def test_a_more_exact_name_of_the_same_model_is_accepted_and_then_held_to(stubs: Any) -> None:
    stub = stubs(Canned(), lambda *_: stubserver.edited(lambda reply: reply.update(model="canned@main")))
    backend = made(stub)
    assert isinstance(one(backend), Generation)
    assert backend.describe().as_dict()["model"] == "canned@main"


def test_the_key_comes_from_the_environment_and_is_sent(stubs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER_KEY", KEY)
    stub = stubs(Canned())
    one(made(stub, key_env="MY_SERVER_KEY"))
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}


def test_another_model_of_the_same_server(stubs: Any) -> None:
    stub = stubs(Canned())
    backend = ServerBackend.open(BackendOptions("canned", {"base_url": stub.base_url}))
    assert one(backend.another("canned-2")) == one(backend)
    assert stub.bodies[0]["model"] == "canned-2"


def scores(result: cpmi_eval.RunResult) -> list[Any]:
    return [(row["id"], row["scores"], row["error"]) for row in result.rows]


def test_a_monte_carlo_run(stubs: Any, tmp_path: Path) -> None:
    stub = stubs(Canned())
    result = run(stub, tmp_path, log_samples=True)
    assert result.failed == 0
    model = json.loads((tmp_path / "run" / "manifest.json").read_text())["model"]
    assert (model["server"], model["served"], model["dialect"]) == (stub.base_url, ["canned"], "vllm")
    assert result.summary["cost"]["tokens"]["generated"] > 0
    assert result.summary["cost"]["peak_memory_bytes"] == 0
    again = run(stub, tmp_path, name="again", model_args={"concurrency": 1})
    assert scores(again) == scores(result)  # each completion has its own seed, whatever runs beside it


def test_cpmi_equals_that_of_the_hf_backend(stubs: Any, tmp_path: Path) -> None:
    import tinymodels

    stub = stubs(Tiny())
    own = run(stub, tmp_path, "cpmi", limit=2)
    folder = tinymodels.save(tmp_path / "model")
    other = cpmi_eval.evaluate(
        "cpmi",
        "synthetic",
        model=str(folder),
        limit=2,
        task_args={"n": 12},
        dtype="float32",
        output_path=tmp_path / "hf",
    )
    assert own.failed == other.failed == 0
    for row, expected in zip(own.rows, other.rows, strict=True):
        assert row["scores"] == pytest.approx(expected["scores"], abs=1e-4)


def test_a_judge_and_a_step_critic_through_chat(stubs: Any, tmp_path: Path) -> None:
    stub = stubs(Canned())
    result = run(stub, tmp_path, "judge", model_args={"api": "chat"}, labeler_args={"votes": 3, "max_new_tokens": 20})
    assert result.failed == 0 and all(row["details"]["chat"] for row in result.rows)
    with pytest.raises(ModelError, match="scores no prompt"):
        run(stub, tmp_path, "judge", "logit", model_args={"api": "chat"}, labeler_args={"mode": "logit"})


def test_failed_requests_cost_their_traces_alone(stubs: Any, tmp_path: Path) -> None:
    victim = json.loads((run(stubs(Canned()), tmp_path, name="plain").path / "traces.jsonl").read_text().split("\n")[1])
    stub = stubs(Canned(), on(json.dumps(victim["problem"])[1:-1], drop("usage")))
    result = run(stub, tmp_path)
    failed = {row["id"] for row in result.rows if row["error"]}
    assert victim["id"] in failed and len(failed) < len(result.rows)
    assert {row["error"]["kind"] for row in result.rows if row["error"]} == {"no_usage"}


@pytest.mark.parametrize(
    ("fault", "give_up"),
    [
        (stubserver.status(500), 5),
        (stubserver.reset, 10_000),
        (drop("usage"), 5),
        (stubserver.body(b'{"error": "x"}'), 10_000),
    ],
    ids=["500", "reset", "no usage", "error with 200"],
)
def test_a_server_that_dies_stops_the_run_which_resumes_as_if_nothing_had_been(
    fault: Fault, give_up: int, stubs: Any, tmp_path: Path
) -> None:
    stub = stubs(Canned())
    settings = {"batch_size": 1, "model_args": {"retries": 0, "give_up": give_up}}
    undisturbed = run(stub, tmp_path, name="undisturbed", **settings)
    asked = len(stub.bodies)
    stub.faults = lambda n, _: fault if n >= asked + asked * 2 // 3 else None
    with pytest.raises(ServerStoppedError, match="the same command goes on"):
        run(stub, tmp_path, **settings)
    kept = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert 0 < len(kept) < 4
    assert not any(row["error"] for row in kept)
    stub.faults = lambda *_: None
    assert scores(run(stub, tmp_path, **settings)) == scores(undisturbed)


def test_a_trace_that_always_fails_does_not_stop_the_run(stubs: Any, tmp_path: Path) -> None:
    plain = run(stubs(Canned()), tmp_path, name="plain", batch_size=1)
    last = json.loads((plain.path / "traces.jsonl").read_text().splitlines()[-1])
    stub = stubs(Canned(), on(json.dumps(last["problem"])[1:-1], stubserver.status(500, "crash")))
    result = run(stub, tmp_path, batch_size=1, model_args={"retries": 0})
    assert result.rows[-1]["error"]["kind"] == "server_error"


def test_the_key_is_nowhere(
    stubs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.INFO)
    stub = stubs(
        Canned(), on("Problem", stubserver.status(403, f"key {KEY} is bad"), stubserver.status(500, KEY), None)
    )
    run(stub, tmp_path, model_args={"retries": 0})
    stub = stubs(Canned(), on("Problem", stubserver.body(f"<p>{KEY}".encode())))
    with pytest.raises(ServerStoppedError) as caught:
        run(stub, tmp_path, name="dead", model_args={"give_up": 2})
    assert KEY not in "".join(traceback.format_exception(caught.value)) + caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)
    assert any(f"Bearer {KEY}" == headers["authorization"] for headers in stub.headers)


def test_the_command_line(stubs: Any, tmp_path: Path) -> None:
    stub = stubs(Canned())
    arguments = ["run", "--backend", "server", "--base_url", stub.base_url, "--model", "canned", "--labeler", "mc"]
    arguments += ["--labeler_args", "n=2,max_new_tokens=12", "--task", "synthetic", "--task_args", "n=6"]
    result = CliRunner().invoke(
        cli, [*arguments, "--limit", "2", "--json", "--output_path", str(tmp_path / "run")], standalone_mode=False
    )
    assert result.exception is None, result.exception
    assert json.loads(result.stdout)["config"]["model_args"]["base_url"] == stub.base_url
    twice = CliRunner().invoke(cli, [*arguments, "--model_args", "base_url=http://x/v1"], standalone_mode=False)
    assert isinstance(twice.exception, UsageError) and "given twice" in str(twice.exception)
    wrong = CliRunner().invoke(cli, [*arguments, "--backend", "hf"], standalone_mode=False)
    assert isinstance(wrong.exception, UnknownNameError)


def test_a_stopped_command_leaves_no_key_behind(stubs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub = stubs(Canned(), on("Problem", stubserver.status(401, f"Incorrect API key provided: {KEY}")))
    arguments = ["run", "--backend", "server", "--base_url", stub.base_url, "--model", "canned", "--labeler", "mc"]
    arguments += [
        "--labeler_args",
        "n=8",
        "--task",
        "synthetic",
        "--limit",
        "4",
        "--output_path",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "cpmi_eval", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "20 requests in a row failed" in done.stderr and "the same command goes on" in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_help_does_not_import_the_client() -> None:
    code = "import sys; import cpmi_eval.cli, cpmi_eval.backends.server; print({'openai'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "set()"
