"""Generation for many prompts that share prefixes: each prefix is read once, then branched and decoded in one batch.

Prompts are packed into token tries. A trie row becomes a trunk when the first of its completions is begun. Completions
take the slots of one decoding loop; a finished one makes room for the next at once, so the batch stays full until
nothing is left to begin. See :mod:`cpmi_eval.engine.branches` for the attention and
:mod:`cpmi_eval.engine.sampling` for why a completion does not depend on its neighbours.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpmi_eval.engine import trie
from cpmi_eval.engine.branches import ATTENTION, SLOT_STEP, Branches, Trunk
from cpmi_eval.engine.encode import Encoder
from cpmi_eval.engine.forward import PackedForward, Stack, attention_of, padded, reason, refusal, trusted_difference
from cpmi_eval.engine.plain import too_long
from cpmi_eval.engine.sampling import NON_FINITE, completion, draw, end_tokens, penalized, stopped, uniforms
from cpmi_eval.engine.scoring import OUT_OF_MEMORY, Limits, is_out_of_memory
from cpmi_eval.types import Completion, Enough, Failure, Generation, Sampling, Tokens

log = logging.getLogger(__name__)

SORT_EVERY = 32  # steps between two sortings of the slots by length


@dataclass(eq=False)
class _Root:
    """A packed row of prompts; a trunk, with each prompt's first logits, from its first completion to its last."""

    row: trie.Forest
    waiting: int = 0  # completions that are not done
    trunk: Trunk | None = None
    logits: dict[int, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class _Growing:
    """One completion in the making."""

    root: _Root
    prompt: int
    sample: int
    numbers: NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)


class SharedGenerator:
    """Samples completions through shared trunks; the same text as :class:`PlainGenerator`'s, up to rounding."""

    name = "shared"

    def __init__(self, forward: PackedForward, encoder: Encoder, limits: Limits) -> None:
        self.forward = forward
        self.encoder = encoder
        self.limits = limits
        self.model = forward.model
        self.ends = end_tokens(forward.model, encoder.tokenizer)

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[Sequence[int]], enough: Enough | None = None
    ) -> list[Generation | Failure]:
        """Sample completions of each prompt; see :class:`cpmi_eval.protocols.Backend`."""
        ids = self.encoder.encode_prompts(prompts)
        failures = {i: failure for i, one in enumerate(ids) if (failure := self._refusal(len(one), sampling))}
        ready = [i for i, (_, own) in enumerate(zip(ids, seeds, strict=True)) if i not in failures and len(own) > 0]
        ready.sort(key=lambda i: ids[i].tolist())  # in whatever order they come: the same rows, hence the same rounding
        loop = _Loop(self, sampling, ids, seeds, ready, enough)
        with torch.inference_mode():
            loop.run()
        failures |= loop.failures
        return [failures.get(i) or loop.generation(i, len(own)) for i, own in enumerate(seeds)]

    def _refusal(self, prompt: int, sampling: Sampling) -> Failure | None:
        failure, limit = too_long(prompt, sampling, self.limits.max_length), self.forward.rope_limit
        if failure is not None or limit is None or prompt + sampling.max_new_tokens <= limit:
            return failure
        return Failure(
            "too_long",
            f"{prompt:,} prompt + {sampling.max_new_tokens:,} new tokens, past the {limit:,} within "
            "which this model's RoPE lets prefixes be shared; use --prefix_sharing off",
        )

    def trunk(self, row: trie.Forest) -> tuple[Trunk, Tensor]:
        """A packed row's keys and values, and its hidden states [nodes, width]."""
        stack = Stack(keep=True)
        sizes = self.limits.row_tokens, self.limits.batch_tokens
        hidden = torch.cat([states for _, states in self.forward.hidden(row, *sizes, stack)])
        return Trunk.of(row, stack, hidden.device), hidden

    def step(self, branches: Branches, tokens: Tensor) -> Tensor:
        """Append one token to every branch (ids [slots]); return the logits of the next ones [slots, vocabulary]."""
        position = branches.begin_step([*self.forward.windows.values()])
        with attention_of(self.model, ATTENTION):
            output = self.forward.decoder(
                input_ids=tokens[:, None],
                attention_mask=torch.zeros((1, 1, 1, 1), device=tokens.device),  # the branches know what is visible
                position_ids=position,
                past_key_values=branches,
                use_cache=True,
                branches=branches,
            )
        branches.end_step()
        return self.forward.logits(output.last_hidden_state[:, 0])


