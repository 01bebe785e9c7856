"""The answer after a cut: to the closed thought, or if that fails, to the client's own request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Final

import aiohttp

from justenough.gateway.exchange import Refused
from justenough.gateway.serve.elicit import UNNAMED, Cut, Piece, Tally, elicit, unread_whole
from justenough.gateway.serve.extend import CompletionStep
from justenough.gateway.serve.work import Job, Work, usage_in
from justenough.gateway.stream.edits import with_offsets
from justenough.gateway.stream.events import (
    KeepAlive,
    Payloads,
    Unusable,
    batches,
    drained,
    ended,
    read,
    stream_of,
    unfinished,
    unread_bytes,
)
from justenough.gateway.stream.watch import Watch
from justenough.signal.thought import Phase
from justenough.trace import Json
from justenough.wire.chunks import Chunk, OddChunk, Usage

log: Final = logging.getLogger("justenough.gateway")

_ROLE_WAITS_S: Final = 1.0
"""Seconds for which a chunk with only the role waits for the first output."""
_MOST_HELD: Final = 16
"""Events without a choice that wait for the first one with a choice."""


class Answering(Work):
    """One generation whose thought may be cut."""

    def __init__(self, job: Job, watch: Watch) -> None:
        super().__init__(job)
        self.watch = watch
        self.answer: list[str] = []
        """The text after the thought, as the client got it."""
        self._prompt_tokens: int | None = None
        self._received: int | None = None
        """Completion tokens so far by the upstream's own count, if it gives one."""
        self._usage_event = b""
        """The last event with a usage, or its payload."""
        self._offset: int | None = None
        """Where the text begins in the offsets of its log-probabilities."""
        self._length = 0
        """Where the next piece of the answer begins in them."""
        self._answering = False
        self._has_answered = False
        """Whether the client has got any of the answer to a closed thought."""
        self._choices = 0
        """Events with a choice so far."""
        self._has_choice = False
        """Whether a choice with any output has come, or more than one event with a choice."""
        self._foreign_at: int | None = None
        """Tokens before the last event that is no chunk; None if all events are chunks."""
        self._held: list[bytes] = []
        """Events for the client. Those before the first output wait: if none follows, they are an error."""
        self.unread = 0
        """Bytes of the answer and of events that could not be read, since the last count; each may be a token."""

    @property
    def unseen(self) -> int:
        """Tokens that may have been generated beyond those counted."""
        return self.watch.unseen + self.unread

    @property
    def _tokens(self) -> int:
        return max(self.watch.tokens, self._received or 0)

    @property
    def generated(self) -> int:
        """Completion tokens so far, including the elicited answer's."""
        return self._tokens + self.earlier_probes + self.probe_tokens

    def _note(self, chunk: Chunk | None, payload: bytes) -> None:
        """Note an event; None: it is not JSON. Where the first one brings only the role, a refusal may still follow.

        Raises `Unusable` for an event whose text an answer in one piece would lose.
        """
        if chunk is None or chunk.is_foreign:
            self._foreign_at = self.watch.tokens
        if chunk is None or (isinstance(chunk, OddChunk) and chunk.complaint):
            self._keep_text_of(payload, passes=self.request.stream)
            self.unread += len(payload)
        choice = None if chunk is None else chunk.choice
        if choice is not None and not self._has_choice:
            self._choices += 1
            self._has_choice = self._choices > 1 or choice.has_output or choice.finish_reason is not None

    async def _left(self, answer: aiohttp.ClientResponse, received: Payloads) -> None:
        """Leave the stream after its last byte; raises `Refused` if its answer is not complete.

        Without a finish reason, an event that is no chunk may be an error in any words. Who gets the events themselves
        sees it; for all others the answer would look complete.
        """
        watch = self.watch
        sees_events = self.request.stream and self.job.api is None
        if watch.finish is None and self._foreign_at == watch.tokens and not sees_events:
            raise Unusable("its last event is no part of an answer")
        if watch.finish is None and not received.done and not self.request.stream:
            # The client wanted no stream, and the whole answer may be complete.
            raise Unusable("it has no end")
        if received.done and self._shows and not self._choices and sees_events:
            # Nothing in it could be read, and the client has all of it.
            await drained(answer)
        else:
            await ended(answer, received, finish=watch.finish, tokens=self._tokens)

    async def _read_after_held(self, reading: Awaitable[bytes]) -> bytes:
        """The next bytes, which `reading` brings; if they do not come soon, the chunk with the role is sent."""
        task = asyncio.ensure_future(reading)
        try:
            if not (await asyncio.wait((task,), timeout=_ROLE_WAITS_S))[0] and self._choices:
                self._has_choice = True
                await self._send_held()
            return await task
        finally:
            task.cancel()

    async def _send_held(self) -> None:
        """Send the events, unless the request may still have to be repeated."""
        if self._held and (self._has_choice or len(self._held) > _MOST_HELD):
            views, self._held = self._held, []
            await self._show(views)

    async def _answer(self) -> None:
        """Send the answer to the closed thought."""
        try:
            await self._elicit()
        except Refused as refused:
            self._answering = False
            await self._answer_anew(refused)

    async def _elicit(self) -> None:
        self._answering = True
        watch = self.watch
        cut = Cut(text=watch.cut_text, separate=watch.separate, tokens=self._tokens, format=watch.format)
        tally, unread = Tally(), self.unread
        if not watch.separate:
            # The client sees the same closing text as the model.
            self._length = (self._offset or 0) + len(cut.text)
            await self._output.send([self._chunk(Piece(self.job.settings.prompts.with_thought(watch.format).close))])
        last: Piece | None = None
        async for piece in self._pieces(cut):
            tally.take(piece)
            self.unread, self.probe_tokens = unread + tally.unseen, max(self.probe_tokens, tally.tokens)
            self.answer.append(piece.text)
            self._has_answered = self._has_answered or piece.has_output
            if piece.finish is not None:
                last = piece
            elif piece.text or piece.others or piece.logprobs is not None:
                await self._output.send([self._chunk(piece)])
        self._answering = False
        self.probe_tokens = tally.total
        if last is not None:
            await self._output.send([self._chunk(last)])
        own = usage_in(self._usage_event)
        if not own and tally.usage == Usage():
            return
        # Without a count of the client's prompt, it is the prompt of the answer without the thought.
        counted = max(0, (tally.usage.prompt_tokens or 0) - self._tokens)
        own = {"prompt_tokens": counted if self._prompt_tokens is None else self._prompt_tokens} | own
        await self._send_usage(own, completion=self.generated, reasoning=self._tokens)

    def _pieces(self, cut: Cut) -> AsyncIterator[Piece]:
        """The answer after a cut."""
        return elicit(self.job, cut, logprobs=self.request.logprobs, keep_alive=self._output.keep_alive)

    async def _answer_anew(self, refused: Refused) -> None:
        """Answer by the client's own request, without its thought; raises `refused` where that cannot help.

        Without a stream the client has got nothing yet. Then its own request is relayed instead.
        """
        if not self.request.stream or self._has_answered or self.plan.budget is not None:
            raise refused
        log.warning("the answer to a cut thought failed, the client's own request is sent: %s", refused.message)
        own, tokens, unread = OwnAnswer(self.job), self.probe_tokens, self.unread
        try:
            async for _ in own.read(keep_alive=self._output.keep_alive):
                self.probe_tokens, self.unread = tokens + own.tokens, unread + own.unseen
        except Refused as again:
            raise refused from again
        # The stop has saved nothing.
        self.failure, self.stopped, self.ends_now = refused.message, False, False
        answer = Piece(own.text, others=own.others)
        await self._output.send([self._chunk(answer), self._chunk(Piece("", finish=own.finish))])
        if usage := usage_in(own.usage_event) | usage_in(self._usage_event):
            reasoning = self._tokens + own.thought_tokens
            await self._send_usage(usage, completion=self.generated, reasoning=reasoning)

    def _is_repeatable(self, refused: Refused) -> bool:
        return self.stopped or super()._is_repeatable(refused)

    def _chunk(self, piece: Piece) -> bytes:
        row: dict[str, Json] = {"index": 0}
        if self.request.kind == "chat":
            row["delta"] = piece.delta
        else:
            row["text"] = piece.text
        if self.request.logprobs:
            logprobs = piece.logprobs
            row["logprobs"] = with_offsets(logprobs, self._length) if isinstance(logprobs, dict) else logprobs
        self._length += len(piece.text)
        row["finish_reason"] = piece.finish
        return self._encoded(row)


