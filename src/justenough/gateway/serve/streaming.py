"""One gated completion: ask the upstream for log-probabilities, follow the thought, cut it, and bring the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import aiohttp
import msgspec

from justenough.gateway.exchange import Exchange, RawHeaders
from justenough.gateway.plan import Plan, Report, decided, header, report
from justenough.gateway.request import Asked
from justenough.gateway.serve.elicit import Cut, Piece, elicit
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.edits import shortened, trimmed, with_member, with_value, without, without_member
from justenough.gateway.stream.events import Payloads, decoded, head_of, is_events, read, unfinished
from justenough.gateway.stream.output import EventOutput, Output, WholeOutput
from justenough.gateway.stream.reading import Reading
from justenough.gateway.stream.record import Steps
from justenough.gateway.stream.template import Template
from justenough.gateway.stream.watch import Watch
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.refusal import pass_unless_refused
from justenough.thought import Phase
from justenough.trace import Json
from justenough.wire import Chunk, OddChunk, Usage, event_of, payload_of

_READ_BY_US: Final = frozenset((b"accept-encoding", b"content-length"))


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    watch: Watch
    cut: bool = False
    out_of_budget: bool = False
    """It was cut because its budget was spent, not because the gate was content."""
    probe_tokens: int = 0
    answer: list[str] = field(default_factory=list)
    """What was said after the thought, as the client got it."""
    refused_logprobs: bool = False
    relayed: bool = False
    """The upstream's own answer was passed back: an error, or no stream."""


