"""An upstream that cannot be asked yet: its own answers pass, and it is asked again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.gateway.settings import BudgetSettings
from justenough.testing import CONFIDENT, MockUpstream
from tests.unit.gateway.serving import running
from tests.unit.gateway.ways import CHAT, GATED, THOUGHT, faulty, settings_for


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("way", GATED)
def test_the_first_client_with_the_upstreams_key_opens_the_gate(way: str, engine: Any) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), engine=engine, key="sk-right")
        async with faulty(way, mock) as (gateway, client):
            assert gateway.service.capabilities is None
            for shown in ({}, {"authorization": "Bearer sk-wrong"}):
                refused = await client.post("/v1/chat/completions", json=CHAT, headers=shown)
                assert (refused.status_code, refused.json()["error"]["message"]) == (401, "Invalid API Key")
                assert refused.headers["x-justenough"] == "relayed; reason=not_probed"
                assert gateway.service.capabilities is None
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer sk-right"})
            assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("way", GATED)
def test_an_upstream_that_still_loads_is_asked_again(way: str, engine: Any, counted: bool) -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), engine=engine, loading=True) as mock:
            settings = settings_for(way, mock.url)
            if counted:
                settings = replace(settings, budget=BudgetSettings(tokens=1_000))
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                early = await client.post("/v1/chat/completions", json=CHAT)
                assert (early.status_code, early.json()["error"]["message"]) == (503, "Loading model")
                assert gateway.service.capabilities is None
                mock.loading = False
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())
