"""`justenough serve` on a disk that becomes full: it goes on, says so once, and recovers.

The limit on the size of files (`RLIMIT_FSIZE`) stands for the disk; it needs no root.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from justenough.testing import CONFIDENT, MockUpstream
from tests.unit.gateway.test_gating import CHAT

NO_LIMIT = resource.RLIM_INFINITY
Scenario = Callable[[httpx.AsyncClient, Callable[[int], None], list[str]], Coroutine[Any, Any, None]]


def served(upstream: MockUpstream, arguments: tuple[str, ...], scenario: Scenario) -> None:
    """Run a scenario with a client, a function that limits the size of the gateway's files, and the lines it logs."""

    async def main() -> None:
        async with upstream:
            process = subprocess.Popen(
                (sys.executable, "-m", "justenough", "serve", "--port", "0", "--upstream", upstream.url, *arguments),
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr is not None
            lines: list[str] = []

            def limit(size: int) -> None:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))

            reader = Thread(target=lines.extend, args=(process.stderr,))
            reader.start()
            try:
                async with asyncio.timeout(30):
                    while not (address := re.search(r"listening on (http://\S+)/v1, mode", "".join(lines))):
                        await asyncio.sleep(0.05)
                async with httpx.AsyncClient(base_url=address[1], timeout=30) as client:
                    await scenario(client, limit, lines)
                assert process.poll() is None
            finally:
                process.kill()
                process.wait()
                reader.join()
                process.stderr.close()

    asyncio.run(main())


def test_a_ledger_on_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    async def scenario(client: httpx.AsyncClient, limit: Callable[[int], None], lines: list[str]) -> None:
        async def ask() -> int:
            return (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20})).status_code

        async def budget() -> Any:
            return (await client.get("/v1/justenough/status")).json()["budget"]

        assert await ask() == 200
        limit(1)
        assert await ask() == 503
        assert await ask() == 503
        assert (await budget())["writable"] is False
        for path in ("/health", "/metrics"):
            assert (await client.get(path)).status_code == 200
        limit(NO_LIMIT)
        assert await ask() == 200
        assert (await budget())["writable"] is True
        row = (await budget())["accounts"]["all"]
        assert (row["spent"] > 0, row["reserved"]) == (True, 0)
        written = "".join(lines)
        assert written.count("requests are refused until the ledger can be written") == 1
        assert "Traceback" not in written

    ledger = ("--budget-tokens", "100000", "--budget-per", "batch", "--ledger", str(tmp_path / "ledger.sqlite"))
    served(MockUpstream(), ledger, scenario)


def test_a_record_on_a_full_disk_keeps_whole_lines(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"

    async def scenario(client: httpx.AsyncClient, limit: Callable[[int], None], lines: list[str]) -> None:
        async def ask(number: int) -> None:
            body = {**CHAT, "stream": True, "seed": number}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200

        async def state() -> Any:
            return (await client.get("/v1/justenough/status")).json()["record"]

        await ask(0)
        async with asyncio.timeout(10):
            while (await state())["traces"] < 1:
                await asyncio.sleep(0.05)
        limit(record.stat().st_size + 100)
        for number in range(1, 4):
            await ask(number)
        async with asyncio.timeout(10):
            while not (await state())["full"]:
                await asyncio.sleep(0.05)
        await ask(4)
        assert (await state())["traces"] == 1
        written = "".join(lines)
        assert written.count("nothing more is recorded") == 1
        assert "Traceback" not in written

    mock = MockUpstream(thought=("So 42.\n\n",) * 3, logprobs=(CONFIDENT,))
    served(mock, ("--record", str(record), "--audit-share", "1"), scenario)
    assert [json.loads(line)["model"] for line in record.read_text().splitlines()] == ["mock"]
