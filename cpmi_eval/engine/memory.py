"""Peak memory while something runs: of a GPU, or the resident set of this process."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak(devices: Sequence[Any]) -> None:
    """Begin to measure the peak anew, where the platform can: on CUDA and on Linux."""
    if gpus := [device for device in devices if device.type == "cuda"]:
        import torch

        for device in gpus:
            torch.cuda.reset_peak_memory_stats(device)
        return
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # glibc keeps what is free: a run would start at an old peak
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # elsewhere the peak is the process's own, since it started
        _CLEAR.write_text("5", encoding="ascii")  # proc(5): resets the peak resident set to the current one


def peak_bytes(devices: Sequence[Any]) -> int:
    """The peak in bytes since :func:`reset_peak`, that of several GPUs added up; 0 where nobody says."""
    if gpus := [device for device in devices if device.type == "cuda"]:
        import torch

        return sum(int(torch.cuda.max_memory_allocated(device)) for device in gpus)
    if _STATUS.is_file():
        peak = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="utf-8", errors="replace"))
        return int(peak[1]) * 1024 if peak else 0
    try:
        import resource
    except ImportError:
        return 0
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_kb if sys.platform == "darwin" else peak_kb * 1024
