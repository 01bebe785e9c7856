"""One request and its answer over ASGI, with limits on reading and errors in OpenAI's format."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, MutableMapping
from functools import cached_property
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final, TypeVar

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]
T = TypeVar("T")

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
"""Headers for one connection only (RFC 9110, 7.6.1)."""
EVENTS: Final = b"text/event-stream"
CYCLE: Final = "justenough.cycle"
"""The scope's member with uvicorn's state of the request and its connection."""
_UNSENDABLE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Control characters, which no header may contain (RFC 9110, 5.5)."""


_ERROR_TYPES: Final = {500: "server_error", 503: "server_error", 502: "upstream_error", 504: "upstream_error"}
"""OpenAI's error type for a status; all others are `invalid_request_error`."""


class ClientGone(Exception):
    """The client has closed its connection."""


class Refused(Exception):
    """An error that the gateway answers in OpenAI's format."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str | None = None,
        retry_after: int | None = None,
        body: bytes | None = None,
        headers: RawHeaders | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind or _ERROR_TYPES.get(status, "invalid_request_error")
        self.retry_after = retry_after
        self.headers = headers or []
        self._body = body

    @property
    def body(self) -> bytes:
        """`{"error": {message, type, param, code}}`, or the upstream's own error."""
        if self._body is not None:
            return self._body
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return msgspec.json.encode({"error": error})

    @property
    def event(self) -> bytes:
        """The error as an event of a stream that has already begun."""
        return b"data: " + self.body + b"\n\n"


