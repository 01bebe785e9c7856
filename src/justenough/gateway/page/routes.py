"""The paths and files of the page, and their headers."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from justenough.gateway.exchange import Receive, Scope, Send

ASSETS: Final = "/v1/justenough/page"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The browser loads only these files, and text cannot become markup even if they contain a bug."""
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # The browser must ask each time, otherwise it could mix files of two versions.
    "cache-control": "no-cache",
}
_OWN: Final = files("justenough").joinpath("gateway", "page", "assets")
_REPORT_STYLE: Final = files("justenough").joinpath("report", "assets", "report.css")
"""The report's style, which the page shares. Only the file is used, not the report's code."""
_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "json": "application/json",
}
OFF: Final = (
    "The page is off: by `--no-playground`, or because other machines can reach the gateway. The option --playground"
    " shows it. The API is at /v1, the status is at /v1/justenough/status.\n"
)


class Asset:
    """One file of the page. An ASGI app."""

    def __init__(self, file: Traversable) -> None:
        body, name = file.read_bytes(), file.name
        self._tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        kind = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
        headers = HEADERS | {"etag": self._tag, "content-type": kind}
        self._whole = Response(body, headers=headers)
        self._unchanged = Response(status_code=304, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        unchanged = any(key == b"if-none-match" and value == self._tag.encode() for key, value in scope["headers"])
        await (self._unchanged if unchanged else self._whole)(scope, receive, send)


def page(*, shown: bool) -> dict[str, ASGIApp]:
    """The apps of the page by path; if the page is off, they answer 404 with an explanation."""
    if not shown:
        off = PlainTextResponse(OFF, status_code=404)
        return {"/": off, f"{ASSETS}/{{name}}": off}
    assets = {file.name: Asset(file) for file in (*_OWN.iterdir(), _REPORT_STYLE)}
    return {"/": assets["page.html"], **{f"{ASSETS}/{name}": asset for name, asset in assets.items()}}
