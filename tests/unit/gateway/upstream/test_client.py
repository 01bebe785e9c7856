"""Request lines: whatever stands in one, nothing leaves for another host than the operator's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from justenough.gateway.exchange import Refused
from justenough.gateway.settings import BudgetSettings, GatewaySettings
from justenough.gateway.upstream.client import Upstream
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import Running, running

BASES = ("http://127.0.0.1:8000", "https://api.test", "http://[::1]:9/v1", "http://host.test:81/api/v3")
ODD = st.text(alphabet=st.sampled_from("/@:?#*.%[]\\&=;abc0189 \t\r\n\x00é"), max_size=24)


def address(base: str, target: str) -> URL | None:
    """Where a request would go; None where it is refused."""
    try:
        return Upstream(GatewaySettings(upstream=base)).url(target)
    except Refused as refused:
        return None if (refused.status, refused.code) == (400, "bad_target") else URL("http://evil.test")


@pytest.mark.parametrize("base", BASES)
@given(target=ODD | st.text() | ODD.map("/".__add__) | ODD.map("@evil.test".__add__))
def test_an_address_is_the_operators_or_refused(base: str, target: str) -> None:
    operator = URL(base)
    url = address(base, target)
    if url is None:
        return
    for read in (url, URL(str(url), encoded=True)):
        assert (read.scheme, read.raw_host, read.port) == (operator.scheme, operator.raw_host, operator.port)
        assert read.raw_user is None
    # An empty query is not kept: `/x?` and `/x` are the same request to every server we know.
    path, _, query = target.partition("?")
    asked = f"{path}?{query}" if query else path
    assert url.raw_path_qs == operator.raw_path.removesuffix("/v1").rstrip("/") + asked


@pytest.mark.parametrize("target", ["/v1/models", "/a%2Fb//c?x=1&y=%20", "//other.test/x", "/@other.test", "/?a?b"])
def test_a_path_goes_to_the_operator_as_it_came(target: str) -> None:
    upstream = Upstream(GatewaySettings(upstream="http://127.0.0.1:8000/v1"))
    assert str(upstream.url(target)) == f"http://127.0.0.1:8000{target}"


@pytest.mark.parametrize(
    ("base", "target", "expected"),
    [
        ("/api/v3", "/v1/models", "/api/v3/models"),
        ("/api/v3", "/models", "/api/v3/models"),
        ("/api/v3", "/api/v3/models", "/api/v3/models"),
        ("/v1beta/openai", "/v1/chat/completions?a=1", "/v1beta/openai/chat/completions?a=1"),
        ("/openai/deployments/x", "/v1/completions", "/openai/deployments/x/completions"),
        ("/client/v4/accounts/x/ai/v1", "/v1/models", "/client/v4/accounts/x/ai/v1/models"),
        ("/proxy", "/v1/models", "/proxy/v1/models"),
        ("/proxy/v1/", "/v1/models", "/proxy/v1/models"),
    ],
)
def test_a_path_of_the_operators_own_takes_the_place_of_v1(base: str, target: str, expected: str) -> None:
    assert (
        str(Upstream(GatewaySettings(upstream=f"http://host.test{base}")).url(target)) == f"http://host.test{expected}"
    )


@pytest.mark.parametrize(
    "target", ["/../admin", "/v1/%2e%2E/admin", "/api/v3/x/../../../y", "/..%5cadmin", "/x/..;a/b"]
)
def test_no_target_leaves_the_operators_path(target: str) -> None:
    assert address("http://host.test/api/v3", target) is None
    assert address("http://host.test", target) is not None


@asynccontextmanager
async def stranger() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that nobody should reach: its port, and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(4096))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


async def raw(gateway: Running, request: bytes) -> bytes:
    """All that the gateway answers to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(gateway.url).port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


def attacked(scenario: Callable[[Running, int], Coroutine[None, None, None]], **changes: object) -> None:
    async def main() -> None:
        async with MockUpstream() as mock, stranger() as (port, came):
            settings = replace(GatewaySettings(upstream=mock.url, mode="off"), **changes)  # type: ignore[arg-type]
            async with running(settings) as gateway:
                await scenario(gateway, port)
            assert came == []

    asyncio.run(main())


ATTACKS = (
    "*@127.0.0.1:{port}/latest",
    "@127.0.0.1:{port}/latest",
    "*.127.0.0.1:{port}/x",
    ".localhost:{port}/x",
    ":{port}/x",
    "http://127.0.0.1:{port}/x",
    "//127.0.0.1:{port}/x",
    "/\\127.0.0.1:{port}/x",
    "/@127.0.0.1:{port}/x",
    "127.0.0.1:{port}",
    "*",
    "?@127.0.0.1:{port}/x",
    "%2F@127.0.0.1:{port}/x",
    "\\@127.0.0.1:{port}/x",
)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "CONNECT", "DELETE", "HEAD"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"client_keys": ("sk-client",), "upstream_key": "sk-upstream"}, {"budget": BudgetSettings(tokens=1000)}],
    ids=["open", "keys", "budget"],
)
def test_no_request_line_reaches_another_host(method: str, changes: dict[str, object]) -> None:
    async def scenario(gateway: Running, port: int) -> None:
        for attack in ATTACKS:
            target = attack.format(port=port)
            head = f"{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-client\r\n"
            answer = await raw(gateway, f"{head}connection: close\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            assert b"secret" not in answer
            if not target.startswith("/"):
                assert answer.startswith(b"HTTP/1.1 400 "), (target, answer)

    attacked(scenario, **changes)


def test_the_refusal_says_what_is_wrong() -> None:
    async def scenario(gateway: Running, port: int) -> None:
        answer = await raw(gateway, f"GET *@127.0.0.1:{port}/latest HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert b'"code":"bad_target"' in answer
        assert b"begins with '/'" in answer
        assert b'"code":"bad_target"' in await raw(gateway, b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n")

    attacked(scenario)


@pytest.mark.parametrize("key", ["json", "a", "1", "text", "sk-long=="])
def test_a_client_key_is_removed_as_a_whole_word_only(key: str) -> None:
    upstream = Upstream(GatewaySettings(upstream="http://x", client_keys=(key,)))
    harmless = [(b"content-type", b"application/json"), (b"accept", b"text/event-stream"), (b"x-request-id", b"1a")]
    secret = [
        (b"x-own", key.encode()),
        (b"cookie", b"k=%b; b=c" % key.encode()),
        (b"x-token", b"Token " + key.encode()),
    ]
    assert list(upstream._headers([*harmless, *secret])) == [
        "content-type",
        "accept",
        "x-request-id",
        "x-justenough-via",
    ]


def test_a_request_that_comes_back_through_other_gateways_is_refused() -> None:
    one, two = (Upstream(GatewaySettings(upstream="http://127.0.0.1:9")) for _ in range(2))
    sent: list[tuple[bytes, bytes]] = []
    for gateway in (one, two):
        sent = [(name.lower().encode(), value.encode()) for name, value in gateway._headers(sent).items()]
    with pytest.raises(Refused, match="leads back to this gateway") as refused:
        one._headers(sent)
    assert refused.value.status == 508
