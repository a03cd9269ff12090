"""ProcessBench as lm-eval tasks: the same prompts, verdicts and numbers as through this package's judge."""

import json
import logging
import math
import subprocess
import sys

import pytest
import tinymodels

from cpmi_eval.errors import DataError, UnknownNameError

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.labelers.judge import Judge
from cpmi_eval.lm_eval import TASKS
from cpmi_eval.lm_eval.model import CPMIHF
from cpmi_eval.lm_eval.processbench import acc_correct, acc_error, decide, f1, load
from cpmi_eval.metrics.first_error import compute
from cpmi_eval.metrics.outcome import Outcome
from cpmi_eval.tasks.processbench import REVISION, SUBSETS
from cpmi_eval.types import Completion, Generation, Gold, StepScores, Trace

REPLIES = [
    r"The first step is wrong. \boxed{0}", r"All fine: \boxed{-1}", r"Hmm, \boxed{\text{Step 1}} I think",
    r"\boxed{2} no wait \boxed{1}", "I cannot tell.", r"\boxed{7}", r"\boxed{1, 2}", r"\boxed{-1}",
]  # fmt: skip


def rows_of(subset, n=24):
    """Rows whose labels and replies meet in every way; braces and blank lines in the text must survive."""
    return [
        {
            "id": f"{subset}-{i}",
            "problem": f"{subset} {i}: what is {{steps}} and {{problem}} of \\boxed{{{i}}}?",
            "steps": [f"First,\n\nset x = {i}.", "Then <step_0> y = {y}.", " So \\boxed{3}. "][: 2 + i % 2],
            "final_answer_correct": i % 3 == 0,
            "label": (-1, 0, 1)[i % 3],
        }
        for i in range(n)
    ]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.delenv("CPMI_EVAL_DATA_DIR", raising=False)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = tmp_path / "data" / "Qwen" / "ProcessBench"
    folder.mkdir(parents=True)
    for place, subset in enumerate(SUBSETS):
        (folder / f"{subset}.json").write_text(json.dumps(rows_of(subset, 24 - 5 * place)))
    return tmp_path / "data"


def reply(prompt, place=0):
    """What the table says to a prompt; a function of the prompt, whichever harness asks."""
    return REPLIES[sum(map(ord, prompt)) % len(REPLIES)]


class Table(LM):
    """Answers from the table, remembers the prompts."""

    def __init__(self, chats=False):
        super().__init__()
        self.prompts = []
        self.asked = []
        self.tokenizer = tinymodels.tokenizer() if chats else None

    def generate_until(self, requests, disable_tqdm=False):
        self.prompts += [request.args[0] for request in requests]
        self.asked += [request.args[1] for request in requests]
        return [reply(request.args[0]) for request in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood
    tokenizer_name = "table"

    def chat_template(self, chat_template=False):
        return self.tokenizer.chat_template

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
        )


class Backend:
    """The same table behind this package's judge."""

    def __init__(self, chats=False):
        self.has_chat_template = chats
        self.prompts = []

    def chat_prompt(self, user):
        return tinymodels.tokenizer().apply_chat_template(
            [{"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
        )

    def generate(self, prompts, sampling, seeds, enough=None):
        self.prompts += prompts
        return [Generation((Completion(reply(prompt), 5, "stop"),)) for prompt in prompts]


def judged(subset, backend, n):
    """Return, through this package, the metrics of a subset and its unreadable critiques."""
    rows = rows_of(subset, n)
    traces = [Trace(row["id"], row["problem"], tuple(row["steps"])) for row in rows]
    results = list(Judge().score(traces, backend))
    predictions = [result.prediction if isinstance(result, StepScores) else None for result in results]
    outcomes = [Outcome(Gold(row["label"]), None, found) for row, found in zip(rows, predictions, strict=True)]
    return compute(outcomes).metrics(), predictions.count(None) / len(rows)


def evaluated(lm, tasks, data, **settings):
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"data_dir": str(data)})
    return lm_eval.simple_evaluate(lm, tasks=tasks, task_manager=manager, **settings)


@pytest.mark.parametrize("chats", [False, True])
def test_prompts_and_numbers_are_those_of_the_judge(data, chats):
    lm = Table(chats)
    result = evaluated(lm, ["processbench"], data, apply_chat_template=chats)
    backend = Backend(chats)
    values = {"f1": [], "acc_error": [], "acc_correct": [], "unparsed": []}
    for place, subset in enumerate(SUBSETS):
        metrics, unparsed = judged(subset, backend, 24 - 5 * place)
        got = result["results"][f"processbench_{subset}"]
        for name in ("f1", "acc_error", "acc_correct"):
            assert got[f"{name},none"] == metrics[name].value
            values[name].append(metrics[name].value)
        assert got["unparsed,none"] == pytest.approx(unparsed)
        values["unparsed"].append(unparsed)
        assert len(result["samples"][f"processbench_{subset}"]) == 24 - 5 * place
    assert lm.prompts == backend.prompts
    assert min(values["unparsed"]) > 0
    assert 0 < max(values["f1"]) < 1
    group = result["groups"]["processbench"]
    for name, own in values.items():
        assert group[f"{name},none"] == pytest.approx(sum(own) / len(own))


