"""Which requests the mock refuses: those that a server with the protocol of OpenAI refuses."""

from __future__ import annotations

import json

import pytest

from justenough.testing.validation import PATHS, complaint
from justenough.trace import Json

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
GOOD: dict[str, Json] = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0},
        {"temperature": 2.0, "max_tokens": 5.0, "n": 1},
        {"logprobs": True, "top_logprobs": 20},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
        {"messages": [{"role": "assistant"}]},
        {"unknown": {"kept": 1}},
    ],
)
def test_valid_chats(fields: dict[str, Json]) -> None:
    assert complaint(CHAT, json.dumps(GOOD | fields).encode()) is None


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "hello"}]}, "role"),
        ({"messages": [{"role": "user", "content": 1}]}, "content"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_invalid_chats_name_the_field(fields: dict[str, Json], where: str) -> None:
    reason = complaint(CHAT, json.dumps(GOOD | fields).encode())
    assert reason is not None
    assert f"$.{where}" in reason or f".{where}`" in reason or f"`{where}`" in reason


@pytest.mark.parametrize("prompt", ["hello", ["hello", "you"], [1, 2, 3], [[1, 2], [3]]])
def test_valid_prompts(prompt: Json) -> None:
    assert complaint(TEXT, json.dumps({"prompt": prompt, "logprobs": 5}).encode()) is None


@pytest.mark.parametrize("prompt", [None, 1, [], [1.5], [[0.5]], {"text": "hello"}])
def test_invalid_prompts(prompt: Json) -> None:
    assert complaint(TEXT, json.dumps({"prompt": prompt}).encode()) is not None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"messages": "\xff"}', b"[" * 100_000])
@pytest.mark.parametrize("path", sorted(PATHS))
def test_bodies_that_are_not_readable(path: str, body: bytes) -> None:
    assert complaint(path, body)
