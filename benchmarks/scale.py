"""What workers gain, measured; and what labelling many traces costs on many GPUs, calculated.

``measure`` runs the same traces with 1, 2, ... workers of one CPU thread each (``cpmi-eval run --workers``) and prints
traces per second, the gain over one worker, and the efficiency: gain / workers. Loading is not part of it.

``paper`` calculates, from tokens per trace that were measured, what ``--traces`` traces take on ``--gpus`` GPUs::

    prefill tokens/s = mfu * peak FLOP/s / (2 * parameters)
    decode tokens/s  = min(prefill tokens/s, batch * bandwidth share * bandwidth / bytes read per decoding step)
    bytes per step   = parameters * bytes per weight + batch * context * key-value bytes per token
    GPU seconds      = traces * (read tokens per trace / prefill rate + generated tokens per trace / decode rate)
    wall time        = GPU seconds / (gpus * efficiency), and the GPU-hours that are paid for gpus * wall time

The key-value bytes of a token are 2 * layers * key-value heads * head width * bytes per weight. Read tokens are those
computed less those generated. Nothing of this part is measured but the tokens per trace, and those with another model
and tokenizer on ProcessBench gsm8k: all of it is a flag.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import cpmi_eval


@dataclass(frozen=True)
class Work:
    """Tokens per trace of a labeler: put through the model in all, and those of them that were decoded."""

    name: str
    computed: float
    generated: float

    @classmethod
    def parse(cls, text: str) -> Work:
        """Read ``name=computed/generated/traces``: counts over that many traces."""
        name, _, counts = text.rpartition("=")
        computed, generated, traces = (float(part) for part in counts.split("/"))
        return cls(name, computed / traces, generated / traces)


@dataclass(frozen=True)
class Device:
    """The rates of a model on one GPU, in tokens per second."""

    prefill: float
    decode: float


def device(args: argparse.Namespace) -> Device:
    """Calculate the rates; see the module's formulas."""
    prefill = args.mfu * args.tflops * 1e12 / (2 * args.parameters)
    cache = 2 * args.layers * args.kv_heads * args.head_width * args.weight_bytes
    step = args.parameters * args.weight_bytes + args.batch * args.context * cache
    return Device(prefill, min(prefill, args.batch * args.bandwidth_share * args.bandwidth * 1e12 / step))


def gpu_seconds(work: Work, traces: int, rates: Device) -> float:
    """Calculate what ``traces`` traces take on one GPU."""
    return traces * ((work.computed - work.generated) / rates.prefill + work.generated / rates.decode)


def paper(args: argparse.Namespace, console: Console) -> None:
    """Print the calculation and what it assumes."""
    rates = device(args)
    table = Table(title=f"{args.traces:,} traces with a model of {args.parameters:.3g} parameters: calculated")
    for heading in ("labeler", "computed / trace", "generated / trace", "GPU-hours", *(f"on {n}" for n in args.gpus)):
        table.add_column(heading, justify="left" if heading == "labeler" else "right")
    for work in args.work:
        hours = gpu_seconds(work, args.traces, rates) / 3600
        spread = (hours if n == 1 else hours / (n * args.efficiency) for n in args.gpus)
        table.add_row(
            *(work.name, f"{work.computed:,.0f}", f"{work.generated:,.0f}", f"{hours:,.2f}"),
            *(f"{one:,.2f} h" if one >= 1 else f"{60 * one:,.1f} min" for one in spread),
        )
    console.print(table)
    console.print(
        f"prefill {rates.prefill:,.0f} tokens/s = {args.mfu:.0%} of {args.tflops:,.0f} TFLOP/s over 2 FLOP per "
        f"parameter; decode {rates.decode:,.0f} tokens/s = {args.bandwidth_share:.0%} of {args.bandwidth} TB/s, "
        f"{args.batch} sequences of {args.context} tokens at a time, {args.weight_bytes:g} bytes per weight, "
        f"{args.layers} layers, {args.kv_heads} key-value heads of {args.head_width}; several GPUs at "
        f"{args.efficiency:.0%} efficiency. Loading the model, queueing and lost workers are not in it.",
        soft_wrap=True,
    )


