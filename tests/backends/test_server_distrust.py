"""Servers that repeat the key they are sent, or lie: no part of a key is shown or kept, a lie is a typed failure."""

import base64
import gzip
import json
import logging
import random
import string
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import stubserver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stubserver import Canned, Fault, Tiny

from cpmi_eval.backends.server.redaction import HIDDEN, SHORTEST, Redaction
from cpmi_eval.cli import main
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import Failure, Generation, LogProb, Sampling, ScoreRequest

pytest.importorskip("openai", reason="the server backend needs openai: pip install 'cpmi-eval[server]'")

from stubbed import made, on, options, run

from cpmi_eval.backends.server import ServerBackend, door, probing, replies
from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.backends.server.requests import ServerSettings, clean_url

KEY = "sk-Zq7v/Wx3+Yt9pLm2Kd8Rf5Gh1Jb4Nc6Us0"  # as a provider makes them, with what URLs and base64 change
BASIC = base64.b64encode(f"someone:{KEY}".encode()).decode()


def pieces(key: str) -> list[str]:
    return [key[at : at + SHORTEST] for at in range(len(key) - SHORTEST + 1)]


def test_any_piece_of_a_key_is_hidden_wherever_it_stands() -> None:
    rng = random.Random(4)
    hide = Redaction([KEY])
    for _ in range(2000):
        start = rng.randrange(len(KEY) - SHORTEST + 1)
        piece = KEY[start : rng.randint(start + SHORTEST, len(KEY))]
        before, after = ("".join(rng.choices(" \n.,<>漢", k=rng.randint(0, 20))) for _ in range(2))
        assert hide(f"{before}{piece}{after}") == f"{before}{HIDDEN}{after}"


def test_other_spellings_of_a_key_are_hidden() -> None:
    rng = random.Random(5)
    hide = Redaction([KEY])
    for _ in range(300):
        user = "".join(rng.choices(string.ascii_letters, k=rng.randint(0, 9)))
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            shown = hide(f"Basic {encode(f'{user}:{KEY}{user}'.encode()).decode()}")
            assert HIDDEN in shown
            left = shown.removeprefix("Basic ").split(HIDDEN)
            assert len(left) == 2  # what is left of it is of what stands around the key
            assert all(len(part) <= 4 * (len(user) + 1) // 3 + 4 for part in left)
    assert hide(quote(KEY, safe="")) == hide(quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b")) == HIDDEN


def test_short_keys_and_other_texts_are_left_alone() -> None:
    for text in ("EMPTY is the answer", "", "sk-", "x" * 5000, KEY[: SHORTEST - 1]):
        assert Redaction(["EMPTY", "none", KEY])(text) == text
    assert Redaction([])(KEY) == KEY


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:word@host/v1", "at http://***@host/v1"),
        ("https://word@host", "https://***@host"),
        ("http://host/v1?a=1&api_key=abc&b=2", "http://host/v1?a=1&api_key=***&b=2"),
        ("http://host/v1;token=abc", "http://host/v1;token=***"),
        ("http://host/v1?access_token=abc#x", "http://host/v1?access_token=***#x"),
        ("http://host/a@b and mail@host", "http://host/a@b and mail@host"),
        ("2 * 3 = 6 & 4; key = 5", "2 * 3 = 6 & 4; key = 5"),
    ],
)
def test_what_urls_carry_is_hidden_whoever_it_belongs_to(text: str, shown: str) -> None:
    assert Redaction([])(text) == shown


def edited(**fields: Any) -> Fault:
    return stubserver.edited(lambda reply: reply.update(fields))


def chosen(**fields: Any) -> Fault:
    return stubserver.edited(lambda reply: reply["choices"][0].update(fields))


