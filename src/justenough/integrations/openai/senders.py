"""The user's HTTP client as the gateway's service needs it: asynchronous, or synchronous in threads of its own."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, Final

from justenough.integrations.openai.upstream import is_decoded

_AHEAD: Final = 64
"""Chunks that a thread may read before they are taken."""


def library_of(client: object) -> ModuleType | None:
    """The library of an HTTP client: `httpx`, or `httpx2`, which newer versions of `openai` use; None: another one."""
    for kind in type(client).__mro__:
        if (name := kind.__module__.partition(".")[0]) in ("httpx", "httpx2"):
            return sys.modules[name]
    return None


class _AsyncReply:
    def __init__(self, head: Any, *, decode: bool) -> None:
        self.head = head
        self._decode = decode

    def chunks(self) -> AsyncIterator[bytes]:
        decode = is_decoded(self.head, decode=self._decode)
        chunks: AsyncIterator[bytes] = self.head.aiter_bytes() if decode else self.head.aiter_raw()
        return chunks

    async def leave(self) -> None:
        await self.head.aclose()


class AsyncSender:
    """An asynchronous client."""

    def __init__(self, client: Any, http: ModuleType) -> None:
        self.http = http
        self._client = client

    async def send(self, request: Any, *, decode: bool) -> _AsyncReply:
        """Send a request and wait for the head of its answer."""
        return _AsyncReply(await self._client.send(request, stream=True), decode=decode)


class SyncSender:
    """A synchronous client; each request has a thread."""

    def __init__(self, client: Any, http: ModuleType) -> None:
        self.http = http
        self._client = client

    async def send(self, request: Any, *, decode: bool) -> _Pump:
        """Send a request and wait for the head of its answer."""
        pump = _Pump(lambda: self._client.send(request, stream=True), decode=decode)
        try:
            await pump.begun
        except BaseException:
            pump.stop()
            raise
        return pump


class OwnThread(threading.Thread):
    """A thread of this package. It does not keep Python alive, and must not wait for the service, which may need it."""


class _Pump:
    """A thread that sends a request and reads its answer."""

    def __init__(self, send: Callable[[], Any], *, decode: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = self._loop.create_future()
        """Done when the head of the answer has arrived."""
        self._ended = asyncio.Event()
        """Set when the answer is closed."""
        self.head: Any = None
        self._decode = decode
        self._chunks: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._left = threading.Event()
        OwnThread(target=self._run, args=(send,), daemon=True, name="justenough-upstream").start()

    async def chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._chunks.get():
            if isinstance(chunk, Exception):
                raise chunk
            self._room.release()
            yield chunk

    async def leave(self) -> None:
        if self.stop():
            await self._ended.wait()

    def stop(self) -> bool:
        """Make the thread close the answer; returns whether it certainly does this at once."""
        self._left.set()
        self._room.release()
        if self._ended.is_set() or self.head is None:
            return False
        if self.head.is_closed:
            # Its connection may belong to another request already.
            return True
        stream = self.head.extensions.get("network_stream")
        # A connection of HTTP/2 has other streams too, so it is left when the next chunk arrives.
        raw = stream.get_extra_info("socket") if stream is not None and self.head.http_version != "HTTP/2" else None
        if not isinstance(raw, socket.socket):
            return False
        # Closing a socket does not wake a thread that reads from it. The base class's method leaves TLS alone.
        with suppress(OSError):
            socket.socket.shutdown(raw, socket.SHUT_RDWR)
        return True

    def _run(self, send: Callable[[], Any]) -> None:
        last: bytes | Exception = b""
        try:
            self.head = send()
            try:
                self._post(self._begin)
                decode = is_decoded(self.head, decode=self._decode)
                chunks = self.head.iter_bytes() if decode else self.head.iter_raw()
                while not self._left.is_set() and (chunk := next(chunks, None)) is not None:
                    if chunk:
                        self._room.acquire()
                        self._post(self._chunks.put_nowait, chunk)
            finally:
                self.head.close()
        except Exception as error:  # noqa: BLE001
            # Whatever the client or its hooks raise belongs to the task that waits for this thread.
            last = error
        self._post(self._end, last)

    def _begin(self, error: Exception | None = None) -> None:
        if not self.begun.done():
            if error is None:
                self.begun.set_result(None)
            else:
                self.begun.set_exception(error)

    def _end(self, last: bytes | Exception) -> None:
        self._begin(last if isinstance(last, Exception) else None)
        self._chunks.put_nowait(last)
        self._ended.set()

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        # After the loop has ended nobody waits for this thread.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)
