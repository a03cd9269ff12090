"""README.md and docs/*.md as tests see them: blocks of code, the commands in them, links, and a place to run them in.

What a page shows is run, in the order of the page, in an empty folder, with a few made-up benchmark rows and a tiny
random model in place of the default one. A block that cannot be run there says so on the line before it::

    <!-- not run: the reason -->

Its ``cpmi-eval`` lines are still parsed, and their settings checked. Of a block that is run,

* ``sh``: lines are ``cpmi-eval`` commands, or ``cat > FILE <<'EOF'`` and what goes into the file;
* ``python``, ``toml``, ``yaml``: a first line ``# NAME.ext`` makes it a file; other Python is executed;
* a ``pyproject.toml`` is installed: its entry points are found.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import prmmodels
import tinymodels
from places import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
BLOCK = re.compile(r"^(?:<!-- not run: (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


def read(path: Path) -> str:
    """Return a page without its examples of what a page is written like, which stand between four backticks."""
    return re.sub(r"^````.*?^````$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``mark`` is the reason why it is not run, if it is not."""

    language: str
    text: str
    mark: str | None

    @property
    def file(self) -> str | None:
        """The name of the file that this block is."""
        named = re.match(r"# ([\w.-]+\.(?:py|toml|yaml))\n", self.text)
        return named[1] if named else None


@dataclass(frozen=True)
class Line:
    """A command of a shell block, or (``file``) a text that is written into a file."""

    words: tuple[str, ...]
    file: str | None = None
    content: str = ""

    def __str__(self) -> str:
        return shlex.join(self.words) if self.file is None else f"cat > {self.file}"


def blocks(text: str) -> list[Block]:
    return [Block(found["language"], found["text"], found["mark"]) for found in BLOCK.finditer(text)]


def lines(block: Block) -> Iterator[Line]:
    """Yield what a shell block does, line by line, without comments."""
    rest = iter(block.text.replace("\\\n", " ").splitlines())
    for line in rest:
        if opened := re.fullmatch(r"cat > (\S+) <<'EOF'", line):
            yield Line((), opened[1], "".join(f"{inner}\n" for inner in iter(lambda: next(rest), "EOF")))
        elif words := tuple(shlex.split(line, comments=True)):
            yield Line(words)


def commands(text: str, run: bool | None = None) -> list[tuple[str, ...]]:
    """Return the cpmi-eval command lines of a page; ``run``: of the blocks that are run, or of the others, only."""
    shell = [block for block in blocks(text) if block.language == "sh" and run in (None, block.mark is None)]
    return [line.words for block in shell for line in lines(block) if line.words[:1] == ("cpmi-eval",)]


def prose(text: str) -> str:
    """Return a page without its blocks."""
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Return the targets of a page's links that are not addresses."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


NUMBERS = [(12, 30), (7, 5), (40, 2), (9, 14), (21, 6), (3, 18)]


def _problems() -> list[dict[str, str]]:
    texts = [f"Ada has {a} pens and buys {b} more. How many?" for a, b in NUMBERS]
    return [{"problem": text, "answer": str(a + b)} for text, (a, b) in zip(texts, NUMBERS, strict=True)]


def _traces(subset: str) -> Iterator[dict[str, object]]:
    """Yield a right and a wrong solution of each problem, in ProcessBench's form."""
    for place, (row, (a, b)) in enumerate(zip(_problems(), NUMBERS, strict=True)):
        for wrong in (False, True):
            total = a + b + wrong
            yield {
                "id": f"{subset}-{2 * place + wrong}",
                "generator": "hand",
                "problem": row["problem"],
                "steps": [f"She has {a} pens.", f"{a} + {b} = {total}.", f"The answer is {total}."],
                "final_answer_correct": not wrong,
                "label": 1 if wrong else -1,
            }


def write_data(folder: Path) -> Path:
    """Write what stands in for the benchmarks, laid out as on the hub."""
    problems = _problems()
    math = [
        {**row, "solution": f"It is $\\boxed{{{row['answer']}}}$.", "level": "Level 1", "type": "Algebra"}
        for row in problems
    ]
    gsm8k = [{"question": row["problem"], "answer": f"Add.\n#### {row['answer']}"} for row in problems]
    files: dict[str, list[dict[str, object]]] = {
        "openai/gsm8k/test.jsonl": gsm8k,
        "openai/gsm8k/train.jsonl": [{"question": "What is left of 9 after 2 go?", "answer": "#### 7"}],
        "EleutherAI/hendrycks_math/test.jsonl": math,
        "HuggingFaceH4/MATH-500/test.jsonl": [{**row, "subject": "Algebra", "level": 1} for row in math],
        "Qwen/ProcessBench/gsm8k.json": list(_traces("gsm8k")),
        "Qwen/ProcessBench/math.json": list(_traces("math")),
    }
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows) if path.suffix == ".jsonl" else json.dumps(rows)
        path.write_text(text, encoding="utf-8")
    return folder


def write_models(folder: Path) -> tuple[Path, Path]:
    """Write a language model that has room for long prompts, and a PRM; return their folders."""
    model = tinymodels.save(folder / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
    ends = {"eos_token_id": list(range(1, tinymodels.VOCABULARY, 20))}  # many, so that rollouts are short
    (model / "generation_config.json").write_text(json.dumps(ends))
    return model, prmmodels.token_classifier(folder / "prm").folder


def install(pyproject: str, folder: Path) -> None:
    """Make the entry points of a pyproject.toml in ``folder`` those of a distribution that lies there."""
    import tomllib

    groups = tomllib.loads(pyproject)["project"]["entry-points"]
    info = folder / "my_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    text = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in groups.items()
    )
    (info / "entry_points.txt").write_text(text)
