"""The trie scorer against the pairwise one, lm-eval's HF model and the floor, on the same requests in one run.

    python benchmarks/scoring.py --data-dir DIR   # ProcessBench gsm8k; CPMI_EVAL_DATA_DIR does the same
    python benchmarks/scoring.py                  # the embedded synthetic task
    python benchmarks/scoring.py --device cuda --dtype bfloat16 --row-tokens 512,1024,2048,4096,8192 \
        --attention sdpa,flex_attention

The floor is what plain causal forward passes over the trie's token count take, with the LM head at as many positions
as the trie reads. Differences are of summed log-probabilities, in nats, against the pairwise scorer. Each row is on
stderr as soon as it is measured; the tables follow at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common import data_name, items, plain_passes, requests_of, timed
from rich.console import Console
from rich.table import Table

from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.types import Failure, LogProb, ScoreRequest


def grouped(asked: Sequence[list[ScoreRequest]], size: int) -> list[list[ScoreRequest]]:
    """Put the requests of ``size`` traces into one call."""
    return [[one for part in asked[at : at + size] for one in part] for at in range(0, len(asked), size)]


def totals(results: Sequence[LogProb | Failure]) -> list[float]:
    """Return summed log-probabilities; a failure stops the benchmark."""
    values = []
    for result in results:
        if isinstance(result, Failure):
            sys.exit(f"a request failed: {result}")
        values.append(result.total)
    return values


def floor_seconds(backend: HFBackend, tokens: int, heads: int, length: int, device: str) -> float:
    """Return what plain causal passes of ``length`` over ``tokens`` tokens take, with the head at ``heads`` rows."""
    whole, rest = divmod(tokens, length)
    shapes = [(1, size) for size in [length] * whole + ([rest] if rest else [])]
    run = plain_passes(backend.model.get_decoder(), backend.model.get_output_embeddings(), shapes, heads)
    run()
    return statistics.median(timed(run, device)[1] for _ in range(3))


def lm_eval_totals(backend: HFBackend, asked: Sequence[ScoreRequest], batch_size: int) -> list[float]:
    """Score through lm-eval's HFLM over the same loaded model."""
    import logging

    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    model = HFLM(pretrained=backend.model, tokenizer=backend.encoder.tokenizer, batch_size=batch_size)
    instances = [Instance("loglikelihood", {}, (r.context, r.continuation), i) for i, r in enumerate(asked)]
    return [total for total, _ in model.loglikelihood(instances, disable_tqdm=True)]


def per_trace(score: Callable[[list[ScoreRequest]], list[float]], asked: Sequence[list[ScoreRequest]]) -> list[float]:
    """Score trace by trace, the way a run's small batches do."""
    return [value for one in asked for value in score(one)]


