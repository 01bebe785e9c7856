"""The mock's other APIs: the same tokens in the events of each API, and errors in its own form."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from justenough.testing import Fault, MockUpstream

MESSAGES = [{"role": "user", "content": "6 times 7?"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "mock", "input": "6 times 7?"},
    "/v1/messages": {"model": "mock", "messages": MESSAGES, "max_tokens": 50},
    "/api/chat": {"model": "mock", "messages": MESSAGES},
    "/api/generate": {"model": "mock", "prompt": "6 times 7?"},
}
LIMITED: dict[str, dict[str, Any]] = {
    "/v1/responses": {"max_output_tokens": 3},
    "/v1/messages": {"max_tokens": 3},
    "/api/chat": {"options": {"num_predict": 3}},
    "/api/generate": {"options": {"num_predict": 3}},
}


def asked(path: str, fields: dict[str, Any], **settings: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        mock = MockUpstream(thought=("a\n\n", "b"), answer=("4", "2"), reasoning_field="reasoning", **settings)
        async with mock, httpx.AsyncClient(base_url=mock.url, trust_env=False, timeout=20) as client:
            return await client.post(path, json=REQUESTS[path] | fields)

    return asyncio.run(run())


def read(path: str, response: httpx.Response) -> tuple[str, str, str, int]:
    """Thought, answer, reason for the end and tokens of an answer, streamed or not."""
    if response.headers["content-type"] == "application/json":
        values = [response.json()]
    else:
        lines = [line.removeprefix("data: ") for line in response.text.splitlines() if not line.startswith("event:")]
        values = [json.loads(line) for line in lines if line]
    last = values[-1]
    if path == "/v1/responses":
        last = last.get("response", last)
        texts = {item["type"]: item["content"][0]["text"] for item in last["output"]}
        return texts.get("reasoning", ""), texts.get("message", ""), last["status"], last["usage"]["output_tokens"]
    if path == "/v1/messages":
        blocks = last.get("content") or [value["delta"] for value in values if value["type"] == "content_block_delta"]
        thought, text = ("".join([block.get(key, "") for block in blocks]) for key in ("thinking", "text"))
        end = last if "content" in last else values[-2]["delta"] | {"usage": values[-2]["usage"]}
        return thought, text, end["stop_reason"], end["usage"]["output_tokens"]
    parts = [value.get("message", value) for value in values]
    thought = "".join([part.get("thinking", "") for part in parts])
    return (
        thought,
        "".join([part.get("content", part.get("response")) for part in parts]),
        *(
            last["done_reason"],
            last["eval_count"],
        ),
    )


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", REQUESTS)
def test_thought_and_answer_come_in_the_form_of_the_api(path: str, stream: bool) -> None:
    end = {"/v1/responses": "completed", "/v1/messages": "end_turn"}.get(path, "stop")
    assert read(path, asked(path, {"stream": stream})) == ("a\n\nb", "42", end, 4)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", REQUESTS)
def test_the_limit_of_the_api_ends_the_answer(path: str, stream: bool) -> None:
    end = {"/v1/responses": "incomplete", "/v1/messages": "max_tokens"}.get(path, "length")
    assert read(path, asked(path, {"stream": stream, **LIMITED[path]})) == ("a\n\nb", "4", end, 3)


@pytest.mark.parametrize("path", REQUESTS)
def test_errors_have_the_form_of_the_api(path: str) -> None:
    refused = asked(path, {"model": 5}).json()
    broken = asked(path, {"stream": True}, fault=Fault.ERROR_EVENT).text
    if path.startswith("/api"):
        assert isinstance(refused["error"], str)
        assert '{"error":"out of memory"}\n' in broken
    else:
        assert (refused.get("type"), refused["error"]["type"]) == (
            "error" if path == "/v1/messages" else None,
            "invalid_request_error",
        )
        assert 'event: error\ndata: {"type":"error"' in broken


def test_ollama_gives_log_probabilities_in_its_lines() -> None:
    lines = asked("/api/chat", {"logprobs": True, "top_logprobs": 2}).text.splitlines()
    first = json.loads(lines[0])["logprobs"]
    assert [entry["token"] for entry in first] == ["a\n\n"]
    assert len(first[0]["top_logprobs"]) == 2
    assert "logprobs" not in json.loads(lines[-1])
