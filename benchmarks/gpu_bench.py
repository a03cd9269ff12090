"""What the sections of ``gpu.py`` share: how much is measured, the models in use, repeated timing, device time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gpu_work as work
import torch
from common import seconds_of
from gpu_report import Report
from gpu_work import Data, Shape

VARIANTS = ("marginal", "prefix")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    small: Shape
    large: Shape
    exact: Shape
    dtype: torch.dtype
    nodes: tuple[int, ...]
    pass_tokens: int
    steps: tuple[int, ...]
    chains: int
    slots: tuple[int, ...]
    decoded: int
    n: int
    completion: int
    labelled: int
    exact_traces: int
    exact_steps: int  # of each, at most
    read: int
    seconds: float  # of each short measurement, repetitions together
    matmul: int


GPU = Sizes(
    *(work.QWEN_1_5B, work.QWEN_7B, work.EXACT, torch.bfloat16),
    nodes=(512, 2048, 8192),
    pass_tokens=16384,
    steps=(10, 160),
    chains=8,
    slots=(64, 128, 256, 512),
    decoded=96,
    n=8,
    completion=512,
    labelled=10,
    exact_traces=4,
    exact_steps=100,
    read=48,
    seconds=1.5,
    matmul=8192,
)
TINY = Sizes(
    *(work.TINY, work.TINY, work.TINY, torch.float32),
    nodes=(64, 128, 256),
    pass_tokens=512,
    steps=(3, 6),
    chains=2,
    slots=(8, 16),
    decoded=6,
    n=2,
    completion=8,
    labelled=1,
    exact_traces=1,
    exact_steps=2,
    read=4,
    seconds=0.05,
    matmul=128,
)


@dataclass
class Bench:
    """What all sections share; models are built when they are first asked for."""

    device: str
    sizes: Sizes
    data: Data
    report: Report
    peak: float | None = None
    step_seconds: dict[int, float] = field(default_factory=dict)  # of the engine's decoding, by slots
    _models: dict[tuple[Shape, torch.dtype], Any] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.startswith("cuda")

    def model(self, shape: Shape, dtype: torch.dtype) -> Any:
        """Return a random model, attending through sdpa."""
        if (shape, dtype) not in self._models:
            self._models[shape, dtype] = work.build(shape, self.data.tokenizer, self.device, dtype)
        model = self._models[shape, dtype]
        model.set_attn_implementation("sdpa")
        return model

    def small(self) -> Any:
        """Return the model of 1.5B."""
        return self.model(self.sizes.small, self.sizes.dtype)

    def drop(self, shape: Shape) -> None:
        """Let go of the models of a shape."""
        self._models = {key: model for key, model in self._models.items() if key[0] != shape}

    def repeat(self, run: Callable[[], Any]) -> float:
        """Return the median seconds of a call, after one that warms up; slow ones are timed once."""
        self.report.need(seconds_of(run, self.device))
        taken: list[float] = []
        while not taken or (sum(taken) < self.sizes.seconds and len(taken) < 20):
            taken.append(seconds_of(run, self.device))
        return statistics.median(taken)

    def of_peak(self, operations: float, seconds: float) -> float | None:
        """Return the share of the card's bf16 peak."""
        return None if self.peak is None else operations / seconds / self.peak


class DeviceClock:
    """Seconds that modules keep the device busy while open: between events before and after each of their calls."""

    def __init__(self, device: str, *modules: Any) -> None:
        """Prepare to listen to ``modules``, which do not hold each other."""
        self.cuda, self.modules = device.startswith("cuda"), modules
        self._marks: list[list[Any]] = []
        self._handles: list[Any] = []

    def _mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self) -> DeviceClock:
        """Listen."""
        for module in self.modules:
            before = module.register_forward_pre_hook(lambda *_: self._marks.append([self._mark()]))
            after = module.register_forward_hook(lambda *_: self._marks[-1].append(self._mark()))
            self._handles += [before, after]
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()

    @property
    def seconds(self) -> float:
        """The sum."""
        pairs = [mark for mark in self._marks if len(mark) == 2]
        if not self.cuda:
            return sum(after - before for before, after in pairs)
        torch.cuda.synchronize()
        return sum(before.elapsed_time(after) for before, after in pairs) / 1000
