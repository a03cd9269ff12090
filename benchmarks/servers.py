"""Rollouts of ``mc`` through the ``server`` backend at growing concurrency, against one request at a time.

    python benchmarks/servers.py                          # transformers serve with continuous batching, on loopback
    python benchmarks/servers.py --server transformers    # the same without: requests wait for each other
    python benchmarks/servers.py --server llama.cpp       # llama-cpp-python's server, F32: they wait, too
    python benchmarks/servers.py --server stub --latency 0.5          # what the client can do: no model at all
    python benchmarks/servers.py --base-url URL --model NAME          # a server that runs already (vLLM, SGLang, ...)

The traces are those of ProcessBench gsm8k with ``--data-dir DIR`` (or CPMI_EVAL_DATA_DIR), else of the synthetic task.
Every concurrency draws the same rollouts of the same prefixes; completions end where they end, so ways are compared by
generated tokens per second; of a server that is started here also per second of its processor time, which a busy
machine does not distort. The stub takes ``--latency`` seconds for each request, however many it is given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from common import data_name, items
from rich.console import Console
from rich.table import Table

from cpmi_eval import registry, settings
from cpmi_eval.backends import models
from cpmi_eval.backends.server import dialects
from cpmi_eval.labelers.monte_carlo import MonteCarlo
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import StepScores, Trace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import ggufmodels
import servers

STUB_TOKENS = 20  # what the stub says of every completion
# By default the paged cache takes a share of all memory; this holds 16 sequences of 1,024 tokens.
CB = ("--cb-num-blocks", "512", "--cb-block-size", "32", "--cb-max-batch-tokens", "512")


@dataclass(frozen=True)
class Served:
    """A server to ask, what to call it in a table, and whose sampling fields it takes."""

    base_url: str
    model: str
    title: str
    extra: str = "auto"
    process: servers.Server | None = None


@dataclass(frozen=True)
class Figures:
    """What one concurrency came to: sums over all traces. ``cpu_seconds``: of a server that was started here."""

    concurrency: int
    requests: int
    generated: int
    seconds: float
    cpu_seconds: float | None
    failed: int

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of wall time."""
        return self.generated / self.seconds

    def as_dict(self, first: Figures) -> dict[str, float | None]:
        """Return a row of the table; ``first`` is one request at a time."""
        return {
            "concurrency": self.concurrency,
            "requests": self.requests,
            "generated": self.generated,
            "seconds": self.seconds,
            "server_cpu_seconds": self.cpu_seconds,
            "requests_per_second": self.requests / self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "ratio": self.tokens_per_second / first.tokens_per_second,
            "failed_traces": self.failed,
        }