@torch.inference_mode()
def distrust(generator: SharedGenerator) -> float:
    """How far decoding in branches is from plain passes over the same tokens: root mean square, in nats.

    Two branches of unequal length off one trunk, each a few random tokens on.

    Raises:
        ModelError: the difference is more than rounding, or the model does not hand its attention what it needs.
    """
    model, steps = generator.model, 4
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rng = np.random.default_rng(1)
    stem, *tails = (rng.integers(0, vocabulary, n) for n in (12, 3, 9))
    own = rng.integers(0, vocabulary, (2, steps))
    row = trie.forest_of([np.concatenate([stem, tail]) for tail in tails])
    device = generator.forward.device
    branches = Branches(device)
    branches.extend(2)
    try:
        trunk, _ = generator.trunk(row)
        for slot in range(2):
            branches.occupy(slot, trunk, row.path(row.ends[slot]))
        ours = [generator.step(branches, torch.from_numpy(own[:, i]).to(device)) for i in range(steps)]
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        raise refusal(model, f"its attention cannot be branched ({reason(error)})") from error
    squares = []
    for slot, tail in enumerate(tails):
        whole = torch.from_numpy(np.concatenate([stem, tail, own[slot]]))[None].to(device)
        theirs = model(input_ids=whole, use_cache=False).logits[0, -steps:].double().log_softmax(-1)
        mine = torch.stack([logits[slot] for logits in ours]).double().log_softmax(-1)
        following = torch.from_numpy(rng.integers(0, vocabulary, 64)).to(theirs.device)
        squares.append((mine - theirs)[:, following] ** 2)
    difference = float(torch.cat(squares).mean().sqrt())
    trusted = trusted_difference(model)
    if not difference <= trusted:  # nor is NaN
        raise refusal(model, f"branches score tokens {difference:.3g} nats away from plain passes (limit {trusted:g})")
    return difference


