"""HTTP for the OpenAI backend: address, key, retries and errors of a server. No message contains the key."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from contextlib import suppress
from typing import Final

import httpx

from justenough.errors import BackendError, BackendRejected, BackendUnavailable, ContextExceeded, InputError
from justenough.wire.answers import read_models
from justenough.wire.chunks import error_message
from justenough.wire.values import read_json

TRIES: Final = 3
WITHIN: Final = 10.0
"""Seconds within which every attempt must start and connect."""
ANSWER: Final = 600.0
"""Seconds without data after which a request to a connected server fails."""
LOADING: Final = 600.0
"""Seconds to wait for a server that answers 503 because it is still loading its model."""

_CONNECT: Final = 3.0
_FIRST_PAUSE: Final = 0.25
_ERROR_LIMIT: Final = 1 << 16
_LOADING: Final = re.compile(r"(?i)loading (the )?model|model is (still )?loading")
_LOADING_PAUSE: Final = 1.0
# llama.cpp, OpenAI and vLLM, SGLang; each with its own words.
_CONTEXT: Final = re.compile(r"(?i)context[ _](size|length|window)|exceeds? the (model's )?(maximum )?context")

log: Final = logging.getLogger("justenough.backends")


class Site:
    """Base URL and key of a server; its text form contains no secret."""

    def __init__(self, base_url: str) -> None:
        try:
            url = httpx.URL(base_url.strip())
        except httpx.InvalidURL as error:
            raise InputError(f"the base URL is not valid: {error}", hint="such as http://127.0.0.1:8000/v1") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise InputError(
                f"{url.copy_with(userinfo=b'')} is not a base URL", hint="such as http://127.0.0.1:8000/v1"
            )
        path = url.path.rstrip("/") or "/v1"
        self._url = url.copy_with(path=f"{path}/", query=None, fragment=None)
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise InputError("OPENAI_API_KEY contains characters that cannot be sent", hint="set it again")
        self._headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # No proxy can reach a server on this machine.
        self._proxies = not re.fullmatch(r"localhost|127(\.\d+){3}|::1", url.host)

    def __str__(self) -> str:
        return str(self._url.copy_with(userinfo=b"")).rstrip("/")

    @property
    def is_openai(self) -> bool:
        """Whether this is the server of OpenAI itself."""
        return self._url.host == "api.openai.com"

    def redact(self, text: str) -> str:
        """A text from the server, with the key replaced if the server repeated it."""
        return text.replace(self._key, "[key]") if self._key else text

    def client(self) -> httpx.AsyncClient:
        """A client for the server; it follows no redirect, and uses no proxy for a server on this machine."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=4.0)
        return httpx.AsyncClient(base_url=self._url, headers=self._headers, limits=limits, trust_env=self._proxies)

    def get(self, path: str, *, timeout: httpx.Timeout) -> httpx.Response:
        """One blocking GET request."""
        return httpx.get(self._url.join(path), headers=self._headers, timeout=timeout, trust_env=self._proxies)


