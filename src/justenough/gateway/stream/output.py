"""The answer to a client: a stream of events, or one JSON object that is merged from the events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

import msgspec

from justenough.gateway.exchange import Exchange, RawHeaders, end_to_end
from justenough.gateway.place import Kind
from justenough.gateway.stream.edits import end_offset, first_offset, with_offsets
from justenough.gateway.stream.events import decoded, malformed
from justenough.gateway.stream.merge import Merged
from justenough.trace import Json
from justenough.wire.chunks import NO_FINISH
from justenough.wire.events import payload_of

HEADER: Final = b"x-justenough"
MOST_AHEAD: Final = 4 << 20
"""Bytes that may wait for a slow client before reading from the upstream pauses."""
_FIRST: Final = frozenset(("id", "created"))
"""Members of a chunk of which the first value counts that is not empty. Of all others, the last one counts."""
_BOUND_TO_BODY: Final = frozenset((b"content-length", b"content-type", b"content-encoding", b"cache-control"))


class EventOutput:
    """Server-sent events. An output takes the headers, then the events, then the end.

    The headers wait for the first bytes: if the upstream begins with an error, the request can still be repeated. While
    the client reads slowly, events wait here, so that decisions do not wait for the client.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._headers: RawHeaders | None = None
        """Headers that are not sent yet."""
        self._waiting: list[bytes] = []
        self._size = 0
        """Bytes that wait."""
        self._writer: asyncio.Task[None] | None = None
        """Sends what waits; None while nothing waits."""
        self._room = asyncio.Event()

    async def begin(self, headers: RawHeaders, report: bytes) -> None:
        """Take the upstream's headers; `report` is the value of the gateway's own header."""
        fields = [pair for pair in end_to_end(headers) if pair[0] not in (b"content-length", b"content-encoding")]
        self._headers = [*fields, (HEADER, report)]

    def send(self, payloads: Sequence[bytes]) -> Awaitable[None]:
        """Send events, at least one; each payload is the bytes of a JSON object."""
        return self.pass_on(b"data: %b\n\n" % b"\n\ndata: ".join(payloads))

    def pass_on(self, event: bytes) -> Awaitable[None]:
        """Send an event's bytes."""
        if self._headers is None and self._writer is None and not self._exchange.is_behind:
            return self._exchange.write(event)
        return self._send_later(event)

    async def keep_alive(self, comments: bytes) -> None:
        """Send comments; the upstream sends them to keep a silent connection alive."""
        await self.pass_on(comments)

    async def end(self, header: bytes, report: dict[str, Json]) -> None:
        """Send the end of the stream."""
        await self._end(b"data: [DONE]\n\n")

    async def _end(self, data: bytes) -> None:
        await self._start()
        await self.flush()
        await self._exchange.end(data)

    async def flush(self) -> None:
        """Send what waits."""
        if self._writer is not None:
            await self._writer

    def close(self) -> None:
        """Drop what waits; the client has left, or has got everything."""
        if self._writer is not None:
            self._writer.cancel()

    async def _start(self) -> None:
        if (headers := self._headers) is not None:
            self._headers = None
            await self._exchange.start(200, headers)
            # An error can follow as an event, whatever the content type.
            self._exchange.events = True

    async def _send_later(self, event: bytes) -> None:
        await self._start()
        if self._writer is None:
            if not self._exchange.is_behind:
                await self._exchange.write(event)
                return
            self._writer = asyncio.ensure_future(self._write())
        writer = self._writer
        self._waiting.append(event)
        self._size += len(event)
        while self._size > MOST_AHEAD and not writer.done():
            self._room.clear()
            await self._room.wait()
        if writer.done():
            # It may have failed.
            writer.result()

    async def _write(self) -> None:
        try:
            while self._waiting:
                events, self._waiting = self._waiting, []
                for event in events:
                    await self._exchange.write(event)
                    self._size -= len(event)
                    self._room.set()
        finally:
            self._writer = None
            self._room.set()


