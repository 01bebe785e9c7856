"""The streaming shape: asks the upstream for log-probabilities, follows the thought, cuts it and sends the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

import aiohttp
import msgspec

from justenough.gateway.plan import Report, decision_rows, header, report
from justenough.gateway.serve.elicit import Cut, Piece, elicit
from justenough.gateway.serve.relay import relay_or_raise
from justenough.gateway.serve.work import Job, Work
from justenough.gateway.stream.edits import shortened, trimmed, with_member, with_value, without, without_member
from justenough.gateway.stream.events import Payloads, decoded, head_of, is_events, read, unfinished
from justenough.gateway.stream.reading import Reading
from justenough.gateway.stream.record import Steps
from justenough.gateway.stream.template import Template
from justenough.gateway.stream.watch import Watch
from justenough.thought import Phase
from justenough.trace import Json
from justenough.wire.chunks import Chunk, OddChunk, Usage
from justenough.wire.events import event_of, payload_of


class Generation(Work):
    """Serves one request as one generation."""

    cascade_tokens = 0

    def __init__(self, job: Job, *, reading: Reading) -> None:
        super().__init__(job)
        self.record = Steps(job.plan.gate) if job.plan.course == "audit" else None
        self.watch = Watch(
            job.plan.gate,
            cut=job.plan.course == "gate",
            thought=job.formats.thought,
            others=job.formats.others,
            known=job.formats.known,
            record=self.record,
            reading=reading,
        )
        self.answer: list[str] = []
        """The text after the thought, as the client got it."""
        self._reading = reading
        self._top_k = job.top_k
        self._asks_for_usage = bool(job.capabilities.extra.get("stream_options"))
        self._template: Template | None = None
        """The common bytes of the stream's chunks, once a chunk has shown them."""
        self._cut_here = False
        """Whether the thought is cut after the last event."""
        self._never_cuts = False
        """Whether a chunk could not be read. From then on nothing is cut."""
        self._prompt_tokens: int | None = None
        self._begun = False
        self._answering = False
        self._received: int | None = None
        """Completion tokens so far by the upstream's own count, if it gives one."""
        self._reported = 0

    async def run(self) -> None:
        """Answer the client; raises `Refused`, or `RequestRefused` before anything was sent."""
        exchange = self.job.exchange
        headers, body = exchange.headers_for_new_body, self._body()
        async with self.job.upstream.open("POST", exchange.target, headers=headers, body=body) as answer:
            if answer.status != 200 or not is_events(answer):
                await relay_or_raise(exchange, answer)
                self.relayed = True
                return
            await self._output.begin(list(answer.raw_headers), self.plan.header)
            self._begun = True
            with self._reading.of(self.watch):
                self.stopped = await self._follow(answer)
        # The upstream's connection is closed here, so it does not generate the rest of this thought.
        if self.stopped:
            await self._answer()
        elif self.watch.finish is None:
            raise unfinished()
        await self._output.end(header(self.report()))

    def _body(self) -> bytes:
        request, extra = self.request, self.job.capabilities.extra
        changed: dict[str, object] = {"stream": True, **self._logprobs(), **extra}
        options = dict(cast("Mapping[str, object]", extra.get("stream_options", {})))
        if not request.stream:
            options["include_usage"] = True
        if options:
            changed["stream_options"] = request.stream_options_with(options)
        return request.with_fields(**changed)

    def _logprobs(self) -> dict[str, object]:
        """The members that ask for log-probabilities."""
        top = max(self._top_k, self.request.top_logprobs)
        return {"logprobs": True, "top_logprobs": top} if self.request.kind == "chat" else {"logprobs": top}

    async def _follow(self, answer: aiohttp.ClientResponse) -> bool:
        """Send events to the client until the end or the cut; whether it was a cut."""
        received = Payloads(limit=self.job.settings.limits.max_event_bytes)
        while data := await answer.content.readany():
            if received.may_be_one(data) and (event := self._token(data)) is not None:
                await self._output.pass_on(event)
            else:
                payloads = received.of(data)
                if comments := received.comments():
                    await self._output.keep_alive(comments)
                if views := self._events(payloads):
                    await self._output.send(views)
            if self._cut_here:
                return True
        return False

    def _events(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Take events up to the cut; returns them as the client sees them."""
        views: list[bytes] = []
        for payload in payloads:
            event = self._token(event_of(payload))
            view = self._event(payload) if event is None else payload_of(event)
            if view is not None:
                views.append(view)
            if self._cut_here:
                if views and any(self.watch.surplus):
                    views[-1] = shortened(views[-1], *self.watch.surplus)
                break
        return views

    def _token(self, data: bytes) -> bytes | None:
        """The quick way: take one event that fits the template and adds one token to the thought.

        Returns the event as the client sees it, None for all other bytes.
        """
        template = self._template
        if template is None or not self.watch.waits(reasoning=template.reasoning):
            return None
        if (token := template.read(data)) is None:
            return None
        text, logprobs, event = token
        self._decide(self.watch.take_later(text, logprobs))
        if self._cut_here and any(self.watch.surplus):
            # The text ends with what may be the beginning of a tag.
            return event_of(shortened(payload_of(event), *self.watch.surplus))
        return event

    def _decide(self, cut: bool) -> None:
        """Decide whether to cut here: because the watch says so, or because the budget is spent."""
        watch = self.watch
        if not cut and self.plan.budget is not None and watch.phase is Phase.THINKING and watch.finish is None:
            cut = self.out_of_budget = self.plan.is_spent(self._tokens + self.earlier_probes)
        if cut and self.request.max_tokens is not None and self._tokens >= self.request.max_tokens:
            cut = self.out_of_budget = False
        self._cut_here = cut and watch.continuable and not self._never_cuts

    def _event(self, payload: bytes) -> bytes | None:
        """Take any event; returns it as the client sees it, None if it is not for the client."""
        chunk = read(payload)
        # A thought in parts can be followed, and after it nothing is cut.
        apart = self.watch.separate or (chunk.choice is not None and bool(chunk.choice.reasoning))
        if isinstance(chunk, OddChunk) and (chunk.complaint or (chunk.in_parts and not apart)):
            self._never_cuts = True
            self.watch.notes["unreadable_chunk"] = None
        cut = self.watch.take(chunk)
        if not (self.request.logprobs or self.request.control.decisions):
            # The quick way never shows log-probabilities or decisions, so it is only for clients without them.
            self._template = Template.of(payload, chunk) or self._template
        forwarded = self._forwarded(payload, chunk)
        self._decide(cut)
        return forwarded

    def _forwarded(self, data: bytes, chunk: Chunk) -> bytes | None:
        """The event as the client sees it; None if it is not for the client."""
        if chunk.prompt_progress is not None:
            self._prompt_tokens = chunk.prompt_progress.total
            if chunk.choice is None or not (chunk.choice.has_output or chunk.choice.finish_reason):
                return None
        if not self._head:
            self._head = head_of(data)
        choice = chunk.choice
        if chunk.usage is not None:
            if chunk.usage.prompt_tokens is not None:
                self._prompt_tokens = chunk.usage.prompt_tokens
            self._received = chunk.usage.completion_tokens
            if choice is None and self.request.stream and not self.request.include_usage:
                return None
            if choice is not None and self._asks_for_usage and not self.request.continuous_usage:
                data = without_member(data, "usage")
        if chunk.timings is not None:
            self._received = max(self._received or 0, chunk.timings.predicted_n)
        if choice is None:
            return data
        if choice.logprobs:
            data = self._without_extra_logprobs(data, choice.logprobs)
        if self.watch.phase is Phase.ANSWERING and self.plan.course == "audit":
            self.answer.append(choice.content)
        if choice.finish_reason is not None:
            return with_member(data, b"justenough", msgspec.json.encode(self.report()))
        return self._with_decisions(data)

    def _with_decisions(self, data: bytes) -> bytes:
        """Add the new decisions, if the client asked for decisions."""
        if not self.request.control.decisions or self._reported == len(self.watch.decisions):
            return data
        fresh = decision_rows(self.watch.decisions[self._reported :])
        self._reported = len(self.watch.decisions)
        return with_member(data, b"justenough", msgspec.json.encode({"decisions": fresh}))

    def _without_extra_logprobs(self, data: bytes, logprobs: msgspec.Raw) -> bytes:
        """Remove the log-probabilities that the client did not ask for."""
        if not self.request.logprobs:
            return without(data, b"logprobs", logprobs)
        if self.request.top_logprobs >= self._top_k:
            return data
        fewer = msgspec.json.encode(trimmed(decoded(logprobs), self.request.top_logprobs))
        return with_value(data, logprobs, fewer)

    async def _answer(self) -> None:
        self._answering = True
        watch = self.watch
        cut = Cut(text=watch.cut_text, separate=watch.separate, tokens=self._tokens, format=watch.format)
        usage, counted = Usage(), 0
        pieces = self._pieces(cut)
        if not watch.separate:
            # The client sees the same closing text as the model.
            close = self.job.settings.prompts.with_thought(watch.format).close
            await self._output.send([self._chunk(Piece(close))])
        last: Piece | None = None
        async for piece in pieces:
            usage = piece.usage or usage
            counted += bool(piece.text)
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
        prompt = self._prompt_tokens
        if prompt is None:
            prompt = max(0, (usage.prompt_tokens or 0) - self._tokens)
        await self._send_usage(prompt=prompt, completion=self.generated, reasoning=self._tokens)

    def _pieces(self, cut: Cut) -> AsyncIterator[Piece]:
        """The answer after a cut."""
        return elicit(self.job, cut, logprobs=self.request.logprobs, keep_alive=self._output.keep_alive)

    def _chunk(self, piece: Piece) -> bytes:
        row: dict[str, Json] = {"index": 0}
        if self.request.kind == "chat":
            row["delta"] = {"content": piece.text} if piece.text else {}
        else:
            row["text"] = piece.text
        if self.request.logprobs:
            row["logprobs"] = piece.logprobs
        row["finish_reason"] = piece.finish
        return self._encoded(row)

    @property
    def undecided(self) -> list[str]:
        """Why the gate could not decide."""
        watch, reasons = self.watch, [*self.watch.notes]
        if not watch.continuable:
            reasons.append("unknown_tags")
        if not watch.thought and watch.finish is not None and self.plan.gate.shape == "streaming":
            reasons.append("no_thought")
        if watch.thought and watch.decision is None and not self.stopped:
            # The thought has no place where a step ends.
            reasons.append("no_step")
        return reasons

    @property
    def left_early(self) -> int:
        """Upstream streams that were left, or are being left, before their end."""
        return (self._begun and self.watch.finish is None) + self._answering

    @property
    def generated(self) -> int:
        """Completion tokens so far, including those of elicited answers."""
        return self._tokens + self.earlier_probes + self.probe_tokens

    @property
    def unseen(self) -> int:
        """Tokens that may have been generated beyond those counted, if the stream has not ended."""
        return self.watch.unseen if self._received is None and self.watch.finish is None else 0

    @property
    def gated_tokens(self) -> int:
        """Completion tokens received under the gate."""
        return self.watch.tokens

    @property
    def entries(self) -> int:
        """Tokens with log-probabilities."""
        return self.watch.entries

    @property
    def first_entropy(self) -> float | None:
        """Bits of the first step; None if there was no thought to measure."""
        return self.watch.first_entropy if self.watch.thought or self.plan.gate.shape == "sequential" else None

    @property
    def _tokens(self) -> int:
        return max(self.watch.tokens, self._received or 0)

    def report(self) -> Report:
        """The `justenough` object of the answer."""
        watch = self.watch
        decision = watch.stopped or watch.decision
        reason = decision.reason.value if decision is not None else "no_step" if watch.thought else "no_thought"
        out = report(
            self.plan,
            decision,
            stopped=self.stopped,
            reason="budget" if self.out_of_budget else reason,
            tokens=self.generated,
            thought_tokens=watch.thought_tokens,
            probe_tokens=self.earlier_probes + self.probe_tokens,
            notes=self.undecided,
            hopeless=any(one.hopeless for one in watch.decisions),
        )
        out["usage_source"] = "received" if self.stopped else "upstream"
        if watch.stopped_at is not None and not self.stopped:
            out["would_stop_at"] = watch.stopped_at
        if self.request.control.decisions:
            out["decisions"] = decision_rows(watch.decisions)
        return out
