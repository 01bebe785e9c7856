"""The gateway's upstream, reached through the user's own HTTP client with its proxies, certificates and timeouts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.client import Body, Upstream

if TYPE_CHECKING:
    import aiohttp

REQUEST: Final[ContextVar[Any]] = ContextVar("REQUEST")
"""The user's request that is served now, with its timeouts and its query."""


class Reply(Protocol):
    """An answer of the user's HTTP client."""

    @property
    def head(self) -> Any:
        """The library's own response, whose body `chunks` reads."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""

    async def leave(self) -> None:
        """Close the answer, and its connection unless all of it was read."""


class Sender(Protocol):
    """The user's HTTP client."""

    http: ModuleType
    """Its library: `httpx` or `httpx2`."""

    async def send(self, request: Any, *, decode: bool) -> Reply:
        """Send a request and wait for the head of its answer."""


class Failed(Refused):
    """The user's HTTP client failed; `original` is its error."""

    def __init__(self, original: Exception) -> None:
        super().__init__(502, f"the upstream failed: {original}", code="upstream_broken")
        self.original = original


def is_decoded(head: Any, *, decode: bool) -> bool:
    """Whether the body of an answer is read without its compression.

    A hook of the user's client may have read the whole answer; then it is, whatever `decode` says.
    """
    return decode or bool(head.is_stream_consumed)


class _Content:
    """The body of an answer as the gateway reads it."""

    def __init__(self, chunks: AsyncIterator[bytes], *, undone: bool) -> None:
        self._chunks = chunks
        self.total_compressed_bytes = 0 if undone else None
        """The mark of a compression that was undone, as aiohttp sets it."""

    async def readany(self) -> bytes:
        """The bytes that have arrived; empty at the end."""
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""

    async def iter_any(self) -> AsyncIterator[bytes]:
        """All bytes as they arrive."""
        while data := await self.readany():
            yield data


class _Answer:
    """The part of aiohttp's answer that the gateway uses."""

    def __init__(self, reply: Reply, *, decode: bool) -> None:
        self.status: int = reply.head.status_code
        self.headers: Mapping[str, str] = reply.head.headers
        self.raw_headers: RawHeaders = reply.head.headers.raw
        undone = is_decoded(reply.head, decode=decode) and "content-encoding" in self.headers
        self.content = _Content(reply.chunks(), undone=undone)


class ThroughClient(Upstream):
    """Opens requests through the user's HTTP client."""

    def __init__(self, settings: GatewaySettings, sender: Sender) -> None:
        super().__init__(settings)
        self._sender = sender

    def headers_for_own_request(self, headers: RawHeaders) -> RawHeaders:
        """All headers of the user's request except those about its body: a proxy on the way may need any of them."""
        return [pair for pair in headers if not pair[0].startswith((b"content-", b"accept", b"idempotency-key"))]

    async def __aenter__(self) -> ThroughClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: the client belongs to the user."""

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        *,
        headers: RawHeaders,
        body: Body = None,
        length: str | None = None,
        decode: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; leaving the block closes its connection unless the whole answer was read.

        Raises `Failed`, also from within the block, where the client raises an error of its own.
        """
        http, user = self._sender.http, REQUEST.get()
        if "?" not in target and user.url.query:
            # Azure answers no request without the version in the query, not even the probe.
            target = f"{target}?{user.url.query.decode('latin-1')}"
        sent = self._headers(headers)
        if decode:
            sent["accept-encoding"] = "identity"
        content = body if isinstance(body, bytes | None) else b"".join([part async for part in body])
        fields = [(name.encode(), value.encode()) for name, value in sent.items()]
        request = http.Request(
            method, str(self.url(target)), headers=fields, content=content, extensions=dict(user.extensions)
        )
        self.open_requests += 1
        reply: Reply | None = None
        try:
            reply = await self._sender.send(request, decode=decode)
            yield cast("aiohttp.ClientResponse", _Answer(reply, decode=decode))
        except (http.HTTPError, http.StreamError, OSError) as error:
            raise Failed(error) from error
        finally:
            self.open_requests -= 1
            if reply is not None:
                await reply.leave()