class WholeOutput:
    """One JSON object, for clients that do not stream. It has the methods of `EventOutput`."""

    def __init__(self, exchange: Exchange, kind: Kind, *, limit: int) -> None:
        """`limit`: largest total size of the events in bytes."""
        self._exchange = exchange
        self._chat = kind == "chat"
        self._left = limit
        self._headers: RawHeaders = []
        self._whole: dict[str, Json] = {}
        self._choices: dict[int, _Choice] = {}
        """The alternatives by their index. A server can send several although the request wants one."""

    async def begin(self, headers: RawHeaders, report: bytes) -> None:
        """Keep the headers for the end."""
        self._headers = [pair for pair in end_to_end(headers) if pair[0] not in _BOUND_TO_BODY]

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Add events to the answer; raises `Refused` if it becomes too large."""
        for payload in payloads:
            self._left -= len(payload)
            if self._left < 0:
                raise malformed("its answer is too large for one JSON object")
            if payload.lstrip().startswith(b"{"):
                # Other events bring nothing to an answer in one piece.
                self._add(decoded(payload))

    async def pass_on(self, event: bytes) -> None:
        """Add an event's payload."""
        await self.send([payload_of(event)])

    async def keep_alive(self, comments: bytes) -> None:
        """Drop the comments: the answer is one JSON object."""

    async def flush(self) -> None:
        """Do nothing: an answer in one piece is sent at its end."""

    def close(self) -> None:
        """Do nothing: nothing is being sent."""

    async def end(self, header: bytes, report: dict[str, Json]) -> None:
        """Send the answer with the last report: the upstream counts its tokens after the event that ends the text."""
        if "justenough" in self._whole:
            self._whole["justenough"] = report
        body = msgspec.json.encode(self.whole())
        await self._exchange.answer(200, body, headers=[*self._headers, (HEADER, header)])

    def whole(self) -> dict[str, Json]:
        """The answer merged from the events."""
        kind = "chat.completion" if self._chat else "text_completion"
        choices = [choice for _, choice in sorted(self._choices.items())] or [_Choice(0)]
        return self._whole | {"object": kind, "choices": [choice.whole(chat=self._chat) for choice in choices]}

    def _add(self, chunk: Json) -> None:
        if not isinstance(chunk, dict) or not ("choices" in chunk or "usage" in chunk):
            # A sign of life, or words about the queue, are no part of the answer.
            return
        rows = chunk.pop("choices", None)
        report = chunk.pop("justenough", None)
        whole = self._whole
        self._whole |= {
            key: value
            for key, value in chunk.items()
            if key not in whole or (not whole[key] if key in _FIRST else value not in (None, ""))
        }
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict):
                index = row.get("index")
                # Anything else is damage, and belongs to the first one.
                place = index if type(index) is int and index >= 0 else 0
                choice = self._choices.setdefault(place, _Choice(place))
                if choice.add(dict(row)):
                    # The gateway's own report is only in this event; elsewhere the member belongs to the upstream.
                    self._whole["justenough"] = report


class _Choice:
    """One alternative, merged from the rows of the events."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._members = Merged(joins=False)
        self._message = Merged()
        self._logprobs: dict[str, Json] | None = None

    def add(self, row: dict[str, Json]) -> bool:
        """Add the next row; returns whether it ends the alternative."""
        finish = row.get("finish_reason")
        if finish is not None and (not isinstance(finish, str) or finish in NO_FINISH):
            finish = row["finish_reason"] = None
        # Some servers call the next piece `message`; others send the whole message so far beside the piece.
        delta, message = row.pop("delta", None), row.pop("message", None)
        part = message if delta is None else delta
        if isinstance(part, dict):
            self._message.add(part)
        logprobs = row.pop("logprobs", None)
        if isinstance(logprobs, dict):
            self._lengthen(logprobs)
        self._members.add(row)
        return finish is not None

    def whole(self, *, chat: bool) -> dict[str, Json]:
        """The alternative so far."""
        choice: dict[str, Json] = {"index": self._index, "finish_reason": None}
        choice |= {} if chat else {"text": ""}
        choice |= {key: value for key, value in self._members.whole().items() if key != "index"}
        if self._logprobs is not None:
            choice["logprobs"] = self._logprobs
        if chat:
            empty: dict[str, Json] = {"role": "assistant", "content": None}
            choice["message"] = empty | self._message.whole()
        return choice

    def _lengthen(self, part: dict[str, Json]) -> None:
        """Add log-probabilities: lists with one entry for each token."""
        if self._logprobs is None:
            self._logprobs = part
            return
        if (end := end_offset(self._logprobs)) > first_offset(part):
            # This server begins anew with each event.
            part = with_offsets(part, end)
        for key, value in part.items():
            earlier = self._logprobs.get(key)
            if isinstance(earlier, list) and isinstance(value, list):
                earlier.extend(value)
            elif value is not None:
                self._logprobs[key] = value


Output = EventOutput | WholeOutput
