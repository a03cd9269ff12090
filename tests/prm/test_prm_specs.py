"""PRM specs: what is refused, which checkpoint is of which family, and the ids and read positions of each family."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tinymodels

from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.labelers.prm import PRM
from cpmi_eval.prm import detect, specs
from cpmi_eval.prm.encode import EncodingError, TraceEncoder
from cpmi_eval.protocols import BackendOptions

PROBLEM = "Ada has 12 apples and buys 30 more. How many?"
STEPS = ("She has 12 + 30.", "The answer is: 42")


def tokenizer(*extra: str, bos: bool = True, template: bool = True) -> Any:
    """Return the tiny tokenizer with further special tokens."""
    made = copy.deepcopy(tinymodels.tokenizer(bos))
    made.add_special_tokens({"additional_special_tokens": list(extra)})
    if not template:
        made.chat_template = None
    return made


TOKENS = ("<extra_0>", "<RW>", "ки")


def changed(name: str, /, **changes: Any) -> dict[str, Any]:
    """Return the document of a built-in spec with keys (dots as ``__``) set, or removed where the value is ``...``."""
    document = specs.as_dict(specs.load(name))
    for path, value in changes.items():
        *sections, key = path.split("__")
        inner = document
        for section in sections:
            inner = inner[section]
        if value is ...:
            del inner[key]
        else:
            inner[key] = value
    return document


def encoder(name: str, made: Any = None, /, **changes: Any) -> TraceEncoder:
    return TraceEncoder(specs.parse(changed(name, **changes), "here"), made or tokenizer(*TOKENS))


@pytest.mark.parametrize("name", specs.names())
def test_built_in_specs_survive_being_written(name: str, tmp_path: Path) -> None:
    spec = specs.load(name)
    assert spec.name == name
    assert specs.load(str(specs.write(spec, tmp_path))) == spec
    assert (tmp_path / "prm_spec.json").is_file()
    assert spec.native_threshold == (0.0 if spec.read.transform.kind in ("identity", "difference") else 0.5)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("trl", {"agregation": "min"}, ("unknown key of a PRM spec 'agregation'", "Did you mean 'aggregation'?")),
        ("trl", {"input__stepp": "x"}, ("unknown key of input 'stepp'", "'step'")),
        ("trl", {"read__head__kinds": "x"}, ("unknown key of read.head 'kinds'", "'kind'")),
        ("trl", {"aggregation": "minn"}, ("unknown aggregation 'minn'", "'min'")),
        ("trl", {"input__form": "chats"}, ("unknown input.form 'chats'", "'chat'")),
        ("trl", {"name": ...}, ("missing required field `name`",)),
        ("trl", {"read__head": ...}, ("read: Object missing required field `head`",)),
        ("trl", {"input": "x"}, ("input must be a mapping",)),
        ("trl", {"native_threshold": "0.5"}, ("native_threshold: Expected `float`, got `str`",)),
        ("trl", {"native_threshold": float("nan")}, ("native_threshold must be a number",)),
        ("trl", {"input__bos": 1}, ("input.bos: Expected `bool`, got `int`",)),
        ("trl", {"input__marker": 5}, ("input.marker: Expected `str | null`, got `int`",)),
        ("trl", {"checkpoints": "a/b"}, ("checkpoints: Expected `array`, got `str`",)),
        ("trl", {"checkpoints": [1]}, ("checkpoints[0]: Expected `str`, got `int`",)),
        ("trl", {"input__marker_id": 7}, ("input.marker_id and marker are both given",)),
        ("trl", {"input__marker": ...}, ("input.marker is missing",)),
        ("trl", {"input__marker": ""}, ("input.marker must not be empty",)),
        ("trl", {"input__system": "Hi"}, ("input.system needs form: chat or turns",)),
        ("trl", {"input__step": "x"}, ("input.step must contain {step}",)),
        ("trl", {"input__before": "{problems}"}, ("input.before has placeholders other than {problem}",)),
        ("trl", {"input__between": "{"}, ("input.between is not a template",)),
        ("trl", {"read__part": "first", "read__at": "last_of_step"}, ("read.part chooses a token of the marker",)),
        ("trl", {"read__head__outputs": 3, "read__transform__classes": [3]}, ("go past the head's 3 outputs",)),
        ("trl", {"read__transform__classes": [0, 1]}, ("read.transform.classes must be 1 different",)),
        ("trl", {"read__transform": {"kind": "sigmoid"}}, ("sigmoid does not fit a head with 2",)),
        ("trl", {"read__head__activation": "relu"}, ("read.head.activation must be left out",)),
        ("trl", {"read__head__layers": []}, ("read.head.layers are 0",)),
        ("trl", {"read__head__tokens": ["+"]}, ("read.head.tokens must be left out",)),
        ("trl", {"read__head__layers": [{"weight": "w", "bias_optional": True}]}, ("layers[0].bias_optional",)),
        ("math-shepherd", {"read__head__tokens": ["+"]}, ("read.head.tokens must be two",)),
        ("math-shepherd", {"input__marker": ..., "input__marker_id": 7}, ("marker_id needs join: ids",)),
        ("qwen2.5-math-prm", {"input__join": "ids"}, ("input.join must be 'text' with form: chat",)),
        ("qwen2.5-math-prm", {"input__bos": True}, ("input.bos must be False with form: chat",)),
        ("qwen2.5-math-prm", {"read__head__activation": ...}, ("read.head.activation must be given",)),
        ("rlhflow", {"read__at": "last_of_step"}, ("read.at last_of_step cannot be told apart",)),
        ("reasoneval", {"input__marker": "\n"}, ("input.marker is given, but read.drop_markers",)),
        ("reasoneval", {"input__join": "text"}, ("read.drop_markers needs at: last_of_step and join: ids",)),
    ],
)
def test_what_a_spec_may_not_say(name: str, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        specs.parse(changed(name, **changes), "my.yaml")
    assert str(caught.value).startswith("my.yaml")
    for word in words:
        assert word in str(caught.value)


def test_files_that_are_no_specs(tmp_path: Path) -> None:
    for text, word in (("[1]", "must be a mapping, not list"), ("a: [", "is no YAML"), ("", "must be a mapping")):
        path = tmp_path / "spec.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=word) as caught:
            specs.load(str(path))
        assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match=r"none\.yaml does not exist"):
        specs.load(str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match="Did you mean 'math-shepherd'"):
        specs.load("math-sheperd")


def checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_what_is_said_wins_over_what_is_carried_and_that_over_what_is_known(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "Qwen2.5-Math-PRM-7B", architectures=["Qwen2ForPrmModel"])
    assert detect.resolve(str(folder), None).name == "qwen2.5-math-prm"  # its name, before its architecture
    specs.write(specs.load("pure"), folder)
    assert detect.resolve(str(folder), None).name == "pure"
    assert detect.resolve(str(folder), "trl").name == "trl"
    plain = checkpoint(tmp_path / "mine", architectures=["Qwen2ForPrmModel"])
    assert detect.resolve(str(plain), None).name == "skywork-o1"


def test_a_token_classifier_of_two_labels_is_trl(tmp_path: Path) -> None:
    two = checkpoint(tmp_path / "two", architectures=["LlamaForTokenClassification"])
    named = {"0": "bad", "1": "good"}
    also = checkpoint(tmp_path / "also", architectures=["LlamaForTokenClassification"], id2label=named)
    three = checkpoint(tmp_path / "three", architectures=["LlamaForTokenClassification"], id2label={**named, "2": "?"})
    unknown = checkpoint(tmp_path / "unknown", architectures=["LlamaForCausalLM"])
    assert detect.resolve(str(two), None).name == detect.resolve(str(also), None).name == "trl"
    for folder in (three, unknown):
        with pytest.raises(UsageError, match="--prm_spec") as caught:
            detect.resolve(str(folder), None)
        assert all(name in str(caught.value) for name in (str(folder), *specs.names()))


def test_known_names_need_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    for name in ("qwen2.5-math-prm-7b", "Qwen2.5-Math-PRM-7B", "Qwen/Qwen2.5-Math-PRM-7B"):
        labeler = PRM(name)
        assert labeler.checkpoint == "Qwen/Qwen2.5-Math-PRM-7B"
        assert (labeler.spec.name, labeler.native_threshold, labeler.aggregation) == (
            "qwen2.5-math-prm",
            0.5,
            "product",
        )
    assert detect.hub_id("MATH-shepherd-mistral-7b-PRM") == "peiyi9979/math-shepherd-mistral-7b-prm"
    with pytest.raises(ModelError, match="short name of a known one"):
        PRM("no-such-prm")


def test_the_hub_is_asked_for_a_spec_and_then_for_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def answer(repo: str, file: str, revision: str | None = None) -> str:
        asked.append((repo, file, revision))
        if not (tmp_path / file).is_file():
            raise LocalEntryNotFoundError("no connection")
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", answer)
    with pytest.raises(ModelError, match=r"cannot read config\.json of some/prm from the hub: no connection"):
        detect.resolve("some/prm", None, "v2")
    assert asked == [("some/prm", "prm_spec.json", "v2"), ("some/prm", "config.json", "v2")]
    checkpoint(tmp_path, architectures=["Qwen2ForProcessRewardModel"])
    assert detect.resolve("some/prm", None).name == "qwen2.5-math-prm"
    specs.write(specs.load("pure"), tmp_path)
    assert detect.resolve("some/prm", None).name == "pure"


def test_the_labeler_brings_its_model_and_never_asks_for_the_reference(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", architectures=["Qwen2ForPrmModel"])
    labeler = PRM(str(folder), spec="pure")
    assert (labeler.kind, labeler.needs, labeler.native_threshold) == ("prm", frozenset(), 0.0)
    backend, options = labeler.brings(BackendOptions("smollm2-135m", {"row_tokens": 64}, prefix_sharing=False))
    assert (backend, options.model, options.prefix_sharing) == ("prm", str(folder), False)
    assert options.model_args == {"row_tokens": 64, "spec": "pure"}
    assert PRM("a/b", spec="trl", revision="v1").brings(BackendOptions("x"))[1].model_args["revision"] == "v1"


def pieces(made: Any, *texts: str) -> list[list[int]]:
    return [made(text, add_special_tokens=False)["input_ids"] for text in texts]


@pytest.mark.parametrize(("name", "bos"), [("trl", True), ("skywork-o1", True), ("scalar-head", True), ("pure", False)])
def test_pieces_joined_as_ids(name: str, bos: bool) -> None:
    made, spec = tokenizer(), specs.load(name)
    before, first, second, marker = pieces(made, spec.input.before.format(problem=PROBLEM), *STEPS, spec.input.marker)
    encoded = TraceEncoder(spec, made).encode(PROBLEM, STEPS)
    lead = [made.bos_token_id] if bos else []
    assert list(encoded.ids) == [*lead, *before, *first, *marker, *second, *marker]
    end = len([*lead, *before, *first, *marker])
    assert encoded.reads == (end - 1, len(encoded.ids) - 1)


def test_markers_that_are_dropped_leave_the_step_s_last_token() -> None:
    made = tokenizer()
    before, first, second = pieces(made, f"Question:\n{PROBLEM}\nAnswer:\nLet's think step by step.\n", *STEPS)
    encoded = encoder("reasoneval", made).encode(PROBLEM, STEPS)
    assert list(encoded.ids) == [made.bos_token_id, *before, *first, *second]
    assert encoded.reads == (len(before) + len(first), len(encoded.ids) - 1)


def test_a_marker_given_as_an_id() -> None:
    made = tokenizer("<RW>")
    mark = made.convert_tokens_to_ids("<RW>")
    by_id = encoder("trl", made, input__marker=..., input__marker_id=mark, input__exclusive=True)
    encoded = by_id.encode(PROBLEM, STEPS)
    assert [encoded.ids[read] for read in encoded.reads] == [mark, mark]
    with pytest.raises(EncodingError, match="step 1 contains the step marker"):
        by_id.encode(PROBLEM, (STEPS[0], "so <RW>"))
    with pytest.raises(EncodingError, match="past the tokenizer's"):
        encoder("trl", made, input__marker=..., input__marker_id=10_000)


@pytest.mark.parametrize("name", ["math-shepherd", "qwen2.5-math-prm", "cpmi"])
def test_a_marker_that_is_one_token_is_read_once_per_step(name: str) -> None:
    made = tokenizer(*TOKENS)
    spec = specs.load(name)
    encoded = TraceEncoder(spec, made).encode(PROBLEM, STEPS)
    mark = made.convert_tokens_to_ids(spec.input.marker)
    assert [index for index, token in enumerate(encoded.ids) if token == mark] == list(encoded.reads)
    assert encoded.ids.count(made.bos_token_id) == 1
    assert encoded.ids[0] == made.bos_token_id


def test_the_texts_of_the_published_formats() -> None:
    made = tokenizer(*TOKENS)
    shepherd = encoder("math-shepherd", made).encode(PROBLEM, STEPS)
    assert made.decode(shepherd.ids) == (f"<bos>{PROBLEM} Step 1: {STEPS[0]} ки\nStep 2: {STEPS[1]} ки")
    qwen = encoder("qwen2.5-math-prm", made).encode(PROBLEM, STEPS)
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    assert made.decode(qwen.ids) == (
        f"<bos>[system] {system}\n[user] {PROBLEM}\n[assistant] {STEPS[0]}<extra_0>{STEPS[1]}<extra_0>\n"
    )
    turns = encoder("rlhflow", made).encode(PROBLEM, STEPS)
    assert made.decode(turns.ids) == (
        f"<bos>[user] {PROBLEM} {STEPS[0]}\n[assistant] +\n[user] {STEPS[1]}\n[assistant] +\n"
    )
    assert [made.decode([turns.ids[read + 1]]) for read in turns.reads] == ["+", "+"]
    llemma = encoder("llemma-prm800k", made).encode(PROBLEM, STEPS)
    assert made.decode(llemma.ids) == (f"<bos># Question\n\n{PROBLEM}\n\n# Solution\n\n{STEPS[0]}\n\n{STEPS[1]}\n\n")
    assert made.decode(llemma.ids[: llemma.reads[0]]).endswith(STEPS[0])


@pytest.mark.parametrize("name", ["math-shepherd", "qwen2.5-math-prm", "cpmi"])
def test_a_marker_in_the_trace_s_own_text_is_refused(name: str) -> None:
    marker = specs.load(name).input.marker
    ours = encoder(name)
    with pytest.raises(EncodingError, match="step 0 contains the step marker"):
        ours.encode(PROBLEM, (f"one {marker} two", STEPS[1]))
    with pytest.raises(EncodingError, match="the problem contains the step marker"):
        ours.encode(f"{marker}?", STEPS)


@pytest.mark.parametrize("name", specs.names())
def test_a_second_bos_is_refused(name: str) -> None:
    with pytest.raises(EncodingError, match="the problem contains the BOS token"):
        encoder(name).encode("<bos>What?", STEPS)
    with pytest.raises(EncodingError, match="no steps"):
        encoder(name).encode(PROBLEM, ())


@pytest.mark.parametrize("name", specs.names())
def test_a_tokenizer_that_adds_a_bos_of_its_own_changes_nothing(name: str) -> None:
    ids = {bos: encoder(name, tokenizer(*TOKENS, bos=bos)).encode(PROBLEM, STEPS).ids for bos in (True, False)}
    assert ids[True] == ids[False]


def test_a_step_of_its_own_newlines_is_one_step() -> None:
    for name in ("trl", "skywork-o1", "llemma-prm800k", "scalar-head", "reasoneval"):
        encoded = encoder(name).encode(PROBLEM, ("one\n\ntwo\nthree", "four\n\nfive"))
        assert len(encoded.reads) == 2


def test_tokenizers_that_cannot_serve_a_spec() -> None:
    with pytest.raises(EncodingError, match="needs a chat template"):
        encoder("cpmi", tokenizer(*TOKENS, template=False))
    with pytest.raises(EncodingError, match=r"'<extra_0>' of the spec 'qwen2.5-math-prm' must be one token"):
        encoder("qwen2.5-math-prm", tokenizer())
    with pytest.raises(EncodingError, match="reads the logit of 'zzz yyy', which is not one token"):
        encoder("math-shepherd", read__head__tokens=["+", "zzz yyy"]).head_tokens()
    with pytest.raises(EncodingError, match="compares a token with itself"):
        encoder("math-shepherd", read__head__tokens=["+", "+"]).head_tokens()


def test_a_marker_merged_with_its_neighbour_is_refused() -> None:
    made = tokenizer()
    assert len(pieces(made, "\n\n")[0]) == 1
    with pytest.raises(EncodingError, match="after step 1 is merged with its neighbour"):
        encoder("llemma-prm800k", made, input__marker="\n").encode(PROBLEM, ("one", "two\n"))


def test_chat_templates_that_change_what_they_are_given() -> None:
    made = tokenizer(*TOKENS)
    trimming = made.chat_template.replace("{{ m.content }}", "{{ m.content | trim }}")
    made.chat_template = trimming
    encoded = encoder("cpmi", made).encode(PROBLEM, ("\n " + STEPS[0], STEPS[1]))
    assert made.decode(encoded.ids).endswith(f"[assistant] {STEPS[0]}<RW>{STEPS[1]}<RW>\n")
    made.chat_template = trimming.replace("m.content | trim", "m.content | upper")
    with pytest.raises(EncodingError, match="changes the assistant's turn"):
        encoder("cpmi", made).encode(PROBLEM, STEPS)
    made.chat_template = "{{ messages | length }}" + trimming
    for name in ("cpmi", "rlhflow"):
        with pytest.raises(EncodingError, match="rewrites earlier turns"):
            encoder(name, made).encode(PROBLEM, STEPS)
    made.chat_template = "{{ bos_token }}" + trimming
    with pytest.raises(EncodingError, match="2 BOS tokens where"):
        encoder("cpmi", made).encode(PROBLEM, STEPS)


def test_templates_that_begin_every_turn_with_the_bos_token() -> None:
    """SmolLM2's BOS is what begins a turn: several are right there, and none may come from the trace."""
    made = tokenizer(*TOKENS)
    made.chat_template = "{% for m in messages %}{{ bos_token }}{{ m.role }}\n{{ m.content }}\n{% endfor %}"
    encoded = encoder("cpmi", made).encode(PROBLEM, STEPS)
    assert made.decode(encoded.ids) == f"<bos>user\n{PROBLEM}\n<bos>assistant\n{STEPS[0]}<RW>{STEPS[1]}<RW>\n"


