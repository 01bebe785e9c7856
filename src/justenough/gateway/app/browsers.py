"""Keeps web pages of other places from driving the gateway through a visitor's browser.

A browser sends what any page asks it to, also to servers that only its own machine can reach, and an upstream that
allows every origin (llama.cpp and vLLM do) would even let that page read the answers. Three headers, which no page can
forge, tell such requests from those of the gateway's own page and of programs:

- `Host`: on loopback it must be an address, or a name that the public DNS cannot give. A name of an attacker's that is
  made to point here (DNS rebinding) stays in this header.
- `Sec-Fetch-Site`: `same-origin`, or `none` where the user typed the address; following a link to here is allowed too.
- `Origin`, where a browser is too old for that header: the same place as `Host`.

Programs send none of the last two and are not concerned. `--allow-origin` names places that may.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp

from justenough.errors import InputError
from justenough.gateway.exchange import Exchange, Receive, Refused, Scope, Send

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE)
_PORT: Final = re.compile(r":\d+$")
_NEVER_PUBLIC: Final = (".localhost", ".local", ".internal")
"""Names that the public DNS does not give (RFC 6761, RFC 6762, and ICANN's reservation of `.internal`)."""
_LOOKED_AT: Final = frozenset((b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Browsers:
    """What web browsers may do."""

    playground: bool = False
    """Whether the page is served."""
    local: bool = False
    """Whether the gateway listens on loopback only, where every name that it is reached by is known."""
    origins: tuple[str, ...] = ()
    """Other places, such as `https://chat.example.com`, whose pages may use the gateway."""

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise InputError(
                    f"{origin!r} is no origin", hint="for example https://chat.example.com, without a path"
                )

    def refused(self, headers: Iterable[tuple[bytes, bytes]], *, method: str) -> Refused | None:
        """Why a request is not answered; None where it is."""
        found = {key: value for key, value in headers if key in _LOOKED_AT}
        host = found.get(b"host", b"").decode("latin-1").lower()
        if self.local and host and not self._known(host):
            return Refused(
                403,
                f"{host!r} is no name of this machine, and may be a web site's trick; if it is yours, start the gateway"
                f" with --allow-origin http://{host}",
                code="foreign_host",
            )
        origin = found.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin in (allowed.lower() for allowed in self.origins):
            return None
        site = found.get(b"sec-fetch-site")
        if site is not None:
            # From elsewhere only whole pages are asked for: a link is followed, nothing is done behind one's back.
            followed = method in ("GET", "HEAD") and found.get(b"sec-fetch-mode") == b"navigate" and not origin
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

    def _known(self, host: str) -> bool:
        return is_never_public(host) or any(origin.lower().partition("://")[2] == host for origin in self.origins)


def is_never_public(host: str) -> bool:
    """Whether a `Host` header's value is an address, or a name that no stranger can make point here."""
    name = _PORT.sub("", host).strip("[]").rstrip(".")
    try:
        ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_NEVER_PUBLIC)
    return True


class Guard:
    """Refuses what `Browsers` refuses before anything else sees it. An ASGI app around another."""

    def __init__(self, app: ASGIApp, browsers: Browsers, refusals: Counter[str]) -> None:
        self._app = app
        self._browsers = browsers
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "http":
            refused = self._browsers.refused(scope["headers"], method=scope["method"])
            if refused is not None:
                self._refusals[refused.code] += 1
                await Exchange(scope, receive, send, max_body_bytes=0, timeout_s=1.0).refuse(refused)
                return
        await self._app(scope, receive, send)
