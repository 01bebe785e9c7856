"""The mock's answers to completion requests: limits, continuations, and every fault."""

from __future__ import annotations

import asyncio
from typing import cast

import httpx
import pytest

from justenough.testing import Fault, MockUpstream
from justenough.trace import Json
from tests.unit.testing.asking import CHAT, MESSAGES, body, choices, delta_text, events, post

THOUGHT = ("a\n\n", "b\n\n")
ANSWER = ("4", "2")
TEXT = "<think>a\n\nb\n\n</think>42"


def queries(fields: dict[str, Json], *, path: str = CHAT, **settings: object) -> tuple[httpx.Response, MockUpstream]:
    """One request to a mock with these settings."""

    async def run() -> tuple[httpx.Response, MockUpstream]:
        upstream = MockUpstream(thought=THOUGHT, answer=ANSWER, **settings)  # type: ignore[arg-type]
        async with upstream:
            return await post(upstream, fields, path=path), upstream

    return asyncio.run(asyncio.wait_for(run(), 20))


def failing(fault: Fault, *, stream: bool, **settings: object) -> tuple[httpx.HTTPError, MockUpstream]:
    """The client's error for a fault."""

    async def run() -> tuple[httpx.HTTPError, MockUpstream]:
        upstream = MockUpstream(thought=THOUGHT, answer=ANSWER, fault=fault, **settings)  # type: ignore[arg-type]
        async with upstream:
            with pytest.raises(httpx.HTTPError) as error:
                async with httpx.AsyncClient(base_url=upstream.url, trust_env=False, timeout=0.3) as client:
                    await client.post(CHAT, json=body(stream=stream))
            return error.value, upstream

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_a_chat_in_one_piece_has_thought_and_answer_in_its_text() -> None:
    response, _ = queries(body())
    (choice,) = response.json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": TEXT}
    assert choice["finish_reason"] == "stop"
    assert response.json()["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}


def test_a_streamed_chat_has_the_same_text_a_role_first_and_a_finish_last() -> None:
    response, _ = queries(body(stream=True, stream_options={"include_usage": True}))
    rows = choices(response)
    assert delta_text(response) == TEXT
    assert cast("dict[str, Json]", rows[0]["delta"])["role"] == "assistant"
    assert [row["finish_reason"] for row in rows] == [None] * 7 + ["stop"]
    assert cast("dict[str, Json]", events(response)[-1]["usage"])["completion_tokens"] == 6


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_thought_may_be_in_a_field_of_its_own(field: str, stream: bool) -> None:
    response, _ = queries(body(stream=stream), reasoning_field=field)
    if stream:
        assert (delta_text(response, field), delta_text(response)) == ("a\n\nb\n\n", "42")
    else:
        message = response.json()["choices"][0]["message"]
        assert (message[field], message["content"]) == ("a\n\nb\n\n", "42")


def test_plain_completions_have_text() -> None:
    response, _ = queries({"prompt": "6*7=", "stream": False}, path="/v1/completions")
    assert response.json()["choices"][0]["text"] == TEXT
    assert response.json()["object"] == "text_completion"
    streamed, _ = queries({"prompt": "6*7=", "stream": True}, path="/v1/completions")
    assert "".join(str(choice["text"]) for choice in choices(streamed)) == TEXT


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_limit_cuts_the_answer(name: str, stream: bool) -> None:
    response, upstream = queries(body(stream=stream, **{name: 2}))
    row = choices(response)[-1] if stream else response.json()["choices"][0]
    assert row["finish_reason"] == "length"
    assert upstream.generated == 2


def test_a_mock_may_ignore_limits_as_some_servers_do() -> None:
    _, upstream = queries(body(max_tokens=2), limits_kept=False)
    assert upstream.generated == 6


def test_a_limit_beyond_the_context_is_refused() -> None:
    response, upstream = queries(body(max_tokens=129), context=128)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "max_tokens=129 cannot be greater than max_model_len=128"
    assert upstream.generated == 0
    assert queries(body(max_tokens=128), context=128)[0].status_code == 200


def continued(text: str) -> list[Json]:
    return [*MESSAGES, {"role": "assistant", "content": text}]


def test_an_open_thought_is_continued_and_a_closed_one_is_answered() -> None:
    vllm: dict[str, Json] = {"continue_final_message": True, "add_generation_prompt": False}
    response, _ = queries(body(messages=continued("<think>a"), **vllm))
    assert response.json()["choices"][0]["message"]["content"] == "a\n\nb\n\n</think>42"
    response, _ = queries(body(messages=continued("<think>a</think>"), **vllm))
    assert response.json()["choices"][0]["message"]["content"] == "42"
    response, _ = queries({"prompt": "x<think>a</think>"}, path="/v1/completions")
    assert response.json()["choices"][0]["text"] == "42"


def test_llama_cpp_continues_without_a_field_and_repeats_the_prefill() -> None:
    response, _ = queries(body(messages=continued("<think>a</think>Answer: ")), engine="llama.cpp")
    assert response.json()["choices"][0]["message"]["content"] == "<think>a</think>Answer: 42"
    response, _ = queries(body(messages=continued("<think>a</think>")), engine="vllm")
    assert response.json()["choices"][0]["message"]["content"] == TEXT


def test_a_server_without_prefill_refuses_the_message_of_an_assistant() -> None:
    response, _ = queries(body(messages=continued("<think>")), prefill=False)
    assert (response.status_code, response.json()["error"]["message"]) == (
        400,
        "the message of an assistant cannot be continued",
    )


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.TOO_MANY_REQUESTS, 429), (Fault.SERVER_ERROR, 500), (Fault.REDIRECT, 307)]
)
def test_faults_with_a_status(fault: Fault, status: int) -> None:
    response, upstream = queries(body(stream=True), fault=fault)
    assert response.status_code == status
    assert upstream.generated == 0


