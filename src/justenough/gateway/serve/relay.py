"""Relays a request and its answer without changing their bytes."""

from __future__ import annotations

import aiohttp

from justenough.gateway.exchange import Exchange, RawHeaders, Refused, end_to_end
from justenough.gateway.upstream.client import Body, Upstream


async def relay(exchange: Exchange, upstream: Upstream, body: Body, *, own_headers: RawHeaders) -> None:
    """Relay a request and its answer; `own_headers` are added to the upstream's."""
    length = exchange.header(b"content-length")
    try:
        async with upstream.open(
            exchange.method, exchange.target, headers=exchange.headers, body=body, length=length
        ) as answer:
            await pass_back(exchange, answer, own_headers=own_headers)
    except Refused as refused:
        # An error in reading the client's body breaks the request too, and is the real reason.
        raise exchange.failure or refused from refused


async def pass_back(
    exchange: Exchange, answer: aiohttp.ClientResponse, *, own_headers: RawHeaders, first: bytes = b""
) -> None:
    """Send the upstream's answer to the client as it arrives; `first` are bytes of it that were read before."""
    await exchange.start(answer.status, [*end_to_end(answer.raw_headers), *own_headers])
    if first:
        await exchange.write(first)
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
