"""Every trained-PRM family against a straight-line computation of its published protocol on a tiny checkpoint.

The references here take nothing from the package: token ids are put together segment by segment, one unpadded
sequence goes through the plain transformers model, positions are counted by hand, and the head is a few torch calls on
the raw tensors.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import prmmodels
import pytest
import torch
from prmmodels import Checkpoint
from safetensors.torch import load_file, save_file

from cpmi_eval.backends.prm import PRMBackend
from cpmi_eval.errors import UsageError
from cpmi_eval.prm import specs
from cpmi_eval.protocols import BackendOptions
from cpmi_eval.types import StepScores, Trace, TraceFailure

TOLERANCE = 1e-5
APART = 1e-3  # what another reading of the protocol must differ by, for a test to mean something
TRACES = (
    Trace("one", "How much is 3 * 48?", ("3 * 48 = 144.",)),
    Trace(
        "four",
        "Ada has 12 apples, buys 30 and gives 7 away. How many are left?",
        ("She has 12 + 30 = 42.", "She gives 7 to Bo, so 42 - 7 = 35.", "Bo is glad.", "The answer is: 35."),
    ),
    Trace("lines", "Solve $x - 2 = 5$.", ("Add 2:\nx = 5 + 2", "So x = 7 - 0 + 0, that is\n$x = 7$.")),
    Trace("other", "Is 91 prime?", ("91 = 7 * 13", "so it is not prime", "No: го 7")),
)


def plain(tokenizer: Any, text: str) -> list[int]:
    """Tokenize one segment that holds no special token, without BOS."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def softmaxed(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits.double(), dim=-1)


def math_shepherd(made: Checkpoint, trace: Trace, shift: int = 0) -> list[float]:
    """Model card of peiyi9979/math-shepherd-mistral-7b-prm: the logits at the step tag itself."""
    steps = "\n".join(f"Step {place}: {step} ки" for place, step in enumerate(trace.steps, 1))
    ids = [1, *plain(made.tokenizer, f"{trace.problem} {steps}")]
    places = [place + shift for place, token in enumerate(ids) if token == 12902]
    return softmaxed(made.logits(ids)[places][:, [648, 387]])[:, 0].tolist()


def rlhflow(made: Checkpoint, trace: Trace, back: int = 3, gap: str = " ") -> list[float]:
    """RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py: one conversation per prefix, ``logits[:, -3]``."""
    begin, start, end, stop = made.tokenizer.convert_tokens_to_ids(
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    )

    def turn(role: str, text: str) -> list[int]:
        return [start, *plain(made.tokenizer, role), end, *plain(made.tokenizer, "\n\n" + text), stop]

    ids, values = [begin], []
    for place, step in enumerate(trace.steps):
        ids += turn("user", step if place else trace.problem + gap + step) + turn("assistant", "+")
        assert ids[-2] == 10
        values.append(softmaxed(made.logits(ids)[-back, [10, 12]])[0].item())
    return values


def two_layers(made: Checkpoint, trace: Trace, label: int = 1) -> list[float]:
    """Model card of Qwen/Qwen2.5-Math-PRM-7B: softmax of the two labels at every "<extra_0>", label 1."""
    start, stop, mark = made.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<extra_0>"])
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    newline = plain(made.tokenizer, "\n")
    ids: list[int] = []
    for segment in (f"system\n{system}", f"user\n{trace.problem}"):
        ids += [start, *plain(made.tokenizer, segment), stop, *newline]
    ids.append(start)
    for place, step in enumerate(trace.steps):
        ids += [*plain(made.tokenizer, step if place else f"assistant\n{step}"), mark]
    ids += [stop, *newline]
    states = made.hidden(ids)[[place for place, token in enumerate(ids) if token == mark]]
    inner = torch.relu(states @ made.head["score.0.weight"].T + made.head["score.0.bias"])
    return softmaxed(inner @ made.head["score.2.weight"].T + made.head["score.2.bias"])[:, label].tolist()


