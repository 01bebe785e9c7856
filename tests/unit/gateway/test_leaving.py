"""Clients that leave, at every phase of a request: the upstream is told at once, and nothing is left over."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.serving import Running, running
from tests.unit.gateway.ways import (
    CHAT,
    GATED,
    THOUGHT,
    WAYS,
    Hold,
    ends_in_error,
    ends_well,
    faulty,
    settings_for,
    settled,
)
from tests.unit.gateway.wild import Scripted, before

PHASES: dict[str, dict[str, Any]] = {
    "headers": {},
    "body": {},
    "waiting": {"fault": Fault.STALL_BEFORE_HEADERS},
    "begun": {"fault": Fault.STALL_IN_STREAM, "fault_at": 0},
    "generating": {"thought": ["a "] * 20_000, "interval_s": 0.005},
    "second": {"interval_s": 0.005, "answer": ["a "] * 30},
    "unread": {"fault": Fault.ENDLESS},
}
"""When the client leaves, and how its upstream must be for that."""
CASES = [
    (phase, way, stream)
    for phase in PHASES
    for way in WAYS
    for stream in (True, False)
    # Only a gate asks a second time.
    if phase != "second" or way in GATED
]


def is_there(phase: str, mock: MockUpstream) -> Callable[[], bool]:
    """Whether a request has come to its phase."""
    if phase == "second":
        return lambda: len(mock.completions) == 2
    if phase == "generating":
        return lambda: mock.generated > 20
    return lambda: bool(mock.completions)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.002)


def left() -> tuple[int, int]:
    """Tasks and descriptors of this process."""
    return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))


async def leaves(gateway: Running, mock: MockUpstream, phase: str, *, stream: bool) -> None:
    """One client that comes and goes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({**CHAT, "stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
    said = {"headers": head, "body": head + b"\r\n" + body[:10]}.get(phase, head + b"\r\n" + body)
    writer.write(said)
    await writer.drain()
    if phase in ("headers", "body"):
        await asyncio.sleep(0.02)
    else:
        await until(is_there(phase, mock))
        # Some bytes of it, too, may be on their way.
        await asyncio.sleep(0.02)
    writer.close()
    await until(lambda: not mock.under_way and not gateway.service.active)
    assert not gateway.service.upstream.open_requests


@pytest.mark.parametrize(("phase", "way", "stream"), CASES)
def test_a_client_that_leaves_ends_everything(phase: str, way: str, stream: bool) -> None:
    async def scenario() -> None:
        logprobs = (CONFIDENT,) if phase == "second" and way == "streaming" else (UNSURE,)
        mock = MockUpstream(**{"thought": THOUGHT, "logprobs": logprobs, **PHASES[phase]})
        async with faulty(way, mock, idle_timeout_s=10) as (gateway, _):
            await leaves(gateway, mock, phase, stream=stream)
            before = left()
            for _ in range(3):
                mock.requests.clear()
                mock.generated = 0
                await leaves(gateway, mock, phase, stream=stream)
            await until(lambda: left() <= before)
            if phase in ("headers", "body"):
                assert not mock.completions
            elif phase in ("generating", "unread"):
                assert mock.cancelled == 4

    asyncio.run(scenario())


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_stays_but_does_not_read_is_as_good_as_gone(way: str) -> None:
    async def scenario() -> None:
        # Long tokens: what systems hold for a client that does not read is soon full.
        mock = MockUpstream(thought=["x" * 50_000], fault=Fault.ENDLESS, logprobs=(UNSURE,))
        async with faulty(way, mock, idle_timeout_s=10, send_timeout_s=0.2) as (gateway, _):
            host, port = gateway.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port), limit=1024)
            body = json.dumps({**CHAT, "stream": True}).encode()
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await until(lambda: bool(mock.cancelled))
            await settled(gateway)
            assert gateway.service.metrics.client_disconnects == 1
            writer.transport.abort()

    asyncio.run(scenario())


