"""An OpenAI-compatible server on loopback, in a thread, that can be told to fail in every way a server does.

What it says comes from an engine: :class:`Canned` makes texts out of prompt and seed, :class:`Tiny` runs a tiny random
model. A fault is a function that is given the handler of a request and the reply it would have had; it may answer in
its place (and return True), or change the reply.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

JSON = dict[str, Any]
Fault = Callable[["Handler", JSON], bool]
PIECES = re.compile(r"\s*\S+|\s+")
DIALECTS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "vllm": {"top_k": int, "repetition_penalty": (int, float), "min_p": (int, float)},
    "llama.cpp": {"top_k": int, "repeat_penalty": (int, float), "min_p": (int, float)},
}


class RefusalError(Exception):
    """An answer with an HTTP status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def prompt_of(body: JSON) -> str:
    """Return the text that a request continues; chat turns in a form of the stub's own."""
    if "messages" not in body:
        return str(body["prompt"])
    turns = " <end> ".join(f"[{one['role']}] {one['content']}" for one in body["messages"])
    if body["messages"][-1]["role"] == "assistant" and body.get("continue_final_message"):
        return turns
    return f"{turns} <end> [assistant] "


def check_fields(body: JSON, dialect: str | None) -> None:
    """Refuse fields as a server of that dialect does; ``None``: it ignores what it does not know."""
    for name, kind in DIALECTS.get(dialect or "", {}).items():
        if name in body and not isinstance(body[name], kind):
            raise RefusalError(422, f"{name} must be a number")
    if dialect == "transformers":
        for name in ("top_k", "repetition_penalty", "repeat_penalty", "min_p"):
            if name in body:
                raise RefusalError(422, f"unexpected field {name}")
        json.loads(body.get("generation_config", "{}"))


@dataclass
class Canned:
    """Texts made out of prompt and seed. A token is a word with the white space before it."""

    name: str = "canned"
    dialect: str | None = "vllm"
    answers: int = 3
    """How many different answers the texts state."""

    def reply(self, body: JSON) -> JSON:
        check_fields(body, self.dialect)
        prompt = prompt_of(body)
        seed = body["seed"] if body.get("temperature", 1.0) > 0 and "seed" in body else 0
        number = int(hashlib.sha256(f"{prompt}|{seed}".encode()).hexdigest(), 16) % self.answers
        text = f" so it is \\boxed{{{number}}}. Seed {seed}"
        made = PIECES.findall(text)[: body["max_tokens"]]
        finish = "stop" if len(made) < body["max_tokens"] else "length"
        return reply_of(body, "".join(made), finish, len(PIECES.findall(prompt)), len(made))


def reply_of(body: JSON, text: str, finish: str, prompt: int, completion: int) -> JSON:
    """Return the body of a reply."""
    chat = "messages" in body
    own: JSON = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "object": "chat.completion" if chat else "text_completion",
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": finish, **own}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