def said(text: str) -> dict[str, Fault]:
    """Return everywhere a server can put a text."""
    return {
        "error with 200": stubserver.body(json.dumps({"error": {"message": f"no such key: {text}"}}).encode()),
        "error with 200, at the cut": stubserver.body(json.dumps({"error": "x" * 170 + text}).encode()),
        "unknown error with 200": stubserver.body(json.dumps({"error": {text: [text]}}).encode()),
        "model": edited(model=f"canned-{text}"),
        "no choices": edited(choices=text),
        "finish reason": chosen(finish_reason=text),
        "text": chosen(text=f" your key is {text}. \\boxed{{1}}"),
        "no text": chosen(text=None, refusal=text),
        "usage": stubserver.edited(lambda reply: reply["usage"].update(prompt_tokens=text)),
        "401": stubserver.status(401, f"wrong key {text}"),
        "500 at the cut": stubserver.status(500, "x" * 180 + text),
        "headers": stubserver.status(429, "later", Retry_After=text, X_Key=text, Location=f"http://x/{text}"),
        "redirect": stubserver.status(307, "", Location=f"http://{text}@host/v1?key={text}"),
        "html": stubserver.body(f"<p>{'x' * 60}{text}".encode()),
        "a list": stubserver.body(json.dumps([text]).encode()),
        "half a document": stubserver.body(f'{{"model": "{text}'.encode()),
        "early end": stubserver.body(f'{{"model": "{text}'.encode(), 9000),
    }


