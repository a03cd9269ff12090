"""The ``prm`` backend: both scorers agree, nothing is random or run from a checkpoint, failures stay on their trace."""

import copy
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tinymodels
import torch
from safetensors.torch import load_file, save_file

import cpmi_eval
from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.prm import heads, specs
from cpmi_eval.prm.heads import ScoreHead, TokenHead
from cpmi_eval.prm.specs import Spec
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import StepScores, Tokens, Trace, TraceFailure

WIDTH = 32
TRACES = (
    Trace("a", "Ada has 12 apples and buys 30 more. How many?", ("She has 12 and 30.", "12 + 30 = 42.", "So 42.")),
    Trace("b", "Ada has 12 apples and buys 30 more. How many?", ("She has 12 and 30.", "12 + 30 = 41.", "So 41.")),
    Trace("c", "Ada has 12 apples and buys 30 more. How many?", ("30 apples.",)),
    Trace("d", "How many miles in 3 hours at 48 mph?", ("3 * 48 = 144 miles.", "The answer is: 144")),
)


@cache
def tokenizer() -> Any:
    """Return the tiny tokenizer with every family's marker."""
    made = copy.deepcopy(tinymodels.tokenizer(True))
    made.add_special_tokens({"additional_special_tokens": ["<extra_0>", "<RW>", "ки"]})
    return made


