"""uvicorn's HTTP protocol with further limits: on the size and time of headers, and on clients that do not read."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from justenough.gateway.exchange import CYCLE, Refused, Scope, Send, bad_target
from justenough.gateway.settings import Limits

_OFFERS: Final = frozenset((b"upgrade", b"connection", b"http2-settings"))
"""Headers with which a client offers to switch protocols."""
_PATIENCE_S: Final = 2.0
"""Seconds after which a slow client's connection is closed before an idle one, if there are too many."""
_AFTER_REFUSAL_S: Final = 2.0
"""Seconds for a handler to answer that a body is late, before the connection is closed."""
_FRAMING: Final = frozenset((b"host", b"content-length", b"transfer-encoding"))
"""Headers that decide where a request goes and ends, whatever `connection` names."""
_TOO_LARGE: Final = Refused(431, "the request's headers are too large", code="headers_too_large")


class BoundedProtocol(HttpToolsProtocol):
    """One client connection; subclasses set the limits."""

    limits = Limits()
    idle: ClassVar[OrderedDict[BoundedProtocol, None]] = OrderedDict()
    """The server's connections that wait for a request, the longest wait first."""
    slow: ClassVar[OrderedDict[BoundedProtocol, float]] = OrderedDict()
    """Those whose client still sends a body or does not read, the longest wait first, with its beginning."""

    _head_bytes = 0
    _in_head = True
    _in_body = False
    _refused = Refused(400, "the request cannot be read", code="bad_request")
    """The answer to an invalid request."""
    _upgrade = False
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that can be spared best; this new one only if all others have a request under way."""
        spared = next(iter(self.idle))
        slowest, since = next(iter(self.slow.items()), (self, math.inf))
        if spared is self or self.loop.time() - since > _PATIENCE_S:
            spared = slowest
        spared._forget()
        spared.transport.abort()

    def _forget(self) -> None:
        self.idle.pop(self, None)
        self.slow.pop(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        _cancel(self._timer)
        _cancel(self._unread)
        self._forget()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly: abort the connection if it does not read at all."""
        super().pause_writing()
        _cancel(self._unread)
        self.slow.setdefault(self, self.loop.time())
        self._await_reading(self.transport.get_write_buffer_size())

    def _await_reading(self, unread: int) -> None:
        self._unread = self.loop.call_later(self.limits.send_timeout_s, self._abort_unless_read, unread)

    def _abort_unless_read(self, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < unread:
            self._await_reading(left)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """The client has caught up."""
        _cancel(self._unread)
        if not self._in_body:
            self.slow.pop(self, None)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the client."""
        self._unset_keepalive_if_required()
        while True:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as offer:
                data = self._without_upgrade(data[offer.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_header_bytes:
                self._refused = _TOO_LARGE
                self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """Wait for the headers of a request."""
        super().on_message_begin()
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Those behind the body are dropped: they must not become headers (RFC 9110, 6.5.1)."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the headers; raises ValueError, which ends the connection, if they are too large or have no path."""
        _cancel(self._timer)
        self._in_head = False
        self.idle.pop(self, None)
        if not self.url.startswith(b"/") or self.parser.get_method() == b"CONNECT":
            self._refused = bad_target()
            raise ValueError("the target is not a path")
        if self.parser.should_upgrade():
            # `data_received` continues, because it has the bytes after the headers.
            self._upgrade = True
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.max_header_bytes:
            self._refused = _TOO_LARGE
            raise ValueError("headers too large")
        # A handler that reads the body refuses a late one itself; this ends the others, such as `/health`.
        self._timer = self.loop.call_later(self.limits.receive_timeout_s + _AFTER_REFUSAL_S, self.transport.close)
        self._in_body = True
        self.slow[self] = self.loop.time()
        super().on_headers_complete()
        cast("dict[str, object]", self.scope)[CYCLE] = self.cycle

    def on_message_complete(self) -> None:
        """End a request, unless it is parsed again without its upgrade."""
        if self._upgrade:
            return
        _cancel(self._timer)
        self._in_body = False
        self.slow.pop(self, None)
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_request()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has begun."""
        super().on_response_complete()
        if not (self._in_body or self._in_head or self.pipeline or self.transport.is_closing()):
            self._await_request()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """The bytes of a request that offers another protocol, without the offer, and those after it (RFC 9110, 7.8).

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
        return b"\r\n".join([head, *lines, b"", b""]) + rest

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request with an error in OpenAI's format, and close the connection."""
        if self.transport.is_closing():
            return
        body, code = self._refused.body, self._refused.status
        status = b"%d %b" % (code, HTTPStatus(code).phrase.encode())
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._await_request()

    def _await_request(self) -> None:
        _cancel(self._timer)
        self.idle[self] = None
        self.idle.move_to_end(self)
        self._timer = self.loop.call_later(self.limits.receive_timeout_s, self.transport.close)


def until_closed(scope: Scope, send: Send) -> Send:
    """`send` for a client of HTTP/1.0, which knows no chunks: the end of the connection ends the body."""
    cycle = scope[CYCLE]

    async def unframed(message: MutableMapping[str, Any]) -> None:
        # uvicorn frames a body in chunks, or compares it with a declared length. It shall do neither.
        cycle.chunked_encoding, cycle.expected_content_length = False, len(message.get("body", b""))
        await send(message)

    return unframed


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