class Patience:
    """Allows up to `TRIES` attempts within `WITHIN` seconds, with pauses that grow or that the server asks for.

    It waits up to `LOADING` seconds for a server that is loading its model; these attempts do not count.
    """

    def __init__(self) -> None:
        self._deadline = time.monotonic() + WITHIN
        self._tries = 0
        self._loading_until: float | None = None

    def timeout(self) -> httpx.Timeout:
        """The timeout of the next attempt."""
        remaining = max(0.1, self._deadline - time.monotonic())
        return httpx.Timeout(ANSWER, connect=min(_CONNECT, remaining), pool=None)

    def pause(self, outcome: httpx.RequestError | httpx.Response, *, reason: str = "") -> float | None:
        """Seconds until the next attempt; None if there is none. `reason` is the server's message."""
        if isinstance(outcome, httpx.Response) and outcome.status_code == 503 and _LOADING.search(reason):
            return self._loading_pause()
        pause = _FIRST_PAUSE * 2.0**self._tries
        self._tries += 1
        if isinstance(outcome, httpx.Response):
            if outcome.status_code != 429 and outcome.status_code < 500:
                return None
            pause = max(pause, _retry_after(outcome))
        elif isinstance(outcome, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
            # Usually the server closed an idle connection: a new connection can be opened at once.
            pause = 0.0 if self._tries == 1 else pause
        elif not isinstance(outcome, httpx.NetworkError | httpx.ConnectTimeout | httpx.ProxyError):
            return None
        return pause if self._tries < TRIES and time.monotonic() + pause < self._deadline else None

    @property
    def loading(self) -> bool:
        """Whether the server has answered that it is loading its model."""
        return self._loading_until is not None

    def _loading_pause(self) -> float | None:
        now = time.monotonic()
        if self._loading_until is None:
            self._loading_until = now + LOADING
            log.warning("the server is loading its model: waiting up to %.0f s", LOADING)
        self._deadline = now + WITHIN
        return _LOADING_PAUSE if now < self._loading_until else None

    async def again(self, outcome: httpx.RequestError | httpx.Response, *, reason: str = "") -> bool:
        """Wait until the next attempt; False if there is none."""
        pause = self.pause(outcome, reason=reason)
        if pause is None:
            return False
        await asyncio.sleep(pause)
        return True


def _retry_after(response: httpx.Response) -> float:
    """Seconds from the header; 0 for a date, because the clocks may differ."""
    seconds = response.headers.get("retry-after", "")
    return float(seconds) if re.fullmatch(r"\d+(\.\d+)?", seconds) else 0.0


def models_of(site: Site, *, optional: bool) -> dict[str, str]:
    """The names of the server's models, each with its `owned_by`.

    Raises `BackendUnavailable` if the server cannot be reached. If `optional`, a server that lists no models gives {}.
    """
    patience = Patience()
    while True:
        try:
            response = site.get("models", timeout=patience.timeout())
        except httpx.RequestError as error:
            if (pause := patience.pause(error)) is None:
                raise unreachable(error, site) from error
            time.sleep(pause)
            continue
        if response.status_code == 200:
            try:
                return {model.id: model.owned_by or "unknown" for model in read_models(response.content)}
            except BackendRejected as error:
                if optional:
                    return {}
                raise BackendRejected(f"{site}: {error.args[0]}", status=error.status, hint=error.hint) from error
        pause = patience.pause(response, reason=response.text)
        if optional and (pause is None or not patience.loading):
            return {}
        if pause is None:
            raise _refusal(response.status_code, response.content[:_ERROR_LIMIT], response, site)
        time.sleep(pause)


async def rejected(response: httpx.Response, site: Site) -> BackendError:
    """The error for an open response that is not a usable stream; reads the body up to a limit."""
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


def _refusal(status: int, body: bytes, response: httpx.Response, site: Site) -> BackendError:
    text = body.decode("utf-8", errors="replace")
    reason = None
    if response.is_redirect:
        reason = f"it redirects to {response.headers.get('location', '')}, and redirects are not followed"
    else:
        with suppress(BackendRejected):
            reason = error_message(read_json(body))
    if reason is None and status == 200:
        reason = f"it answered with {response.headers.get('content-type', '')} instead of a stream"
    reason = reason or " ".join(text[:300].split()) or "(no text)"
    if status in (400, 413, 422) and _CONTEXT.search(text):
        return ContextExceeded(f"{site} answered {status}: {site.redact(reason)}", hint="use fewer steps")
    return BackendRejected(
        f"{site} answered {status}: {site.redact(reason)}",
        status=status,
        retryable=status == 429 or status >= 500,
        hint=_HINTS.get(status, _NO_LOGPROBS if "logprob" in reason.lower() else ""),
    )


_NO_LOGPROBS: Final = "lower --top-k to the server's limit, or choose a model for which the server returns them"
_HINTS: Final = {
    **dict.fromkeys((301, 302, 307, 308), "give the final address as base URL"),
    401: "set OPENAI_API_KEY",
    403: "the key in OPENAI_API_KEY has no permission for this",
    404: "check the model's name, and whether the base URL ends in /v1",
    429: "lower --concurrency, or wait",
}


def unreachable(error: httpx.RequestError, site: Site) -> BackendUnavailable:
    """The error for a server that did not answer."""
    what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    detail = site.redact(str(error)) or type(error).__name__
    return BackendUnavailable(f"{site} {what}: {detail}", hint="is the server running, and the base URL right?")
