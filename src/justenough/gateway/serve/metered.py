"""Relays under a token budget: passes bytes through unchanged and counts the tokens in them."""

from __future__ import annotations

import math
import re
from typing import Final

import aiohttp
import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.budgets import Allowance
from justenough.gateway.exchange import Exchange, RawHeaders, Refused
from justenough.gateway.serve.relay import RequestRefused, begin_answer, pass_back, usable_body
from justenough.gateway.stream.events import Payloads, Unusable, is_events, malformed, read
from justenough.gateway.upstream.client import BrokenEarly, Upstream, headers_of
from justenough.gateway.upstream.compression import is_compressed
from justenough.wire.chunks import Count, OtherProtocol, Usage, is_empty
from justenough.wire.events import LINES, EventReader, LineReader, is_end
from justenough.wire.lenient import read_other_protocol
from justenough.wire.logprobs import entries_of
from justenough.wire.values import ABSENT, read_or_none

_END_OF_EVENT: Final = re.compile(rb"\r?\n\r?\n|\r\r")


class _Choice(msgspec.Struct, gc=False):
    delta: dict[str, msgspec.Raw] = {}
    text: msgspec.Raw = msgspec.Raw()
    logprobs: msgspec.Raw = msgspec.Raw()

    @property
    def parts(self) -> list[msgspec.Raw]:
        """The generated text, in any of these members."""
        parts = [*[value for key, value in self.delta.items() if key != "role"], self.text]
        return [part for part in parts if not is_empty(part)]


class _Event(msgspec.Struct, gc=False):
    """An event or a whole answer of any protocol, as far as tokens are counted."""

    choices: list[_Choice] | None = None
    usage: Usage | None = None
    type: str = ""
    delta: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    """The answer so far in `/v1/responses`, a text in Ollama's `/api/generate`."""
    message: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    eval_count: msgspec.Raw = ABSENT
    """Ollama's count of the answer's tokens."""

    @property
    def parts(self) -> list[msgspec.Raw]:
        """What the model generated, in an API without `choices`."""
        if self.type.endswith(".delta"):
            parts = [self.delta]
        elif self.type == "content_block_delta":
            delta = read_or_none(self.delta, dict[str, msgspec.Raw]) or {}
            parts = [delta.get(key, ABSENT) for key in ("text", "thinking", "partial_json")]
        else:
            message = {} if self.type else read_or_none(self.message, dict[str, msgspec.Raw]) or {}
            own = [message.get(key, ABSENT) for key in ("content", "thinking", "tool_calls")]
            parts = [*own, self.thinking, *([self.response] if bytes(self.response).startswith(b'"') else [])]
        return [part for part in parts if not is_empty(part)]

    @property
    def usages(self) -> list[Usage | None]:
        """The counts of tokens in any API."""
        response = read_or_none(self.response, OtherProtocol.Response) if self.response else None
        own = Usage(completion_tokens=read_or_none(self.eval_count, Count)) if self.eval_count else None
        return [self.usage, None if response is None else response.usage, own]


class Meter:
    """Counts the completion tokens of one answer."""

    def __init__(self, *, events: bool, limit: int, strip: bool = False, lines: bool = False) -> None:
        """`limit`: bytes of one event or of a whole answer; `strip`: the client did not ask for the usage event.

        `lines`: whether it is a stream of lines, as Ollama sends it.
        """
        self.counted: int | None = None
        """Tokens by the upstream's own count, None if there is none yet."""
        self.pieces = 0
        """Tokens that were seen in a stream; an event with output counts at least one."""
        self.unseen: float = 0 if events or lines else math.inf
        """Tokens that may exist beyond those seen since the last count.

        Each token of an event has at least one byte. Without a usage, an answer in one piece may hold any number.
        """
        self._limit = limit
        self._reader = LineReader(limit=limit) if lines else EventReader(limit=limit) if events else None
        self._strip = strip and events
        self._buffer = bytearray()
        """The event that is not complete yet, or the whole answer where it is not a stream."""
        self._size = 0

    @property
    def tokens(self) -> int:
        """The larger of both counts."""
        return max(self.pieces, self.counted or 0)

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return those for the client; raises `Refused` for an event that is too large."""
        if self._reader is None:
            self._size += len(data)
            if self._size <= self._limit:
                self._buffer += data
            return data
        if not self._strip:
            self._read_events(self._reader, data)
            return data
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        passed, start = [], 0
        for end in _END_OF_EVENT.finditer(self._buffer, searched):
            event = bytes(self._buffer[start : end.end()])
            start = end.end()
            if not self._read_events(self._reader, event):
                passed.append(event)
        del self._buffer[:start]
        if len(self._buffer) > self._limit:
            raise malformed("an event is too large")
        return b"".join(passed)

    def end(self) -> bytes:
        """Take the end of the answer and return the bytes that the client has not got yet."""
        if self._reader is not None:
            # No blank line has to end the last event, nor a line end the last line.
            is_usage = self._read_events(self._reader, bytes(self._buffer) + b"\n\n")
            return b"" if is_usage else bytes(self._buffer)
        if self._size <= self._limit:
            self._read(bytes(self._buffer))
        return b""

    def _read_events(self, reader: EventReader | LineReader, data: bytes) -> bool:
        """Read events; whether the last one holds only the usage."""
        try:
            payloads = reader.feed_bytes(data)
        except BackendRejected as error:
            raise malformed("an event is too large") from error
        only_usage = False
        for payload in payloads:
            only_usage = not is_end(payload) and self._read(payload)
        return only_usage

    def _read(self, data: bytes) -> bool:
        event = read_or_none(data, _Event)
        if event is None:
            return self._read_odd(data)
        for choice in event.choices or ():
            self._count(choice.parts, entries=len(entries_of(choice.logprobs) or ()))
        if event.choices is None:
            self._count(event.parts, entries=0)
        for usage in event.usages:
            self._take_usage(usage)
        return event.usage is not None and not event.choices and not event.type

    def _read_odd(self, data: bytes) -> bool:
        """Read an event with members of other types than the protocol's."""
        event = read_other_protocol(data)
        if event is None:
            self.unseen += len(data)
            return False
        if event.choices:
            self.pieces += 1
            self.unseen += len(data)
        self._take_usage(event.usage)
        return event.usage is not None and not event.choices and not event.type

    def _count(self, parts: list[msgspec.Raw], *, entries: int) -> None:
        """Count the parts of one choice; `entries`: tokens with log-probabilities, which are an exact count."""
        self.pieces += entries or bool(parts)
        if parts and not entries:
            self.unseen += sum(map(_bytes_of, parts)) - 1

    def _take_usage(self, usage: Usage | None) -> None:
        count = None if usage is None else usage.completion_tokens
        count = usage.output_tokens if usage is not None and count is None else count
        if count is not None:
            self.counted, self.unseen = count, 0