@pytest.mark.parametrize("form", ["ids", "text"])
def test_a_blank_step_has_no_last_token(form: str) -> None:
    changes = {} if form == "ids" else {"input__join": "text", "input__marker": "\n\n", "input__exclusive": False}
    ours = encoder("reasoneval", **changes, read__drop_markers=form == "ids")
    assert len(ours.encode(PROBLEM, STEPS).reads) == 2
    with pytest.raises(EncodingError, match="step 1 has no text"):
        ours.encode(PROBLEM, (STEPS[0], " "))


def test_last_of_step_with_markers_that_stay() -> None:
    made = tokenizer()
    ours = encoder("reasoneval", made, read__drop_markers=False, input__marker="\n\n", input__exclusive=False)
    before, first, second, marker = pieces(made, ours.spec.input.before.format(problem=PROBLEM), *STEPS, "\n\n")
    encoded = ours.encode(PROBLEM, STEPS)
    assert list(encoded.ids) == [made.bos_token_id, *before, *first, *marker, *second, *marker]
    assert [encoded.ids[read] for read in encoded.reads] == [first[-1], second[-1]]
    text = encoder(
        "reasoneval",
        made,
        read__drop_markers=False,
        input__marker="\n\n",
        input__exclusive=False,
        input__join="text",
    ).encode(PROBLEM, STEPS)
    assert [text.ids[read] for read in text.reads] == [first[-1], second[-1]]
