"""A backend that plays back scripted completions, and a task that asks for sums: rollouts without a model."""

import json
import random
from typing import ClassVar

from cpmi_eval import Gold, Item, registry
from cpmi_eval.description import ModelDescription
from cpmi_eval.seeding import derive_seed
from cpmi_eval.types import Completion, Failure, Generation, LogProb, Provenance, TaskData, Tokens, Trace

RIGHT, WRONG = r"So it is \boxed{12}.", r"So it is \boxed{13}."
TOO_LONG = Failure("too_long", "9 tokens; the model takes 8")


def trace(name, n_steps=3, answer="12"):
    return Trace(name, f"problem {name}", tuple(f"{name} step {i}." for i in range(1, n_steps + 1)), answer, name)


def script(successes, role="policy"):
    """Texts by (role, trace, steps given, sample), from strings such as ``+-`` by (trace, steps given)."""
    return {
        (role, name, step, sample): RIGHT if mark == "+" else WRONG
        for (name, step), marks in successes.items()
        for sample, mark in enumerate(marks)
    }


def after_each_step(name, *marks, first=1):
    return {(name, step): own for step, own in enumerate(marks, first)}


class Scripted:
    """Plays back a text per (role, trace, steps given, sample), which it knows by the seed, in any order it likes.

    A text may be ``(text, finish)``; what is no text at a (role, trace, steps given) is a Failure of that prompt.
    """

    name: ClassVar[str] = "scripted"
    summary: ClassVar[str] = "plays back"
    capabilities: ClassVar[frozenset[str]] = frozenset({"generate", "loglikelihood"})
    batch_tokens = 16
    has_chat_template = False
    texts: ClassVar[dict] = {}
    opened: ClassVar[list[str]] = []

    def __init__(self, texts, seed=0, shuffle=None, chat=False, failures=None, model="scripted"):
        self.texts = texts
        self.keys = {derive_seed(seed, *key): key for key in texts}
        self.shuffle = random.Random(shuffle) if shuffle is not None else None
        self.has_chat_template = chat
        self.failures = failures or {}
        self.model = model
        self.drawn = []
        self.calls = []
        self.prompts = {}
        self.samplings = set()
        self.prepared = []

    @classmethod
    def check(cls, options):
        pass

    @classmethod
    def open(cls, options):
        cls.opened.append(options.model)
        return cls(cls.texts, model=options.model)

    def another(self, model):
        type(self).opened.append(model)
        return type(self)(self.texts, model=model)

    def describe(self):
        return ModelDescription(self.name, self.model, "cpu", dtype="float32")

    def prepare(self, capabilities):
        self.prepared.append(capabilities)

    def peak_memory_bytes(self):
        return 1

    def chat_prompt(self, user):
        return f"<user>{user}<assistant>"

    def loglikelihood(self, requests):
        return [
            LogProb(-(derive_seed(one.context, one.continuation) % 1000) / 100, 2, Tokens(10, 3)) for one in requests
        ]

    def generate(self, prompts, sampling, seeds, enough=None):
        keys = [[self.keys[seed] for seed in own] for own in seeds]
        points = [own[0][:3] for own in keys]
        self.calls.append(points)
        self.samplings.add(sampling)
        assert [own for own in keys if len({key[:3] for key in own}) > 1] == []
        self.prompts.update(zip(points, prompts, strict=True))
        todo = [
            (i, sample) for i, own in enumerate(keys) for sample in range(len(own)) if points[i] not in self.failures
        ]
        if self.shuffle:
            self.shuffle.shuffle(todo)
        made = [[] for _ in prompts]
        satisfied = set()
        for i, sample in todo:
            if i in satisfied:
                continue
            key = keys[i][sample]
            self.drawn.append(key)
            text = self.texts[key]
            text, finish = (text, "stop") if isinstance(text, str) else text
            made[i].append(Completion(text, 5, finish, sample))
            if enough is not None and enough(i, made[i][-1]):
                satisfied.add(i)
        return [
            self.failures.get(point)
            or Generation(
                tuple(sorted(own, key=lambda one: one.sample)), Tokens(10 * len(own), 4 * len(own), 2 * len(own))
            )
            for point, own in zip(points, made, strict=True)
        ]


class Sums:
    """A task of six traces of one to three steps."""

    name: ClassVar[str] = "sums"
    summary: ClassVar[str] = "twelves"
    subsets: ClassVar[tuple[str, ...]] = ("all",)
    metrics: ClassVar[tuple[str, ...]] = ("first_error",)
    synthetic: ClassVar[bool] = True
    traces: ClassVar[list[Trace]] = [trace(f"t{i}", 1 + i % 3) for i in range(6)]

    def load(self, options):
        items = tuple(Item("all", one, Gold(i % 2 - 1)) for i, one in enumerate(self.traces))
        return TaskData(items, (Provenance("sums", sha256="00", rows=len(items)),))


def random_texts(roles=("policy",), n=8, seed=5):
    rng = random.Random(seed)
    return {
        (role, one.id, step, sample): RIGHT if rng.random() < 0.3 else WRONG
        for role in roles
        for one in Sums.traces
        for step in range(len(one.steps) + 1)
        for sample in range(n)
    }


def install(patch, backend=Scripted, **attributes):
    """Register the task and the backend of this module, with ``attributes`` of the backend."""
    patch.setitem(registry.BUILTIN["tasks"], "sums", f"{Sums.__module__}:Sums")
    patch.setitem(registry.BUILTIN["backends"], "scripted", f"{backend.__module__}:{backend.__name__}")
    for name, value in {"opened": [], **attributes}.items():
        patch.setattr(backend, name, value)
    registry.entries.cache_clear()


SAME = ("id", "task", "scores", "prediction", "gold", "error")


def rows_of(result, keys=SAME):
    return [{key: row[key] for key in keys} for row in result.rows]


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


HARD = {"label": "hard"}
RECOMPUTED = [
    {"n": 8},
    {"n": 4},
    {"n": 8, **HARD},
    {"n": 4, **HARD},
    {"n": 8, **HARD, "schedule": "adaptive"},
    {"n": 3, **HARD, "schedule": "binary"},
]
