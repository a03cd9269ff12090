"""Sections of ``gpu.py`` that read: the card's peak, correctness, passes, host and device, reward models."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import gpu_work as work
import numpy as np
import torch
from common import plain_passes, requests_of, seconds_of, timed
from gpu_bench import VARIANTS, Bench, DeviceClock
from gpu_report import Row, known_peak, matmul_rate
from gpu_work import Shape

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.engine import forward, trie  # the engine's own: here and nowhere else in gpu.py and its parts
from cpmi_eval.prm import heads, specs
from cpmi_eval.types import Failure, LogProb, StepScores, Trace

LOGIT_FLOATS = 1 << 25  # logits in flight at a time, as in the engine
EXACT_LIMIT = 5e-3  # nats between sums of log-probabilities in fp32; the sums themselves are nats apart
FLEX = "flex_attention"


def peak(bench: Bench) -> None:
    """The card's bf16 peak: of its data sheet where the name is known, and what a product of matrices reaches."""
    reached = matmul_rate(bench.device, bench.sizes.matmul)
    name = torch.cuda.get_device_name(0) if bench.cuda else ""
    bench.peak = known_peak(name) or (reached if bench.cuda else None)  # a CPU's says nothing about fp32 on it
    source = "data sheet" if known_peak(name) else "measured" if bench.cuda else None
    details = {"reached": reached, "peak": bench.peak, "peak_from": source}
    share = None if bench.peak is None else reached / bench.peak
    size = f"{bench.sizes.matmul} x {bench.sizes.matmul}"
    bench.report.document["bf16_peak"] = details
    bench.report.add(Row("peak", "bf16 matrix product", size=size, peak=share, details=details))


# --- 1: correctness -------------------------------------------------------------------------------------------------


def correctness(bench: Bench) -> None:
    """Sums of log-probabilities in fp32: trie against pairwise, FlexAttention against SDPA; and branched decoding."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        model = bench.model(bench.sizes.exact, torch.float32)
        for variant in VARIANTS:
            _exact(bench, model, variant)
        row = Row("correctness", "branches against plain passes", bench.sizes.exact.name)
        bench.report.attempt(row, lambda: _branches(bench, model, row))
    finally:
        torch.set_float32_matmul_precision(precision)
        bench.drop(bench.sizes.exact)


def _exact(bench: Bench, model: Any, variant: str) -> None:
    traces = [
        replace(one, steps=one.steps[: bench.sizes.exact_steps]) for one in bench.data.short[: bench.sizes.exact_traces]
    ]
    asked = [one for part in requests_of(variant, traces) for one in part]
    limits = {"row_tokens": 4096, "batch_tokens": 8192, "max_length": 8192}
    sums: dict[str, np.ndarray[Any, Any]] = {}

    def check(what: str, attention: str, scorer: str, against: str | None) -> None:
        row = Row("correctness", f"{variant}: {what}", bench.sizes.exact.name, f"{len(asked)} requests")

        def measure() -> Row:
            model.set_attn_implementation(attention)
            with uncompiled(bench.device) if attention == FLEX else nullcontext():
                backend = HFBackend(model, bench.data.tokenizer, prefix_sharing=scorer == "trie", args=limits)
                if scorer == "trie" and attention == "sdpa":
                    backend.likelihood.reader.forward.flex_from = None  # which a GPU would use for long rows
                results, seconds, _ = timed(lambda: backend.loglikelihood(asked), bench.device)
            found = logprobs(results)
            sums[f"{scorer}, {attention}"] = np.array([one.total for one in found])
            amount = sum(one.tokens.computed for one in found)
            made = row.measured("tokens", amount, seconds)
            return made if against is None else _held(made, sums[f"{scorer}, {attention}"], sums[against])

        try:
            bench.report.attempt(row, measure)
        finally:
            model.set_attn_implementation("sdpa")

    check("pairwise, sdpa", "sdpa", "pairwise", None)
    check("trie, sdpa against pairwise", "sdpa", "trie", "pairwise, sdpa")
    check("trie, flex against sdpa", FLEX, "trie", "trie, sdpa")


def _held(row: Row, ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> Row:
    """Return the row with the largest difference; a check on sums that hardly vary would say nothing."""
    difference, spread = float(np.abs(ours - theirs).max()), float(theirs.std())
    holds = difference <= EXACT_LIMIT and spread >= 100 * EXACT_LIMIT
    details = {"max_difference": _finite(difference), "spread": _finite(spread), "limit": EXACT_LIMIT}
    reason = None if holds else f"differs by {difference:.3g} nats, spread {spread:.3g}; {EXACT_LIMIT:g} is allowed"
    status = "ok" if holds else "wrong"
    return replace(row, details=details, status=status, reason=reason)


def _branches(bench: Bench, model: Any, row: Row) -> Row:
    backend = HFBackend(model, bench.data.tokenizer)
    backend.prepare(frozenset({"generate"}))
    difference = float(backend.describe().own["branch_difference_per_token"])
    holds = difference <= EXACT_LIMIT
    details = {"rms_difference_per_token": _finite(difference), "limit": EXACT_LIMIT}
    return replace(row, details=details, status="ok" if holds else "wrong")


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def logprobs(results: Sequence[LogProb | Failure]) -> list[LogProb]:
    """Return results; a failure is an error."""
    for one in results:
        if isinstance(one, Failure):
            raise RuntimeError(f"a request failed: {one}")
    return [one for one in results if isinstance(one, LogProb)]


def uncompiled(device: str) -> Any:
    """Run FlexAttention as it is on a CPU, for which torch's compiler has no code on every machine."""
    return nullcontext() if device.startswith("cuda") else torch.compiler.set_stance("force_eager")


