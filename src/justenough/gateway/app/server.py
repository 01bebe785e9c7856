"""The server: the gateway's own paths are answered here, all others go to the upstream."""

from __future__ import annotations

import math
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from types import FrameType
from typing import ClassVar, Final

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Match, Route

from justenough.errors import InputError
from justenough.gateway.app.browsers import Browsers, Guard
from justenough.gateway.app.connection import BoundedProtocol, until_closed
from justenough.gateway.app.front import Front
from justenough.gateway.app.paths import routes
from justenough.gateway.exchange import Exchange, Receive, Refused, Scope, Send
from justenough.gateway.page.routes import Asset, page
from justenough.gateway.place import collapsed, place_of
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings, is_loopback

_BACKLOG: Final = 2048


class Application(Starlette):
    """The gateway as an ASGI application: finds who answers a request.

    Starlette answers the gateway's own paths, `Front` all others. Starlette wraps `send` twice for its error pages;
    `Front` does not need them, and a stream sends very often. The lifespan opens and closes the upstream.
    """

    def __init__(self, settings: GatewaySettings, browsers: Browsers | None = None) -> None:
        self.service = service = Service(settings)
        self.browsers = browsers or Browsers()
        self._front = Front(service)
        self._guard = Guard(self._answer, self.browsers, service.metrics.refused)

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with service:
                yield

        files_of_page = page(shown=self.browsers.playground)
        files_of_page["/openapi.json"] = Asset(files("justenough").joinpath("gateway", "openapi.json"))
        own = [*routes(service), *(Route(path, app, methods=["GET"]) for path, app in files_of_page.items())]
        super().__init__(routes=own, lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        await self._guard(scope, receive, until_closed(scope, send) if scope["http_version"] == "1.0" else send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path of a completion is never an own path, and comparing it with all routes takes longer.
        routes = self.routes if place_of(scope["path"], "") is None else []
        # With a slash too many, an own path is still one: its labels and keys are not for the upstream.
        own = {**scope, "path": collapsed(scope["path"]) or "/"}
        matches = {route.matches(own)[0]: route for route in routes}
        wrong_method = matches.get(Match.PARTIAL)
        if Match.FULL in matches:
            await super().__call__(own, receive, send)
        elif not isinstance(wrong_method, Route):
            await self._front(scope, receive, send)
        else:
            allowed = ", ".join(sorted(wrong_method.methods or ()))
            refused = Refused(
                405, f"this path takes {allowed}", code="method_not_allowed", headers=[(b"allow", allowed.encode())]
            )
            await Exchange(scope, receive, send, max_body_bytes=0, timeout_s=1.0).refuse(refused)


class Server(uvicorn.Server):
    """uvicorn with draining: after SIGTERM open streams may end, new requests get 503; a second signal ends all."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._drained_by = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining; the second signal ends the server at once."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        self._drained_by = time.monotonic() + self.service.settings.limits.grace_s

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; uvicorn calls this ten times a second."""
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
    """A server and its listening socket; raises `InputError` for other addresses than loopback without `allow_remote`.

    `playground`: whether the page is served; None: on loopback only.
    """
    if not allow_remote and not is_loopback(host):
        hint = "--allow-remote if you want that; see --client-key-file"
        raise InputError(f"{host} can be reached from other machines", hint=hint)
    local = is_loopback(host)
    browsers = Browsers(playground=local if playground is None else playground, local=local, origins=allow_origins)
    app = Application(settings, browsers)
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
    # With the protocol named, asyncio turns the delay of small packets off: else each answer may wait for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        # From here on clients wait in a queue until the server accepts them.
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "a port is a number from 0 to 65535"
        raise InputError(f"cannot listen on {host}:{port}: {reason}", hint="choose another --port") from error
    return Server(config, app.service), listener


def bounded(settings: GatewaySettings) -> type[BoundedProtocol]:
    """The HTTP protocol with these limits, as a class because uvicorn creates its instances."""

    class Protocol(BoundedProtocol):
        limits = settings.limits
        idle: ClassVar[OrderedDict[BoundedProtocol, None]] = OrderedDict()
        slow: ClassVar[OrderedDict[BoundedProtocol, float]] = OrderedDict()

    return Protocol