class Generation:
    """Serves one request under a plan."""

    def __init__(
        self,
        exchange: Exchange,
        asked: Asked,
        plan: Plan,
        *,
        upstream: Upstream,
        settings: GatewaySettings,
        capabilities: Capabilities,
        reading: Reading,
        record: Steps | None = None,
    ) -> None:
        self.exchange = exchange
        self.asked = asked
        self.plan = plan
        self.record = record
        self.watch = Watch(
            plan.gate,
            cut=plan.course == "gate",
            thought=settings.prompts.thought,
            record=record,
            reading=reading,
        )
        self.outcome = Outcome(self.watch)
        self.headers: RawHeaders = [pair for pair in exchange.headers if pair[0] not in _READ_BY_US]
        self._upstream = upstream
        self._settings = settings
        self._capabilities = capabilities
        self._reading = reading
        self._output: Output = (
            EventOutput(exchange)
            if asked.stream
            else WholeOutput(exchange, asked.kind, limit=settings.limits.max_answer_bytes)
        )
        self._top_k = plan.gate.signal.top_k or settings.top_k
        self._template: Template | None = None
        """What the chunks of the stream have in common, as soon as one shows it."""
        self._cut = False
        """Whether the last event was that of the cut."""
        self._let_go = False
        """Whether a chunk could not be understood: then nothing is cut any more."""
        self._head: dict[str, Json] = {}
        """Members that every chunk of this answer shares."""
        self._prompt_tokens: int | None = None
        self._begun = False
        """Whether the upstream's stream has begun."""
        self._answering = False
        """Whether the elicited answer is under way."""
        self._received: int | None = None
        """Completion tokens so far by the upstream's own count, where it gives one."""
        self._told = 0
        """Decisions that the client knows of."""

    async def run(self) -> Outcome:
        """Answer the client; raises `Refused`, or `LogprobsRefused` before anything was answered."""
        body = self._body()
        async with self._upstream.open("POST", self.exchange.target, headers=self.headers, body=body) as answer:
            if answer.status != 200 or not is_events(answer):
                await pass_unless_refused(self.exchange, answer, self.asked)
                self.outcome.relayed = True
                return self.outcome
            await self._output.begin(list(answer.raw_headers), self.plan.said)
            self._begun = True
            with self._reading.of(self.watch):
                self.outcome.cut = await self._follow(answer)
        # Here the upstream's connection is closed: it generates no more of this thought.
        if self.outcome.cut:
            await self._answer()
        elif self.watch.finish is None:
            raise unfinished()
        await self._output.end(header(self.report()))
        return self.outcome

    def _body(self) -> bytes:
        changed: dict[str, object] = {"stream": True}
        top = max(self._top_k, self.asked.top_logprobs)
        if self.asked.kind == "chat":
            changed |= {"logprobs": True, "top_logprobs": top}
        else:
            changed["logprobs"] = top
        changed |= {key: value for key, value in self._capabilities.extra.items() if key != "stream_options"}
        options = cast("Mapping[str, object]", self._capabilities.extra.get("stream_options", {}))
        if not self.asked.stream:
            options = {**options, "include_usage": True}
        if options:
            theirs = self.asked.fields.get("stream_options")
            known = msgspec.json.decode(theirs, type=dict[str, msgspec.Raw] | None) if theirs is not None else None
            changed["stream_options"] = {**(known or {}), **options}
        return self.asked.with_fields(**changed)

    async def _follow(self, answer: aiohttp.ClientResponse) -> bool:
        """Forward events until the end or the cut; whether it was a cut."""
        received = Payloads(limit=self._settings.limits.max_event_bytes)
        while data := await answer.content.readany():
            if received.may_be_one(data) and (event := self._token(data)) is not None:
                await self._output.pass_on(event)
            else:
                payloads = received.of(data)
                if comments := received.comments():
                    await self._output.keep_alive(comments)
                if views := self._events(payloads):
                    await self._output.send(views)
            if self._cut:
                return True
        return False

    def _events(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Take events up to the cut: the client's view of them."""
        views: list[bytes] = []
        for payload in payloads:
            event = self._token(event_of(payload))
            view = self._event(payload) if event is None else payload_of(event)
            if view is not None:
                views.append(view)
            if self._cut:
                if views and any(self.watch.surplus):
                    views[-1] = shortened(views[-1], *self.watch.surplus)
                break
        return views

    def _token(self, data: bytes) -> bytes | None:
        """Take bytes that begin an event, if they are that of one more token of the thought, like others before, and no
        more; None for any other. What the client gets to see of it."""
        template = self._template
        if template is None or not self.watch.waits(reasoning=template.reasoning):
            return None
        if (token := template.read(data)) is None:
            return None
        text, logprobs, event = token
        self._decide(self.watch.take_later(text, logprobs))
        if self._cut and any(self.watch.surplus):
            # It ends in what may be the beginning of a tag.
            return event_of(shortened(payload_of(event), *self.watch.surplus))
        return event

    def _decide(self, cut: bool) -> None:
        """Whether the thought is to be cut here, for the watch wants it or its budget is spent."""
        watch = self.watch
        if not cut and self.plan.budget is not None and watch.phase is Phase.THINKING and watch.finish is None:
            cut = self.outcome.out_of_budget = self.plan.spent(self._tokens)
        if cut and self.asked.max_tokens is not None and self._tokens >= self.asked.max_tokens:
            cut = self.outcome.out_of_budget = False
        self._cut = cut and not self._let_go

    def _event(self, payload: bytes) -> bytes | None:
        """Take any event; the client's view of it, None where it is not for the client."""
        chunk = read(payload)
        if isinstance(chunk, OddChunk) and (chunk.complaint or chunk.in_parts):
            self._let_go = True
            self.watch.notes["unreadable_chunk"] = None
        cut = self.watch.take(chunk)
        if not (self.asked.logprobs or self.asked.control.decisions):
            # The template leaves log-probabilities unread, and adds nothing: nobody else may get to see them.
            self._template = Template.of(payload, chunk) or self._template
        forwarded = self._forwarded(payload, chunk)
        self._decide(cut)
        return forwarded

    def _forwarded(self, data: bytes, chunk: Chunk) -> bytes | None:
        """The client's view of an event; None where it is not for the client."""
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
            wanted = self.asked.include_usage or not self.asked.stream
            if choice is None and not wanted:
                return None
            if (
                choice is not None
                and self._capabilities.extra.get("stream_options")
                and not self.asked.continuous_usage
            ):
                data = without_member(data, "usage")
        if chunk.timings is not None:
            self._received = max(self._received or 0, chunk.timings.predicted_n)
        if choice is None:
            return data
        if choice.logprobs:
            data = self._measured_away(data, choice.logprobs)
        if self.watch.phase is Phase.ANSWERING and self.plan.course == "audit":
            self.outcome.answer.append(choice.content)
        if choice.finish_reason is not None:
            return with_member(data, b"justenough", msgspec.json.encode(self.report()))
        return self._with_decisions(data)

    def _with_decisions(self, data: bytes) -> bytes:
        """With the decisions of which the client, who asked for them, does not know yet."""
        if not self.asked.control.decisions or self._told == len(self.watch.decisions):
            return data
        fresh = decided(self.watch.decisions[self._told :])
        self._told = len(self.watch.decisions)
        return with_member(data, b"justenough", msgspec.json.encode({"decisions": fresh}))

    def _measured_away(self, data: bytes, logprobs: msgspec.Raw) -> bytes:
        """Without the log-probabilities that the client did not ask for."""
        if not self.asked.logprobs:
            return without(data, b"logprobs", logprobs)
        if self.asked.top_logprobs >= self._top_k:
            return data
        fewer = msgspec.json.encode(trimmed(decoded(logprobs), self.asked.top_logprobs))
        return with_value(data, logprobs, fewer)

    async def _answer(self) -> None:
        self._answering = True
        cut = Cut(text=self.watch.cut_text, separate=self.watch.separate, tokens=self._tokens)
        usage, counted = Usage(), 0
        pieces = elicit(
            self._upstream,
            self._settings,
            self._capabilities,
            self.asked,
            cut,
            headers=self.headers,
            logprobs=self.asked.logprobs,
            keep_alive=self._output.keep_alive,
        )
        if not self.watch.separate:
            # The client sees the thought closed as the model does.
            await self._output.send([self._chunk(Piece(self._settings.prompts.close, None, None, None))])
        last: Piece | None = None
        async for piece in pieces:
            usage = piece.usage or usage
            counted += bool(piece.text)
            self.outcome.probe_tokens = max(counted, usage.completion_tokens or 0)
            self.outcome.answer.append(piece.text)
            if piece.finish is not None:
                last = piece
            elif piece.text or piece.logprobs is not None:
                await self._output.send([self._chunk(piece)])
        self._answering = False
        self.outcome.probe_tokens = usage.completion_tokens or counted
        if last is not None:
            await self._output.send([self._chunk(last)])
        if self.asked.include_usage or not self.asked.stream:
            await self._output.send([msgspec.json.encode(self._head | {"choices": [], "usage": self._usage(usage)})])

    def _chunk(self, piece: Piece) -> bytes:
        row: dict[str, Json] = {"index": 0}
        if self.asked.kind == "chat":
            row["delta"] = {"content": piece.text} if piece.text else {}
        else:
            row["text"] = piece.text
        if self.asked.logprobs:
            row["logprobs"] = piece.logprobs
        row["finish_reason"] = piece.finish
        chunk: dict[str, Json] = self._head | {"choices": [row]}
        if piece.finish is not None:
            chunk["justenough"] = self.report()
        return msgspec.json.encode(chunk)

    @property
    def undecided(self) -> list[str]:
        """Why the gate could not decide where it should have; `no_step`: the splitter found none in the thought."""
        nothing = self.watch.thought and self.watch.decision is None and not self.outcome.cut
        return [*self.watch.notes, *(["no_step"] if nothing else [])]

    @property
    def left_early(self) -> int:
        """Streams of the upstream that were, or are being, left before their end."""
        return (self._begun and self.watch.finish is None) + self._answering

    @property
    def generated(self) -> int:
        """Completion tokens so far, those of the elicited answer too."""
        return self._tokens + self.outcome.probe_tokens

    @property
    def _tokens(self) -> int:
        return max(self.watch.tokens, self._received or 0)

    def _usage(self, answered: Usage) -> dict[str, Json]:
        """Tokens of the cut thought and of the answer together."""
        prompt = self._prompt_tokens
        if prompt is None:
            prompt = max(0, (answered.prompt_tokens or 0) - self._tokens)
        completion = self._tokens + self.outcome.probe_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": self._tokens},
        }

    @property
    def id(self) -> str | None:
        """The answer's own."""
        found = self._head.get("id")
        return found if isinstance(found, str) else None

    def report(self) -> Report:
        """The `justenough` object of the answer."""
        watch = self.watch
        said = report(
            self.plan,
            watch.stopped or watch.decision,
            stopped=self.outcome.cut,
            undecided="no_step" if watch.thought else "no_thought",
            tokens=self.generated,
            thought_tokens=watch.thought_tokens,
            probe_tokens=self.outcome.probe_tokens,
            notes=self.undecided,
            budget_spent=self.outcome.out_of_budget,
        )
        said["usage_source"] = "received" if self.outcome.cut else "upstream"
        if watch.stopped_at is not None and not self.outcome.cut:
            said["would_stop_at"] = watch.stopped_at
        if self.asked.control.decisions:
            said["decisions"] = decided(watch.decisions)
        return said
