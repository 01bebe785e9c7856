"""What the answers of other APIs take from odd chats."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httpx
import msgspec
import pytest

from justenough.gateway.apis.ollama import _chunk
from justenough.gateway.stream.events import read
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from tests.unit.gateway.apis.others import REQUESTS, calls_in, is_ollama, seen, values_of
from tests.unit.gateway.apis.test_apis import gated, upstream_for
from tests.unit.gateway.serving import Running
from tests.unit.gateway.wild import Reply, Scripted, before, event

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


def _call(index: int | None, name: str | None, arguments: Any, **members: Any) -> Any:
    own = {} if index is None else {"index": index}
    function = {"arguments": arguments} | ({} if name is None else {"name": name})
    return {"tool_calls": [{**own, **members, "type": "function", "function": function}]}


CALLS: Final[dict[str, tuple[list[Any], list[Any]]]] = {
    "one piece": ([_call(0, "f", '{"a":1}', id="c")], [("c", "f", {"a": 1})]),
    "in pieces": (
        [_call(0, "f", "", id="c"), _call(0, None, '{"a"'), _call(0, None, ":1}")],
        [("c", "f", {"a": 1})],
    ),
    "two, in turn": (
        [_call(0, "f", '{"a"', id="c"), _call(1, "g", "{", id="d"), _call(0, None, ":1}"), _call(1, None, "}")],
        [("c", "f", {"a": 1}), ("d", "g", {})],
    ),
    "without an index": ([_call(None, "f", '{"a":1}', id="c")], [("c", "f", {"a": 1})]),
    "without an id": ([_call(0, "f", '{"a":1}')], [("call_c-1_0", "f", {"a": 1})]),
    "an object as arguments": ([_call(0, "f", {"a": 1}, id="c")], [("c", "f", {"a": 1})]),
    "no arguments": ([_call(0, "f", "", id="c")], [("c", "f", {})]),
    "the older form": (
        [{"function_call": {"name": "f", "arguments": '{"a"'}}, {"function_call": {"arguments": ":1}"}}],
        [("call_c-1_0", "f", {"a": 1})],
    ),
}


@pytest.mark.parametrize("row", [UNSURE, CONFIDENT])
@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("form", CALLS)
def test_a_call_in_a_stream_comes_in_the_apis_own_events(form: str, path: str, has_text: bool, row: Any) -> None:
    deltas, expected = CALLS[form]
    texts = ("<think>", "So", " 42.", "</think>", "Yes.") if has_text else ()
    server = Scripted(row=row, deltas=deltas, texts=texts, usage={"prompt_tokens": 5, "completion_tokens": 10})

    async def main() -> None:
        async with (
            before(server, "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            own = {"store": False} if path == "/v1/responses" else {}
            answer = await client.post(path, json={**REQUESTS[path], "model": "m", "stream": True, **own})
            assert answer.headers["x-justenough"].startswith("gating")
            assert calls_in(path, answer) == expected
            view = seen(path, answer)
            assert view.text == "".join(server.texts)
            assert view.finish == ("tool_use" if path == "/v1/messages" else "completed")

    asyncio.run(main())


@pytest.mark.parametrize("path", CHATS)
def test_an_error_as_the_reason_for_the_end_is_no_end_of_a_whole_answer(path: str) -> None:
    def write(values: list[Any]) -> bytes:
        failed = values[0] | {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}
        return b"".join(map(event, [*values[:3], failed])) + b"data: [DONE]\n\n"

    async def main() -> None:
        async with (
            before(Scripted(write=write), "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            own = {"store": False} if path == "/v1/responses" else {}
            answer = await client.post(path, json={**REQUESTS[path], "model": "m", "stream": True, **own})
            assert answer.headers["x-justenough"].startswith("gating")
            assert seen(path, answer).error

    asyncio.run(main())


LAST_LINES: Final[list[Any]] = [
    {"content": "!"},
    {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    {"content": "!", "thinking": "?"},
]


@pytest.mark.parametrize("message", LAST_LINES)
def test_ollamas_last_line_may_bring_more_than_the_end(message: Any) -> None:
    lines: list[dict[str, Any]] = [{"message": {"role": "assistant", "content": "A"}, "done": False}]
    lines.append({"message": {"role": "assistant", **message}, "done": True, "done_reason": "stop"})
    data = b"".join(msgspec.json.encode({"model": "m", **line}) + b"\n" for line in lines)
    whole = msgspec.json.encode({"model": "m", **lines[1], "message": {**lines[1]["message"], "content": "A"}})

    def answer(body: Any) -> Reply:
        streams = body.get("stream") is not False
        return Reply(200, "application/x-ndjson", data) if streams else Reply(200, "application/json", whole)

    server = Scripted(refuse=answer)

    async def main() -> None:
        async with (
            before(server, "gate") as (gateway, url),
            httpx.AsyncClient(timeout=60) as client,
        ):
            body = {**REQUESTS["/api/chat"], "model": "m", "stream": True}
            direct, through = [await client.post(base + "/api/chat", json=body) for base in (url, gateway.url)]
            assert through.headers["x-justenough"].startswith("gating")
            *before_last, last = values_of("/api/chat", through)
            last.pop("justenough")
            assert [*before_last, last] == values_of("/api/chat", direct)
            through = await client.post(gateway.url + "/api/chat", json=body | {"stream": False})
            own = through.json()["message"]
            if "tool_calls" in message:
                assert through.content == whole
            else:
                assert (own["content"], own.get("thinking")) == ("A" + message["content"], message.get("thinking"))

    asyncio.run(main())


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