@cache
def decoder(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Return a tiny language model with an embedding for each token of :func:`tokenizer`."""
    made = copy.deepcopy(tinymodels.model(name, dtype))
    made.resize_token_embeddings(len(tokenizer()), mean_resizing=False)
    with torch.no_grad():
        made.get_input_embeddings().weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    return made.eval()


def tensors(spec: Spec) -> dict[str, torch.Tensor]:
    """Return random tensors for a spec's head, under their names."""
    generator = torch.Generator().manual_seed(3)
    made = {}
    for index, layer in enumerate(spec.read.head.layers):
        out = spec.read.head.outputs if index + 1 == len(spec.read.head.layers) else 24
        made[layer.weight] = torch.randn((out, 24 if index else WIDTH), generator=generator) / 4
        if layer.bias is not None:
            made[layer.bias] = torch.randn(out, generator=generator)
    return made


def backend(name: str, model: str = "llama", prefix_sharing: bool = True, **args: Any) -> PRMBackend:
    """Wrap a tiny model as a PRM of a family."""
    spec, lm = specs.load(name), decoder(model)
    if spec.read.head.layers:
        return PRMBackend(
            lm.base_model,
            heads.from_tensors(spec, tensors(spec), WIDTH, "here"),
            tokenizer(),
            spec,
            prefix_sharing=prefix_sharing,
            args=args,
        )
    ids = [tokenizer().convert_tokens_to_ids(token) for token in ("+", "-")]
    return PRMBackend(
        lm,
        TokenHead(lm, ids if spec.read.head.kind == "lm" else None),
        tokenizer(),
        spec,
        prefix_sharing=prefix_sharing,
    )


def values(found: PRMBackend, *traces: Trace) -> list[tuple[float, ...]]:
    scored = found.step_scores(traces)
    assert [one.trace_id for one in scored] == [trace.id for trace in traces]
    assert all(isinstance(one, StepScores) for one in scored), scored
    return [one.values for one in scored if isinstance(one, StepScores)]


def near(expected: list[tuple[float, ...]], tolerance: float = 1e-5) -> Any:
    return [pytest.approx(one, abs=tolerance, rel=0) for one in expected]


@pytest.mark.parametrize("name", specs.names())
def test_the_trie_gives_what_every_prefix_gives_on_its_own(name: str) -> None:
    expected = values(backend(name, prefix_sharing=False), *TRACES)
    assert values(backend(name), *TRACES) == near(expected)
    assert len({round(value, 4) for one in expected for value in one}) > 4


@pytest.mark.parametrize("model", ["qwen3", "mistral", "gemma2", "gemma3", "granite", "cohere", "longrope"])
@pytest.mark.parametrize("name", ["trl", "math-shepherd"])
def test_other_architectures(model: str, name: str) -> None:
    expected = values(backend(name, model, False), *TRACES)
    assert values(backend(name, model), *TRACES) == near(expected, 5e-5)


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_neither_batches_nor_order_matter(prefix_sharing: bool) -> None:
    found = backend("qwen2.5-math-prm", prefix_sharing=prefix_sharing)
    together = values(found, *TRACES)
    assert [values(found, trace)[0] for trace in TRACES] == near(together)
    assert values(found, *TRACES[::-1]) == near(together[::-1])
    small = backend("qwen2.5-math-prm", prefix_sharing=prefix_sharing, row_tokens=40, batch_tokens=50)
    assert values(small, *TRACES) == near(together)


def test_a_score_is_the_head_on_the_hidden_state_at_the_marker() -> None:
    """By hand: the plain decoder on the plain ids, the two matrices, softmax, class 1."""
    spec, found = specs.load("qwen2.5-math-prm"), backend("qwen2.5-math-prm")
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    text = f"<bos>[system] {system}\n[user] {TRACES[3].problem}\n[assistant] " + "".join(
        f"{step}<extra_0>" for step in TRACES[3].steps
    )
    ids = tokenizer()(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = decoder("llama").base_model(ids).last_hidden_state[0]
    own = tensors(spec)
    inner = (states[ids[0] == tokenizer().convert_tokens_to_ids("<extra_0>")] @ own["score.0.weight"].T).add(
        own["score.0.bias"]
    )
    logits = inner.clamp(min=0) @ own["score.2.weight"].T + own["score.2.bias"]
    assert values(found, TRACES[3]) == near([tuple(logits.softmax(-1)[:, 1].tolist())])


def test_tokens_are_counted_and_shared_ones_once() -> None:
    trie, pairwise = backend("trl", batch_tokens=4000), backend("trl", prefix_sharing=False)
    encoded = [trie.encoder.encode(trace.problem, trace.steps) for trace in TRACES]
    requested = [sum(read + 1 for read in one.reads) for one in encoded]
    shared = [one.tokens for one in trie.step_scores(TRACES)]
    assert [one.tokens for one in pairwise.step_scores(TRACES)] == [Tokens(n, n) for n in requested]
    assert [one.requested for one in shared] == requested
    nodes = {one.ids[: end + 1] for one in encoded for end in range(one.reads[-1] + 1)}
    assert sum(one.computed for one in shared) == len(nodes)  # what begins alike is put through the model once
    alone = trie.step_scores(TRACES[:1])[0].tokens
    assert alone == Tokens(requested[0], encoded[0].reads[-1] + 1)


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_failures_stay_on_their_trace(prefix_sharing: bool) -> None:
    long = Trace("long", "What?", ("so " * 80, "x"))
    odd = Trace("odd", "What?", ("one <extra_0> two",))
    found = backend("qwen2.5-math-prm", prefix_sharing=prefix_sharing, max_length=200)
    first, second, third, fourth = found.step_scores([long, TRACES[0], odd, TRACES[1]])
    assert isinstance(first, TraceFailure)
    assert isinstance(third, TraceFailure)
    length = found.encoder.encode(long.problem, long.steps).reads[-1] + 1
    assert first.failure.kind == "too_long"
    assert first.failure.message == f"{length} tokens; the model takes 200"
    assert (third.failure.kind, third.failure.message) == ("encoding", "step 0 contains the step marker '<extra_0>'")
    assert [second.values, fourth.values] == near(values(backend("qwen2.5-math-prm"), *TRACES[:2]))
    exactly = backend("qwen2.5-math-prm", prefix_sharing=prefix_sharing, max_length=length)
    assert isinstance(exactly.step_scores([long])[0], StepScores)


def test_a_score_that_is_not_a_number_is_a_failure() -> None:
    spec = specs.load("scalar-head")
    head = ScoreHead([(torch.full((1, WIDTH), float("nan")), None)])
    found = PRMBackend(decoder("llama").base_model, head, tokenizer(), spec)
    (one,) = found.step_scores(TRACES[:1])
    assert isinstance(one, TraceFailure)
    assert (one.failure.kind, one.tokens.computed > 0) == ("non_finite", True)


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_out_of_memory_halves_the_batch_and_gives_up_on_one_trace_alone(
    prefix_sharing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = backend("trl", prefix_sharing=prefix_sharing, row_tokens=40)
    expected = values(found, *TRACES)
    decode = decoder("llama").base_model.forward
    limit = [120]

    def small(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].numel() > limit[0]:
            raise torch.OutOfMemoryError("too much")
        return decode(*args, **kwargs)

    monkeypatch.setattr(decoder("llama").base_model, "forward", small)
    assert values(found, *TRACES) == near(expected)
    limit[0] = 40
    long = Trace("long", "What?", ("so " * 60,))
    first, second = found.step_scores([long, Trace("short", "What?", ("42",))])
    assert isinstance(first, TraceFailure)
    assert first.failure.kind == "out_of_memory"
    assert isinstance(second, StepScores)


@pytest.mark.parametrize("model", ["bloom", "mamba", "gpt_neo"])
def test_models_that_a_trie_cannot_serve(model: str) -> None:
    with pytest.raises(ModelError, match="--prefix_sharing off"):
        backend("trl", model)
    found = backend("trl", model, False)
    assert [values(found, trace)[0] for trace in TRACES] == near(values(found, *TRACES))


def test_half_precision_reads_through_a_head_of_full_precision() -> None:
    spec = specs.load("trl")
    lm = decoder("llama", torch.bfloat16)
    head = heads.from_tensors(spec, {k: v.bfloat16() for k, v in tensors(spec).items()}, WIDTH, "here")
    states = torch.randn(5, WIDTH, dtype=torch.bfloat16)
    assert head(states).dtype == torch.float32
    found = PRMBackend(lm.base_model, head, tokenizer(), spec)
    assert values(found, *TRACES) == near(values(backend("trl"), *TRACES), 0.1)


def saved(folder: Path, name: str, *, causal: bool = True, config: dict[str, Any] | None = None) -> Path:
    """Write a tiny checkpoint of a family; ``config``: more keys of its config.json."""
    spec = specs.load(name)
    lm = decoder("llama")
    (lm if causal else lm.base_model).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors(spec)}, path, metadata={"format": "pt"})
    if config:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**written, **config}), encoding="utf-8")
    return folder


