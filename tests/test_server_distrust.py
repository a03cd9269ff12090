"""Servers that repeat the key they are sent, or lie: no part of a key is shown or kept, a lie is a typed failure."""

from __future__ import annotations

import base64
import json
import logging
import random
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import stubserver
from stubserver import Canned, Fault

from cpmi_eval.cli import main
from cpmi_eval.errors import UsageError
from cpmi_eval.redaction import HIDDEN, SHORTEST, Redaction

pytest.importorskip("openai", reason="the server backend needs openai: pip install 'cpmi-eval[server]'")
pytest.importorskip("tenacity", reason="the server backend needs tenacity: pip install 'cpmi-eval[server]'")

from test_server import environment, on, options, stubs  # noqa: F401 - fixtures

from cpmi_eval.backends.server import ServerBackend
from cpmi_eval.backends.serving.config import clean_url

KEY = "sk-Zq7v/Wx3+Yt9pLm2Kd8Rf5Gh1Jb4Nc6Us0"  # as a provider makes them, with what URLs and base64 change
BASIC = base64.b64encode(f"someone:{KEY}".encode()).decode()


# --- redaction ------------------------------------------------------------------------------------------------------


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


# --- a server that repeats the key ----------------------------------------------------------------------------------


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
    stubs: Any,  # noqa: F811
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
    stubs: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    stub = stubs(Canned(), lambda *_: stubserver.status(404, f"no model {KEY[5:]}"))
    stub.lists = [{"id": KEY}, {"id": "x" * 190 + KEY}]
    with pytest.raises(SystemExit) as done:
        main(["run", "--backend", "server", "--base_url", stub.base_url, "--model", "m", *MC, "--task", "synthetic"])
    out, err = capsys.readouterr()
    assert done.value.code == 2 and "it serves: ***, xxx" in err
    assert not has_a_secret((out + err).encode())


# --- keys among the settings ----------------------------------------------------------------------------------------


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
