"""The two forms of an answer: a stream of events, and one JSON object merged from them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from justenough.gateway.exchange import CYCLE, Exchange, RawHeaders, Refused
from justenough.gateway.stream.output import HEADER, EventOutput, Output, WholeOutput

UPSTREAM: RawHeaders = [
    (b"Content-Type", b"text/event-stream"),
    (b"content-length", b"7"),
    (b"connection", b"close"),
    (b"x-request-id", b"1"),
]


async def receive() -> dict[str, Any]:
    raise AssertionError("an output reads no request")


class Client:
    """What a client receives."""

    def __init__(self) -> None:
        self.headers: RawHeaders = []
        self.body = b""
        self.complete = False
        scope = {"method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": []}
        self.exchange = Exchange(scope, receive, self._send, max_body_bytes=1, timeout_s=1)

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
            self.headers = list(message["headers"])
        else:
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)


def answered(
    make: Callable[[Exchange], Output], *events: object, then: Callable[[Output], Awaitable[None]] | None = None
) -> Client:
    """The answer of an output to these events, in two calls."""

    async def run() -> Client:
        client = Client()
        output = make(client.exchange)
        await output.begin(UPSTREAM, b"gating")
        payloads = [json.dumps(event, separators=(",", ":")).encode() for event in events]
        for part in (payloads[:1], payloads[1:]):
            if part:
                await output.send(part)
        if then is not None:
            await then(output)
        await output.end(b"stopped", {"tokens": 5})
        return client

    return asyncio.run(run())


def chat(*events: object) -> Any:
    client = answered(lambda exchange: WholeOutput(exchange, "chat", limit=10_000), *events)
    assert client.complete
    return json.loads(client.body)


def delta(finish: str | None = None, *, logprobs: object = None, **members: object) -> dict[str, object]:
    return {"id": "a", "choices": [{"index": 0, "delta": members, "finish_reason": finish, "logprobs": logprobs}]}


def test_events_are_sent_as_they_come_and_the_stream_has_an_end() -> None:
    async def more(output: Output) -> None:
        await output.keep_alive(b": ping\n\n")
        await output.pass_on(b'data: {"raw": 4}\n\n')

    client = answered(EventOutput, {"a": 1}, {"b": 2}, {"c": 3}, then=more)
    events = client.body.split(b"\n\n")
    assert events == [
        b'data: {"a":1}',
        b'data: {"b":2}',
        b'data: {"c":3}',
        b": ping",
        b'data: {"raw": 4}',
        b"data: [DONE]",
        b"",
    ]
    assert client.complete
    assert dict(client.headers)[HEADER] == b"gating"
    assert dict(client.headers)[b"x-request-id"] == b"1"
    assert not {b"content-length", b"connection"} & dict(client.headers).keys()


def test_a_whole_answer_has_its_own_length_type_and_report() -> None:
    client = answered(lambda exchange: WholeOutput(exchange, "chat", limit=1000), delta("stop", content="4"))
    headers = dict(client.headers)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == str(len(client.body)).encode()
    assert (headers[HEADER], headers[b"x-request-id"]) == (b"stopped", b"1")


def test_a_whole_answer_has_the_tokens_of_its_header_also_if_they_are_counted_late() -> None:
    finish, usage = delta("stop", content="4"), {"choices": [], "usage": {"completion_tokens": 5}}
    assert chat(finish | {"justenough": {"tokens": 4}}, usage)["justenough"] == {"tokens": 5}


def test_the_texts_of_a_chat_are_joined_field_by_field() -> None:
    whole = chat(
        delta(role="assistant", content=""),
        delta(reasoning_content="Hm"),
        delta(reasoning_content=". "),
        delta(content="4", refusal=None),
        delta("stop", content="2", vendor=1),
    )
    assert whole["object"] == "chat.completion"
    (choice,) = whole["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    joined = {"content": "42", "reasoning_content": "Hm. "}
    assert choice["message"] == {"role": "assistant", "refusal": None, "vendor": 1} | joined


@pytest.mark.parametrize("index", [-1, None, "0", 1.5, True])
def test_a_choice_without_a_place_belongs_to_the_first_one(index: object) -> None:
    odd = {"choices": [{"index": index, "delta": {"content": "2"}, "finish_reason": "stop"}]}
    (choice,) = chat(delta(content="4"), odd)["choices"]
    assert (choice["index"], choice["message"]["content"], choice["finish_reason"]) == (0, "42", "stop")


def test_a_text_in_parts_makes_the_whole_a_list_of_parts() -> None:
    image = {"type": "image_url", "image_url": {}}
    message = chat(delta(content="4"), delta(content=[image]), delta(content=17))["choices"][0]["message"]
    assert message["content"] == [{"type": "text", "text": "4"}, image]


def test_log_probabilities_are_lists_of_all_tokens() -> None:
    whole = chat(
        delta(content="4", logprobs={"content": [{"token": "4"}], "refusal": None}),
        delta(content="2", logprobs={"content": [{"token": "2"}], "reasoning_content": [{"token": "Hm"}]}),
        delta("stop", logprobs={"content": None}),
    )
    assert whole["choices"][0]["logprobs"] == {
        "content": [{"token": "4"}, {"token": "2"}],
        "refusal": None,
        "reasoning_content": [{"token": "Hm"}],
    }


def test_the_first_id_stays_and_the_last_value_of_other_members_and_null_replaces_nothing() -> None:
    whole = chat(
        {"id": "", "model": "", "choices": []},
        {"id": "a", "model": "m", "usage": None},
        {"id": "b", "model": None, "usage": {"total_tokens": 3}},
        {"id": "", "model": "", "choices": []},
    )
    # Labels name the answer by the id of its first chunk.
    assert (whole["id"], whole["model"], whole["usage"]) == ("a", "m", {"total_tokens": 3})
    assert whole["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": None},
    ]


def test_only_the_report_in_the_last_event_is_the_gateways() -> None:
    whole = chat(delta(content="4") | {"justenough": "upstream"}, delta("stop") | {"justenough": {"tokens": 1}})
    assert whole["justenough"] == {"tokens": 5}
    assert "justenough" not in chat(delta(content="4") | {"justenough": "upstream"})


def test_a_text_completion_has_a_text_even_without_events() -> None:
    def make(exchange: Exchange) -> Output:
        return WholeOutput(exchange, "completion", limit=1000)

    rows = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("4", "2")]
    whole = json.loads(answered(make, *rows).body)
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "42")
    assert json.loads(answered(make).body)["choices"][0]["text"] == ""


def test_comments_are_dropped_from_a_whole_answer() -> None:
    async def comment(output: Output) -> None:
        await output.keep_alive(b": ping\n\n")
        await output.pass_on(b'data: {"choices":[{"index":0,"delta":{"content":"2"}}]}\n\n')

    client = answered(lambda exchange: WholeOutput(exchange, "chat", limit=1000), delta(content="4"), then=comment)
    assert json.loads(client.body)["choices"][0]["message"]["content"] == "42"


def test_an_answer_that_is_too_large_is_refused() -> None:
    event = delta(content="4")
    size = len(json.dumps(event, separators=(",", ":")))
    answered(lambda exchange: WholeOutput(exchange, "chat", limit=2 * size), event, event)
    with pytest.raises(Refused, match="too large"):
        answered(lambda exchange: WholeOutput(exchange, "chat", limit=2 * size - 1), event, event)


class Slow(Client):
    """A client that reads nothing before it is ready."""

    write_paused = True

    def __init__(self) -> None:
        super().__init__()
        scope = {"method": "POST", "path": "/", "query_string": b"", "headers": [], CYCLE: SimpleNamespace(flow=self)}
        self.ready = asyncio.Event()
        self.exchange = Exchange(scope, receive, self._send_slowly, max_body_bytes=1, timeout_s=1)

    async def _send_slowly(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            await self.ready.wait()
        await self._send(message)


def test_events_wait_in_order_for_a_slow_client_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.gateway.stream.output.MOST_AHEAD", 40)

    async def scenario() -> None:
        client = Slow()
        output = EventOutput(client.exchange)
        await output.begin(UPSTREAM, b"gating")
        for number in range(3):
            await output.send([b"%d" % number])
        await output.keep_alive(b": ping\n\n")
        assert client.body == b""
        too_much = asyncio.ensure_future(output.send([b"x" * 40]))
        await asyncio.sleep(0.01)
        assert not too_much.done()
        client.ready.set()
        await too_much
        await output.end(b"stopped", {"tokens": 5})
        events = b"data: 0\n\ndata: 1\n\ndata: 2\n\n: ping\n\ndata: %b\n\ndata: [DONE]\n\n"
        assert client.body == events % (b"x" * 40)
        assert client.complete

    asyncio.run(scenario())


def test_an_error_in_sending_reaches_the_one_who_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.gateway.stream.output.MOST_AHEAD", 40)

    class Broken(Slow):
        async def _send(self, message: Any) -> None:
            if message["type"] == "http.response.body":
                raise ConnectionError

    async def scenario() -> None:
        client = Broken()
        output = EventOutput(client.exchange)
        await output.begin(UPSTREAM, b"gating")
        await output.send([b"1"])
        too_much = asyncio.ensure_future(output.send([b"x" * 40]))
        await asyncio.sleep(0)
        client.ready.set()
        with pytest.raises(ConnectionError):
            await too_much

    asyncio.run(scenario())


def test_what_waits_for_a_client_that_has_left_is_dropped() -> None:
    async def scenario() -> None:
        client = Slow()
        output = EventOutput(client.exchange)
        await output.begin(UPSTREAM, b"gating")
        await output.send([b"1"])
        output.close()
        await asyncio.sleep(0)
        client.ready.set()
        await asyncio.sleep(0)
        assert client.body == b""

    asyncio.run(scenario())


def test_the_headers_wait_for_the_first_event() -> None:
    async def scenario() -> None:
        client = Client()
        output = EventOutput(client.exchange)
        await output.begin(UPSTREAM, b"gating")
        assert not client.exchange.started
        await output.keep_alive(b": ping\n\n")
        assert client.exchange.started

    asyncio.run(scenario())