@pytest.mark.parametrize(
    "fault", [Fault.RESET_BEFORE_HEADERS, Fault.RESET_IN_HEADERS, Fault.RESET_AFTER_HEADERS, Fault.STALL_BEFORE_HEADERS]
)
@pytest.mark.parametrize("stream", [True, False])
def test_faults_of_the_connection(fault: Fault, stream: bool) -> None:
    error, _ = failing(fault, stream=stream)
    expected = httpx.ReadTimeout if fault is Fault.STALL_BEFORE_HEADERS else (httpx.NetworkError, httpx.ProtocolError)
    assert isinstance(error, expected)


@pytest.mark.parametrize("fault", [Fault.RESET_IN_STREAM, Fault.HALF_CHUNK, Fault.STALL_IN_STREAM])
@pytest.mark.parametrize("at", [1, 4])
def test_faults_in_a_stream_happen_at_their_token(fault: Fault, at: int) -> None:
    error, upstream = failing(fault, stream=True, fault_at=at)
    assert isinstance(error, httpx.ReadTimeout if fault is Fault.STALL_IN_STREAM else httpx.TransportError)
    assert upstream.generated == at
    assert upstream.cancelled == 1


def test_a_stream_can_end_without_a_finish() -> None:
    response, upstream = queries(body(stream=True), fault=Fault.END_IN_STREAM, fault_at=3)
    assert response.status_code == 200
    assert "[DONE]" not in response.text
    assert '"finish_reason":"stop"' not in response.text
    assert upstream.generated == 3


@pytest.mark.parametrize(
    ("fault", "bytes_in_answer"),
    [
        (Fault.INVALID_UTF8, b"\xff\xfe"),
        (Fault.INVALID_JSON, b"{nothing}"),
        (Fault.NOT_A_CHUNK, b'"content":17'),
        (Fault.ERROR_EVENT, b'"error":{"message":"out of memory"'),
    ],
)
def test_faulty_events_are_sent_between_good_ones(fault: Fault, bytes_in_answer: bytes) -> None:
    response, upstream = queries(body(stream=True), fault=fault)
    assert response.content.count(bytes_in_answer) == 1
    assert upstream.generated == 6


def test_the_first_completions_may_be_spared() -> None:
    async def run() -> list[int]:
        async with MockUpstream(fault=Fault.SERVER_ERROR, fault_from=3) as upstream:
            return [(await post(upstream, body())).status_code for _ in range(4)]

    assert asyncio.run(run()) == [200, 200, 500, 500]


def test_only_continuations_may_fail() -> None:
    messages = continued("<think>a")
    for fault in (Fault.CONTINUATION_FAILS, Fault.CONTINUATION_BREAKS):
        assert queries(body(stream=True), fault=fault)[0].status_code == 200
    response, _ = queries(body(messages=messages, continue_final_message=True), fault=Fault.CONTINUATION_FAILS)
    assert (response.status_code, response.json()["error"]["message"]) == (500, "cannot continue")


def test_log_probabilities_may_be_missing_short_or_refused() -> None:
    wants: dict[str, Json] = {"logprobs": True, "top_logprobs": 20}
    response, _ = queries(body(**wants), fault=Fault.NO_LOGPROBS)
    assert "logprobs" not in response.json()["choices"][0]
    response, _ = queries(body(**wants), fault=Fault.SHORT_LOGPROBS)
    entries = response.json()["choices"][0]["logprobs"]["content"]
    assert {len(entry["top_logprobs"]) for entry in entries} == {5}
    assert queries(body(**wants), fault=Fault.REFUSE_LOGPROBS)[0].status_code == 400
    assert queries(body(), fault=Fault.REFUSE_LOGPROBS)[0].status_code == 200


def test_an_event_may_have_several_tokens() -> None:
    response, upstream = queries(body(stream=True), tokens_per_event=4)
    assert delta_text(response) == TEXT
    # The role, two events with tokens, and the finish.
    assert len(choices(response)) == 4
    assert upstream.generated == 6


def test_the_content_type_may_be_wrong() -> None:
    for stream in (True, False):
        response, _ = queries(body(stream=stream), fault=Fault.WRONG_CONTENT_TYPE)
        assert response.headers["content-type"] == "text/html"
