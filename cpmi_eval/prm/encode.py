"""A trace as token ids, and the positions at which its step scores are read, as a spec says.

Whatever would make a score belong to another step than it seems is an error, not a guess: a marker inside a step, a
marker merged with its neighbour, a second BOS, a chat template that rewrites what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cpmi_eval.prm.specs import Spec


class EncodingError(ValueError):
    """A trace that cannot be encoded so that every step has exactly one score; the message says why."""


@dataclass(frozen=True)
class EncodedTrace:
    """Token ids, and for each step the index into them of the position whose hidden state is read."""

    ids: tuple[int, ...]
    reads: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens up to the last one that is read."""
        return self.reads[-1] + 1


# A text, and the character span of each step's marker in it, which begins where the step's own text ends.
_Layout: TypeAlias = tuple[str, list[tuple[int, int]]]


class TraceEncoder:
    """Encodes traces for one spec and one tokenizer."""

    def __init__(self, spec: Spec, tokenizer: Any) -> None:
        """Check that the tokenizer can do what the spec asks; it has character offsets unless pieces join as ids.

        Raises:
            EncodingError: no chat template, no character offsets, or a marker that is not one token where it has to be.
        """
        self.spec = spec
        self.tokenizer = tokenizer
        given = spec.input
        if given.form != "plain" and not tokenizer.chat_template:
            raise EncodingError(
                f"the spec {spec.name!r} needs a chat template (form: {given.form}); the tokenizer has none"
            )
        if given.join == "text" and not tokenizer.is_fast:
            raise EncodingError(
                f"{type(tokenizer).__name__} gives no character offsets, which join: text needs; use a fast tokenizer"
            )
        self.marker: tuple[int, ...] = ()
        if given.marker_id is not None:
            if given.marker_id >= len(tokenizer):
                raise EncodingError(f"the marker id {given.marker_id} is past the tokenizer's {len(tokenizer)} tokens")
            self.marker = (given.marker_id,)
        elif given.marker is not None:
            self.marker = self._ids(given.marker)
            if given.exclusive and len(self.marker) != 1:
                raise EncodingError(
                    f"the marker {given.marker!r} of the spec {spec.name!r} must be one token; "
                    f"this tokenizer makes it {len(self.marker)}"
                )
        self.bos: int | None = tokenizer.bos_token_id
        self.system = [] if given.system is None else [{"role": "system", "content": given.system}]
        self.lead = (self.bos,) if given.bos and self.bos is not None else ()

    def encode(self, problem: str, steps: Sequence[str]) -> EncodedTrace:
        """The ids of a trace and where its steps are read.

        Raises:
            EncodingError: the trace cannot be encoded so that every step has exactly one score.
        """
        if not steps:
            raise EncodingError("the trace has no steps")
        self._refuse_markers(problem, steps)
        blank = next((index for index, step in enumerate(steps) if not step.strip()), None)
        if blank is not None and self.spec.read.at == "last_of_step":
            raise EncodingError(f"step {blank} has no text, so it has no last token to read")
        encoded = self._joined_ids(problem, steps) if self.spec.input.join == "ids" else self._tokenized(problem, steps)
        self._check(encoded, problem, steps)
        return encoded

    def head_tokens(self) -> tuple[int, ...]:
        """The ids of the two tokens that an ``lm`` head compares.

        Raises:
            EncodingError: a text that is not one token.
        """
        found = []
        for token in self.spec.read.head.tokens:
            ids = (token,) if isinstance(token, int) else self._ids(token)
            if len(ids) != 1 or not 0 <= ids[0] < len(self.tokenizer):
                raise EncodingError(f"the spec {self.spec.name!r} reads the logit of {token!r}, which is not one token")
            found.append(ids[0])
        if len(set(found)) != len(found):
            raise EncodingError(f"the spec {self.spec.name!r} compares a token with itself: {found}")
        return tuple(found)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def _refuse_markers(self, problem: str, steps: Sequence[str]) -> None:
        given = self.spec.input
        for where, text in (("the problem", problem), *((f"step {n}", step) for n, step in enumerate(steps))):
            if given.exclusive and given.marker is not None and given.marker in text:
                raise EncodingError(f"{where} contains the step marker {given.marker!r}")
            if given.exclusive and given.marker_id is not None and given.marker_id in self._ids(text):
                raise EncodingError(f"{where} contains the step marker (token {given.marker_id})")
            if self.bos is not None and self.tokenizer.bos_token in text and self.bos in self._ids(text):
                raise EncodingError(f"{where} contains the BOS token {self.tokenizer.bos_token!r}")

    def _step(self, problem: str, step: str, index: int) -> str:
        given = self.spec.input
        text = given.step.format(step=step, n=index + 1)
        return self._before(problem) + text if given.form == "turns" and index == 0 else text

    def _before(self, problem: str) -> str:
        return self.spec.input.before.format(problem=problem)

    def _joined_ids(self, problem: str, steps: Sequence[str]) -> EncodedTrace:
        between, after = (self._ids(text.format()) for text in (self.spec.input.between, self.spec.input.after))
        ids = [*self.lead, *self._ids(self._before(problem))]
        reads = []
        for index, step in enumerate(steps):
            piece = self._ids(self._step(problem, step, index))
            start = len(ids) + len(piece)
            ids += [*piece, *self.marker]
            reads.append(self._place(start, len(ids), start - 1))
            ids += between if index + 1 < len(steps) else after
        return EncodedTrace(tuple(ids), tuple(reads))

    def _place(self, first: int, stop: int, step_end: int) -> int:
        """The position to read, given the marker's token span and the step's last token."""
        reading = self.spec.read
        if reading.at == "last_of_step":
            return step_end
        if reading.at == "before_marker":
            return first - 1
        return first if reading.part == "first" else stop - 1

    def _tokenized(self, problem: str, steps: Sequence[str]) -> EncodedTrace:
        render = {"plain": self._plain, "chat": self._chat, "turns": self._turns}[self.spec.input.form]
        text, markers = render(problem, steps)
        batch = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(batch["input_ids"]), list(batch["offset_mapping"])
        lead = () if ids[:1] == list(self.lead) else self.lead
        reads = []
        for index, (first, stop, step_end) in enumerate(_token_spans(text, offsets, markers)):
            if first < 0:
                raise EncodingError(f"the marker after step {index} is merged with its neighbour by the tokenizer")
            reads.append(self._place(first, stop, step_end) + len(lead))
        return EncodedTrace((*lead, *ids), tuple(reads))

    def _plain(self, problem: str, steps: Sequence[str]) -> _Layout:
        return self._solution(problem, steps, self._before(problem), self.spec.input.after.format())

    def _solution(self, problem: str, steps: Sequence[str], text: str, after: str) -> _Layout:
        marker, between = self.spec.input.marker or "", self.spec.input.between.format()
        markers = []
        for index, step in enumerate(steps):
            text += self._step(problem, step, index)
            markers.append((len(text), len(text) + len(marker)))
            text += marker + (between if index + 1 < len(steps) else after)
        return text, markers

    def _chat(self, problem: str, steps: Sequence[str]) -> _Layout:
        user = {"role": "user", "content": self._before(problem)}
        answer, markers = self._solution(problem, steps, "", "")
        asked = [*self.system, user]
        text = self._rendered([*asked, {"role": "assistant", "content": answer}])
        begin = self._begin(text, asked)
        start = text.find(answer, begin)
        if start < 0:  # templates that trim a turn: what they take from its beginning moves the rest
            trimmed = answer.lstrip()
            start = text.find(trimmed, begin) - (len(answer) - len(trimmed))
            if trimmed not in text[begin:]:
                raise EncodingError("the chat template changes the assistant's turn, so steps cannot be found in it")
        return text, [(first + start, stop + start) for first, stop in markers]

    def _turns(self, problem: str, steps: Sequence[str]) -> _Layout:
        marker = self.spec.input.marker or ""
        messages = list(self.system)
        spans = []
        rounds = [
            [{"role": "user", "content": self._step(problem, step, index)}, {"role": "assistant", "content": marker}]
            for index, step in enumerate(steps)
        ]
        text = self._rendered([*messages, *(turn for pair in rounds for turn in pair)])
        for index, (user, assistant) in enumerate(rounds):
            begin = self._begin(text, [*messages, user])
            messages += [user, assistant]
            end = self._begin(text, messages)
            if text.count(marker, begin, end) != 1:
                raise EncodingError(f"the chat template does not keep the marker {marker!r} after step {index}")
            first = text.index(marker, begin, end)
            spans.append((first, first + len(marker)))
        return text, spans

    def _rendered(self, messages: Sequence[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False))

    def _begin(self, text: str, messages: Sequence[dict[str, str]]) -> int:
        so_far = self._rendered(messages)
        if not text.startswith(so_far):
            raise EncodingError("the chat template rewrites earlier turns, so steps cannot be found in it")
        return len(so_far)

    def _check(self, encoded: EncodedTrace, problem: str, steps: Sequence[str]) -> None:
        """Raise unless the trace has one read per step, one marker per step, and no BOS too many."""
        given = self.spec.input
        ordered = all(a < b for a, b in zip(encoded.reads, encoded.reads[1:], strict=False))
        if len(encoded.reads) != len(steps) or not ordered or encoded.reads[0] < 0:
            raise EncodingError(f"{len(steps)} steps, but reads at {list(encoded.reads)}")
        if given.exclusive and self.marker and encoded.ids.count(self.marker[0]) != len(steps):
            found = encoded.ids.count(self.marker[0])
            raise EncodingError(f"{len(steps)} steps, but the step marker occurs {found} times")
        if self.bos is None:
            return
        doubled = encoded.ids[:2] == (self.bos, self.bos)
        if doubled or (given.form == "plain" and encoded.ids.count(self.bos) != len(self.lead)):
            raise EncodingError(f"{encoded.ids.count(self.bos)} BOS tokens where {len(self.lead)} belong")


def _token_spans(
    text: str, offsets: Sequence[tuple[int, int]], markers: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, int]]:
    """For each marker's characters, its tokens' span and the token that ends the step before it.

    A marker's tokens may take whitespace before it with them (SentencePiece), nothing else; else the span is -1, -1.
    """
    at = 0
    for first, stop in markers:
        while at < len(offsets) and offsets[at][1] <= first:
            at += 1
        end = at
        while end < len(offsets) and (offsets[end][0] < stop and offsets[end][1] <= stop):
            end += 1
        last = at - 1
        while last >= 0 and offsets[last][0] >= first:
            last -= 1
        begun = offsets[at][0] if at < len(offsets) else stop
        whole = end > at and offsets[end - 1][1] == stop and not text[begun:first].strip()
        yield (at, end, last) if whole and (begun == first or text[first:stop].strip()) else (-1, -1, last)
