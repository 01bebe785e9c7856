"""An upstream that cannot be asked yet: its own answers pass, and it is asked again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.gateway.service import _PATIENT_PROBES, _QUICK_PROBES
from justenough.gateway.settings import BudgetSettings
from justenough.gateway.upstream import capability
from justenough.gateway.upstream.capability import call
from justenough.gateway.upstream.client import Upstream
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


BAD = (
    (500, b'{"error":{"message":"x"}}'),
    (404, b'{"detail":"Not Found"}'),
    (408, b""),
    (520, b"<html>"),
    (200, b"<html>ok</html>"),
    (200, b'{"choices":[]}'),
    (400, b"<html>bad</html>"),
)


@pytest.mark.parametrize(("status", "body"), BAD)
@pytest.mark.parametrize("bad", [1, _QUICK_PROBES])
def test_one_bad_answer_to_the_probe_settles_nothing(
    status: int, body: bytes, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = bad

    async def sometimes(upstream: Upstream, method: str, target: str, **rest: Any) -> tuple[int, bytes]:
        nonlocal left
        if target == "/v1/chat/completions" and left:
            left -= 1
            return status, body
        return await call(upstream, method, target, **rest)

    monkeypatch.setattr(capability, "call", sometimes)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (_, client):
            reasons = []
            for _ in range(bad):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                reasons.append(answer.headers["x-justenough"])
                assert answer.status_code == 200
            assert reasons[:-1] == ["relayed; reason=not_probed"] * (bad - 1)
            assert reasons[-1].startswith("stopped")

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [400, 405, 422])
def test_a_refusal_in_json_settles_that_no_chat_is_continued(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 0

    async def refusing(upstream: Upstream, method: str, target: str, **rest: Any) -> tuple[int, bytes]:
        nonlocal probes
        if target == "/v1/chat/completions":
            probes += 1
            return status, b'{"error":{"message":"no prefill here"}}'
        return (404, b"") if method == "POST" else await call(upstream, method, target, **rest)

    monkeypatch.setattr(capability, "call", refusing)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT)) as (gateway, client):
            for _ in range(3):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert "cannot_continue" in answer.headers["x-justenough"]
            assert gateway.service.capabilities is not None
            assert (gateway.service.capabilities.chat, gateway.service.capabilities.conclusive) == (None, True)
        assert probes == 1

    asyncio.run(scenario())


def test_an_upstream_that_is_never_conclusive_is_asked_more_and_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = 0

    async def failing(upstream: Upstream, method: str, target: str, **rest: Any) -> tuple[int, bytes]:
        nonlocal probes
        if target == "/v1/chat/completions":
            probes += 1
            return 404, b""
        return await call(upstream, method, target, **rest)

    monkeypatch.setattr(capability, "call", failing)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT)) as (gateway, client):
            for _ in range(20):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.headers["x-justenough"] == "relayed; reason=not_probed"
            assert probes == _QUICK_PROBES + 1
            while gateway.service.capabilities is None:
                gateway.service._probe_at = 0.0
                await client.post("/v1/chat/completions", json=CHAT)
            assert probes == _PATIENT_PROBES + 1
            assert not gateway.service.capabilities.conclusive
            monkeypatch.setattr(capability, "call", call)
            gateway.service._probe_at = 0.0
            assert (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


@pytest.mark.parametrize("target", ["/props", "/version", "/v1/models"])
@pytest.mark.parametrize("status", [500, 502, 429, 408])
def test_one_bad_answer_to_another_call_of_the_probe_settles_nothing(
    target: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 1

    async def sometimes(upstream: Upstream, method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        nonlocal left
        if path == target and left:
            left -= 1
            return status, b"<html>busy</html>"
        return await call(upstream, method, path, **rest)

    monkeypatch.setattr(capability, "call", sometimes)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (gateway, client):
            for _ in range(2):
                answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.json()["justenough"]["decision"] == "stopped"
            assert gateway.service.capabilities is not None
            assert (gateway.service.capabilities.engine, gateway.service.capabilities.models) == ("vllm", ("mock",))

    asyncio.run(scenario())