class ErrorShape:
    """How a client expects errors; this is OpenAI's form."""

    def error(self, refused: Refused) -> bytes:
        """An error as a whole answer."""
        return refused.body

    def error_event(self, refused: Refused) -> bytes:
        """An error in a stream that has begun. The blank lines end an event of which only a part was sent."""
        return b"\n\n" + refused.event


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, max_body_bytes: int, timeout_s: float) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        self.target = (raw_path + b"?" + query if query else raw_path).decode("latin-1")
        self.headers: RawHeaders = list(scope["headers"])
        self.id = ""
        """Its id while it is under way, which a client needs to end the thought; empty if it has none."""
        self.started = False
        self.ended = False
        self.status: int | None = None
        self.events = False
        """Whether the answer is a stream of server-sent events."""
        self.shape = ErrorShape()
        self.failure: Exception | None = None
        """The error with which reading the request's body ended."""
        self._host: str = (scope.get("client") or ("", 0))[0]
        self._cycle = scope.get(CYCLE)
        self._flow = None if self._cycle is None else self._cycle.flow
        """uvicorn's state of writing to the client."""
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._deadline: asyncio.Timeout | None = None
        self._must_give_way = False
        self._received = asyncio.Event()

    def header(self, name: bytes) -> str | None:
        """The value of a request header, None if it is absent."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), None)

    @property
    def key(self) -> str:
        """The client's key, empty if there is none.

        It follows `Bearer`, in any case, and one or more spaces (RFC 6750, 2.1; RFC 9110, 11.4), or is alone, or is in
        `x-api-key`. Only spaces and tabs around it are removed: the last byte of 'à' in UTF-8 is a space in Latin-1.
        """
        scheme, space, key = (self.header(b"authorization") or "").strip(" \t").partition(" ")
        if scheme.lower() == "bearer":
            return key.lstrip(" ")
        return scheme if scheme and not space else (self.header(b"x-api-key") or "").strip(" \t")

    @cached_property
    def address(self) -> str:
        """The client's address; of IPv6 only the network, since a client can choose the other half itself."""
        try:
            address = ip_address(self._host)
        except ValueError:
            # A proxy may write anything.
            return self._host[:64]
        if isinstance(address, IPv6Address):
            return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
        return self._host

    @property
    def headers_for_new_body(self) -> RawHeaders:
        """The headers for a body that the gateway changed and an answer that it reads."""
        return [pair for pair in self.headers if pair[0] not in (b"accept-encoding", b"content-length")]

    @property
    def headers_for_further_request(self) -> RawHeaders:
        """The headers for a request beside the client's own one, without its name.

        vLLM takes the name from them, and a server may answer a second request of the same key with the first answer.
        """
        names = (b"x-request-id", b"idempotency-key")
        return [pair for pair in self.headers_for_new_body if pair[0] not in names]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The request's body as it arrives; raises `Refused` beyond the limits, and `ClientGone`."""
        try:
            async for chunk in self._chunks():
                yield chunk
        except (Refused, ClientGone) as failure:
            self.failure = failure
            raise
        self._received.set()

    async def _chunks(self) -> AsyncIterator[bytes]:
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._max_body_bytes:
            raise self._too_large()
        size, more = 0, True
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout_s
        while more:
            if self._must_give_way:
                raise overloaded()
            try:
                async with asyncio.timeout_at(end) as self._deadline:
                    message = await self._receive()
            except TimeoutError as error:
                if self._must_give_way:
                    raise overloaded() from error
                raise Refused(408, "the request's body did not arrive in time", code="request_timeout") from error
            finally:
                self._deadline = None
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(chunk)
            if size > self._max_body_bytes:
                raise self._too_large()
            if chunk:
                yield chunk

    @property
    def owes_body(self) -> bool:
        """Whether the client has not sent its whole body yet."""
        return self._cycle is not None and bool(self._cycle.more_body)

    def give_way(self) -> None:
        """Refuse this request, whose body is late, in favour of another."""
        self._must_give_way = True
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def body(self) -> bytes:
        """The request's whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    def _too_large(self) -> Refused:
        return Refused(413, f"the request is larger than {self._max_body_bytes} bytes", code="request_too_large")

    async def gone(self) -> None:
        """Wait until the client has disconnected after its whole body."""
        await self._received.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def unless_gone(self, work: Coroutine[object, object, T]) -> T:
        """Run `work` after the whole body was read; cancels it and raises `ClientGone` if the client leaves."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = not task.done()
            task.cancel()
            gone.cancel()
            outcome, _ = await asyncio.gather(task, gone, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome
        if left or isinstance(outcome, BaseException):
            raise ClientGone
        return outcome

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send status and headers; raises `Refused`, before anything is sent, if they are not valid HTTP."""
        # An answer without a body may still name the length of the body that it stands for (RFC 9110, 8.6).
        kept = [pair for pair in headers if status not in (204, 304) or pair[0] != b"content-length"]
        sent = [*kept, *([(b"x-justenough-request", self.id.encode())] if self.id else [])]
        if not 200 <= status <= 599 or any(_UNSENDABLE.search(key + b" " + value) for key, value in sent):
            raise Refused(502, "the upstream's answer is no valid HTTP", code="upstream_broken")
        self.started = True
        self.status = status
        self.events = any(key == b"content-type" and value.lower().startswith(EVENTS) for key, value in sent)
        await self._send({"type": "http.response.start", "status": status, "headers": sent})

    def write(self, data: bytes) -> Awaitable[None]:
        """Send a part of the body; waits if the client reads slowly."""
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    @property
    def is_behind(self) -> bool:
        """Whether the client reads so slowly that `write` would wait."""
        return self._flow is not None and self._flow.write_paused

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def answer(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/json",
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a whole answer."""
        fixed = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await self.start(status, [*fixed, *headers])
        await self.end(body)

    async def refuse(self, refused: Refused) -> None:
        """Answer with an error."""
        headers: RawHeaders = [(b"x-justenough", f"error; code={refused.code}".encode()), *refused.headers]
        if refused.retry_after is not None:
            headers.append((b"retry-after", str(refused.retry_after).encode()))
        await self.answer(refused.status, self.shape.error(refused), headers=headers)

    async def fail(self, refused: Refused) -> None:
        """End an answer that cannot be finished: with an error, an error event, or a closed connection."""
        if not self.started:
            await self.refuse(refused)
        elif self.events and not self.ended:
            await self.end(self.shape.error_event(refused))


def overloaded() -> Refused:
    """The error for a request for which there is no place now."""
    return Refused(503, "too many requests are running", code="overloaded", retry_after=1)


def bad_target() -> Refused:
    """The error for a request target that is not a path: an absolute address, `*`, or host and port."""
    return Refused(400, "the request's target must be a path that begins with '/'", code="bad_target")


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers without those for one connection only, with names in lower case."""
    lowered = [(key.lower(), value) for key, value in headers]
    lists = [value for key, value in lowered if key == b"connection"]
    named = {name.strip().lower() for value in lists for name in value.split(b",")}
    return [(key, value) for key, value in lowered if key not in HOP_BY_HOP and key not in named]
