"""Bytes through, untouched."""

from __future__ import annotations

import aiohttp

from justenough.gateway.exchange import Exchange, RawHeaders, Refused, end_to_end
from justenough.gateway.upstream.client import Body, Upstream


async def relay(exchange: Exchange, upstream: Upstream, body: Body, *, said: RawHeaders) -> None:
    """Pass a request on and its answer back; `said` are headers of ours beside the upstream's."""
    length = exchange.header(b"content-length")
    try:
        async with upstream.open(
            exchange.method, exchange.target, headers=exchange.headers, body=body, length=length
        ) as answer:
            await pass_back(exchange, answer, said=said)
    except Refused as refused:
        # Where the body's own end was what broke the request, that is what went wrong.
        raise exchange.failure or refused from refused


async def pass_back(
    exchange: Exchange, answer: aiohttp.ClientResponse, *, said: RawHeaders, begun: bytes = b""
) -> None:
    """The upstream's answer to the client as its bytes come in; `begun` are those that were read before."""
    await exchange.start(answer.status, [*end_to_end(answer.raw_headers), *said])
    if begun:
        await exchange.write(begun)
    async for data in answer.content.iter_any():
        await exchange.write(data)
    await exchange.end()


async def fail(exchange: Exchange, refused: Refused) -> None:
    """End an answer that cannot be finished: as an error, as an error event, or by breaking off as the upstream did."""
    if not exchange.started:
        await exchange.refuse(refused)
    elif exchange.events and not exchange.ended:
        # The blank lines end an event of which only half had come.
        await exchange.end(b"\n\n" + refused.event)