SPELLINGS = {
    "whole": KEY,
    "first half": KEY[: len(KEY) // 2],
    "second half": KEY[len(KEY) // 2 :],
    "percent": quote(KEY, safe=""),
    "basic": BASIC,
}
CASES = [(where, "whole") for where in said("")] + [("text", how) for how in SPELLINGS] + [("500 at the cut", "basic")]
MC = ("--labeler", "mc", "--labeler_args", "n=2,max_new_tokens=30")
SECRET = [*pieces(KEY), *pieces(quote(KEY, safe="")), *pieces(BASIC[12:-4])]


def has_a_secret(data: bytes) -> bool:
    return any(piece.encode() in data for piece in SECRET)


@pytest.mark.parametrize(("where", "how"), dict.fromkeys(CASES))
def test_no_part_of_a_repeated_key_is_shown_or_kept(
    where: str,
    how: str,
    stubs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(logging.getLogger("cpmi_eval"), "handlers", [])
    caplog.set_level(logging.INFO)
    stub = stubs(Canned(), on("Problem", said(SPELLINGS[how])[where]))
    stub.lists = [{"id": "canned", "owned_by": KEY}, {"id": KEY, "owned_by": KEY}, {"id": {KEY: BASIC}}]
    arguments = ["run", "--backend", "server", "--base_url", stub.base_url, "--model", "canned", *MC]
    arguments += ["--task", "synthetic", "--limit", "1", "--log_samples"]
    arguments += ["--model_args", "retries=0,extra=vllm", "--output_path", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as done:
        main(arguments)
    with pytest.raises(SystemExit):
        main(["show", str(tmp_path / "run"), "--json"])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert not has_a_secret((out + err + caplog.text).encode())
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not has_a_secret(path.read_bytes()), path
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}
    if where == "text":
        assert done.value.code == 0
        assert HIDDEN in (tmp_path / "run" / "rollouts.jsonl").read_text()


def test_a_server_that_lists_the_key_as_its_models_is_told_without_it(
    stubs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub = stubs(Canned(), lambda *_: stubserver.status(404, f"no model {KEY[5:]}"))
    stub.lists = [{"id": KEY}, {"id": "x" * 190 + KEY}]
    with pytest.raises(SystemExit) as done:
        main(["run", "--backend", "server", "--base_url", stub.base_url, "--model", "m", *MC, "--task", "synthetic"])
    out, err = capsys.readouterr()
    assert done.value.code == 2 and "it serves: ***, xxx" in err
    assert not has_a_secret((out + err).encode())


@pytest.mark.parametrize("key", ["schlüssel-123", "two words", "line\nbreak", "“quoted”-key", " sk-12345678"])
def test_what_cannot_be_a_key_is_told_by_its_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, args in (("OPENAI_API_KEY", {}), ("OTHER_KEY", {"key_env": "OTHER_KEY"})):
        monkeypatch.setenv(name, key)
        with pytest.raises(UsageError, match=f"{name} holds no key") as caught:
            ServerBackend.check(options(**args))
        assert key not in str(caught.value)
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url",
    [
        f"http://host/{KEY}/v1",
        "http://host/sk-abcdef/v1",
        "http://host/v1;jsessionid=5",
        "http://host/token=abcdef/v1",
        "http://host/v1%3Fkey%3Dabcdef",
        "http://me%3Aabcdef%40host/v1",
        "me:abcdef@host/v1",
        "host/v1?key=abcdef",
    ],
)
def test_urls_that_may_carry_a_key_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        clean_url(url)
    assert "abcdef" not in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://api.host/openai/deployments/Risk-Desk_7B/v1", "http://h/accounts/0123abcd/v1"]
)
def test_other_paths_are_no_keys(url: str) -> None:
    assert clean_url(url) == url


def test_settings_that_repeat_the_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789abcdefghij"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    ServerBackend.check(options())
    for args in ({"base_url": f"http://host/{key}/v1"}, {"bos": key[4:14]}):
        with pytest.raises(UsageError, match=r"repeats the key that OPENAI_API_KEY holds") as caught:
            ServerBackend.check(options(**args))
        assert not any(piece in str(caught.value) for piece in pieces(key))


def nested(depth: int, where: str = "choices") -> bytes:
    return b'{"model": "canned", "%s": %s1%s}' % (where.encode(), b"[" * depth, b"]" * depth)


def endless(piece: bytes, **headers: str) -> Fault:
    """Send the same bytes, in chunks, for as long as somebody reads."""

    def fault(handler: stubserver.Handler, _: Any) -> bool:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            return True

    return fault


def bomb() -> bytes:
    """Return what is 1,000 times as large once it is unfolded: 400 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(b"x" * 2**20) for _ in range(400)) + packer.flush()


def zipped(data: bytes) -> Fault:
    def fault(handler: stubserver.Handler, _: Any) -> bool:
        handler.raw(data, headers={"Content-Encoding": "gzip"})
        return True

    return fault


def deep_error(handler: stubserver.Handler, _: Any) -> bool:
    handler.raw(nested(100_000, "error"), 500)
    return True


def counted(**counts: object) -> Fault:
    return stubserver.edited(lambda reply: reply["usage"].update(counts))


LIES: dict[str, tuple[Fault, str, str]] = {
    "deep": (stubserver.body(nested(100_000)), "bad_response", "levels deep"),
    "deep, within what can be parsed": (stubserver.body(nested(900)), "bad_response", "levels deep"),
    "deep objects": (stubserver.body(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "bad_response", "levels deep"),
    "deep error": (stubserver.body(b'{"error": ' + nested(5000) + b"}"), "bad_response", "levels deep"),
    "surrogate": (
        stubserver.body(b'{"model": "canned", "choices": [{"text": "\\ud800"}]}'),
        "bad_response",
        "surrogate",
    ),
    "raw surrogate": (stubserver.body(b'{"model": "\xed\xa0\x80"}'), "bad_response", "surrogate"),
    "surrogate in a name": (stubserver.body(b'{"\\udfff": 1}'), "bad_response", "surrogate"),
    "NaN": (stubserver.body(b'{"model": NaN}'), "non_finite", "nan"),
    "infinity": (stubserver.body(b'{"usage": {"prompt_tokens": Infinity}}'), "non_finite", "inf"),
    "a number too large for a float": (stubserver.body(b'{"created": 1e999}'), "non_finite", "inf"),
    "10^400": (counted(completion_tokens=10**400), "bad_response", "19 digits"),
    "10^5000": (stubserver.body(b'{"usage": 1' + b"0" * 5000 + b"}"), "bad_response", ""),
    "a million tokens": (counted(completion_tokens=10**6), "no_usage", "of at most 96"),
    "97 tokens for 8": (counted(completion_tokens=97), "no_usage", "of at most 96"),
    "a million tokens read": (counted(prompt_tokens=10**6), "no_usage", "1000000 prompt_tokens"),
    "true tokens": (counted(completion_tokens=True), "no_usage", "cannot be"),
    "1.5 tokens": (counted(completion_tokens=1.5), "no_usage", "cannot be"),
    "endless spaces": (endless(b" " * 65536), "bad_response", "larger than"),
    "endless, byte by byte": (endless(b"1" * 4096), "bad_response", "larger than"),
    "endless text": (endless(b'{"model": "canned", "x": "' + b"y" * 9000), "bad_response", "larger than"),
    "said to be huge": (stubserver.body(b"{}", 10**15), "server_error", ""),
    "compressed": (zipped(gzip.compress(b"{}")), "bad_response", "compressed"),
    "a model with a long name": (edited(model="canned" + "x" * 10**6), "wrong_model", "xxx"),
    "a long finish": (chosen(finish_reason="x" * 10**6), "bad_response", "xxx"),
    "a deep finish": (chosen(finish_reason=[[[[[[["x" * 10**6]]]]]]]), "bad_response", ""),
    "many choices": (edited(choices=[None] * 10**5), "bad_response", "without choices"),
    "year 10000": (
        stubserver.status(429, "later", Retry_After="Sat, 01 Jan 10000 00:00:00 GMT"),
        "server_error",
        "429",
    ),
    "end of time": (
        stubserver.status(429, "later", Retry_After="Fri, 31 Dec 9999 23:59:59 -2359"),
        "server_error",
        "429",
    ),
    "after NaN": (stubserver.status(429, "later", Retry_After="nan"), "server_error", "429"),
    "after infinity": (stubserver.status(429, "later", Retry_After="1e400"), "server_error", "429"),
    "after weeks": (stubserver.status(503, "later", Retry_After="9" * 400), "server_error", "503"),
    "an endless error": (stubserver.status(400, "x" * 20_000_000), "bad_response", "larger than"),
    "a deep error, 500": (deep_error, "server_error", "500"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_a_typed_failure_of_its_request_alone(name: str, stubs: Any) -> None:
    fault, kind, words = LIES[name]
    backend = made(stubs(Canned(), on("ask", fault)), retries=1)
    before, failed, after = backend.generate(["one", "ask", "two"], Sampling(8), [[1], [1, 2], [1]])
    assert isinstance(before, Generation) and isinstance(after, Generation)
    assert isinstance(failed, Failure) and failed.kind == kind and words in failed.message, failed
    assert len(failed.message) < 1000
    failed.message.encode()


@pytest.mark.parametrize(("asked", "counts"), [(1, 4), (12, 20), (8, 96)])
def test_a_server_that_completes_a_character_beyond_max_tokens_is_believed(asked: int, counts: int, stubs: Any) -> None:
    backend = made(stubs(Canned(), on("ask", counted(completion_tokens=counts))))
    (done,) = backend.generate(["ask"], Sampling(asked), [[1]])
    assert isinstance(done, Generation) and done.completions[0].n_tokens == done.tokens.generated == counts


@pytest.mark.parametrize("name", ["deep", "surrogate", "NaN", "10^400", "a million tokens", "endless spaces"])
def test_so_it_is_where_prompts_are_scored(name: str, stubs: Any, tmp_path: Path) -> None:
    fault, kind, _ = LIES[name]
    backend = made(stubs(Tiny(), on("miles and", fault)), retries=0)
    good = ScoreRequest("The answer is:", " 35")
    results = backend.loglikelihood([good, ScoreRequest("3 miles and", " 5% of it"), good])
    assert isinstance(results[0], LogProb) and isinstance(results[2], LogProb)
    assert isinstance(results[1], Failure) and results[1].kind == kind, results[1]


def test_a_huge_count_among_log_probabilities_is_a_failure(stubs: Any) -> None:
    fault = stubserver.edited(
        lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].__setitem__(-2, -(10**400))
    )
    (failed,) = made(stubs(Tiny(), on("miles and", fault))).loglikelihood([ScoreRequest("3 miles and", " 5% of it")])
    assert isinstance(failed, Failure) and failed.kind == "bad_response"


def test_a_lie_costs_nothing(stubs: Any, tmp_path: Path) -> None:
    result = run(
        stubs(Canned(), on("Problem", counted(completion_tokens=10**6))), tmp_path, limit=2, model_args={"give_up": 99}
    )
    assert {row["error"]["kind"] for row in result.rows} == {"no_usage"}
    assert result.summary["cost"]["tokens"]["generated"] == 0


@pytest.mark.parametrize("name", ["deep", "surrogate in a name", "NaN", "10^5000", "endless spaces", "compressed"])
def test_a_list_of_models_that_lies_is_told_in_a_line(name: str, stubs: Any) -> None:
    fault, kind, words = LIES[name]
    stub = stubs(Canned())
    stub.listing = fault
    with pytest.raises(ModelError, match=f"cannot be used: {kind}") as caught:
        ServerBackend.open(BackendOptions("canned", {"base_url": stub.base_url}))
    assert words in str(caught.value)


ODD = [
    {"id": {"a": [1]}, "owned_by": [[1]]},
    3,
    None,
    {"id": None},
    {"owned_by": "x" * 10**6},
    {"id": "canned", "owned_by": 7},
]


def test_a_list_of_odd_models_does_no_harm(stubs: Any, tmp_path: Path) -> None:
    stub = stubs(Canned())
    stub.lists = ODD
    model = run(stub, tmp_path, limit=1).summary["model"]
    assert model["served"][-1] == "canned" and model["owned_by"] == "7"
    assert len(json.dumps(model["served"])) < 2000


MEMORY = """
import resource, sys
sys.path[:0] = {paths!r}
import test_server_distrust as lies
from stubbed import made, on
from stubserver import Canned, Stub
from cpmi_eval.types import Failure, Sampling

before = None
for fault in (lies.endless(b" " * 65536), lies.zipped(lies.bomb()), lies.endless(b"{{}}," * 9000)):
    with Stub(Canned(), on("ask", fault)) as stub:
        backend = made(stub, retries=0, concurrency=4)
        backend.generate(["well"], Sampling(8), [[1]])
        before = before or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = backend.generate([f"ask {{n}}" for n in range(4)], Sampling(8), [[1]] * 4)
        assert all(isinstance(one, Failure) and one.kind == "bad_response" for one in results), results
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is told in kilobytes on Linux")
def test_memory_stays_bounded_whatever_comes() -> None:
    code = MEMORY.format(paths=sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500  # MB; the stub itself is in it


OWN = ServerSettings("canned", "http://127.0.0.1:9/v1")
FIELDS = ("model", "choices", "usage", "prompt_tokens", "completion_tokens", "error", "message", "content", "text")
FIELDS += ("finish_reason", "logprobs", "tokens", "token_logprobs", "prompt_logprobs", "prompt_tokens_details")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(("canned", "stop"))


def within(inner: Any) -> Any:
    names = st.sampled_from(FIELDS) | st.text(max_size=4)
    return st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(LEAVES, within, max_leaves=20))
def test_whatever_json_comes_is_read_or_refused(reply: Any) -> None:
    """The readers of replies on any value, without a server in between."""
    body = json.dumps(reply).encode()
    hide = Redaction([KEY])
    for read in (
        lambda found: replies.written(found, "canned", ["."]),
        lambda found: replies.listed(replies.choice_of(found, None), 1),
        lambda found: replies.listed_prompt(replies.choice_of(found, None)),
        lambda found: replies.check_counts(found, {"prompt": "x", "max_tokens": 1}),
        lambda found: probing.answer(OWN, found),
    ):
        with suppress(RequestError):
            read(door.object_of(body, hide))
