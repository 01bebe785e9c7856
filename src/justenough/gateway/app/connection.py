"""uvicorn's HTTP protocol with further limits: on the size and time of headers, and on clients that do not read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from http import HTTPStatus
from typing import ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from justenough.gateway.exchange import Refused, bad_target

_OFFERS: Final = frozenset((b"upgrade", b"connection", b"http2-settings"))
"""Headers with which a client offers to switch protocols."""
_AFTER_REFUSAL_S: Final = 2.0
"""Seconds for a handler to answer that a body is late, before the connection is closed."""
_FRAMING: Final = frozenset((b"host", b"content-length", b"transfer-encoding"))
"""Headers that decide where a request goes and ends, whatever `connection` names."""


class BoundedProtocol(HttpToolsProtocol):
    """One client connection; subclasses set the limits."""

    max_header_bytes = 64 * 1024
    header_timeout_s = 60.0
    send_timeout_s = 60.0
    max_connections = 1024
    """Beyond this number the longest idle connection is closed."""
    idle: ClassVar[OrderedDict[BoundedProtocol, None]] = OrderedDict()
    """The server's connections that wait for a request, the longest wait first."""

    _head_bytes = 0
    _in_head = True
    _too_large = False
    _bad_target = False
    _upgrade = False
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.max_connections and self.idle:
            oldest, _ = self.idle.popitem(last=False)
            if oldest is not self:
                oldest.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        _cancel(self._timer)
        _cancel(self._unread)
        self.idle.pop(self, None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly: abort the connection if it does not read at all."""
        super().pause_writing()
        _cancel(self._unread)
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
        """The client has caught up."""
        _cancel(self._unread)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the client."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._ignore_upgrade(data[offer.args[0] :])
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
        """Wait for the headers of a request."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """Check the headers; raises ValueError, which ends the connection, if they are too large or have no path."""
        _cancel(self._timer)
        self._in_head = False
        self.idle.pop(self, None)
        if not self.url.startswith(b"/") or self.parser.get_method() == b"CONNECT":
            self._bad_target = True
            raise ValueError("the target is not a path")
        if self.parser.should_upgrade():
            # `data_received` continues, because it has the bytes after the headers.
            self._upgrade = True
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.max_header_bytes:
            self._too_large = True
            raise ValueError("headers too large")
        # A handler that reads the body refuses a late one itself; this ends the others, such as `/health`.
        self._timer = self.loop.call_later(self.header_timeout_s + _AFTER_REFUSAL_S, self.transport.close)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request, unless it is parsed again without its upgrade."""
        if not self._upgrade:
            _cancel(self._timer)
            super().on_message_complete()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Handle a request that offers another protocol as if it did not (RFC 9110, 7.8).

        The parser drops the bytes after such headers because they could belong to the other protocol. So a new parser
        gets the headers without the offer, and then those bytes.
        """
        self._upgrade = False
        head = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        # What `connection` names is for this connection only, so it goes with it.
        offers = [value for name, value in self.headers if name == b"connection"]
        named = {part.strip().lower() for value in offers for part in value.split(b",")} - _FRAMING
        lines = [name + b": " + value for name, value in self.headers if name not in _OFFERS | named]
        if any(b"close" in value.lower() for value in offers):
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([head, *lines, b"", b""]) + rest)

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request with an error in OpenAI's format, and close the connection."""
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
        _cancel(self._timer)
        self._in_head = True
        self._head_bytes = 0
        self.idle[self] = None
        self.idle.move_to_end(self)
        self._timer = self.loop.call_later(self.header_timeout_s, self.transport.close)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