class OwnAnswer:
    """The output of the client's own request, whose thought is not shown."""

    def __init__(self, job: Job) -> None:
        self._job = job
        thought, others, known = job.formats
        self._watch = Watch(job.plan.gate, cut=False, thought=thought, others=others, known=known)
        self._step = CompletionStep(job.formats)
        self._counted = 0
        """Tokens by the upstream's own count."""
        self._foreign = False
        """Whether the last event is no chunk."""
        self.unseen = 0
        """Tokens that may have been generated beyond those counted."""
        self.usage_event = b""
        """The last event with a usage."""

    @property
    def tokens(self) -> int:
        """Completion tokens so far."""
        return max(self._watch.tokens, self._counted)

    @property
    def thought_tokens(self) -> int:
        """Tokens of its thought."""
        return self._watch.thought_tokens

    @property
    def finish(self) -> str | None:
        """Why it ended; None if it has not."""
        return self._watch.finish

    @property
    def text(self) -> str:
        """The answer; empty if the limit ended the thought."""
        is_cut = self.finish == "length" and self._watch.phase is Phase.THINKING
        return "" if is_cut else self._step.answer

    @property
    def others(self) -> dict[str, Json]:
        """What its message has beside texts."""
        return self._step.others.whole()

    async def read(self, *, keep_alive: KeepAlive) -> AsyncIterator[None]:
        """Read it to its end, event by event; raises `Refused`."""
        job = self._job
        headers = job.exchange.headers_for_further_request
        body = job.request.with_fields(stream=True, **UNNAMED)
        async with job.upstream.open("POST", job.request.place.target(), headers=headers, body=body) as answer:
            stream, _ = await stream_of(answer)
            if stream is None:
                self.unseen = unread_whole(answer)
                yield
                raise Refused(502, f"the upstream answers with status {answer.status}", code="continuation_failed")
            received = Payloads(limit=job.settings.limits.max_event_bytes)
            async for batch in batches(stream, received, keep_alive=keep_alive):
                for number, payload in enumerate(batch):
                    try:
                        self._take(payload)
                    except Refused as refused:
                        self.unseen += unread_bytes(refused, batch[number:])
                        yield
                        raise
                    yield
        if self.finish is None and received.done and self.tokens and not self._foreign:
            self._watch.finish = "stop"
        if self.finish is None:
            raise unfinished()

    def _take(self, payload: bytes) -> None:
        chunk = read(payload)
        if isinstance(chunk, OddChunk) and chunk.complaint:
            raise Unusable("it sent something that is not a chunk")
        self._foreign = chunk.is_foreign
        if (choice := chunk.choice) is not None:
            if choice.has_call:
                raise Unusable("it calls a tool")
            reasoning, content = choice.texts(apart=self._step.apart)
            self._step.add(reasoning, content, payload)
        before = self._watch.unseen
        self._watch.take(chunk)
        self.unseen += self._watch.unseen - before
        if chunk.usage is not None:
            self.usage_event = payload
            if chunk.usage.completion_tokens is not None:
                self._counted, self.unseen = chunk.usage.completion_tokens, 0