def main() -> None:
    """Measure and print one table per variant; ``--json`` for the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--model", default=models.DEFAULT_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--traces", type=int, default=6)
    parser.add_argument("--traces-per-call", type=int, default=1, help="traces that are scored together")
    parser.add_argument("--variants", default="marginal,prefix")
    parser.add_argument("--row-tokens", default="auto", help="auto, or sizes to compare: 512,1024,2048")
    parser.add_argument("--attention", default="sdpa", help="sdpa, flex_attention or both, separated by a comma")
    parser.add_argument("--lm-eval-batch", type=int, default=8)
    parser.add_argument("--skip", default="", help="leave out: pairwise,lm-eval")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [item.trace for item in items(options.data_dir, options.traces)]
    device = models.pick_device(options.device)
    dtype = models.pick_dtype(options.dtype, device)
    source = models.resolve(options.model)
    figures = []
    for attention in options.attention.split(","):
        model, tokenizer = models.load_model(source, dtype, device, {"attn_implementation": attention})
        for variant in options.variants.split(","):
            asked = grouped(requests_of(variant, chosen), options.traces_per_call)
            figures += measure(options, model, tokenizer, attention, variant, asked, device)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for variant in options.variants.split(","):
        Console(width=120).print(
            table([row for row in figures if row["variant"] == variant], variant, options, dtype, device)
        )


def measure(
    options: argparse.Namespace,
    model: Any,
    tokenizer: Any,
    attention: str,
    variant: str,
    asked: Sequence[list[ScoreRequest]],
    device: str,
) -> list[dict[str, Any]]:
    """Return one row per way of scoring: tokens, seconds, peak bytes, largest difference from pairwise."""
    skip = options.skip.split(",")
    flat = [request for one in asked for request in one]
    rows: list[dict[str, Any]] = []
    reference: list[float] | None = None

    def add(way: str, values: list[float] | None, seconds: float, tokens: int, peak: int) -> None:
        worst = None
        if values is not None and reference is not None:
            worst = max(abs(a - b) for a, b in zip(values, reference, strict=True))
        rows.append(
            {
                "variant": variant,
                "way": way,
                "requests": len(flat),
                "tokens": tokens,
                "seconds": seconds,
                "peak_bytes": peak,
                "difference": worst,
            }
        )
        print(f"{variant}: {way}: {tokens:,} tokens in {seconds:.2f} s", file=sys.stderr, flush=True)

    pairwise = HFBackend(model, tokenizer, prefix_sharing=False)
    requested = sum(len(one.ids) - 1 for one in pairwise.encoder.encode(flat))
    if "pairwise" not in skip and attention == "sdpa":
        score = lambda one: totals(pairwise.loglikelihood(one))  # noqa: E731
        score(asked[0][:8])
        reference, seconds, peak = timed(lambda: per_trace(score, asked), device)
        add("pairwise", reference, seconds, requested, peak)
    if "lm-eval" not in skip and attention == "sdpa":
        lm_eval_totals(pairwise, asked[0][:8], options.lm_eval_batch)
        values, seconds, peak = timed(lambda: lm_eval_totals(pairwise, flat, options.lm_eval_batch), device)
        add("lm-eval hf", values, seconds, requested, peak)
    sizes = [None] if options.row_tokens == "auto" else [int(size) for size in options.row_tokens.split(",")]
    for size in sizes:
        trie = HFBackend(model, tokenizer, args={} if size is None else {"row_tokens": size})
        results = trie.loglikelihood(asked[0])  # warm-up
        score = lambda one, trie=trie: totals(trie.loglikelihood(one))  # noqa: E731
        samples = [timed(lambda score=score: per_trace(score, asked), device) for _ in range(3)]
        values, seconds, peak = sorted(samples, key=lambda sample: sample[1])[1]
        results = [result for one in asked for result in trie.loglikelihood(one)]
        computed = sum(result.tokens.computed for result in results if isinstance(result, LogProb))
        add(f"trie, {attention}, rows of {trie.limits.row_tokens}", values, seconds, computed, peak)
        heads = sum(predicting(trie, one) for one in asked)
        seconds = floor_seconds(trie, computed, heads, trie.limits.row_tokens, device)
        add(f"floor, rows of {trie.limits.row_tokens}", None, seconds, computed, 0)
    return rows


def predicting(backend: HFBackend, asked: Sequence[ScoreRequest]) -> int:
    """Return the number of distinct positions from which a continuation's token is predicted."""
    encoded = backend.encoder.encode(asked)
    return len({one.ids[:end].tobytes() for one in encoded for end in range(one.start, len(one.ids))})


def table(rows: Sequence[dict[str, Any]], variant: str, options: argparse.Namespace, dtype: str, device: str) -> Table:
    """Return the figures of one variant, each with its ratio to a trie's time: its own for a floor, else the first."""
    trie = next(row["seconds"] for row in rows if row["way"].startswith("trie"))
    title = f"{variant}: {options.traces} traces of {data_name(options.data_dir)}, {rows[0]['requests']:,} requests"
    title += f", {options.model}, {dtype}, {device}"
    made = Table(title=title, title_justify="left")
    for heading in ("way", "tokens", "seconds", "time / trie", "peak memory", "max difference"):
        made.add_column(heading, justify="left" if heading == "way" else "right")
    for row in rows:
        trie = row["seconds"] if row["way"].startswith("trie") else trie
        made.add_row(
            row["way"],
            f"{row['tokens']:,}",
            f"{row['seconds']:.2f}",
            f"{row['seconds'] / trie:.2f}",
            f"{row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] else "",
            "" if row["difference"] is None else f"{row['difference']:.1e}",
        )
    return made


if __name__ == "__main__":
    main()
