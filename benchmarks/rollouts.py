"""Rollouts through the shared engine against transformers' generate and the floor, on the same prompts in one run.

    python benchmarks/rollouts.py --data-dir DIR   # ProcessBench gsm8k; CPMI_EVAL_DATA_DIR does the same
    python benchmarks/rollouts.py                  # the embedded synthetic task
    python benchmarks/rollouts.py --schedules --skip fixed,natural,repeatable    # adaptive against full alone
    python benchmarks/rollouts.py --device cuda --dtype bfloat16 --slots 128,256,512 --chains 16 --batched-baseline

The prompts and sampling settings are those of the ``mc`` labeler. ``fixed``: the end of sequence is suppressed, so
every completion has the same length and every way decodes the same number of tokens. ``natural``: completions end
where they end, so that what counts is the time per generated token.

The floor is what reading the packed prompts once takes, and decoder and head on as many single tokens as the engine
decodes, at its batch width: no attention to a prefix or to earlier tokens, no sampling, no bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from common import data_name, items, rollouts_of, timed
from rich.console import Console
from rich.table import Table

from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.engine import trie
from cpmi_eval.engine.branches import SLOT_STEP
from cpmi_eval.engine.forward import padded
from cpmi_eval.engine.plain import cost_alone
from cpmi_eval.engine.rollouts import SharedGenerator
from cpmi_eval.engine.sampling import completion, end_tokens
from cpmi_eval.labelers.monte_carlo import MonteCarlo
from cpmi_eval.run import batches
from cpmi_eval.types import Failure, Generation, Item, Sampling, Scored, StepScores, Tokens, Trace

PLAIN, BATCHED = "generate, a prefix at a time", "generate, a chain at a time"
SECTIONS = ("fixed", "natural", "repeatable")


@dataclass(frozen=True)
class Chain:
    """The prompts of one chain's prefixes, and a seed for each of their completions."""

    prompts: list[str]
    seeds: list[list[int]]


@dataclass(frozen=True)
class Work:
    """What is drawn, and how. ``fixed``: the end of sequence is suppressed."""

    chains: list[Chain]
    sampling: Sampling
    fixed: bool

    @property
    def prompts(self) -> list[str]:
        """All prompts, chain by chain."""
        return [prompt for chain in self.chains for prompt in chain.prompts]

    @property
    def seeds(self) -> list[list[int]]:
        """The seeds of each prompt."""
        return [seeds for chain in self.chains for seeds in chain.seeds]


def work_of(backend: HFBackend, chosen: Sequence[Trace], n: int, max_new_tokens: int) -> Work:
    """Return what the mc labeler asks of its backend for these traces, up to natural ends."""
    asked = [rollouts_of(backend, trace, n, max_new_tokens) for trace in chosen]
    return Work([Chain(prompts, seeds) for prompts, seeds, _ in asked], asked[0][2], fixed=False)


# --- ways to draw ---------------------------------------------------------------------------------------------------


@contextmanager
def endless(generator: SharedGenerator) -> Iterator[None]:
    """Let no token end a completion."""
    before, generator.ends = generator.ends, set()
    try:
        yield
    finally:
        generator.ends = before


def engine(backend: HFBackend, work: Work) -> list[Generation]:
    """Draw everything in one call of the shared engine; a failure stops the benchmark."""
    if not work.fixed:
        return succeeded(backend.generate(work.prompts, work.sampling, work.seeds))
    with endless(shared(backend)):
        return succeeded(backend.generate(work.prompts, work.sampling, work.seeds))


def shared(backend: HFBackend) -> SharedGenerator:
    """Return the backend's generator, which is the engine."""
    assert isinstance(backend.generator, SharedGenerator)
    return backend.generator


def succeeded(made: Sequence[Generation | Failure]) -> list[Generation]:
    """Return the generations; a failure stops the benchmark."""
    for one in made:
        if isinstance(one, Failure):
            raise SystemExit(f"a prompt failed: {one}")
    return [one for one in made if isinstance(one, Generation)]


def plain(backend: HFBackend, work: Work, batched: bool) -> list[Generation]:
    """Draw through transformers' generate: a prompt at a time, or all prompts of a chain, padded on the left."""
    groups = [chain.prompts for chain in work.chains]
    if not batched:
        groups = [[prompt] for prompt in work.prompts]
    n = len(work.seeds[0])
    return [one for place, group in enumerate(groups) for one in generate(backend, work, group, n, place)]


