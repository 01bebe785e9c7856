"""The HTTP of the mock: requests in, answers out, and the end of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from justenough.testing.connection import Broken, Received, Wire, framed


def exchange(data: bytes, serve: Callable[[Wire], Awaitable[None]]) -> bytes:
    """Send bytes to a server that handles one connection; return its answer, empty after a reset."""

    async def run() -> bytes:
        result = asyncio.get_running_loop().create_future()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await serve(Wire(reader, writer))
            except Broken:
                pass
            finally:
                writer.close()
                result.set_result(None)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            writer.write(data)
            writer.write_eof()
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
            writer.close()
            await result
            return answer

    return asyncio.run(asyncio.wait_for(run(), 10))


def received(data: bytes) -> list[Received]:
    """The requests in these bytes."""
    requests: list[Received] = []

    async def serve(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            requests.append(request)

    exchange(data, serve)
    return requests


def test_a_request_has_method_target_headers_and_body() -> None:
    (request,) = received(b'POST /v1/x?a=1 HTTP/1.1\r\nX-One:  two \r\nContent-Length: 8\r\n\r\n{"a": 1}')
    assert (request.method, request.target) == ("POST", "/v1/x?a=1")
    assert request.headers == {"x-one": "two", "content-length": "8"}
    assert request.json() == {"a": 1}


def test_a_body_in_chunks_is_joined() -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    (request,) = received(head + framed(b"hello ") + framed(b"x" * 300) + framed(b""))
    assert request.body == b"hello " + b"x" * 300


def test_several_requests_come_over_one_connection() -> None:
    data = b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /c HTTP/1.1\r\n\r\n"
    assert [(request.target, request.body) for request in received(data)] == [("/a", b""), ("/b", b"hi"), ("/c", b"")]


def test_a_client_that_disconnects_inside_the_head_sends_no_request() -> None:
    assert received(b"GET /a HTT") == []


@pytest.mark.parametrize("data", [b"", b"a", b"x" * 15, b"x" * 16, b"\r\n"])
def test_a_chunk_has_its_size_in_hexadecimal(data: bytes) -> None:
    size, _, rest = framed(data).partition(b"\r\n")
    assert int(size, 16) == len(data)
    assert rest == data + b"\r\n"


def test_answers_have_their_length() -> None:
    async def whole(wire: Wire) -> None:
        await wire.whole(418, {"a": "é"}, {"x-one": "two"})

    async def text(wire: Wire) -> None:
        await wire.whole(200, "é")

    head, _, content = exchange(b"", whole).partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"HTTP/1.1 418 Mock"
    assert b"x-one: two" in head
    assert f"Content-Length: {len(content)}".encode() in head
    head, _, content = exchange(b"", text).partition(b"\r\n\r\n")
    assert b"Content-Length: 2" in head
    assert content == "é".encode()


def test_a_reset_ends_the_connection_without_an_answer() -> None:
    async def serve(wire: Wire) -> None:
        wire.reset()

    assert exchange(b"", serve) == b""


def test_a_stall_ends_when_the_client_disconnects() -> None:
    ended: list[bool] = []

    async def serve(wire: Wire) -> None:
        try:
            await wire.stall()
        except Broken:
            ended.append(True)
            raise

    assert exchange(b"", serve) == b""
    assert ended == [True]
