"""GSM8K: grade-school word problems (arXiv 2110.14168), each with several solutions to select among."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cpmi_eval.tasks.references import ReferenceSource
from cpmi_eval.tasks.selection import Selection
from cpmi_eval.tasks.sources import Table

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ANNOTATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class _Row:
    question: str
    answer: str

    def __post_init__(self) -> None:
        if "####" not in self.answer:
            raise ValueError("answer: no '####' line")

    @property
    def problem(self) -> str:
        return self.question

    @property
    def reference(self) -> str:  # without thousands separators, as GSM8K's own grader reads it
        return _THOUSANDS.sub("", self.answer.rpartition("####")[2].strip())

    @property
    def worked(self) -> str:  # as a model should write it: no calculator notes, the answer in words
        work, _, answer = _ANNOTATION.sub("", self.answer).strip().rpartition("####")
        return f"{work.strip()}\nThe answer is {answer.strip()}."


def source(split: str) -> ReferenceSource:
    """Return a split of the dataset."""
    revision, role = "740312add88f781978c0658806c59bc2815b9866", "reference answers of gsm8k problems"
    return ReferenceSource(Table("openai/gsm8k", f"{split}.jsonl", split, revision, ("main",), role), _Row)


class GSM8K(Selection):
    """Best-of-N selection; its settings are ``candidates`` (a file) and ``split`` (auto, blank or line)."""

    name: ClassVar[str] = "gsm8k"
    summary: ClassVar[str] = "select among solutions of grade-school problems (GSM8K): --candidates FILE"
    sources: ClassVar[Mapping[str, ReferenceSource]] = {split: source(split) for split in ("test", "train")}