def opened(folder: Path, name: str | None = None, **options: Any) -> PRMBackend:
    args = {"spec": name} if name else {}
    return PRMBackend.open(BackendOptions(str(folder), args, dtype="float32", device="cpu", **options))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["qwen2.5-math-prm", "trl", "skywork-o1", "reasoneval", "cpmi", "scalar-head"])
def test_a_saved_checkpoint_scores_as_the_model_it_was(name: str, causal: bool, tmp_path: Path) -> None:
    found = opened(saved(tmp_path, name, causal=causal), name)
    assert values(found, *TRACES) == near(values(backend(name), *TRACES))


def test_a_family_is_one_yaml_file(tmp_path: Path) -> None:
    """Nothing else knows of it: named on the command line, or carried by the checkpoint."""
    folder = saved(tmp_path, "scalar-head")
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("score.", "reward."): one for name, one in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    family = tmp_path / "mine.yaml"
    family.write_text(
        "{name: mine, summary: scalar head at a sign, source: none, native_threshold: 0, aggregation: min,\n"
        "input: {form: plain, step: '{step}', marker: '+', join: ids, exclusive: false},\n"
        "read: {at: marker, head: {kind: scalar, layers: [{weight: reward.weight, bias: reward.bias}]},\n"
        "  transform: {kind: identity}}}\n"
    )
    found = opened(folder, str(family))
    assert found.describe().spec["name"] == "mine"  # type: ignore[index]
    by_hand = values(found, *TRACES)
    assert all(len(row) == len(trace.steps) for row, trace in zip(by_hand, TRACES, strict=True))
    specs.write(specs.load(str(family)), folder)
    assert values(opened(folder), *TRACES) == by_hand


@pytest.mark.parametrize("name", ["math-shepherd", "rlhflow", "llemma-prm800k"])
def test_a_saved_language_model_scores_as_the_model_it_was(name: str, tmp_path: Path) -> None:
    found = opened(saved(tmp_path, name), name, prefix_sharing=False)
    assert values(found, *TRACES) == near(values(backend(name), *TRACES))
    without = tmp_path / "decoder"
    saved(without, name, causal=False)
    with pytest.raises(ModelError, match=r"lacks .*lm_head"):
        opened(without, name)


def test_weights_in_several_files_and_in_bin_files(tmp_path: Path) -> None:
    expected = values(backend("trl"), *TRACES)
    folder = saved(tmp_path / "one", "trl")
    tensor = load_file(folder / "model.safetensors")
    parts = {"model-1.safetensors": "model.", "model-2.safetensors": ("lm_head.", "score.")}
    (folder / "model.safetensors").unlink()
    weights = {}
    for file, starts in parts.items():
        own = {name: one for name, one in tensor.items() if name.startswith(starts)}
        save_file(own, folder / file, metadata={"format": "pt"})
        weights.update(dict.fromkeys(own, file))
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weights})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    assert values(opened(folder, "trl"), *TRACES) == near(expected)
    for file in (*parts, "model.safetensors.index.json"):
        (folder / file).unlink()
    torch.save(tensor, folder / "pytorch_model.bin")
    assert values(opened(folder, "trl"), *TRACES) == near(expected)