def _bytes_of(part: msgspec.Raw) -> int:
    text = read_or_none(part, str)
    return len(bytes(part) if text is None else text.encode(errors="replace"))


async def relay_metered(
    exchange: Exchange,
    upstream: Upstream,
    body: bytes,
    *,
    own_headers: RawHeaders,
    allowance: Allowance,
    limit: int,
    strip: bool,
    original_body: bytes,
) -> None:
    """Relay a request and tell its allowance how many tokens were generated.

    If the upstream refuses `body`, begins its stream with an error, breaks off early, or compresses a stream out of
    which the usage must be taken, the request is repeated with the client's own `original_body`. The whole limit is
    charged for an answer in one piece that did not arrive. A stream that ended before its usage costs as many tokens as
    its events can hold.
    """
    # A target that must not be sent costs nothing.
    upstream.url(exchange.target)
    allowance.unseen = math.inf
    for sent in (body, original_body):
        is_changed = sent != original_body
        try:
            headers = exchange.headers_for_new_body
            async with upstream.open("POST", exchange.target, headers=headers, body=sent) as answer:
                if is_changed and (answer.status >= 300 or (strip and is_compressed(answer))):
                    continue
                begin = await _begin_of(answer, limit=limit) if is_changed and strip else b""
                if begin is None:
                    continue
                if answer.status >= 300:
                    allowance.unseen = 0
                    await pass_back(exchange, answer, own_headers=own_headers)
                    return
                lines = answer.headers.get("content-type", "").lower().startswith(LINES)
                meter = Meter(events=is_events(answer), limit=limit, strip=strip, lines=lines)
                allowance.counting = lambda meter=meter: meter.tokens
                try:
                    await pass_counted(exchange, answer, meter, own_headers=own_headers, begin=begin)
                finally:
                    allowance.used, allowance.unseen = meter.tokens, meter.unseen
                return
        except Refused as refused:
            if refused.code == "upstream_unreachable":
                allowance.unseen = 0
            if not (is_changed and isinstance(refused, BrokenEarly)):
                raise


async def _begin_of(answer: aiohttp.ClientResponse, *, limit: int) -> bytes | None:
    """The first bytes of the answer to a request for a stream, up to its first chunk or comment; None for an error."""
    received, begin = Payloads(limit=limit), b""
    while data := await answer.content.readany():
        begin += data
        if not is_events(answer):
            break
        try:
            if any(not read(payload).is_foreign for payload in received.of(data)) or received.comments():
                return begin
        except Unusable:
            return None
        if received.done or len(begin) > limit:
            break
    if is_events(answer):
        # Nothing in it is a chunk: where it ends, its last event may be an error in any words.
        return begin if len(begin) > limit else None
    if begin.lstrip().startswith((b"{", b"<")):
        try:
            return await usable_body(answer, begin, limit=limit)
        except RequestRefused:
            return None
    return begin


async def pass_counted(
    exchange: Exchange, answer: aiohttp.ClientResponse, meter: Meter, *, own_headers: RawHeaders, begin: bytes = b""
) -> None:
    """Send the upstream's answer to the client and count its tokens; `begin`: bytes of it that were read already."""
    # The usage may be taken out of a stream, which then has another length.
    headers = [pair for pair in headers_of(answer) if not (is_events(answer) and pair[0] == b"content-length")]
    await begin_answer(exchange, answer, [*headers, *own_headers])
    if passed := meter.feed(begin):
        await exchange.write(passed)
    async for data in answer.content.iter_any():
        if passed := meter.feed(data):
            await exchange.write(passed)
    await exchange.end(meter.end())
