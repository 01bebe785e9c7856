"""Transports that send completions through the gate, and everything else to the user's HTTP client untouched."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

from justenough.integrations.openai.call import Call, Gate

T = TypeVar("T")


class AsyncGated:
    """The transport of an asynchronous client. It is mixed with the base class of the client's library."""

    def __init__(self, gate: Gate, client: Any) -> None:
        self._gate = gate
        self._client = client
        self._stream = type("AsyncStream", (_AsyncStream, gate.sender.http.AsyncByteStream), {})

    async def handle_async_request(self, request: Any) -> object:
        """Answer a request."""
        if not self._gate.takes(request):
            return await self._client.send(request, stream=True)
        call = await self._gate.call(request, await request.aread())
        return self._gate.sender.http.Response(call.status, headers=call.headers, stream=self._stream(call))

    async def aclose(self) -> None:
        """End the service and close the user's client."""
        await self._gate.close()
        await self._client.aclose()


class _AsyncStream:
    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._call.read():
            yield data

    async def aclose(self) -> None:
        await self._call.leave()


class SyncGated:
    """The transport of a synchronous client; the service runs in a thread."""

    def __init__(self, gate: Gate, client: Any) -> None:
        self._gate = gate
        self._client = client
        self._thread = LoopThread()
        self._stream = type("SyncStream", (_SyncStream, gate.sender.http.SyncByteStream), {})

    def handle_request(self, request: Any) -> object:
        """Answer a request."""
        if not self._gate.takes(request):
            return self._client.send(request, stream=True)
        call = self._thread.run(self._gate.call(request, request.read()))
        stream = self._stream(call, self._thread)
        return self._gate.sender.http.Response(call.status, headers=call.headers, stream=stream)

    def close(self) -> None:
        """End the service and its thread, and close the user's client."""
        self._thread.end(self._gate.close())
        self._client.close()


class _SyncStream:
    def __init__(self, call: Call, thread: LoopThread) -> None:
        self._call = call
        self._thread = thread

    def __iter__(self) -> Iterator[bytes]:
        while data := self._thread.run(self._call.read()):
            yield data

    def close(self) -> None:
        self._thread.end_of(self._call.leave())


class LoopThread:
    """An event loop in a thread of its own, which begins with the first call. The thread does not keep Python alive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` in the loop and wait for its result; if this thread is interrupted, the work is cancelled."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._serve, args=(self._loop,), daemon=True, name="justenough")
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end_of(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` unless the loop has ended."""
        if self._loop is None:
            work.close()
        else:
            self.run(work)

    def end(self, last: Coroutine[object, object, None]) -> None:
        """Run `last`, then end the loop and its thread."""
        self.end_of(last)
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop().run_forever()
