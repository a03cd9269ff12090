"""Build labelled traces from GSM8K's worked training solutions, for experiments with models that solve too little.

    python examples/build_traces.py OUT.jsonl --data-dir DIR --problems 60

Each problem gives two traces: its solution, a line per step, and the same with one result exchanged for a wrong number
(the rule-based edits that CPMI takes its negatives from) where it is computed and wherever the next steps repeat it.
``label`` is the index of that step, -1 for the whole solution. The order and the edits are seeded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

from cpmi_eval.labelers.negatives import rule_based
from cpmi_eval.tasks.gsm8k import GSM8K
from cpmi_eval.tasks.sources import read_rows

RESULT = re.compile(r"<<[^<>]*=(?P<value>[^<>=]+)>>(?P<shown>[\d.,]*\d)")
ANNOTATION = re.compile(r"<<[^<>]*>>")


def solution(row: dict[str, str]) -> tuple[list[str], str]:
    """Return a worked solution's lines, with the calculator's annotations, and its final answer."""
    work, _, answer = row["answer"].rpartition("####")
    return [line for line in work.strip().splitlines() if line.strip()], answer.strip().replace(",", "")


def corrupted(lines: list[str], draw: random.Random) -> tuple[list[str], int] | None:
    """Exchange the result of one step for a wrong number, there and further down; None where no step has a result."""
    places = [(i, match) for i, line in enumerate(lines) for match in RESULT.finditer(line)]
    if not places:
        return None
    index, match = draw.choice(places)
    right = match["shown"]
    wrong = draw.choice(rule_based(right))
    repeated = re.compile(rf"(?<![\d.,]){re.escape(right)}(?![\d,]|\.\d)")
    at = match.start("shown")
    own = lines[index][:at] + wrong + repeated.sub(wrong, lines[index][match.end("shown") :])
    return [*lines[:index], own, *(repeated.sub(wrong, line) for line in lines[index + 1 :])], index


def traces(rows: list[dict[str, str]], seed: int) -> Iterator[dict[str, object]]:
    """Yield the traces of each problem in turn."""
    for number, row in enumerate(rows):
        lines, answer = solution(row)
        bad = corrupted(lines, random.Random(f"{seed}-{number}"))
        for name, steps, label in (("right", lines, -1), *([("wrong", *bad)] if bad else [])):
            yield {
                "id": f"gsm8k-train-{number}-{name}",
                "problem": row["question"],
                "steps": [ANNOTATION.sub("", step) for step in steps],
                "answer": answer,
                "label": label,
            }


def main() -> None:
    """Write the traces and say how many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", default=os.environ.get("CPMI_EVAL_DATA_DIR"))
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows, _ = read_rows(GSM8K.sources["train"].table, Path(args.data_dir) if args.data_dir else None)
    chosen = random.Random(args.seed).sample(list(rows), args.problems)
    made = list(traces(chosen, args.seed))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in made), encoding="utf-8")
    print(f"{args.out}: {len(made)} traces of {len(chosen)} problems")


if __name__ == "__main__":
    main()
