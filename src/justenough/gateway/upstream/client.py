"""HTTP client for the single configured upstream; closes streams promptly."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import Final, cast
from urllib.parse import unquote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from justenough.errors import InputError
from justenough.gateway.exchange import RawHeaders, Refused, bad_target, end_to_end
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.compression import Decompressed, is_readable, is_undone

Body = bytes | AsyncIterator[bytes] | None

OURS: Final = b"x-justenough"
_VIA: Final = b"x-justenough-via"
"""The gateways on the way of a request, each with a random name."""
_NOT_SENT: Final = frozenset((b"host", b"content-length", b"expect"))
_KEY_HEADERS: Final = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"))
_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_LARGE: Final = 1 << 20
_TARGET: Final = re.compile(r"[^\x00-\x20\x7f#]+")
"""A target without control characters, spaces and fragments, which a request line cannot contain."""
_PARTS: Final = re.compile(r"[/\\;]")
_KEEP_ALIVE_S: Final = 3.0
"""Less than the 5 s after which llama.cpp and Node close idle connections."""
_STALE_S: Final = 2.0
"""A request on a connection that the server has closed fails sooner; what fails later has been generated for."""


class BrokenEarly(Refused):
    """The connection broke before anything can have been generated: within two seconds, or in a refusal.

    Some servers close the connection if they do not know a member of the request.
    """


class Upstream:
    """Opens requests. An async context manager."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._base = URL(settings.origin)
        keys = "|".join(re.escape(key.encode().decode("latin-1")) for key in settings.client_keys)
        self._own_keys = re.compile(rf"(?<![\w.~+/-])(?:{keys or '(?!)'})(?![\w.~+/-])")
        """A client key as a whole word, so that a short key leaves other values alone."""
        self._name = secrets.token_hex(8)
        self._session: aiohttp.ClientSession | None = None
        self.open_requests = 0
        self.silent: dict[str, float] = {}
        """Paths that left a question of the gateway's own without an answer, and until when none is asked there."""

    async def __aenter__(self) -> Upstream:
        limits = self._settings.limits
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_timeout_s, sock_read=limits.idle_timeout_s
            ),
            auto_decompress=False,
            trace_configs=[_watched()],
            skip_auto_headers=_AUTOMATIC,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=limits.max_header_bytes,
            max_field_size=limits.max_header_bytes,
            read_bufsize=256 * 1024,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

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

        `length` is the declared size of a streamed body. With `decode` no compression is asked for, and an answer that
        comes compressed is decompressed if Python can do it. Raises `Refused`, also from within the block, if the
        upstream cannot be reached, breaks off (before it generates: `BrokenEarly`) or stays silent.
        """
        sent = self._headers(headers)
        if length is not None and not isinstance(body, bytes):
            sent["content-length"] = length
        if decode:
            sent["accept-encoding"] = "identity"
        url = self.url(target)
        response: aiohttp.ClientResponse | None = None
        silence: _Silence | None = None
        self.open_requests += 1
        begin = time.monotonic()
        try:
            response = await self._sent(method, url, headers=sent, body=body)
            content = response.content
            if response.connection is not None and (protocol := response.connection.protocol) is not None:
                if _closes_silently(response):
                    protocol.force_close()
                protocol.read_timeout = None
                silence = _Silence(response, protocol.transport, self._settings.limits.idle_timeout_s)
            if decode and is_readable(response.headers):
                response.content = cast("aiohttp.StreamReader", Decompressed(content))
            yield response
        except aiohttp.ClientConnectorError as error:
            raise Refused(502, "the upstream is not reachable", code="upstream_unreachable") from error
        except TimeoutError as error:
            raise Refused(504, "the upstream did not answer in time", code="upstream_timeout") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            is_at_once = response is None and time.monotonic() - begin < _STALE_S
            kind = BrokenEarly if is_at_once or (response is not None and response.status >= 300) else Refused
            raise kind(502, "the upstream broke off its answer", code="upstream_broken") from error
        finally:
            self.open_requests -= 1
            if silence is not None:
                silence.end()
            if response is not None:
                response.content = content
                if content.at_eof():
                    response.release()
                else:
                    response.close()

    async def _sent(self, method: str, url: URL, *, headers: CIMultiDict[str], body: Body) -> aiohttp.ClientResponse:
        """Send a request; again if its connection was a reused one that the server had closed silently."""
        if self._session is None:
            raise InputError("the upstream is not open", hint="use `async with Upstream(…)`")
        loop = asyncio.get_running_loop()
        while True:
            # A large body is written in parts because other streams would have to wait for it.
            data = BytesIO(body) if isinstance(body, bytes) and len(body) > _LARGE else body
            reused = asyncio.Event()
            begin = loop.time()
            try:
                return await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    trace_request_ctx=reused,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # Each attempt uses up one closed connection, so the last one is on a new connection.
                is_stale = reused.is_set() and loop.time() - begin < _STALE_S
                if not is_stale or not isinstance(body, bytes | None):
                    raise

    def headers_for_own_request(self, headers: RawHeaders) -> RawHeaders:
        """Those of a client's headers that a request of the gateway's own needs: its key."""
        return [pair for pair in headers if pair[0] in _KEY_HEADERS]

    def url(self, target: str) -> URL:
        """The address of `target` (path and query) at the operator's upstream.

        It is built from parts because joined text is not safe: in `http://host` + `@other/path` the host is `other`.
        A path of the operator's own takes the place of `/v1`. Raises `Refused` if the target is not in origin form (RFC
        9112, 3.2.1), leads to another server or leaves the operator's path.
        """
        path, _, query = target.partition("?")
        base = self._base
        if not path.startswith("/") or not _TARGET.fullmatch(target):
            raise bad_target()
        prefix = base.raw_path.rstrip("/")
        if prefix and ".." in _PARTS.split(unquote(path)):
            raise bad_target()
        if prefix and path.startswith(f"{prefix}/"):
            path = path.removeprefix(prefix)
        elif self._settings.has_own_version and path.startswith("/v1/"):
            path = path.removeprefix("/v1")
        url = URL.build(
            scheme=base.scheme,
            authority=base.raw_authority,
            path=prefix + path,
            query_string=query,
            encoded=True,
        )
        if (url.scheme, url.raw_host, url.port, url.raw_user) != (base.scheme, base.raw_host, base.port, None):
            raise bad_target()
        return url

    def _headers(self, headers: RawHeaders) -> CIMultiDict[str]:
        key, kept = self._settings.upstream_key, end_to_end(headers)
        via = "".join(value.decode("latin-1") for name, value in kept if name == _VIA)
        if self._name in via:
            hint = "the upstream, or one behind it, leads back to this gateway"
            raise Refused(508, f"the request has come back: {hint}", code="loop")
        hidden = {name for name, _ in kept if name in _NOT_SENT or name.startswith(OURS)}
        if key is not None or self._settings.client_keys:
            # The gateway's own key is never sent upstream, in whichever header it came.
            hidden |= _KEY_HEADERS | {name for name, value in kept if self._own_keys.search(value.decode("latin-1"))}
        sent = CIMultiDict((name.decode("latin-1"), _text_of(value)) for name, value in kept if name not in hidden)
        sent[_VIA.decode()] = f"{via} {self._name}".lstrip()
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        return sent


def _text_of(value: bytes) -> str:
    """A header's value as the text that the HTTP client encodes in UTF-8 again."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def headers_of(answer: aiohttp.ClientResponse) -> RawHeaders:
    """The answer's headers for the client, without those of a compression that was undone."""
    dropped = (b"content-encoding", b"content-length") if is_undone(answer) else ()
    return [pair for pair in end_to_end(answer.raw_headers) if pair[0] not in dropped]


