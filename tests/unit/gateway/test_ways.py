"""What holds for every way through the gateway, where nothing is wrong."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.ways import CHAT, THOUGHT, WAYS, ends_well, faulty


def streamed(text: str) -> list[dict[str, Any]]:
    """The events of a stream, without its end."""
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line and "[DONE]" not in line]


@pytest.mark.parametrize("way", WAYS)
def test_tokens_come_as_they_are_made(way: str) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(UNSURE,), interval_s=0.02)
        async with faulty(way, mock, idle_timeout_s=10) as (_, client):
            before, behind = mock.generated, []
            asked = {**CHAT, "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
                seen = 0
                async for line in answer.aiter_lines():
                    if '"vendor"' in line or '"reasoning_content"' in line:
                        seen += 1
                        behind.append(mock.generated - before - seen)
            assert seen >= len(THOUGHT)
            # One more may be on its way, never all of them.
            assert sorted(behind)[len(behind) // 2] <= 1

    asyncio.run(scenario())


@pytest.mark.parametrize("logprobs", [CONFIDENT, UNSURE])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_tells_its_usage_once_and_last_where_it_is_wanted(
    way: str, wanted: bool, logprobs: tuple[float, ...]
) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(logprobs,))
        async with faulty(way, mock) as (_, client):
            asked = {**CHAT, "stream": True, "stream_options": {"include_usage": wanted}}
            before = mock.generated
            answer = await client.post("/v1/chat/completions", json=asked)
            assert ends_well(answer, stream=True)
            chunks = streamed(answer.text)
            assert [bool(chunk.get("usage")) for chunk in chunks] == [False] * (len(chunks) - 1) + [wanted]
            if not wanted:
                return
            usage = chunks[-1]["usage"]
            assert chunks[-1]["choices"] == []
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            cut = way == "streaming" and logprobs is CONFIDENT
            # What was generated between the cut and its arrival, at most the rest of it, is in no usage.
            assert 0 <= mock.generated - before - usage["completion_tokens"] <= (12 if cut else 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_a_thought_is_not_answered_where_its_question_cannot_be_had(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's `/tokenize` once failed between the probe and a stop: the answer came without the question."""

    async def nothing(*_: Any, **__: Any) -> None:
        return None

    async def scenario() -> None:
        mock = MockUpstream(prefill=False, engine="vllm")
        async with faulty("streaming", mock) as (gateway, client):
            assert (await gateway.service.probing.find(headers=[])).chat == "template"
            monkeypatch.setattr("justenough.gateway.serve.elicit.rendered", nothing)
            answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert ends_well(answer, stream=stream)
            # The second request is the client's own.
            assert [request.json()["messages"] for request in mock.completions] == [CHAT["messages"]] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.CONTINUATION_FAILS])
@pytest.mark.parametrize("way", ["streaming", "sequential"])
def test_only_the_first_request_has_the_name_that_the_client_gave_it(way: str, fault: Fault) -> None:
    """vLLM and SGLang refuse a request of the same name while the first one is under way."""

    async def scenario() -> None:
        sure = CONFIDENT if way == "streaming" else UNSURE
        mock = MockUpstream(thought=THOUGHT, logprobs=(sure,), fault=fault)
        async with faulty(way, mock) as (_, client):
            named = {**CHAT, "stream": True, "request_id": "own", "rid": "own"}
            headers = {"X-Request-Id": "own", "Idempotency-Key": "own"}
            answer = await client.post("/v1/chat/completions", json=named, headers=headers)
            assert ends_well(answer, stream=True)
        first, *further = mock.completions
        assert (first.headers["x-request-id"], first.json()["request_id"], first.json()["rid"]) == ("own",) * 3
        assert first.headers["idempotency-key"] == "own"
        assert further
        for each in further:
            assert "own" not in (*each.headers.values(), *each.json().values())

    asyncio.run(scenario())