@torch.inference_mode()
def generate(backend: HFBackend, work: Work, prompts: Sequence[str], n: int, seed: int) -> list[Generation]:
    """Draw ``n`` completions of each prompt in one call of generate."""
    tokenizer, sampling = backend.encoder.tokenizer, work.sampling
    ids = [backend.encoder.encode_prompt(prompt) for prompt in prompts]
    width = max(map(len, ids))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    settings: dict[str, Any] = {"min_new_tokens": sampling.max_new_tokens} if work.fixed else {}
    if sampling.stop:
        settings |= {"stop_strings": list(sampling.stop), "tokenizer": tokenizer}
    torch.manual_seed(seed)
    output = backend.model.generate(
        torch.tensor([[pad] * (width - len(one)) + one for one in ids], device=backend.model.device),
        attention_mask=torch.tensor(
            [[0] * (width - len(one)) + [1] * len(one) for one in ids], device=backend.model.device
        ),
        pad_token_id=pad,
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        num_return_sequences=n,
        max_new_tokens=sampling.max_new_tokens,
        **settings,
    )
    ends = end_tokens(backend.model, tokenizer)
    texts = output[:, width:].tolist()
    made = []
    for place, one in enumerate(ids):
        own = texts[place * n : place * n + n]
        done = tuple(completion(text, ends, tokenizer, sampling.stop, k) for k, text in enumerate(own))
        made.append(Generation(done, cost_alone(len(one), done, distinct=n)))
    return made


@torch.inference_mode()
def floor(backend: HFBackend, work: Work, made: Sequence[Generation]) -> None:
    """Run the passes that drawing ``made`` cannot do without, at the engine's batch width."""
    forward, limits = shared(backend).forward, backend.limits
    ids = [np.array(backend.encoder.encode_prompt(prompt), dtype=np.int64) for prompt in work.prompts]
    for row in trie.rows(dict(enumerate(ids)), limits.row_tokens):
        hidden = torch.cat([states for _, states in forward.hidden(row, limits.row_tokens, limits.batch_tokens)])
        forward.logits(hidden[list(row.ends.values())])
    completions = [one for prompt in made for one in prompt.completions]
    # The first token of each comes from its prompt's logits.
    whole, rest = divmod(sum(one.n_tokens - 1 for one in completions), batch_width(backend, work))
    for size in [batch_width(backend, work)] * whole + ([rest] if rest else []):
        tokens = torch.zeros((size, 1), dtype=torch.long, device=forward.device)
        forward.logits(forward.decoder(input_ids=tokens, use_cache=False).last_hidden_state[:, 0])


def batch_width(backend: HFBackend, work: Work) -> int:
    """Return how many completions the engine decodes at a time, at most."""
    wanted = padded(sum(map(len, work.seeds)), SLOT_STEP)
    return min(backend.limits.slots_for(work.sampling.max_new_tokens), wanted)


# --- sections -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One timing of one way, and the generations that it was the time of."""

    made: list[Generation]
    seconds: float
    peak: int