def spoil(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Replace tensors of a checkpoint, or take them away."""
    path = folder / "model.safetensors"
    merged: dict[str, torch.Tensor | None] = {**load_file(path), **change}
    save_file({k: v for k, v in merged.items() if v is not None}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score.2.weight": None}, "has no tensor score.2.weight"),
        ({"score.0.bias": None}, "has no tensor score.0.bias"),
        ({"score.2.weight": torch.zeros(3, 24)}, "score.2.weight of .* has the shape \\(3, 24\\), but \\(2, 24\\)"),
        ({"score.0.weight": torch.zeros(24, 7)}, "score.0.weight of .* has the shape \\(24, 7\\), but \\(24, 32\\)"),
        ({"score.2.bias": torch.zeros(1)}, "score.2.bias of .* has the shape \\(1,\\), but \\(2,\\)"),
        ({"score.weight": torch.zeros(2, 32)}, "holds score.weight beside the head that the spec"),
        ({"v_head.weight": torch.zeros(2, 32)}, "holds v_head.weight, which neither its decoder nor"),
        ({"model.layers.1.self_attn.q_proj.weight": None}, "lacks model.layers.1.self_attn.q_proj.weight"),
        ({"model.norm.weight": torch.zeros(7)}, "norm.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: dict[str, torch.Tensor | None], words: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path, "qwen2.5-math-prm")
    spoil(folder, change)
    with pytest.raises(ModelError, match=words):
        opened(folder, "qwen2.5-math-prm")


def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "trl", "trl")
    with pytest.raises(ModelError, match=r"has no tensor score\.0\.weight.*--prm_spec"):
        opened(folder, "qwen2.5-math-prm")
    with pytest.raises(ModelError, match=r"score\.weight of .* has the shape \(2, 32\), but \(1, 32\)"):
        opened(folder, "scalar-head")
    with pytest.raises(ModelError, match=r"holds score\.bias, score\.weight"):
        opened(folder, "math-shepherd")
    with pytest.raises(UsageError, match="--prm_spec"):
        opened(folder)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    """Neither modules that auto_map names, nor what a pickle would call."""
    ran = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nclass Model: pass\nclass Config: pass\n"
    named = {
        "AutoModel": "modeling_prm.Model",
        "AutoConfig": "modeling_prm.Config",
        "AutoTokenizer": ["modeling_prm.T"],
    }
    folder = saved(tmp_path / "prm", "qwen2.5-math-prm", config={"auto_map": named})
    (folder / "modeling_prm.py").write_text(code, encoding="utf-8")
    assert values(opened(folder, "qwen2.5-math-prm"), *TRACES) == near(values(backend("qwen2.5-math-prm"), *TRACES))
    assert not ran.exists()

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"score.0.weight": Touch()}, protocol=2))
    with pytest.raises(ModelError):
        opened(folder, "qwen2.5-math-prm")
    with pytest.raises(ModelError, match="cannot be read as plain tensors"):
        heads.read_tensors(str(folder), ("score.",))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ({"slots": 4}, {}, "unknown model argument 'slots'"),
        ({"row_token": 4}, {}, "Did you mean 'row_tokens'"),
        ({"batch_tokens": 0}, {}, "batch_tokens must be a positive whole number, not 0"),
        ({"trust_remote_code": "no"}, {}, "trust_remote_code must be true or false, not 'no'"),
        ({"revision": "v1"}, {}, "revision is for models of the hub"),
        ({}, {"prefix_sharing": "on"}, "prefix_sharing must be true or false"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(
    args: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        PRMBackend.check(BackendOptions(str(tmp_path), args, **options))


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "cpmi")
    tinymodels.tokenizer(True).save_pretrained(folder)
    with pytest.raises(ModelError, match="'<RW>' of the spec 'cpmi' must be one token"):
        opened(folder, "cpmi")
    small = copy.deepcopy(tinymodels.model("llama"))
    small.resize_token_embeddings(len(tinymodels.tokenizer(True)), mean_resizing=False)
    spec = specs.load("cpmi")
    head = heads.from_tensors(spec, tensors(spec), WIDTH, "here")
    with pytest.raises(ModelError, match=f"but the model has {len(tinymodels.tokenizer(True))} embeddings"):
        PRMBackend(small.base_model, head, tokenizer(), spec)


def test_a_whole_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = saved(
        tmp_path / "prm",
        "trl",
        config={"architectures": ["LlamaForTokenClassification"], "max_position_embeddings": 4096},
    )
    capfd.readouterr()  # training the tokenizer of these tests prints
    done = cpmi_eval.evaluate(
        "prm",
        "synthetic",
        labeler_args={"checkpoint": str(folder)},
        limit=4,
        dtype="float32",
        device="cpu",
        output_path=str(tmp_path / "run"),
    )
    assert done.failed == 0
    assert all(0 < score < 1 for row in done.rows for score in row["scores"])
    assert all(len(row["scores"]) > 1 and row["details"] == {} for row in done.rows)
    model = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))["model"]
    assert (model["backend"], model["scorer"], model["architecture"]) == ("prm", "trie", "LlamaModel")
    assert model["spec"] == specs.as_dict(specs.load("trl"))
    assert model["parameters"] == decoder("llama").base_model.num_parameters() + 2 * WIDTH + 2
    assert len(model["sha256"]) == 64
    assert capfd.readouterr().out == ""
