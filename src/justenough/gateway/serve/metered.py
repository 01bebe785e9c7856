"""Bytes through, untouched, with an eye on how many tokens they are: for what is relayed under a token budget."""

from __future__ import annotations

import re
from typing import Final

import aiohttp

from justenough.errors import BackendRejected
from justenough.gateway.budgets import Allowance
from justenough.gateway.exchange import Exchange, RawHeaders, Refused, end_to_end
from justenough.gateway.serve.relay import pass_back
from justenough.gateway.stream.events import is_events, malformed
from justenough.gateway.upstream.client import Upstream
from justenough.wire import EventReader, is_empty, is_end, read_other_protocol

_END_OF_EVENT: Final = re.compile(rb"\r?\n\r?\n")
_READ_BY_US: Final = frozenset((b"accept-encoding", b"content-length"))


class Meter:
    """Counts the completion tokens of an answer that passes by."""

    def __init__(self, *, events: bool, limit: int, strip: bool = False) -> None:
        """`strip`: the stream's usage was asked for by us alone, and is not for the client."""
        self.counted: int | None = None
        """By the upstream's own count; None as long as it gives none."""
        self.pieces = 0
        """Pieces of text seen in a stream: each at least a token."""
        self._limit = limit
        self._reader = EventReader(limit=limit) if events else None
        self._strip = strip and events
        self._held: list[bytes] = []
        """Of an answer in one piece: all."""
        self._rest = bytearray()
        """Of a stream: the event that has not come to its end."""
        self._size = 0

    @property
    def tokens(self) -> int:
        """As many as are known of."""
        return max(self.pieces, self.counted or 0)

    def feed(self, data: bytes) -> bytes:
        """Take a piece; what of it is for the client. Raises `Refused` for an event that is too large."""
        if self._reader is None:
            self._size += len(data)
            if self._size <= self._limit:
                self._held.append(data)
            return data
        if not self._strip:
            self._events(self._reader, data)
            return data
        # What was looked at before is not looked at again, but for the beginning of an end.
        looked_at = max(0, len(self._rest) - 3)
        self._rest += data
        kept, begun = [], 0
        for end in _END_OF_EVENT.finditer(self._rest, looked_at):
            event = bytes(self._rest[begun : end.end()])
            begun = end.end()
            if not self._events(self._reader, event):
                kept.append(event)
        del self._rest[:begun]
        if len(self._rest) > self._limit:
            raise malformed("an event is too large")
        return b"".join(kept)

    def end(self) -> bytes:
        """The answer is whole; what was held back of it."""
        if self._reader is None and self._size <= self._limit:
            self._read(b"".join(self._held))
        return bytes(self._rest)

    def _events(self, reader: EventReader, data: bytes) -> bool:
        """Read events; whether the last one holds the usage and nothing else."""
        try:
            payloads = reader.feed_bytes(data)
        except BackendRejected as error:
            raise malformed("an event is too large") from error
        bare = False
        for payload in payloads:
            bare = not is_end(payload) and self._read(payload)
        return bare

    def _read(self, data: bytes) -> bool:
        event = read_other_protocol(data)
        if event is None:
            return False
        choices = event.choices or ()
        self.pieces += sum(choice.has_output for choice in choices)
        self.pieces += event.type.endswith(".delta") and not is_empty(event.delta)
        for usage in (event.usage, event.response.usage if event.response is not None else None):
            if usage is not None:
                count = usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
                self.counted = count if count is not None else self.counted
        return event.usage is not None and not choices and not event.type


async def relay_metered(
    exchange: Exchange,
    upstream: Upstream,
    body: bytes,
    *,
    said: RawHeaders,
    allowance: Allowance,
    limit: int,
    strip: bool = False,
) -> None:
    """Pass a request on and its answer back, and tell the allowance what was generated.

    A stream is counted as it comes. An answer in one piece whose client leaves before it is there has cost nobody
    knows how much: it counts as its whole limit.
    """
    headers = [pair for pair in exchange.headers if pair[0] not in _READ_BY_US]
    allowance.unseen = True
    try:
        async with upstream.open("POST", exchange.target, headers=headers, body=body) as answer:
            if answer.status >= 300:
                allowance.unseen = False
                await pass_back(exchange, answer, said=said)
                return
            await _passed(exchange, answer, said=said, allowance=allowance, limit=limit, strip=strip)
    except Refused as refused:
        if refused.code == "upstream_unreachable":
            allowance.unseen = False
        raise


async def _passed(
    exchange: Exchange,
    answer: aiohttp.ClientResponse,
    *,
    said: RawHeaders,
    allowance: Allowance,
    limit: int,
    strip: bool,
) -> None:
    events = is_events(answer)
    meter = Meter(events=events, limit=limit, strip=strip)
    allowance.unseen = not events
    await exchange.start(answer.status, [*end_to_end(answer.raw_headers), *said])
    async for data in answer.content.iter_any():
        passed = meter.feed(data)
        allowance.used = meter.tokens
        if passed:
            await exchange.write(passed)
    rest = meter.end()
    allowance.used = meter.tokens
    allowance.unseen = meter.counted is None and not events
    await exchange.end(rest)