def compare(
    options: argparse.Namespace, backends: Sequence[HFBackend], work: Work, device: str
) -> list[dict[str, Any]]:
    """Return one row per way: tokens, the median time of ``--repeat`` rounds, ratios per generated token."""
    samples: dict[str, list[Sample]] = {}
    one_round(options, backends, replace(work, sampling=replace(work.sampling, max_new_tokens=2)), device, {})
    for _ in range(options.repeat):
        one_round(options, backends, work, device, samples)
    middle = {way: sorted(some, key=lambda one: one.seconds)[len(some) // 2] for way, some in samples.items()}
    per_token = {way: one.seconds / generated(one.made) for way, one in middle.items()}
    first = engine_name(backends[0])
    rows = []
    for way, one in middle.items():
        tokens = sum((prompt.tokens for prompt in one.made), Tokens())
        rows.append(
            {
                "section": "fixed" if work.fixed else "natural",
                "way": way,
                "prompts": len(work.prompts),
                "completions": sum(len(prompt.completions) for prompt in one.made),
                "generated": generated(one.made),
                "computed": None if is_floor(way) else tokens.computed,
                "seconds": one.seconds,
                "seconds_per_token": per_token[way],
                "time_of_first_engine": per_token[way] / per_token[first],
                "time_of_floor": per_token[way] / per_token[floor_name(way)] if floor_name(way) in middle else None,
                "peak_bytes": one.peak,
            }
        )
    return rows


def one_round(
    options: argparse.Namespace,
    backends: Sequence[HFBackend],
    work: Work,
    device: str,
    samples: dict[str, list[Sample]],
) -> None:
    """Time every way once, one after the other, so that a machine that slows down slows all of them."""

    def sample(way: str, run: Callable[[], list[Generation]]) -> list[Generation]:
        made, seconds, peak = timed(run, device)
        samples.setdefault(way, []).append(Sample(made, seconds, peak))
        return made

    for backend in backends:
        name = engine_name(backend)
        made = sample(name, lambda backend=backend: engine(backend, work))  # type: ignore[misc]
        _, seconds, _ = timed(lambda backend=backend, made=made: floor(backend, work, made), device)  # type: ignore[misc]
        samples.setdefault(floor_name(name), []).append(Sample(made, seconds, 0))
    if "baseline" not in options.skip:
        sample(PLAIN, lambda: plain(backends[0], work, batched=False))
    if options.batched_baseline:
        sample(BATCHED, lambda: plain(backends[0], work, batched=True))


def engine_name(backend: HFBackend) -> str:
    """Return what a row of the engine is called."""
    return f"engine, {backend.limits.slots} slots"


def floor_name(way: str) -> str:
    """Return what the floor of an engine's row is called."""
    return f"floor of {way}"


def is_floor(way: str) -> bool:
    """Return whether a row is a floor's."""
    return way.startswith("floor of ")


def generated(made: Sequence[Generation]) -> int:
    """Return the number of decoded tokens that completions hold."""
    return sum(one.n_tokens for prompt in made for one in prompt.completions)


def repeatable(backends: Sequence[HFBackend], work: Work) -> list[dict[str, Any]]:
    """Return the shares of completions that are the same to the letter when they are drawn beside others."""
    first, *others = backends
    reference = texts(first, work)
    backwards = [Chain(chain.prompts[::-1], chain.seeds[::-1]) for chain in work.chains[::-1]]
    drawn = {"drawn again": texts(first, work)}
    drawn |= {f"{other.limits.slots} slots": texts(other, work) for other in others}
    drawn["prompts in reverse order"] = texts(first, replace(work, chains=backwards))
    alone: dict[int, tuple[str, int]] = {}
    for chain in work.chains:
        alone |= texts(first, replace(work, chains=[chain]))
    drawn["a chain at a time"] = alone
    return [
        {
            "section": "repeatable",
            "against": f"all at once, {first.limits.slots} slots",
            "way": way,
            "completions": len(reference),
            "same": sum(other[seed] == text for seed, text in reference.items()),
        }
        for way, other in drawn.items()
    ]


def texts(backend: HFBackend, work: Work) -> dict[int, tuple[str, int]]:
    """Return every completion's text and length by its seed, which is its own."""
    made = engine(backend, work)
    return {
        seeds[one.sample]: (one.text, one.n_tokens)
        for seeds, prompt in zip(work.seeds, made, strict=True)
        for one in prompt.completions
    }


def schedules(
    options: argparse.Namespace, backend: HFBackend, chosen: Sequence[Item], device: str
) -> list[dict[str, Any]]:
    """Return what hard labels cost under the full and the adaptive schedule, in a run's batches, and how many agree."""
    labelers = {
        schedule: MonteCarlo(options.n, "hard", schedule, max_new_tokens=options.max_new_tokens)
        for schedule in ("full", "adaptive")
    }
    labelled(MonteCarlo(options.n, max_new_tokens=2), chosen, backend)  # warm-up
    samples: dict[str, list[tuple[list[StepScores], float, int]]] = {schedule: [] for schedule in labelers}
    for _ in range(options.repeat):
        for schedule, labeler in labelers.items():
            samples[schedule].append(timed(lambda labeler=labeler: labelled(labeler, chosen, backend), device))  # type: ignore[misc]
    middle = {schedule: sorted(some, key=lambda one: one[1])[len(some) // 2] for schedule, some in samples.items()}
    labels = {schedule: [value for one in scored for value in one.values] for schedule, (scored, *_) in middle.items()}
    tokens = {schedule: sum((one.tokens for one in scored), Tokens()) for schedule, (scored, *_) in middle.items()}
    return [
        {
            "section": "schedules",
            "way": schedule,
            "traces": len(chosen),
            "prefixes": len(labels[schedule]),
            "ones": int(sum(labels[schedule])),
            "same_labels": sum(a == b for a, b in zip(labels["full"], labels[schedule], strict=True)),
            "draws": sum(sum(one.details["draws"]) for one in scored),
            "generated": tokens[schedule].generated,
            "computed": tokens[schedule].computed,
            "saved_generated": 1 - tokens[schedule].generated / tokens["full"].generated,
            "seconds": seconds,
            "peak_bytes": peak,
        }
        for schedule, (scored, seconds, peak) in middle.items()
    ]


def labelled(labeler: MonteCarlo, chosen: Sequence[Item], backend: HFBackend) -> list[StepScores]:
    """Score traces in the batches a run makes; a failure stops the benchmark."""
    results: list[Scored] = []
    for batch in batches(chosen, "auto", backend):
        results += labeler.score([item.trace for item in batch], backend)
    for one in results:
        if not isinstance(one, StepScores):
            raise SystemExit(f"trace {one.trace_id} failed: {one.failure}")
    return [one for one in results if isinstance(one, StepScores)]


# --- output ---------------------------------------------------------------------------------------------------------


def comparison_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Return the figures of one comparison; ratios are of times per generated token."""
    return table(
        title,
        ("way", "generated", "computed", "seconds", "ms / token", "time / engine", "time / floor", "peak memory"),
        [
            (
                row["way"],
                f"{row['generated']:,}",
                "" if row["computed"] is None else f"{row['computed']:,}",
                f"{row['seconds']:.2f}",
                f"{1e3 * row['seconds_per_token']:.3f}",
                f"{row['time_of_first_engine']:.2f}",
                "" if row["time_of_floor"] is None else f"{row['time_of_floor']:.2f}",
                f"{row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] else "",
            )
            for row in rows
        ],
    )


def repeatable_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Return how many completions are the same under other circumstances."""
    cells = [(row["way"], f"{row['same']} / {row['completions']}") for row in rows]
    return table(title, (f"same as {rows[0]['against']}", "completions"), cells)


def schedules_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Return what the schedules cost."""
    return table(
        title,
        ("schedule", "prefixes", "label 1", "same labels", "rollouts", "generated", "computed", "saved", "seconds"),
        [
            (
                row["way"],
                f"{row['prefixes']:,}",
                f"{row['ones']:,}",
                f"{row['same_labels']:,}",
                f"{row['draws']:,}",
                f"{row['generated']:,}",
                f"{row['computed']:,}",
                f"{row['saved_generated']:.0%}",
                f"{row['seconds']:.2f}",
            )
            for row in rows
        ],
    )


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        made.add_column(heading, justify="right" if place else "left")
    for row in rows:
        made.add_row(*row)
    return made


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--model", default=models.DEFAULT_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--min-steps", type=int, default=5, help="shortest chain that is taken")
    parser.add_argument("--n", type=int, default=8, help="completions per prefix")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--slots", default="auto", help="auto, or numbers to compare: 32,64,128")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of timing; the median is shown")
    parser.add_argument("--batched-baseline", action="store_true", help="generate for all prefixes of a chain at once")
    parser.add_argument("--skip", default="", help=f"leave out: {','.join(SECTIONS)},baseline")
    parser.add_argument("--schedules", action="store_true", help="compare the full and the adaptive schedule too")
    parser.add_argument("--traces", type=int, default=16, help="traces for --schedules, of any length")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.skip = set(filter(None, options.skip.split(",")))
    if unknown := options.skip - {*SECTIONS, "baseline"}:
        parser.error(f"--skip: unknown {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Measure and print one table per section; ``--json`` for the raw figures."""
    options = read_options()
    device = models.pick_device(options.device)
    dtype = models.pick_dtype(options.dtype, device)
    model, tokenizer = models.load_model(models.resolve(options.model), dtype, device, {})
    sizes: list[dict[str, int]] = [{}]
    if options.slots != "auto":
        sizes = [{"slots": int(size)} for size in options.slots.split(",")]
    backends = [HFBackend(model, tokenizer, args=size) for size in sizes]
    for backend in backends:
        backend.prepare(frozenset({"generate"}))
    figures = measure(options, backends, device)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    where = f"{options.model}, {dtype}, {device}"
    chains = f"{options.chains} chains of {data_name(options.data_dir)}, {options.n} completions per prefix"
    console = Console(width=140)
    for section, build, what in (
        ("fixed", comparison_table, f"{chains}, {options.max_new_tokens} tokens each"),
        ("natural", comparison_table, f"{chains}, up to {options.max_new_tokens} tokens each"),
        ("repeatable", repeatable_table, f"{chains}, up to {options.max_new_tokens} tokens each"),
        ("schedules", schedules_table, f"{options.traces} traces, N = {options.n}, hard labels"),
    ):
        if rows := [row for row in figures if row["section"] == section]:
            console.print(build(rows, f"{section}: {what}, {where}"))


def measure(options: argparse.Namespace, backends: Sequence[HFBackend], device: str) -> list[dict[str, Any]]:
    """Return the rows of all wanted sections."""
    chosen = items(
        options.data_dir, options.chains, lambda t: t.answer is not None and len(t.steps) >= options.min_steps
    )
    work = work_of(backends[0], [item.trace for item in chosen], options.n, options.max_new_tokens)
    fixed = replace(work, sampling=replace(work.sampling, stop=()), fixed=True)
    figures = []
    if "fixed" not in options.skip:
        figures += compare(options, backends, fixed, device)
    if "natural" not in options.skip:
        figures += compare(options, backends, work, device)
    if "repeatable" not in options.skip:
        figures += repeatable(backends, work)
    if options.schedules:
        known = items(options.data_dir, options.traces, lambda t: t.answer is not None)
        figures += schedules(options, backends[0], known, device)
    return figures


if __name__ == "__main__":
    main()
