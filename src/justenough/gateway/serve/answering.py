"""The answer after a cut: to the closed thought, or if that fails, to the client's own request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from justenough.gateway.exchange import Refused
from justenough.gateway.serve.cutting import after_cut
from justenough.gateway.serve.elicit import Cut, Piece, elicit
from justenough.gateway.serve.extend import CompletionStep
from justenough.gateway.serve.work import Job, Work, usage_in
from justenough.gateway.stream.edits import with_offsets
from justenough.gateway.stream.events import KeepAlive, batches, is_events, read, unfinished
from justenough.gateway.stream.watch import Watch
from justenough.trace import Json
from justenough.wire.chunks import Usage

log: Final = logging.getLogger("justenough.gateway")


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
        """The last event with a usage."""
        self._offset: int | None = None
        """Where the text begins in the offsets of its log-probabilities."""
        self._length = 0
        """Where the next piece of the answer begins in them."""
        self._answering = False
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
        usage, counted, unread = Usage(), 0, self.unread
        job = replace(self.job, request=after_cut(self.request, self._tokens))
        pieces = self._pieces(job, cut)
        if not watch.separate:
            # The client sees the same closing text as the model.
            self._length = (self._offset or 0) + len(cut.text)
            await self._output.send([self._chunk(Piece(job.settings.prompts.with_thought(watch.format).close))])
        last: Piece | None = None
        async for piece in pieces:
            counted += bool(piece.text) if piece.tokens is None else piece.tokens
            self.unread += piece.unseen
            if piece.usage is not None:
                usage = piece.usage
                self.unread = unread if usage.completion_tokens is not None else self.unread
            self.probe_tokens = max(counted, usage.completion_tokens or 0)
            self.answer.append(piece.text)
            if piece.finish is not None:
                last = piece
            elif piece.text or piece.logprobs is not None:
                await self._output.send([self._chunk(piece)])
        self._answering = False
        self.probe_tokens = usage.completion_tokens or counted
        if last is not None:
            await self._output.send([self._chunk(last)])
        own = usage_in(self._usage_event)
        if not own and usage == Usage():
            return
        # Without a count of the client's prompt, it is the prompt of the answer without the thought.
        counted = max(0, (usage.prompt_tokens or 0) - self._tokens)
        own = {"prompt_tokens": counted if self._prompt_tokens is None else self._prompt_tokens} | own
        await self._send_usage(own, completion=self.generated, reasoning=self._tokens)

    def _pieces(self, job: Job, cut: Cut) -> AsyncIterator[Piece]:
        """The answer after a cut."""
        return elicit(job, cut, logprobs=self.request.logprobs, keep_alive=self._output.keep_alive)

    async def _answer_anew(self, refused: Refused) -> None:
        """Answer by the client's own request, without its thought; raises `refused` where that cannot help.

        Without a stream the client has got nothing yet. Then its own request is relayed instead.
        """
        if not self.request.stream or any(self.answer) or self.plan.budget is not None:
            raise refused
        self.failure = refused.message
        log.warning("the answer to a cut thought failed, the client's own request is sent: %s", refused.message)
        try:
            step = await own_answer(self.job, keep_alive=self._output.keep_alive)
        except Refused as again:
            raise refused from again
        self.probe_tokens += step.generated
        await self._output.send([self._chunk(Piece(step.answer)), self._chunk(Piece("", finish=step.finish))])
        if own := usage_in(self._usage_event):
            await self._send_usage(own, completion=self.generated, reasoning=self._tokens)

    def _is_repeatable(self, refused: Refused) -> bool:
        return self.stopped or super()._is_repeatable(refused)

    def _chunk(self, piece: Piece) -> bytes:
        row: dict[str, Json] = {"index": 0}
        if self.request.kind == "chat":
            row["delta"] = {"content": piece.text} if piece.text else {}
        else:
            row["text"] = piece.text
        if self.request.logprobs:
            logprobs = piece.logprobs
            row["logprobs"] = with_offsets(logprobs, self._length) if isinstance(logprobs, dict) else logprobs
        self._length += len(piece.text)
        row["finish_reason"] = piece.finish
        return self._encoded(row)


async def own_answer(job: Job, *, keep_alive: KeepAlive) -> CompletionStep:
    """The whole output of the client's own request; raises `Refused`."""
    step = CompletionStep(job.formats)
    headers, body = job.exchange.headers_for_new_body, job.request.with_fields(stream=True)
    async with job.upstream.open("POST", job.request.place.target(), headers=headers, body=body) as answer:
        if answer.status != 200 or not is_events(answer):
            raise Refused(502, f"the upstream answers with status {answer.status}", code="continuation_failed")
        limit = job.settings.limits.max_event_bytes
        async for batch in batches(answer, limit=limit, keep_alive=keep_alive):
            for chunk in map(read, batch):
                if chunk.usage is not None:
                    step.counted = chunk.usage.completion_tokens
                if (choice := chunk.choice) is not None:
                    step.tokens += choice.has_output
                    step.reasoning += [choice.reasoning] if choice.reasoning else []
                    step.content.append(choice.content)
                    step.finish = choice.finish_reason or step.finish
    if step.finish is None:
        raise unfinished()
    return step
