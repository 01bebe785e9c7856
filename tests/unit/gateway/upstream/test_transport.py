"""What may happen between the gateway and its upstream: compression, connections that close silently, a slow probe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web

from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream import capability, probing
from justenough.gateway.upstream import client as upstream_client
from justenough.gateway.upstream.capability import call
from justenough.gateway.upstream.client import Upstream
from justenough.testing import CONFIDENT, Fault, MockUpstream
from tests.unit.gateway.serving import calibration_of, running
from tests.unit.gateway.ways import CHAT, GATED, THOUGHT, WAYS, ends_well, faulty, settings_for


@asynccontextmanager
async def compressing(target: str) -> AsyncIterator[str]:
    """A proxy that compresses every answer with gzip, whatever the client accepts."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with session.request(request.method, target + request.path_qs, data=body) as got:
            out = web.StreamResponse(status=got.status, headers={"content-type": got.headers["content-type"]})
            out.enable_compression(web.ContentCoding.gzip)
            await out.prepare(request)
            async for part in got.content.iter_any():
                await out.write(part)
            await out.write_eof()
        return out

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    await runner.cleanup()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_comes_compressed_is_decoded(way: str, stream: bool) -> None:
    async def main() -> None:
        async with (
            MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)) as mock,
            compressing(mock.url) as url,
            running(settings_for(way, url)) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert ends_well(answer, stream=stream)
            if way in GATED:
                assert '"decision":"stopped"' in answer.text
                assert "content-encoding" not in answer.headers
            missing = await client.post("/v1/chat/completions", json={**CHAT, "messages": []})
            assert (missing.status_code, missing.json()["error"]["code"]) == (400, 400)

    asyncio.run(main())


@pytest.mark.parametrize("way", GATED)
def test_a_gated_request_asks_for_no_compression(way: str) -> None:
    mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))

    async def asked() -> None:
        async with faulty(way, mock) as (_, client):
            await client.post("/v1/chat/completions", json=CHAT, headers={"accept-encoding": "gzip, br"})

    asyncio.run(asked())
    assert {request.headers["accept-encoding"] for request in mock.completions} == {"identity"}


def test_a_relayed_request_keeps_the_encodings_that_its_client_accepts() -> None:
    mock = MockUpstream()

    async def main() -> None:
        async with faulty("off", mock) as (_, client):
            await client.post("/v1/chat/completions", json=CHAT, headers={"accept-encoding": "zstd"})

    asyncio.run(main())
    assert [request.headers["accept-encoding"] for request in mock.completions] == ["zstd"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/echo"])
@pytest.mark.parametrize("way", WAYS)
def test_a_reused_connection_that_was_closed_silently_is_replaced(
    monkeypatch: pytest.MonkeyPatch, way: str, path: str
) -> None:
    # A busy machine may notice the end of a connection late.
    monkeypatch.setattr(upstream_client, "_STALE_S", 30)

    async def main() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), requests_per_connection=1)
        async with faulty(way, mock) as (_, client):
            for _ in range(8):
                answer = await client.post(path, json=CHAT)
                expected = 200 if path != "/echo" else 403 if way == "counted" else 201
                assert answer.status_code == expected

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE_HEADERS, Fault.RESET_AFTER_HEADERS])
def test_a_request_that_broke_on_a_new_connection_is_not_repeated(fault: Fault) -> None:
    async def main() -> None:
        mock = MockUpstream(fault=fault)
        async with faulty("off", mock) as (_, client):
            try:
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.status_code == 502
            except httpx.RemoteProtocolError:
                assert fault is Fault.RESET_AFTER_HEADERS
            assert len(mock.completions) == 1

    asyncio.run(main())


def test_the_calibrated_model_is_probed_and_not_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"data": [{"id": "other"}, {"id": "mock"}, {"id": "third"}]}

    async def answer(upstream: Upstream, method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        return (
            (200, json.dumps(listed).encode()) if path == "/v1/models" else await call(upstream, method, path, **rest)
        )

    monkeypatch.setattr(capability, "call", answer)

    mock = MockUpstream()

    async def probed() -> None:
        async with faulty("streaming", mock) as (_, client):
            await client.post("/v1/chat/completions", json=CHAT)

    asyncio.run(probed())
    probes = [request.json()["model"] for request in mock.requests if b"Say OK." in request.body]
    assert probes
    assert set(probes) == {"mock"}


def test_the_gateway_answers_while_its_upstream_is_still_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LONGEST_WAIT_S", 0.05)
    answered = asyncio.Event()

    async def answer(upstream: Upstream, method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        await answered.wait()
        return await call(upstream, method, path, **rest)

    monkeypatch.setattr(capability, "call", answer)

    async def main() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)) as mock:
            settings = replace(GatewaySettings(upstream=mock.url, audit_share=0.0), calibration=calibration_of(1.0))
            async with (
                asyncio.timeout(30),
                running(settings) as gateway,
                httpx.AsyncClient(base_url=gateway.url) as client,
            ):
                assert (await client.get("/health")).status_code == 200
                early = await client.post("/v1/chat/completions", json=CHAT)
                assert (early.status_code, early.headers["x-justenough"]) == (200, "relayed; reason=not_probed")
                answered.set()
                while gateway.service.capabilities is None:
                    await asyncio.sleep(0.005)
                late = await client.post("/v1/chat/completions", json=CHAT)
                assert late.json()["justenough"]["decision"] == "stopped"

    asyncio.run(main())
