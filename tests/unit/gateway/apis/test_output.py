"""What the answers of other APIs take from odd chats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
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
from tests.unit.gateway.wild import TEXTS, Reply, Scripted, before, event

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


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
def test_an_answer_that_the_server_gave_up_is_not_complete(path: str, stream: bool, reason: str) -> None:
    def write(values: list[Any]) -> bytes:
        row = {"index": 0, "delta": {"content": "!"}, "finish_reason": reason}
        return b"".join(map(event, [*values[:-1], values[-1] | {"choices": [row]}])) + b"data: [DONE]\n\n"

    server = Scripted(write=write)
    answer = _asked(path, server, stream=stream)
    if stream:
        assert "gave up" in (seen(path, answer).error or "")
    else:
        assert answer.headers["x-justenough"] == "relayed; reason=refused"
        assert len(server.requests) == 2


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


def _without(*names: str, **changes: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [{key: own for key, own in value.items() if key not in names} | changes for value in values]


HEADS: Final[dict[str, Callable[[list[Any]], list[Any]]]] = {
    "nothing": _without("id", "created", "model"),
    "null": _without(id=None, created=None, model=None),
    "other types": _without(id=5, created="now", model=["m"]),
    "an empty event first": lambda values: [{"choices": []}, *values],
    "an empty head first": lambda values: [{"id": "", "model": "", "created": 0, "choices": []}, *values],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("head", HEADS)
def test_an_answer_has_an_id_a_time_and_a_model_whatever_the_chat_has(head: str, path: str, stream: bool) -> None:
    values = _answered(path, HEADS[head], stream=stream)
    wholes = [value.get("message") or value.get("response") or value for value in values]
    firsts = [value for value in wholes if "id" in value]
    assert len({value["id"] for value in firsts}) == 1
    assert len(firsts) == (1 if path == "/v1/messages" or not stream else 3)
    for value in firsts:
        assert isinstance(value["id"], str)
        assert value["id"]
        assert value["model"] == "m"
        assert path == "/v1/messages" or isinstance(value["created_at"], int)


def _answered(path: str, change: Callable[[list[Any]], list[Any]], *, stream: bool) -> list[Any]:
    def write(values: list[Any]) -> bytes:
        return b"".join(map(event, change(values))) + b"data: [DONE]\n\n"

    async def main() -> list[Any]:
        async with (
            before(Scripted(write=write), "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            own = {"store": False} if path == "/v1/responses" else {}
            answer = await client.post(path, json={**REQUESTS[path], "model": "m", "stream": stream, **own})
            assert answer.headers["x-justenough"].startswith("gating" if stream else "finished")
            return values_of(path, answer)

    return asyncio.run(main())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
def test_a_filtered_answer_is_not_complete(path: str, stream: bool) -> None:
    def filtered(values: list[Any]) -> list[Any]:
        row = values[-1]["choices"][0] | {"finish_reason": "content_filter"}
        return [*values[:-1], values[-1] | {"choices": [row]}]

    *_, last = values = _answered(path, filtered, stream=stream)
    if path == "/v1/messages":
        assert (values[-2]["delta"] if stream else last)["stop_reason"] == "refusal"
        return
    assert not stream or last["type"] == "response.incomplete"
    assert (last["response"] if stream else last)["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
def test_the_usage_has_all_counts_and_none_below_zero(path: str, stream: bool) -> None:
    counts = {"prompt_tokens": 5, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 9}}
    *_, last = values = _answered(path, lambda chunks: [*chunks, {"choices": [], "usage": counts}], stream=stream)
    if path == "/v1/messages":
        usage = (values[-2] if stream else last)["usage"]
        assert usage == {"cache_read_input_tokens": 9, "input_tokens": 0, "output_tokens": 10}
    else:
        usage = (last["response"] if stream else last)["usage"]
        assert usage["input_tokens_details"] == {"cached_tokens": 9, "cache_write_tokens": 0}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("field", ["reasoning_content", None])
def test_a_response_counts_the_tokens_of_its_thought(field: str | None, stream: bool) -> None:
    path = "/v1/responses"

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json={**REQUESTS[path], "stream": stream, "store": False})
        last = values_of(path, answer)[-1]
        usage = last.get("response", last)["usage"]
        # A thought between tags is a text like any other, also for the servers themselves.
        expected = len(mock.thought) if field else 0
        assert usage["output_tokens_details"] == {"reasoning_tokens": expected}

    gated(scenario, upstream_for(path, field=field, logprobs=(UNSURE,)))


ODD_LINES: Final[dict[str, tuple[Any, Any]]] = {
    "no object": ([1], {}),
    "an error of null": ({"error": None, "message": {"content": "B"}, "done": False}, {"content": "AB"}),
    "an empty error": ({"error": "", "message": {"content": "B"}, "done": False}, {"content": "AB"}),
    "images": ({"message": {"content": "B", "images": ["x"]}, "done": False}, {"content": "AB", "images": ["x"]}),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", ["observe", "gate"])
@pytest.mark.parametrize("odd", ODD_LINES)
def test_an_odd_line_of_ollama_loses_nothing(odd: str, mode: str, stream: bool) -> None:
    line, expected = ODD_LINES[odd]
    message = {"role": "assistant", "content": "A"}
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": 5, "eval_count": 3}
    data = b"".join(msgspec.json.encode(value) + b"\n" for value in [{"message": message, "done": False}, line, end])
    server = Scripted(refuse=lambda _: Reply(200, "application/x-ndjson", data))

    async def main() -> None:
        async with (
            before(server, mode) as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            answer = await client.post("/api/chat", json={**REQUESTS["/api/chat"], "model": "m", "stream": stream})
            assert len(server.requests) == 1
            values = [json.loads(line) for line in answer.text.splitlines()]
            assert (values[-1]["done_reason"], values[-1]["eval_count"]) == (5, 3)
            if stream:
                assert values[:-1] == [value for value in ({"message": message, "done": False}, line) if value != [1]]
            else:
                assert values[0]["message"] == message | expected

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("error", ["boom", {"message": "boom", "code": 3}])
def test_an_error_line_of_ollama_reaches_the_client_in_words(error: Any, path: str) -> None:
    begun: Any = {"message": {"content": "A"}} if path == "/api/chat" else {"response": "A"}
    data = b"".join(msgspec.json.encode(value) + b"\n" for value in [begun | {"done": False}, {"error": error}])
    server = Scripted(refuse=lambda _: Reply(200, "application/x-ndjson", data))

    async def main() -> None:
        async with (
            before(server, "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            answer = await client.post(path, json={**REQUESTS[path], "model": "m", "stream": True})
            assert values_of(path, answer) == [begun | {"done": False}, {"error": "boom"}]

    asyncio.run(main())


REFUSES: Final[list[Any]] = [{"refusal": "I can"}, {"refusal": "not."}]
CUT: Final = "<think>Let me think.\n\n</think>"


def _asked(path: str, server: Scripted, *, stream: bool) -> httpx.Response:
    async def main() -> httpx.Response:
        async with (
            before(server, "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            own = {"store": False} if path == "/v1/responses" else {}
            return await client.post(path, json={**REQUESTS[path], "model": "m", "stream": stream, **own})

    return asyncio.run(main())


@pytest.mark.parametrize("row", [UNSURE, CONFIDENT])
@pytest.mark.parametrize("has_text", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
def test_a_refusal_has_the_form_of_the_api(path: str, stream: bool, has_text: bool, row: Any) -> None:
    rest = ("Well. ",) if has_text else ()
    texts = (*TEXTS[: TEXTS.index("</think>") + 1], *rest)
    server = Scripted(
        row=row, deltas=REFUSES, texts=texts, rest=rest, usage={"prompt_tokens": 5, "completion_tokens": 9}
    )
    answer = _asked(path, server, stream=stream)
    assert len(server.requests) == (2 if row is CONFIDENT else 1)
    before_it = (CUT if row is CONFIDENT else "".join(texts[: texts.index("</think>") + 1])) + "".join(rest)
    values = values_of(path, answer)
    last = values[-1]
    if path == "/v1/messages":
        view = seen(path, answer)
        assert (view.text, view.finish) == (f"{before_it}I cannot.", "refusal")
        return
    whole = last.get("response", last)
    said, refused = whole["output"]
    assert said["content"][0]["text"] == before_it
    assert refused["content"] == [{"type": "refusal", "refusal": "I cannot."}]
    assert (whole["status"], refused["role"]) == ("completed", "assistant")
    if stream:
        own = [value for value in values if value.get("item_id") == refused["id"]]
        assert [value["type"].removeprefix("response.") for value in own] == [
            "content_part.added",
            *["refusal.delta"] * 2,
            "refusal.done",
            "content_part.done",
        ]
        assert "".join([value["delta"] for value in own[1:3]]) == own[3]["refusal"] == "I cannot."
        assert own[0]["part"] == {"type": "refusal", "refusal": ""}
        assert own[4]["part"] == refused["content"][0]


PICTURE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
FORMLESS: Final[dict[str, Any]] = {
    "images": {"content": "", "images": [PICTURE]},
    "audio": {"audio": {"id": "a", "data": "QQ==", "transcript": "Yes."}},
    "parts that are no text": {"content": [PICTURE]},
}


@pytest.mark.parametrize("row", [UNSURE, CONFIDENT])
@pytest.mark.parametrize("has_thought", [True, False])
@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("name", FORMLESS)
def test_an_answer_that_the_api_has_no_form_for_does_not_look_empty(
    name: str, path: str, has_thought: bool, row: Any
) -> None:
    texts = TEXTS[: TEXTS.index("</think>") + 1] if has_thought else ()
    server = Scripted(row=row, deltas=[FORMLESS[name]], texts=texts, rest=())
    error = seen(path, _asked(path, server, stream=True)).error
    assert error is not None
    assert name in error
    server.requests.clear()
    # In one piece, the server gives its answer in the form that it has for it.
    answer = _asked(path, server, stream=False)
    assert answer.headers["x-justenough"] == "relayed; reason=refused"
    assert "messages" not in json.loads(server.requests[-1]) or path == "/v1/messages"


@pytest.mark.parametrize("row", [UNSURE, CONFIDENT])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("name", FORMLESS)
def test_a_text_beside_what_the_api_has_no_form_for_is_kept(name: str, path: str, stream: bool, row: Any) -> None:
    server = Scripted(row=row, deltas=[FORMLESS[name]], usage={"prompt_tokens": 5, "completion_tokens": 9})
    view = seen(path, _asked(path, server, stream=stream))
    assert view.error is None
    assert view.text.endswith("</think>The answer is 42.")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", CHATS)
def test_an_empty_answer_with_other_members_is_an_empty_answer(path: str, stream: bool) -> None:
    deltas = [{"content": "", "annotations": [{"type": "x"}], "provider_specific_fields": {"a": 1}}]
    server = Scripted(row=UNSURE, deltas=deltas, texts=(), usage={"prompt_tokens": 5, "completion_tokens": 0})
    view = seen(path, _asked(path, server, stream=stream))
    assert (view.error, view.text, len(server.requests)) == (None, "", 1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_ollamas_images_after_a_cut_are_not_lost(path: str, stream: bool) -> None:
    row = {"token": "x", "logprob": CONFIDENT[0], "top_logprobs": [{"token": "x", "logprob": p} for p in CONFIDENT]}

    def lines(body: Any) -> Reply:
        continued = (body.get("messages") or [{}])[-1].get("role") == "assistant"
        texts = ["<think>", "A.\n\n", "B.\n\n", "C"] if not continued else [""]
        further = {"images": ["iVBO"]} if continued else {}
        out: list[Any] = []
        for text in texts:
            own: Any = {"role": "assistant", "content": text, **further}
            out.append(({"response": text} if "prompt" in body else {"message": own}) | {"done": False})
            if body.get("logprobs") and text:
                out[-1]["logprobs"] = [{**row, "token": text}]
        end: Any = {"response": ""} if "prompt" in body else {"message": {"role": "assistant", "content": ""}}
        out.append(end | {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": len(texts)})
        data = b"".join(msgspec.json.encode({"model": "m", **line}) + b"\n" for line in out)
        return Reply(200, "application/x-ndjson", data)

    answer = _asked(path, Scripted(refuse=lines), stream=stream)
    view = seen(path, answer)
    assert (view.text, view.report["decision"]) == ("<think>A.\n\n</think>", "stopped")
    assert answer.text.count("iVBO") == 1