class _Loop:
    """One call's decoding loop: what waits, what runs in which slot, what is done and what it cost."""

    def __init__(
        self,
        generator: SharedGenerator,
        sampling: Sampling,
        ids: Sequence[trie.IntArray],
        seeds: Sequence[Sequence[int]],
        ready: Sequence[int],
        enough: Enough | None,
    ) -> None:
        self.generator = generator
        self.sampling = sampling
        self.ids = ids
        self.enough = enough
        self.greedy = sampling.temperature <= 0
        self.device = generator.forward.device
        self.failures: dict[int, Failure] = {}
        self.done: dict[int, list[Completion]] = {i: [] for i in ready}
        self.satisfied: set[int] = set()
        self.computed = np.zeros(len(ids), dtype=np.int64)
        self.dropped = np.zeros(len(ids), dtype=np.int64)  # decoded tokens of completions that nobody waits for
        self.begun = np.zeros(len(ids), dtype=np.int64)
        self.queue = deque(self._plan(seeds, ready))
        self.capacity = generator.limits.slots_for(sampling.max_new_tokens)
        self.running: list[_Growing | None] = []
        self.branches = Branches(self.device)
        self.last = torch.zeros(0, dtype=torch.long, device=self.device)
        self.seen: Tensor | None = None

    def _plan(self, seeds: Sequence[Sequence[int]], ready: Sequence[int]) -> Iterator[_Growing]:
        """Yield all completions to draw: row by row, within a row the first of every prompt, then the second, ..."""
        if not ready:
            return
        for root in self._roots(ready, self.generator.limits.row_tokens):
            draws = [(0 if self.greedy else k, i) for i in root.row.ends for k in range(len(seeds[i]))]
            order = sorted(dict.fromkeys(draws), key=lambda one: one[0])
            root.waiting = len(order)
            for sample, i in order:
                yield _Growing(root, i, sample, uniforms(seeds[i][sample], self.sampling.max_new_tokens))

    def _roots(self, prompts: Sequence[int], row_tokens: int, max_nodes: int | None = None) -> list[_Root]:
        return [*map(_Root, trie.rows({i: self.ids[i] for i in prompts}, row_tokens, max_nodes))]

    def run(self) -> None:
        """Draw everything that is wanted. On out-of-memory, go on with half the slots."""
        while self.queue or any(self.running):
            try:
                self._run()
                return
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._begin_again_smaller()  # out here, where the error no longer holds what was computed

    def _run(self) -> None:
        steps = 0
        while self._admit():
            steps += 1
            if steps % SORT_EVERY == 0 or 2 * self._slots_wanted() <= len(self.running):
                self._sort()
            logits = self.generator.step(self.branches, self.last)
            for rollout in filter(None, self.running):
                self.computed[rollout.prompt] += 1
            self._append(logits, list(range(len(self.running))))

    # --- slots ------------------------------------------------------------------------------------------------------

    def _admit(self) -> bool:
        while self.queue:
            if None not in self.running and len(self.running) < self._slots_wanted():
                self._extend(self._slots_wanted() - len(self.running))
            fresh = [slot for slot, rollout in enumerate(self.running) if rollout is None and self._occupy(slot)]
            if not fresh:
                break
            begun = [rollout for slot in fresh if (rollout := self.running[slot])]
            self._append(torch.stack([one.root.logits[one.prompt] for one in begun]), fresh)
        return any(self.running)

    def _slots_wanted(self) -> int:
        """Slots that there is work for, in steps so that few shapes occur."""
        work = len(self.running) - self.running.count(None) + len(self.queue)
        return min(self.capacity, padded(work, SLOT_STEP))

    def _occupy(self, slot: int) -> bool:
        while self.queue:
            rollout = self.queue[0]  # stays there if reading its row runs out of memory
            wanted = rollout.prompt not in self.satisfied and rollout.prompt not in self.failures
            trunk = rollout.root.trunk or (self._open(rollout.root) if wanted else None)
            self.queue.popleft()
            if not wanted or trunk is None:
                self._leave(rollout)
                continue
            self.begun[rollout.prompt] += 1
            self.running[slot] = rollout
            self.branches.occupy(slot, trunk, rollout.root.row.path(rollout.root.row.ends[rollout.prompt]))
            if self.seen is not None:
                self.seen[slot] = False
                self.seen[slot, torch.from_numpy(self.ids[rollout.prompt]).to(self.device)] = True
            return True
        return False

    def _open(self, root: _Root) -> Trunk:
        """Read a row's prompts: its nodes are paid for by the prompts that own them."""
        trunk, hidden = self.generator.trunk(root.row)
        self.computed += np.bincount(root.row.owner, minlength=len(self.ids))
        last = torch.tensor(list(root.row.ends.values()), device=hidden.device)
        root.logits = dict(zip(root.row.ends, self.generator.forward.logits(hidden[last]), strict=True))
        root.trunk = trunk
        return trunk

    def _leave(self, rollout: _Growing) -> None:
        rollout.root.waiting -= 1
        if rollout.root.waiting == 0:
            rollout.root.trunk, rollout.root.logits = None, {}

    def _extend(self, more: int) -> None:
        self.running += [None] * more
        self.branches.extend(more)
        self.last = torch.cat([self.last, self.last.new_zeros(more)])
        if self.sampling.repetition_penalty != 1.0:
            vocabulary = self.generator.forward.head.weight.shape[0]
            fresh = torch.zeros((more, vocabulary), dtype=torch.bool, device=self.device)
            self.seen = fresh if self.seen is None else torch.cat([self.seen, fresh])

    def _sort(self) -> None:
        """Bring the longest branches to the front, and give up slots that nothing waits for."""
        lengths = self.branches.lengths.tolist()
        slots = sorted(range(len(self.running)), key=lambda slot: (self.running[slot] is None, -lengths[slot]))
        slots = slots[: self._slots_wanted()]
        self.running = [self.running[slot] for slot in slots]
        self.branches.keep(slots)
        index = torch.tensor(slots, device=self.device)
        self.last = self.last[index]
        self.seen = None if self.seen is None else self.seen[index]

    def _begin_again_smaller(self) -> None:
        """Forget what is running, to be drawn again from its first token, and halve the number of slots.

        A single slot cannot become less: its row is cut, or given up where that gains nothing, and all slots are back.
        """
        unfinished = [rollout for rollout in self.running if rollout is not None]
        log.warning("out of memory with %d completions at a time; going on with fewer", len(self.running))
        self.capacity = len(self.running) // 2
        for rollout in unfinished:
            self.begun[rollout.prompt] -= 1  # what was computed stays counted
            self.dropped[rollout.prompt] += len(rollout.tokens)
            rollout.tokens = []
        if self.capacity == 0:
            (alone, *_) = unfinished or self.queue
            self._cut(alone.root, [one for one in (*unfinished, *self.queue) if one.root is alone.root])
            self.capacity = self.generator.limits.slots_for(self.sampling.max_new_tokens)
        for rollout in (*unfinished, *self.queue):
            rollout.root.trunk, rollout.root.logits = None, {}
        self.queue.extendleft(reversed(unfinished))
        self.running, self.branches, self.seen = [], Branches(self.device), None
        self.last = self.last[:0]
        torch.cuda.empty_cache()

    def _cut(self, root: _Root, rollouts: Sequence[_Growing]) -> None:
        """Move what is left of a row to rows of at most half its size; where there is but one, its prompts fail."""
        half = max(1, len(root.row) // 2)
        left = dict.fromkeys(one.prompt for one in rollouts if one.prompt not in self.satisfied)
        parts = self._roots(list(left), half, half)
        if len(parts) == 1:
            self.failures.update(dict.fromkeys(left, OUT_OF_MEMORY))
            return
        part_of = {prompt: part for part in parts for prompt in part.row.ends}
        for rollout in rollouts:
            if rollout.prompt in part_of:
                self._leave(rollout)
                rollout.root = part_of[rollout.prompt]
                rollout.root.waiting += 1

    # --- tokens -----------------------------------------------------------------------------------------------------

    def _append(self, logits: Tensor, slots: Sequence[int]) -> None:
        """Draw the next token of the completions in ``slots`` from ``logits`` (a row for each); finish those at end."""
        index = torch.tensor(slots, device=self.device)
        logits = logits.float()
        if self.seen is not None:
            logits = penalized(logits, self.seen[index], self.sampling.repetition_penalty)
        rollouts = [self.running[slot] for slot in slots]
        numbers = [0.0 if one is None else one.numbers[len(one.tokens)] for one in rollouts]
        chosen = draw(logits, self.sampling, torch.tensor(numbers, dtype=torch.float64).to(self.device))
        self.last[index] = chosen.clamp(min=0)
        if self.seen is not None:
            self.seen[index, self.last[index]] = True
        for slot, rollout, token in zip(slots, rollouts, chosen.tolist(), strict=True):
            if rollout is None or self.running[slot] is not rollout:
                continue  # a free slot, or dropped just now
            if token < 0:
                self.failures[rollout.prompt] = NON_FINITE
                self._drop(rollout.prompt)
                continue
            rollout.tokens.append(token)
            tokenizer, ends, stop = self.generator.encoder.tokenizer, self.generator.ends, self.sampling.stop
            over = token in ends or len(rollout.tokens) == self.sampling.max_new_tokens
            if not over and not stopped(tokenizer, rollout.tokens, stop):
                continue
            made = completion(rollout.tokens, ends, tokenizer, stop, rollout.sample)
            self.done[rollout.prompt].append(made)
            self._release(slot)
            if self.enough is not None and self.enough(rollout.prompt, made):
                self.satisfied.add(rollout.prompt)
                self._drop(rollout.prompt)

    def _drop(self, prompt: int) -> None:
        """Give up all running completions of a prompt."""
        for slot, running in enumerate(self.running):
            if running is not None and running.prompt == prompt:
                self.dropped[prompt] += len(running.tokens)
                self._release(slot)

    def _release(self, slot: int) -> None:
        rollout = self.running[slot]
        assert rollout is not None
        self.running[slot] = None
        self.branches.free(slot)
        self._leave(rollout)

    def generation(self, prompt: int, wanted: int) -> Generation:
        """What was drawn, in order; greedy text, decoded once, as often as it was wanted.

        Requested: by each that was begun, reading the prompt by itself.
        """
        made = sorted(self.done.get(prompt, []), key=lambda one: one.sample)
        generated = sum(one.n_tokens for one in made) + int(self.dropped[prompt])
        requested = int(self.begun[prompt]) * (len(self.ids[prompt]) - 1) + generated
        if self.greedy and made:
            requested, made = requested * wanted, [replace(made[0], sample=k) for k in range(wanted)]
        return Generation(tuple(made), Tokens(requested, int(self.computed[prompt]), generated))
