"""One request to a server: attempts, waits between them, and one deadline over all."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import openai

from cpmi_eval.backends.server import door
from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.backends.server.redaction import Redaction
from cpmi_eval.backends.server.replies import check_counts, is_too_long, shown
from cpmi_eval.backends.server.requests import Request, ServerSettings
from cpmi_eval.types import JSON

FIRST_WAIT, LONGEST_WAIT, JITTER = 0.5, 30.0, 0.5  # seconds; doubled each time
TRY_AGAIN = (408, 409, 429)  # and whatever is 500 or more
_REPLY = "cpmi_eval_reply"

Sleep: TypeAlias = Callable[[float], Awaitable[None]]


class Client:
    """Sends requests; ``async with`` opens and closes its connections.

    ``sleep`` and ``clock`` stand in for the event loop's own in tests.
    """

    def __init__(
        self, own: ServerSettings, key: str, sleep: Sleep = asyncio.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = own
        self._hide = Redaction([key])
        self._sleep = sleep
        self._clock = clock
        # Redirects are refused: they would take the key elsewhere. So plain HTTP stays plain and needs no certificates.
        http = openai.DefaultAsyncHttpxClient(
            verify=own.base_url.startswith("https:"), follow_redirects=False, event_hooks={"response": [self._arrived]}
        )
        self._openai = openai.AsyncOpenAI(
            api_key=key,
            base_url=own.base_url,
            timeout=own.timeout,
            max_retries=0,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._openai.close()

    async def send(self, request: Request, retries: int | None = None) -> JSON:
        """Return the body of the reply, a JSON object without secrets; of what it says only the counts are checked.

        Raises:
            RequestError: ``server_error``, ``timeout``, ``bad_response``, ``non_finite``, ``no_usage`` or ``too_long``,
                once no attempt (``retries``, by default those of the settings) is left.
        """
        api: Any = self._openai.chat.completions if request.api == "chat" else self._openai.completions
        create = api.with_streaming_response.create
        reply = await self._persist(lambda: create(**request.fields, extra_body=request.extra or None), retries)
        check_counts(reply, request.fields)
        return reply

    async def models(self) -> JSON:
        """Return what the server says it serves; raises as :meth:`send`."""
        return await self._persist(self._openai.models.with_streaming_response.list, None)

    async def _persist(self, call: Callable[[], Any], retries: int | None) -> JSON:
        """Attempt a call until it succeeds, cannot, or the deadline is reached."""
        deadline = self._clock() + self._settings.timeout
        retries = self._settings.retries if retries is None else retries
        pause = FIRST_WAIT
        while True:
            try:
                return await self._attempt(call, deadline)
            except RequestError as fault:
                wait = max(pause + random.uniform(0, JITTER), fault.retry_after or 0.0)
                if not fault.transient or not retries or self._clock() + wait >= deadline:
                    raise
            await self._sleep(wait)
            retries, pause = retries - 1, min(2 * pause, LONGEST_WAIT)

    async def _attempt(self, call: Callable[[], Any], deadline: float) -> JSON:
        try:
            async with asyncio.timeout(max(deadline - self._clock(), 0.0)), call() as reply:
                found: JSON = reply.http_response.extensions[_REPLY]
                return found
        except (TimeoutError, openai.APITimeoutError):
            seconds = f"{self._settings.timeout:g} seconds"
            fault = RequestError("timeout", f"no whole reply within {seconds}; model_args timeout=SECONDS allows more")
        except RequestError as error:
            fault = error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            lost = f"{type(cause).__name__}: {shown(self._hide(str(cause)))}"
            fault = cause if isinstance(cause, RequestError) else RequestError("server_error", lost, transient=True)
        raise fault from None  # the client's own errors carry requests, whose headers hold the key

    async def _arrived(self, response: Any) -> None:
        """Read a response before the client does, which would keep all that comes; what it says goes along with it."""
        body = await door.body_of(response)
        if not response.is_success:
            raise self._refused(response.status_code, body, response.headers.get("retry-after"))
        response.extensions[_REPLY] = door.object_of(body, self._hide)

    def _refused(self, status: int, body: bytes, wait: str | None) -> RequestError:
        try:
            said = door.value_of(body, self._hide)
        except RequestError:
            said = door.text_of(body, self._hide)
        said = said.get("error", said) if isinstance(said, dict) else said
        said = said.get("message") or said.get("detail") or said if isinstance(said, dict) else said
        text = shown(said)
        if is_too_long(text):
            return RequestError("too_long", text, status)
        message = f"HTTP {status}: {text or 'no reason is given'}"
        return RequestError("server_error", message, status, status in TRY_AGAIN or status >= 500, retry_after(wait))


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, given as a number or as a date."""
    if header is None:
        return None
    with suppress(ValueError):
        seconds = float(header)
        return None if math.isnan(seconds) else max(seconds, 0.0)
    with suppress(ValueError, TypeError, OverflowError):  # such as the year 10000
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    return None
