"""What ``gpu.py`` writes: rows as they come, sections that failed or were skipped, the machine, the energy used.

The JSON file and the table are written anew after every row, each in one step, so that a run that is cut off leaves
what it had measured. Plain text: the machine it is for has torch and transformers and little else.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

SCHEMA, SCHEMA_VERSION = "cpmi_eval.benchmarks.gpu", 1
GRACE = 15.0  # seconds past the budget after which a section that hangs takes the run with it
COLUMNS = ("section", "what", "model", "size", "amount", "seconds", "per second", "time / floor", "of peak", "more")


class OutOfTime(Exception):  # noqa: N818 (nothing went wrong)
    """The budget is spent; what is left of a section is skipped."""


@dataclass(frozen=True)
class Row:
    """One measurement. ``amount`` of ``unit`` took ``seconds``; ``floor``: time per unit over that of the floor.

    ``peak``: useful operations per second over the card's dense bf16 peak. ``details``: what else was measured, by
    name, in SI units. ``status``: ``ok``; ``wrong`` (a correctness check that did not hold), ``failed`` (``error``
    says how) or ``skipped`` (``reason`` says why).
    """

    section: str
    what: str
    model: str = ""
    size: str = ""
    unit: str = "tokens"
    amount: int | None = None
    seconds: float | None = None
    floor: float | None = None
    peak: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    status: Literal["ok", "wrong", "failed", "skipped"] = "ok"
    reason: str | None = None
    error: Mapping[str, str] | None = None

    @property
    def rate(self) -> float | None:
        """Amount per second."""
        return self.amount / self.seconds if self.amount is not None and self.seconds else None

    def measured(
        self,
        unit: str,
        amount: int,
        seconds: float,
        floor: float | None = None,
        peak: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Row:
        """Return the row with what was measured."""
        return replace(self, unit=unit, amount=amount, seconds=seconds, floor=floor, peak=peak, details=details or {})

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {**asdict(self), "per_second": self.rate}

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        more = [f"{name} {_short(value)}" for name, value in self.details.items() if value is not None]
        if self.status != "ok":
            more.insert(0, f"{self.status.upper()}: {self.reason or (self.error or {}).get('message', '')}"[:160])
        return (
            self.section,
            self.what,
            self.model,
            self.size,
            "" if self.amount is None else f"{self.amount:,} {self.unit}",
            "" if self.seconds is None else f"{self.seconds:.4g}",
            "" if self.rate is None else f"{self.rate:,.0f}" if self.rate >= 100 else f"{self.rate:.3g}",
            "" if self.floor is None else f"{self.floor:.2f}",
            "" if self.peak is None else f"{self.peak:.1%}",
            ", ".join(more),
        )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def described(error: BaseException) -> dict[str, str]:
    """Return an exception as the JSON file holds it."""
    lines = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error)[:2000], "traceback": lines[-8000:]}


class Report:
    """The document in the making. ``budget``: seconds from now until what is left is skipped."""

    def __init__(self, folder: Path, budget: float, header: Mapping[str, Any], start: float | None = None) -> None:
        """Make the folder and write the first, empty document; ``start``: when the budget began, else now."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.budget = folder, budget
        self.start = time.perf_counter() if start is None else start
        self.rows: list[Row] = []
        self.sections: dict[str, dict[str, Any]] = {}
        self.document = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "complete": False, **header}
        self._lock = threading.Lock()
        self.write()

    def left(self) -> float:
        """Return the seconds that are left of the budget."""
        return self.budget - (time.perf_counter() - self.start)

    def need(self, seconds: float) -> None:
        """Raise :class:`OutOfTime` where fewer seconds are left than the next measurement takes, at a guess."""
        if self.left() < seconds:
            raise OutOfTime(f"{max(0.0, self.left()):.0f} s of the budget were left, some {seconds:.0f} s are needed")

    def add(self, row: Row) -> None:
        """Keep a row, print it, write everything."""
        self.rows.append(row)
        print(" | ".join(filter(None, row.cells())), flush=True)
        self.write()

    def attempt(self, row: Row, measure: Callable[[], Row]) -> Row | None:
        """Add what ``measure`` returns; where it raises, add ``row`` as failed, with the error, and return None."""
        try:
            measured = measure()
        except OutOfTime:
            raise
        except Exception as error:  # noqa: BLE001 (nobody can debug there: every error is a result)
            self.add(_failed(row, error))
            _forget()
            return None
        self.add(measured)
        return measured

    def section(self, name: str, run: Callable[[], None]) -> None:
        """Run a section by itself: an error, or too little time, is recorded and ends this section alone."""
        begun, before = time.perf_counter(), len(self.rows)
        state: dict[str, Any] = {"status": "running"}
        self.sections[name] = state
        print(f"--- {name}, {self.left():.0f} s left", flush=True)
        try:
            self.need(1.0)
            run()
        except OutOfTime as error:
            state["reason"] = str(error)
            self.add(Row(name, "what is left of this section", status="skipped", reason=str(error)))
        except Exception as error:  # noqa: BLE001
            state["error"] = described(error)
            self.add(_failed(Row(name, "the section"), error))
        if any(row.status in ("failed", "wrong") for row in self.rows[before:]):
            state["status"] = "failed"
        else:
            state["status"] = "skipped" if "reason" in state else "ok"
        state["seconds"] = time.perf_counter() - begun
        _forget()
        self.write()

    @property
    def failed(self) -> bool:
        """Whether a correctness check did not hold, or something raised."""
        return any(row.status in ("wrong", "failed") for row in self.rows)

    def finish(self) -> None:
        """Mark the document as complete."""
        self.document["complete"] = True
        self.document["seconds"] = time.perf_counter() - self.start
        self.write()

    def write(self) -> None:
        """Replace both files by what is known now."""
        with self._lock:
            rows = list(self.rows)
            document = {**self.document, "sections": self.sections, "rows": [row.as_dict() for row in rows]}
            _replace(self.folder / "gpu.json", json.dumps(document, indent=2, default=str) + "\n")
            _replace(self.folder / "gpu.txt", table(rows) + "\n")

    def watch(self) -> threading.Timer:
        """End the process should a section hang past the budget: say where, keep the rows, exit with 1."""

        def end() -> None:
            for state in self.sections.values():
                if state["status"] == "running":
                    state |= {"status": "failed", "reason": f"still running {GRACE:.0f} s after the budget was spent"}
            self.write()
            print("a section hangs; its stack:", file=sys.stderr)
            faulthandler.dump_traceback()
            sys.stderr.flush()
            os._exit(1)

        timer = threading.Timer(max(0.0, self.left()) + GRACE, end)
        timer.daemon = True
        timer.start()
        return timer


