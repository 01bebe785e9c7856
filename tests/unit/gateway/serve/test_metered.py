"""How many tokens an answer that is relayed under a budget has cost."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest

from justenough.gateway.budgets import Budgets
from justenough.gateway.exchange import Refused
from justenough.gateway.serve.metered import Meter
from justenough.gateway.settings import BudgetSettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import calibration_of
from tests.unit.gateway.test_budgets import standing
from tests.unit.gateway.test_gating import CHAT, TEXT, gated
from tests.unit.gateway.ways import Hold, settled
from tests.unit.gateway.wild import Reply, Scripted, before

BUDGET: Final = BudgetSettings(tokens=1000, per="batch")
TEN_WORDS = "one two three four five six seven eight nine ten"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chat(delta: Any, **members: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, **members}]})


def entries(number: int) -> dict[str, Any]:
    return {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": []}] * number}


def of_stream(*events: bytes, strip: bool = False) -> Meter:
    meter = Meter(events=True, limit=10_000, strip=strip)
    for each in events:
        meter.feed(each)
    return meter


@pytest.mark.parametrize(
    ("sent", "tokens"),
    [
        (chat({"content": TEN_WORDS}, logprobs=entries(10)), 10),
        (event({"choices": [{"text": TEN_WORDS, "logprobs": {"tokens": ["a"] * 10}}]}), 10),
        (event({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}), 2),
        (chat({"reasoning_content": "\n"}), 1),
        (chat({"role": "assistant", "content": ""}), 0),
        (chat({}, finish_reason="stop"), 0),
    ],
)
def test_events_with_an_exact_number_of_tokens(sent: bytes, tokens: int) -> None:
    meter = of_stream(sent, sent)
    assert (meter.tokens, meter.unseen) == (2 * tokens, 0)


@pytest.mark.parametrize(
    ("sent", "most"),
    [
        (chat({"content": " word"}), 5),
        (chat({"content": "})]});"}), 6),
        (chat({"content": "1234567890"}), 10),
        (chat({"content": "abababababababababab"}), 20),
        (chat({"content": "你好世界"}), 12),
        (chat({"content": "a", "reasoning_content": "bc"}), 3),
        (event({"choices": [{"text": TEN_WORDS}]}), len(TEN_WORDS)),
        (event({"type": "response.output_text.delta", "delta": " word"}), 5),
    ],
)
def test_an_event_without_log_probabilities_may_hold_as_many_tokens_as_bytes(sent: bytes, most: int) -> None:
    meter = of_stream(sent, sent)
    assert (meter.tokens, meter.unseen) == (2, 2 * (most - 1))


@pytest.mark.parametrize(
    "sent",
    [
        chat({"function_call": {"name": "f", "arguments": "{}"}}),
        chat({"tool_calls": [{"function": {"arguments": "{}"}}]}),
        chat({"audio": {"data": "AAAA"}}),
        event({"choices": [{"index": 0, "delta": "odd"}]}),
    ],
)
def test_members_that_are_no_text_count_with_all_their_bytes(sent: bytes) -> None:
    meter = of_stream(sent)
    assert meter.tokens == 1
    assert meter.unseen >= 6


OTHERS: Final[dict[str, list[dict[str, Any]]]] = {
    "responses": [
        {"type": "response.reasoning_text.delta", "delta": "ab"},
        {"type": "response.output_text.delta", "delta": "cd"},
    ],
    "messages": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "ab"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "long" * 9}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "cd"}},
    ],
    "ollama chat": [{"message": {"content": "", "thinking": "ab"}}, {"message": {"content": "cd"}, "done": False}],
    "ollama generate": [{"response": "", "thinking": "ab"}, {"response": "cd", "done": False}],
}
"""Two tokens of two bytes each."""
USAGES: Final[dict[str, list[dict[str, Any]]]] = {
    "responses": [{"type": "response.completed", "response": {"usage": {"output_tokens": 3}}}],
    "messages": [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ],
    "ollama chat": [{"message": {"role": "assistant", "content": ""}, "done": True, "eval_count": 3}],
    "ollama generate": [{"response": "", "done": True, "eval_count": 3}],
}


@pytest.mark.parametrize("api", OTHERS)
def test_the_streams_of_other_apis_are_counted(api: str) -> None:
    is_ollama = api.startswith("ollama")
    meter = Meter(events=not is_ollama, limit=10_000, lines=is_ollama)

    def feed(values: list[dict[str, Any]]) -> tuple[int, float]:
        for value in values:
            data = json.dumps(value).encode() + b"\n" if is_ollama else event(value)
            assert meter.feed(data[:9]) + meter.feed(data[9:]) == data
        return meter.tokens, meter.unseen

    assert feed(OTHERS[api]) == (2, 2)
    assert feed(USAGES[api]) == (3, 0)


def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(Refused):
        Meter(events=False, limit=100, lines=True).feed(b"x" * 101)


@pytest.mark.parametrize(
    "answer", [{"message": {"content": "a b"}, "eval_count": 9}, {"response": "a", "eval_count": 9}]
)
def test_ollamas_answer_in_one_piece_is_counted_by_its_own_count(answer: dict[str, Any]) -> None:
    meter = Meter(events=False, limit=10_000)
    meter.feed(json.dumps(answer).encode())
    meter.end()
    assert (meter.tokens, meter.unseen) == (9, 0)


def test_an_event_that_is_not_json_may_hold_tokens_too() -> None:
    meter = of_stream(b"data: {one two three\n\n")
    assert (meter.tokens, meter.unseen) == (0, 14)


def test_the_upstreams_own_count_removes_the_doubt() -> None:
    meter = of_stream(chat({"content": TEN_WORDS}), event({"choices": [], "usage": {"completion_tokens": 10}}))
    assert (meter.tokens, meter.counted, meter.unseen) == (10, 10, 0)
    meter.feed(chat({"content": TEN_WORDS}))
    assert meter.unseen == len(TEN_WORDS) - 1


ODD_COUNTS = ["1e400", "1e99", "1" * 60, "7.5", "true", "NaN", "Infinity", "-3", "[]", "{}", '"many"', "null"]


@pytest.mark.parametrize("count", ODD_COUNTS)
def test_a_usage_that_is_no_number_of_tokens_counts_nothing(count: str) -> None:
    usage = b'data: {"choices":[],"usage":{"completion_tokens":%b}}\n\n' % count.encode()
    meter = of_stream(chat({"content": "word"}), usage)
    assert (meter.tokens, meter.counted) == (1, None)
    assert meter.unseen >= 3


@pytest.mark.parametrize("count", ["7", "7.0", '"7"', " 7 "])
def test_a_usage_may_be_a_whole_float_or_a_text(count: str) -> None:
    meter = of_stream(b'data: {"choices":[],"usage":{"completion_tokens":%b}}\n\n' % count.encode())
    assert meter.counted == 7


def test_the_usage_that_only_the_gateway_asked_for_is_taken_out() -> None:
    text, usage = chat({"content": "a"}), event({"choices": [], "usage": {"completion_tokens": 1}})
    meter = Meter(events=True, limit=10_000, strip=True)
    data = text + usage + b"data: [DONE]\n\n"
    passed = b"".join(meter.feed(data[at : at + 7]) for at in range(0, len(data), 7)) + meter.end()
    assert passed == text + b"data: [DONE]\n\n"
    assert meter.counted == 1


@pytest.mark.parametrize("strip", [False, True])
def test_the_last_event_needs_no_blank_line(strip: bool) -> None:
    meter = Meter(events=True, limit=1000, strip=strip)
    data = b'data: {"choices":[{"delta":{"content":"abc"}}]}\n\ndata: {"choices":[],"usage":{"completion_tokens":7}}'
    passed = meter.feed(data) + meter.end()
    assert passed == (data.partition(b"\n\n")[0] + b"\n\n" if strip else data)
    assert (meter.tokens, meter.unseen) == (7, 0)


def test_an_event_without_an_end_is_refused() -> None:
    for strip in (False, True):
        meter = Meter(events=True, limit=100, strip=strip)
        with pytest.raises(Refused):
            meter.feed(b"data: " + b"x" * 200)


def test_an_answer_in_one_piece_is_counted_by_its_usage_unless_it_is_too_large() -> None:
    answer = json.dumps({"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 7}}).encode()
    meter = Meter(events=False, limit=len(answer))
    assert meter.feed(answer) == answer
    assert meter.end() == b""
    assert meter.counted == 7
    small = Meter(events=False, limit=len(answer) - 1)
    small.feed(answer)
    small.end()
    assert (small.counted, small.unseen) == (None, math.inf)


@pytest.mark.parametrize(("logprobs", "spent"), [(True, 210), (False, 500)])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_client_that_leaves_a_stream_of_large_events_pays_for_all_tokens(
    path: str, logprobs: bool, spent: int
) -> None:
    """The mock sends 10 tokens in each event; without log-probabilities all their bytes count, up to the limit."""

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asks: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if path.startswith("/v1/chat") else {"logprobs": 2}
        body = {**(CHAT if path.startswith("/v1/chat") else TEXT), **(asks if logprobs else {})}
        async with client.stream("POST", path, json={**body, "stream": True, "max_tokens": 500}) as answer:
            events = 0
            async for data in answer.aiter_bytes():
                # A chat begins with an event for its role.
                events += data.count(b"data: ")
                if events == 21 + path.startswith("/v1/chat"):
                    break
        await settled(gateway)
        account = (await standing(client))["accounts"]["all"]
        assert (account["spent"], account["reserved"]) == (spent, 0)

    words = MockUpstream(thought=(), answer=("word ",) * 1000, tokens_per_event=10)
    Hold(words, 210)
    gated(scenario, words, mode="off", budget=BudgetSettings(tokens=1000, per="batch"))


async def spent(upstream: Scripted, mode: str, *, settings: Any = None, **members: Any) -> int:
    """What a chat costs with a gateway that has not probed anything since its budget of 1000 tokens began."""
    async with before(upstream, mode) as (gateway, _), httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        gateway.service.settings = replace(gateway.service.settings, budget=BUDGET, **(settings or {}))
        gateway.service.budgets = Budgets(gateway.service.settings)
        await client.post("/v1/chat/completions", json={**CHAT, "model": "m", "max_tokens": 100, **members})
        await settled(gateway)
        return int((await standing(client))["accounts"]["all"]["spent"])


@pytest.mark.parametrize(("usage", "tokens"), [({"usage": {"completion_tokens": 50}}, 50), ({}, 100)])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", ["gate", "observe"])
def test_an_answer_in_one_piece_instead_of_a_stream_costs_its_usage_or_the_limit(
    mode: str, stream: bool, usage: dict[str, Any], tokens: int
) -> None:
    row = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    whole = Reply(200, "application/json", json.dumps({"id": "1", "choices": [row], **usage}).encode())
    assert asyncio.run(spent(Scripted(refuse=lambda _: whole), mode, stream=stream)) == tokens


def test_a_stream_under_a_wrong_name_costs_what_its_events_may_hold() -> None:
    events = chat({"content": TEN_WORDS}) + event({"choices": [], "usage": {"completion_tokens": 12}})
    upstream = Scripted(refuse=lambda _: Reply(200, "text/plain", events))
    assert asyncio.run(spent(upstream, "gate", stream=True)) == 12


@pytest.mark.parametrize(("logprobs", "tokens"), [(entries(10), 10), (None, len(TEN_WORDS))])
@pytest.mark.parametrize("repeat", [400, 500])
def test_a_refused_first_attempt_is_charged_once_beside_its_repeat(repeat: int, logprobs: Any, tokens: int) -> None:
    first = chat({"content": TEN_WORDS}, logprobs=logprobs) + event({"error": {"message": "boom"}})

    def answer(body: dict[str, Any]) -> Reply:
        if body.get("logprobs"):
            return Reply(200, "text/event-stream", first)
        return Reply(repeat, "application/json", b'{"error": {"message": "no"}}')

    assert asyncio.run(spent(Scripted(refuse=answer), "gate", stream=False)) == tokens


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_a_later_usage_without_completion_tokens_takes_no_count_away(shape: Any) -> None:
    def write(values: list[dict[str, Any]]) -> bytes:
        usages: list[dict[str, Any]] = [{"completion_tokens": 50}, {"prompt_tokens": 5}]
        values += [{"id": "c-1", "choices": [], "usage": usage} for usage in usages]
        return b"".join(map(event, values))

    splitter = "paragraph" if shape == "streaming" else "completion"
    calibration = calibration_of(1.0, model="m", shape=shape, splitter=splitter, decide="first")
    settings = {"calibration": replace(calibration, max_steps=1)}
    assert asyncio.run(spent(Scripted(write=write), "gate", settings=settings)) == 50


@pytest.mark.parametrize("status", [0, 307, 400, 401, 403, 404, 405, 422, 429, 500, 501, 502, 503])
def test_a_request_with_a_member_more_is_repeated_without_it_whatever_the_refusal(status: int) -> None:
    def refuse(body: dict[str, Any]) -> Reply | None:
        return Reply(status, "application/json", b'{"error": {"message": "no"}}') if "stream_options" in body else None

    upstream = Scripted(refuse=refuse)
    assert asyncio.run(spent(upstream, "off", stream=True)) == len("".join(upstream.texts))
    options = [json.loads(body).get("stream_options") for body in upstream.requests]
    assert options == [{"include_usage": True}, None]


def test_a_connection_that_breaks_late_costs_the_whole_limit_and_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("justenough.gateway.upstream.client._STALE_S", 0.0)
    upstream = Scripted(refuse=lambda _: Reply(0, "", b""))
    assert asyncio.run(spent(upstream, "off", stream=True, max_tokens=70)) == 70
    assert len(upstream.requests) == 1
