"""One request that is gated, audited or observed, and what both shapes share in serving it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

import aiohttp
import msgspec

from justenough.gateway.apis.api import Api
from justenough.gateway.apis.output import TranslatedEvents, TranslatedWhole
from justenough.gateway.exchange import Exchange, Refused
from justenough.gateway.plan import Ended, Plan, Report
from justenough.gateway.request import CompletionRequest
from justenough.gateway.serve.metered import Meter, pass_counted
from justenough.gateway.serve.relay import RequestRefused, usable_body
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.edits import limited_logprobs
from justenough.gateway.stream.events import Unusable, stream_of
from justenough.gateway.stream.output import EventOutput, Output, WholeOutput
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import BrokenEarly, Upstream, headers_of
from justenough.gateway.upstream.formats import UNCONFIGURED, Formats
from justenough.trace import Json
from justenough.wire.values import ABSENT, read_or_none

log: Final = logging.getLogger("justenough.gateway")

WorkPhase = Literal["thinking", "answering"]

_LONGEST_ID: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request, its plan and its upstream."""

    exchange: Exchange
    request: CompletionRequest
    plan: Plan
    upstream: Upstream
    cascade: Upstream | None
    """The server of the second model, if there is one."""
    settings: GatewaySettings
    capabilities: Capabilities
    formats: Formats = UNCONFIGURED
    """The formats that the thought may have."""
    original: CompletionRequest | None = None
    """The client's own request, if it is one of another API. `request` is the same as a chat."""

    @property
    def api(self) -> Api | None:
        """The API of the client, None for OpenAI's completions."""
        return None if self.original is None else self.original.api

    @property
    def top_k(self) -> int:
        """Alternatives per token that the gate needs."""
        return self.plan.gate.signal.top_k or self.settings.top_k

    def output(self) -> Output:
        """The way to the client: a stream of events or one whole answer."""
        if self.original is not None and self.api is not None:
            answer = self.api.answer(self.original.fields)
            if self.request.stream:
                return TranslatedEvents(self.exchange, answer)
            return TranslatedWhole(self.exchange, answer, limit=self.settings.limits.max_answer_bytes)
        if self.request.stream:
            return EventOutput(self.exchange)
        return WholeOutput(self.exchange, self.request.kind, limit=self.settings.limits.max_answer_bytes)


