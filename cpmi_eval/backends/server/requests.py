"""What a server is asked: the backend's settings, where its key comes from, and requests."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from cpmi_eval import settings
from cpmi_eval.backends.server.redaction import Redaction
from cpmi_eval.errors import UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import JSON

ARGS = ("base_url", "api", "concurrency", "timeout", "retries", "give_up", "key_env", "extra", "bos")
APIS = ("completions", "chat")
EXTRAS = ("auto", "vllm", "sglang", "llama.cpp", "transformers", "none")
DEFAULT_KEY_ENV = "OPENAI_API_KEY"
NO_KEY = "none"  # what the client sends where the environment holds no key; local servers want none
_SECRET = re.compile(r"key|token|secret|password|auth|header", re.IGNORECASE)
_KEY = re.compile(r"[!-~]+")
_SECRET_IN_URL = re.compile(  # also the beginnings of some providers' keys
    r"@|;|(key|token|secret|password)=|(?<![A-Za-z0-9])(sk-|hf_|gsk_|xai-|ghp_|AIza)[A-Za-z0-9]", re.IGNORECASE
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Request:
    """What is asked: ``completions`` or ``chat``, the body's fields, and ``extra`` ones that the API does not know."""

    api: str
    fields: JSON
    extra: JSON = field(default_factory=dict)


@dataclass(frozen=True)
class ServerSettings:
    """Where the server is and how it is asked.

    Args:
        model: what requests name.
        base_url: the root of the API, such as ``http://127.0.0.1:8000/v1``.
        api: ``completions`` or ``chat``.
        concurrency: requests that are under way at a time, at most.
        timeout: seconds that a request may take from its first attempt on, with all of its retries and waits.
        retries: further attempts after 408, 409, 429, 5xx and lost connections.
        give_up: that many failed requests in a row end the run.
        key_env: the environment variable that holds the key; by default OPENAI_API_KEY, if it is set.
        extra: whose fields carry what the OpenAI API has no name for (top-k, repetition penalty), one of
            :data:`EXTRAS`; ``auto`` finds out.
        bos: a text that leads every prompt and that the server reads as its token for the beginning of a text.
    """

    model: str
    base_url: str
    api: str = "completions"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    give_up: int = 20
    key_env: str | None = None
    extra: str = "auto"
    bos: str = ""

    @classmethod
    def parse(cls, options: BackendOptions) -> ServerSettings:
        """Check the options of a run; a UsageError names the setting, and repeats no value that may be a secret."""
        args = options.model_args
        for name in [name for name in args if name not in ARGS]:
            if not _SECRET.search(name):
                raise UnknownNameError("model argument", name, ARGS)
            raise UsageError(
                f"{name} is not taken as a setting, which would put it on disk: set the key as {DEFAULT_KEY_ENV} in "
                "the environment, or name another variable with key_env=NAME"
            )
        for name, idle in (("dtype", "auto"), ("device", "auto"), ("prefix_sharing", True)):
            if getattr(options, name) != idle:
                raise UsageError(f"--{name} would do nothing: the server decides; leave it out")
        if not options.model or not isinstance(options.model, str):
            raise UsageError("--model NAME says what the server should run; its /v1/models lists what it has")
        key_env = args.get("key_env")
        if key_env is not None and not (isinstance(key_env, str) and _VARIABLE.fullmatch(key_env)):
            raise UsageError("key_env must be the name of an environment variable, not the key itself")
        api = settings.choice("api", args.get("api", cls.api), APIS)
        bos = settings.text("bos", args.get("bos", cls.bos))
        if bos and api == "chat":
            raise UsageError("bos leads plain prompts; under api=chat the server renders them, so it would do nothing")
        return cls(
            options.model,
            clean_url(args.get("base_url")),
            api,
            settings.integer("concurrency", args.get("concurrency", cls.concurrency), 1, 1024),
            settings.number("timeout", args.get("timeout", cls.timeout), 1e-3),
            settings.integer("retries", args.get("retries", cls.retries), 0),
            settings.integer("give_up", args.get("give_up", cls.give_up), 1),
            key_env,
            settings.choice("extra", args.get("extra", cls.extra), EXTRAS),
            bos,
        )

    def key(self) -> str:
        """Return the key from the environment, or :data:`NO_KEY`.

        Raises:
            UsageError: ``key_env`` is not set, what it holds is no key, or a setting repeats it.
        """
        name = self.key_env or DEFAULT_KEY_ENV
        key = os.environ.get(name) or ("" if self.key_env else NO_KEY)
        if not key:
            raise UsageError(f"key_env={name}: this environment variable is not set")
        if not _KEY.fullmatch(key):
            raise UsageError(
                f"the environment variable {name} holds no key: keys consist of ASCII characters without white space; "
                "is it quoted, or a placeholder?"
            )
        hide = Redaction([key])
        for setting in ("model", "base_url", "bos"):
            if hide(getattr(self, setting)) != getattr(self, setting):
                raise UsageError(
                    f"{setting} repeats the key that {name} holds, or a part of it, and settings are written to disk: "
                    "leave it out; the key is sent as a header"
                )
        return key


def clean_url(url: object) -> str:
    """Return the root of an API without a slash at its end; UsageError where it is none, or may carry a secret."""
    example = "such as --base_url http://127.0.0.1:8000/v1"
    if not isinstance(url, str) or not url:
        raise UsageError(f"the server backend needs the root of the API, {example}")
    if _SECRET_IN_URL.search(unquote(url)):
        raise UsageError(
            f"base_url carries what may be a user name, a password or a key, which would be written to disk; leave it "
            f"out ({example}): the key comes from {DEFAULT_KEY_ENV} in the environment"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"base_url is not a URL; it should look {example}") from None
    if parts.query or parts.fragment:
        raise UsageError(f"base_url must end with the path ({example}); what follows '?' or '#' is not taken")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError(f"base_url must be an http or https URL, {example}, not {url!r}")
    return url.rstrip("/")
