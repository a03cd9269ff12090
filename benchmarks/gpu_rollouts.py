"""Sections of ``gpu.py`` that decode: rollouts against their floors and generate_batch, CPMI against Monte-Carlo."""

from __future__ import annotations

import importlib.util
import inspect
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from common import rollouts_of, synchronize, timed
from gpu_bench import VARIANTS, Bench
from gpu_report import Energy, Row

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.types import Failure, Generation, Sampling, StepScores, Trace

# --- 4: rollouts ----------------------------------------------------------------------------------------------------


def prompts_of(bench: Bench, backend: Any, slots: int, new: int) -> tuple[list[str], list[list[int]], Sampling]:
    """Return the mc labeler's prompts, seeds and settings for as many completions as there are slots."""
    prompts: list[str] = []
    seeds: list[list[int]] = []
    n = bench.sizes.n
    for trace in bench.data.short:
        own, own_seeds, sampling = rollouts_of(backend, trace, n, new)
        prompts, seeds = prompts + own, seeds + own_seeds
        if len(prompts) * n >= slots:
            break
    return prompts[: slots // n], seeds[: slots // n], sampling


def rollouts(bench: Bench) -> None:
    """Completions of a given length: decoding steps that nothing can beat, a plain loop, this engine; by slots."""
    model, new = bench.small(), bench.sizes.decoded
    for slots in bench.sizes.slots:
        bench.report.need(20 if bench.cuda else 1)
        name, size = bench.sizes.small.name, f"{slots} slots"
        length = _prompt_length(bench, model, slots)
        bare = Row("rollouts", "floor: one token alone, CUDA graph", name, size)
        bench.report.attempt(bare, partial(_bare_floor, bench, model, bare, slots, new))
        loop = Row("rollouts", "floor: plain loop, dynamic cache", name, size)
        found = bench.report.attempt(loop, partial(_loop_floor, bench, model, loop, slots, new, length))
        floor = None if found is None or not found.seconds else found.seconds / new
        ours = Row("rollouts", "engine", name, size)
        bench.report.attempt(ours, partial(_engine, bench, model, ours, slots, new, floor))


def _prompt_length(bench: Bench, model: Any, slots: int) -> int:
    backend = HFBackend(model, bench.data.tokenizer, args={"slots": slots})
    prompts, *_ = prompts_of(bench, backend, slots, bench.sizes.decoded)
    return max(1, round(statistics.mean(len(backend.encoder.encode_prompt(prompt)) for prompt in prompts)))


def _engine(bench: Bench, model: Any, row: Row, slots: int, new: int, floor: float | None) -> Row:
    backend = HFBackend(model, bench.data.tokenizer, args={"slots": slots})
    prompts, seeds, sampling = prompts_of(bench, backend, slots, new)
    backend.generate(prompts, Sampling(2, sampling.temperature, sampling.top_p, sampling.top_k), seeds)
    made, seconds, peak_bytes = timed(lambda: backend.generate(prompts, sampling, seeds), bench.device)
    done = generations(made)
    amount = sum(one.n_tokens for prompt in done for one in prompt.completions)
    bench.step_seconds[slots] = seconds / new
    completions = sum(len(one.completions) for one in done)
    details = {
        "ms_per_step": 1e3 * seconds / new,
        "completions": completions,
        "prompt_tokens_computed": sum(one.tokens.computed for one in done) - (amount - completions),
        "decoded_at_a_time": backend.limits.slots_for(new),
        "peak_bytes": peak_bytes,
    }
    ratio = None if floor is None else seconds / new / floor
    return row.measured("tokens", amount, seconds, ratio, details=details)


def generations(made: Sequence[Generation | Failure]) -> list[Generation]:
    """Return generations; a failure is an error."""
    for one in made:
        if isinstance(one, Failure):
            raise RuntimeError(f"a prompt failed: {one}")
    return [one for one in made if isinstance(one, Generation)]


@torch.inference_mode()
def _loop_floor(bench: Bench, model: Any, row: Row, slots: int, new: int, length: int) -> Row:
    """Decode greedily after prompts of ``length`` tokens whose keys and values are random; they are not timed."""
    from transformers import DynamicCache

    config = model.config
    shape = (slots, config.num_key_value_heads, length, config.hidden_size // config.num_attention_heads)
    decoder, head = model.get_decoder(), model.get_output_embeddings()

    def loop(steps: int) -> float:
        cache = DynamicCache()
        for layer in range(config.num_hidden_layers):
            keys, values = (torch.randn(shape, device=bench.device, dtype=model.dtype) for _ in range(2))
            cache.update(keys, values, layer)
        tokens = torch.zeros((slots, 1), dtype=torch.long, device=bench.device)
        synchronize(bench.device)
        begun = time.perf_counter()
        for _ in range(steps):
            hidden = decoder(input_ids=tokens, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            tokens = head(hidden).argmax(-1)[:, None]
        synchronize(bench.device)
        return time.perf_counter() - begun

    loop(2)
    seconds = loop(new)
    details = {"ms_per_step": 1e3 * seconds / new, "prompt_length": length}
    return row.measured("tokens", slots * new, seconds, details=details)


@torch.inference_mode()
def _bare_floor(bench: Bench, model: Any, row: Row, slots: int, new: int) -> Row:
    """Decoder and head on one token of each slot, without anything before it: the weights are read, no more."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    tokens = torch.zeros((slots, 1), dtype=torch.long, device=bench.device)
    position = torch.zeros_like(tokens)
    # A mask is given, lest the model looks at positions to make one: that would wait for the device.
    mask = torch.zeros((slots, 1, 1, 1), dtype=model.dtype, device=bench.device)

    def step() -> None:
        output = decoder(input_ids=tokens, attention_mask=mask, position_ids=position, use_cache=False)
        tokens.copy_(head(output.last_hidden_state[:, -1]).argmax(-1)[:, None])

    again = _captured(step) if bench.cuda else step
    seconds = bench.repeat(lambda: [again() for _ in range(new)])
    details = {"ms_per_step": 1e3 * seconds / new, "cuda_graph": bench.cuda}
    return row.measured("tokens", slots * new, seconds, details=details)


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return a replay of ``step``'s CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def continuous(bench: Bench) -> None:
    """The same completions through transformers' ``generate_batch``: with CUDA graphs, and as it chooses."""
    model, new = bench.small(), bench.sizes.decoded
    for slots in bench.sizes.slots:
        for graphs in (True, None):
            what = f"generate_batch, CUDA graphs {'as it chooses' if graphs is None else 'on'}"
            row = Row("continuous", what, bench.sizes.small.name, f"{slots} slots")
            if graphs and not bench.cuda:
                bench.report.add(replace(row, status="skipped", reason="CUDA graphs need a GPU"))
                continue
            bench.report.need(25 if bench.cuda else 1)
            try:
                bench.report.attempt(row, partial(_generate_batch, bench, model, row, slots, new, graphs))
            finally:
                model.set_attn_implementation("sdpa")


def paged() -> str:
    """Return the attention that generate_batch is given: flash where its package is installed, else SDPA."""
    return "paged|flash_attention_2" if importlib.util.find_spec("flash_attn") else "paged|sdpa"


def _generate_batch(bench: Bench, model: Any, row: Row, slots: int, new: int, graphs: bool | None) -> Row:
    from transformers import GenerationConfig
    from transformers.generation import configuration_utils

    if not hasattr(model, "generate_batch"):
        raise RuntimeError("this transformers has no generate_batch")
    backend = HFBackend(model, bench.data.tokenizer, args={"slots": slots})
    prompts, seeds, sampling = prompts_of(bench, backend, slots, new)
    ids = [backend.encoder.encode_prompt(prompt) for prompt in prompts]
    asked = [one for one, own in zip(ids, seeds, strict=True) for _ in own]
    settings = GenerationConfig(
        max_new_tokens=new,
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        eos_token_id=-1,
        pad_token_id=0,
    )
    page = 32
    pages = sum(-(-(len(one) + new) // page) + 1 for one in asked)
    wanted = {"num_blocks": pages, "max_batch_tokens": max(slots, 2048), "use_cuda_graph": graphs}
    taken = inspect.signature(model.generate_batch).parameters
    arguments: dict[str, Any] = {"inputs": asked, "generation_config": settings}
    left_out = sorted(wanted)  # settings that this version does not take
    kind = getattr(configuration_utils, "ContinuousBatchingConfig", None)
    if kind is not None and "continuous_batching_config" in taken:
        known = inspect.signature(kind).parameters
        wanted["page_size" if "page_size" in known else "block_size"] = page
        arguments["continuous_batching_config"] = kind(**{k: v for k, v in wanted.items() if k in known})
        left_out = sorted(set(wanted) - set(known))
    if "progress_bar" in taken:
        arguments["progress_bar"] = False
    attention = paged()
    model.set_attn_implementation(attention)
    made, seconds, peak_bytes = timed(lambda: model.generate_batch(**arguments), bench.device)
    finished = [one for one in made.values() if getattr(one, "error", None) is None]
    if len(finished) != len(asked):
        errors = {str(getattr(one, "error", "")) for one in made.values()} - {"None"}
        raise RuntimeError(f"{len(finished)} of {len(asked)} completions came back; {'; '.join(sorted(errors))[:500]}")
    amount = sum(len(one.generated_tokens) for one in finished)
    # Setting up (cache, graphs) is not decoding: from the first request that runs to the last that ends.
    spans = [getattr(one, "lifespan", (-1.0, -1.0)) for one in finished]
    own = max(end for _, end in spans) - min(begin for begin, _ in spans)
    inner = own if min(min(span) for span in spans) >= 0 and own > 0 else None
    ours = bench.step_seconds.get(slots)
    details = {
        "ms_per_step": 1e3 * (inner or seconds) / new,
        "call_seconds": seconds,
        "time_over_engine": None if ours is None else (inner or seconds) / new / ours,
        "attention": attention,
        "settings_left_out": ", ".join(left_out) or None,
        "peak_bytes": peak_bytes,
    }
    return row.measured("tokens", amount, inner or seconds, details=details)


# --- 5: CPMI against MC ---------------------------------------------------------------------------------------------


def labelers(bench: Bench) -> None:
    """The same traces labelled by CPMI and by Monte-Carlo: seconds and joules per trace.

    Rollouts are drawn and not graded: grading runs beside the device and needs a library that may not be there.
    """
    model, sizes = bench.small(), bench.sizes
    traces = bench.data.short[: sizes.labelled]
    for variant in VARIANTS:
        row = Row("labelers", f"cpmi, {variant}", sizes.small.name, f"{len(traces)} traces")
        bench.report.need(10)
        bench.report.attempt(row, partial(_cpmi, bench, model, row, variant, traces))
    row = Row("labelers", f"mc, n = {sizes.n}", sizes.small.name, f"{len(traces)} traces")
    bench.report.attempt(row, partial(_monte_carlo, bench, model, row, traces))
    paid = {one.what: one.seconds for one in bench.report.rows if one.section == "labelers" and one.seconds}
    if len(paid) == 3:
        cheap, dear = paid["cpmi, marginal"], paid[f"mc, n = {sizes.n}"]
        details = {"mc_time_over_cpmi": dear / cheap, "mc_time_over_cpmi_prefix": dear / paid["cpmi, prefix"]}
        bench.report.add(Row("labelers", "mc against cpmi", sizes.small.name, row.size, details=details))


def _cpmi(bench: Bench, model: Any, row: Row, variant: str, traces: Sequence[Trace]) -> Row:
    backend, labeler = HFBackend(model, bench.data.tokenizer), CPMI(variant)

    def score() -> list[StepScores]:
        made = list(labeler.score(traces, backend))
        for one in made:
            if not isinstance(one, StepScores):
                raise RuntimeError(f"trace {one.trace_id} failed: {one.failure}")
        return [one for one in made if isinstance(one, StepScores)]

    done = score()
    rounds = 0
    with Energy(bench.device) as energy:
        begun = time.perf_counter()
        while not rounds or time.perf_counter() - begun < 2 * bench.sizes.seconds:
            score()
            rounds += 1
        synchronize(bench.device)
        seconds = (time.perf_counter() - begun) / rounds
    computed = sum(one.tokens.computed for one in done)
    details = {"computed": computed, "rounds": rounds, **_energy(energy, rounds * len(traces))}
    return row.measured("traces", len(traces), seconds, details=details)


def _monte_carlo(bench: Bench, model: Any, row: Row, traces: Sequence[Trace]) -> Row:
    backend, n, new = HFBackend(model, bench.data.tokenizer), bench.sizes.n, bench.sizes.completion
    step = max(bench.step_seconds.values(), default=0.1 if bench.cuda else 0.01)
    affordable = int(0.8 * bench.report.left() / (2 * step))  # attention grows with what is decoded: twice a step
    bench.report.need(10 if bench.cuda else 1)
    shortened, new = new if affordable < new else None, max(1, min(new, affordable))
    asked = [rollouts_of(backend, trace, n, new) for trace in traces]
    prompts = [prompt for own, _, _ in asked for prompt in own]
    seeds = [one for _, own, _ in asked for one in own]
    sampling = asked[0][2]
    backend.generate(prompts, Sampling(2, sampling.temperature, sampling.top_p, sampling.top_k), seeds)
    with Energy(bench.device) as energy:
        made, seconds, peak_bytes = timed(lambda: backend.generate(prompts, sampling, seeds), bench.device)
    done = generations(made)
    details = {
        "computed": sum(one.tokens.computed for one in done),
        "generated": sum(one.n_tokens for prompt in done for one in prompt.completions),
        "completions": sum(len(prompt.completions) for prompt in done),
        "max_new_tokens": new,
        "shortened_from": shortened,
        "peak_bytes": peak_bytes,
        **_energy(energy, len(traces)),
    }
    return row.measured("traces", len(traces), seconds, details=details)


def _energy(energy: Energy, traces: int) -> dict[str, Any]:
    joules = None if energy.joules is None else energy.joules / traces
    return {"joules_per_trace": joules, "energy_from": energy.source or "nothing: take the seconds"}
