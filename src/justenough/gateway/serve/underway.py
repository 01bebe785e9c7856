"""The requests under way: a client sees its own, and may end a thought of its own."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from justenough.gateway.exchange import Exchange, Refused
from justenough.gateway.serve.work import Work
from justenough.trace import Json


@dataclass(slots=True, kw_only=True)
class Request:
    """A request under way."""

    id: str
    exchange: Exchange
    began: float
    """On the loop's clock."""
    work: Work | None = None
    """What serves it; None if it is relayed, or nothing has been sent yet."""

    def is_served_by(self, work: Work | None) -> None:
        """Show what serves it; only a request that is not relayed tells its client its id."""
        self.work = work
        self.exchange.id = "" if work is None else self.id

    def is_of(self, key: str) -> bool:
        """Whether it came with this key; the key of a request without one is empty."""
        return hmac.compare_digest(self.exchange.key.encode("latin-1"), key.encode("latin-1"))

    def shown(self) -> Json:
        """What is shown of it, without text."""
        work = self.work
        return {
            "id": self.id,
            "path": self.exchange.path[:200],
            "course": "relay" if work is None else work.plan.course,
            "phase": None if work is None else work.phase,
            "tokens": None if work is None else work.generated,
            "seconds": round(asyncio.get_running_loop().time() - self.began, 3),
            "can_answer": work is not None and work.can_answer,
        }


class UnderWay:
    """All requests under way, by their ids."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}

    @contextmanager
    def of(self, exchange: Exchange) -> Iterator[Request]:
        """Give a request an id, and show it while the block runs."""
        name, began = secrets.token_hex(12), asyncio.get_running_loop().time()
        request = self._requests[name] = Request(id=name, exchange=exchange, began=began)
        try:
            yield request
        finally:
            del self._requests[name]

    def shown(self, key: str | None) -> Json:
        """The requests with this key, or all requests."""
        return [request.shown() for request in self._requests.values() if key is None or request.is_of(key)]

    def answer_now(self, name: str, key: str) -> None:
        """End the thought of a request at the next end of a step; raises `Refused` if that is impossible."""
        request = self._requests.get(name)
        if request is None or not request.is_of(key):
            message = f"no request {name[:64]!r} with this key is under way"
            raise Refused(404, message, code="unknown_request")
        if request.work is None or not request.work.can_answer:
            raise Refused(409, "this request has no thought that can be ended", code="no_thought")
        request.work.answer_now()
