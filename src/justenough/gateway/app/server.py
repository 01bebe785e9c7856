"""The routes: what is ours is answered here, everything else goes to the upstream."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
import traceback
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from types import FrameType
from typing import ClassVar, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Lifespan

from justenough.errors import InputError
from justenough.gateway.app.browsers import Browsers, Guard
from justenough.gateway.app.connection import BoundedProtocol
from justenough.gateway.exchange import ClientGone, Exchange, Receive, Refused, Scope, Send, bad_target
from justenough.gateway.page.routes import Asset, page
from justenough.gateway.serve.relay import fail
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings, is_loopback

log: Final = logging.getLogger("justenough.gateway")


_BACKLOG: Final = 2048


class Front:
    """Admits a request, watches for its client's leaving, and sees that every request gets an answer. An ASGI app."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        service, limits = self._service, self._service.settings.limits
        exchange = Exchange(
            scope, receive, send, max_body_bytes=limits.max_body_bytes, timeout_s=limits.receive_timeout_s
        )
        try:
            if exchange.is_preflight and service.settings.client_keys:
                await exchange.answer_preflight()
                return
            self._admit(exchange)
        except Refused as refused:
            service.metrics.refused[refused.code] += 1
            await exchange.refuse(refused)
            return
        service.active += 1
        service.metrics.requests += 1
        try:
            await self._watched(exchange)
        except asyncio.CancelledError:
            # The server ends what outlives the grace: its client is told, too.
            await fail(exchange, _shutting_down())
            raise
        except Exception as error:  # noqa: BLE001
            # A mistake of ours is an error to the client like any other, and never a hang. What the exception says is
            # not logged: it may quote the request.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("a request to %r failed: %s\n%s", exchange.path[:200], type(error).__name__, where)
            service.metrics.refused["internal_error"] += 1
            await fail(exchange, _failed())
        finally:
            service.active -= 1

    def _admit(self, exchange: Exchange) -> None:
        service = self._service
        if not exchange.target.startswith("/"):
            raise bad_target()
        if service.draining:
            raise _shutting_down()
        if service.active >= service.settings.limits.max_concurrent:
            raise Refused(503, "too many requests are under way", code="overloaded", kind="server_error", retry_after=1)
        service.admits(exchange)

    async def _watched(self, exchange: Exchange) -> None:
        """Serve until done, or until the client has gone: then whatever is under way upstream is cancelled."""
        work = asyncio.ensure_future(self._answered(exchange))
        watch = asyncio.ensure_future(exchange.gone())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._service.metrics.client_disconnects += 1
        finally:
            work.cancel()
            watch.cancel()
            outcomes = await asyncio.gather(work, watch, return_exceptions=True)
        failure = outcomes[0]
        if isinstance(failure, Exception):
            raise failure

    async def _answered(self, exchange: Exchange) -> None:
        try:
            await self._service.serve(exchange)
        except ClientGone:
            self._service.metrics.client_disconnects += 1
        except Refused as refused:
            self._service.metrics.refused[refused.code] += 1
            await fail(exchange, refused)


def _shutting_down() -> Refused:
    return Refused(503, "the gateway is shutting down", code="shutting_down", kind="server_error", retry_after=5)


def _failed() -> Refused:
    return Refused(500, "the gateway has failed; its log says how", code="internal_error", kind="server_error")


class Health:
    """`/health`: the gateway runs. `/ready`: and its upstream answers. ASGI apps."""

    def __init__(self, service: Service, *, ready: bool) -> None:
        self._service = service
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200, or 503 with the reason."""
        exchange = Exchange(scope, receive, send, max_body_bytes=0, timeout_s=1.0)
        status, reason = 200, "ok"
        if self._ready:
            try:
                reason = "shutting down" if self._service.draining else await self._until_gone(exchange)
            except ClientGone:
                return
            status = 200 if reason == "ok" else 503
        await exchange.answer(status, msgspec.json.encode({"status": reason}))

    async def _until_gone(self, exchange: Exchange) -> str:
        """The readiness; raises `ClientGone` where the client leaves before it is known."""
        await exchange.body()
        asked = asyncio.ensure_future(self._service.readiness())
        gone = asyncio.ensure_future(exchange.gone())
        try:
            await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise ClientGone
            return asked.result()
        finally:
            for task in (asked, gone):
                task.cancel()
            await asyncio.gather(asked, gone, return_exceptions=True)


class Ours:
    """An answer that the service makes itself. An ASGI app."""

    def __init__(self, service: Service, name: str) -> None:
        self._service = service
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        limits = self._service.settings.limits
        exchange = Exchange(scope, receive, send, max_body_bytes=64 * 1024, timeout_s=limits.receive_timeout_s)
        try:
            await self._service.own(self._name, exchange)
        except Refused as refused:
            await exchange.refuse(refused)
        except ClientGone:
            return


class WrongMethod:
    """What one of our own paths says to any method but its own. An ASGI app."""

    def __init__(self, method: str) -> None:
        self._refused = Refused(
            405,
            f"this path takes {method}",
            code="method_not_allowed",
            headers=[(b"allow", b"GET, HEAD" if method == "GET" else method.encode())],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 405."""
        await Exchange(scope, receive, send, max_body_bytes=0, timeout_s=1.0).refuse(self._refused)