def skywork(made: Checkpoint, trace: Trace) -> list[float]:
    """SkyworkAI/skywork-o1-prm-inference, model_utils/io_utils.py: steps apart, then the id of "\\n"; sigmoid."""
    bos, newline = made.tokenizer.convert_tokens_to_ids("<|endoftext|>"), plain(made.tokenizer, "\n")[-1]
    ids, places = [bos, *plain(made.tokenizer, trace.problem + "\n")], []
    for step in trace.steps:
        ids += [*plain(made.tokenizer, step), newline]
        places.append(len(ids) - 1)
    values = made.hidden(ids)[places] @ made.head["v_head.summary.weight"].T + made.head["v_head.summary.bias"]
    return torch.sigmoid(values.double())[:, 0].tolist()


def joined_as_ids(made: Checkpoint, trace: Trace) -> tuple[list[int], list[int]]:
    """TRL's PRMTrainer.tokenize_row: BOS if there is one, the prompt, each step and "\\n", each tokenized alone."""
    bos = made.tokenizer.bos_token_id
    ids, places = [*([] if bos is None else [bos]), *plain(made.tokenizer, trace.problem)], []
    for step in trace.steps:
        ids += [*plain(made.tokenizer, step), *plain(made.tokenizer, "\n")]
        places.append(len(ids) - 1)
    return ids, places


def joined_as_text(made: Checkpoint, trace: Trace) -> tuple[list[int], list[int]]:
    """The mistake: step and separator tokenized together, where ".\\n" is one token."""
    ids, places = plain(made.tokenizer, trace.problem), []
    for step in trace.steps:
        ids += plain(made.tokenizer, step + "\n")
        places.append(len(ids) - 1)
    return ids, places


def classified(made: Checkpoint, ids: list[int], places: list[int]) -> torch.Tensor:
    return softmaxed(made.hidden(ids)[places] @ made.head["score.weight"].T + made.head["score.bias"])


def trl(made: Checkpoint, trace: Trace) -> list[float]:
    return classified(made, *joined_as_ids(made, trace))[:, 1].tolist()


def pure(made: Checkpoint, trace: Trace) -> list[float]:
    """Model card of jinachris/PURE-PRM-7B: as TRL, and p(1) - p(0)."""
    both = classified(made, *joined_as_ids(made, trace))
    return (both[:, 1] - both[:, 0]).tolist()


def reasoneval(made: Checkpoint, trace: Trace, back: int = 0) -> list[float]:
    """GAIR-NLP/ReasonEval, codes/examples.py: separators split the text and are taken out; [bad, neutral, good]."""
    ids = [1, *plain(made.tokenizer, f"Question:\n{trace.problem}\nAnswer:\nLet's think step by step.\n")]
    places = []
    for step in trace.steps:
        ids += plain(made.tokenizer, step)
        places.append(len(ids) - 1 - back)
    values = made.hidden(ids)[places] @ made.head["score_head.weight"].T
    return softmaxed(values + made.head.get("score_head.bias", torch.zeros(3)))[:, 1:].sum(dim=-1).tolist()


def llemma(made: Checkpoint, trace: Trace, which: int = 0) -> list[float]:
    """Model card of ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf: the first of the two newlines after a step.

    The score is the sigmoid of the mean of the vocabulary's logits.
    """
    text = f"# Question\n\n{trace.problem}\n\n# Solution\n\n" + "".join(f"{step}\n\n" for step in trace.steps)
    ids = [1, *plain(made.tokenizer, text)]
    pairs = [place for place in range(len(ids) - 1) if ids[place : place + 2] == [13, 13]]
    places = [place + which for place in pairs[-len(trace.steps) :]]
    return torch.sigmoid(made.logits(ids)[places].double().mean(dim=-1)).tolist()


