"""Sample several solutions of each problem of a benchmark, for scorers to select among.

FILE gets a line per problem in the benchmark's order: ``id``, ``problem``, ``answer``, for MATH ``level`` and
``subject``, and ``candidates`` with ``generator``, ``solution``, ``is_correct`` (null where equality of the answers
cannot be decided), ``finish`` and ``n_tokens``. FILE.json says how it was made, FILE.failed.jsonl lists problems
without candidates. Until all is drawn, finished problems are in FILE.partial.jsonl, from which the same call goes on.

A completion's seed depends on the run's seed, the problem and its place only: more candidates, other batches or another
selection of problems leave it as it is.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpmi_eval import registry, settings
from cpmi_eval.backends.models import DEFAULT_MODEL
from cpmi_eval.description import ModelDescription, checked
from cpmi_eval.errors import DataError, StoreError, UsageError
from cpmi_eval.labelers.prompts import check_chat, fill, read_prompt, uses_chat
from cpmi_eval.manifest import differences, package_versions
from cpmi_eval.protocols import BackendOptions, LanguageModel, OffersExamples, OffersProblems
from cpmi_eval.seeding import derive_rng, derive_seed
from cpmi_eval.store import read_json, replace_text, to_lines, whole_lines, write_json
from cpmi_eval.tasks.candidates import Solution
from cpmi_eval.tasks.references import problem_key
from cpmi_eval.tasks.selection import grade
from cpmi_eval.types import JSON, Failure, Generation, Problem, Provenance, Sampling, Tokens

COMPLETIONS_PER_BATCH = 256
PROMPT = (
    "Solve the problem step by step. Put each step into a paragraph of its own, with a blank line after it, and end "
    "with the final answer in \\boxed{}.\n\nProblem: {problem}"
)
SHOT = "Problem: {problem}\nSolution:"
NEXT = "\n\nProblem:"
ELSEWHERE = {"to", "data_dir"}  # where, not what


@dataclass(frozen=True)
class GenerateConfig:
    """What to draw. ``to``: the file of candidates. ``limit``: that many problems at random under the seed.

    ``shots``: solved problems of the training split before the problem, in a prompt without a chat template.
    ``prompt``: a text file with ``{problem}`` instead of the built-in request. ``batch_size``: problems per call.
    """

    task: str
    to: str
    subset: str = "test"
    n: int = 4
    limit: int | None = None
    shots: int = 0
    chat: bool | str = "auto"
    prompt: str | None = None
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 1024
    model: str = DEFAULT_MODEL
    model_args: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "hf"
    dtype: str = "auto"
    device: str = "auto"
    prefix_sharing: bool = True
    batch_size: int | str = "auto"
    seed: int = 0
    data_dir: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn, and settings that would do nothing.

        Raises:
            UsageError: names the setting.
        """
        settings.choice(f"subset of {self.task}", self.subset, offering(self.task).subsets)
        for name in ("n", "max_new_tokens", *(["limit"] if self.limit is not None else [])):
            settings.integer(name, getattr(self, name), 1)
        for name in ("shots", "top_k", "seed"):
            settings.integer(name, getattr(self, name), 0)
        settings.flag("prefix_sharing", self.prefix_sharing)
        settings.number("temperature", self.temperature, 0.0)
        settings.number("top_p", self.top_p, 1e-6, 1.0)
        settings.number("repetition_penalty", self.repetition_penalty, 1e-6)
        if self.batch_size != "auto":
            settings.integer("batch_size", self.batch_size, 1)
        if self.temperature == 0 and self.n > 1:
            raise UsageError(f"--temperature 0 is greedy: {self.n} equal solutions; use --n 1 or a temperature")
        check_chat(self.chat)
        if self.shots and (self.chat is True or self.prompt is not None):
            raise UsageError("--shots has a plain prompt of its own; leave out --chat true and --prompt")

    def sampling(self, chat: bool) -> Sampling:
        """Return how completions are drawn; without chat turns the built-in prompts end them at a next problem."""
        stop = (NEXT,) if self.prompt is None and not chat else ()
        drawn = (self.temperature, self.top_p, self.top_k, self.repetition_penalty)
        return Sampling(self.max_new_tokens, *drawn, stop=stop)

    @property
    def problems_per_batch(self) -> int:
        """How many problems are given to the model at a time."""
        return max(1, COMPLETIONS_PER_BATCH // self.n) if isinstance(self.batch_size, str) else self.batch_size

    def identity(self, provenance: Sequence[Provenance]) -> JSON:
        """Return what can change a candidate."""
        own = {key: value for key, value in settings.recorded(asdict(self)).items() if key not in ELSEWHERE}
        text = hashlib.sha256(_template(self).encode()).hexdigest()
        whole: JSON = {**own, "prompt_sha256": text, "data": [asdict(one) for one in provenance]}
        return dict(json.loads(json.dumps(whole)))


@dataclass(frozen=True)
class Generated:
    """A finished file. ``about`` is the content of FILE.json, ``failures`` that of FILE.failed.jsonl."""

    path: Path
    about: JSON
    failures: tuple[JSON, ...]


def generate(
    config: GenerateConfig, *, fresh: bool = False, progress: Callable[[int, int, int, float], None] | None = None
) -> Generated:
    """Draw candidates, or finish a file that was interrupted.

    Args:
        config: what to draw.
        fresh: draw anew, even if the file is there.
        progress: called with problems done, problems in all, tokens generated and seconds, after every batch.

    Raises:
        UsageError: the data, the model or the file cannot be used; says why.
    """
    backend_class = registry.load("backends", config.backend)
    options = BackendOptions(config.model, config.model_args, config.dtype, config.device, config.prefix_sharing)
    backend_class.check(options)
    if "generate" not in backend_class.capabilities:
        raise UsageError(f"the backend {config.backend!r} does not generate")
    data_dir = Path(config.data_dir) if config.data_dir else None
    everything, provenance = offering(config.task).problems(config.subset, data_dir)
    shots, further = _shots(config, data_dir)
    identity = config.identity([*provenance, *further])
    path = Path(config.to)
    if (done := _finished(path, identity, fresh)) is not None:
        return done
    problems = _chosen(everything, config)
    partial = _Partial(path.with_name(f"{path.name}.partial.jsonl"), identity, fresh)
    backend = backend_class.open(options)
    backend.prepare(frozenset({"generate"}))
    model = checked(backend.describe(), f"the backend {config.backend!r}")
    partial.belong(model)
    start, earlier = time.perf_counter(), partial.seconds
    _draw(config, problems, shots, backend, partial, progress or (lambda *_: None))
    return _save(config, problems, partial, model, identity, earlier + time.perf_counter() - start)


def offering(name: str) -> OffersProblems:
    """Return the task of that name, plug-ins included.

    Raises:
        UnknownNameError: there is no such task.
        UsageError: it offers no problems.
    """
    task = registry.load("tasks", name)()
    if not isinstance(task, OffersProblems):
        raise UsageError(f"the task {name!r} offers no problems to solve; gsm8k and math do")
    return task


def _template(config: GenerateConfig) -> str:
    if config.shots:
        return SHOT
    return PROMPT if config.prompt is None else read_prompt(Path(config.prompt), ("problem",))


def _chosen(problems: Sequence[Problem], config: GenerateConfig) -> list[Problem]:
    """Return ``limit`` problems at random under the seed, in the benchmark's order; fewer are part of more."""
    ordered = sorted(problems, key=lambda one: derive_seed(config.seed, "limit", one.id))[: config.limit]
    kept = {one.id for one in ordered}
    return [one for one in problems if one.id in kept]


def _shots(config: GenerateConfig, data_dir: Path | None) -> tuple[list[tuple[str, str]], list[Provenance]]:
    """Return solved problems of the training split (one more than is shown: a problem is not its own example)."""
    if not config.shots:
        return [], []
    task = offering(config.task)
    if not isinstance(task, OffersExamples):
        raise UsageError(f"the task {config.task!r} has no worked solutions for --shots; leave it out")
    worked, origins = task.worked(data_dir)
    if len(worked) <= config.shots:
        raise DataError(f"{origins[0].name} has {len(worked)} worked solutions; --shots {config.shots} needs one more")
    return derive_rng(config.seed, "shots").sample(worked, config.shots + 1), origins


def prompt_of(problem: str, config: GenerateConfig, shots: Sequence[tuple[str, str]], backend: LanguageModel) -> str:
    """Return what the model is given to solve ``problem``."""
    if config.shots:
        shown = [pair for pair in shots if problem_key(pair[0]) != problem_key(problem)][: config.shots]
        examples = "".join(f"{fill(SHOT, problem=one)} {solution}\n\n" for one, solution in shown)
        return examples + fill(SHOT, problem=problem)
    text = fill(_template(config), problem=problem)
    return backend.chat_prompt(text) if chats(config, backend) else f"{text}\n\nSolution:\n"


def chats(config: GenerateConfig, backend: LanguageModel) -> bool:
    """Return whether problems go through the model's chat template; worked examples never do."""
    return not config.shots and uses_chat(check_chat(config.chat), backend)


class _Partial:
    """What is drawn so far: a header line that says of what, then a line per problem; a torn last line is redone."""

    def __init__(self, path: Path, identity: JSON, fresh: bool) -> None:
        """Read what is there.

        Raises:
            StoreError: it belongs to other settings.
        """
        self.path = path
        self.header: JSON = {"identity": identity, "model": None}
        self.rows: dict[str, JSON] = {}
        if fresh:
            path.unlink(missing_ok=True)
        lines = whole_lines(path).splitlines() if path.exists() else []
        if not lines:
            return
        try:
            header, *rows = map(json.loads, lines)
            self.rows = {row["id"]: row for row in rows}
            theirs = header["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error!r}); start anew with --fresh") from error
        if differ := differences(theirs, identity, sorted({*theirs, *identity})):
            raise StoreError(f"{path} holds candidates of other settings ({differ}). Use another --to, or --fresh")
        self.header = header

    def belong(self, model: ModelDescription) -> None:
        """Note the model, or make sure that it is the one that drew the rest.

        Raises:
            StoreError: it is another one.
        """
        own = model.fixed()
        theirs = self.header["model"]
        if theirs is not None and (differ := differences(theirs, own, own)):
            raise StoreError(f"{self.path} was begun with another model or device ({differ}); use --fresh")
        if theirs is None:
            self.header["model"] = own
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self.path, to_lines([self.header]))

    def add(self, rows: Sequence[JSON]) -> None:
        """Append finished problems."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(to_lines(rows))
        self.rows |= {row["id"]: row for row in rows}

    @property
    def seconds(self) -> float:
        """Seconds spent on what is there."""
        return float(sum(row["seconds"] for row in self.rows.values()))


def _draw(
    config: GenerateConfig,
    problems: Sequence[Problem],
    shots: Sequence[tuple[str, str]],
    backend: LanguageModel,
    partial: _Partial,
    progress: Callable[[int, int, int, float], None],
) -> None:
    """Draw what is not there yet, batch by batch."""
    size, generated, spent = config.problems_per_batch, 0, 0.0
    sampling = config.sampling(chats(config, backend))
    for start in range(0, len(problems), size):
        batch = problems[start : start + size]  # a batch that was cut short is drawn as a whole: equal to the last bit
        owed = {one.id for one in batch} - partial.rows.keys()
        if not owed:
            continue
        began = time.perf_counter()
        prompts = [prompt_of(one.problem, config, shots, backend) for one in batch]
        seeds = [[derive_seed(config.seed, "candidate", one.id, k) for k in range(config.n)] for one in batch]
        made = backend.generate(prompts, sampling, seeds)
        seconds = time.perf_counter() - began
        rows = [
            {**_row(config, problem, one), "seconds": seconds / len(batch)}
            for problem, one in zip(batch, made, strict=True)
        ]
        partial.add([row for row in rows if row["id"] in owed])
        generated += sum(row["tokens"]["generated"] for row in rows)
        spent += seconds
        progress(len(partial.rows), len(problems), generated, spent)


def _row(config: GenerateConfig, problem: Problem, made: Generation | Failure) -> JSON:
    """Return a problem's line of the partial file: its candidates, or why there are none."""
    if isinstance(made, Failure):
        return {"id": problem.id, "candidates": [], "failure": asdict(made), "tokens": Tokens().as_dict()}
    solutions = [Solution(one.text, config.model) for one in made.completions]
    candidates = [
        {
            "generator": config.model,
            "solution": one.text,
            "is_correct": graded.verdict if graded.answer is not None else False,
            "finish": one.finish,
            "n_tokens": one.n_tokens,
        }
        for one, graded in zip(made.completions, grade(problem, solutions), strict=True)
    ]
    return {"id": problem.id, "candidates": candidates, "failure": None, "tokens": made.tokens.as_dict()}