def test_a_client_that_reads_slowly_gets_all() -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=["x" * 50_000] * 300, logprobs=(UNSURE,))
        # A whole answer is written in one go: what systems hold for a slow client is full until its end.
        async with faulty("streaming", mock, idle_timeout_s=60, send_timeout_s=2) as (gateway, _):
            host, port = gateway.url.removeprefix("http://").split(":")
            with socket.socket() as bare:
                bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                bare.connect((host, int(port)))
                bare.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=bare, limit=1 << 17)
                body = json.dumps(CHAT).encode()
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
                size, begun, last = 0, asyncio.get_running_loop().time(), b""
                while data := await reader.read(1 << 16):
                    size, last = size + len(data), data
                    await asyncio.sleep(0.01)
                assert asyncio.get_running_loop().time() - begun > 2
                assert size > 300 * 50_000
                assert last.endswith(b"}")
                writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("row", [CONFIDENT, UNSURE])
def test_decisions_do_not_wait_for_a_client_that_reads_slowly(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than systems hold for a client that does not read.
    monkeypatch.setattr("justenough.gateway.stream.output.MOST_AHEAD", 1 << 26)
    upstream = Scripted(texts=("<think>", *["x" * 200_000] * 60, "y\n\n", "</think>", "42"), row=row)

    async def scenario() -> None:
        async with before(upstream, "gate") as (gateway, _):
            host, port = gateway.url.removeprefix("http://").split(":")
            with socket.socket() as bare:
                bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                bare.connect((host, int(port)))
                bare.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=bare, limit=4096)
                body = json.dumps({**CHAT, "model": "m", "stream": True}).encode()
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
                await until(lambda: bool(upstream.requests))
                # The client has read next to nothing when the upstream has been left for good.
                await until(lambda: not gateway.service.upstream.open_requests)
                assert len(upstream.requests) == (2 if row is CONFIDENT else 1)
                received = bytearray()
                while data := await reader.read(1 << 16):
                    received += data
                writer.close()
            assert received.count(b"x" * 200_000) == 60
            assert b"data: [DONE]\n\n" in received[-400:]

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_client_and_upstream_that_break_at_once_leave_nothing_behind(way: str, stream: bool) -> None:
    async def scenario() -> None:
        mock = MockUpstream(fault=Fault.RESET_IN_STREAM, fault_at=3, interval_s=0.005, logprobs=(UNSURE,))
        async with faulty(way, mock) as (gateway, _):
            before = None
            for delay_ms in (1, 12, 15, 18, 20, 22, 25, 30):
                async with httpx.AsyncClient(base_url=gateway.url, timeout=delay_ms / 1000) as client:
                    with suppress(httpx.HTTPError):
                        await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
                await until(lambda: not mock.under_way and not gateway.service.active)
                before = before or left()
            await until(lambda: left() <= (before or (0, 0)))

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_after_sigterm_what_is_under_way_ends_and_new_requests_get_503(way: str, stream: bool) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, answer=["a "] * 12, logprobs=(CONFIDENT,))
        hold = Hold(mock, 2)
        async with (
            mock,
            running(settings_for(way, mock.url, idle_timeout_s=10), drains=True) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            first = asyncio.ensure_future(client.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
            await until(lambda: bool(mock.completions))
            gateway.server.handle_exit(15, None)
            second = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert (second.status_code, second.json()["error"]["code"]) == (503, "shutting_down")
            assert second.headers["retry-after"]
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200
            hold.go_on.set()
            whole = await first
            assert ends_well(whole, stream=stream)
            await asyncio.wait_for(gateway.task, 60)

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_what_outlives_the_grace_is_told_and_ended_upstream_too(way: str, stream: bool) -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=["a "] * 10_000, logprobs=(UNSURE,), interval_s=0.01) as mock:
            settings = settings_for(way, mock.url, idle_timeout_s=10, grace_s=0.1)
            async with running(settings, drains=True) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                first = asyncio.ensure_future(client.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
                await until(lambda: bool(mock.completions))
                gateway.server.handle_exit(15, None)
                await asyncio.wait_for(gateway.task, 60)
                answer = await first
                if stream:
                    assert ends_in_error(answer) == "shutting_down"
                else:
                    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
                await until(lambda: not mock.under_way)

    asyncio.run(scenario())
