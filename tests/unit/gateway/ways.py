"""The ways through the gateway before a mock upstream, and the proof that nothing is left over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import httpx

from justenough.gateway.settings import BudgetSettings, GatewaySettings, Limits
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import Running, calibration_of, running

CHAT: Final[dict[str, Any]] = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}
THOUGHT: Final = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
RELAYED: Final = ("off", "counted")
GATED: Final = ("streaming", "sequential")
WAYS: Final = (*RELAYED, *GATED)
"""Relayed untouched, relayed under a token budget, and the gate's two shapes."""


class Hold:
    """Holds a mock upstream before the token with this number, from 0, until the test lets it go on."""

    def __init__(self, mock: MockUpstream, at: int) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._tokens, self._at = 0, at
        mock.before_token = self._wait

    async def _wait(self) -> None:
        if self._tokens >= self._at:
            self.reached.set()
            await self.go_on.wait()
        self._tokens += 1


def settings_for(way: str, url: str, **limits: Any) -> GatewaySettings:
    bounds = Limits(**{"idle_timeout_s": 0.2, **limits})
    base = GatewaySettings(upstream=url, audit_share=0.0, close="</think>", limits=bounds)
    if way == "off":
        return replace(base, mode="off")
    if way == "counted":
        return replace(base, mode="off", budget=BudgetSettings(tokens=1_000_000))
    if way == "observing":
        return base
    if way == "streaming":
        return replace(base, calibration=calibration_of(1.0))
    return replace(base, calibration=calibration_of(1.0, shape="sequential", splitter="completion"))


@asynccontextmanager
async def faulty(way: str, mock: MockUpstream, **limits: Any) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """A gateway before a mock; when it ends nothing may be left under way."""
    async with mock, running(settings_for(way, mock.url, **limits)) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            yield gateway, client
        await settled(gateway)


async def settled(gateway: Running) -> None:
    """Nothing is left under way; fails by the timeout."""
    async with asyncio.timeout(30):
        while gateway.service.active or gateway.service.upstream.open_requests:
            await asyncio.sleep(0.005)


def ends_well(answer: httpx.Response, *, stream: bool) -> bool:
    """Whether it is a whole answer."""
    if stream:
        return answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")
    return bool(answer.status_code == 200 and answer.json()["choices"][0]["finish_reason"] == "stop")


def ends_in_error(answer: httpx.Response) -> Any:
    """The code of the error event that ends a stream."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in answer.text
    last = [event for event in answer.text.split("\n\n") if event.strip()][-1]
    return json.loads(last.removeprefix("data: "))["error"]["code"]