def _about_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _failed_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.failed.jsonl")


def _finished(path: Path, identity: JSON, fresh: bool) -> Generated | None:
    """Return what is there if it is this, finished.

    Raises:
        StoreError: something else is there.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a directory; --to takes a file")
    if not path.exists():
        return None
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if not _about_path(path).exists():
        raise StoreError(f"{path} exists and was not made by generate; remove it or choose another --to")
    about = read_json(_about_path(path))
    if "identity" not in about:
        raise StoreError(f"{_about_path(path)} was not made by generate; choose another --to")
    if about["sha256"] != sha256:
        raise StoreError(f"{path} is not what {_about_path(path)} tells of; remove both or choose another --to")
    if fresh:
        return None
    if differ := differences(about["identity"], identity, sorted({*about["identity"], *identity})):
        raise StoreError(f"{path} holds candidates of other settings ({differ}). Use another --to, or --fresh")
    failed = _failed_path(path)
    failures = tuple(map(json.loads, failed.read_bytes().splitlines())) if failed.exists() else ()
    return Generated(path, about, failures)


def _save(
    config: GenerateConfig,
    problems: Sequence[Problem],
    partial: _Partial,
    model: ModelDescription,
    identity: JSON,
    seconds: float,
) -> Generated:
    """Write the file and what lies beside it; the file itself comes last but one, the partial one goes last."""
    path, rows = Path(config.to), [partial.rows[one.id] for one in problems]
    lines = to_lines(_line(problem, row) for problem, row in zip(problems, rows, strict=True))
    failures = tuple({"id": row["id"], **row["failure"]} for row in rows if row["failure"])
    about = {
        "identity": identity,
        "config": asdict(config),
        "model": model.as_dict(),
        "versions": package_versions(),
        "counts": _counts(rows),
        "tokens": dict(sum((Counter(row["tokens"]) for row in rows), Counter[str]())),
        "wall_seconds": seconds,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }
    if failures:
        replace_text(_failed_path(path), to_lines(failures))
    else:
        _failed_path(path).unlink(missing_ok=True)
    write_json(_about_path(path), about)
    replace_text(path, lines)
    partial.path.unlink()
    return Generated(path, about, failures)


def _line(problem: Problem, row: JSON) -> JSON:
    groups = dict(problem.groups)
    own = {"id": problem.id, "problem": problem.problem, "answer": problem.answer}
    return {**own, **groups, "candidates": row["candidates"]}


def _counts(rows: Sequence[JSON]) -> JSON:
    """Count problems and candidates; ``pass@1`` is the mean over all candidates."""
    candidates = list(_all(rows))
    right = sum(one["is_correct"] is True for one in candidates)
    return {
        "problems": len(rows),
        "failed": dict(Counter(row["failure"]["kind"] for row in rows if row["failure"])),
        "candidates": len(candidates),
        "correct": right,
        "undecided": sum(one["is_correct"] is None for one in candidates),
        "cut_off": sum(one["finish"] == "length" for one in candidates),
        "pass@1": right / len(candidates) if candidates else None,
    }


def _all(rows: Sequence[JSON]) -> Iterator[JSON]:
    for row in rows:
        yield from row["candidates"]