# --- 2: tokens per second of one pass -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """A forest that goes through the model in chunks of ``nodes``, and the nodes that are read, by chunk."""

    forest: trie.Forest
    nodes: int
    read: tuple[torch.Tensor, ...]

    @property
    def tokens(self) -> int:
        """Nodes, without padding."""
        return len(self.forest)

    @property
    def reads(self) -> int:
        """Nodes that are read."""
        return sum(map(len, self.read))

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that it sees."""
        return int(self.forest.depth.sum()) + len(self.forest)


def throughput(bench: Bench, shape: Shape) -> None:
    """One forward pass: plain and causal (the floor), the trie with SDPA, with FlexAttention; by nodes of a row."""
    model = bench.model(shape, bench.sizes.dtype)
    asked = [one for part in requests_of("marginal", bench.data.short) for one in part]
    encoded = HFBackend(model, bench.data.tokenizer).encoder.encode(asked)
    floors: dict[int, float] = {}
    passes = {nodes: pass_of(bench, encoded, nodes) for nodes in bench.sizes.nodes}
    for nodes, one in passes.items():
        bench.report.need(4 * bench.sizes.seconds)
        measured = _attempt_pass(bench, model, shape, nodes, one, "floor: plain causal, sdpa", None)
        if measured is not None and measured.seconds:
            floors[nodes] = measured.seconds / (measured.amount or 1)
    for attention in ("sdpa", FLEX):
        for nodes, one in passes.items():
            if attention == FLEX and not bench.cuda:
                reason = "a GPU compiles FlexAttention; here it would run uncompiled"
                row = Row("throughput", f"trie, {attention}", shape.name, f"{nodes} nodes")
                bench.report.add(replace(row, status="skipped", reason=reason))
                continue
            bench.report.need(4 * bench.sizes.seconds + (30 if attention == FLEX else 0))
            model.set_attn_implementation(attention)
            _attempt_pass(bench, model, shape, nodes, one, f"trie, {attention}", floors.get(nodes))
    model.set_attn_implementation("sdpa")


def _attempt_pass(
    bench: Bench, model: Any, shape: Shape, nodes: int, one: Pass, what: str, floor: float | None
) -> Row | None:
    row = Row("throughput", what, shape.name, f"{nodes} nodes")

    def measure() -> Row:
        rows = len(one.read)
        if what.startswith("floor"):
            length = max(1, one.tokens // rows)
            tokens, pairs = length * rows, rows * length * (length + 1) // 2
            chunk = _chunk(model)
            head = model.get_output_embeddings()
            run = plain_passes(model.get_decoder(), head, [(rows, length)], one.reads, chunk)
        else:
            packed = forward.PackedForward(model)
            if not what.endswith(FLEX):
                packed.flex_from = None
            tokens, pairs, run = one.tokens, one.pairs, partial(trie_pass, packed, one)
        _, first, peak_bytes = timed(run, bench.device)  # compiles, where there is something to compile
        seconds = bench.repeat(run)
        work_done = work.operations(model, tokens, one.reads, pairs)
        details = {"chunks": rows, "read": one.reads, "first_seconds": first, "peak_bytes": peak_bytes}
        ratio = None if floor is None else seconds / tokens / floor
        share = bench.of_peak(work_done, seconds)
        return row.measured("tokens", tokens, seconds, ratio, share, details)

    return bench.report.attempt(row, measure)


def pass_of(bench: Bench, encoded: Sequence[Any], nodes: int) -> Pass:
    """Pack sequences, as many as a pass takes, and say which nodes of each chunk predict a token."""
    builder, read = trie.Builder(), []
    for one in encoded:
        made = builder.add(one.tail[:-1], one.stem)
        first = one.start - 1 - (one.stem.length - 1 if one.stem else -1)
        read += made[first:]
        if max(read) > bench.sizes.pass_tokens:
            break
    forest, place = builder.layout()
    reads = np.unique(place[read])
    edges = np.searchsorted(reads, range(0, len(forest) + nodes, nodes))
    chunks = [reads[a:b] - n * nodes for n, (a, b) in enumerate(pairwise(edges))]
    return Pass(forest, nodes, tuple(torch.from_numpy(chunk).to(bench.device) for chunk in chunks))


def _chunk(model: Any) -> int:
    return max(1, LOGIT_FLOATS // model.get_output_embeddings().weight.shape[0])


@torch.inference_mode()
def trie_pass(packed: forward.PackedForward, one: Pass) -> None:
    """Put a forest through the decoder and what is read from it through the head."""
    packed.mask_bytes = 1 << 40  # a chunk's size is what is compared, whatever its mask takes
    for start, hidden in packed.hidden(one.forest, one.nodes, one.nodes):
        for chunk in one.read[start // one.nodes].split(_chunk(packed.model)):
            packed.logits(hidden[chunk]).logsumexp(-1)


# --- 3: host and device ---------------------------------------------------------------------------------------------


def host(bench: Bench) -> None:
    """What ``loglikelihood`` takes, whole; encoding and packing by themselves; how long the model kept the device."""
    model = bench.small()
    for steps in bench.sizes.steps:
        for variant in VARIANTS:
            n = bench.sizes.chains if steps == bench.sizes.steps[0] else 1
            row = Row("host", f"{variant}, {n} chains", bench.sizes.small.name, f"{steps} steps")
            bench.report.need(10)
            bench.report.attempt(row, partial(_host, bench, model, row, bench.data.chains(steps, n), variant))


def _host(bench: Bench, model: Any, row: Row, chains: Sequence[Trace], variant: str) -> Row:
    backend = HFBackend(model, bench.data.tokenizer)
    asked = [one for part in requests_of(variant, chains) for one in part]
    backend.loglikelihood(asked[:40])
    begun = time.perf_counter()
    encoded = backend.encoder.encode(asked)
    encode = time.perf_counter() - begun
    begun = time.perf_counter()
    builder = trie.Builder()
    for one in encoded:
        builder.add(one.tail[:-1], one.stem)
    forest, _ = builder.layout()
    packing = time.perf_counter() - begun
    bench.report.need(2 * (encode + packing) + 5)
    results, first, peak_bytes = timed(lambda: backend.loglikelihood(asked), bench.device)
    bench.report.need(first)
    with DeviceClock(bench.device, model.get_decoder(), model.get_output_embeddings()) as clock:
        seconds = seconds_of(lambda: backend.loglikelihood(asked), bench.device)
    tokens = [one.tokens for one in logprobs(results)]
    computed = sum(one.computed for one in tokens)
    details = {
        "encode_seconds": encode,
        "pack_seconds": packing,
        "host_tokens_per_second": computed / (encode + packing),
        "device_seconds": clock.seconds,
        "device_busy": clock.seconds / seconds,
        "requested": sum(one.requested for one in tokens),
        "nodes": len(forest),
        "peak_bytes": peak_bytes,
    }
    return row.measured("tokens", computed, seconds, details=details)


# --- 6: PRM reading -------------------------------------------------------------------------------------------------


def prm(bench: Bench, shape: Shape) -> None:
    """A reward model of the Qwen2.5-Math-PRM kind with a random head: steps per second, and its floor."""
    model = bench.model(shape, bench.sizes.dtype)
    backend = PRMBackend(*_reward_model(bench, model))
    inputs = {
        "traces": bench.data.short[: bench.sizes.read],
        f"chains of {bench.sizes.steps[-1]} steps": bench.data.chains(bench.sizes.steps[-1], min(4, bench.sizes.read)),
    }
    for name, traces in inputs.items():
        bench.report.need(4 * bench.sizes.seconds)
        row = Row("prm", "trie", shape.name, f"{len(traces)} {name}")
        bench.report.attempt(row, partial(_prm, bench, model, backend, row, traces))


def _reward_model(bench: Bench, model: Any) -> tuple[Any, Any, Any, Any]:
    """Return decoder, head, tokenizer (with the step marker) and spec."""
    # Of the kind of Qwen2.5-Math-PRM, written out: reading specs needs packages that a bare machine lacks.
    layers = tuple(specs.Layer(f"score.{n}.weight", f"score.{n}.bias") for n in (0, 2))
    head = specs.HeadLayout("mlp", 2, layers=layers, activation="relu")
    reading = specs.Read("marker", head, specs.Transform("softmax", (1,)))
    given = specs.Input("chat", "{step}", marker="<extra_0>")
    spec = specs.Spec("chat-mlp", "a random head", "made up", given, reading, 0.5, "product")
    width = model.config.hidden_size
    sizes = {"score.0.weight": (width, width), "score.0.bias": (width,)}
    sizes |= {"score.2.weight": (2, width), "score.2.bias": (2,)}
    tensors = {name: torch.randn(size, device=bench.device) * width**-0.5 for name, size in sizes.items()}
    tokenizer = copy.deepcopy(bench.data.tokenizer)
    tokenizer.add_tokens(["<extra_0>"], special_tokens=True)
    return model.base_model, heads.from_tensors(spec, tensors, width, "a random head"), tokenizer, spec


def _prm(bench: Bench, model: Any, backend: PRMBackend, row: Row, traces: Sequence[Trace]) -> Row:
    def score() -> list[StepScores]:
        made = backend.step_scores(traces)
        for one in made:
            if not isinstance(one, StepScores):
                raise RuntimeError(f"trace {one.trace_id} failed: {one.failure}")
        return [one for one in made if isinstance(one, StepScores)]

    done = score()
    seconds = bench.repeat(score)
    computed = sum(one.tokens.computed for one in done)
    steps = sum(len(one.values) for one in done)
    lengths = [len(backend.encoder.encode(trace.problem, trace.steps).ids) for trace in traces]
    length = max(1, round(computed / len(traces)))
    together = max(1, backend.limits.batch_tokens // length)
    shapes = [(min(together, len(traces) - first), length) for first in range(0, len(traces), together)]
    floor = bench.repeat(plain_passes(model.base_model, None, shapes, 0))
    passed = sum(rows * size for rows, size in shapes)
    pairs = sum(size * (size + 1) // 2 for size in lengths)
    bench.report.add(Row("prm", "floor: plain causal, sdpa", row.model, row.size, "tokens", passed, floor))
    share = bench.of_peak(work.operations(model, computed, 0, pairs), seconds)
    details = {"computed": computed, "tokens_per_second": computed / seconds, "longest": max(lengths)}
    return row.measured("steps", steps, seconds, seconds / computed / (floor / passed), share, details)