def marked(made: Checkpoint, trace: Trace, ask: str, before: str, between: str) -> torch.Tensor:
    """Return the hidden states at every "<RW>" of a Qwen chat; ``before`` and ``between`` stand around the markers."""
    start, stop, mark = made.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<RW>"])
    newline = plain(made.tokenizer, "\n")
    ids = [start, *plain(made.tokenizer, "system\nBe brief."), stop, *newline]  # what the chat template puts first
    ids += [start, *plain(made.tokenizer, f"user\n{ask}"), stop, *newline, start]
    for place, step in enumerate(trace.steps):
        ids += [*plain(made.tokenizer, f"{between if place else 'assistant' + chr(10)}{step}{before}"), mark]
    return made.hidden(ids)[[place for place, token in enumerate(ids) if token == mark]]


def cpmi(made: Checkpoint, trace: Trace) -> list[float]:
    """The built-in spec: "<RW>" after every step of the assistant's turn, Linear, ReLU, Linear, the raw output."""
    states = marked(made, trace, trace.problem, "", "")
    inner = torch.relu(states @ made.head["score.0.weight"].T + made.head["score.0.bias"])
    return (inner @ made.head["score.2.weight"].T + made.head["score.2.bias"])[:, 0].tolist()


def cpmi_code(made: Checkpoint, trace: Trace) -> list[float]:
    """nakyungLee20/CPMI, inference/prompts.py, prm_model.py: blank lines around "<RW>", a GELU between the layers."""
    ask = f"Problem: {trace.problem}\nSolution: Let's think step by step.\n"
    states = marked(made, trace, ask, "\n\n", "\n\n")
    inner = torch.nn.functional.gelu(states @ made.head["net.0.weight"].T + made.head["net.0.bias"])
    return (inner @ made.head["net.3.weight"].T + made.head["net.3.bias"])[:, 0].tolist()


def scalar_head(made: Checkpoint, trace: Trace) -> list[float]:
    """The built-in spec: problem, steps and blank lines, each tokenized alone, after one BOS; the raw output."""
    ids, places = [made.tokenizer.bos_token_id, *plain(made.tokenizer, trace.problem + "\n\n")], []
    for step in trace.steps:
        ids += [*plain(made.tokenizer, step), *plain(made.tokenizer, "\n\n")]
        places.append(len(ids) - 1)
    return (made.hidden(ids)[places] @ made.head["score.weight"].T)[:, 0].tolist()


@dataclass(frozen=True)
class Family:
    """How to make a checkpoint, the straight-line scores, and what differs from the spec named first."""

    spec: str
    make: Callable[[Path], Checkpoint]
    scores: Callable[[Checkpoint, Trace], list[float]]
    changes: tuple[tuple[str, Any], ...] = ()


CPMI_CODE = (
    ("input.before", "Problem: {problem}\nSolution: Let's think step by step.\n"),
    ("input.step", "{step}\n\n"),
    ("input.between", "\n\n"),
    ("read.head.activation", "gelu"),
    ("read.head.layers", [{"weight": f"net.{n}.weight", "bias": f"net.{n}.bias"} for n in (0, 3)]),
)
FAMILIES = {
    "math-shepherd": Family("math-shepherd", prmmodels.math_shepherd, math_shepherd),
    "rlhflow": Family("rlhflow", prmmodels.rlhflow, rlhflow),
    "qwen2.5-math-prm": Family("qwen2.5-math-prm", prmmodels.qwen_math_prm, two_layers),
    "skywork-o1": Family("skywork-o1", prmmodels.skywork, skywork),
    "trl": Family("trl", prmmodels.token_classifier, trl),
    "trl, BOS": Family("trl", lambda folder: prmmodels.token_classifier(folder, bos="<|endoftext|>"), trl),
    "pure": Family("pure", prmmodels.token_classifier, pure),
    "reasoneval": Family("reasoneval", prmmodels.reasoneval, reasoneval),
    "reasoneval, no bias": Family("reasoneval", lambda folder: prmmodels.reasoneval(folder, bias=False), reasoneval),
    "llemma-prm800k": Family("llemma-prm800k", prmmodels.llemma, llemma),
    "cpmi": Family("cpmi", prmmodels.cpmi, cpmi),
    "cpmi, its authors' code": Family("cpmi", prmmodels.cpmi_code, cpmi_code, CPMI_CODE),
    "scalar-head": Family("scalar-head", prmmodels.scalar_head, scalar_head),
}


