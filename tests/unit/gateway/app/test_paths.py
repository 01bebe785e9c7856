"""Health, readiness and the methods of the gateway's own paths."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from justenough.gateway.app import paths
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import running
from tests.unit.gateway.test_gating import gated


def test_the_gateway_is_healthy_without_its_upstream_but_not_ready() -> None:
    async def main() -> None:
        settings = GatewaySettings(upstream="http://127.0.0.1:9", mode="off")
        async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            assert (await client.get("/health")).json() == {"status": "ok"}
            answer = await client.get("/ready")
            assert (answer.status_code, answer.json()) == (503, {"status": "the upstream is not reachable"})

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health/", 200),
        ("GET", "//metrics", 200),
        ("GET", "/v1//justenough/status/", 200),
        ("GET", "/v1/justenough/requests/", 200),
        ("POST", "//v1/justenough/requests/unknown/answer//", 404),
        ("POST", "/v1/justenough/feedback/", 400),
        ("GET", "/v1/justenough/feedback/", 405),
        ("GET", "//", 200),
        ("GET", "/openapi.json/", 200),
    ],
)
def test_slashes_in_an_own_path_send_nothing_to_the_upstream(method: str, path: str, status: int) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        mock.requests.clear()
        url = httpx.URL(gateway.url + path)
        answer = await client.request(method, url, content=b"secret", headers={"authorization": "Bearer secret"})
        assert answer.status_code == status
        assert mock.requests == []

    gated(scenario)


@pytest.mark.parametrize("path", ["/v1//models/", "/health/more", "/v1/justenough/requests/a/b/answer"])
def test_another_path_reaches_the_upstream_as_it_came(path: str) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.get(httpx.URL(gateway.url + path))
        assert mock.requests[-1].target == path

    gated(scenario)


def test_a_draining_gateway_is_not_ready() -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        assert (await client.get("/ready")).json() == {"status": "ok"}
        gateway.service.draining = True
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "shutting down"})
        assert (await client.get("/health")).status_code == 200

    gated(scenario)


def test_a_crowd_at_ready_does_not_wait_for_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_MOST_READY", 2)

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        gateway.service.ready_clients = 2
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "too many clients ask"})
        gateway.service.ready_clients = 1
        assert (await client.get("/ready")).json() == {"status": "ok"}
        assert gateway.service.ready_clients == 1

    gated(scenario)


def test_clients_that_owe_a_body_do_not_keep_others_from_asking_whether_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "_MOST_READY", 1)

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"GET /ready HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        async with asyncio.timeout(30):
            while not gateway.server.server_state.tasks:
                await asyncio.sleep(0.002)
            assert (await client.get("/ready")).json() == {"status": "ok"}
            # The late body is refused, so it was still awaited.
            assert b" 408 " in await reader.readline()
        writer.close()

    gated(scenario)


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/v1/justenough/status"])
def test_an_own_path_takes_get_only_and_never_reaches_the_upstream(path: str) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert (await client.get(path)).status_code == 200
        assert path not in [request.target for request in mock.requests]

    # In other modes the gateway itself reads the upstream's `/metrics`.
    gated(scenario, mode="off")


def test_feedback_takes_post_and_refuses_what_it_cannot_read() -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        path = "/v1/justenough/feedback"
        assert (await client.get(path)).headers["allow"] == "POST"
        invalid = await client.post(path, content=b"{")
        assert (invalid.status_code, invalid.json()["error"]["code"]) == (400, "invalid_feedback")
        large = await client.post(path, content=b"x" * 70_000)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")

    gated(scenario)
