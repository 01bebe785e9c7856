"""Who is admitted: keys in every header, preflights, `/ready` under a crowd, answers that HTTP cannot carry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.app import paths
from justenough.gateway.app.server import build_server
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import running
from tests.unit.gateway.ways import CHAT

PAGE = "https://chat.example.com"


@asynccontextmanager
async def keyed(mock: MockUpstream, *keys: str, keyless: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    settings = GatewaySettings(upstream=mock.url, mode="off", client_keys=() if keyless else keys or ("sk-client",))
    async with (
        running(settings, allow_origins=(PAGE,)) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        yield client


@asynccontextmanager
async def canned(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that gives one answer to every request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


OWN_PATHS = ("/", "/health", "/ready", "/metrics", "/v1/justenough/status", "/v1/justenough/feedback", "/openapi.json")
ASKS = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", *OWN_PATHS])
@pytest.mark.parametrize("keys", [("sk-client",), ()])
def test_a_preflight_of_an_allowed_page_needs_no_key_and_stays_here(path: str, keys: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock, *keys, keyless=not keys) as client:
            local = {"access-control-request-private-network": "true"}
            allowed = await client.options(path, headers={"origin": PAGE, **ASKS, **local})
            assert allowed.status_code == 204
            assert allowed.headers["access-control-allow-origin"] == PAGE
            assert allowed.headers["access-control-allow-methods"] == "POST"
            assert allowed.headers["access-control-allow-headers"] == "authorization"
            assert allowed.headers["access-control-allow-private-network"] == "true"
            assert "origin" in allowed.headers["vary"].lower()
            foreign = await client.options(path, headers={"origin": "https://evil.test", **ASKS})
            assert foreign.status_code == 403
            assert not [name for name in foreign.headers if name.startswith("access-control")]
            assert mock.requests == []

    asyncio.run(scenario())


def test_an_options_request_that_is_no_preflight_needs_a_key() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            for headers in ({"origin": PAGE}, ASKS):
                assert (await client.options("/v1/chat/completions", headers=headers)).status_code == 401

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/chat/completions", 200),
        ("POST", "/v1/justenough/feedback", 400),
        ("POST", "/health", 405),
        ("POST", "/v1/no/such/path", 404),
        *(("GET", path, 405 if path.endswith("feedback") else 200) for path in OWN_PATHS),
    ],
)
def test_an_allowed_page_can_read_every_answer_and_every_error(method: str, path: str, status: int) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            shown = {"origin": PAGE, "authorization": "Bearer sk-client"}
            answer = await client.request(method, path, json=CHAT if method == "POST" else None, headers=shown)
            assert answer.status_code == status
            assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
            assert "x-justenough" in answer.headers["access-control-expose-headers"]
            assert "origin" in answer.headers["vary"].lower()

    asyncio.run(scenario())


@pytest.mark.parametrize("shown", [{}, {"authorization": "Bearer sk-wrong"}])
def test_an_allowed_page_can_read_that_its_key_is_wrong(shown: dict[str, str]) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={"origin": PAGE, **shown})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, PAGE)

    asyncio.run(scenario())


def test_what_the_upstream_allows_is_not_passed_on() -> None:
    """llama.cpp allows the origin of each request, vLLM every origin."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\naccess-control-allow-origin: *\r\n"
    head += b"Access-Control-Allow-Credentials: true\r\ncontent-length: 2\r\nvary: accept\r\n\r\n{}"

    async def scenario() -> None:
        async with canned(head % b"application/json") as url:
            settings = GatewaySettings(upstream=url, mode="off", client_keys=("sk-client",))
            async with (
                running(settings, allow_origins=(PAGE,)) as gateway,
                httpx.AsyncClient(base_url=gateway.url) as client,
            ):
                for origin, sent in ((PAGE, [PAGE]), (None, [])):
                    shown = {"authorization": "Bearer sk-client", **({} if origin is None else {"origin": origin})}
                    answer = await client.post("/v1/chat/completions", json=CHAT, headers=shown)
                    assert answer.headers.get_list("access-control-allow-origin") == sent
                    assert "access-control-allow-credentials" not in answer.headers
                    assert {part.strip().lower() for part in answer.headers["vary"].split(",")} == {"accept", "origin"}

    asyncio.run(scenario())


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_a_client_key_opens_the_gateway_and_is_not_sent_on(header: str) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            shown = {header: "Bearer sk-client" if header == "authorization" else "sk-client"}
            other = {"x-api-key": "sk-client", "api-key": "sk-client", "x-goog-api-key": "sk-client"}
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={**other, **shown})
            assert answer.status_code == 200
            assert "sk-client" not in str(mock.requests[-1].headers)
            assert (await client.post("/v1/chat/completions", json=CHAT, headers={header: "sk-x"})).status_code == 401

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["clé-à", "ключ", "à", "sk-\u00a0x", "sk-x\u00a0", "\u3000sk", "sk\u0085", "s k", "鍵"])
def test_a_key_may_end_in_any_letter(key: str) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock, key) as client:
            shown = {"authorization": b"Bearer " + key.encode()}
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=shown)  # type: ignore[arg-type]
            assert answer.status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("credentials", "admitted"),
    [
        (b"Bearer sk-client", True),
        (b"bearer sk-client", True),
        (b"BEARER sk-client", True),
        (b"Bearer    sk-client", True),
        (b"Bearer\tsk-client", False),
        (b"Bearer \tsk-client", False),
        (b"Bearer\xc2\xa0sk-client", False),
        (b"Bearer sk-client\xc2\xa0", False),
        (b"Bearersk-client", False),
        (b"Basic sk-client", False),
        (b"sk-client", True),
        (b"Bearer", False),
    ],
)
def test_credentials_are_bearer_spaces_and_the_key(credentials: bytes, admitted: bool) -> None:
    """RFC 6750, 2.1, and RFC 9110, 11.4: the scheme in any case, one or more spaces, the key."""

    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            headers = [(b"authorization", credentials)]
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert answer.status_code == (200 if admitted else 401)
            assert "sk-client" not in str([each.headers for each in mock.requests])

    asyncio.run(scenario())