class Work(ABC):
    """Serves one job."""

    def __init__(self, job: Job) -> None:
        self.job, self.request, self.plan = job, job.request, job.plan
        self.meter: Meter | None = None
        """Counts the upstream's own answer, if it is relayed because it is not a stream."""
        self.stopped = False
        """Whether the gate stopped, or would have stopped in an audited sequence."""
        self.out_of_budget = False
        """Whether the request ended because its budget was spent."""
        self.ends_now = False
        """Whether the client ended the thought."""
        self.failure: str | None = None
        """Why the last step failed; then the answer is that of the step before, or of the client's own request."""
        self.probe_tokens = 0
        """Tokens of the elicited answer that the client gets."""
        self.earlier_probes = 0
        """Tokens of elicited answers that only a rule reads."""
        self._shows = False
        """Whether the client has got an event; comments are none."""
        self._begun = False
        """Whether the upstream has begun to answer with a stream."""
        self._output = job.output()
        self._head: dict[str, Json] = {}
        """The members that all chunks of this answer share."""

    async def run(self) -> None:
        """Answer the client; raises `Refused`, or `RequestRefused` before anything but comments was sent."""
        try:
            await self._run()
        except Refused as refused:
            await self._output.flush()
            has_answer = self.job.exchange.started and (self._shows or not self.request.stream)
            if has_answer or not self._is_repeatable(refused):
                raise
            log.warning("the client's own request is sent instead: %s", refused.message)
            raise RequestRefused(refused.status, refused.body) from refused
        finally:
            self._output.close()

    def _is_repeatable(self, refused: Refused) -> bool:
        """Whether the client's own request may succeed after this error."""
        return isinstance(refused, Unusable) or (isinstance(refused, BrokenEarly) and not self._begun)

    async def _show(self, payloads: Sequence[bytes]) -> None:
        """Send events to the client, at least one."""
        self._shows = True
        await self._output.send(payloads)

    async def _stream_of(self, answer: aiohttp.ClientResponse) -> aiohttp.ClientResponse | None:
        """The answer, if it is a stream of events; otherwise it is relayed, and this is None.

        Raises `RequestRefused` for an answer that the client cannot use.
        """
        stream, begin = await stream_of(answer)
        if stream is not None:
            self._begun = True
            return stream
        limits, exchange = self.job.settings.limits, self.job.exchange
        body = await usable_body(answer, begin, limit=limits.max_answer_bytes)
        if self.job.api is not None:
            # It is no answer in the client's API.
            raise Unusable("it is no stream")
        self.meter = Meter(events=False, limit=limits.max_body_bytes)
        own_headers = [(b"x-justenough", b"relayed; reason=not_streamed")]
        if len(body) >= limits.max_answer_bytes:
            await pass_counted(exchange, answer, self.meter, own_headers=own_headers, begin=body)
            return None
        self.meter.feed(body)
        self.meter.end()
        body = limited_logprobs(body, self.request.top_logprobs if self.request.logprobs else None)
        headers = [pair for pair in headers_of(answer) if pair[0] != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await exchange.start(answer.status, [*headers, length, *own_headers])
        await exchange.end(body)
        return None

    def _keep_text_of(self, payload: bytes, *, passes: bool) -> None:
        """Raise `Unusable` for an event that cannot be read, if its text would be lost; `passes`: if it is shown."""
        if not passes and payload.lstrip().startswith((b"{", b"[")) and b"{" in payload:
            raise Unusable("it sent a text that cannot be read")

    @abstractmethod
    async def _run(self) -> None:
        """Like `run`, but raises every `Refused` as it is."""

    @abstractmethod
    def report(self) -> Report:
        """The `justenough` object of the answer."""

    @property
    @abstractmethod
    def generated(self) -> int:
        """Completion tokens so far."""

    @property
    @abstractmethod
    def phase(self) -> WorkPhase:
        """What the model does now."""

    @property
    @abstractmethod
    def can_answer(self) -> bool:
        """Whether there may be a thought that can be ended."""

    @abstractmethod
    def answer_now(self) -> None:
        """End the thought soon, so that the answer follows."""

    @property
    def unseen(self) -> int:
        """Tokens that may have been generated beyond those counted."""
        return 0

    @property
    def ended(self) -> Ended | None:
        """What ended the request early."""
        if self.ends_now:
            return "answer_now"
        return "budget" if self.out_of_budget else "stopped" if self.stopped else None

    @property
    def id(self) -> str | None:
        """The answer's id; None if it is too long to be remembered."""
        value = self._head.get("id")
        if isinstance(value, str) and self.job.api is not None:
            value = self.job.api.id_of(value)
        return value if isinstance(value, str) and len(value) <= _LONGEST_ID else None

    def _encoded(self, row: dict[str, Json], justenough: Report | None = None) -> bytes:
        """A chunk of the answer; the last one contains the report."""
        chunk: dict[str, Json] = self._head | {"choices": [row]}
        if row["finish_reason"] is not None:
            justenough = self.report()
        return msgspec.json.encode(chunk if justenough is None else chunk | {"justenough": justenough})

    async def _send_usage(self, own: dict[str, Json], *, completion: int, reasoning: int) -> None:
        """Send the usage event, unless the client of a stream did not ask for it; `own`: the upstream's usage."""
        if self.request.stream and not self.request.include_usage:
            return
        prompt = own.get("prompt_tokens")
        usage = own | {
            "completion_tokens": completion,
            "total_tokens": (prompt if isinstance(prompt, int) else 0) + completion,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
        await self._output.send([msgspec.json.encode(self._head | {"choices": [], "usage": usage})])


def usage_in(data: bytes) -> dict[str, Json]:
    """The members of the usage that are not null; none if the event, or its payload, has none, or there is no event."""
    event = read_or_none(data.removeprefix(b"data: "), dict[str, msgspec.Raw]) or {}
    usage = cast("dict[str, Json]", read_or_none(event.get("usage", ABSENT), dict[str, object]) or {})
    return {key: value for key, value in usage.items() if value is not None}