def own(path: str, app: ASGIApp, method: str = "GET") -> list[Route]:
    """The routes of a path that is ours: nothing sent to it reaches the upstream."""
    return [Route(path, app, methods=[method]), Route(path, WrongMethod(method))]


class _Application(Starlette):
    """Starlette for what is ours, and around it the way to the upstream.

    Starlette wraps each sending twice, to answer with an error page where none has begun. `Front` has errors of its
    own, and a stream sends a thousand times.
    """

    def __init__(
        self, upstream: ASGIApp, *, routes: list[Route], middleware: list[Middleware], lifespan: Lifespan[Starlette]
    ) -> None:
        super().__init__(routes=routes, middleware=middleware, lifespan=lifespan)
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or begin and end the application's life."""
        ours = scope["type"] != "http" or any(route.matches(scope)[0] is not Match.NONE for route in self.routes)
        await (super().__call__ if ours else self._upstream)(scope, receive, send)


def build_app(settings: GatewaySettings, browsers: Browsers | None = None) -> Starlette:
    """The gateway as an ASGI application; its lifespan opens and closes the upstream."""
    service = Service(settings)
    browsers = browsers or Browsers()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with service:
            yield

    guarding = (browsers, service.metrics.refused)
    app = _Application(
        Guard(Front(service), *guarding),
        lifespan=lifespan,
        middleware=[Middleware(Guard, *guarding)],
        routes=[
            *own("/health", Health(service, ready=False)),
            *own("/ready", Health(service, ready=True)),
            *own("/metrics", Ours(service, "metrics")),
            *own("/v1/justenough/status", Ours(service, "status")),
            *own("/v1/justenough/feedback", Ours(service, "feedback"), "POST"),
            *own("/openapi.json", Asset(files("justenough").joinpath("gateway", "openapi.json"))),
            *(route for path, app in page(shown=browsers.playground).items() for route in own(path, app)),
        ],
    )
    app.state.service, app.state.browsers = service, browsers
    return app


class Server(uvicorn.Server):
    """uvicorn with a drain: after SIGTERM open streams end and new requests get 503; a second signal ends all."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._drained_by = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; end at once on the second signal."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        self._drained_by = time.monotonic() + self.service.settings.limits.grace_s

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop serving; uvicorn asks ten times a second."""
        if self.service.draining and (not self.service.active or time.monotonic() > self._drained_by):
            self.should_exit = True
        return await super().on_tick(counter)


def build_server(
    settings: GatewaySettings,
    *,
    host: str,
    port: int,
    allow_remote: bool = False,
    playground: bool | None = None,
    allow_origins: tuple[str, ...] = (),
) -> tuple[Server, socket.socket]:
    """A server and the socket that it is to listen on; refuses to listen beyond loopback unless told to.

    `playground` is whether the page is served; None: on loopback only.
    """
    if not allow_remote and not is_loopback(host):
        raise InputError(
            f"{host} can be reached from other machines", hint="--allow-remote if that is wanted; see --client-key-file"
        )
    local = is_loopback(host)
    browsers = Browsers(playground=local if playground is None else playground, local=local, origins=allow_origins)
    app = build_app(settings, browsers)
    config = uvicorn.Config(
        app,
        http=bounded(settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        lifespan="on",
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        # From here on clients are queued, not refused, until the server takes them.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another --port") from error
    return Server(config, app.state.service), listener


def bounded(settings: GatewaySettings) -> type[BoundedProtocol]:
    """The HTTP protocol under these limits: uvicorn makes one for each connection and passes nothing of ours."""

    class Protocol(BoundedProtocol):
        max_header_bytes = settings.limits.max_header_bytes
        header_timeout_s = settings.limits.receive_timeout_s
        send_timeout_s = settings.limits.send_timeout_s
        max_connections = settings.limits.max_connections
        idle: ClassVar[OrderedDict[BoundedProtocol, None]] = OrderedDict()

    return Protocol
