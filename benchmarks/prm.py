"""A trained PRM's throughput: all steps in one pass against every prefix apart and against a plain forward pass.

    python benchmarks/prm.py --data-dir DIR                       # ProcessBench gsm8k; CPMI_EVAL_DATA_DIR does the same
    python benchmarks/prm.py --data-dir DIR --candidates FILE     # also several solutions of each problem
    python benchmarks/prm.py --checkpoint PATH --device cuda      # a PRM of your own

Without ``--checkpoint`` the default model gets a random two-class head: its scores mean nothing, its cost is that of a
trained one. The floor is what plain causal forward passes over the computed number of tokens take, in sequences as long
as the traces are on average. Token rates are per second of wall time; ratios are within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from common import data_name, items, plain_passes, timed
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForTokenClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from cpmi_eval.backends import models
from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.protocols import BackendOptions, LoadOptions
from cpmi_eval.types import StepScores, Trace


def untrained(folder: Path, model: str) -> str:
    """Write ``model`` with a random two-class head; return the folder."""
    transformers_logging.set_verbosity_error()  # that the head is new is the point
    source = models.resolve(model)
    where = models.loadable(source, source.sha256())
    AutoModelForTokenClassification.from_pretrained(where, num_labels=2, dtype="float32").save_pretrained(folder)
    AutoTokenizer.from_pretrained(where).save_pretrained(folder)
    return str(folder)


def solutions(path: str, data_dir: str | None, problems: int) -> list[Trace]:
    """Return all candidates of some problems of the task gsm8k."""
    from cpmi_eval import registry

    folder = Path(data_dir) if data_dir else None
    data = registry.load("tasks", "gsm8k")().load(LoadOptions((), folder, 0, {"candidates": path}))
    chosen = list(dict.fromkeys(item.trace.cluster for item in data.items))[:problems]
    return [item.trace for item in data.items if item.trace.cluster in chosen]


def measure(backend: PRMBackend, traces: Sequence[Trace], device: str) -> tuple[list[float], int, int, float, int]:
    """Return scores, tokens requested and computed, seconds and peak bytes of scoring all traces."""
    backend.step_scores(traces[:1])
    results, seconds, peak = timed(lambda: backend.step_scores(traces), device)
    scores: list[float] = []
    for result in results:
        if not isinstance(result, StepScores):
            sys.exit(f"a trace failed: {result}")
        scores += result.values
    tokens = [result.tokens for result in results]
    return scores, sum(one.requested for one in tokens), sum(one.computed for one in tokens), seconds, peak


def floor_seconds(decoder: torch.nn.Module, tokens: int, length: int, batch: int, device: str) -> float:
    """Return what plain causal passes over ``tokens`` tokens take, ``batch`` of them at a time."""
    left, together = max(1, round(tokens / length)), max(1, batch // length)
    shapes = [(min(together, left - done), length) for done in range(0, left, together)]
    run = plain_passes(decoder, None, shapes, 0)
    run()
    return timed(run, device)[1]


def main() -> None:
    """Measure and print one table per kind of input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--candidates", help="JSON lines of several solutions per GSM8K test problem")
    parser.add_argument("--checkpoint", help="a PRM; default: an untrained head on --model")
    parser.add_argument("--spec", default=None)
    parser.add_argument("--model", default=models.DEFAULT_MODEL)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--traces", type=int, default=24)
    parser.add_argument("--skip-pairwise", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    inputs = {data_name(args.data_dir): [item.trace for item in items(args.data_dir, args.traces)]}
    if args.candidates:
        inputs["4 solutions per problem"] = solutions(args.candidates, args.data_dir, max(1, args.traces // 4))
    document = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or untrained(Path(folder), args.model)
        spec = {"spec": args.spec or "trl"} if args.spec or not args.checkpoint else {}
        for name, traces in inputs.items():
            rows = []
            for shared in (True,) if args.skip_pairwise else (True, False):
                backend = PRMBackend.open(BackendOptions(checkpoint, spec, args.dtype, args.device, shared))
                scores, requested, computed, seconds, peak = measure(backend, traces, args.device)
                way = "trie" if shared else "pairwise"
                rows.append(
                    {"way": way, "requested": requested, "computed": computed, "seconds": seconds, "peak": peak}
                )
                if shared:
                    own, length = scores, max(1, round(sum(map(len, backend_lengths(backend, traces))) / len(traces)))
                    floor = floor_seconds(backend.model, computed, length, backend.limits.batch_tokens, args.device)
                else:
                    rows[-1]["difference"] = max(abs(a - b) for a, b in zip(own, scores, strict=True))
            rows.append({"way": "floor", "requested": 0, "computed": rows[0]["computed"], "seconds": floor, "peak": 0})
            document.append({"input": name, "traces": len(traces), "rows": rows})
    if args.json:
        print(json.dumps(document, indent=2))
        return
    for one in document:
        Console(width=110).print(table_of(one))


def backend_lengths(backend: PRMBackend, traces: Sequence[Trace]) -> list[tuple[int, ...]]:
    """Return the token ids of each trace."""
    return [backend.encoder.encode(trace.problem, trace.steps).ids for trace in traces]


def table_of(one: dict[str, object]) -> Table:
    """Return one input's measurements as a table."""
    table = Table(title=f"{one['input']}, {one['traces']} traces", title_justify="left")
    for heading in ("way", "requested", "computed", "seconds", "tokens / s", "time / trie", "peak", "difference"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    rows = one["rows"]
    for row in rows:
        table.add_row(
            row["way"],
            f"{row['requested']:,}" if row["requested"] else "",
            f"{row['computed']:,}",
            f"{row['seconds']:.2f}",
            f"{row['computed'] / row['seconds']:,.0f}",
            f"{row['seconds'] / rows[0]['seconds']:.2f}",
            f"{row['peak'] / 1e9:.2f} GB" if row["peak"] else "",
            f"{row['difference']:.1e}" if "difference" in row else "",
        )
    return table


if __name__ == "__main__":
    main()
