"""Asking a server over HTTP: where it is, how long to wait, what its errors mean. The key appears in no message."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from typing import Final

import httpx

from justenough.errors import BackendError, BackendRejected, BackendUnavailable, InputError
from justenough.trace import Json
from justenough.wire import error_message, read_json, read_models

TRIES: Final = 3
WITHIN: Final = 10.0
"""Seconds in which the tries must begin and connect."""
ANSWER: Final = 600.0
"""Seconds of silence after which a connected server is given up."""

_CONNECT: Final = 3.0
_FIRST_PAUSE: Final = 0.25
_ERROR_LIMIT: Final = 1 << 16


class Site:
    """A server's base URL and key; printed without anything secret."""

    def __init__(self, base_url: str) -> None:
        try:
            url = httpx.URL(base_url.strip())
        except httpx.InvalidURL as error:
            raise InputError(
                f"the base URL cannot be read: {error}", hint="such as http://127.0.0.1:8000/v1"
            ) from error
        if url.scheme not in ("http", "https") or not url.host:
            raise InputError(f"{url.copy_with(userinfo=b'')} is no base URL", hint="such as http://127.0.0.1:8000/v1")
        path = url.path.rstrip("/") or "/v1"
        self._url = url.copy_with(path=f"{path}/", query=None, fragment=None)
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise InputError("OPENAI_API_KEY holds characters that no key has", hint="set it anew")

    def __str__(self) -> str:
        return str(self._url.copy_with(userinfo=b"")).rstrip("/")

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI's own."""
        return self._url.host == "api.openai.com"

    @property
    def _is_local(self) -> bool:
        if self._url.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self._url.host).is_loopback
        except ValueError:
            return False

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def redact(self, text: str) -> str:
        """A text of the server's without the key, should it repeat it."""
        return text.replace(self._key, "[key]") if self._key else text

    def client(self) -> httpx.AsyncClient:
        """Connections to it; no redirect is followed, and this machine is not reached through a proxy."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=4.0)
        return httpx.AsyncClient(base_url=self._url, headers=self._headers, limits=limits, trust_env=not self._is_local)

    def get(self, path: str, *, timeout: httpx.Timeout) -> httpx.Response:
        """One GET, waited for."""
        return httpx.get(self._url.join(path), headers=self._headers, timeout=timeout, trust_env=not self._is_local)


class Patience:
    """At most `TRIES` tries that begin within `WITHIN` seconds; pauses grow, or are as the server asks for."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + WITHIN
        self._tries = 0

    def timeout(self) -> httpx.Timeout:
        """For the next try."""
        left = max(0.1, self._deadline - time.monotonic())
        return httpx.Timeout(ANSWER, connect=min(_CONNECT, left), pool=None)

    def pause(self, outcome: httpx.RequestError | httpx.Response) -> float | None:
        """Seconds until the next try; None where there is none."""
        self._tries += 1
        if isinstance(outcome, httpx.Response):
            if outcome.status_code != 429 and outcome.status_code < 500:
                return None
            pause = max(self._growing(), _retry_after(outcome))
        elif isinstance(outcome, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
            # Most often a kept connection that the server had closed meanwhile: a new one is at hand.
            pause = 0.0 if self._tries == 1 else self._growing()
        elif isinstance(outcome, httpx.NetworkError | httpx.ConnectTimeout | httpx.ProxyError):
            pause = self._growing()
        else:
            return None
        return pause if self._tries < TRIES and time.monotonic() + pause < self._deadline else None

    def _growing(self) -> float:
        return float(_FIRST_PAUSE * 2 ** (self._tries - 1))

    async def again(self, outcome: httpx.RequestError | httpx.Response) -> bool:
        """Wait for the next try; False where there is none."""
        pause = self.pause(outcome)
        if pause is None:
            return False
        await asyncio.sleep(pause)
        return True


def _retry_after(response: httpx.Response) -> float:
    """Seconds; a date is read as the growing pause, since clocks differ."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    return seconds if seconds >= 0 else 0.0


def models_of(site: Site, *, optional: bool) -> dict[str, str]:
    """Names of the server's models and `owned_by` of each.

    Raises `BackendUnavailable` where it cannot be reached. That it does not list them is no error if `optional`.
    """
    patience = Patience()
    while True:
        try:
            response = site.get("models", timeout=patience.timeout())
        except httpx.RequestError as error:
            pause = patience.pause(error)
            if pause is None:
                raise unreachable(error, site) from error
            time.sleep(pause)
            continue
        if response.status_code == 200:
            try:
                return {model.id: model.owned_by or "unknown" for model in read_models(response.content)}
            except BackendRejected:
                if optional:
                    return {}
                raise
        if optional:
            return {}
        pause = patience.pause(response)
        if pause is None:
            raise _refusal(response.status_code, response.content[:_ERROR_LIMIT], response, site)
        time.sleep(pause)


async def rejected(response: httpx.Response, site: Site) -> BackendError:
    """The error that an open response other than a good stream stands for; its body is read to a limit."""
    body = b""
    try:
        async for data in response.aiter_bytes():
            body += data
            if len(body) > _ERROR_LIMIT:
                break
    except httpx.RequestError as error:
        if response.status_code == 200:
            return unreachable(error, site)
    return _refusal(response.status_code, body, response, site)


def _refusal(status: int, body: bytes, response: httpx.Response, site: Site) -> BackendRejected:
    if status == 200:
        kind = response.headers.get("content-type", "")
        said = _words(body) if error_message(_json(body)) else f"it answered with {kind} instead of a stream"
    elif response.is_redirect:
        said = f"it sends elsewhere, to {response.headers.get('location', '')}, which is not followed"
    else:
        said = _words(body)
    return BackendRejected(
        f"{site} answered {status}: {site.redact(said)}",
        status=status,
        retryable=status == 429 or status >= 500,
        hint=_HINTS.get(status, ""),
    )


_HINTS: Final = {
    301: "give the final address as base URL",
    302: "give the final address as base URL",
    307: "give the final address as base URL",
    308: "give the final address as base URL",
    401: "set OPENAI_API_KEY",
    403: "the key of OPENAI_API_KEY may not do this",
    404: "check the model's name, and whether the base URL ends in /v1",
    429: "lower --concurrency, or wait",
}


def _json(body: bytes) -> Json:
    try:
        return read_json(body)
    except BackendRejected:
        return None


def _words(body: bytes) -> str:
    said = error_message(_json(body)) or " ".join(body[:300].decode("utf-8", errors="replace").split())
    return said or "without a word"


def unreachable(error: httpx.RequestError, site: Site) -> BackendUnavailable:
    """The error for a server that could not be asked."""
    what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    detail = f": {site.redact(str(error))}" if str(error) else f": {type(error).__name__}"
    return BackendUnavailable(f"{site} {what}{detail}", hint="is the server running, and the base URL right?")
