"""The server backend on a stub: as a backend whose waits take no time, and as a run of the command's."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from stubserver import Fault, Stub

import cpmi_eval
from cpmi_eval.backends.server import ServerBackend
from cpmi_eval.backends.server.requests import ServerSettings
from cpmi_eval.protocols import BackendOptions

MC = {"n": 3, "max_new_tokens": 12, "chat": False}


class FakeTime:
    """A clock that only waits move on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def clock(self) -> float:
        return self.now


def made(stub: Stub, fake: FakeTime | None = None, **args: Any) -> ServerBackend:
    """Return a backend of the stub whose waits take no time."""
    fake = fake or FakeTime()
    options = BackendOptions(stub.engine.name, {"base_url": stub.base_url, **args})
    own = ServerSettings.parse(options)
    return ServerBackend(own, own.key(), sleep=fake.sleep, clock=fake.clock)


def on(text: str, *faults: Fault | None) -> Any:
    """Return a plan: the given faults on the first requests about ``text``, in turn; the last one from then on."""
    count = [0]
    lock = threading.Lock()

    def plan(_: int, body: dict[str, Any]) -> Fault | None:
        if text not in json.dumps(body.get("prompt", body.get("messages")), ensure_ascii=False):
            return None
        with lock:
            place = min(count[0], len(faults) - 1)
            count[0] += 1
        return faults[place]

    return plan


def options(**args: Any) -> BackendOptions:
    return BackendOptions("m", {"base_url": "http://127.0.0.1:9/v1", **args})


def run(stub: Stub, folder: Path, labeler: str = "mc", name: str = "run", **changes: Any) -> cpmi_eval.RunResult:
    args = changes.pop("labeler_args", MC if labeler == "mc" else {})
    given = {"limit": 4, "task_args": {"n": 12}, **changes}
    more = given.pop("model_args", {})
    return cpmi_eval.evaluate(
        labeler,
        "synthetic",
        backend="server",
        model=stub.engine.name,
        model_args={"base_url": stub.base_url, **more},
        labeler_args=args,
        output_path=folder / name,
        **given,
    )
