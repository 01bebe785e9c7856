"""`justenough serve` with few file descriptors: it serves what it can, refuses the rest clearly, and stays healthy."""

from __future__ import annotations

import asyncio
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from yarl import URL

from justenough.testing import MockUpstream
from tests.unit.gateway.test_gating import CHAT

DESCRIPTORS = 128


@contextmanager
def limited(upstream: str) -> Iterator[tuple[str, list[str]]]:
    """A gateway that may open this many descriptors, soft and hard; its address, and what it wrote before listening."""
    process = subprocess.Popen(
        (sys.executable, "-m", "justenough", "serve", "--port", "0", "--upstream", upstream),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
    )
    written: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            written.append(line)
            if address := re.search(r"listening on (http://\S+)/v1, mode", line):
                yield address[1], written
                return
        pytest.fail("it never listened")
    finally:
        process.kill()
        process.communicate()


def test_more_streams_than_descriptors_are_refused_and_health_still_answers() -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=["a "] * 60, interval_s=0.02) as mock:
            with limited(mock.url) as (url, written):
                assert any(f"only {DESCRIPTORS} file descriptors" in line for line in written)
                limits = httpx.Limits(max_connections=None)
                async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
                    body = {**CHAT, "stream": True}
                    streams = [asyncio.ensure_future(client.post("/v1/chat/completions", json=body)) for _ in range(60)]
                    while len(mock.completions) < 10:
                        await asyncio.sleep(0.02)
                    assert (await client.get("/health")).status_code == 200
                    answers = await asyncio.gather(*streams, return_exceptions=True)
                    statuses = Counter(one.status_code for one in answers if isinstance(one, httpx.Response))
                    assert set(statuses) <= {200, 503}, statuses
                    assert statuses[200] >= 10
                    refused = [one for one in answers if isinstance(one, httpx.Response) and one.status_code == 503]
                    assert all(one.json()["error"]["code"] == "overloaded" for one in refused)
                    assert (await client.get("/health")).status_code == 200

    asyncio.run(scenario())


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"content-length: 1000\r\n\r\n{"], ids=["idle", "head", "body"])
def test_clients_that_send_nothing_more_do_not_block_it(begun: bytes) -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock:
            with limited(mock.url) as (url, _):
                address = URL(url)
                assert address.host is not None
                idle = []
                for _ in range(3 * DESCRIPTORS):
                    idle.append(await asyncio.open_connection(address.host, address.port))
                    idle[-1][1].write(begun)
                    await asyncio.sleep(0.001)
                try:
                    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                        assert (await client.get("/health")).status_code == 200
                        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
                finally:
                    for _, writer in idle:
                        writer.close()

    asyncio.run(scenario())
