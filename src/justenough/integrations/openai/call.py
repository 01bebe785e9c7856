"""One request of the user's client through the gateway's service in this process."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import MutableMapping
from typing import Any, Final

from justenough.gateway.app.front import Front
from justenough.gateway.exchange import Exchange, RawHeaders, Refused, Scope
from justenough.gateway.place import place_of
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings
from justenough.integrations.openai.upstream import REQUEST, Failed, Sender, ThroughClient

_AHEAD: Final = 64
"""Chunks of an answer that may wait for the user."""


class Gate:
    """The gateway's service in this process: one for each event loop that uses it."""

    def __init__(self, settings: GatewaySettings, sender: Sender) -> None:
        self.sender = sender
        self._settings = settings
        self._base: Any = sender.http.URL(settings.upstream)
        self._services: dict[asyncio.AbstractEventLoop, Service] = {}

    def takes(self, request: Any) -> bool:
        """Whether a request may be gated: a completion at the address of the client that was given."""
        url, base = request.url, self._base
        same = (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)
        if request.method != "POST" or not same or not url.path.startswith(base.path.rstrip("/") + "/"):
            return False
        return place_of(url.path, _target(request)) is not None

    async def call(self, request: Any, body: bytes) -> Call:
        """Send a request through the service; raises what the user's HTTP client raises."""
        loop = asyncio.get_running_loop()
        if loop not in self._services:
            # A service is useless after the end of its loop. Other threads may change the dictionary now.
            for ended in [each for each in list(self._services) if each.is_closed()]:
                self._services.pop(ended, None)
            upstream = ThroughClient(self._settings, self.sender)
            self._services[loop] = service = Service(self._settings, upstream=upstream, probes_at_start=False)
            await service.__aenter__()
        call = Call(Front(self._services[loop]), request, body, broken=self.sender.http.RemoteProtocolError)
        await call.begin()
        return call

    async def close(self) -> None:
        """End this loop's service."""
        if (service := self._services.pop(asyncio.get_running_loop(), None)) is not None:
            await service.__aexit__()


def _target(request: Any) -> str:
    target: bytes = request.url.raw_path
    return target.decode("latin-1")


class _Exchange(Exchange):
    """An exchange that keeps the error of the user's HTTP client, instead of answering with a status."""

    original: Exception | None = None

    async def fail(self, refused: Refused) -> None:
        """End an answer that cannot be finished."""
        if isinstance(refused, Failed):
            self.original = refused.original
        else:
            await super().fail(refused)


class Call:
    """A request and its answer."""

    def __init__(self, front: Front, request: Any, body: bytes, *, broken: type[Exception]) -> None:
        """`broken`: the error of an answer that breaks off."""
        target, _, query = _target(request).encode("latin-1").partition(b"?")
        headers = [(key.lower(), value) for key, value in request.headers.raw]
        scope: Scope = {"method": request.method, "path": request.url.path, "raw_path": target, "headers": headers}
        scope["query_string"] = query
        self.status = 0
        self.headers: RawHeaders = []
        self._front, self._body, self._broken = front, body, broken
        self._request = request
        self._exchange = _Exchange(scope, self._receive, self._send, max_body_bytes=len(body) + 1, timeout_s=1.0)
        self._received = False
        self._begun, self._left = asyncio.Event(), asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_AHEAD)
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Wait for the head of the answer."""
        context = contextvars.copy_context()
        context.run(REQUEST.set, self._request)
        self._task = asyncio.create_task(self._run(), context=context)
        try:
            await self._begun.wait()
        except asyncio.CancelledError:
            await self.leave()
            raise
        if self._exchange.original is not None:
            raise self._exchange.original
        if not self._exchange.started:
            raise self._broken("the request ended without an answer")

    async def read(self) -> bytes:
        """The next part of the body; empty at the end."""
        chunk = await self._chunks.get()
        if chunk is None:
            # The end stays in the queue for a second call.
            self._chunks.put_nowait(None)
            if not self._exchange.ended:
                raise self._exchange.original or self._broken("the upstream broke off its answer")
        return chunk or b""

    async def leave(self) -> None:
        """End the request; an answer that is not complete is stopped at the upstream."""
        self._left.set()
        while not self._chunks.empty():
            self._chunks.get_nowait()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            await self._front.answer(self._exchange)
        finally:
            self._begun.set()
            if not self._left.is_set():
                await self._chunks.put(None)

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": self._body}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
            self._begun.set()
        elif data := message["body"]:
            await self._chunks.put(data)
