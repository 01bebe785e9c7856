"""Relays a request and its answer without changing their bytes; tells refusals of what the gateway changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec

from justenough.gateway.exchange import Exchange, RawHeaders, Refused
from justenough.gateway.stream.events import decoded, is_events, one_line
from justenough.gateway.upstream.client import Body, Upstream, headers_of
from justenough.gateway.upstream.compression import is_compressed
from justenough.wire.chunks import error_message, is_empty
from justenough.wire.values import ABSENT, read_or_none

_LONGEST: Final = 1 << 20
"""Bytes of an answer that are searched for an error."""
_TEMPORARY: Final = frozenset((408, 429, 502, 503, 504))
"""Statuses that are not about the members of a request, unless the words say so."""


async def relay(exchange: Exchange, upstream: Upstream, body: Body, *, own_headers: RawHeaders) -> None:
    """Relay a request and its answer; `own_headers` are added to the upstream's."""
    length, goes_on = exchange.header(b"content-length"), exchange.started
    # A stream that goes on has begun without a compression.
    headers = exchange.headers_for_new_body if goes_on else exchange.headers
    try:
        async with upstream.open(
            exchange.method, exchange.target, headers=headers, body=body, length=length, decode=goes_on
        ) as answer:
            await pass_back(exchange, answer, own_headers=own_headers)
    except Refused as refused:
        # An error in reading the client's body breaks the request too, and is the real reason.
        raise exchange.failure or refused from refused


async def pass_back(exchange: Exchange, answer: aiohttp.ClientResponse, *, own_headers: RawHeaders) -> None:
    """Send the upstream's answer to the client as it arrives."""
    await begin_answer(exchange, answer, [*headers_of(answer), *own_headers])
    async for data in answer.content.iter_any():
        await exchange.write(data)
    await exchange.end()


async def begin_answer(exchange: Exchange, answer: aiohttp.ClientResponse, headers: RawHeaders) -> None:
    """Send status and headers.

    If comments have begun the stream, another stream goes on there, and any other answer is an error in it: raises
    `Refused` with its body, if that is JSON.
    """
    if not exchange.started:
        await exchange.start(answer.status, headers)
    elif answer.status != 200 or not is_events(answer):
        said = one_line(await _read(answer, b"", limit=_LONGEST))
        body = said if read_or_none(said, dict[str, msgspec.Raw]) is not None else None
        raise Refused(502, "the upstream refused the request", code="upstream_broken", body=body)


class RequestRefused(Exception):
    """The upstream refused a request that the gateway changed, or its answer cannot be used.

    At most comments were sent to the client, so its own request can be sent.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.names_logprobs = b"logprob" in body.lower()
        """Whether the upstream says that log-probabilities are the reason."""
        self.is_lasting = self.names_logprobs or status not in _TEMPORARY
        """Whether the same request would probably be refused again."""


async def usable_body(answer: aiohttp.ClientResponse, begin: bytes, *, limit: int) -> bytes:
    """An answer in one piece, up to `limit` bytes; `begin`: its first bytes, if they were read already.

    Raises `RequestRefused` for an answer that the client cannot use: an error, whatever its status, an answer without a
    choice, a page of HTML, or one with a compression that nobody wanted.
    """
    if is_compressed(answer):
        raise RequestRefused(answer.status, b"")
    begin = begin or await answer.content.readany()
    is_ok = 200 <= answer.status < 300
    # Some servers send blank lines before the answer, to keep the connection alive.
    limit = limit if is_ok and begin.lstrip()[:1] in (b"", b"{") else _LONGEST
    body = await _read(answer, begin, limit=limit)
    value = read_or_none(body, dict[str, msgspec.Raw])
    if not is_ok or (value is not None and (_is_error(value) or is_empty(value.get("choices", ABSENT)))):
        raise RequestRefused(answer.status, body)
    if value is None and (len(body) < limit or not body.lstrip().startswith(b"{")):
        raise RequestRefused(502, b"")
    return body


async def _read(answer: aiohttp.ClientResponse, begin: bytes, *, limit: int) -> bytes:
    """The rest of an answer behind its first bytes, up to `limit` bytes."""
    parts, size = [begin], len(begin)
    while size < limit and (data := await answer.content.readany()):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _is_error(members: Mapping[str, msgspec.Raw]) -> bool:
    # The choices are long, and are no error.
    return error_message({key: None if key == "choices" else decoded(raw) for key, raw in members.items()}) is not None
