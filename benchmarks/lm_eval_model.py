"""``cpmi-hf`` against lm-eval's own ``hf``: the same multiple-choice questions after the same few-shot prompt.

    python benchmarks/lm_eval_model.py                    # 100 questions x 4 choices, 5 shots, SmolLM2-135M, fp32
    python benchmarks/lm_eval_model.py --shots 0,5,10 --batch-sizes 1,8 --questions 50

Both run the task through ``lm_eval.simple_evaluate`` on one loaded model; seconds are those of ``loglikelihood``, with
tokenization and without building the prompts. Questions are made up by rule, from a fixed seed. For ``hf`` the tokens
computed are those of its batches without padding: one-token choices of a question share a pass there.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from rich.console import Console
from rich.table import Table

from cpmi_eval.backends import models
from cpmi_eval.backends.hf import HFBackend
from cpmi_eval.lm_eval.model import CPMIHF

NAMES = ("Ada", "Bo", "Cleo", "Dev", "Eli", "Fay")
THINGS = ("apples", "marbles", "stamps", "pencils", "coins", "shells")


def questions(n: int) -> list[dict[str, Any]]:
    """Return word problems with four worded choices each."""
    rng = random.Random(0)
    rows = []
    for _ in range(n):
        who, other = rng.sample(NAMES, 2)
        thing = rng.choice(THINGS)
        has, more, gives = rng.randint(20, 90), rng.randint(5, 40), rng.randint(2, 15)
        right = has + more - gives
        numbers = [right, right + rng.choice((1, 2, 10)), right + 2 * gives, right - rng.choice((1, 3, 10))]
        rng.shuffle(numbers)
        rows.append(
            {
                "question": f"{who} has {has} {thing} and buys {more} more at the market on Saturday. On the way home "
                f"{who} gives {gives} of them to {other}. How many {thing} does {who} have now?",
                "choices": [f"{who} has {number} {thing} left." for number in numbers],
                "answer": numbers.index(right),
            }
        )
    return rows


def write_task(folder: Path, n: int, shots: int) -> None:
    """Write the task's data and its YAML file; the shots are the same for every question."""
    rows = questions(n + shots)
    for name, part in (("shots", rows[n:] or rows[:1]), ("test", rows[:n])):
        (folder / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    task = {
        "task": "shared_prompt",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {name: str(folder / f"{name}.json") for name in ("shots", "test")}},
        "test_split": "test",
        "fewshot_split": "shots",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": shots,
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    (folder / "shared_prompt.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML


class Watch:
    """Times a model's ``loglikelihood`` and keeps its answers, in place of the method."""

    def __init__(self, lm: Any) -> None:
        self.inner = lm.loglikelihood
        self.seconds = 0.0
        self.answers: list[tuple[float, bool]] = []
        lm.loglikelihood = self

    def __call__(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Answer, and look at the clock."""
        start = time.perf_counter()
        self.answers = self.inner(requests)
        self.seconds = time.perf_counter() - start
        return self.answers


def evaluate(lm: Any, folder: Path) -> tuple[Watch, float]:
    """Return what the run's loglikelihood took and gave, and the accuracy."""
    watch = Watch(lm)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    result = lm_eval.simple_evaluate(lm, tasks=["shared_prompt"], task_manager=manager, bootstrap_iters=0)
    return watch, float(result["results"]["shared_prompt"]["acc,none"])


class CountedHF(HFLM):  # type: ignore[misc]
    """lm-eval's model, counting the tokens of the sequences that go through it."""

    requested = 0
    computed = 0

    def _loglikelihood_tokens(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
        sequences = [(*context, *continuation[:-1]) for _, context, continuation in requests]
        self.requested += sum(map(len, sequences))
        self.computed += sum(map(len, set(sequences)))
        return super()._loglikelihood_tokens(requests, *args, **kwargs)


def measure(backend: HFBackend, shots: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per model and batch size, with the ratio to cpmi-hf and the largest difference."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder, options.questions, shots)
        mine = CPMIHF(backend)
        ours, accuracy = evaluate(mine, folder)
        rows.append(row("cpmi-hf", shots, "auto", mine.tokens.requested, mine.tokens.computed, ours, accuracy, ours))
        for size in options.batch_sizes.split(","):
            other = CountedHF(backend.model, tokenizer=backend.encoder.tokenizer, batch_size=int(size))
            theirs, accuracy = evaluate(other, folder)
            rows.append(row("hf", shots, size, other.requested, other.computed, theirs, accuracy, ours))
    return rows


def row(
    name: str, shots: int, size: str, requested: int, computed: int, watch: Watch, accuracy: float, ours: Watch
) -> dict[str, Any]:
    """Return one row of figures."""
    pairs = list(zip(watch.answers, ours.answers, strict=True))
    return {
        "model": name,
        "shots": shots,
        "batch_size": size,
        "requests": len(pairs),
        "requested": requested,
        "computed": computed,
        "seconds": watch.seconds,
        "ratio": watch.seconds / ours.seconds,
        "accuracy": accuracy,
        "difference": max(abs(a - b) for (a, _), (b, _) in pairs),
        "greedy_differs": sum(a != b for (_, a), (_, b) in pairs),
    }


def table(rows: Sequence[dict[str, Any]], options: argparse.Namespace, dtype: str, device: str) -> Table:
    """Return the figures as a table."""
    title = f"{options.questions} questions x 4 choices, {options.model}, {dtype}, {device}"
    made = Table(title=title, title_justify="left")
    headings = ("model", "shots", "batch size", "requested", "computed", "seconds", "/ cpmi-hf")
    for heading in (*headings, "accuracy", "max difference", "greedy differs"):
        made.add_column(heading, justify="left" if heading == "model" else "right")
    for one in rows:
        made.add_row(
            one["model"],
            str(one["shots"]),
            one["batch_size"],
            f"{one['requested']:,}",
            f"{one['computed']:,}",
            f"{one['seconds']:.1f}",
            f"{one['ratio']:.1f}",
            f"{one['accuracy']:.3f}",
            f"{one['difference']:.1e}",
            str(one["greedy_differs"]),
        )
    return made


def main() -> None:
    """Measure and print one table; ``--json`` for the raw figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=models.DEFAULT_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--shots", default="5")
    parser.add_argument("--batch-sizes", default="1,8", help="of lm-eval's own model")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    device = models.pick_device(options.device)
    dtype = models.pick_dtype(options.dtype, device)
    model, tokenizer = models.load_model(models.resolve(options.model), dtype, device, {})
    backend = HFBackend(model, tokenizer)
    rows = [one for shots in options.shots.split(",") for one in measure(backend, int(shots), options)]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        Console(width=140).print(table(rows, options, dtype, device))


if __name__ == "__main__":
    main()
