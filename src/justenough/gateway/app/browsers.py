"""Keeps foreign web pages from using the gateway through a visitor's browser.

A browser sends what any page tells it to, also to servers that only its own machine can reach. If the upstream allows
every origin (llama.cpp and vLLM do), that page can even read the answers. Three headers, which no page can forge,
distinguish such requests from those of the gateway's own page and of programs:

- `Host`: on loopback it must be an address, or a name that does not exist in the public DNS. With DNS rebinding an
  attacker's name points to this machine, and then this header contains that name.
- `Sec-Fetch-Site`: `same-origin`, or `none` if the user typed the address. Following a link is allowed too.
- `Origin`, for browsers without that header: it must be the same place as `Host`.

Programs send neither of the last two. `--allow-origin` allows further origins; their pages can read all answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

from starlette.types import ASGIApp

from justenough.errors import InputError
from justenough.gateway.exchange import Exchange, Receive, Refused, Scope, Send

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE)
_PORT: Final = re.compile(r":\d+$")
_NEVER_PUBLIC: Final = (".localhost", ".local", ".internal")
"""Names that do not exist in the public DNS (RFC 6761, RFC 6762, and ICANN's reservation of `.internal`)."""
_REQUEST: Final = b"access-control-request-"
_ALLOW: Final = b"access-control-allow-"
_NAMES: Final = {b"method": b"methods", b"headers": b"headers", b"private-network": b"private-network"}
"""What a preflight asks for, and the name of the answer."""
_EXPOSED: Final = (b"access-control-expose-headers", b"x-justenough, x-justenough-request, retry-after, x-should-retry")
_CHECKED: Final = frozenset((b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Browsers:
    """What web browsers may do."""

    playground: bool = False
    """Whether the page is served."""
    local: bool = False
    """Whether the gateway listens on loopback only. Then `Host` is checked."""
    origins: tuple[str, ...] = ()
    """Other origins, such as `https://chat.example.com`, whose pages may use the gateway."""

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                hint = "for example https://chat.example.com, without a path"
                raise InputError(f"{origin!r} is no origin", hint=hint)

    def refused(self, headers: Iterable[tuple[bytes, bytes]], *, method: str) -> Refused | None:
        """The error for a request of a foreign page; None if the request is allowed."""
        values = {key: value for key, value in headers if key in _CHECKED}
        host = values.get(b"host", b"").decode("latin-1").lower()
        if self.local and host and not self._known(host):
            return Refused(
                403,
                f"{host!r} is not a name of this machine, so this may be an attack by a web page; if the name is yours,"
                f" start the gateway with --allow-origin http://{host}",
                code="foreign_host",
            )
        origin = values.get(b"origin", b"").decode("latin-1").lower()
        if self.allows(origin):
            return None
        site = values.get(b"sec-fetch-site")
        if site is not None:
            # From other sites only navigation is allowed, so a link works.
            followed = method in ("GET", "HEAD") and values.get(b"sec-fetch-mode") == b"navigate" and not origin
            allowed = site in (b"same-origin", b"none") or followed
        else:
            allowed = not origin or origin.partition("://")[2] == host
        if allowed:
            return None
        return Refused(
            403,
            f"a web page of {origin or 'another place'!r} may not use this gateway; if it is yours, start it with"
            f" --allow-origin {origin or 'ORIGIN'}",
            code="foreign_origin",
        )

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may use the gateway."""
        return origin.lower() in (allowed.lower() for allowed in self.origins)

    def _known(self, host: str) -> bool:
        return is_never_public(host) or any(origin.lower().partition("://")[2] == host for origin in self.origins)


@lru_cache(maxsize=64)
def is_never_public(host: str) -> bool:
    """Whether a `Host` header's value is an address, or a name that does not exist in the public DNS."""
    name = _PORT.sub("", host).strip("[]").rstrip(".")
    try:
        ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_NEVER_PUBLIC)
    return True


class Guard:
    """Refuses requests of foreign pages, and lets pages of allowed origins read all answers.

    An ASGI app around another. With allowed origins, what the upstream itself allows is removed: llama.cpp and vLLM
    allow every origin.
    """

    def __init__(self, app: ASGIApp, browsers: Browsers, refusals: Counter[str]) -> None:
        self._app = app
        self._browsers = browsers
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, answer a preflight, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, max_body_bytes=0, timeout_s=1.0)
        refused = self._browsers.refused(exchange.headers, method=exchange.method)
        if refused is not None:
            self._refusals[refused.code] += 1
            await exchange.refuse(refused)
            return
        if not self._browsers.origins:
            await self._app(scope, receive, send)
            return
        own, origin = [(b"vary", b"origin")], exchange.header(b"origin") or ""
        if self._browsers.allows(origin):
            own += [(b"access-control-allow-origin", origin.encode("latin-1")), _EXPOSED]
            if exchange.method == "OPTIONS" and exchange.header(b"access-control-request-method") is not None:
                # A preflight never contains a key.
                wishes = {name: exchange.header(_REQUEST + name) or "" for name in _NAMES}
                grants = [(_ALLOW + _NAMES[name], value.encode("latin-1")) for name, value in wishes.items() if value]
                await exchange.start(204, [*own, *grants, (b"access-control-max-age", b"600")])
                await exchange.end()
                return

        def answer(message: MutableMapping[str, Any]) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if not pair[0].lower().startswith(b"access-control-")]
                message = {**message, "headers": [*others, *own]}
            return send(message)

        await self._app(scope, receive, answer)
