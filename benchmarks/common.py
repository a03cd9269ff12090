"""What the benchmarks share: traces, what labelers ask of a model, plain passes as a floor, wall time, peak memory."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cpmi_eval import registry
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.labelers.monte_carlo import MonteCarlo
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.types import Failure, Item, LogProb, Sampling, ScoreRequest, Trace

HEAD_ROWS = 256  # positions that a floor puts through the head at a time


def items(
    data_dir: str | None,
    n: int,
    keep: Callable[[Trace], bool] = lambda trace: True,
    subsets: Sequence[str] = ("gsm8k",),
) -> list[Item]:
    """Return ``n`` items spread evenly over those of the task whose trace is to be kept."""
    name = "processbench" if data_dir else "synthetic"
    options = LoadOptions(tuple(subsets) if data_dir else (), Path(data_dir) if data_dir else None, 0, {})
    kept = [item for item in registry.load("tasks", name)().load(options).items if keep(item.trace)]
    return kept[:: max(1, len(kept) // n)][:n]


def data_name(data_dir: str | None) -> str:
    """Return what a table should call the task."""
    return "ProcessBench gsm8k" if data_dir else "synthetic"


# --- what labelers ask of a model -----------------------------------------------------------------------------------


def requests_of(variant: str, chosen: Sequence[Trace]) -> list[list[ScoreRequest]]:
    """Return, per trace, what the cpmi labeler asks (K = 4 templates, M = 4 negatives)."""

    class Recorder:
        capabilities = frozenset({"loglikelihood"})

        def __init__(self) -> None:
            self.asked: list[ScoreRequest] = []

        def loglikelihood(self, asked: Sequence[ScoreRequest]) -> list[LogProb]:
            self.asked = list(asked)
            return [LogProb(0.0, 1)] * len(asked)

    per_trace = []
    for trace in chosen:
        recorder = Recorder()
        list(CPMI(variant).score([trace], recorder))  # type: ignore[arg-type]
        per_trace.append(recorder.asked)
    return per_trace


def rollouts_of(backend: Any, trace: Trace, n: int, max_new_tokens: int) -> tuple[list[str], list[list[int]], Sampling]:
    """Return what the mc labeler asks of its backend for a trace: prompts, seeds of each, sampling settings."""

    class Recorder:
        capabilities = frozenset({"generate"})
        has_chat_template = backend.has_chat_template
        chat_prompt = staticmethod(backend.chat_prompt)

        def generate(self, prompts: Any, sampling: Sampling, seeds: Any, enough: Any) -> list[Failure]:
            self.asked = prompts, seeds, sampling
            return [Failure("recorded", "nothing was drawn")] * len(prompts)

    recorder = Recorder()
    list(MonteCarlo(n, max_new_tokens=max_new_tokens).score([trace], recorder))  # type: ignore[arg-type]
    return recorder.asked


# --- the floor ------------------------------------------------------------------------------------------------------


def plain_passes(
    decoder: Any, head: Any, shapes: Sequence[tuple[int, int]], positions: int, head_rows: int = HEAD_ROWS
) -> Callable[[], None]:
    """Return a run of plain causal passes over ``shapes`` (rows, length), then of the head at ``positions``.

    ``head``: the language model's, ``None`` where nothing is read from it.
    """
    table = decoder.get_input_embeddings().weight
    width = table.shape[1]
    hidden = torch.randn(min(head_rows, max(1, positions)), width).to(table.device, table.dtype)

    @torch.inference_mode()
    def run() -> None:
        for rows, length in shapes:
            decoder(input_ids=torch.randint(0, table.shape[0], (rows, length), device=table.device), use_cache=False)
        for done in range(0, positions, head_rows):
            head(hidden[: positions - done]).float().logsumexp(-1)

    return run


# --- time and memory ------------------------------------------------------------------------------------------------


class PeakMemory:
    """Peak memory while open: of the GPU, or this process's resident set, sampled every 5 ms (Linux)."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.peak = 0
        self._done = threading.Event()

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        done = False
        while not done:  # once at least, however short it is
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.peak = max(self.peak, pages * 4096)
            done = self._done.wait(0.005)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self.cuda:
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self._thread.join()


def synchronize(device: str) -> None:
    """Wait for what the device still has to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Return the wall seconds of a call; memory that is held for later stays held."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def timed(run: Callable[[], Any], device: str) -> tuple[Any, float, int]:
    """Return a call's result, wall seconds and peak bytes; it begins without memory held for later."""
    with PeakMemory(device) as memory:
        synchronize(device)
        start = time.perf_counter()
        result = run()
        synchronize(device)
        seconds = time.perf_counter() - start
    return result, seconds, memory.peak
