"""A real browser for tests of pages: Debian's chromium, headless, spoken to over its DevTools pipe.

``chromium --headless=new --remote-debugging-pipe`` reads commands from file descriptor 3 and writes replies and events
to descriptor 4, each a JSON object ended by a zero byte (the DevTools protocol). No port, no driver and no further
package is needed. As root it needs ``--no-sandbox``. Debian and Ubuntu's ``apt-get install chromium`` brings it;
``CHROMIUM`` names another executable. Where there is none, :data:`MISSING` says so and tests skip.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

EXECUTABLE = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = None if EXECUTABLE else "no chromium here: `apt-get install chromium`, or name one in CHROMIUM"
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--disable-extensions",
    "--disable-gpu", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
# A process of its own moves the descriptors to 3 and 4: doing so in this one could close what it uses.
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
SECONDS = 60.0
KEYS = {"Enter": ("Enter", 13, "\r"), "ArrowDown": ("ArrowDown", 40, ""), "ArrowUp": ("ArrowUp", 38, "")}
KEYS |= {"Tab": ("Tab", 9, ""), " ": ("Space", 32, " ")}


class BrowserError(Exception):
    """The browser ended, did not answer in time, or a script in the page threw."""


class Browser:
    """One headless browser with one page (``with Browser(folder) as browser``); ``folder`` holds its profile."""

    def __init__(self, folder: Path) -> None:
        assert EXECUTABLE, MISSING
        self.messages: list[str] = []  # what the page logged or threw
        self.requests: list[str] = []  # addresses it asked for
        self._last, self._buffer = 0, b""
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        theirs = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (to_read, from_write)]
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._log = (folder / "chromium.log").open("wb")
        command = [EXECUTABLE, *FLAGS, *sandbox, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, theirs), *command],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "HOME": str(folder)},
        )
        for one in (to_read, from_write, *theirs):
            os.close(one)
        self._to, self._from = to_write, from_read
        self._session: str | None = None

    def __enter__(self) -> Self:
        try:
            targets = self.call("Target.getTargets")["targetInfos"]
            page = next(one["targetId"] for one in targets if one["type"] == "page")
            self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        for one in (self._to, self._from):
            os.close(one)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive meanwhile are noted."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        deadline = time.monotonic() + SECONDS
        while True:
            reply = self._receive(deadline)
            if reply.get("id") == self._last:
                if "error" in reply:
                    raise BrowserError(f"{method}: {reply['error']}")
                return dict(reply["result"])
            self._note(reply)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._from, 1 << 16) if ready else b""
            if not data:
                raise BrowserError(f"chromium {'ended' if ready else 'gave no answer'}; its log is {self._log.name}")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        method, details = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.messages.append(str([one.get("value", one.get("description")) for one in details["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(details["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.messages.append(details["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.messages.append(f"dialog: {details['message']}")
            self._last += 1
            answer = {"id": self._last, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            os.write(self._to, json.dumps({**answer, "sessionId": self._session}).encode() + b"\0")
        elif method == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def open(self, path: Path, fragment: str = "", *, dark: bool = False, size: tuple[int, int] = (1280, 900)) -> None:
        """Open a file at a window size (CSS pixels) and colour scheme; what an earlier page said is forgotten."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url="about:blank")  # the same file with another fragment would not be loaded anew
        self.messages.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")
        self.settle()

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise BrowserError(done["exceptionDetails"].get("exception", {}).get("description", "the script threw"))
        return done["result"].get("value")

    def settle(self) -> None:
        """Wait until the page has been laid out and drawn twice."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self._holds(condition):
            if time.monotonic() > deadline:
                raise BrowserError(f"never became true: {condition}")
            time.sleep(0.02)

    def _holds(self, condition: str) -> bool:
        """Return whether an expression is true; while a page gives way to the next one, none is."""
        try:
            return bool(self.run(condition))
        except BrowserError as error:
            if "navigated" in str(error):
                return False
            raise

    def press(self, key: str) -> None:
        """Press and release a key where the focus is."""
        code, number, text = KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()) if len(key) == 1 else 0, key))
        event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)
        self.settle()

    def click(self, selector: str) -> None:
        """Scroll the first match into view and press the mouse button on its middle."""
        script = """((one) => {
            one.scrollIntoView({block: "center"});
            const box = one.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        })"""
        place = self.run(f"{script}(document.querySelector({json.dumps(selector)}))")
        mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **mouse)
        self.settle()

    def type(self, selector: str, text: str) -> None:
        """Replace a field's text as if it was typed."""
        self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.focus(); one.select(); }})()"
        )
        self.call("Input.insertText", text=text)
        self.settle()
