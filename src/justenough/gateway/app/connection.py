"""uvicorn's HTTP protocol with bounds that it lacks: on headers' size and time, and on an answer that stays unread."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from http import HTTPStatus
from typing import ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from justenough.gateway.exchange import Refused, bad_target

_OFFERS: Final = frozenset((b"upgrade", b"connection", b"http2-settings"))
"""Headers with which a client offers another protocol."""


class BoundedProtocol(HttpToolsProtocol):
    """One client connection; subclasses set the bounds."""

    max_header_bytes = 64 * 1024
    header_timeout_s = 60.0
    send_timeout_s = 60.0
    max_connections = 1024
    """Above it the connection that has waited for its next request for the longest time is closed."""
    idle: ClassVar[OrderedDict[BoundedProtocol, None]] = OrderedDict()
    """Connections of this server that wait for a request, the longest wait first; shared by all of its connections."""

    _head_bytes = 0
    _in_head = True
    _too_large = False
    _bad_target = False
    _upgrade = False
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected: its first request is awaited."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.max_connections and self.idle:
            oldest, _ = self.idle.popitem(last=False)
            if oldest is not self:
                oldest.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._cancel_timer()
        self._cancel_unread()
        self.idle.pop(self, None)
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
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._go_on_without_upgrade(data[offer.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
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
        self.idle.pop(self, None)
        if not self.url.startswith(b"/") or self.parser.get_method() == b"CONNECT":
            self._bad_target = True
            raise ValueError("the target is not a path")
        if self.parser.should_upgrade():
            # `data_received` goes on, since it has the bytes after the headers.
            self._upgrade = True
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.max_header_bytes:
            self._too_large = True
            raise ValueError("headers too large")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request has ended."""
        if not self._upgrade:
            super().on_message_complete()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Take a request that offers to switch protocols as one that does not: its body follows (RFC 9110, 7.8).

        The parser treats the bytes after such headers as another protocol's and drops them. So a new parser is given
        the headers without the offer, and then those bytes.
        """
        self._upgrade = False
        head = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        kept = [name + b": " + value for name, value in self.headers if name not in _OFFERS]
        if any(b"close" in value.lower() for name, value in self.headers if name == b"connection"):
            kept.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([head, *kept, b"", b""]) + rest)

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
        self.idle[self] = None
        self.idle.move_to_end(self)
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
