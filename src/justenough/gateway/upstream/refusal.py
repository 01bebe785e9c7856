"""What came instead of the stream asked for: the upstream's own answer, or its refusal of log-probabilities."""

from __future__ import annotations

from typing import Final

import aiohttp

from justenough.gateway.exchange import Exchange
from justenough.gateway.request import Asked
from justenough.gateway.serve.relay import pass_back

_MOST: Final = 1 << 20
"""Bytes of an error that are looked at: who refuses says so at once."""


class LogprobsRefused(Exception):
    """The upstream does not take the request because of the log-probabilities that we want."""


async def pass_unless_refused(exchange: Exchange, answer: aiohttp.ClientResponse, asked: Asked) -> None:
    """Pass an answer back as it is; raises `LogprobsRefused` where it is about what only we have asked for."""
    begun = b""
    if answer.status in (400, 422) and not (asked.logprobs or asked.top_logprobs):
        async for data in answer.content.iter_any():
            begun += data
            if len(begun) > _MOST:
                break
        if b"logprob" in begun.lower():
            raise LogprobsRefused
    reason = b"error" if answer.status >= 400 else b"not_streamed"
    await pass_back(exchange, answer, own_headers=[(b"x-justenough", b"relayed; reason=" + reason)], first=begun)
