"""What the benchmarks share: the traces they run on, wall time and peak memory."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cpmi_eval import registry
from cpmi_eval.protocols import LoadOptions
from cpmi_eval.types import Item, Trace


def items(data_dir: str | None, n: int, keep: Callable[[Trace], bool] = lambda trace: True) -> list[Item]:
    """Return ``n`` items spread evenly over those of the task whose trace is to be kept."""
    name, subset = ("processbench", ("gsm8k",)) if data_dir else ("synthetic", ())
    data = registry.load("tasks", name)().load(LoadOptions(subset, Path(data_dir) if data_dir else None, 0, {}))
    kept = [item for item in data.items if keep(item.trace)]
    return kept[:: max(1, len(kept) // n)][:n]


def data_name(data_dir: str | None) -> str:
    """Return what a table should call the task."""
    return "ProcessBench gsm8k" if data_dir else "synthetic"


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
        while not self._done.wait(0.005):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.peak = max(self.peak, pages * 4096)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self.cuda:
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self._thread.join()


def timed(run: Callable[[], Any], device: str) -> tuple[Any, float, int]:
    """Return a call's result, wall seconds and peak bytes."""
    with PeakMemory(device) as memory:
        start = time.perf_counter()
        result = run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return result, seconds, memory.peak
