"""What both real servers are asked through a gateway, and how."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from justenough.gateway.settings import GatewaySettings
from justenough.wire.events import DONE, EventReader
from tests.unit.gateway.serving import Running, calibration_of, running

MODEL = "justenough-embedded"
CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "47*36"}],
    "seed": 1,
    "max_tokens": 400,
}
TEXT: dict[str, Any] = {"model": MODEL, "prompt": "<|user|>47*36<|end|><|assistant|>", "seed": 1, "max_tokens": 400}
ANYTHING = 1e6
"""A threshold, bits, that every paragraph is below."""


def through(
    url: str,
    scenario: Callable[[Running, httpx.AsyncClient], Coroutine[None, None, None]],
    *,
    threshold: float | None = ANYTHING,
    model: str = MODEL,
    temperature: float = 0.8,
    **settings: Any,
) -> None:
    calibration = calibration_of(threshold, model=model, temperature=temperature)
    given: dict[str, Any] = {"calibration": calibration, "audit_share": 0.0, "close": "</think>"} | settings

    async def main() -> None:
        async with (
            running(GatewaySettings(upstream=url, **given)) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=120) as client,
        ):
            await scenario(gateway, client)

    asyncio.run(main())


def payloads(text: str) -> list[Any]:
    return [json.loads(found) for found in EventReader().feed(text.encode()) if found != DONE]
