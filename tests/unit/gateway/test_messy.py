"""Streams of servers that keep to no type: the client gets all of the text, and a safe end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest

from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import Capabilities
from justenough.testing import CONFIDENT, UNSURE
from tests.unit.gateway.serving import calibration_of, running
from tests.unit.gateway.ways import CHAT, ends_well, settled

TEXTS: Final = ("<think>", "Let me", " think.\n\n", "So", " 42.\n\n", "</think>", "The answer", " is 42.")
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
Chunk = dict[str, Any]


def chunks(row: Sequence[float]) -> list[Chunk]:
    """A stream of a thought and its answer, each token with these log-probabilities."""
    top = [{"token": "x", "logprob": value} for value in row]
    out: list[Chunk] = []
    for text in TEXTS:
        logprobs = {"content": [{"token": text, "logprob": row[0], "top_logprobs": top}]}
        choice = {"index": 0, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": None}
        out.append({"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [*out, {"id": "c-1", "object": "chat.completion.chunk", "model": "m", "choices": [end]}]


def body(values: Sequence[Chunk], *, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values) + end


@asynccontextmanager
async def serving(answer: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """A server that gives this answer to everything."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            await answer(writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def through(sent: bytes, *later: bytes, shape: Any = "streaming", stream: bool = True) -> httpx.Response:
    """What the client gets where the upstream sends these bytes, and to later requests those `later`."""
    answers = [sent, *later]

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0) if len(answers) > 1 else answers[0])

    async def scenario() -> httpx.Response:
        async with serving(answer) as url:
            calibration = calibration_of(
                1.0, shape=shape, splitter="paragraph" if shape == "streaming" else "completion"
            )
            settings = GatewaySettings(
                upstream=url, calibration=calibration, default_temperature=1.0, audit_share=0.0, close="</think>"
            )
            async with running(replace(settings, mode="off")) as gateway:
                gateway.service.settings = settings
                gateway.service.probing.capabilities = Capabilities(engine="vllm", models=("m",), chat="prefill")
                async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                    response = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
                await settled(gateway)
            return response

    return asyncio.run(scenario())


def events(response: httpx.Response) -> list[Any]:
    """The events' payloads; each must be JSON that every client can read."""
    assert ends_well(response, stream=True)
    payloads = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return [json.loads(payload, parse_constant=refuse) for payload in payloads if payload != "[DONE]"]


def text(values: Sequence[Any]) -> str:
    rows = [value["choices"][0] for value in values if value.get("choices")]
    return "".join(row.get("delta", {}).get("content") or "" for row in rows)


def _every(change: Callable[[Chunk], None]) -> Callable[[list[Chunk]], list[Chunk]]:
    def changed(values: list[Chunk]) -> list[Chunk]:
        for value in values:
            change(value)
        return values

    return changed


def _choice(**members: Any) -> Callable[[list[Chunk]], list[Chunk]]:
    return _every(lambda value: value["choices"][0].update({"finish_reason": None} | members))


def _only(number: int, **members: Any) -> Callable[[list[Chunk]], list[Chunk]]:
    """One chunk more, of these members."""
    return lambda values: [*values[:number], {"id": "c-1", "model": "m", **members}, *values[number:]]


def _logprob(value: float) -> Callable[[list[Chunk]], list[Chunk]]:
    def change(chunk: Chunk) -> None:
        for entry in (chunk["choices"][0].get("logprobs") or {}).get("content", ()):
            entry["top_logprobs"] = [*entry["top_logprobs"][:-1], {"token": "x", "logprob": value}]

    return _every(change)


MESSY: Final[dict[str, Callable[[list[Chunk]], list[Chunk]]]] = {
    "null choices": _only(2, choices=None),
    "null usage": _every(lambda value: value.update(usage={"prompt_tokens": None, "completion_tokens": None})),
    "float usage": _every(lambda value: value.update(usage={"prompt_tokens": 3.0, "completion_tokens": 7.0})),
    "textual usage": _every(lambda value: value.update(usage={"prompt_tokens": "3", "completion_tokens": "many"})),
    "usage of another type": _every(lambda value: value.update(usage="none")),
    "numeric id": _every(lambda value: value.update(id=17)),
    "null index": _every(lambda value: value["choices"][0].update(index=None)),
    "minus infinity": _logprob(-float("inf")),
    "not a number": _logprob(float("nan")),
}


@pytest.mark.parametrize("name", MESSY)
@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_the_client_gets_all_of_the_text(shape: str, name: str) -> None:
    sent = body(MESSY[name](chunks(UNSURE)))
    response = through(sent, shape=shape)
    received = events(response)
    if shape == "streaming":
        assert text(received) == "".join(TEXTS)
        assert "logprob" not in response.text.replace("missing_logprobs", "").replace("short_logprobs", "")
    else:
        assert text(received) == "The answer is 42."


@pytest.mark.parametrize("name", MESSY)
def test_the_whole_answer_has_all_of_the_text(name: str) -> None:
    response = through(body(MESSY[name](chunks(UNSURE))), stream=False)
    assert ends_well(response, stream=False)
    assert response.json()["choices"][0]["message"]["content"] == "".join(TEXTS)


@pytest.mark.parametrize("reason", ["", "null"])
def test_an_empty_finish_reason_ends_nothing(reason: str) -> None:
    values = chunks(CONFIDENT)
    for value in values[:-1]:
        value["choices"][0]["finish_reason"] = reason
    received = events(through(body(values)))
    reports = [value["justenough"] for value in received if "justenough" in value]
    assert [report["decision"] for report in reports] == ["stopped"]


