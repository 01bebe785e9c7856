"""Connections: offers to switch protocols, idle clients, and who is closed when there are too many."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest
from yarl import URL

from justenough.gateway.app import connection
from justenough.gateway.settings import GatewaySettings, Limits
from justenough.testing import CONFIDENT, MockUpstream
from tests.unit.gateway.serving import Running, calibration_of, running

BODY = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "6*7?"}], "stream": False}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"


async def opened(gateway: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = URL(gateway.url)
    assert url.host is not None
    return await asyncio.open_connection(url.host, url.port)


def test_small_packets_are_sent_at_once() -> None:
    """Else the body of an answer, and each token, may wait until the client confirms the packet before: 40 ms."""

    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, mode="off")) as gateway:
            _, writer = await opened(gateway)
            assert await healthy(gateway)
            sockets = [each.transport.get_extra_info("socket") for each in gateway.server.server_state.connections]
            at_once = [bool(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) for each in sockets]
            writer.close()
            assert at_once
            assert all(at_once)

    asyncio.run(scenario())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_request_that_offers_h2c_keeps_its_body(size: int, chunked: bool) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, mode="off")) as gateway:
            length = b"transfer-encoding: chunked\r\n" if chunked else b"content-length: %d\r\n" % len(BODY)
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
            request = HEAD + OFFER + length + b"\r\n" + body
            reader, writer = await opened(gateway)
            for turn in (1, 2):
                # The connection stays usable for the next request.
                for at in range(0, len(request), size):
                    writer.write(request[at : at + size])
                    await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                wanted = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                answer = json.loads(await reader.readexactly(wanted))
                assert answer["choices"][0]["finish_reason"] == "stop"
                assert len(mock.completions) == turn
            assert [seen.body for seen in mock.requests] == [BODY, BODY]
            assert all("upgrade" not in seen.headers for seen in mock.requests)
            writer.close()

    asyncio.run(scenario())


def test_trailers_never_become_headers() -> None:
    begin = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    trailers = b"authorization: Bearer other\r\nx-justenough-mode: wrong\r\n"

    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, mode="off")) as gateway:
            reader, writer = await opened(gateway)
            # All of it arrives together, so that the trailers are read before the request is answered.
            writer.write(begin + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 201 ")
            writer.close()
            seen = mock.requests[-1]
            assert seen.body == b"{}"
            assert not {"authorization", "x-justenough-mode"} & set(seen.headers)

    asyncio.run(scenario())


def test_the_longest_idle_connection_makes_room_for_a_new_one() -> None:
    async def scenario() -> None:
        limits = Limits(max_connections=8)
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, limits=limits)) as gateway:
            idle = [await opened(gateway) for _ in range(30)]
            async with httpx.AsyncClient(base_url=gateway.url) as client:
                assert (await client.get("/health")).status_code == 200
            async with asyncio.timeout(30):
                closed = [await reader.read() for reader, _ in idle[: 30 - 8]]
            assert closed == [b""] * 22
            reader, writer = idle[-1]
            writer.write(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            for _, each in idle:
                each.close()

    asyncio.run(scenario())


def test_a_connection_with_a_request_under_way_is_never_closed_for_another() -> None:
    async def scenario() -> None:
        limits = Limits(max_connections=4)
        mock = MockUpstream(thought=["a "] * 60, interval_s=0.005)
        async with (
            mock,
            running(GatewaySettings(upstream=mock.url, mode="off", limits=limits)) as gateway,
            httpx.AsyncClient(base_url=gateway.url) as client,
        ):
            asked = [asyncio.ensure_future(client.post("/v1/chat/completions", content=BODY)) for _ in range(4)]
            while len(mock.completions) < 4:
                await asyncio.sleep(0.005)
            idle = [await opened(gateway) for _ in range(10)]
            answers = await asyncio.gather(*asked)
            assert [answer.status_code for answer in answers] == [200] * 4
            for _, writer in idle:
                writer.close()

    asyncio.run(scenario())


async def healthy(gateway: Running) -> bool:
    async with httpx.AsyncClient(base_url=gateway.url) as client, asyncio.timeout(30):
        return (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "begun",
    [
        HEAD + b"content-length: 100000\r\n\r\n",
        HEAD + b"content-length: 100000\r\n\r\n{",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n\r\n",
        b"POST /v1/justenough/feedback HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n",
    ],
)
def test_clients_that_do_not_end_their_request_make_room_for_others(begun: bytes) -> None:
    async def scenario() -> None:
        limits = Limits(max_connections=8)
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, limits=limits)) as gateway:
            slow = []
            for _ in range(30):
                slow.append(await opened(gateway))
                slow[-1][1].write(begun)
            await asyncio.sleep(0.05)
            assert await healthy(gateway)
            assert len(gateway.server.server_state.connections) <= 8
            for _, writer in slow:
                writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("late", [False, True])
def test_a_late_body_is_closed_before_an_idle_connection(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE_S", 0.0 if late else 60.0)

    async def scenario() -> None:
        limits = Limits(max_connections=4)
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, limits=limits)) as gateway:
            idle = [await opened(gateway) for _ in range(3)]
            reader, writer = await opened(gateway)
            writer.write(HEAD + b"content-length: 100000\r\n\r\n{")
            await asyncio.sleep(0.05)
            assert await healthy(gateway)
            ended, _ = await asyncio.wait(
                [asyncio.ensure_future(each.read()) for each in (reader, *(each for each, _ in idle))], timeout=0.2
            )
            assert len(ended) == 1
            assert reader.at_eof() is late
            for _, each in (*idle, (reader, writer)):
                each.close()

    asyncio.run(scenario())


def test_a_client_that_does_not_read_makes_room_if_no_other_connection_can() -> None:
    async def scenario() -> None:
        limits = Limits(max_connections=2)
        mock = MockUpstream(thought=(), answer=("word " * 2_000,) * 4_000)
        async with mock, running(GatewaySettings(upstream=mock.url, mode="off", limits=limits)) as gateway:
            body = BODY.replace(b'"stream": false', b'"stream": true')
            unread = [await opened(gateway) for _ in range(2)]
            for _, writer in unread:
                writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            protocol = gateway.server.config.http_protocol_class
            assert issubclass(protocol, connection.BoundedProtocol)
            async with asyncio.timeout(10):
                while len(protocol.slow) < 2:
                    await asyncio.sleep(0.02)
            assert await healthy(gateway)
            for _, writer in unread:
                writer.close()

    asyncio.run(scenario())


def test_what_the_offer_names_as_its_own_does_not_go_upstream_and_the_body_stays_whole() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, mode="off")) as gateway:
            offer = b"connection: upgrade, x-hop, content-length, close\r\nupgrade: websocket\r\nx-hop: secret\r\n"
            reader, writer = await opened(gateway)
            writer.write(HEAD + offer + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            assert mock.requests[0].body == BODY
            assert "x-hop" not in mock.requests[0].headers

    asyncio.run(scenario())


def test_a_body_that_never_ends_does_not_keep_a_connection_of_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_AFTER_REFUSAL_S", 0.1)

    async def scenario() -> None:
        limits = Limits(receive_timeout_s=0.3)
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, limits=limits)) as gateway:
            reader, writer = await opened(gateway)
            writer.write(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.write(b"x")
            async with asyncio.timeout(30):
                await reader.read()
                assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_many_offers_at_once_are_all_answered() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url, mode="off")) as gateway:
            reader, writer = await opened(gateway)
            offer = b"GET /health HTTP/1.1\r\nhost: a\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
            writer.write(offer * 600 + b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).count(b"HTTP/1.1 200 ") == 601
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", ["off", "gate"])
def test_a_client_of_http_1_0_gets_no_chunks(mode: Any, stream: bool) -> None:
    async def scenario() -> None:
        async with (
            MockUpstream(thought=("So", ".\n\n"), logprobs=(CONFIDENT,)) as mock,
            running(GatewaySettings(upstream=mock.url, mode=mode, calibration=calibration_of(1.0))) as gateway,
        ):
            body = BODY.replace(b'"stream": false', b'"stream": %b' % json.dumps(stream).encode())
            for version in (b"1.0", b"1.1"):
                reader, writer = await opened(gateway)
                head = HEAD.replace(b"1.1", version) + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(head + body)
                head, _, sent = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
                assert (b"transfer-encoding: chunked" in head) is (stream and version == b"1.1")
                if version == b"1.0" and stream:
                    assert sent.startswith(b"data: {")
                    assert sent.endswith(b"}\n\ndata: [DONE]\n\n")
                elif not stream:
                    assert json.loads(sent)["choices"][0]["finish_reason"] == "stop"

    asyncio.run(scenario())


@pytest.mark.parametrize(("path", "status"), [(b"/v1/models", 200), (b"/health", 200), (b"/v1/justenough/page", 404)])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_client_of_http_1_0_gets_every_other_answer(method: bytes, path: bytes, status: int) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock, running(GatewaySettings(upstream=mock.url)) as gateway:
            reader, writer = await opened(gateway)
            writer.write(b"%b %b HTTP/1.0\r\n\r\n" % (method, path))
            head, _, sent = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert b"chunked" not in head
            if method == b"GET":
                assert head.startswith(b"HTTP/1.1 %d " % status)
                length = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
                assert length.decode() in ("", str(len(sent)))
                assert sent

    asyncio.run(scenario())
