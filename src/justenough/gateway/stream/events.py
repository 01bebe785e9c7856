"""Events of an upstream's stream, read with every way that they can be wrong made one error."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, cast

import aiohttp
import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.exchange import EVENTS, UNREADABLE, Refused
from justenough.gateway.stream.chunk import Chunk, read_chunk
from justenough.trace import Json
from justenough.wire import DONE, EventReader

_DONE: Final = DONE.encode()
_NO_ERROR: Final = frozenset((b"", b"null", b"{}", b"[]", b'""', b"false", b"0"))
"""Members `error` that say nothing."""


def is_events(answer: aiohttp.ClientResponse) -> bool:
    """Whether the answer is a stream of server-sent events."""
    return answer.headers.get("content-type", "").lower().encode().startswith(EVENTS)


class Payloads:
    """Payloads out of a stream's bytes, however they are split, each one line of valid UTF-8."""

    def __init__(self, *, limit: int) -> None:
        """`limit`: bytes of one event."""
        self._reader = EventReader(limit=limit)
        self._limit = limit

    def may_be_one(self, data: bytes) -> bool:
        """Whether these bytes begin an event, and are not too many for one."""
        return self._reader.between and len(data) <= self._limit

    def of(self, data: bytes) -> list[bytes]:
        """Those that these bytes complete, but for the end's; raises `Refused`."""
        try:
            payloads = self._reader.feed_bytes(data)
        except BackendRejected as error:
            raise malformed("an event is too large") from error
        return [_line(payload) for payload in payloads if payload != _DONE]


async def batches(answer: aiohttp.ClientResponse, *, limit: int) -> AsyncGenerator[list[bytes], None]:
    """Payloads of the events as they arrive, those that came together in one list; raises `Refused`."""
    payloads = Payloads(limit=limit)
    while data := await answer.content.readany():
        if found := payloads.of(data):
            yield found


def _line(payload: bytes) -> bytes:
    """The same with U+FFFD for what is no UTF-8, and in one line: between JSON's tokens a break is but a space."""
    if b"\n" in payload:
        payload = payload.replace(b"\n", b" ")
    return payload if payload.isascii() else payload.decode("utf-8", errors="replace").encode()


def read(payload: str | bytes) -> Chunk:
    """One chunk; raises `Refused` for what is none, with the upstream's own words where it says what is wrong."""
    try:
        chunk = read_chunk(payload)
    except UNREADABLE as error:
        raise malformed("it sent something that is no chunk") from error
    if bytes(chunk.error) not in _NO_ERROR:
        body = payload if isinstance(payload, bytes) else payload.encode()
        raise malformed("it sent an error", code="upstream_error", body=body)
    return chunk


def decoded(data: bytes | msgspec.Raw) -> Json:
    """All of a chunk, or a part of one, what the gate does not look at included; raises `Refused`."""
    try:
        return cast("Json", msgspec.json.decode(data))
    except UNREADABLE as error:
        raise malformed("it sent something that is not JSON") from error


def head_of(payload: bytes) -> dict[str, Json]:
    """The members that every chunk of an answer shares; raises `Refused`."""
    first = decoded(payload)
    members = first.items() if isinstance(first, dict) else ()
    return {key: value for key, value in members if key not in ("choices", "usage", "timings")}


def malformed(how: str, *, code: str = "upstream_malformed", body: bytes | None = None) -> Refused:
    """The upstream does not keep to the protocol."""
    return Refused(502, f"the upstream's stream cannot be used: {how}", code=code, kind="upstream_error", body=body)


def unfinished() -> Refused:
    """A stream that stopped coming: a short answer must not pass for a whole one."""
    return Refused(502, "the upstream ended its stream without an end", code="upstream_broken", kind="upstream_error")
