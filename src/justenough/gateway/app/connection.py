"""uvicorn's HTTP protocol with bounds that it lacks: on headers' size and time, and on an answer that stays unread."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from justenough.gateway.exchange import Refused, bad_target


class BoundedProtocol(HttpToolsProtocol):
    """One client connection; subclasses set the bounds."""

    max_header_bytes = 64 * 1024
    header_timeout_s = 60.0
    send_timeout_s = 60.0

    _head_bytes = 0
    _in_head = True
    _too_large = False
    _bad_target = False
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected: its first request is awaited."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._cancel_timer()
        self._cancel_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as is written: if it does not read at all, it is as good as gone."""
        super().pause_writing()
        self._cancel_unread()
        self._await_reading(self.transport.get_write_buffer_size())

    def _await_reading(self, unread: int) -> None:
        self._unread = self.loop.call_later(self.send_timeout_s, self._abort_unless_read, unread)

    def _abort_unless_read(self, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < unread:
            self._await_reading(left)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """It has read all but a little."""
        self._cancel_unread()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.max_header_bytes:
                self._too_large = True
                self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """A request's headers are complete.

        Raises ValueError, which ends the connection, where they are too large or the target is not a path.
        """
        self._cancel_timer()
        self._in_head = False
        if not self.url.startswith(b"/"):
            self._bad_target = True
            raise ValueError("the target is not a path")
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.max_header_bytes:
            self._too_large = True
            raise ValueError("headers too large")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request that we take, in OpenAI's shape, and close."""
        if self.transport.is_closing():
            return
        if self._too_large:
            refused = Refused(431, "the request's headers are too large", code="headers_too_large")
        elif self._bad_target:
            refused = bad_target()
        else:
            refused = Refused(400, "the request cannot be read", code="bad_request")
        body, status = refused.body, b"%d %b" % (refused.status, HTTPStatus(refused.status).phrase.encode())
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._cancel_timer()
        self._in_head = True
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.header_timeout_s, self._expired)

    def _expired(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
