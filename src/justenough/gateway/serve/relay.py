"""Relays a request and its answer without changing their bytes; tells refusals of what the gateway changed."""

from __future__ import annotations

from typing import Final

import aiohttp

from justenough.gateway.exchange import Exchange, RawHeaders, Refused
from justenough.gateway.upstream.client import Body, Upstream, headers_of

_LONGEST: Final = 1 << 20
"""Bytes of an error that are searched for its reason."""
_TEMPORARY: Final = frozenset((408, 429, 502, 503, 504))
"""Statuses that are not about the members of a request, unless the words say so."""


async def relay(exchange: Exchange, upstream: Upstream, body: Body, *, own_headers: RawHeaders) -> None:
    """Relay a request and its answer; `own_headers` are added to the upstream's."""
    length = exchange.header(b"content-length")
    try:
        async with upstream.open(
            exchange.method, exchange.target, headers=exchange.headers, body=body, length=length, decode=False
        ) as answer:
            await pass_back(exchange, answer, own_headers=own_headers)
    except Refused as refused:
        # An error in reading the client's body breaks the request too, and is the real reason.
        raise exchange.failure or refused from refused


async def pass_back(exchange: Exchange, answer: aiohttp.ClientResponse, *, own_headers: RawHeaders) -> None:
    """Send the upstream's answer to the client as it arrives."""
    await exchange.start(answer.status, [*headers_of(answer), *own_headers])
    async for data in answer.content.iter_any():
        await exchange.write(data)
    await exchange.end()


async def fail(exchange: Exchange, refused: Refused) -> None:
    """End an answer that cannot be finished: with an error, an error event, or a closed connection."""
    if not exchange.started:
        await exchange.refuse(refused)
    elif exchange.events and not exchange.ended:
        # The blank lines end an event of which only a part was sent.
        await exchange.end(b"\n\n" + refused.event)


class RequestRefused(Exception):
    """The upstream refused a request that the gateway changed; the client's own request may still be accepted."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.names_logprobs = b"logprob" in body.lower()
        """Whether the upstream says that log-probabilities are the reason."""
        self.is_lasting = self.names_logprobs or status not in _TEMPORARY
        """Whether the same request would probably be refused again."""


async def relay_or_raise(exchange: Exchange, answer: aiohttp.ClientResponse) -> None:
    """Relay an answer that is not a stream of events; raises `RequestRefused` for an error."""
    if answer.status >= 400:
        body = b""
        async for data in answer.content.iter_any():
            body += data
            if len(body) > _LONGEST:
                break
        raise RequestRefused(answer.status, body)
    await pass_back(exchange, answer, own_headers=[(b"x-justenough", b"relayed; reason=not_streamed")])
