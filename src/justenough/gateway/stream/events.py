"""Reads the events of an upstream's stream; every mistake in them becomes a `Refused`."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, cast

import aiohttp
import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.exchange import EVENTS, Refused
from justenough.gateway.upstream.compression import is_compressed
from justenough.trace import Json
from justenough.wire.chunks import Chunk, is_empty, is_error_object
from justenough.wire.events import EventReader, is_end
from justenough.wire.lenient import read_chunk
from justenough.wire.values import read_json, read_or_none

KeepAlive = Callable[[bytes], Awaitable[None]]
"""Takes comments; an upstream sends them to keep a silent connection alive."""


_LINGER_S: Final = 0.1
_EVENT_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:")
"""How a stream of events begins, after blank lines and comments."""
_SILENT: Final = re.compile(rb"(?:\xef\xbb\xbf)?+(?:[\r\n]|:[^\r\n]*+[\r\n])*+")
"""A byte order mark, blank lines and comments: other texts can begin with a colon too."""
_LONGEST_BEGIN: Final = 1 << 16
"""Bytes of blank lines and comments after which an answer is no stream."""


def is_events(answer: aiohttp.ClientResponse) -> bool:
    """Whether the answer is a stream of server-sent events that can be read."""
    return answer.headers.get("content-type", "").lower().encode().startswith(EVENTS) and not is_compressed(answer)


class BegunAnswer:
    """An answer whose first bytes were read already, in the form of aiohttp's answers."""

    def __init__(self, answer: aiohttp.ClientResponse, begin: bytes) -> None:
        self.raw_headers = answer.raw_headers
        self.content = self
        self._answer, self._begin = answer, begin

    async def readany(self) -> bytes:
        """The bytes that have arrived; empty at the end."""
        begin, self._begin = self._begin, b""
        return begin or await self._answer.content.readany()


async def stream_of(answer: aiohttp.ClientResponse) -> tuple[aiohttp.ClientResponse | None, bytes]:
    """The answer if it is a stream of events, whatever its content type; otherwise None and its first bytes."""
    if answer.status != 200 or is_compressed(answer):
        return None, b""
    if is_events(answer):
        return answer, b""
    begin = b""
    while len(begin) < _LONGEST_BEGIN and (data := await answer.content.readany()):
        begin += data
        word = _SILENT.sub(b"", begin, count=1)
        if word.startswith(_EVENT_STARTS):
            return cast("aiohttp.ClientResponse", BegunAnswer(answer, begin)), b""
        may_be_comment = word.startswith(b":")
        if not (may_be_comment or any(start.startswith(word) for start in (*_EVENT_STARTS, codecs.BOM_UTF8))):
            break
    return None, begin


class Payloads:
    """Reads payloads from the bytes of a stream, however they are split; each is one line of valid UTF-8."""

    def __init__(self, *, limit: int) -> None:
        """`limit`: bytes of one event."""
        self.done = False
        """Whether the stream's end has come; nothing after it is read."""
        self._reader = EventReader(limit=limit, comments=True)
        self._limit = limit

    def may_be_one(self, data: bytes) -> bool:
        """Whether these bytes begin an event and are few enough to be one."""
        return self._reader.between and len(data) <= self._limit

    def of(self, data: bytes) -> list[bytes]:
        """The payloads that these bytes complete, without empty ones and the stream's end; raises `Refused`.

        No bytes are the end of the connection. They complete a last event without a blank line, if it is JSON.
        """
        try:
            payloads = self._reader.feed_bytes(data or b"\n\n")
        except BackendRejected as error:
            raise malformed("an event is too large") from error
        lines: list[bytes] = []
        for payload in payloads:
            if payload.startswith(b"{") or (payload.strip() and not is_end(payload)):
                lines.append(one_line(payload))
            elif payload.strip():
                self.done = True
                break
        return lines if data else [line for line in lines if read_or_none(line, dict[str, msgspec.Raw]) is not None]

    def comments(self) -> bytes:
        """The comments since the last call, as events."""
        return self._reader.take_comments()


