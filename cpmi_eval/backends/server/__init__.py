"""The ``server`` backend: a model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, transformers serve).

What the server offers is probed when the backend is prepared, not assumed; the manifest keeps what was found. Costs are
the server's own counts. Importing this module costs nothing; the client is imported when a model is opened.

Reproducibility: each completion is a request of its own with its own seed (31 bits of it, as not every server takes
more). That gives the same texts again as far as the server honours seeds, which the manifest says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from cpmi_eval.backends.server import alignment, chat, dialects, probing, replies
from cpmi_eval.backends.server.faults import RequestError
from cpmi_eval.backends.server.pool import Job, Pool, stopped
from cpmi_eval.backends.server.requests import DEFAULT_KEY_ENV, Request, ServerSettings
from cpmi_eval.errors import ModelError
from cpmi_eval.protocols import BackendOptions, Capability
from cpmi_eval.record.model import ModelDescription
from cpmi_eval.types import JSON, Completion, Enough, Failure, Generation, LogProb, Sampling, ScoreRequest, Tokens

BATCH_TOKENS_PER_REQUEST = 128  # of trace text: some traces for each request that may be under way
SEED_BITS = 0x7FFFFFFF
LISTED_MODELS = 20


@dataclass
class _Found:
    """What the probes have found so far."""

    model: str | None = None
    answered: bool = False
    dialect: str | None = None
    sampled: probing.Sampled | None = None
    prefill: JSON | None = None
    prefill_known: bool = False
    scoring: probing.Scoring | None = None


@dataclass
class _Drawn:
    """The completions of one prompt as they come in."""

    made: list[Completion] = field(default_factory=list)
    tokens: Tokens = field(default_factory=Tokens)
    failure: Failure | None = None
    enough: bool = False

    @property
    def over(self) -> bool:
        return self.enough or self.failure is not None

    def take(self, result: replies.Written | Failure, sample: int, copies: int) -> None:
        """Add a completion, ``copies`` times; one that comes too late adds its cost only."""
        if isinstance(result, Failure):
            self.failure = self.failure or result
            return
        tokens = result.usage.tokens()
        self.tokens += replace(tokens, requested=tokens.requested * copies)
        if not self.over:
            count = result.usage.completion
            self.made += [Completion(result.text, count, result.finish, sample + k) for k in range(copies)]


class ServerBackend:
    """A model that another process serves; ``key`` is sent as a bearer token, ``time`` stands in for the client's."""

    name: ClassVar[str] = "server"
    summary: ClassVar[str] = "an OpenAI-compatible server: generates; scores where it gives log-probs of prompts"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"loglikelihood", "generate"})

    def __init__(self, own: ServerSettings, key: str, **time: Any) -> None:
        from cpmi_eval.backends.server.client import Client

        self.settings = own
        self.pool = Pool(own, lambda: Client(own, key, **time))
        self._found = _Found()
        self._served: list[JSON] = []
        self._options: BackendOptions | None = None

    @classmethod
    def check(cls, options: BackendOptions) -> None:
        """Refuse wrong settings, and keys or passwords among them, before anything is asked."""
        ServerSettings.parse(options).key()

    @classmethod
    def open(cls, options: BackendOptions) -> ServerBackend:
        """Reach the server, which must be there; raise ModelError where it is not, or the client is not installed."""
        own = ServerSettings.parse(options)
        key = own.key()
        try:
            backend = cls(own, key)
        except ImportError as error:
            raise ModelError(f"the server backend needs {error.name}: pip install 'cpmi-eval[server]'") from error
        backend._options = options
        try:
            data = backend.pool.ask(lambda client: client.models()).get("data")
        except RequestError as fault:
            if fault.status != 404:
                raise backend._unusable(fault) from None
            data = None
        backend._served = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        return backend

    def _unusable(self, fault: RequestError) -> ModelError:
        at, failure = self.settings.base_url, fault.failure
        if fault.status in (401, 403):
            name = self.settings.key_env or DEFAULT_KEY_ENV
            return ModelError(f"{at} wants another key ({failure.message}); it is read from the environment: {name}")
        if fault.status == 404 or failure.kind == "wrong_model":
            names = ", ".join(self._listed()) or "it lists none"
            return ModelError(f"{at}: {failure.message}; --model must be one that it serves: {names}")
        if fault.status is None and failure.kind == "server_error":
            return ModelError(f"no server answers at {at} ({failure.message}); start one, or correct --base_url")
        return ModelError(f"{at} cannot be used: {failure.kind}: {failure.message}")

    def _listed(self) -> list[str]:
        return [replies.shown(one.get("id")) for one in self._served[:LISTED_MODELS]]

    def _owner(self) -> Any:
        return next((one.get("owned_by") for one in self._served if one.get("id") == self.settings.model), None)

    @property
    def batch_tokens(self) -> int:
        """Tokens of trace text that keep the server busy."""
        return BATCH_TOKENS_PER_REQUEST * self.settings.concurrency

    def peak_memory_bytes(self) -> int:
        """Return 0: the model's memory is not this process's."""
        return 0

    def describe(self) -> ModelDescription:
        """Return what a manifest should say: where and what is served, and what the probes found."""
        own, found, owner = self.settings, self._found, self._owner()
        return ModelDescription(
            self.name,
            found.model or own.model,
            "server",
            scorer=found.scoring.mode if found.scoring else None,
            generator=f"server {own.api}",
            batch_tokens=self.batch_tokens,
            own={
                "server": own.base_url,
                "served": self._listed(),
                "owned_by": None if owner is None else replies.shown(owner),
                "api": own.api,
                "dialect": found.dialect,
                "probes": {
                    "sampling": asdict(found.sampled) if found.sampled else None,
                    "prefill": False if found.prefill is None and found.prefill_known else found.prefill,
                    "scoring": asdict(found.scoring) if found.scoring else None,
                },
                **{name: getattr(own, name) for name in ("bos", "concurrency", "timeout", "retries")},
            },
        )

    def prepare(self, capabilities: frozenset[Capability]) -> None:
        """Find out what is not known yet; raise ModelError where the server does not offer ``capabilities``."""
        own, found = self.settings, self._found

        def once(request: Request) -> JSON:  # what the server may not know: an error is an answer, too
            return self._ask(request, retries=0)

        try:
            if not found.answered:
                found.model = probing.answer(own, self._ask(probing.canary(own)))
                found.answered = True
            if "loglikelihood" in capabilities and found.scoring is None:
                found.scoring = probing.scoring(own, once)
            if "generate" in capabilities and found.sampled is None:
                found.dialect = probing.dialect(own, self._owner(), once)
                found.sampled = probing.sampling(own, found.dialect, self._ask_all)
            if "generate" in capabilities and own.api == "chat" and not found.prefill_known:
                found.prefill, found.prefill_known = probing.prefill(own, once), True
        except RequestError as fault:
            raise self._unusable(fault) from None
        if "loglikelihood" in capabilities and found.scoring is not None and found.scoring.mode is None:
            raise probing.no_scoring(own, found.scoring)

    def _ask(self, request: Request, retries: int | None = None) -> JSON:
        return self.pool.ask(lambda client: client.send(request, retries))

    def _ask_all(self, requests: Sequence[Request]) -> list[JSON | Failure]:
        return self.pool.collect([Job(request, lambda reply: reply, index) for index, request in enumerate(requests)])

    def _still_well(self) -> None:
        """Tell a request that failed from a server that is gone, before its failure is kept for good."""
        if not self.pool.failed:
            return
        try:
            replies.written(self._ask(probing.canary(self.settings)), self._found.model)
        except RequestError as fault:
            what = f"{self.pool.failed} requests failed, and now the smallest does"
            raise stopped(self.settings, what, fault.failure) from None

    def loglikelihood(self, requests: Sequence[ScoreRequest]) -> list[LogProb | Failure]:
        """Return summed log-probabilities, in the order of the requests; see :class:`ScoreRequest`.

        Raises:
            ModelError: the server does not offer them, or not of a truncated distribution.
            ServerStoppedError: it does not serve any more.
        """
        if not requests:
            return []
        self.prepare(frozenset({"loglikelihood"}))
        if any(one.top_k or one.top_p < 1.0 for one in requests):
            raise ModelError("a server scores whole distributions only; set --labeler_args top_k=0,top_p=1.0")
        jobs = [self._scored(one, place) for place, one in enumerate(requests) if one.continuation]
        results = self.pool.collect(jobs)
        self._still_well()
        empty, found = Failure("empty_continuation", "the continuation has no characters"), iter(results)
        return [next(found) if one.continuation else empty for one in requests]

    def _scored(self, asked: ScoreRequest, place: int) -> Job[LogProb]:
        scoring, model = self._found.scoring, self._found.model
        assert scoring is not None and scoring.mode is not None
        mode, bos = scoring.mode, alignment.Bos(self.settings.bos, scoring.unlisted)
        context = self._led(asked.context)
        text = context + asked.continuation

        def read(reply: JSON) -> LogProb:
            found = probing.prompt_list(mode, reply, model)
            return alignment.logprob(found, text, len(context), replies.usage_of(reply), bos)

        return Job(probing.scored(self.settings, mode, text), read, place)

    def _led(self, text: str) -> str:
        """Return a prompt behind the BOS text of the settings, once."""
        return text if text.startswith(self.settings.bos) else self.settings.bos + text

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None = None
    ) -> list[Generation | Failure]:
        """Sample completions of each prompt; see :class:`cpmi_eval.protocols.LanguageModel`.

        Greedy text is asked for once, and given as often as it is asked for. A prompt of which one completion fails has
        failed, and the rest of it is not asked for. Where the caller may have enough, first completions come first.

        Raises:
            ModelError: the server cannot sample so, or cannot take such prompts.
            ServerStoppedError: it does not serve any more.
        """
        if not prompts:
            return []
        self.prepare(frozenset({"generate"}))
        greedy, model = sampling.temperature <= 0, self._found.model
        asks = [self._asking(prompt, sampling) for prompt in prompts]
        order = [(i, k) for i, own in enumerate(seeds) for k in range(1 if greedy and own else len(own))]
        if enough is not None:
            order.sort(key=lambda place: (place[1], place[0]))

        def read(reply: JSON) -> replies.Written:
            return replies.written(reply, model, sampling.stop)

        jobs = [Job(asks[i](seeds[i][k]), read, i) for i, k in order]
        drawn = [_Drawn() for _ in prompts]

        def arrived(index: int, result: replies.Written | Failure) -> bool:
            prompt, sample = order[index]
            one = drawn[prompt]
            one.take(result, sample, len(seeds[prompt]) if greedy else 1)
            if enough is not None and not one.over:
                one.enough = enough(prompt, one.made[-1])
            return one.over

        self.pool.run(jobs, arrived)
        self._still_well()
        return [
            one.failure or Generation(tuple(sorted(one.made, key=lambda made: made.sample)), one.tokens)
            for one in drawn
        ]

    def _asking(self, prompt: str, sampling: Sampling) -> Callable[[int], Request]:
        """Return what makes the request for a completion of ``prompt`` under a seed."""
        own, found = self.settings, self._found
        if sampling.temperature > 0 and found.sampled is not None and not found.sampled.samples:
            raise ModelError(
                f"{own.base_url} gives the same text under every seed at temperature 1.5: it decodes greedily or "
                "ignores seeds; model_args extra=transformers|vllm|... may tell it how to sample"
            )
        fields: JSON = {
            "model": own.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
        }
        extra = dialects.fields(found.dialect or "none", sampling)
        if own.api == "chat":
            turns = self._turns(prompt)
            fields["messages"] = turns.messages()
            extra = {**extra, **((found.prefill or {}) if turns.begun else {})}
        else:
            fields["prompt"] = self._led(prompt)
        return lambda seed: Request(own.api, {**fields, "seed": seed & SEED_BITS}, extra)

    def _turns(self, prompt: str) -> chat.Turns:
        turns = chat.read(prompt)
        if turns is None:
            raise ModelError("api=chat takes chat turns only; use chat=auto or chat=true, or api=completions")
        if turns.begun and self._found.prefill is None:
            raise ModelError(
                f"{self.settings.base_url} begins a new turn where it is given the beginning of an answer, so that "
                "rollouts from a prefix would start elsewhere: use api=completions, or a server that goes on with it "
                "(vLLM and SGLang do, with continue_final_message)"
            )
        return turns

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be chat turns: the server renders them, under ``api=chat``."""
        return self.settings.api == "chat"

    def chat_prompt(self, user: str) -> str:
        """Return a user turn as a marked text; see :mod:`cpmi_eval.backends.server.chat`.

        Raises:
            ModelError: the server is asked for plain completions.
        """
        if not self.has_chat_template:
            raise ModelError("plain completions have no chat turns; run without chat=true, or with model_args api=chat")
        return chat.mark(user)

    def another(self, model: str) -> ServerBackend:
        """Open a second model of the same server."""
        if self._options is None:
            raise ModelError("this backend was made by hand; a second one cannot be opened like it")
        return type(self).open(replace(self._options, model=model))
