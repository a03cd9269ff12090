"""One command on a borrowed GPU: is it right, how fast is it, and what limits it; in under nine minutes.

    python benchmarks/gpu.py --prepare build/gpu --data-dir DIR    # once, anywhere: tokenizer and traces, 10 MB at most
    python benchmarks/gpu.py --prepared build/gpu --output results  # on the machine with the GPU
    python benchmarks/gpu.py --device cpu --tiny                    # all of it on tiny models, in about a minute

The machine needs torch and transformers with what they depend on: no network, no weights, no installation of this
package. Models have the shapes of Qwen2.5-1.5B and 7B and random weights, made on the device. ``gpu.json`` and
``gpu.txt`` are written anew after every row. Exit code 1: a check of correctness did not hold, or something raised;
what it was is in gpu.json, and the other sections ran.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import threading
import time
import types
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("peak", "correctness", "throughput", "host", "rollouts", "labelers", "prm", "continuous")


def without_installation() -> None:
    """Let ``cpmi_eval`` and ``cpmi_eval.tasks`` be found in this checkout, installed or not.

    The package's own ``__init__`` is left out: it imports the runner, and with it libraries that a bare machine lacks.
    """
    package = types.ModuleType("cpmi_eval")
    package.__path__ = [str(ROOT / "cpmi_eval")]
    sys.modules["cpmi_eval"] = package
    folder = ROOT / "tasks"
    spec = importlib.util.spec_from_file_location(
        "cpmi_eval.tasks", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    tasks = importlib.util.module_from_spec(spec)
    sys.modules["cpmi_eval.tasks"] = tasks
    spec.loader.exec_module(tasks)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="write tokenizer and traces to DIR and stop")
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"), help="ProcessBench, for --prepare")
    parser.add_argument("--prepared", type=Path, default=ROOT / "build" / "gpu", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), metavar="DIR")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models and little of everything")
    parser.add_argument("--budget", type=float, default=520.0, help="seconds after which what is left is skipped")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which to run; peak is always measured")
    options = parser.parse_args()
    options.sections = options.sections.split(",")
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"--sections: unknown {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return options


def settle() -> None:
    """Settings that must stand before torch is imported: no hub, and fp32 that is fp32."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    for name in ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"):  # some images set them
        os.environ.pop(name, None)


def main() -> int:
    """Prepare, or measure; return the exit code."""
    start = time.perf_counter()
    options = read_options()
    options.start = start
    settle()
    without_installation()
    if options.prepare is not None:
        import gpu_work

        print(json.dumps(gpu_work.prepare(options.prepare, options.data_dir)))
        return 0
    return measure(options)


def measure(options: argparse.Namespace) -> int:
    """Run the sections, those first without which the others say little."""
    import gpu_report
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU is usable here; --device cpu --tiny runs everything on tiny models", file=sys.stderr)
        return 2
    header: dict[str, Any] = {
        "options": {"tiny": options.tiny, "budget": options.budget, "sections": options.sections},
    }
    report = gpu_report.Report(options.output, options.budget, header, options.start)
    watch = report.watch()
    shared: dict[str, Any] = {}
    report.section("set up", partial(_set_up, options, report, shared))
    if "bench" in shared:
        _run(options, report, shared["bench"])
    report.finish()
    watch.cancel()
    print((options.output / "gpu.txt").read_text(encoding="utf-8"))
    failed = report.failed or "bench" not in shared
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()  # a thread of generate_batch that did not end would keep the process
        os._exit(int(failed))
    return int(failed)


def _set_up(options: argparse.Namespace, report: Any, shared: dict[str, Any]) -> None:
    import gpu_bench
    import gpu_report
    import gpu_work
    import torch
    import torch._dynamo

    report.document["environment"] = gpu_report.environment(options.device)
    if options.tiny:
        torch.set_num_threads(1)  # tiny tensors: threads only wait for each other
    for name in (
        "recompile_limit",
        "accumulated_recompile_limit",
    ):  # FlexAttention meets more shapes here than in a run
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, max(256, getattr(torch._dynamo.config, name)))
    row = gpu_report.Row("set up", "tokenizer and traces")
    loaded: list[gpu_work.Data] = []

    def load() -> gpu_report.Row:
        loaded.append(gpu_work.load(options.prepared))
        return replace(row, details={"from": loaded[0].source})

    report.attempt(row, load)
    data = loaded[0] if loaded else gpu_work.load(None)
    report.document["data"] = {
        "source": data.source,
        "vocabulary": len(data.tokenizer),
        "traces": len(data.short),
        "long_chains": [len(one.steps) for one in data.long],
    }
    sizes = gpu_bench.TINY if options.tiny else gpu_bench.GPU
    shared["bench"] = gpu_bench.Bench(options.device, sizes, data, report)


def _run(options: argparse.Namespace, report: Any, bench: Any) -> None:
    import gpu_rollouts
    import gpu_scoring
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # what it warns of is meant
    small, large = bench.sizes.small, bench.sizes.large
    report.section("peak", partial(gpu_scoring.peak, bench))
    order = [
        ("correctness", partial(gpu_scoring.correctness, bench)),
        ("throughput", partial(gpu_scoring.throughput, bench, small)),
        ("host", partial(gpu_scoring.host, bench)),
        ("rollouts", partial(gpu_rollouts.rollouts, bench)),
        ("labelers", partial(gpu_rollouts.labelers, bench)),
        ("prm", partial(gpu_scoring.prm, bench, small)),
        ("throughput", partial(gpu_scoring.throughput, bench, large)),
        ("prm", partial(gpu_scoring.prm, bench, large)),
        (
            "continuous",
            partial(gpu_rollouts.continuous, bench),
        ),  # last: should it hang, nothing is lost
    ]
    for place, (name, run) in enumerate(order):
        again = any(other == name for other, _ in order[:place])
        if name in options.sections:
            report.section(f"{name}, {large.name}" if again else name, run)


if __name__ == "__main__":
    sys.exit(main())
