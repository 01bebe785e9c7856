"""Follows one generation chunk by chunk and lets the gate decide on its thought. No I/O.

The thought comes in a field of its own, or between the model's tags in the text. Only a thought is cut: an answer that
has begun, or a text without a thought, runs to its end. A thought in a field of its own is cut only if its tags are
known, since the model continues it between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from justenough.errors import LogprobsError
from justenough.gate import Action, Decision, Gate, GateSettings
from justenough.gateway.stream.reading import TOGETHER, Reading
from justenough.gateway.stream.record import Steps
from justenough.signal.thought import THINK, THINKING, Follower, Phase, ThoughtFormat
from justenough.trace import Token
from justenough.trace.meter import BLOCK
from justenough.wire.chunks import Chunk, OddChunk
from justenough.wire.logprobs import block_of, entries_of, fitted, unmasked
from justenough.wire.values import NOTHING

LOGPROBS_NOTES: Final = frozenset(("missing_logprobs", "short_logprobs", "misaligned_logprobs"))
"""The notes that are about log-probabilities."""


def reason_to_let_go(chunk: Chunk, *, apart: bool) -> str | None:
    """Why nothing may be cut after this chunk, None if there is no reason; `apart`: whether the thought has a field."""
    # A thought in parts can be followed, and after it nothing is cut.
    if isinstance(chunk, OddChunk) and (chunk.complaint or (chunk.in_parts and not apart)):
        return "unreadable_chunk"
    for choice in chunk.choices or ():
        if choice.index:
            return "several_choices"
        # A continued thought would not contain the call.
        if choice.has_call:
            return "tool_calls"
    return None


class Watch:
    """One generation."""

    def __init__(
        self,
        settings: GateSettings,
        *,
        cut: bool,
        thought: ThoughtFormat = THINK,
        others: Sequence[ThoughtFormat] = (),
        known: bool = True,
        record: Steps | None = None,
        reading: Reading | None = None,
    ) -> None:
        """`cut`: whether a stop cuts the generation; `reading`: reads the log-probabilities that wait.

        `others`: further formats, which an opening tag shows; `known`: whether `thought` is the model's own format.
        """
        self.gate = Gate(settings)
        self._meter = self.gate.meter
        self.separate = False
        """Whether the thought has a field of its own."""
        self.tokens = 0
        """Completion tokens received."""
        self._thought_tokens = 0
        self.finish: str | None = None
        self.decision: Decision | None = None
        """The last decision."""
        self.decisions: list[Decision] = []
        self.stopped: Decision | None = None
        """The decision to stop, also if nothing was cut."""
        self.stopped_at: int | None = None
        """Tokens received before the stop."""
        self.stopped_text: str | None = None
        self._stopped_thought = 0
        self.first_text: str | None = None
        """The text up to the end of the first step; only if steps are recorded."""
        self.first_tokens = 0
        """Tokens of that text."""
        self.first_entropy: float | None = None
        """Bits of the first step; drift is measured on them."""
        self.notes: dict[str, None] = {}
        """Reasons why the gate could not decide, in the order of their first occurrence."""
        self.entries = 0
        """Tokens that came with log-probabilities."""
        self.unseen = 0
        """Tokens that texts without log-probabilities may hold beyond one each: a token has at least one byte."""
        self._cut = cut
        self._record = record
        self._reading = reading
        self._raw = settings.signal.logits == "raw"
        """Whether the calibration's log-probabilities are from before the samplers."""
        self._whole = settings.shape == "sequential"
        """Whether the step is the whole completion: then nothing is cut, and the gate measures every token."""
        self._may_wait = not self._whole and record is None
        """Whether log-probabilities can wait until their step ends."""
        self._texts: list[str] = []
        self._follower = Follower(thought, *others)
        self._known = known
        self._early: list[Token] = []
        """Tokens that may or may not belong to a thought."""
        self._waiting: list[tuple[str, bytes]] = []
        """Tokens of the thought whose log-probabilities are not read yet."""

    @property
    def phase(self) -> Phase:
        """The phase of the text."""
        return self._follower.phase

    @property
    def thought(self) -> bool:
        """Whether there was a thought."""
        return self._follower.thought

    @property
    def format(self) -> ThoughtFormat:
        """The format of the thought."""
        return self._follower.format

    @property
    def continuable(self) -> bool:
        """Whether the model can continue the thought: in the text it has its tags, else they must be known."""
        return not self.separate or self._known or self._follower.shown

    @property
    def thought_tokens(self) -> int:
        """Tokens of the thought, its tags included; 0 where there is none."""
        return self._thought_tokens if self._follower.thought else 0

    @property
    def text(self) -> str:
        """All text received; if the thought has a field of its own, only the thought."""
        return "".join(self._texts)

    @property
    def cut_text(self) -> str:
        """The text up to the cut."""
        return self.stopped_text if self._cut and self.stopped_text is not None else self.text

    @property
    def surplus(self) -> tuple[int, int]:
        """Characters and tokens behind the cut, in the same chunk."""
        if not self._cut or self.stopped_text is None:
            return 0, 0
        return len(self.text) - len(self.stopped_text), self._thought_tokens - self._stopped_thought

    def take(self, chunk: Chunk) -> bool:
        """Take a chunk; returns whether to cut the generation after it."""
        choice = chunk.choice
        if choice is None:
            return False
        reasoning, content = choice.texts(apart=self.separate)
        self.catch_up()
        if choice.finish_reason is not None:
            self.finish = choice.finish_reason
        entries = entries_of(choice.logprobs)
        tokens, right = fitted(reasoning + content, entries, finish=choice.finish_reason)
        if not right:
            self.notes["misaligned_logprobs"] = None
        if tokens and not entries:
            self.unseen += len(tokens[0].text.encode(errors="replace")) - 1
        self.tokens += len(tokens)
        if self._whole:
            self._completion(tokens)
            return False
        if self._follower.answering:
            return False
        if entries and not (reasoning or content) and self.phase is Phase.UNKNOWN:
            self._follower.recognise(entries[0].text)
        if reasoning:
            if not self.separate:
                self.separate = True
                self._follower.enter_field()
        elif content and self.separate:
            self._follower.leave_field()
            return False
        cut, read = False, 0
        for token in tokens:
            # After a stop without a cut, the thought goes on and is still counted.
            if not self._follower.answering and self._token(token):
                cut = True
            read += len(token.text)
            if reasoning and content and read >= len(reasoning):
                self._follower.leave_field()
        # A thought that ends in the same chunk is not cut: its answer has begun.
        return cut and choice.finish_reason is None and self.phase is Phase.THINKING

    def take_token(self, token: Token) -> bool:
        """Like `take`, for one token of a text without fields, as an engine generates it."""
        self.tokens += 1
        return not self._follower.answering and self._token(token) and self.phase is Phase.THINKING

    def waits(self, *, reasoning: bool) -> bool:
        """Whether text of this field belongs to the thought now, and its log-probabilities may wait."""
        return self._may_wait and self._follower.phase is THINKING and self.separate is reasoning

    def take_later(self, text: str, logprobs: bytes) -> bool:
        """Like `take`, for one token of the thought whose log-probabilities wait until its step ends."""
        self.tokens += 1
        self._thought_tokens += 1
        self._texts.append(text)
        words = self._follower.feed(text)
        if self._follower.phase is not THINKING:
            self.catch_up()
            self.entries += 1
            return False
        if self.stopped is not None:
            # Nothing is decided any more, so the log-probabilities are only counted.
            self.entries += 1
            return False
        self._waiting.append((text, logprobs))
        if words is not None and self._meter.splits(words):
            self.catch_up()
            return self._decide()
        if (waiting := len(self._waiting)) >= BLOCK:
            self.catch_up()
        elif waiting == TOGETHER and self._reading is not None:
            self._reading.soon()
        return False

    @property
    def waiting(self) -> int:
        """Number of tokens whose log-probabilities are not read yet."""
        return len(self._waiting)

    def catch_up(self) -> None:
        """Read the log-probabilities that wait."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        block = block_of(waiting)
        if block is not None and self._raw and block.min() <= NOTHING:
            block = None
        if block is not None and self._meter.measure_block(block):
            self.entries += len(block)
            return
        for text, logprobs in waiting:
            entries = entries_of(logprobs)
            tokens, right = fitted(text, entries, finish=None)
            if entries is None:
                self.notes["unreadable_chunk"] = None
            if not right:
                self.notes["misaligned_logprobs"] = None
            for token in tokens:
                self.entries += token.top_logprobs is not None
                self._measure(token)

    def _completion(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            self.entries += token.top_logprobs is not None
            if self.stopped is None:
                self._measure(token)
        if self.finish is None or self.decision is not None:
            return
        self.decision = self.gate.end_step()
        self.decisions.append(self.decision)
        self.first_entropy = self.decision.entropy
        if self.decision.action is Action.STOP:
            self.stopped, self.stopped_at = self.decision, self.tokens

    def _token(self, token: Token) -> bool:
        self.entries += token.top_logprobs is not None
        self._thought_tokens += 1
        self._texts.append(token.text)
        words, phase = self._follower.feed(token.text), self._follower.phase
        if self._record is not None:
            self._record.feed(token, words, over=phase is Phase.ANSWERING)
            if self.first_text is None and self._record.done:
                self.first_text, self.first_tokens = self.certain, self.tokens
        if phase is Phase.UNKNOWN:
            # These tokens may turn out to be no thought, so they are not measured yet.
            self._early.append(token)
            return False
        if phase is Phase.ANSWERING or self.stopped is not None:
            return False
        for of_thought in (*self._early, token):
            self._measure(of_thought)
        self._early.clear()
        return words is not None and self._meter.splits(words) and self._decide()

    @property
    def certain(self) -> str:
        """The text so far, without an end that may begin a tag."""
        return self.text.removesuffix(self._follower.pending)

    def _decide(self) -> bool:
        """Let the gate decide on the step that has ended; returns whether to cut."""
        decision = self.gate.end_step()
        self.decision = decision
        self.decisions.append(decision)
        if decision.step == 1:
            self.first_entropy = decision.entropy
        if not decision.ends:
            return False
        self.stopped, self.stopped_at, self.stopped_text = decision, self.tokens, self.certain
        self._stopped_thought = self._thought_tokens
        return self._cut and self.continuable

    def _measure(self, token: Token) -> None:
        if token.top_logprobs is None and token.text:
            self.notes["missing_logprobs"] = None
        token = unmasked(token) if self._raw else token
        try:
            self._meter.measure(token)
        except LogprobsError:
            self.notes["short_logprobs"] = None
            # A token without a signal still counts: with too many of them, the step decides nothing.
            self._meter.measure(Token(token.text))
