"""Before a chat template that opens the thought, only a token in the text shows that a text may be a thought."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest

from justenough.gateway.exchange import Refused
from justenough.gateway.upstream import apart
from justenough.gateway.upstream.apart import is_apart, with_apart
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.signal.thought import THINK
from justenough.testing import CONFIDENT, MockUpstream, Received
from tests.unit.gateway.test_formats import THOUGHT, ask, gateway_before
from tests.unit.gateway.ways import settings_for

OPENED: Final = replace(THINK, opened=True)
KNOWN: Final = Capabilities(
    engine="vllm", models=("mock",), chat="prefill", prompt_end="<think>\n", probed_model="mock"
)
ANSWER: Final = ("Yes", ".\n\n") * 10
THOUGHT_IS_OFF: Final[list[dict[str, Any]]] = [
    {"include_reasoning": False},
    {"include_reasoning": False, "reasoning_format": "none"},
    {"messages": [{"role": "system", "content": "/no_think"}, {"role": "user", "content": "6*7?"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "6*7? /nothink"}]}]},
    {"messages": [{"role": "system", "content": "detailed thinking off"}, {"role": "user", "content": "6*7?"}]},
    {},
]
"""The last one is a model that thinks nothing."""


def probed(mock: MockUpstream, known: Capabilities = KNOWN) -> Capabilities:
    async def scenario() -> Capabilities:
        async with mock, Upstream(settings_for("off", mock.url)) as upstream:
            return await with_apart(upstream, known, headers=[])

    return asyncio.run(scenario())


@pytest.mark.parametrize(("field", "expected"), [("reasoning", True), ("reasoning_content", True), (None, False)])
def test_one_token_shows_where_the_thought_comes(field: str | None, expected: bool) -> None:
    mock = MockUpstream(format=OPENED, thought=THOUGHT, reasoning_field=field)
    assert probed(mock) == replace(KNOWN, apart=expected, probe_tokens=1)
    (request,) = mock.requests
    sent = request.json()
    assert (sent["max_tokens"], sent["stream"], sent["model"]) == (1, True, "mock")


def test_a_prompt_that_opens_no_thought_is_not_asked_about() -> None:
    mock = MockUpstream()
    known = replace(KNOWN, prompt_end="<|assistant|>")
    assert probed(mock, known) is known
    assert mock.requests == []


def test_a_thought_that_the_operator_calls_open_is_asked_about_on_any_server() -> None:
    async def scenario() -> None:
        for field, expected in (("reasoning", "no_thought"), (None, "confident")):
            mock = MockUpstream(
                engine="ollama", format=OPENED, reasoning_field=field, answer=ANSWER, logprobs=(CONFIDENT,)
            )
            answering(mock, () if field else THOUGHT)
            async with mock, gateway_before(mock, thought=OPENED, default_temperature=1.0) as (gateway, client):
                assert gateway.service.capabilities is not None
                assert gateway.service.capabilities.prompt_end == ""
                said = await ask(client, "/v1/chat/completions", stream=False)
                assert said.report["reason"] == expected

    asyncio.run(scenario())


def event(**delta: str) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (200, event(content="") + event(content="Okay") + b"data: [DONE]\n\n", False),
        (200, event(content="") + event(reasoning="Okay", content="") + b"data: [DONE]\n\n", True),
        (200, event(content="") + b"data: [DONE]\n\n", True),
        (200, b"data: {nothing}\n\n", True),
        (200, b"<html>", True),
        (400, b'{"error": {"message": "no"}}', True),
        (503, b"", None),
        (401, b"", None),
    ],
)
def test_only_a_token_in_the_text_shows_a_thought_in_the_text(
    status: int, answer: bytes, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def call(*_: Any, **__: Any) -> tuple[int, bytes]:
        return status, answer

    monkeypatch.setattr(apart, "call", call)
    upstream: Any = None
    if expected is not None:
        assert asyncio.run(is_apart(upstream, {}, headers=[])) is expected
        return
    with pytest.raises(Refused):
        asyncio.run(is_apart(upstream, {}, headers=[]))
    # Nothing is certain, so no text is taken for a thought, and the server is asked again.
    assert asyncio.run(with_apart(upstream, KNOWN, headers=[])) == replace(KNOWN, apart=True, doubtful=True)


def answering(mock: MockUpstream, thought: Sequence[str]) -> None:
    """Let the model think only in the gateway's own questions."""
    mock.on_request = lambda request: setattr(mock, "thought", THOUGHT if _is_probe(request) else thought)


def _is_probe(request: Received) -> bool:
    return b"Say OK." in request.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("members", THOUGHT_IS_OFF)
def test_an_answer_without_a_thought_in_its_field_is_not_cut(members: dict[str, Any], stream: bool) -> None:
    async def scenario() -> None:
        mock = MockUpstream(format=OPENED, reasoning_field="reasoning", answer=ANSWER, logprobs=(CONFIDENT,))
        answering(mock, ())
        async with mock, gateway_before(mock) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=stream, **members)
            assert (said.report["reason"], said.content) == ("no_thought", "".join(ANSWER))

    asyncio.run(scenario())


def test_a_client_of_llama_cpp_may_want_the_thought_in_the_text() -> None:
    async def scenario() -> None:
        mock = MockUpstream(
            engine="llama.cpp",
            format=OPENED,
            thought=THOUGHT,
            logprobs=(CONFIDENT,),
            reasoning_field="reasoning_content",
        )

        def on_request(request: Received) -> None:
            mock.reasoning_field = None if b"reasoning_format" in request.body else "reasoning_content"

        mock.on_request = on_request
        async with mock, gateway_before(mock) as (_, client):
            for members in ({}, {"reasoning_format": "none"}):
                said = await ask(client, "/v1/chat/completions", stream=False, **members)
                assert said.report["decision"] == "stopped"

    asyncio.run(scenario())


@pytest.mark.parametrize("members", THOUGHT_IS_OFF[2:-1])
def test_words_that_turn_the_thought_off_also_count_where_it_comes_in_the_text(members: dict[str, Any]) -> None:
    async def scenario() -> None:
        mock = MockUpstream(format=OPENED, thought=THOUGHT, answer=ANSWER, logprobs=(CONFIDENT,))
        async with mock, gateway_before(mock) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=False)
            assert said.report["decision"] == "stopped"
            answering(mock, ())
            mock.format = THINK
            said = await ask(client, "/v1/chat/completions", stream=False, **members)
            assert (said.report["reason"], said.content) == ("no_thought", "".join(ANSWER))

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_a_template_that_a_client_shapes_is_asked_about_once(stream: bool) -> None:
    async def scenario() -> None:
        mock = MockUpstream(reasoning_field="reasoning", answer=ANSWER, logprobs=(CONFIDENT,))

        def on_request(request: Received) -> None:
            mock.format = replace(THINK, opened=b'"thinking":true' in request.body)
            mock.thought = THOUGHT if _is_probe(request) else ()

        mock.on_request = on_request
        async with mock, gateway_before(mock) as (_, client):
            mock.requests.clear()
            for _ in range(2):
                shaped: dict[str, Any] = {"chat_template_kwargs": {"thinking": True}}
                said = await ask(client, "/v1/chat/completions", stream=stream, **shaped)
                assert (said.report["reason"], said.content) == ("no_thought", "".join(ANSWER))
        asked = [request for request in mock.requests if _is_probe(request) and "chat" in request.target]
        assert [request.json()["chat_template_kwargs"] for request in asked] == [{"thinking": True}]

    asyncio.run(scenario())
