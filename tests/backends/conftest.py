"""Stub servers, and an environment without a server's key or a proxy."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import stubserver


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stubs() -> Iterator[Any]:
    """Start stubs that end with the test."""
    with ExitStack() as stack:
        yield lambda *args: stack.enter_context(stubserver.Stub(*args))