async def batches(
    answer: aiohttp.ClientResponse, received: Payloads, *, keep_alive: KeepAlive | None = None
) -> AsyncGenerator[list[bytes], None]:
    """Payloads of the events; those that arrive together are in one list. Raises `Refused`.

    `received` reads them; `keep_alive` gets the comments.
    """
    data = b" "
    while data and not received.done:
        data = await answer.content.readany()
        payloads = received.of(data)
        if (comments := received.comments()) and keep_alive is not None:
            await keep_alive(comments)
        if payloads:
            yield payloads
    if received.done:
        await drained(answer)


async def drained(answer: aiohttp.ClientResponse) -> None:
    """Read the end of an answer after the last event, so that its connection can be used again.

    A server that keeps it open is left after a moment, and one that breaks off now has sent everything.
    """
    with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
        async with asyncio.timeout(_LINGER_S):
            while await answer.content.readany():
                pass


async def ended(answer: aiohttp.ClientResponse, received: Payloads, *, finish: str | None, tokens: int) -> None:
    """Leave a stream after its last byte; raises `Refused` for one that has neither a finish reason nor an end."""
    if finish is None and not (received.done and tokens):
        raise unfinished() if tokens else Unusable("it is empty")
    if received.done:
        await drained(answer)


def one_line(payload: bytes) -> bytes:
    """The payload in one line, with U+FFFD for bytes that are not UTF-8; a line break in JSON is only a space."""
    if b"\n" in payload:
        payload = payload.replace(b"\n", b" ")
    return payload if payload.isascii() else payload.decode("utf-8", errors="replace").encode()


class Unusable(Refused):
    """A stream cannot be used because of one of its events; an answer in one piece may still be usable."""

    def __init__(self, how: str, *, code: str = "upstream_malformed", body: bytes | None = None) -> None:
        message = f"the upstream's stream cannot be used: {how}"
        super().__init__(502, message, code=code, kind="upstream_error", body=body)


def read(payload: str | bytes, *, may_fail: bool = False) -> Chunk:
    """One chunk; raises `Unusable` if it is not JSON, or with the upstream's own body if it is an error.

    `may_fail`: whether an error as the reason for the end is an end like any other, because the client has begun to
    read and its API has such an end.
    """
    try:
        chunk = read_chunk(payload)
    except BackendRejected as error:
        raise Unusable("it sent something that is not JSON") from error
    choice = chunk.choice
    has_failed = choice is not None and choice.finish_reason == "error" and not (may_fail or choice.has_output)
    # Older vLLM has no member for an error within a stream.
    is_error = chunk.choices is None and chunk.usage is None and is_error_object(decoded(payload))
    if has_failed or is_error or not is_empty(chunk.error):
        body = payload if isinstance(payload, bytes) else payload.encode()
        raise Unusable("it sent an error", code="upstream_error", body=body)
    return chunk


def unread_bytes(refused: Refused, payloads: Sequence[bytes]) -> int:
    """Bytes of events that were not read because of this error; 0 if the first of them is an error itself."""
    return 0 if refused.code == "upstream_error" else sum(map(len, payloads))


def decoded(data: str | bytes | msgspec.Raw) -> Json:
    """A chunk, or a part of one, with all its members; raises `Unusable`."""
    try:
        return read_json(data)
    except BackendRejected as error:
        raise Unusable("it sent something that is not JSON") from error


def head_of(payload: bytes) -> dict[str, Json]:
    """The members that all chunks of an answer share; raises `Unusable`."""
    chunk = decoded(payload)
    members = chunk.items() if isinstance(chunk, dict) else ()
    return {key: value for key, value in members if key not in ("choices", "usage", "timings")}


def malformed(how: str) -> Refused:
    """The error for an answer that is too large."""
    message = f"the upstream's stream cannot be used: {how}"
    return Refused(502, message, code="upstream_malformed", kind="upstream_error")


def unfinished() -> Refused:
    """The error for a stream that ends too early; a part of an answer must not look complete."""
    return Refused(502, "the upstream ended its stream without an end", code="upstream_broken", kind="upstream_error")
