"""Events of an upstream's stream, read with every way that they can be wrong made one error."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import aiohttp
import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.chunk import Chunk, read_chunk
from justenough.gateway.exchange import EVENTS, Refused
from justenough.wire import DONE, EventReader

_DONE: Final = DONE.encode()


def is_events(answer: aiohttp.ClientResponse) -> bool:
    """Whether the answer is a stream of server-sent events."""
    return answer.headers.get("content-type", "").lower().encode().startswith(EVENTS)


async def batches(answer: aiohttp.ClientResponse, *, limit: int) -> AsyncGenerator[list[bytes], None]:
    """Payloads of the events as they arrive, valid UTF-8, those that came together in one list; raises `Refused`."""
    reader = EventReader(limit=limit)
    async for data in answer.content.iter_any():
        try:
            payloads = reader.feed_bytes(data)
        except BackendRejected as error:
            raise malformed("an event is too large") from error
        if payloads:
            yield [_utf8(payload) for payload in payloads if payload != _DONE]


def _utf8(payload: bytes) -> bytes:
    """The same with U+FFFD for what is no UTF-8."""
    return payload if payload.isascii() else payload.decode("utf-8", errors="replace").encode()


def read(payload: str | bytes) -> Chunk:
    """One chunk; raises `Refused` for what is none, with the upstream's own words where it says what is wrong."""
    try:
        chunk = read_chunk(payload)
    except msgspec.MsgspecError as error:
        raise malformed("it sent something that is no chunk") from error
    if chunk.error and bytes(chunk.error) != b"null":
        body = payload if isinstance(payload, bytes) else payload.encode()
        raise malformed("it sent an error", code="upstream_error", body=body)
    return chunk


def malformed(how: str, *, code: str = "upstream_malformed", body: bytes | None = None) -> Refused:
    """The upstream does not keep to the protocol."""
    return Refused(502, f"the upstream's stream cannot be used: {how}", code=code, kind="upstream_error", body=body)


def unfinished() -> Refused:
    """A stream that stopped coming: a short answer must not pass for a whole one."""
    return Refused(502, "the upstream ended its stream without an end", code="upstream_broken", kind="upstream_error")
