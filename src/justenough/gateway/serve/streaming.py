"""The streaming shape: asks the upstream for log-probabilities, follows the thought, cuts it and sends the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, cast

import aiohttp
import msgspec

from justenough.gateway.exchange import Refused
from justenough.gateway.plan import Report, decision_rows, header, report
from justenough.gateway.serve.answering import Answering
from justenough.gateway.serve.cutting import stops_within
from justenough.gateway.serve.elicit import Piece
from justenough.gateway.serve.work import Job, WorkPhase
from justenough.gateway.stream.edits import (
    fewer,
    first_offset,
    shortened,
    with_member,
    with_value,
    without,
    without_member,
)
from justenough.gateway.stream.events import (
    Payloads,
    Unusable,
    decoded,
    head_of,
    read,
    unread_bytes,
)
from justenough.gateway.stream.reading import Reading
from justenough.gateway.stream.record import Steps
from justenough.gateway.stream.template import Template, View
from justenough.gateway.stream.watch import Watch, reason_to_let_go
from justenough.signal.thought import Phase
from justenough.wire.chunks import Chunk, Usage
from justenough.wire.events import event_of, payload_of

_LONGEST_REST: Final = 64
"""Tokens after which a thought that its client ended is cut, also within a step."""


class Generation(Answering):
    """Serves one request as one generation."""

    cascade_tokens = 0

    def __init__(self, job: Job, *, reading: Reading) -> None:
        self.record = Steps(job.plan.gate) if job.plan.course == "audit" else None
        watch = Watch(
            job.plan.gate,
            cut=job.plan.course == "gate",
            thought=job.formats.thought,
            others=job.formats.others,
            known=job.formats.known,
            record=self.record,
            reading=reading,
        )
        super().__init__(job, watch)
        self._never_cuts = False
        """Whether nothing is cut from here on."""
        prompts = job.settings.prompts.with_thought(watch.format)
        if job.plan.gate.shape == "streaming" and stops_within(job.request, prompts.close + prompts.answer):
            self._let_go("stop_sequence")
        self._reading = reading
        request, self._asks_for_usage = job.request, "stream_options" in job.capabilities.extra
        most = None if request.top_logprobs >= job.top_k else request.top_logprobs
        self._view = View(request.logprobs, most, usage=request.continuous_usage or not self._asks_for_usage)
        self._template: Template | None = None
        """The common bytes of the stream's chunks, once a chunk has shown them."""
        self._cut_here = False
        """Whether the thought is cut after the last event."""
        self._ends_by: tuple[int, int] | None = None
        """Decisions and tokens of which one more ends the thought; None: the client has not ended it."""
        self._has_limit = job.plan.budget is not None
        """Whether the thought may end without a decision of the gate."""
        self._reported = 0

    async def _run(self) -> None:
        headers, body = self.job.exchange.headers_for_new_body, self._body()
        async with self.job.upstream.open("POST", self.request.place.target(), headers=headers, body=body) as answer:
            if (stream := await self._stream_of(answer)) is None:
                return
            await self._output.begin(list(stream.raw_headers), self.plan.header)
            with self._reading.of(self.watch):
                self.stopped = await self._follow(stream)
        # The upstream's connection is closed here, so it does not generate the rest of this thought.
        if self.stopped:
            await self._answer()
        elif self.watch.finish is None and not self.request.stream:
            await self._output.send([self._chunk(Piece("", finish="stop"))])
        await self._output.end(header(last := self.report()), last)

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
        top = max(self.job.top_k, self.request.top_logprobs)
        return {"logprobs": True, "top_logprobs": top} if self.request.kind == "chat" else {"logprobs": top}

    def _read(self, answer: aiohttp.ClientResponse) -> Awaitable[bytes]:
        """The next bytes of the stream; empty at its end."""
        return answer.content.readany()

    async def _follow(self, answer: aiohttp.ClientResponse) -> bool:
        """Send events to the client until the end or the cut; whether it was a cut."""
        received = Payloads(limit=self.job.settings.limits.max_event_bytes)
        data = b" "
        while data and not received.done:
            reading = self._read(answer)
            data = await (self._read_after_held(reading) if self._held else reading)
            if received.may_be_one(data) and (event := self._token(data)) is not None:
                await self._output.pass_on(event)
            else:
                payloads = received.of(data)
                if comments := received.comments():
                    await self._output.keep_alive(comments)
                views = self._held
                try:
                    self._events(payloads, views)
                finally:
                    # An error among the events loses none of those before it.
                    await self._send_held()
            if self._cut_here:
                return True
        await self._left(answer, received)
        return False

    def _events(self, payloads: Sequence[bytes], views: list[bytes]) -> None:
        """Take events up to the cut; appends them to `views` as the client sees them."""
        for number, payload in enumerate(payloads):
            event = self._token(event_of(payload))
            try:
                view = self._event(payload) if event is None else payload_of(event)
            except Refused as refused:
                self.unread += unread_bytes(refused, payloads[number:])
                raise
            if view is not None:
                views.append(view)
            if self._cut_here:
                if event is None and views and any(self.watch.surplus):
                    views[-1] = shortened(views[-1], *self.watch.surplus)
                break

    def _token(self, data: bytes) -> bytes | None:
        """The quick way: take one event that fits the template and adds one token to the thought; None for others."""
        template, watch = self._template, self.watch
        if template is None or not watch.waits(reasoning=template.reasoning):
            return None
        if (token := template.read(data)) is None:
            return None
        text, logprobs, event, usage = token
        cut = watch.take_later(text, logprobs)
        if usage is not None:
            self._take_usage(usage, data)
        if cut or self._has_limit:
            self._decide(cut)
            if self._cut_here and any(watch.surplus):
                # The text ends with what may be the beginning of a tag.
                return event_of(shortened(payload_of(event), *watch.surplus))
        return event

    def _decide(self, cut: bool) -> None:
        """Decide whether to cut here: because the watch says so, or because the budget is spent."""
        watch, is_spent, is_asked = self.watch, False, False
        if not cut and self._has_limit and watch.phase is Phase.THINKING and watch.finish is None:
            is_spent = self.plan.is_spent(self._tokens + self.earlier_probes)
            if not is_spent and self._ends_by is not None:
                decisions, tokens = self._ends_by
                is_asked = len(watch.decisions) > decisions or self._tokens > tokens
        cuts = (cut or is_spent or is_asked) and watch.continuable and not self._never_cuts
        if cuts and self.request.max_tokens is not None:
            cuts = self._tokens < self.request.max_tokens
        self._cut_here, self.out_of_budget, self.ends_now = cuts, cuts and is_spent, cuts and is_asked

    def _event(self, payload: bytes) -> bytes | None:
        """Take any event; returns it as the client sees it, None if it is not for the client."""
        self.watch.catch_up()
        try:
            chunk = read(payload, may_fail=self._has_choice and self.request.stream and self.job.api is None)
        except Unusable as unusable:
            if unusable.code == "upstream_error":
                raise
            self._let_go("unreadable_chunk")
            self._note(None, payload)
            return payload
        apart = self.watch.separate or (chunk.choice is not None and bool(chunk.choice.reasoning))
        if (reason := reason_to_let_go(chunk, apart=apart)) is not None:
            self._let_go(reason)
        self._note(chunk, payload)
        cut = self.watch.take(chunk)
        forwarded = self._forwarded(payload, chunk)
        # The quick way never shows decisions, so it is only for clients without them.
        if forwarded is not None and not self.request.control.decisions:
            self._template = Template.of(payload, chunk, self._view, forwarded) or self._template
        self._decide(cut)
        return forwarded

    def _let_go(self, reason: str) -> None:
        """Cut nothing from here on."""
        self._never_cuts = True
        self.watch.notes[reason] = None

    def _forwarded(self, data: bytes, chunk: Chunk) -> bytes | None:
        """The event as the client sees it; None if it is not for the client."""
        if chunk.prompt_progress is not None:
            self._prompt_tokens = chunk.prompt_progress.total
            has_output = chunk.choice is not None and (chunk.choice.has_output or chunk.choice.finish_reason)
            if not has_output and "return_progress" not in self.request.fields:
                return None
        choice = chunk.choice
        if choice is not None and not self._head:
            self._head = head_of(data)
        if chunk.usage is not None:
            self._take_usage(chunk.usage, data)
            if choice is None and self.request.stream and self._asks_for_usage and not self.request.include_usage:
                return None
            # An answer in one piece may have its usage only there.
            if choice is not None and not self._view.usage and (self.request.stream or choice.finish_reason is None):
                data = without_member(data, "usage")
        if chunk.timings is not None:
            self._received = max(self._received or 0, chunk.timings.predicted_n)
        if choice is None:
            return data
        for each in chunk.choices or ():
            if each.logprobs:
                data = self._without_extra_logprobs(data, each.logprobs)
        if self.watch.phase is Phase.ANSWERING and self.plan.course == "audit":
            self.answer.append(choice.content)
        if choice.finish_reason is not None:
            return with_member(data, b"justenough", msgspec.json.encode(self.report()))
        return self._with_decisions(data)

    def _take_usage(self, usage: Usage, event: bytes) -> None:
        """Take the counts of an event, which is whole or its payload alone."""
        self._usage_event = event
        if usage.prompt_tokens is not None:
            self._prompt_tokens = usage.prompt_tokens
        if usage.completion_tokens is not None:
            self._received = usage.completion_tokens
            self.unread = self.watch.unseen = 0

    def _with_decisions(self, data: bytes) -> bytes:
        """Add the new decisions, if the client asked for decisions."""
        if not self.request.control.decisions or self._reported == len(self.watch.decisions):
            return data
        fresh = decision_rows(self.watch.decisions[self._reported :])
        self._reported = len(self.watch.decisions)
        return with_member(data, b"justenough", msgspec.json.encode({"decisions": fresh}))

    def _without_extra_logprobs(self, data: bytes, logprobs: msgspec.Raw) -> bytes:
        """Remove the log-probabilities that the client did not ask for."""
        if not self._view.logprobs:
            return without(data, b"logprobs", logprobs)
        if self._offset is None:
            self._offset = first_offset(decoded(logprobs))
        most = self._view.most
        return data if most is None else with_value(data, logprobs, fewer(logprobs, most))

    @property
    def phase(self) -> WorkPhase:
        """What the model does now."""
        return "answering" if self._answering or self.watch.phase is Phase.ANSWERING else "thinking"

    @property
    def can_answer(self) -> bool:
        """Whether there may be a thought that can be ended."""
        continues = self.request.kind == "completion" or self.job.capabilities.chat is not None
        over = self.phase == "answering" or self.watch.finish is not None
        continues = continues and self.watch.continuable and not self._never_cuts
        return continues and not over and self.plan.gate.shape == "streaming"

    def answer_now(self) -> None:
        """End the thought where its step ends, or after some more tokens."""
        self._ends_by = self._ends_by or (len(self.watch.decisions), self._tokens + _LONGEST_REST)
        self._has_limit = True

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

    def report(self) -> Report:
        """The `justenough` object of the answer."""
        watch = self.watch
        decision = watch.stopped or watch.decision
        reason = decision.reason.value if decision is not None else "no_step" if watch.thought else "no_thought"
        out = report(
            self.plan,
            decision,
            stopped=self.stopped,
            reason="answer_failed" if self.failure is not None else "budget" if self.out_of_budget else reason,
            tokens=self.generated,
            thought_tokens=watch.thought_tokens,
            probe_tokens=self.earlier_probes + self.probe_tokens,
            notes=self.undecided,
            hopeless=any(one.hopeless for one in watch.decisions),
        )
        if self.request.thinking_budget is not None:
            out["thinking_budget"] = self.request.thinking_budget
        if self.ends_now:
            out["reason"] = "answer_now"
        out["usage_source"] = "received" if self.stopped or self.failure is not None else "upstream"
        if self.failure is not None:
            out["failure"] = self.failure
        if watch.stopped_at is not None and not self.stopped:
            out["would_stop_at"] = watch.stopped_at
        if self.request.control.decisions:
            out["decisions"] = decision_rows(watch.decisions)
        return out