def measure(args: argparse.Namespace, console: Console) -> None:
    """Run the same traces with each number of workers, alternating; print the best of ``--repeat`` rounds."""
    os.environ["OMP_NUM_THREADS"] = "1"
    rounds: dict[int, list[float]] = {n: [] for n in args.workers}
    spent: dict[int, float] = {}
    computed = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.repeat):
            for n in args.workers:
                result = cpmi_eval.evaluate(
                    args.labeler,
                    "synthetic",
                    task_args={"n": args.n},
                    batch_size=args.batch_size,
                    model=args.model,
                    dtype="float32",
                    device="cpu",
                    workers=n,
                    output_path=str(Path(folder) / f"{n}-{number}"),
                )
                cost = result.summary["cost"]
                rounds[n].append(cost["wall_seconds"]["score"])
                spent[n] = min(cost["device_seconds"], spent.get(n, cost["device_seconds"]))
                computed = cost["tokens"]["computed"]
    first = args.workers[0]
    table = Table(title=f"{args.labeler}, {args.n} synthetic traces, {args.model}, fp32, a thread per worker")
    for heading in ("workers", "scoring", "traces/s", "tokens/s", "gain", "efficiency", "CPU time"):
        table.add_column(heading, justify="right")
    for n in args.workers:
        seconds, gain = min(rounds[n]), min(rounds[first]) / min(rounds[n])
        table.add_row(
            *(str(n), f"{seconds:.1f} s", f"{args.n / seconds:.2f}", f"{computed / seconds:,.0f}", f"{gain:.2f}"),
            *(f"{gain * first / n:.0%}", f"{spent[n]:.1f} s"),
        )
    console.print(table)
    console.print(f"best of {args.repeat}; load average {os.getloadavg()[0]:.1f} at the end, {os.cpu_count()} CPUs")


def parser() -> argparse.ArgumentParser:
    """Return the flags; those of ``paper`` assume one H100 SXM and a 7B model of Qwen2.5's shape, in bf16."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("parts", nargs="*", choices=["measure", "paper", []], help="both by default")
    run = made.add_argument_group("measure")
    run.add_argument("--workers", type=lambda text: [int(one) for one in text.split(",")], default=[1, 2])
    run.add_argument("--labeler", default="cpmi")
    run.add_argument("--model", default="smollm2-135m")
    run.add_argument("--n", type=int, default=24, help="traces")
    run.add_argument("--batch-size", type=int, default=1, help="traces per batch")
    run.add_argument("--repeat", type=int, default=1, help="rounds")
    on = made.add_argument_group("paper")
    on.add_argument("--traces", type=int, default=80_000)
    on.add_argument("--gpus", type=lambda text: [int(one) for one in text.split(",")], default=[1, 8, 64])
    on.add_argument(
        "--work",
        type=Work.parse,
        nargs="+",
        metavar="NAME=COMPUTED/GENERATED/TRACES",
        default=[Work("cpmi", 693_849 / 400, 0), Work("mc n=8, max_new_tokens=256", 228e3 / 50, 209e3 / 50)],
        help="measured tokens; by default those of docs/results.md, SmolLM2 on ProcessBench gsm8k",
    )
    on.add_argument("--parameters", type=float, default=7e9)
    on.add_argument("--layers", type=int, default=28)
    on.add_argument("--kv-heads", type=int, default=4)
    on.add_argument("--head-width", type=int, default=128)
    on.add_argument("--weight-bytes", type=float, default=2, help="of weights and of the key-value cache")
    on.add_argument("--tflops", type=float, default=989, help="dense peak at that precision")
    on.add_argument("--mfu", type=float, default=0.4, help="share of that peak reached when reading")
    on.add_argument("--bandwidth", type=float, default=3.35, help="of memory, TB/s")
    on.add_argument("--bandwidth-share", type=float, default=0.6, help="share of it reached when decoding")
    on.add_argument("--batch", type=int, default=128, help="sequences decoded at a time")
    on.add_argument("--context", type=int, default=512, help="tokens whose keys and values a sequence reads per step")
    on.add_argument("--efficiency", type=float, default=0.95, help="of several GPUs against one")
    return made


def main() -> None:
    """Print what was asked for."""
    args = parser().parse_args()
    console = Console()
    for part in args.parts or ["measure", "paper"]:
        {"measure": measure, "paper": paper}[part](args, console)


if __name__ == "__main__":
    main()
