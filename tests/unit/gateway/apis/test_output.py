"""What the answers of other APIs take from odd chats."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from justenough.gateway.apis.ollama import _chunk
from justenough.gateway.stream.events import read
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from tests.unit.gateway.apis.others import REQUESTS, is_ollama, seen, values_of
from tests.unit.gateway.apis.test_apis import gated, upstream_for
from tests.unit.gateway.serving import Running
from tests.unit.gateway.wild import Scripted, before, event

CHATS = [path for path in REQUESTS if not is_ollama(path)]


@pytest.mark.parametrize("path", CHATS)
def test_counts_that_are_written_as_other_numbers_are_counts(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.testing.chunks.Chunks._usage", _floats)

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            view = seen(path, await client.post(path, json={**REQUESTS[path], "stream": stream}))
            assert (view.prompt, view.tokens) == (5, 10)

    gated(scenario, upstream_for(path, logprobs=(UNSURE,)))


def _floats(self: Any, completion: int) -> dict[str, float]:
    return {"prompt_tokens": 5.0, "completion_tokens": float(completion), "total_tokens": 5.0 + completion}


@pytest.mark.parametrize("path", CHATS)
def test_a_call_of_a_tool_that_nobody_offered_is_not_lost(path: str) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    def delta(text: str, thought: bool) -> Any:
        return {"reasoning_content": text} if thought else {"content": text, "tool_calls": [call]}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**REQUESTS[path], "stream": False}
        answer, direct = await client.post(path, json=body), await client.post(mock.url + path, json=body)
        assert answer.headers["x-justenough"] == "relayed; reason=refused"
        assert values_of(path, answer) == values_of(path, direct)

    gated(scenario, upstream_for(path, logprobs=(UNSURE,), delta=delta))


def test_ollamas_calls_of_tools_are_calls_of_tools() -> None:
    line: Any = {
        "message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        "done": False,
    }
    choice = read(msgspec.json.encode(_chunk(line))).choice
    assert choice is not None
    assert choice.has_call


@pytest.mark.parametrize("row", [UNSURE, CONFIDENT])
def test_a_ping_in_the_stream_of_the_chat_breaks_nothing(row: Any) -> None:
    server = Scripted(row=row, write=lambda values: b"".join(event(value) + b"data: ping\n\n" for value in values))

    async def main() -> None:
        async with (
            before(server, "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            for stream in (True, False):
                body = {**REQUESTS["/v1/messages"], "model": "m", "stream": stream}
                view = seen("/v1/messages", await client.post("/v1/messages", json=body))
                assert (view.error, view.text) == (None, "".join(server.texts))

    asyncio.run(main())
