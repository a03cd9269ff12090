"""``cpmi-hf``: lm-eval's ``hf`` model with the trie under ``loglikelihood`` and the shared generator.

Everything that decides *what* is scored is lm-eval's own and inherited: how context and continuation are tokenized
(with its convention for white space at their boundary), which token leads an empty context, chat templates, the windows
of rolling perplexity, truncation on the left. Only *how* it is computed differs: prefixes that requests share go
through the model once.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from lm_eval import utils
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import postprocess_generated_text
from tqdm import tqdm

from cpmi_eval.backends.hf import MODEL_ARGS, HFBackend
from cpmi_eval.backends.loading import hub_args
from cpmi_eval.engine import trie
from cpmi_eval.engine.encode import Encoded
from cpmi_eval.engine.likelihood import Likelihood
from cpmi_eval.engine.reader import PackedReader
from cpmi_eval.engine.rollouts import SharedGenerator, distrust
from cpmi_eval.errors import ModelError, UsageError
from cpmi_eval.lm_eval.generation import Plan, PromptEncoder, plan
from cpmi_eval.lm_eval.options import batch_count, budgets, check_names, open_backend, without_pairwise
from cpmi_eval.seeding import derive_seed
from cpmi_eval.settings import optional_flag
from cpmi_eval.types import Completion, Failure, Generation, Tokens

TokenRequest: TypeAlias = "tuple[tuple[str, str] | None, list[int], list[int]]"
CHUNK_BATCHES = 8  # batches between two entries into lm-eval's cache; a cut computes a shared prefix again


class CPMIHF(HFLM):  # type: ignore[misc]
    """A causal language model of transformers for lm-eval; shared prefixes are computed once.

    ``tokens`` counts what was asked for, computed and generated so far.
    """

    def __init__(
        self,
        pretrained: str | HFBackend,
        dtype: str | torch.dtype = "auto",
        device: str | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        chat_template_args: dict[str, Any] | None = None,
        enable_thinking: bool | None = None,
        think_end_token: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Load the model, or take over one that is loaded.

        Args:
            pretrained: a preset (``smollm2-135m``), a hub id, a folder or a GGUF file; or an open ``hf`` backend, to
                which ``dtype``, ``device`` and ``kwargs`` do not apply.
            dtype: a torch dtype's name; ``auto`` is the checkpoint's own.
            device: a torch device; not given: a GPU where there is one.
            batch_size: ``auto`` (by the model's size and the device), or how many packed rows are scored and how many
                completions are decoded at a time.
            max_batch_size: an upper bound for ``auto``.
            max_length: longest sequence in tokens; not given: the model's.
            add_bos_token: lead every text with BOS, or never; not given: the tokenizer decides.
            prefix_token_id: what stands before a text without context; not given: BOS.
            chat_template_args: more variables for the chat template, as is ``enable_thinking``.
            enable_thinking: see there.
            think_end_token: text that ends a model's thoughts; what stands before it is dropped from completions.
            kwargs: those of :data:`MODEL_ARGS`.

        Raises:
            UsageError: arguments that do not fit, or that nothing would use.
            ModelError: the model cannot be loaded, or a trie cannot serve it.
        """
        batch = batch_count(batch_size, max_batch_size)
        optional_flag("add_bos_token", add_bos_token)
        optional_flag("enable_thinking", enable_thinking)
        args = {key: kwargs.pop(key) for key in MODEL_ARGS if key in kwargs}
        check_names(kwargs)
        if max_length is not None:
            args["max_length"] = max_length
        if isinstance(pretrained, HFBackend):
            if args.keys() - {"max_length"} or dtype != "auto" or device is not None:
                raise UsageError("pretrained is a model that is loaded already; dtype, device and budgets are its own")
            backend = pretrained
        else:
            backend = open_backend(pretrained, str(dtype).removeprefix("torch."), device, args)
        if think_end_token is not None and (not isinstance(think_end_token, str) or think_end_token.isdigit()):
            raise UsageError(f"think_end_token is the token's text, such as </think>, not {think_end_token!r}")
        self.loaded = backend
        with _quiet():
            super().__init__(
                backend.model,
                backend="causal",
                tokenizer=_tokenizer(backend, add_bos_token, args),
                max_length=max_length,
                batch_size=batch_size,
                add_bos_token=add_bos_token,
                prefix_token_id=prefix_token_id,
                chat_template_args=chat_template_args,
                enable_thinking=enable_thinking,
                think_end_token=think_end_token,
            )
        self.facts = backend.describe()
        self.pretrained = self.facts.model
        self.tokens = Tokens()
        self.limits = budgets(backend.limits, batch, max_batch_size, self.max_length, args)
        self.reader = PackedReader(backend.model, self.limits)
        self.likelihood = Likelihood(self.reader)
        self._prompts = PromptEncoder(self.tokenizer, self.tok_encode, self.prefix_token_id)
        self._generator: SharedGenerator | None = None

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval's cache of requests calls the tokenizer: the model's name, not where it is converted to."""
        return self.pretrained.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval keeps in its results: the model's identity, its budgets, and the tokens so far."""
        return {
            "model_num_parameters": self.model.num_parameters(),
            "model_dtype": self.model.dtype,
            "model_revision": self.facts.revision or "",
            "model_sha": self.facts.version,
            "row_tokens": self.limits.row_tokens,
            "batch_tokens": self.limits.batch_tokens,
            "slots": self.limits.slots,
            "tokens": self.tokens.as_dict(),
        }

    # --- loglikelihood ----------------------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenRequest], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Score (key, context ids, continuation ids); return (sum of log-probabilities, is it the greedy one) of each.

        Raises:
            ModelError: some cannot be scored; those that can are in lm-eval's cache by then.
        """
        answers: dict[int, tuple[float, bool]] = {}
        failures: dict[int, Failure] = {}
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood requests")
        for chunk in self._chunks(requests):
            for index, result in zip(chunk, self.likelihood.score_greedy(list(chunk.values())), strict=True):
                if isinstance(result, Failure):
                    failures[index] = result
                    continue
                scored, greedy = result
                answers[index] = (scored.total, greedy)
                self.tokens += scored.tokens
                key = requests[index][0]
                if key is not None:  # a window of a rolling request has none
                    self.cache_hook.add_partial("loglikelihood", key, answers[index])
            bar.update(len(chunk))
        bar.close()
        _raise(failures, len(requests), lambda index: self._text(requests[index]))
        return [answers[index] for index in range(len(requests))]

    def _encoded(self, request: TokenRequest) -> Encoded:
        """What goes through the model; too long a context loses its beginning, as in lm-eval."""
        _, context, continuation = request
        if not context or not continuation:
            part = "continuation" if context else "context"
            raise UsageError(
                f"no token of its own is left of the {part} of {self._text(request)}: it is empty, or white space that "
                "lm-eval moves, or the tokenizer merges it with its neighbour"
            )
        if len(continuation) > self.max_length:
            raise UsageError(
                f"a continuation of {len(continuation):,} tokens, the model takes {self.max_length:,}: "
                f"{self._text(request)}"
            )
        ids = (context + continuation)[-(self.max_length + 1) :]
        return Encoded(ids, len(ids) - len(continuation))

    def _text(self, request: TokenRequest) -> str:
        """Show a request in a message: its two texts, or of a rolling window the tokens' text."""
        key, context, continuation = request
        pair = key or (self.tok_decode(context), self.tok_decode(continuation))
        return f"{_shown(pair[0])} + {_shown(pair[1])}"

    def _chunks(self, requests: Sequence[TokenRequest]) -> Iterator[dict[int, Encoded]]:
        """Sort requests by their tokens and cut them into chunks of some batches."""
        keys = [self._encoded(one).ids.astype(">i4").tobytes() for one in requests]  # refuses before it computes
        budget = CHUNK_BATCHES * self.limits.batch_tokens
        chunk: dict[int, Encoded] = {}
        fresh = 0
        before: Sequence[int] = []
        for index in sorted(range(len(requests)), key=keys.__getitem__):
            one = self._encoded(requests[index])
            fresh += len(one) - trie.common_prefix(before, one.tail)
            chunk[index] = one
            before = one.tail
            if fresh >= budget:
                yield chunk
                chunk, fresh, before = {}, 0, []
        if chunk:
            yield chunk

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each whole text, in lm-eval's windows of up to ``max_length`` tokens."""
        totals: list[float] = []
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood_rolling requests")
        group: list[list[TokenRequest]] = []
        size = 0
        for at, request in enumerate(requests):
            group.append(self._windows(request.args[0]))
            size += sum(len(context) + len(continuation) for _, context, continuation in group[-1])
            if size >= CHUNK_BATCHES * self.limits.batch_tokens or at + 1 == len(requests):
                values = iter(self._loglikelihood_tokens([one for own in group for one in own], disable_tqdm=True))
                for own in group:
                    total = sum(next(values)[0] for _ in own)
                    self.cache_hook.add_partial("loglikelihood_rolling", requests[len(totals)].args, total)
                    totals.append(total)
                bar.update(len(group))
                group, size = [], 0
        bar.close()
        return totals

    def _windows(self, text: str) -> list[TokenRequest]:
        windows = utils.get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [(None, *utils.make_disjoint_window(window)) for window in windows]

    # --- generate_until ---------------------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return a completion of each (context, generation arguments); see :mod:`cpmi_eval.lm_eval.generation`.

        Sampled ones depend on the seed that lm-eval gives torch, on the request, and on how often it came before.

        Raises:
            UsageError: a generation argument that would not be applied.
            ModelError: some cannot be completed; those that can are in lm-eval's cache by then.
        """
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(index)
        plans = {
            key: plan(requests[members[0]].args[1], self.model, self.tokenizer, self.max_length, self.max_gen_toks)
            for key, members in groups.items()
        }
        texts: dict[int, str] = {}
        failures: dict[int, Failure] = {}
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests")
        for key, members in groups.items():

            def done(at: int, completion: Completion, members: Sequence[int] = members) -> bool:
                context, asked = requests[members[at]].args
                text = postprocess_generated_text(completion.text, None, self.think_end_token)
                texts[members[at]] = text
                self.cache_hook.add_partial("generate_until", (context, asked), text)
                bar.update(1)
                return False

            contexts = [requests[index].args[0] for index in members]
            for index, made in zip(members, self._complete(contexts, key, plans[key], done), strict=True):
                if isinstance(made, Failure):
                    failures[index] = made
                else:
                    self.tokens += made.tokens
        bar.close()
        _raise(failures, len(requests), lambda index: _shown(requests[index].args[0]))
        return [texts[index] for index in range(len(requests))]

    def _complete(
        self, contexts: Sequence[str], asked: str, how: Plan, done: Callable[[int, Completion], bool]
    ) -> list[Generation | Failure]:
        generator = self._shared()
        seen: Counter[str] = Counter()
        seeds: list[list[int]] = []
        for context in contexts:
            seeds.append([derive_seed(torch.initial_seed(), "lm-eval", asked, context, seen[context])])
            seen[context] += 1
        usual, generator.ends = generator.ends, generator.ends | how.ends
        self._prompts.room = how.room
        try:
            return generator.generate(contexts, how.sampling, seeds, done)
        finally:
            generator.ends = usual

    def _shared(self) -> SharedGenerator:
        """Return the generator, checked once against plain passes of the model."""
        if self._generator is None:
            made = SharedGenerator(self.reader.forward, self._prompts, self.limits)
            try:
                distrust(made)
            except ModelError as error:
                raise without_pairwise(error) from error
            self._generator = made
        return self._generator


def _tokenizer(backend: HFBackend, add_bos_token: bool | None, args: Mapping[str, Any]) -> Any:
    """Return the model's tokenizer; where BOS is asked for or ruled out, one loaded so, as lm-eval does."""
    tokenizer = backend.encoder.tokenizer
    if add_bos_token is None or not tokenizer.name_or_path:
        return tokenizer
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer.name_or_path, add_bos_token=add_bos_token, **hub_args(args))


def _raise(failures: dict[int, Failure], n: int, text: Callable[[int], str]) -> None:
    """Raise for requests without a result: lm-eval knows no failed request, and a made-up number would count."""
    if failures:
        index, failure = next(iter(failures.items()))
        raise without_pairwise(
            ModelError(
                f"{len(failures)} of {n} requests failed, the first with {failure.kind}: {failure.message}; it reads "
                f"{text(index)}. With --use_cache the others are not computed again"
            )
        )


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:40]!r} ... {text[-30:]!r}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval from warning that a loaded model was passed to it: here that is the way."""

    def wanted(record: logging.LogRecord) -> bool:
        return "already-initialized" not in record.getMessage() and "is not of type `str`" not in record.getMessage()

    logger = logging.getLogger("lm_eval.models.huggingface")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