def changed(name: str, *changes: tuple[str, Any]) -> dict[str, Any]:
    """Return the document of a built-in spec with some dotted keys set."""
    document = specs.as_dict(specs.load(name))
    for path, value in changes:
        *sections, key = path.split(".")
        inner = document
        for section in sections:
            inner = inner[section]
        inner[key] = value
    return document


def spec_file(folder: Path, name: str, *changes: tuple[str, Any]) -> str:
    """Write a changed spec as a user would; return its path."""
    path = folder / "spec.json"
    path.write_text(json.dumps(changed(name, *changes)), encoding="utf-8")
    return str(path)


def opened(made: Checkpoint, spec: str, prefix_sharing: bool = True) -> PRMBackend:
    options = BackendOptions(
        str(made.folder), {"spec": spec}, dtype="float32", device="cpu", prefix_sharing=prefix_sharing
    )
    return PRMBackend.open(options)


def scores(backend: PRMBackend, *traces: Trace) -> list[list[float]]:
    """Return the values of each trace; none may fail, and they come in the order of the traces."""
    found = backend.step_scores(traces)
    assert [one.trace_id for one in found] == [trace.id for trace in traces]
    assert all(isinstance(one, StepScores) for one in found), found
    return [list(one.values) for one in found if isinstance(one, StepScores)]


def apart(left: list[float], right: list[float]) -> bool:
    """Whether every score of two readings differs."""
    return all(abs(one - other) > APART for one, other in zip(left, right, strict=True))


def near(values: list[list[float]]) -> Any:
    return [pytest.approx(one, rel=0, abs=TOLERANCE) for one in values]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Checkpoint, str]]:
    """Return what makes a family's checkpoint and spec, once each."""

    @cache
    def make(name: str) -> tuple[Checkpoint, str]:
        folder, kind = tmp_path_factory.mktemp("prm"), FAMILIES[name]
        made = kind.make(folder / "model")
        return made, spec_file(folder, kind.spec, *kind.changes) if kind.changes else kind.spec

    return make


