"""What the host does before the device has anything to do: plan, encode and pack requests, and the memory that takes.

    python benchmarks/host.py --data-dir DIR      # ProcessBench gsm8k; CPMI_EVAL_DATA_DIR does the same
    python benchmarks/host.py                     # the embedded synthetic task
    python benchmarks/host.py --score             # also score the longest chain, for its peak memory

Chains of 10 to 160 steps are made of the steps of many traces. One thread, no model but for its tokenizer; ``--score``
uses a model of one layer and few dimensions, whose memory is that of masks, keys and values rather than of weights.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from itertools import pairwise

import torch
from common import PeakMemory, data_name, items, requests_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine.encode import Encoder
from cpmi_eval.engine.trie import Builder
from cpmi_eval.types import Trace

HEADINGS = f"{'variant':9} {'steps':>6} {'requests':>9} {'requested':>11} {'computed':>9}"
HEADINGS += f" {'plan':>7} {'encode':>7} {'pack':>7} {'tokens/s':>9} {'memory':>8}"


def chain(data_dir: str | None, steps: int) -> Trace:
    """Return a trace of ``steps`` steps, those of the task's traces one after another."""
    found = [item.trace for item in items(data_dir, 200)]
    every = [step for trace in found for step in trace.steps]
    return Trace("chain", found[0].problem, tuple((every * (1 + steps // len(every)))[:steps]), "42")


def measure(encoder: Encoder, variant: str, trace: Trace) -> str:
    """Return a row: seconds of each part of the host's work, tokens per second, bytes at the peak of it."""
    best = (float("inf"),) * 3
    for _ in range(3):
        times = [time.perf_counter()]
        (asked,) = requests_of(variant, [trace])
        times.append(time.perf_counter())
        encoded = encoder.encode(asked)
        times.append(time.perf_counter())
        builder = Builder()
        for one in encoded:
            builder.add(one.tail[:-1], one.stem)
        forest, _ = builder.layout()
        times.append(time.perf_counter())
        best = min(best, tuple(b - a for a, b in pairwise(times)), key=sum)
    requested = sum(len(one) - 1 for one in encoded)
    del encoded, builder, asked
    tracemalloc.start()
    (asked,) = requests_of(variant, [trace])
    encoded = encoder.encode(asked)
    builder = Builder()
    for one in encoded:
        builder.add(one.tail[:-1], one.stem)
    builder.layout()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    rate = len(forest) / sum(best)
    plan, encode, pack = best
    return (
        f"{variant:9} {len(trace.steps):6} {len(asked):9,} {requested:11,} {len(forest):9,}"
        f" {plan:7.3f} {encode:7.3f} {pack:7.3f} {rate:9,.0f} {peak / 1e6:6.1f}MB"
    )


def score(tokenizer: object, trace: Trace, variant: str) -> str:
    """Score a chain with a small random model; return the peak memory that it took beyond what was there before."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),  # type: ignore[arg-type]
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=1 << 20,
    )
    torch.manual_seed(0)
    backend = HFBackend(LlamaForCausalLM(config).eval(), tokenizer)
    (asked,) = requests_of(variant, [trace])
    backend.loglikelihood(asked[:20])
    with PeakMemory("cpu") as before:
        time.sleep(0.05)
    with PeakMemory("cpu") as memory:
        results = backend.loglikelihood(asked)
    computed = sum(one.tokens.computed for one in results)  # type: ignore[union-attr]
    longest = max(len(one) for one in backend.encoder.encode(asked))
    square = 4 * computed**2
    return (
        f"{variant}, {len(trace.steps)} steps, {computed:,} nodes, longest sequence {longest:,}: "
        f"{(memory.peak - before.peak) / 1e6:,.0f} MB beyond the model; one dense mask over all: {square / 1e6:,.0f} MB"
    )


def main() -> None:
    """Print a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--model", default=models.DEFAULT_MODEL)
    parser.add_argument("--variants", default="marginal,prefix,loo")
    parser.add_argument("--steps", default="10,40,160")
    parser.add_argument("--score", action="store_true", help="score the longest chain with a small random model too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = models.resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(models.loadable(source, source.sha256()))
    encoder = Encoder(tokenizer)
    steps = [int(one) for one in options.steps.split(",")]
    print(f"{data_name(options.data_dir)}, tokenizer of {options.model}, one thread; seconds, the best of three\n")
    print(HEADINGS)
    for variant in options.variants.split(","):
        for count in steps if variant != "loo" else steps[:-1]:  # its own tokens are the square of the chain
            print(measure(encoder, variant, chain(options.data_dir, count)), flush=True)
    for variant in options.variants.split(",") if options.score else ():
        if variant != "loo":
            print(score(tokenizer, chain(options.data_dir, steps[-1]), variant), flush=True)


if __name__ == "__main__":
    main()
