"""Relays a request and its answer without changing their bytes; tells refusals of what the gateway changed."""

from __future__ import annotations

from typing import Final, cast

import aiohttp

from justenough.gateway.exchange import Exchange, RawHeaders, Refused
from justenough.gateway.upstream.client import Body, Upstream, headers_of
from justenough.trace import Json
from justenough.wire.chunks import error_message
from justenough.wire.values import read_or_none

_LONGEST: Final = 1 << 20
"""Bytes of an answer that are searched for an error."""
EVENT_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How a stream of events begins."""
_TEMPORARY: Final = frozenset((408, 429, 502, 503, 504))
"""Statuses that are not about the members of a request, unless the words say so."""
NOT_REPEATED: Final = _TEMPORARY | {401, 403, 404, 405}
"""Statuses with which a request with other members would be refused too."""


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


class RequestRefused(Exception):
    """The upstream refused a request that the gateway changed, or its answer cannot be used.

    Nothing was sent to the client, so its own request can be sent.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.names_logprobs = b"logprob" in body.lower()
        """Whether the upstream says that log-probabilities are the reason."""
        self.is_lasting = self.names_logprobs or status not in _TEMPORARY
        """Whether the same request would probably be refused again."""


async def usable_beginning(answer: aiohttp.ClientResponse, *, stream: bool) -> bytes:
    """The first bytes of an answer that is not declared as a stream of events; raises `RequestRefused`.

    It raises for an answer that the client cannot use. An error is never usable, whatever its status, nor is an answer
    without a choice or a page of HTML. `stream`: whether the client wants a stream.
    """
    ok = 200 <= answer.status < 300
    body = await answer.content.readany()
    if not (ok and stream and body.startswith(EVENT_STARTS)):
        # A stream of events under a wrong name must not wait.
        while len(body) < _LONGEST and (data := await answer.content.readany()):
            body += data
        value = read_or_none(body, dict[str, object])
        is_error = value is not None and error_message(cast("Json", value)) is not None
        is_json = value is not None or (len(body) >= _LONGEST and body.lstrip().startswith(b"{"))
        if not ok or is_error or (value is not None and not value.get("choices")):
            raise RequestRefused(answer.status, body)
        if not is_json:
            raise RequestRefused(502, b"")
    return body