def _failed(row: Row, error: BaseException) -> Row:
    return replace(row, status="failed", error=described(error))


def _forget() -> None:
    """Give memory back that a failure, or a section that is over, was holding."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # after some errors a GPU refuses everything; what comes next will say so
            torch.cuda.empty_cache()


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(path.suffix + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def table(rows: Sequence[Row]) -> str:
    """Return rows as text in columns; numbers on the right."""
    cells = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {0, 1, 2, 3, len(COLUMNS) - 1}
    lines = [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


# --- the machine ----------------------------------------------------------------------------------------------------

# Dense bf16 operations per second, from the makers' data sheets; the first name that a card's name holds counts.
BF16_PEAK = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 836e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}
QUERIED = ("name", "uuid", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "pstate")


def environment(device: str) -> dict[str, Any]:
    """Return the versions and the hardware that the figures depend on."""
    import tokenizers
    import torch
    import transformers

    about: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": device,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "nvidia_smi": ask_nvidia_smi(QUERIED),
        }
    return about


def known_peak(gpu: str) -> float | None:
    """Return the dense bf16 peak of a card by its name."""
    return next((peak for name, peak in BF16_PEAK.items() if name in gpu), None)


def matmul_rate(device: str, size: int) -> float:
    """Return operations per second of a bf16 product of two square matrices."""
    import torch

    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    a @ b
    _synchronize(device)
    rounds, start = 0, time.perf_counter()
    while rounds < 3 or time.perf_counter() - start < 0.5:
        for _ in range(8):
            a @ b
        _synchronize(device)
        rounds += 8
    return rounds * 2 * size**3 / (time.perf_counter() - start)


def _synchronize(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()


# --- energy ---------------------------------------------------------------------------------------------------------


def ask_nvidia_smi(fields: Sequence[str]) -> dict[str, str] | None:
    """Return what nvidia-smi says of the first visible GPU; None where it is not there or says nothing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", f"--id={visible or 0}"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in said.strip().split("\n")[0].split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else None


class Energy:
    """Joules that the GPU uses while open: from its own counter, else from samples of its power, else ``None``."""

    def __init__(self, device: str) -> None:
        """Find out what there is to ask."""
        self.joules: float | None = None
        self.source: str | None = None
        self._counter = _counter() if device.startswith("cuda") else None
        self._samples: list[float] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        if self._counter is None and device.startswith("cuda") and ask_nvidia_smi(["power.draw"]):
            self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            said = ask_nvidia_smi(["power.draw"])
            try:
                self._samples.append(float((said or {})["power.draw"]))
            except (KeyError, ValueError):
                continue  # "[N/A]" now and then

    def __enter__(self) -> Energy:
        """Begin."""
        self._start = time.perf_counter()
        self._first = self._counter() if self._counter else None
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the difference, or the mean of the samples times the seconds."""
        seconds = time.perf_counter() - self._start
        self._done.set()
        if self._counter is not None and self._first is not None:
            last = self._counter()
            if last is not None and last > self._first:
                self.joules, self.source = last - self._first, "counter"
        elif self._thread is not None:
            self._thread.join(timeout=15)
            if len(self._samples) >= 3:
                self.joules, self.source = seconds * sum(self._samples) / len(self._samples), "samples"


def _counter() -> Callable[[], float | None] | None:
    """Return a reader of the GPU's energy counter, in joules, through the driver's management library."""
    import torch

    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle = ctypes.c_void_p()
        if library.nvmlInit_v2() != 0:
            return None
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode()
        if library.nvmlDeviceGetHandleByUUID(ctypes.c_char_p(uuid), ctypes.byref(handle)) != 0:
            return None
    except (OSError, AttributeError):
        return None

    def read() -> float | None:
        millijoules = ctypes.c_ulonglong()
        if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
            return None
        return millijoules.value / 1000

    try:
        return read if read() is not None else None
    except AttributeError:
        return None
