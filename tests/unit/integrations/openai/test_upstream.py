"""What the user's HTTP client gets from the gate, and what the gate gets from it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest

import justenough
from justenough.testing import Fault
from tests.unit.integrations.openai.test_gated import CALIBRATION, MESSAGES, thinking


async def read_all(client: openai.AsyncOpenAI) -> None:
    async for _ in await client.chat.completions.create(model="mock", messages=MESSAGES, stream=True):
        pass


@pytest.mark.parametrize("fault", [Fault.RESET_IN_STREAM, Fault.STALL_IN_STREAM, Fault.HALF_CHUNK])
def test_the_errors_of_a_stream_that_has_begun_are_those_of_the_library(fault: Fault) -> None:
    async def main() -> None:
        async with thinking(fault=fault, fault_at=2) as mock:
            stalls = fault is Fault.STALL_IN_STREAM
            plain = openai.AsyncOpenAI(
                base_url=f"{mock.url}/v1", api_key="k", max_retries=0, timeout=0.5 if stalls else None
            )
            expected = openai.APITimeoutError if stalls else openai.APIConnectionError
            causes = []
            for client in (plain, justenough.gated(plain, CALIBRATION)):
                # On a slow machine the time may be over before the stream begins, with the same error.
                with pytest.raises(expected) as caught:
                    await read_all(client)
                causes.append(type(caught.value.__cause__))
            assert causes[0] is causes[1]

    asyncio.run(main())


@pytest.mark.parametrize("model", ["mock", "other"])
def test_a_hook_may_read_the_answer(model: str) -> None:
    async def read(response: Any) -> None:
        await response.aread()

    async def main() -> None:
        async with thinking() as mock:
            own, hooks = httpx2.Client(), {"response": [read]}
            own.event_hooks["response"] = [lambda response: response.read()]
            options: Any = {"model": model, "messages": MESSAGES}
            with justenough.gated(
                openai.OpenAI(base_url=f"{mock.url}/v1", api_key="k", http_client=own), CALIBRATION
            ) as sync:
                ours = await asyncio.to_thread(lambda: sync.chat.completions.create(**options))
            client = openai.AsyncOpenAI(
                base_url=f"{mock.url}/v1", api_key="k", http_client=httpx2.AsyncClient(event_hooks=hooks)
            )
            async with justenough.gated(client, CALIBRATION) as gated:
                theirs = await gated.chat.completions.create(**options)
            assert ours == theirs
            assert ("justenough" in (ours.model_extra or {})) == (model == "mock")

    asyncio.run(main())


def test_azure_gets_its_key_and_its_version_with_the_probe_too() -> None:
    async def main() -> None:
        async with thinking(root="/openai/deployments/mock") as mock:
            client = openai.AsyncAzureOpenAI(
                azure_endpoint=mock.url, azure_deployment="mock", api_key="k", api_version="2024-10-21"
            )
            async with justenough.gated(client, CALIBRATION) as gated:
                assert type(gated) is openai.AsyncAzureOpenAI
                await gated.chat.completions.create(model="mock", messages=MESSAGES)
            assert {request.headers.get("api-key") for request in mock.requests} == {"k"}
            assert {request.target.partition("?")[2] for request in mock.requests} == {"api-version=2024-10-21"}

    asyncio.run(main())
