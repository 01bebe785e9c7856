"""The streaming shape under a live rule: where the rule looks, an answer is elicited while the thought waits.

The thought stays open meanwhile. If the rule stops there, the thought is cut, and the client gets the elicited answer.
A probe that fails stops nothing: the thought goes on, and the report notes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

import aiohttp
import msgspec

from justenough.errors import BackendRejected, LogprobsError
from justenough.gate import Action, Reason
from justenough.gateway.exchange import Refused
from justenough.gateway.serve.decided import Decided
from justenough.gateway.serve.elicit import Cut, Piece, Tally, elicit
from justenough.gateway.serve.streaming import Generation
from justenough.gateway.serve.work import Job
from justenough.gateway.stream.edits import trimmed
from justenough.gateway.stream.events import Payloads
from justenough.gateway.stream.reading import Reading
from justenough.gateway.stream.watch import LOGPROBS_NOTES
from justenough.grading import open_grader
from justenough.rules.live import LiveRule, Watch
from justenough.rules.rules import MissingField
from justenough.signal.thought import Phase
from justenough.trace import Probe, Step, Token, Trace
from justenough.wire.logprobs import tokens_of

PROBE_TOKENS: Final = 64
"""Token limit of an answer at which a rule looks."""
_ASIDE: Final = b": the thought is probed\n\n"
_grader = lru_cache(maxsize=4)(open_grader)


class Ruled(Generation):
    """Serves one request whose thought a live rule stops."""

    def __init__(self, job: Job, *, reading: Reading, rule: LiveRule) -> None:
        super().__init__(job, reading=reading)
        model, signal = job.request.model or "", job.plan.gate.signal
        self._rule = rule
        trace = Trace(id="", model=model, shape="streaming", signal=signal, steps=())
        self._follows = Watch(rule, trace)
        self._decided = self._thought_before = 0
        """Decisions, and tokens of the thought, up to the last step that the rule has seen."""
        self._final: list[Piece] = []
        """The answer that was elicited where the rule stopped; empty if another one must be generated."""
        self._failed = False
        """Whether a probe failed. From then on nothing is probed."""
        self._notes: dict[str, None] = {}

    @property
    def undecided(self) -> list[str]:
        """Why the rule could not decide."""
        # A rule does not ask for the thought's log-probabilities.
        return [*(note for note in super().undecided if note not in LOGPROBS_NOTES), *self._notes]

    @property
    def first_entropy(self) -> float | None:
        """None: a rule's runs say nothing about a calibration."""
        return None

    def _logprobs(self) -> dict[str, object]:
        return super()._logprobs() if self.request.logprobs else {}

    async def _follow(self, answer: aiohttp.ClientResponse) -> bool:
        """Send events to the client until the end or the cut; whether it was a cut."""
        received = Payloads(limit=self.job.settings.limits.max_event_bytes)
        data = b" "
        while data and not received.done:
            reading = self._read(answer)
            data = await (self._read_after_held(reading) if self._held else reading)
            payloads = received.of(data)
            if comments := received.comments():
                await self._output.keep_alive(comments)
            for payload in payloads:
                self._events([payload], self._held)
                await self._send_held()
                if self._cut_here or await self._stops():
                    return True
        await self._left(answer, received)
        return False

    async def _stops(self) -> bool:
        """Whether the rule stops the thought here; it looks where a step has just ended."""
        watch = self.watch
        ended, going = len(watch.decisions) > self._decided, watch.phase is Phase.THINKING and watch.finish is None
        full = self.request.max_tokens is not None and self._tokens >= self.request.max_tokens
        if not ended or not going or full or self._failed or self._never_cuts or not watch.continuable:
            return False
        self._decided = len(watch.decisions)
        step = Step(tokens=watch.thought_tokens - self._thought_before)
        self._thought_before = watch.thought_tokens
        pieces: list[Piece] = []
        if self._follows.probes_next:
            if self.plan.is_spent(self.generated + PROBE_TOKENS):
                return False
            try:
                step = await self._probed(step, pieces)
            except Refused:
                self._failed, self._notes["probe_failed"] = True, None
                return False
        try:
            stops = self._follows.stops(step)
        except MissingField:
            self._failed, self._notes["missing_logprobs"] = True, None
            return False
        decision = replace(
            watch.decisions[-1], action=Action.STOP if stops else Action.EXTEND, reason=Reason.RULE, threshold=None
        )
        watch.decision = watch.decisions[-1] = decision
        if not stops:
            return False
        watch.stopped, watch.stopped_at, watch.stopped_text = decision, watch.tokens, watch.certain
        if pieces and pieces[-1].finish == "stop" and not self._rule.again and step.probe is not None:
            # These tokens are now those of the answer, and none of them is unseen a second time.
            self._final = [replace(piece, tokens=piece.counted) for piece in pieces]
            self.probe_tokens = step.probe.tokens
            self.earlier_probes -= step.probe.tokens
        return True

    async def _probed(self, step: Step, pieces: list[Piece]) -> Step:
        """The step with the answer that is elicited after it, whose `pieces` are collected; raises `Refused`."""
        await self._output.keep_alive(_ASIDE)
        watch, request, before = self.watch, self.request, self.earlier_probes
        top = self.job.top_k if self._rule.needs_logprobs else 0
        newer = request.kind == "chat" and self.job.capabilities.engine == "unknown"
        member = "max_completion_tokens" if newer else "max_tokens"
        limited = request.limited(self._tokens + PROBE_TOKENS, member=member)
        job = replace(self.job, request=msgspec.structs.replace(limited, top_logprobs=max(top, request.top_logprobs)))
        cut = Cut(text=watch.certain, separate=watch.separate, tokens=self._tokens, format=watch.format)
        tokens, tally, last, unread = list[Token](), Tally(), None, self.unread
        async for piece in elicit(job, cut, logprobs=bool(top) or request.logprobs, keep_alive=self._output.keep_alive):
            tally.take(piece)
            last = piece if piece.finish is not None else last
            self.unread, self.earlier_probes = unread + tally.unseen, before + tally.tokens
            if piece.text or piece.others or piece.logprobs is not None:
                tokens += self._tokens_of(piece)
                fewer = trimmed(piece.logprobs, request.top_logprobs) if request.logprobs else None
                pieces.append(replace(piece, logprobs=fewer, finish=None))
        self.earlier_probes = before + tally.total
        pieces.append(Piece("", finish=last.finish if last is not None else None, usage=tally.usage))
        text = "".join(piece.text for piece in pieces)
        answer = _grader(self.job.settings.grader).extract(text)
        spoken = text.removeprefix(self.job.settings.prompts.with_thought(watch.format).answer)
        return replace(step, answer=answer, probe=self._probe(answer, spoken, tokens, self.earlier_probes - before))

    def _tokens_of(self, piece: Piece) -> list[Token]:
        if not self._rule.needs_logprobs or piece.logprobs is None:
            return []
        try:
            return tokens_of(msgspec.json.encode(piece.logprobs))
        except BackendRejected:
            return []

    def _probe(self, answer: str | None, text: str, tokens: list[Token], count: int) -> Probe:
        signal = self.plan.gate.signal
        try:
            bits = [token.bits(signal) for token in tokens]
        except LogprobsError:
            bits = []
        entropies = tuple(value for value in bits if value is not None)
        texts = tuple(token.text for token in tokens)
        logprobs = tuple(token.logprob for token in tokens if token.logprob is not None)
        return Probe(
            answer=answer,
            correct=None,
            tokens=max(0, count),
            text=text,
            entropies=entropies if entropies and len(entropies) == len(tokens) else None,
            logprobs=logprobs if logprobs and len(logprobs) == len(tokens) else None,
            token_texts=texts if "".join(texts) == text else None,
        )

    def _pieces(self, cut: Cut) -> AsyncIterator[Piece]:
        return _each(self._final) if self._final else super()._pieces(cut)


async def _each(pieces: list[Piece]) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece


def ruled_or_gated(job: Job, *, reading: Reading) -> Generation:
    """The work on a streaming request: under the operator's rule or the upstream's gate, else under our gate."""
    rule = job.settings.rule
    if job.plan.course == "gate" and rule is not None:
        return Ruled(job, reading=reading, rule=rule)
    decides = job.plan.course == "gate" and job.settings.upstream_decides
    return (Decided if decides else Generation)(job, reading=reading)