@pytest.mark.parametrize("prefix_sharing", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_of_the_published_protocol(name: str, prefix_sharing: bool, family: Any) -> None:
    made, spec = family(name)
    expected = [FAMILIES[name].scores(made, trace) for trace in TRACES]
    assert [len(one) for one in expected] == [len(trace.steps) for trace in TRACES]
    flat = [value for one in expected for value in one]
    assert len({round(value, 4) for value in flat}) == len(flat), "the reference cannot tell steps apart"
    backend = opened(made, spec, prefix_sharing)
    assert scores(backend, *TRACES) == near(expected)
    assert scores(backend, *reversed(TRACES)) == near(expected[::-1])
    for trace, one in zip(TRACES, expected, strict=True):
        assert scores(backend, trace) == near([one])


@pytest.mark.parametrize("name", ["math-shepherd", "qwen2.5-math-prm", "trl", "reasoneval"])
def test_a_trace_that_begins_as_another_scores_the_same(name: str, family: Any) -> None:
    """Causal models: scores of a prefix are the scores of the whole, whatever else is in the batch."""
    made, spec = family(name)
    whole = TRACES[1]
    prefixes = [Trace(f"{n}", whole.problem, whole.steps[:n]) for n in range(1, len(whole.steps) + 1)]
    expected = FAMILIES[name].scores(made, whole)
    assert scores(opened(made, spec), *prefixes, *prefixes[:1]) == near(
        [expected[:n] for n in range(1, len(whole.steps) + 1)] + [expected[:1]]
    )


def test_math_shepherd_is_read_at_the_tag_and_rlhflow_before_the_plus(family: Any, tmp_path: Path) -> None:
    """A shift by one changes every score, and the reading of the one family is the mistake of the other."""
    made, spec = family("math-shepherd")
    right, shifted = [math_shepherd(made, trace, shift=shift) for shift in (0, -1) for trace in TRACES[1:2]]
    assert apart(right, shifted)
    assert scores(opened(made, spec), TRACES[1]) == near([right])
    other = spec_file(tmp_path, "math-shepherd", ("read.at", "before_marker"))
    assert scores(opened(made, other), TRACES[1]) == near([shifted])

    made, spec = family("rlhflow")
    right, shifted = [rlhflow(made, trace, back=back) for back in (3, 2) for trace in TRACES[1:2]]
    assert apart(right, shifted)
    assert scores(opened(made, spec), TRACES[1]) == near([right])
    other = spec_file(tmp_path, "rlhflow", ("read.at", "marker"))
    assert scores(opened(made, other), TRACES[1]) == near([shifted])


def test_math_shepherd_has_the_published_ids(family: Any, tmp_path: Path) -> None:
    """The spec's texts stand for tokens 12902, 648 and 387, not for the characters "+" (without a space) and "ки"."""
    made, spec = family("math-shepherd")
    given = specs.load("math-shepherd")
    assert (given.input.marker, given.read.head.tokens) == ("ки", ("+", "-"))
    assert made.tokenizer.encode("ки", add_special_tokens=False) == [12902]
    assert made.tokenizer.encode("+ -", add_special_tokens=False) == [648, 387]
    assert made.tokenizer.convert_tokens_to_ids("+") != 648
    by_id = spec_file(tmp_path, "math-shepherd", ("read.head.tokens", [648, 387]))
    assert scores(opened(made, by_id), *TRACES) == scores(opened(made, spec), *TRACES)


def test_qwen_weights_load_under_their_published_names(family: Any) -> None:
    """The head is not a fresh one: its tensors decide, each of them, and "<extra_0>" is token 151651."""
    made, spec = family("qwen2.5-math-prm")
    assert made.tokenizer.encode("<extra_0>") == [151651]
    assert set(made.head) == {f"score.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}
    right, negative = two_layers(made, TRACES[1]), two_layers(made, TRACES[1], label=0)
    assert apart(right, negative)
    assert scores(opened(made, spec), TRACES[1]) == near([right])


@pytest.mark.parametrize("missing", ["score.2.bias", "score.0.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_tensor_that_is_not_there_is_an_error(missing: str, tmp_path: Path) -> None:
    """Nothing of a checkpoint is filled with random numbers."""
    made = prmmodels.qwen_math_prm(tmp_path, real=False)
    path = tmp_path / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items() if name != missing}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=missing.removeprefix("model.").replace(".", r"\.")):
        opened(made, "qwen2.5-math-prm")


@pytest.mark.parametrize("name", ["trl", "pure"])
def test_separators_are_joined_as_ids_and_not_as_text(name: str, family: Any, tmp_path: Path) -> None:
    """In this tokenizer, as in Qwen's, ".\\n" is one token, so that joined text has no separator of its own."""
    made, spec = family(name)
    trace = Trace("dots", "How many?", ("She has 12.", "Bo has 7.", "So 35 are left."))
    ids, places = joined_as_ids(made, trace)
    other_ids, other_places = joined_as_text(made, trace)
    newline = plain(made.tokenizer, "\n")
    assert [ids[place] for place in places] == newline * 3
    assert newline[0] not in other_ids
    right, wrong = classified(made, ids, places), classified(made, other_ids, other_places)
    assert apart(right[:, 1].tolist(), wrong[:, 1].tolist())
    values = right[:, 1] if name == "trl" else right[:, 1] - right[:, 0]
    assert scores(opened(made, spec), trace) == near([values.tolist()])


def test_separators_of_several_tokens_are_read_at_the_last(tmp_path: Path) -> None:
    made = prmmodels.token_classifier(tmp_path / "model")
    assert len(plain(made.tokenizer, " ###\n")) > 1
    ids, places = plain(made.tokenizer, TRACES[1].problem), []
    for step in TRACES[1].steps:
        ids += [*plain(made.tokenizer, step), *plain(made.tokenizer, " ###\n")]
        places.append(len(ids) - 1)
    spec = spec_file(tmp_path, "trl", ("input.marker", " ###\n"))
    assert scores(opened(made, spec), TRACES[1]) == near([classified(made, ids, places)[:, 1].tolist()])


def test_llemma_is_read_at_the_first_newline(family: Any, tmp_path: Path) -> None:
    made, spec = family("llemma-prm800k")
    first, second = llemma(made, TRACES[1]), llemma(made, TRACES[1], which=1)
    assert apart(first, second)
    assert scores(opened(made, spec), TRACES[1]) == near([first])
    other = spec_file(tmp_path, "llemma-prm800k", ("read.part", "last"))
    assert scores(opened(made, other), TRACES[1]) == near([second])


def test_reasoneval_sees_no_separators(family: Any) -> None:
    """The published procedure, step by step: tokenize with separators, note what is before each, take them out."""
    made, spec = family("reasoneval")
    trace, separator = TRACES[1], "</s>"
    prompt = f"Question:\n{trace.problem}\nAnswer:\nLet's think step by step.\n"
    tokens = made.tokenizer(prompt + separator + "".join(step + separator for step in trace.steps))["input_ids"]
    ids: list[int] = []
    ends: list[int] = []
    for token in tokens:
        if token == made.tokenizer.pad_token_id:
            ends.append(len(ids) - 1)
        else:
            ids.append(token)
    assert ids[0] == 1
    values = made.hidden(ids)[ends[1:]] @ made.head["score_head.weight"].T + made.head["score_head.bias"]
    expected = softmaxed(values)[:, 1:].sum(dim=-1).tolist()
    assert scores(opened(made, spec), trace) == near([expected])
    assert apart(expected, reasoneval(made, trace, back=1))


def test_the_published_script_reads_reasoneval_7b_one_token_earlier(tmp_path: Path) -> None:
    """With the 7B tokenizer, whose padding token is BOS, codes/examples.py counts BOS as a separator and puts it back.

    Its positions then are one short of each step's last token, which is what the 34B branch and the paper read, and
    what the spec reads for both.
    """
    made = prmmodels.reasoneval(tmp_path, pad="<s>")
    trace, separator = TRACES[1], "<s>"
    prompt = f"Question:\n{trace.problem}\nAnswer:\nLet's think step by step.\n"
    tokens = made.tokenizer(prompt + separator + "".join(step + separator for step in trace.steps))["input_ids"]
    separators = [place for place, token in enumerate(tokens) if token == 1]
    read = [place - 1 - before for before, place in enumerate(separators)][2:]
    ids = [1, *(token for token in tokens if token != 1)]
    values = made.hidden(ids)[read] @ made.head["score_head.weight"].T + made.head["score_head.bias"]
    script = softmaxed(values)[:, 1:].sum(dim=-1).tolist()
    assert script == pytest.approx(reasoneval(made, trace, back=1), rel=0, abs=TOLERANCE)
    assert scores(opened(made, "reasoneval"), trace) == near([reasoneval(made, trace)])


def test_whitespace_that_the_chat_template_trims_moves_no_position(family: Any) -> None:
    made, spec = family("rlhflow")
    trace = TRACES[1]
    padded = Trace("padded", trace.problem, tuple(f"{step}  \n" for step in trace.steps))
    assert scores(opened(made, spec), padded, trace) == near([rlhflow(made, trace)] * 2)


@pytest.mark.parametrize("name", ["math-shepherd", "rlhflow", "skywork-o1", "reasoneval"])
def test_packing_into_short_rows_changes_nothing(name: str, family: Any) -> None:
    """Traces that share problems and first steps, in rows that hold little more than one of them."""
    made, spec = family(name)
    traces = [
        Trace(f"{n}{tail}", one.problem, (*one.steps[:n], tail))
        for one in TRACES
        for n in range(len(one.steps))
        for tail in ("So 7.", "So 8 + 1.", "So 7.")
    ]
    args = {"spec": spec, "row_tokens": 96, "batch_tokens": 200}
    backend = PRMBackend.open(
        BackendOptions(str(made.folder), args, dtype="float32", device="cpu", prefix_sharing=True)
    )
    assert scores(backend, *traces) == near([FAMILIES[name].scores(made, trace) for trace in traces])


@pytest.mark.parametrize("name", ["math-shepherd", "qwen2.5-math-prm", "trl"])
def test_what_is_too_long_fails_and_loses_no_step(name: str, family: Any) -> None:
    """A tokenizer told to truncate drops the last step tags; here a trace has as many scores as steps, or none."""
    made, spec = family(name)
    long = Trace("long", "How much is it?", (*TRACES[1].steps, "7 + 7 - 7 " * 200))
    bad, good = opened(made, spec).step_scores([long, TRACES[1]])
    assert isinstance(bad, TraceFailure)
    assert bad.failure.kind == "too_long"
    assert isinstance(good, StepScores)
    assert list(good.values) == pytest.approx(FAMILIES[name].scores(made, TRACES[1]), rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("name", ["qwen2.5-math-prm", "skywork-o1", "reasoneval"])
def test_the_architecture_in_the_config_names_the_family(name: str, family: Any) -> None:
    made, spec = family(name)
    backend = PRMBackend.open(BackendOptions(str(made.folder), dtype="float32", device="cpu"))
    assert backend.spec == specs.load(spec)
    assert scores(backend, *TRACES) == near([FAMILIES[name].scores(made, trace) for trace in TRACES])


def test_a_family_that_the_config_does_not_name_has_to_be_given(family: Any, tmp_path: Path) -> None:
    """A language model, or three classes of unknown meaning; two classes are those of TRL."""
    for made in (family("math-shepherd")[0], prmmodels.token_classifier(tmp_path, labels=3)):
        with pytest.raises(UsageError, match="spec"):
            PRMBackend.open(BackendOptions(str(made.folder), dtype="float32", device="cpu"))
    made = family("trl")[0]
    assert PRMBackend.open(BackendOptions(str(made.folder), dtype="float32", device="cpu")).spec == specs.load("trl")


@pytest.mark.parametrize("kind", ["shards", "bin"])
def test_the_head_is_found_in_whatever_file_holds_it(kind: str, tmp_path: Path) -> None:
    """The 7B checkpoints come in several files, older ones as pytorch_model.bin."""
    made = prmmodels.qwen_math_prm(tmp_path, real=False)
    single = tmp_path / "model.safetensors"
    tensors = load_file(single)
    single.unlink()
    if kind == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        places = {
            name: f"model-0000{2 if name.startswith(('score.2', 'model.norm')) else 1}-of-00002.safetensors"
            for name in tensors
        }
        for file in set(places.values()):
            part = {name: tensors[name] for name, place in places.items() if place == file}
            save_file(part, tmp_path / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": places}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert scores(opened(made, "qwen2.5-math-prm"), *TRACES) == near([two_layers(made, trace) for trace in TRACES])


def test_a_step_that_holds_the_marker_is_not_scored_as_two(family: Any) -> None:
    made, spec = family("qwen2.5-math-prm")
    trace = Trace("marked", "Is 91 prime?", ("91 = 7 * 13<extra_0>", "so it is not prime"))
    bad, good = opened(made, spec).step_scores([trace, TRACES[0]])
    assert isinstance(bad, TraceFailure)
    assert isinstance(good, StepScores)
    assert list(good.values) == pytest.approx(two_layers(made, TRACES[0]), rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_builtin_specs_can_be_written_and_read(name: str) -> None:
    given = specs.load(FAMILIES[name].spec)
    assert specs.parse(specs.as_dict(given), "there and back") == given
    assert given.source


def test_every_builtin_spec_is_tested_here() -> None:
    assert {one.spec for one in FAMILIES.values()} == set(specs.names())
