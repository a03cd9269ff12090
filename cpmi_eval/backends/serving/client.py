"""One request to a server: attempts, waits between them, one deadline over all, and no key in any message."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import openai
import tenacity

from cpmi_eval.backends.serving.config import NO_KEY, ServerSettings
from cpmi_eval.backends.serving.faults import RequestError
from cpmi_eval.backends.serving.replies import is_too_long, shown
from cpmi_eval.types import JSON

FIRST_WAIT, LONGEST_WAIT, JITTER = 0.5, 30.0, 0.5  # seconds
TRY_AGAIN = (408, 409, 429)  # and whatever is 500 or more

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """What is asked: ``completions`` or ``chat``, the body's fields, and ``extra`` ones that the API does not know."""

    api: str
    fields: JSON
    extra: JSON = field(default_factory=dict)


class Client:
    """Sends requests; ``async with`` opens and closes its connections.

    ``sleep`` and ``clock`` stand in for the event loop's own in tests.
    """

    def __init__(self, own: ServerSettings, key: str, sleep: Sleep, clock: Callable[[], float]) -> None:
        """Keep the settings; no connection is made yet."""
        self._settings = own
        self._key = key
        self._sleep = sleep
        self._clock = clock
        # Redirects are refused: they would take the key elsewhere. So plain HTTP stays plain and needs no certificates.
        http = openai.DefaultAsyncHttpxClient(verify=own.base_url.startswith("https:"), follow_redirects=False)
        self._openai = openai.AsyncOpenAI(
            api_key=key, base_url=own.base_url, timeout=own.timeout, max_retries=0, http_client=http
        )

    async def __aenter__(self) -> Client:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._openai.close()

    async def send(self, request: Request, retries: int | None = None) -> JSON:
        """Return the body of the reply, a JSON object; nothing of what it says has been checked.

        Args:
            request: what to ask.
            retries: further attempts; by default those of the settings.

        Raises:
            RequestError: ``server_error``, ``timeout``, ``bad_response`` or ``too_long``, once no attempt is left.
        """
        if request.api == "chat":
            create: Any = self._openai.chat.completions.with_raw_response.create
        else:
            create = self._openai.completions.with_raw_response.create
        return await self._persist(lambda: create(**request.fields, extra_body=request.extra or None), retries)

    async def models(self) -> JSON:
        """Return what the server says it serves; raises as :meth:`send`."""
        return await self._persist(self._openai.models.with_raw_response.list, None)

    async def _persist(self, call: Callable[[], Any], retries: int | None) -> JSON:
        """Attempt a call until it succeeds, cannot, or the deadline is reached."""
        deadline = self._clock() + self._settings.timeout
        attempts = 1 + (self._settings.retries if retries is None else retries)

        def given_up(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number >= attempts or self._clock() + state.upcoming_sleep >= deadline

        retrying = tenacity.AsyncRetrying(
            sleep=self._sleep,
            stop=given_up,
            wait=_pause,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, RequestError) and error.transient),
            reraise=True,
        )
        reply: JSON = await retrying(self._attempt, call, deadline)
        return reply

    async def _attempt(self, call: Callable[[], Any], deadline: float) -> JSON:
        seconds = f"{self._settings.timeout:g} seconds"
        try:
            async with asyncio.timeout(max(deadline - self._clock(), 0.0)):
                raw = await call()
        except (TimeoutError, openai.APITimeoutError):
            fault = RequestError("timeout", f"no whole reply within {seconds}; model_args timeout=SECONDS allows more")
        except openai.APIStatusError as error:
            fault = self._refused(error)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            fault = RequestError("server_error", self._clean(f"{type(cause).__name__}: {cause}"), transient=True)
        else:
            return self._read(raw.http_response.content)
        raise fault from None  # the client's own errors carry requests, whose headers hold the key

    def _refused(self, error: openai.APIStatusError) -> RequestError:
        """Return the failure that an HTTP status makes."""
        status, body = error.status_code, error.body
        message = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body
        text = self._clean(str(message or error.message))
        if is_too_long(text):
            return RequestError("too_long", shown(text), status)
        wait = retry_after(error.response.headers.get("retry-after"))
        transient = status in TRY_AGAIN or status >= 500
        return RequestError("server_error", f"HTTP {status}: {shown(text)}", status, transient, wait)

    def _read(self, content: bytes) -> JSON:
        try:
            reply = json.loads(content)
        except ValueError:
            start = self._clean(content[:100].decode("utf-8", errors="replace"))
            raise RequestError("bad_response", f"the reply is not JSON: {shown(start) or 'empty'}") from None
        if not isinstance(reply, dict):
            raise RequestError("bad_response", f"the reply is not a JSON object: {self._clean(shown(reply))}")
        return reply

    def _clean(self, text: str) -> str:
        """Return a text without the key, which a server may repeat."""
        return text if self._key == NO_KEY else text.replace(self._key, "***")


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next attempt: doubled each time with some jitter, or as long as the server asks."""
    doubled = tenacity.wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)
    own = tenacity.wait_combine(doubled, tenacity.wait_random(0, JITTER))(state)
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, RequestError) else None
    return own if asked is None else max(own, asked)


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, given as a number or as a date."""
    if header is None:
        return None
    with suppress(ValueError):
        return max(float(header), 0.0)
    with suppress(ValueError, TypeError):
        until = parsedate_to_datetime(header)
        return max((until - datetime.now(UTC)).total_seconds(), 0.0)
    return None


default_sleep: Sleep = asyncio.sleep
default_clock: Callable[[], float] = time.monotonic