@contextmanager
def stub(latency: float) -> Iterator[Served]:
    """Serve completions that take ``latency`` seconds each and cost nothing, any number of them side by side."""
    usage = {"prompt_tokens": STUB_TOKENS, "completion_tokens": STUB_TOKENS, "total_tokens": 2 * STUB_TOKENS}

    def answer(seed: object) -> dict[str, Any]:
        text = f"The answer is \\boxed{{{seed}}}."
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}
        return {"id": "stub", "object": "text_completion", "model": "stub", "choices": [choice], "usage": usage}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(latency)
            self._send(answer(asked.get("seed")))

        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "stub", "object": "model", "created": 0, "owned_by": ""}]})

        def _send(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client went away
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # connections that wait to be accepted; 5 would hold back what is measured

    with Server((servers.HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            base_url, title = f"http://{servers.HOST}:{server.server_port}/v1", f"stub, {latency:g} s per request"
            yield Served(base_url, "stub", title, "vllm")
        finally:
            server.shutdown()


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[Served]:
    """Start the server that is asked for, or take the one that runs."""
    if options.base_url is not None:
        yield Served(options.base_url, options.model, options.base_url)
        return
    if options.server == "stub":
        with stub(options.latency) as one:
            yield one
        return
    source = models.resolve(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "server.log"
        if options.server == "llama.cpp":
            _need(servers.llama_cpp_missing())
            if source.path is None or source.path.suffix != ".gguf":
                raise SystemExit(f"--server llama.cpp needs a GGUF file; {options.model} is none")
            gguf = ggufmodels.rewritten(source.path, Path(scratch) / "model.gguf", add_bos=False)
            with servers.llama_cpp(gguf, log, threads=options.threads) as server:
                yield Served(server.base_url, server.model, "llama-cpp-python", "llama.cpp", server)
            return
        _need(servers.transformers_missing())
        folder = Path(models.loadable(source, source.sha256()))
        batching = options.server == "transformers-cb"
        more = ("--continuous-batching", *CB) if batching else ()
        title = "transformers serve" + (", continuous batching" if batching else "")
        with servers.transformers_serve(folder, log, *more, threads=options.threads) as server:
            if batching:
                settle(server, rollouts(options))
            yield Served(server.base_url, server.model, title, "transformers", server)


def settle(server: servers.Server, labeler: MonteCarlo) -> None:
    """Send the first request, whose sampling settings a server with continuous batching keeps for all that follow."""
    fields = dialects.fields("transformers", labeler.source.sampling)  # type: ignore[attr-defined]
    body = json.dumps({"model": server.model, "prompt": "1 + 1 =", **fields}).encode()
    asked = urllib.request.Request(
        f"{server.base_url}/completions", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(asked, timeout=servers.START_SECONDS) as answer:
        answer.read()


def rollouts(options: argparse.Namespace) -> MonteCarlo:
    """Return the labeler whose rollouts are drawn."""
    return MonteCarlo(options.n, max_new_tokens=options.max_new_tokens, **options.labeler_args)


def _need(missing: str | None) -> None:
    if missing is not None:
        raise SystemExit(missing)


def measure(options: argparse.Namespace, served: Served, traces: list[Trace], concurrency: int) -> Figures:
    """Draw the rollouts of all traces with so many requests under way at a time."""
    arguments = {"base_url": served.base_url, "concurrency": concurrency, "extra": served.extra, **options.model_args}
    backend = registry.load("backends", "server").open(BackendOptions(served.model, arguments))
    backend.prepare(frozenset({"generate"}))
    labeler = rollouts(options)
    process = served.process
    start, spent = time.perf_counter(), process.cpu_seconds() if process else None
    results = list(labeler.score(traces, backend))
    seconds = time.perf_counter() - start
    return Figures(
        concurrency,
        sum(sum(result.details["draws"]) for result in results),
        sum(result.tokens.generated for result in results),
        seconds,
        process.cpu_seconds() - spent if process and spent is not None else None,
        sum(not isinstance(result, StepScores) for result in results),
    )


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """Return the sweep as a table."""
    made = Table(title=title)
    for name in (
        "concurrency",
        "requests",
        "generated",
        "seconds",
        "requests/s",
        "tokens/s",
        "ratio",
        "tokens/CPU s",
        "failed traces",
    ):
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(
            f"{row['concurrency']}",
            f"{row['requests']:,}",
            f"{row['generated']:,}",
            f"{row['seconds']:.2f}",
            f"{row['requests_per_second']:.2f}",
            f"{row['tokens_per_second']:,.1f}",
            f"{row['ratio']:.2f}",
            f"{row['generated'] / row['server_cpu_seconds']:,.1f}" if row["server_cpu_seconds"] else "",
            f"{row['failed_traces']}",
        )
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument(
        "--server", choices=["transformers-cb", "transformers", "llama.cpp", "stub"], default="transformers-cb"
    )
    parser.add_argument("--base-url", help="ask a server that runs already; --server then does nothing")
    parser.add_argument("--model", default=models.DEFAULT_MODEL, help="what is served, or what --base-url calls it")
    parser.add_argument("--model-args", type=settings.parse_pairs, default={}, help="more settings of the backend")
    parser.add_argument("--labeler-args", type=settings.parse_pairs, default={}, help="more settings of mc")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--traces", type=int, default=2)
    parser.add_argument("--n", type=int, default=4, help="rollouts per prefix")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds that the stub takes for a request")
    parser.add_argument("--threads", type=int, default=1, help="threads of a server that is started here")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [item.trace for item in items(options.data_dir, options.traces, lambda trace: trace.answer is not None)]
    with serving(options) as served:
        figures = [measure(options, served, chosen, n) for n in options.concurrency]
    rows = [one.as_dict(figures[0]) for one in figures]
    if options.json:
        print(json.dumps({"server": served.title, "data": data_name(options.data_dir), "rows": rows}, indent=2))
    else:
        Console().print(table(rows, f"{served.title}, {data_name(options.data_dir)}"))


if __name__ == "__main__":
    main()