@pytest.mark.parametrize("reason", ["", "null"])
def test_a_stream_without_a_real_finish_reason_is_broken(reason: str) -> None:
    values = chunks(UNSURE)[:-1]
    for value in values:
        value["choices"][0]["finish_reason"] = reason
    response = through(body(values, end=b""))
    assert "[DONE]" not in response.text
    assert '"code":"upstream_broken"' in response.text
    # With its own end the stream is whole, as it is for a client without the gateway.
    assert text(events(through(body(values)))) == "".join(TEXTS)


def test_a_usage_that_the_gateway_did_not_ask_for_is_the_clients() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 8}
    values = [*chunks(UNSURE), {"id": "c-1", "model": "m", "choices": [], "usage": usage}]
    assert [value["usage"] for value in events(through(body(values))) if "usage" in value] == [usage]


def test_not_a_number_never_stops_a_thought() -> None:
    received = events(through(body(_logprob(float("nan"))(chunks(CONFIDENT)))))
    assert text(received) == "".join(TEXTS)
    (report,) = [value["justenough"] for value in received if "justenough" in value]
    assert report["decision"] == "finished"
    assert report["tokens"] == len(TEXTS)


def _in_parts(values: list[Chunk]) -> list[Chunk]:
    for value in values[:-1]:
        delta = value["choices"][0]["delta"]
        delta["content"] = [{"type": "text", "text": delta["content"]}]
    return values


def test_a_list_of_parts_is_forwarded_and_the_gate_lets_go() -> None:
    received = events(through(body(_in_parts(chunks(CONFIDENT)))))
    parts = [value["choices"][0]["delta"].get("content") for value in received]
    assert [part[0]["text"] for part in parts if part] == list(TEXTS)
    (report,) = [value["justenough"] for value in received if "justenough" in value]
    assert report["decision"] != "stopped"
    assert "unreadable_chunk" in json.dumps(report)


def test_a_list_of_parts_is_kept_as_parts_in_the_whole_answer() -> None:
    content = through(body(_in_parts(chunks(CONFIDENT))), stream=False).json()["choices"][0]["message"]["content"]
    assert [part["text"] for part in content] == list(TEXTS)


def test_half_a_surrogate_pair_passes_as_it_came() -> None:
    values = chunks(UNSURE)
    values[3]["choices"][0]["delta"]["content"] = "\ud83d"
    response = through(body(values))
    assert ends_well(response, stream=True)
    assert '"content": "\\ud83d"' in response.text
    whole = through(body(values), stream=False).json()["choices"][0]["message"]["content"]
    assert "\ufffd" in whole


@pytest.mark.parametrize("end", [b"data: [DONE] \n\n", b"data:[DONE]\n\n", b"data: \n\ndata: [DONE]\n\n", b""])
def test_the_end_of_a_stream_in_any_form(end: bytes) -> None:
    sent = b"data:\n\n" + body(chunks(UNSURE), end=end)
    assert text(events(through(sent))) == "".join(TEXTS)


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_comments_reach_the_client_before_the_tokens(shape: str) -> None:
    response = through(b": waiting\n\n" * 3 + body(chunks(UNSURE)), shape=shape)
    assert response.text.startswith(": waiting\n\n" * 3)
    assert text(events(response)).endswith("The answer is 42.")


@pytest.mark.parametrize("odd", [b"17", b"[]", b'"text"', b'{"choices":"none"}', b'{"choices":[{"delta":3}]}'])
def test_json_that_is_no_chunk_is_forwarded_as_it_came(odd: bytes) -> None:
    values = chunks(CONFIDENT)
    response = through(body(values[:1], end=b"data: %b\n\n" % odd) + body(values[1:]))
    assert b"data: %b\n\n" % odd in response.content
    assert text([value for value in events(response) if isinstance(value, dict) and value.get("id")]) == "".join(TEXTS)
    assert "unreadable_chunk" in response.text


ENDED: Final = b'data: {"detail":"out of memory"}\n\ndata: [DONE]\n\n'


def test_an_error_in_any_words_is_not_the_end_of_a_step() -> None:
    response = through(body(chunks(UNSURE)[:-2], end=ENDED), shape="sequential")
    assert "[DONE]" not in response.text
    assert '"code":"upstream_malformed"' in response.text


def test_after_an_error_in_any_words_in_a_later_step_the_answer_before_it_stays() -> None:
    response = through(body(chunks(UNSURE)), body(chunks(UNSURE)[:-3], end=ENDED), shape="sequential")
    assert text(events(response)) == "The answer is 42."
    assert '"reason":"step_failed"' in response.text


def test_an_error_in_any_words_is_not_the_end_of_the_answer_after_a_cut() -> None:
    answer = chunks(UNSURE)[-3:]
    response = through(body(chunks(CONFIDENT)), body(answer[:-1], end=ENDED))
    assert "[DONE]" not in response.text
    assert '"code":"continuation_failed"' in response.text
    assert text(events(through(body(chunks(CONFIDENT)), body(answer)))).endswith("</think>The answer is 42.")


@pytest.mark.parametrize("stream", [True, False])
def test_a_step_that_begins_with_what_cannot_be_read_is_left_to_the_client(stream: bool) -> None:
    lists = b"".join(b"data: %b\n\n" % json.dumps([value]).encode() for value in chunks(UNSURE))
    response = through(lists + b"data: [DONE]\n\n", shape="sequential", stream=stream)
    assert response.headers["x-justenough"] == "relayed; reason=refused"
    assert response.content == lists + b"data: [DONE]\n\n"