def test_samples_keep_every_decision(data):
    result = evaluated(Table(), ["processbench_gsm8k"], data)
    for sample in result["samples"]["processbench_gsm8k"]:
        label, prediction = sample["f1"]
        assert label == sample["doc"]["label"]
        assert sample["unparsed"] == (prediction is None)
        assert sample["target"] == rf"\boxed{{{label}}}"


def test_decoding_is_greedy_and_as_long_as_the_judges(data):
    lm = Table()
    evaluated(lm, ["processbench_math"], data, limit=2)
    sampling = Judge().sampling
    assert lm.asked == [{"until": [], "do_sample": False, "max_gen_toks": sampling.max_new_tokens}] * 2
    assert sampling.temperature == 0
    evaluated(lm, ["processbench_math"], data, limit=1, gen_kwargs="max_gen_toks=8192")
    assert lm.asked[-1]["max_gen_toks"] == 8192


@pytest.mark.parametrize("chats", [False, True])
def test_cpmi_hf_writes_what_the_judge_is_written(data, chats):
    backend = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer())
    lm = CPMIHF(backend, max_length=2048)  # rotary positions go on past the tiny model's limit
    result = evaluated(
        lm, ["processbench_gsm8k"], data, limit=4, apply_chat_template=chats, gen_kwargs="max_gen_toks=12"
    )
    texts = [sample["filtered_resps"][0] for sample in result["samples"]["processbench_gsm8k"]]
    longer = HFBackend(tinymodels.model("llama"), tinymodels.tokenizer(), args={"max_length": 2048})
    traces = [Trace(row["id"], row["problem"], tuple(row["steps"])) for row in rows_of("gsm8k", 4)]
    results = list(Judge(max_new_tokens=12, chat=chats).score(traces, longer))
    assert texts == [result.samples[0]["text"] for result in results]


def test_metrics_by_hand():
    decisions = [(0, 0), (1, 0), (2, None), (1, 1), (-1, -1), (-1, 3), (-1, -1)]
    assert acc_error(decisions) == 2 / 4
    assert acc_correct(decisions) == 2 / 3
    assert f1(decisions) == pytest.approx(2 / (1 / (2 / 4) + 1 / (2 / 3)))
    assert f1([(0, 1), (-1, 0)]) == 0
    assert math.isnan(acc_error([(-1, -1)]))
    assert math.isnan(f1([(-1, -1)]))
    doc = {"steps": ["a", "b"], "label": 1}
    assert decide(doc, [r"\boxed{1}"]) == {"f1": (1, 1), "acc_error": (1, 1), "acc_correct": (1, 1), "unparsed": 0.0}
    assert decide(doc, [r"\boxed{2}"])["f1"] == (1, None)


def test_rows_come_from_the_folder_of_the_metadata_or_the_environment(data, monkeypatch):
    with_metadata = load("gsm8k", data_dir=str(data), pretrained="what lm-eval also passes")["test"]
    assert with_metadata["id"] == [row["id"] for row in rows_of("gsm8k")]
    monkeypatch.setenv("CPMI_EVAL_DATA_DIR", str(data))
    assert load("gsm8k")["test"][0] == with_metadata[0]
    with pytest.raises(DataError, match="nowhere"):
        load("gsm8k", data_dir="/nowhere")
    with pytest.raises(UnknownNameError, match="gsm8k"):
        load("gsm8")


def test_rows_come_from_the_hub_at_the_pinned_revision(data, monkeypatch):
    asked = []

    def read(source, folder):
        from cpmi_eval.types import Provenance

        asked.append((source.name, source.hub_split, source.revision, folder))
        return rows_of("math", 2), Provenance(source.name)

    monkeypatch.setattr("cpmi_eval.tasks.sources.read_rows", read)
    assert len(load("math")["test"]) == 2
    assert asked == [("Qwen/ProcessBench", "math", REVISION, None)]


def test_a_malformed_row_is_an_error_not_a_miss(data):
    path = data / "Qwen" / "ProcessBench" / "math.json"
    rows = json.loads(path.read_text())
    rows[3]["label"] = 9
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="row 4"):
        load("math", data_dir=str(data))


def test_the_folder_is_printed_and_every_subset_has_a_task():
    made = subprocess.run(
        [sys.executable, "-m", "cpmi_eval.lm_eval", "tasks"], capture_output=True, text=True, timeout=120, check=True
    )
    assert made.stdout == f"{TASKS}\n"
    manager = TaskManager(include_path=made.stdout.strip(), include_defaults=False)
    assert set(manager.all_tasks) == {"processbench", *(f"processbench_{subset}" for subset in SUBSETS)}
