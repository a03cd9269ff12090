"""Real servers on loopback for tests and benchmarks: started on a free port, waited for, ended whatever happens.

A server runs under this file as its launcher, which reads a pipe that only the starting process can write to: should
that process die without a word, the pipe closes and the server ends itself.
"""

import importlib.util
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 180.0  # a busy machine imports torch and transformers in tens of seconds
END_SECONDS = 10.0
LOG_CHARACTERS = 4000
TAKEN = "address already in use"


@dataclass(frozen=True)
class Server:
    """A server that answers. ``model``: what requests must call it. ``log``: the file with all that it printed."""

    base_url: str
    model: str
    log: Path
    process: subprocess.Popen[bytes]

    def tail(self) -> str:
        """Return the end of the log, for a failing test."""
        return tail(self.log)

    def cpu_seconds(self) -> float:
        """Return the processor time it has taken so far (Linux): the same on a busy machine as on an idle one."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class NotStartedError(RuntimeError):
    """A server ended, or did not answer in time; the message holds the end of its log."""


def transformers_missing() -> str | None:
    """Return why ``transformers serve`` cannot be started here, or None."""
    return _missing("transformers serve", ("fastapi", "uvicorn", "openai", "typer"), "transformers[serving]")


def llama_cpp_missing() -> str | None:
    """Return why llama-cpp-python's server cannot be started here, or None."""
    modules = ("llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
    return _missing("llama-cpp-python's server", modules, "llama-cpp-python[server]")


def _missing(what: str, modules: Sequence[str], package: str) -> str | None:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{what} needs {', '.join(absent)}: pip install '{package}'" if absent else None


@contextmanager
def transformers_serve(folder: Path, log: Path, *options: str, threads: int = 1) -> Iterator[Server]:
    """Serve a checkpoint's folder through ``transformers serve``; requests must call it by that path.

    ``options`` go on its command line; ``--continuous-batching`` is one of them. It lists as its models those of the
    hub's cache, and answers 500 where there is no such folder: it gets an empty one.
    """
    hub = log.with_suffix(".hub")
    hub.mkdir(exist_ok=True)
    command = ("transformers.cli.transformers", "serve", str(folder), "--device", "cpu", *options)
    with _served(command, "/health", str(folder), log, threads, HF_HUB_CACHE=str(hub)) as server:
        yield server


@contextmanager
def llama_cpp(
    gguf: Path, log: Path, *options: str, n_ctx: int = 512, alias: str = "served", threads: int = 1
) -> Iterator[Server]:
    """Serve a GGUF file through llama-cpp-python, with what prompt log-probabilities need.

    ``logits_all`` keeps the logits of every position, fp32, n_ctx x vocabulary. The cache of keys and values is fp32
    (type 0) and flash attention off, so that what is rounded is the weights alone.
    """
    settings = {
        "model": gguf,
        "model_alias": alias,
        "n_ctx": n_ctx,
        "n_threads": threads,
        "n_threads_batch": threads,
        "logits_all": "true",
        "type_k": 0,
        "type_v": 0,
        "flash_attn": "false",
    }
    pairs = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    with _served(("llama_cpp.server", *pairs, *options), "/v1/models", alias, log, threads) as server:
        yield server


@contextmanager
def _served(
    command: Sequence[str], ready: str, model: str, log: Path, threads: int, **environment: str
) -> Iterator[Server]:
    """Start ``python -m command`` on a free port and wait until ``ready`` answers."""
    for attempt in range(3):
        port = free_port()
        process = _launch([*command, "--host", HOST, "--port", str(port)], log, threads, **environment)
        try:
            try:
                _wait(process, f"http://{HOST}:{port}{ready}", log)
            except NotStartedError:
                if attempt < 2 and TAKEN in tail(log).lower():  # somebody was faster than us: another port
                    continue
                raise
            yield Server(f"http://{HOST}:{port}/v1", model, log, process)
            return
        finally:
            end(process)


def _launch(arguments: Sequence[str], log: Path, threads: int, **environment: str) -> subprocess.Popen[bytes]:
    everything = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=everything,
        )


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once ``url`` answers with 200.

    Raises:
        NotStartedError: the process ended, or time is up.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStartedError(f"the server ended with {process.returncode}; its log ends:\n{tail(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise NotStartedError(f"{url} did not answer within {START_SECONDS:.0f} s; the server's log ends:\n{tail(log)}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server: ask, then insist."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def tail(log: Path) -> str:
    """Return the last characters of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:] if log.exists() else ""


def _main() -> None:
    """Run a module as a program (``python servers.py MODULE ARGUMENT ...``) for as long as stdin stays open."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.pop(0)  # this file's folder, which the module should not see
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
