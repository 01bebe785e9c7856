"""The life of a gated client: threads, forks, event loops, and the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from typing import Any

import httpx2
import openai
import pytest

import justenough
from justenough.testing import Fault, MockUpstream
from tests.unit.integrations.openai.test_gated import ANSWERED, CALIBRATION, MESSAGES, synchronous, thinking


def test_the_garbage_collector_may_close_a_stream_in_any_thread() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        async def collect() -> None:
            gc.collect()

        def leave() -> None:
            next(iter(client.chat.completions.create(model="mock", messages=MESSAGES, stream=True)))

        thread: Any = client._client._transport._thread  # type: ignore[attr-defined]
        thread.run(asyncio.sleep(0))
        gc.disable()
        try:
            leave()
            asyncio.run_coroutine_threadsafe(collect(), thread._loop).result(60)
        finally:
            gc.enable()
        while mock.under_way:
            time.sleep(0.001)
        assert mock.cancelled == 1

    synchronous(scenario, thinking(fault=Fault.STALL_IN_STREAM, fault_at=2))


def test_the_thread_of_a_client_that_nobody_has_any_more_ends() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        other = justenough.gated(openai.OpenAI(base_url=mock.url, api_key="k"), CALIBRATION)
        other.chat.completions.create(model="mock", messages=MESSAGES)
        thread: Any = other._client._transport._thread._thread  # type: ignore[attr-defined]
        del other
        gc.collect()
        thread.join(60)
        assert not thread.is_alive()

    synchronous(scenario)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_client_works_in_a_fork_of_the_process_that_used_it() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        client.chat.completions.create(model="mock", messages=MESSAGES)
        if (child := os.fork()) == 0:
            signal.alarm(60)
            reply = client.chat.completions.create(model="mock", messages=MESSAGES)
            os._exit(0 if reply.choices[0].message.content == ANSWERED else 1)
        assert os.waitpid(child, 0)[1] == 0
        client.chat.completions.create(model="mock", messages=MESSAGES)

    synchronous(scenario)


def test_two_loops_at_the_same_time_probe_the_upstream_once_each() -> None:
    async def main() -> None:
        async with thinking() as mock:
            own = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
            gated = justenough.gated(openai.AsyncOpenAI(base_url=mock.url, api_key="k", http_client=own), CALIBRATION)

            async def ask() -> None:
                await gated.chat.completions.create(model="mock", messages=MESSAGES)

            await ask()
            for _ in range(2):
                await asyncio.to_thread(asyncio.run, ask())
                await ask()
            assert sum(request.target == "/v1/models" for request in mock.requests) == 3
            await gated.close()

    asyncio.run(main())
