"""Answers other than the requested stream: the upstream's own answer, or a refusal of what the gateway changed."""

from __future__ import annotations

from typing import Final

import aiohttp

from justenough.gateway.exchange import Exchange
from justenough.gateway.serve.relay import pass_back

_LONGEST: Final = 1 << 20
"""Bytes of an error that are searched for its reason."""
_TEMPORARY: Final = frozenset((408, 429, 502, 503, 504))
"""Statuses that are not about the members of a request, unless the words say so."""


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
