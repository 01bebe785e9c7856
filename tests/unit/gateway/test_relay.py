"""Off mode: bytes through, faults told, limits kept, clients that leave noticed."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.app.server import build_server
from justenough.gateway.settings import GatewaySettings, Limits, is_loopback
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import Running, running

CHAT = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}


def relayed(
    scenario: Callable[[Running, MockUpstream, httpx.AsyncClient], Coroutine[None, None, None]],
    *,
    upstream: MockUpstream | None = None,
    limits: Limits | None = None,
    **settings: object,
) -> None:
    """Run a scenario on a gateway in off mode."""

    async def main() -> None:
        async with upstream or MockUpstream() as mock:
            base = GatewaySettings(upstream=mock.url, mode="off", limits=limits or Limits())
            configured = replace(base, **settings)  # type: ignore[arg-type]
            async with (
                running(configured) as gateway,
                httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
            ):
                await scenario(gateway, mock, client)

    asyncio.run(main())


def test_every_path_method_header_and_byte_goes_through_as_it_came() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = bytes(range(256))
        answer = await client.request(
            "PATCH",
            "/echo/a%2Fb//c?x=1&y=%20&y=2",
            content=body,
            headers={
                b"x-custom": b"kept",
                b"x-title": "Übung".encode(),
                b"authorization": b"Bearer secret",
                b"te": b"trailers",
                b"connection": b"x-hop",
            },
        )
        assert answer.status_code == 201
        assert answer.headers["x-mock"] == "1"
        assert answer.headers["x-mock-list"] == "a, b"
        assert answer.headers["x-justenough"] == "relayed; reason=path"
        seen = answer.json()
        assert (seen["method"], seen["target"]) == ("PATCH", "/echo/a%2Fb//c?x=1&y=%20&y=2")
        assert seen["body"].encode("latin-1") == body
        assert seen["headers"]["x-custom"] == "kept"
        assert seen["headers"]["x-title"].encode("latin-1") == "Übung".encode()
        assert seen["headers"]["authorization"] == "Bearer secret"
        assert seen["headers"]["host"] == mock.url.removeprefix("http://")
        assert not {"te", "transfer-encoding", "x-justenough"} & set(seen["headers"])

    relayed(scenario)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_completions_through_and_direct_are_the_same_bytes(path: str, stream: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = json.dumps({**CHAT, "prompt": "What?", "stream": stream, "unknown": [1.10, "é"]}, indent=3)
        through = await client.post(path, content=body)
        async with httpx.AsyncClient(base_url=mock.url) as straight:
            direct = await straight.post(path, content=body)
        assert through.content == direct.content
        ours = {"x-justenough", "transfer-encoding"}
        assert {k: v for k, v in through.headers.items() if k not in ours} == {
            k: v for k, v in direct.headers.items() if k not in ours
        }
        assert mock.requests[0].body == mock.requests[1].body == body.encode()

    relayed(scenario)


def test_a_large_body_reaches_the_upstream_whole() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = json.dumps({**CHAT, "user": "x" * (3 << 20)}).encode()
        assert (await client.post("/v1/chat/completions", content=body)).status_code == 200
        (request,) = mock.completions
        assert request.body == body
        assert request.headers["content-length"] == str(len(body))
        assert "content-type" not in request.headers

    relayed(scenario)


def test_the_justenough_object_never_reaches_the_upstream() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**CHAT, "justenough": {"mode": "gate"}, "seed": 12345678901234567890123}
        await client.post("/v1/chat/completions", json=body)
        assert mock.requests[-1].json() == {**CHAT, "seed": 12345678901234567890123}
        bad = await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"mode": "fast"}})
        assert bad.status_code == 400
        assert bad.json()["error"]["code"] == "invalid_justenough"
        assert len(mock.completions) == 1

    relayed(scenario)


def test_a_body_that_is_no_json_is_the_upstreams_to_judge() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", content=b'{"messages": NaN, ')
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        assert mock.requests[0].body == b'{"messages": NaN, '

    relayed(scenario)


def test_too_large_bodies_and_headers_are_refused() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async def in_pieces() -> object:
            for _ in range(3):
                yield b"x" * 500

        for path in ("/v1/chat/completions", "/v1/files"):
            for content in (b"x" * 1001, in_pieces()):
                answer = await client.post(path, content=content)  # type: ignore[arg-type]
                assert answer.status_code == 413, path
                assert answer.json()["error"]["code"] == "request_too_large"
        for size in (5000, 200_000):
            answer = await client.get("/v1/models", headers={"x-large": "y" * size})
            assert answer.status_code == 431
            assert answer.json()["error"]["code"] == "headers_too_large"
        assert (await client.get("/v1/models")).status_code == 200

    relayed(scenario, limits=Limits(max_body_bytes=1000, max_header_bytes=4096))


def test_slow_headers_and_bodies_are_ended() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n")
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 30)
        writer.close()

    relayed(scenario, limits=Limits(receive_timeout_s=0.2))


def test_more_requests_than_allowed_get_503_and_are_told_when_to_come_back() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        first = asyncio.ensure_future(client.post("/v1/chat/completions", json={**CHAT, "stream": True}))
        while not mock.generated:
            await asyncio.sleep(0.01)
        second = await client.get("/v1/models")
        assert second.status_code == 503
        assert second.headers["retry-after"] == "1"
        assert second.json()["error"]["code"] == "overloaded"
        assert (await client.get("/health")).status_code == 200
        assert (await first).status_code == 200

    relayed(scenario, upstream=MockUpstream(interval_s=0.03), limits=Limits(max_concurrent=1))


def test_a_whole_request_takes_the_place_of_one_whose_body_is_late() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        late = []
        for _ in range(3):
            late.append(await asyncio.open_connection(host, int(port)))
            late[-1][1].write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
            while (await client.get("/v1/justenough/status")).json()["active"] != 1:
                await asyncio.sleep(0.01)
            if len(late) > 1:
                assert b" 503 " in await late[-2][0].readline()
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert b" 503 " in await late[-1][0].readline()
        for _, writer in late:
            writer.close()

    relayed(scenario, limits=Limits(max_concurrent=1))


def test_a_client_without_the_key_takes_nobodys_place() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body, head = json.dumps(CHAT).encode(), b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-1\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n{" % len(body))
        while gateway.service.active != 1:
            await asyncio.sleep(0.01)
        answer = await client.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": "sk-2"})
        assert answer.status_code == 401
        writer.write(body[1:])
        assert b" 200 " in await reader.readline()
        writer.close()

    relayed(scenario, limits=Limits(max_concurrent=1), client_keys=("sk-1",))


def test_only_loopback_unless_told_otherwise() -> None:
    settings = GatewaySettings(upstream="http://127.0.0.1:1")
    with pytest.raises(InputError, match="other machines"):
        build_server(settings, host="0.0.0.0", port=0)
    for host in ("127.0.0.1", "localhost"):
        build_server(settings, host=host, port=0)[1].close()
    build_server(settings, host="0.0.0.0", port=0, allow_remote=True)[1].close()
    assert [is_loopback(host) for host in ("::1", "[::1]", "127.8.9.1", "::", "10.0.0.1", "example.org")] == [
        *(True, True, True, False, False, False)
    ]


def test_a_body_in_pieces_and_one_that_waits_to_be_let_in_arrive_whole() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async def in_pieces() -> AsyncIterator[bytes]:
            for piece in (b"a" * 100_000, b"", b"\r\n0\r\n", b"b"):
                yield piece

        seen = (await client.put("/echo", content=in_pieces())).json()
        assert seen["body"] == "a" * 100_000 + "\r\n0\r\nb"
        host, port = gateway.url.removeprefix("http://").split(":")
        for target in (b"/v1/chat/completions", b"/echo"):
            reader, writer = await asyncio.open_connection(host, int(port))
            body = json.dumps(CHAT).encode()
            head = b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
            writer.write(head % (target, len(body)))
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.readline()).split()[1] in (b"200", b"201")
            writer.close()
            assert mock.requests[-1].body == body
            assert "expect" not in mock.requests[-1].headers

    relayed(scenario)


def test_an_upstream_that_takes_no_connection_is_not_waited_for() -> None:
    async def scenario() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting = [socket.socket() for _ in range(3)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            settings = GatewaySettings(upstream=url, mode="off", limits=Limits(connect_timeout_s=0.2))
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
            for each in waiting:
                each.close()

    asyncio.run(scenario())


def test_what_prometheus_reads_is_in_its_format() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"mode": "fast"}})
        await client.post("/v1/chat/completions", json=CHAT)
        answer = await client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.text.endswith("\n")
        kinds: dict[str, str] = {}
        seen: set[str] = set()
        for line in answer.text.splitlines():
            if helped := re.fullmatch(r"# HELP ([a-z_]+) \S.*", line):
                assert helped[1] not in kinds
                kinds[helped[1]] = ""
            elif typed := re.fullmatch(r"# TYPE ([a-z_]+) (counter|gauge)", line):
                assert kinds[typed[1]] == ""
                kinds[typed[1]] = typed[2]
            else:
                sample = re.fullmatch(r'(([a-z_]+)(?:\{[a-z]+="[a-z0-9_]+"\})?) (\S+)', line)
                assert sample is not None, line
                assert sample[2] == list(kinds)[-1]
                assert sample[2].endswith("_total") is (kinds[sample[2]] == "counter")
                assert sample[1] not in seen
                assert float(sample[3]) >= 0
                seen.add(sample[1])
        assert {'justenough_relayed_total{reason="off"}', 'justenough_errors_total{code="invalid_justenough"}'} <= seen

    relayed(scenario)


@pytest.mark.parametrize("address", ["ftp://x", "127.0.0.1:8000", "http://user:key@host", "http://host?x=1", ""])
def test_an_address_that_is_no_server_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        GatewaySettings(upstream=address)


def test_the_upstream_is_the_operators_whatever_the_client_says() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        for target in (b"http://127.0.0.1:1/echo", b"//127.0.0.1:1/echo", b"/echo@127.0.0.1:1"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET " + target + b" HTTP/1.1\r\nhost: 127.0.0.1:1\r\nconnection: close\r\n\r\n")
            refused = (await reader.read()).startswith(b"HTTP/1.1 400 ")
            assert refused is target.startswith(b"http")
            writer.close()
        assert [seen.target for seen in mock.requests] == ["//127.0.0.1:1/echo", "/echo@127.0.0.1:1"]

    relayed(scenario)


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\netag: x\r\n\r\n", 304),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("OPTIONS", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", 200),
    ],
)
def test_an_answer_without_a_body_passes(method: str, answer: bytes, status: int) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = GatewaySettings(upstream=f"http://127.0.0.1:{port}", mode="off")
        async with (
            server,
            running(settings) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            got = await client.request(method, "/v1/files/x")
            assert (got.status_code, got.content) == (status, b"")

    asyncio.run(main())
