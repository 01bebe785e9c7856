"""One request over ASGI: errors, headers, and work that ends when the client leaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from justenough.gateway.exchange import ClientGone, Exchange, RawHeaders, Refused, end_to_end


def exchange_of(*messages: dict[str, Any], headers: RawHeaders | None = None, host: str = "127.0.0.1") -> Exchange:
    queue = list(messages)

    async def receive() -> dict[str, Any]:
        if queue:
            return queue.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        pass

    scope = {"method": "POST", "path": "/x", "query_string": b"a=1", "headers": headers or [], "client": (host, 1)}
    return Exchange(scope, receive, send, max_body_bytes=10, timeout_s=0.2)


BODY = {"type": "http.request", "body": b"abc"}
GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (413, "invalid_request_error"),
        (500, "server_error"),
        (503, "server_error"),
        (502, "upstream_error"),
        (504, "upstream_error"),
    ],
)
def test_the_type_of_an_error_follows_from_its_status(status: int, kind: str) -> None:
    error = json.loads(Refused(status, "why", code="what").body)["error"]
    assert error == {"message": "why", "type": kind, "param": None, "code": "what"}
    assert json.loads(Refused(status, "why", code="what", kind="tokens").body)["error"]["type"] == "tokens"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer  sk-1 ")], "sk-1"),
        ([(b"authorization", b"plain")], "plain"),
        ([(b"authorization", b" \tBEARER   sk-1\t ")], "sk-1"),
        ([(b"authorization", b"Bearer \tsk-1")], "\tsk-1"),
        ([(b"authorization", b"Bearer\tsk-1")], "Bearer\tsk-1"),
        ([(b"authorization", b"Bearer "), (b"x-api-key", b"sk-2")], ""),
        ([(b"authorization", b"Basic abc"), (b"x-api-key", b"sk-2")], "sk-2"),
        ([(b"x-api-key", b" sk-2 ")], "sk-2"),
        ([], ""),
    ],
)
def test_the_clients_key(headers: RawHeaders, key: str) -> None:
    assert exchange_of(headers=headers).key == key


def test_headers_of_one_connection_stay_behind() -> None:
    headers = [(b"Connection", b"close, X-Mine,"), (b"X-Mine", b"1"), (b"TE", b"a"), (b"X-Other", b"2")]
    assert end_to_end(headers) == [(b"x-other", b"2")]
    changed = exchange_of(headers=[(b"content-length", b"3"), (b"accept-encoding", b"gzip"), (b"x", b"1")])
    assert changed.headers_for_new_body == [(b"x", b"1")]


def test_a_body_that_is_too_large_or_too_slow_is_refused() -> None:
    declared = exchange_of(BODY, headers=[(b"content-length", b"11")])
    for exchange, status in ((declared, 413), (exchange_of({**BODY, "body": b"x" * 11}), 413), (exchange_of(), 408)):
        with pytest.raises(Refused) as refused:
            asyncio.run(exchange.body())
        assert refused.value.status == status
        assert exchange.failure is refused.value


def test_work_ends_with_its_result_or_its_error() -> None:
    async def scenario() -> None:
        async def fail() -> None:
            raise ValueError("mine")

        exchange = exchange_of(BODY)
        assert await exchange.unless_gone(exchange.body()) == b"abc"
        with pytest.raises(ValueError, match="mine"):
            await exchange.unless_gone(fail())

    asyncio.run(scenario())


def test_work_is_cancelled_when_the_client_leaves() -> None:
    cancelled = False

    async def scenario() -> None:
        async def work() -> None:
            nonlocal cancelled
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled = True
                raise

        exchange = exchange_of(BODY, GONE)
        await exchange.body()
        with pytest.raises(ClientGone):
            await exchange.unless_gone(work())

    asyncio.run(scenario())
    assert cancelled


def test_a_client_that_leaves_within_its_body_is_gone() -> None:
    with pytest.raises(ClientGone):
        asyncio.run(exchange_of({**BODY, "more_body": True}, GONE).body())


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_client_with_many_addresses_of_one_network_is_one_client(host: str, address: str) -> None:
    assert exchange_of(host=host).address == address


@pytest.mark.parametrize(("status", "kept"), [(200, True), (204, False), (304, False)])
def test_an_answer_without_a_body_has_no_length(status: int, kept: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    exchange = exchange_of()
    exchange._send = send
    asyncio.run(exchange.start(status, [(b"content-length", b"10"), (b"etag", b"x")]))
    assert ((b"content-length", b"10") in sent[0]["headers"]) is kept
    assert (b"etag", b"x") in sent[0]["headers"]


def test_a_request_that_gave_way_is_refused_even_if_its_body_has_come_meanwhile() -> None:
    async def main() -> None:
        exchange = exchange_of(BODY)
        exchange.give_way()
        with pytest.raises(Refused, match="too many requests"):
            await exchange.body()

    asyncio.run(main())
