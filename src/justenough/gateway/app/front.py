"""The way of a request into the service, without a server around it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Final

from justenough.gateway.apis.registry import shape_at
from justenough.gateway.exchange import ClientGone, Exchange, Receive, Refused, Scope, Send, bad_target, overloaded
from justenough.gateway.service import Service

log: Final = logging.getLogger("justenough.gateway")


class Front:
    """Admits requests, cancels those whose client leaves, and answers every error. An ASGI app."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._running: dict[Exchange, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        limits = self._service.settings.limits
        await self.answer(
            Exchange(scope, receive, send, max_body_bytes=limits.max_body_bytes, timeout_s=limits.receive_timeout_s)
        )

    async def answer(self, exchange: Exchange) -> None:
        """Answer an exchange."""
        service = self._service
        exchange.shape = shape_at(exchange.path, exchange.target)
        try:
            self._admit(exchange)
        except Refused as refused:
            service.metrics.refused[refused.code] += 1
            await exchange.refuse(refused)
            return
        self._running[exchange] = None
        service.active += 1
        service.metrics.requests += 1
        try:
            await exchange.unless_gone(service.serve(exchange))
        except ClientGone:
            service.metrics.client_disconnects += 1
        except Refused as refused:
            service.metrics.refused[refused.code] += 1
            await exchange.fail(refused)
        except asyncio.CancelledError:
            # The server cancels requests at the end of the grace period. Their clients get an error.
            await exchange.fail(_shutting_down())
            raise
        except Exception as error:  # noqa: BLE001
            # Any bug becomes an error for the client. The exception's text is not logged: it may quote the request.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("a request to %r failed: %s\n%s", exchange.path[:200], type(error).__name__, where)
            service.metrics.refused["internal_error"] += 1
            await exchange.fail(Refused(500, "the gateway has failed; see its log", code="internal_error"))
        finally:
            self._leave(exchange)

    def _admit(self, exchange: Exchange) -> None:
        service = self._service
        if not exchange.target.startswith("/"):
            raise bad_target()
        if service.draining:
            raise _shutting_down()
        # First the key: a client without it takes nobody's place.
        service.admits(exchange)
        if service.active >= service.settings.limits.max_concurrent:
            self._make_place()

    def _make_place(self) -> None:
        """Refuse the request that has waited longest for its body; raises `Refused` if every request has its own."""
        late = next((exchange for exchange in self._running if exchange.owes_body), None)
        if late is None:
            raise overloaded()
        late.give_way()
        self._leave(late)

    def _leave(self, exchange: Exchange) -> None:
        if exchange in self._running:
            del self._running[exchange]
            self._service.active -= 1


def _shutting_down() -> Refused:
    return Refused(503, "the gateway is shutting down", code="shutting_down", retry_after=5)