def _watched() -> aiohttp.TraceConfig:
    """Sets the event that a request has for its context if its connection is a reused one."""

    async def reuse(_: object, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.set()

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(reuse)
    return config


class _Silence:
    """Ends an answer after so many seconds of silence, or up to a quarter more.

    aiohttp restarts its own timer with every read, which costs a tenth of the time for a token. This timer only checks
    from time to time whether anything has arrived.
    """

    CHECKS: Final = 4

    def __init__(
        self, response: aiohttp.ClientResponse, transport: asyncio.Transport | None, seconds: float | None
    ) -> None:
        self._content = response.content
        self._transport = transport
        self._every = None if seconds is None else seconds / self.CHECKS
        self._received = self._content.total_bytes
        self._silent_checks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def end(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._every is not None:
            self._timer = asyncio.get_running_loop().call_later(self._every, self._check)

    def _check(self) -> None:
        arrived = self._content.total_bytes
        # While the client reads too slowly, the gateway does not read from the upstream.
        is_paused = self._transport is not None and not self._transport.is_reading()
        self._silent_checks = 0 if is_paused or arrived != self._received else self._silent_checks + 1
        self._received = arrived
        if self._silent_checks < self.CHECKS:
            self._wait()
        else:
            self._content.set_exception(aiohttp.SocketTimeoutError("the upstream is silent"))


def _closes_silently(response: aiohttp.ClientResponse) -> bool:
    """Whether the server closes this connection without notice, as llama.cpp does after a stream.

    If it were reused, the next request would fail.
    """
    streamed = response.headers.get("content-type", "").startswith("text/event-stream")
    return streamed and response.headers.get("server", "").lower().startswith("llama.cpp")
