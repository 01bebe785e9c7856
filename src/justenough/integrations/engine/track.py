"""Follows one gated request token by token and says where its thought is cut. Knows no tensors."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, cast

from justenough.errors import LogprobsError
from justenough.files import Json
from justenough.gate import Decision, Gate
from justenough.integrations.engine.closing import Closing, Decoder, Texts
from justenough.integrations.engine.request import Order
from justenough.signal.thought import Follower, Phase, ThoughtFormat
from justenough.trace import Token

Measure = Sequence[float] | float | None
"""What one row of logits gives: the largest natural log-probabilities (k,), or bits; None if it has no entropy."""

MOST: Final = 4096
"""Requests whose decisions are kept."""


class ThoughtGate:
    """Lets the gate decide at the end of each step of a thought, from the same tokens as everywhere else."""

    def __init__(self, order: Order, thought: ThoughtFormat) -> None:
        self.gate = Gate(order.settings)
        self.decisions: list[Decision] = []
        self.stopped: Decision | None = None
        """The decision to stop."""
        self._follower = Follower(thought)
        self._early: list[Token] = []
        """Tokens that may or may not belong to a thought."""

    @property
    def over(self) -> bool:
        """Whether the thought has ended, or there is none."""
        return self._follower.answering

    def take(self, token: Token) -> bool:
        """Take the next token; returns whether the thought is to be cut after it."""
        words, phase = self._follower.feed(token.text), self._follower.phase
        if phase is not Phase.THINKING:
            self._early += [token] if phase is Phase.UNKNOWN else []
            return False
        if self.stopped is None:
            while self._early:
                self._measure(self._early.pop(0))
            self._measure(token)
        if words is None or not self.gate.meter.splits(words):
            return False
        if self.stopped is None:
            decision = self.gate.end_step()
            self.decisions.append(decision)
            self.stopped = decision if decision.ends else None
        return self.stopped is not None

    def _measure(self, token: Token) -> None:
        try:
            self.gate.meter.measure(token)
        except LogprobsError:
            # A token without a signal still counts: with too many of them the step decides nothing.
            self.gate.meter.measure(Token(token.text))


class Track:
    """One gated request. Measures are kept by output position: a rejected draft is measured again at its position."""

    def __init__(self, order: Order, closing: Closing, decoder: Decoder) -> None:
        self.order = order
        self.closing = closing
        self.position = 0
        """Number of output tokens that the track has: they are certain."""
        self.cut_at: int | None = None
        """Output position of the first forced token."""
        self.thought_tokens = 0
        """Tokens of the thought, its opening tag included."""
        self.thought: ThoughtGate | None = None
        self.notes: dict[str, None] = {}
        self.measures: dict[int, Measure] = {}
        self._decoder = decoder
        self._texts = Texts(decoder)
        self._tail: tuple[int, ...] = ()
        self._tail_size = len(closing.natural) - 1
        self._planned: int | None = None
        """Where a thought was cut after draft tokens that are not certain yet."""

    def begin(self, prompt: Sequence[int]) -> None:
        """Learn from the prompt whether the thought is open; only the first call counts."""
        if self.thought is None:
            self.thought = ThoughtGate(self.order, self.closing.format_after(prompt))

    @property
    def measures_next(self) -> bool:
        """Whether the next rows of logits are needed."""
        return self.thought is not None and not self.thought.over and self.thought.stopped is None

    @property
    def acts(self) -> bool:
        """Whether rows may still be measured or changed."""
        return self.cut_at is not None or (self.thought is not None and not self.thought.over)

    def hear(self, tokens: Sequence[int], *, complete: bool = True) -> None:
        """Take the tokens from `position` on; `complete`: whether the next row follows directly on the last one.

        A thought is cut only at the end of a step. If tokens after that end are already known, the cut waits for the
        end of the next step.
        """
        for number, token in enumerate(tokens, start=1):
            measure = self.measures.pop(self.position, None)
            if self.forced(self.position) not in (None, token):
                self.notes["forced_token_replaced"] = None
            self.position += 1
            if self._tail_size:
                self._tail = (*self._tail, token)[-self._tail_size :]
            if self.cut_at is not None or self.thought is None or self.thought.over:
                continue
            row, bits = (None, measure) if isinstance(measure, float) else (measure, None)
            ends = self.thought.take(Token(self._texts.feed(token), row, entropy=bits))
            self.thought_tokens += not self.thought.over
            if ends and ((complete and number == len(tokens)) or self.position == self._planned):
                self.cut_at = self.position
        self._planned = None

    @property
    def needs_drafts(self) -> bool:
        """Whether the draft tokens decide how their rows are measured or changed."""
        return self.cut_at is None or len(self.closing.natural) > 1

    def ahead(self) -> Track:
        """A copy that takes draft tokens."""
        settings = None if self.thought is None else self.thought.gate.settings
        shared = (self.order, self.closing, self._decoder, settings, settings and settings.signal)
        return copy.deepcopy(self, {id(one): one for one in shared})

    def with_draft(self, ahead: Track, draft: int) -> Track:
        """Give a draft token to a copy of this track, and return the copy."""
        ahead.hear([draft])
        if self.cut_at is None:
            self._planned = ahead.cut_at
        return ahead

    def forced(self, position: int) -> int | None:
        """The token that must come at this output position; None if the model is free."""
        at = -1 if self.cut_at is None else position - self.cut_at
        return self.closing.end[at] if 0 <= at < len(self.closing.end) else None

    def barred(self, position: int) -> int | None:
        """The token that would complete a second closing tag at this output position, after a cut."""
        *begin, last = self.closing.natural
        if self.cut_at is None or position < self.cut_at + len(self.closing.end):
            return None
        return last if not begin or self._tail[-len(begin) :] == tuple(begin) else None

    def report(self) -> dict[str, Json]:
        """The decisions, as JSON."""
        decisions = self.thought.decisions if self.thought is not None else []
        return {
            "id": self.order.id,
            # The thought may end by itself before a stop can cut it.
            "decision": "going_on" if self.cut_at is None else "stopped",
            "cut_at": self.cut_at,
            "thought_tokens": self.thought_tokens,
            "model": self.order.calibration.model,
            "steps": [cast("Json", asdict(one)) for one in decisions],
            "notes": list(self.notes),
        }


class Tracks:
    """The last requests of a worker, by the key that `admit` gave them: a preempted request comes back with its key."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._by_key: OrderedDict[str, Track] = OrderedDict()

    def get(self, order: Order, closing: Closing, decoder: Decoder) -> Track:
        """The request's track, a new one if there is none yet."""
        track = self._by_key.pop(order.key, None) or Track(order, closing, decoder)
        self._by_key[order.key] = track
        while len(self._by_key) > self._most:
            self._by_key.popitem(last=False)
        return track

    def report(self, id: str) -> dict[str, Json] | None:
        """The decisions of the last request with this id."""
        track = next((one for one in reversed(self._by_key.values()) if one.order.id == id), None)
        return None if track is None else track.report()


TRACKS: Final = Tracks()
"""The requests of this process: the processor writes them, the worker's extension reads them."""
