"""A backend of somebody else's: one class in one file, nothing inherited, used by every verb that takes a model."""

import json
import math
from pathlib import Path

from cpmi_eval.protocols import LanguageModel
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import Completion, Failure, Generation, LogProb, Tokens


class Dice:
    """Finds each of ``sides`` characters equally likely and answers with the seed."""

    name = "dice"
    summary = "every character is equally likely"
    capabilities = frozenset({"loglikelihood", "generate"})
    batch_tokens = 64
    has_chat_template = False

    def __init__(self, model, sides):
        self.model, self.sides = model, sides

    @classmethod
    def check(cls, options):
        pass

    @classmethod
    def open(cls, options):
        return cls(options.model, int(options.model_args.get("sides", 6)))

    def another(self, model):
        return Dice(model, self.sides)

    def describe(self):
        return ModelDescription(self.name, self.model, "cpu", own={"sides": self.sides})

    def prepare(self, capabilities):
        pass

    def peak_memory_bytes(self):
        return 0

    def chat_prompt(self, user):
        return user

    def loglikelihood(self, requests):
        return [
            LogProb(-math.log(self.sides) * len(one.continuation), len(one.continuation), Tokens(1, 1))
            if one.continuation
            else Failure("empty_continuation", "nothing follows")
            for one in requests
        ]

    def generate(self, prompts, sampling, seeds, enough=None):
        return [
            Generation(tuple(Completion(f"\\boxed{{{seed % 3}}}", 4, "stop", k) for k, seed in enumerate(own)))
            for own in seeds
        ]


def test_a_backend_is_one_file(register, cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    register("backends", "dice", Dice)
    assert isinstance(Dice("d", 6), LanguageModel)
    assert "dice" in cli("ls", "backends").out
    model = ("--backend", "dice", "--model", "d", "--model_args", "sides=8")
    for labeler, args in (("cpmi", ""), ("mc", "n=2,max_new_tokens=4")):
        told = ("--labeler", labeler, *(("--labeler_args", args) if args else ()))
        done = cli("run", *model, *told, "--task", "synthetic", "--limit", "2", "--output_path", labeler)
        assert done.code == 0, done.err
        about = json.loads(Path(labeler, "results.json").read_text())["model"]
        assert about == {"backend": "dice", "model": "d", "device": "cpu", "sides": 8}
        rows = [json.loads(line) for line in Path(labeler, "samples.jsonl").read_text().splitlines()]
        assert len(rows) == 2 and all(row["error"] is None for row in rows)
    done = cli("compare", *model, "--labelers", "cpmi,length", "--task", "synthetic", "--limit", "2")
    assert done.code == 0, done.err