@dataclass
class Tiny:
    """A tiny model of tinymodels, through the hf backend for texts and by plain forward passes for log-probabilities.

    ``scoring``: ``echo``, ``prompt_logprobs`` or None. ``lists_bos``: whether BOS is among the listed tokens.
    ``shift``: do as llama-cpp-python does: do not list BOS; without one, list each log-probability a place late.
    """

    architecture: str = "llama"
    bos: bool = False
    scoring: str | None = "echo"
    shift: bool = False
    lists_bos: bool = True
    dialect: str | None = "vllm"
    name: str = "tiny"
    lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        import tinymodels

        from cpmi_eval.backends.hf import HFBackend

        self.tokenizer = tinymodels.tokenizer(self.bos)
        self.hf = HFBackend(tinymodels.model(self.architecture), self.tokenizer)

    def reply(self, body: JSON) -> JSON:
        check_fields(body, self.dialect)
        with self.lock:
            if body.get("echo") or "prompt_logprobs" in body:
                return self._scored(body)
            return self._written(body)

    def _written(self, body: JSON) -> JSON:
        from cpmi_eval.types import Generation, Sampling

        prompt = prompt_of(body)
        penalty = body.get("repetition_penalty", body.get("repeat_penalty", 1.0))
        sampling = Sampling(
            body["max_tokens"],
            body.get("temperature", 1.0),
            body.get("top_p", 1.0),
            max(body.get("top_k", 0), 0),
            penalty,
            tuple(body.get("stop", ())),
        )
        made = self.hf.generate([prompt], sampling, [[body.get("seed", 0)]])[0]
        assert isinstance(made, Generation), made
        one = made.completions[0]
        n = len(self.hf.encoder.encode_prompt(prompt))
        reply = reply_of(body, one.text, one.finish, n, one.n_tokens)
        if body.get("logprobs"):
            ids = self.tokenizer(prompt + one.text, add_special_tokens=False)["input_ids"]
            own = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            lead = [self.tokenizer.bos_token_id] if self.bos else []
            reply["choices"][0]["logprobs"] = self._listed([*lead, *ids], len(lead) + len(own))
        return reply

    def _scored(self, body: JSON) -> JSON:
        wanted = "echo" if body.get("echo") else "prompt_logprobs"
        if self.scoring != wanted:
            raise RefusalError(400, f"{wanted} is not supported")
        text = prompt_of(body)
        ids = self.hf.encoder.encode_prompt(text)
        values = self._logprobs([*ids, self._next(ids)])
        reply = reply_of(body, text, "length", len(ids), 1)
        if wanted == "prompt_logprobs":
            entries = [
                {str(token): {"logprob": value, "decoded_token": self._text(token)}}
                for token, value in zip(ids[1:], values[1:], strict=False)
            ]
            reply["choices"][0]["prompt_logprobs"] = [None, *entries]
            return reply
        led = ids[0] == self.tokenizer.bos_token_id
        first = int(led and (self.shift or not self.lists_bos))
        reply["choices"][0]["logprobs"] = self._listed([*ids, self._next(ids)], first)
        return reply

    def _listed(self, ids: list[int], start: int) -> JSON:
        values = self._logprobs(ids)
        if self.shift and start == 0:
            values = [None, *self._late(ids)]
        return {"tokens": [self._text(token) for token in ids[start:]], "token_logprobs": values[start:]}

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))

    def _rows(self, ids: list[int]) -> Any:
        import torch

        with torch.inference_mode():
            return self.hf.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)

    def _logprobs(self, ids: list[int]) -> list[float | None]:
        rows = self._rows(ids)
        return [None, *(float(rows[i - 1, ids[i]]) for i in range(1, len(ids)))]

    def _late(self, ids: list[int]) -> list[float | None]:
        rows = self._rows(ids)
        return [float(rows[i, ids[i]]) for i in range(1, len(ids))]

    def _next(self, ids: list[int]) -> int:
        return int(self._rows(ids)[-1].argmax())


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        stub = self.server.stub
        if stub.listing is not None and stub.listing(self, {}):
            return
        if stub.lists is None:
            self.json(404, {"error": {"message": "not found"}})
        else:
            self.json(200, {"object": "list", "data": stub.lists})

    def do_POST(self) -> None:
        stub = self.server.stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.counted(self.path, body, {name.lower(): value for name, value in self.headers.items()}) as fault:
            try:
                reply = stub.engine.reply(body)
            except RefusalError as refusal:
                self.json(refusal.status, {"error": {"message": str(refusal)}})
                return
            except ValueError as error:
                self.json(500, {"error": {"message": str(error)}})
                return
            time.sleep(stub.delay(body))
            if fault is None or not fault(self, reply):
                self.json(200, reply)

    def json(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole reply."""
        self.raw(json.dumps(content).encode(), status, headers)

    def raw(self, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None, length: int = 0) -> None:
        """Send bytes; ``length`` promises more of them than there are."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A client that has hung up is no error here."""


class Stub:
    """The server. ``faults(n, body)`` returns the fault of the n-th POST (from 0), if it has one."""

    def __init__(self, engine: Any, faults: Callable[[int, JSON], Fault | None] = lambda *_: None) -> None:
        self.engine = engine
        self.faults = faults
        self.delay: Callable[[JSON], float] = lambda _: 0.0
        self.listing: Fault | None = None
        self.lists: list[Any] | None = [{"id": engine.name, "object": "model", "owned_by": "stub"}]
        self.bodies: list[JSON] = []
        self.headers: list[JSON] = []
        self.paths: list[str] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.stub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def counted(self, path: str, body: JSON, headers: JSON) -> Iterator[Fault | None]:
        with self._lock:
            n = len(self.bodies)
            self.bodies.append(body)
            self.paths.append(path)
            self.headers.append(headers)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield self.faults(n, body)
        finally:
            with self._lock:
                self._in_flight -= 1


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def status(code: int, message: str = "no", **headers: str) -> Fault:
    """Answer with an HTTP status."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    def fault(handler: Handler, _: JSON) -> bool:
        handler.json(code, {"error": {"message": message}}, sent)
        return True

    return fault


def body(data: bytes, length: int = 0) -> Fault:
    """Answer 200 with these bytes; fewer than ``length`` promises is a body that ends too early."""

    def fault(handler: Handler, _: JSON) -> bool:
        handler.raw(data, length=length)
        handler.close_connection = True
        return True

    return fault


def edited(change: Callable[[JSON], object]) -> Fault:
    """Change the reply."""

    def fault(_: Handler, reply: JSON) -> bool:
        change(reply)
        return False

    return fault


def reset(handler: Handler, _: JSON) -> bool:
    """Close the connection at once, without a reply."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
    return True


def hang(seconds: float) -> Fault:
    """Send the head of a reply, then a space now and then: no read of the client's ever waits for long."""

    def fault(handler: Handler, _: JSON) -> bool:
        handler.raw(b" ", length=1_000_000)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass
        handler.close_connection = True
        return True

    return fault
