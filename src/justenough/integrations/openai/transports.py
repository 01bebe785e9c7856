"""Transports that send completions through the gate, and everything else to the user's HTTP client untouched."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from justenough.integrations.openai.call import Call, Gate
from justenough.integrations.openai.senders import OwnThread

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
    """An event loop in a thread of its own, from the first call until this object ends at the latest."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # While the lock is held, the garbage collector may close a stream, which takes the lock again.
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: weakref.finalize[..., LoopThread] | None = None

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` in the loop and wait for its result; if this thread is interrupted, the work is cancelled."""
        future = self._begun(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end_of(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` unless the loop has ended.

        The garbage collector may call this in any thread. One of this package's threads does not wait for the end.
        """
        if self._loop is None or self._process != os.getpid():
            work.close()
        elif isinstance(threading.current_thread(), OwnThread):
            self._begun(work)
        else:
            self.run(work)

    def end(self, last: Coroutine[object, object, None]) -> None:
        """Run `last`, then end the loop and its thread."""
        self.end_of(last)
        with self._lock:
            thread, stop = self._thread, self._stop
            self._reset()
        if thread is not None and stop is not None:
            stop()
            thread.join()

    def _begun(self, work: Coroutine[object, object, T]) -> Future[T]:
        if self._process != os.getpid():
            # The threads of a process do not exist in its fork.
            if self._stop is not None:
                self._stop.detach()
            self._reset()
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = OwnThread(target=_serve, args=(loop,), daemon=True, name="justenough")
                self._thread.start()
                self._stop = weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)
                self._loop = loop
            return asyncio.run_coroutine_threadsafe(work, self._loop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