def test_a_key_counts_beside_another_kind_of_authorization() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            shown = {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "sk-client"}
            assert (await client.post("/v1/chat/completions", json=CHAT, headers=shown)).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["", " sk", "sk ", "sk\t", "sk\n", "s\x00k", "sk\x7f"])
@pytest.mark.parametrize("name", ["client_keys", "upstream_key"])
def test_a_key_that_no_header_can_hold_is_refused_at_the_start(name: str, key: str) -> None:
    value: Any = (key,) if name == "client_keys" else key
    with pytest.raises(InputError, match="cannot be sent") as refused:
        GatewaySettings(upstream="http://h", **{name: value})
    assert "sk" not in str(refused.value)


def test_ready_asks_the_upstream_once_for_all_and_lets_go_when_clients_leave() -> None:
    connections = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            server,
            running(GatewaySettings(upstream=url, mode="off")) as gateway,
            httpx.AsyncClient(base_url=gateway.url, limits=httpx.Limits(max_connections=None)) as client,
        ):
            asked = [asyncio.ensure_future(client.get("/ready")) for _ in range(60)]
            while not connections or gateway.service.ready_clients < min(60, paths._MOST_READY):
                await asyncio.sleep(0.01)
            assert connections == 1
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            async with asyncio.timeout(30):
                while gateway.server.server_state.tasks:
                    await asyncio.sleep(0.01)
            assert connections == 1

    asyncio.run(scenario())


def test_ready_says_within_seconds_that_the_upstream_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.gateway.service._READY_S", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            server,
            running(GatewaySettings(upstream=url, mode="off")) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as client,
        ):
            answer = await client.get("/ready")
            assert (answer.status_code, answer.json()["status"]) == (503, "upstream does not answer within 0.1 s")
            assert gateway.service.upstream.open_requests == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 199 Odd\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx-odd: a\x01b\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx-odd: a\x7fb\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-odd: \x1b[2J\r\n\r\ndata: [DONE]\n\n",
    ],
)
@pytest.mark.parametrize("mode", ["off", "observe"])
def test_an_answer_that_http_cannot_carry_is_a_502(head: bytes, mode: str) -> None:
    async def scenario() -> None:
        async with canned(head) as url:
            settings = replace(GatewaySettings(upstream=url), mode=mode)  # type: ignore[arg-type]
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
                assert answer.status_code == 502
                assert answer.json()["error"]["code"] == "upstream_broken"

    asyncio.run(scenario())


@pytest.mark.parametrize("header", ["openai-api-key", "anthropic-api-key", "cookie", "x-anything"])
def test_the_gateways_key_does_not_go_upstream_in_any_header(header: str) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, keyed(mock) as client:
            shown = {"authorization": "Bearer sk-client", header: "k=sk-client"}
            assert (await client.post("/v1/chat/completions", json=CHAT, headers=shown)).status_code == 200
            assert "sk-client" not in str(mock.requests[-1].headers)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "upstream", ["http://h:65536", "http://h:abc", "http://[::1", "http://h:0", "http://h/v1/chat/completions"]
)
def test_an_upstream_that_is_no_address_is_one_clear_error(upstream: str) -> None:
    with pytest.raises(InputError, match="is no base address"):
        GatewaySettings(upstream=upstream)


def test_a_port_beyond_all_ports_is_one_clear_error() -> None:
    with pytest.raises(InputError, match="cannot listen"):
        build_server(GatewaySettings(upstream="http://127.0.0.1:1"), host="127.0.0.1", port=70_000)
