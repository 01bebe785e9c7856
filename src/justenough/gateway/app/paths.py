"""The gateway's own paths: health, metrics, status, requests under way and feedback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec
from starlette.routing import Route

from justenough.gateway.exchange import ClientGone, Exchange, Receive, Refused, Scope, Send
from justenough.gateway.service import Service
from justenough.gateway.status import gauges, status

_MOST_READY: Final = 32
"""Clients of `/ready` that may wait for the upstream at the same time: each has a connection that cannot be closed."""
Handler = Callable[[Exchange], Awaitable[None]]


class OwnPath:
    """Answers the requests of one path. An ASGI app."""

    def __init__(self, handler: Handler, *, timeout_s: float = 1.0) -> None:
        self._handler = handler
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        exchange = Exchange(scope, receive, send, max_body_bytes=64 * 1024, timeout_s=self._timeout_s)
        try:
            await self._handler(exchange)
        except Refused as refused:
            await exchange.refuse(refused)
        except ClientGone:
            return


def routes(service: Service) -> list[Route]:
    """The routes of the service's own paths; none of their requests reaches the upstream."""
    feedback = OwnPath(partial(_feedback, service), timeout_s=service.settings.limits.receive_timeout_s)
    return [
        Route("/health", OwnPath(partial(_answer_json, {"status": "ok"})), methods=["GET"]),
        Route("/ready", OwnPath(partial(_ready, service)), methods=["GET"]),
        Route("/metrics", OwnPath(partial(_metrics, service)), methods=["GET"]),
        Route("/v1/justenough/status", OwnPath(partial(_status, service)), methods=["GET"]),
        Route("/v1/justenough/requests", OwnPath(partial(_requests, service)), methods=["GET"]),
        Route("/v1/justenough/requests/{id}/answer", OwnPath(partial(_answer_now, service)), methods=["POST"]),
        Route("/v1/justenough/feedback", feedback, methods=["POST"]),
    ]


async def _answer_json(value: object, exchange: Exchange, *, code: int = 200) -> None:
    await exchange.answer(code, msgspec.json.encode(value))


async def _ready(service: Service, exchange: Exchange) -> None:
    # A client that owes its body must not keep others from asking.
    await exchange.body()
    reason = "shutting down"
    if service.ready_clients >= _MOST_READY:
        reason = "too many clients ask"
    elif not service.draining:
        service.ready_clients += 1
        try:
            reason = await exchange.unless_gone(service.readiness())
        finally:
            service.ready_clients -= 1
    await _answer_json({"status": reason}, exchange, code=200 if reason == "ok" else 503)


async def _metrics(service: Service, exchange: Exchange) -> None:
    page = service.metrics.text(gauges(service))
    await exchange.answer(200, page, content_type="text/plain; version=0.0.4; charset=utf-8")


async def _status(service: Service, exchange: Exchange) -> None:
    await _answer_json(status(service), exchange)


async def _requests(service: Service, exchange: Exchange) -> None:
    service.admits(exchange)
    key = exchange.key if service.settings.client_keys else None
    await _answer_json({"requests": service.under_way.shown(key)}, exchange)


async def _answer_now(service: Service, exchange: Exchange) -> None:
    service.admits(exchange)
    await exchange.body()
    name = exchange.path.split("/")[-2]
    service.under_way.answer_now(name, exchange.key)
    await _answer_json({"id": name}, exchange, code=202)


async def _feedback(service: Service, exchange: Exchange) -> None:
    service.admits(exchange)
    service.label(await exchange.body())
    await _answer_json(service.learning.feedback.summary(), exchange)
