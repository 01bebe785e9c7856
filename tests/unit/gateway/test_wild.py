"""Do no harm: whatever an upstream does, its client gets through the gateway what it gets without it.

Each case is one behaviour of servers in the wild. It is tried for chats and text completions, streamed and not, and
with the gate off, observing and gating; the gate is never sure, so that it stops nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from justenough.testing import CONFIDENT
from tests.unit.gateway.wild import (
    MODES,
    TEXTS,
    Reply,
    Scripted,
    before,
    chunk,
    event,
    seen,
    tried,
)

Body = dict[str, Any]
everywhere = pytest.mark.parametrize("mode", MODES)


DONE: Final = b"data: [DONE]\n\n"
REFUSALS: Final[dict[str, Reply]] = {
    "400": Reply(400, "application/json", b'{"error":{"message":"logprobs are not supported"}}'),
    "422 in other words": Reply(422, "application/json", b'{"detail":[{"msg":"extra fields not permitted"}]}'),
    "500": Reply(500, "text/plain", b"Internal Server Error"),
    "501": Reply(501, "application/json", b'{"message":"not implemented"}'),
    "403 in HTML": Reply(403, "text/html", b"<html><h1>Forbidden</h1></html>"),
    "302": Reply(302, "text/html", b"moved", (("Location", "http://127.0.0.1:1/"),)),
    "200 with an error": Reply(200, "application/json", b'{"error":{"message":"top_logprobs: unknown"}}'),
    "200 in HTML": Reply(200, "text/html", b"<html>Something went wrong</html>"),
    "200 without a choice": Reply(200, "application/json", b'{"choices":null,"base_resp":{"status_msg":"invalid"}}'),
    "200 in other words": Reply(200, "application/json", b'{"code":400,"msg":"no log-probabilities"}'),
    "an event in other words": Reply(200, "text/event-stream", event({"object": "error", "message": "no"}) + DONE),
    "an event of plain words": Reply(200, "text/event-stream", b"event: error\ndata: no log-probabilities\n\n"),
    "an error as the first event": Reply(200, "text/event-stream", event({"error": {"message": "no logprobs"}})),
}
ADDED: Final = ("logprobs", "stream_options", "stream")
"""What the gateway adds or changes."""


def _refusing(reply: Reply, *members: str) -> Scripted:
    """A server that refuses each of these members; a stream is refused only where it has log-probabilities too."""

    def refuse(sent: Body) -> Reply | None:
        changed = {"stream": sent.get("stream") and "logprobs" in sent}
        return reply if any(changed.get(member, sent.get(member)) for member in members) else None

    return Scripted(refuse=refuse)


@everywhere
@pytest.mark.parametrize(
    ("refusal", "members"), [*((refusal, ADDED) for refusal in REFUSALS), *(("400", (member,)) for member in ADDED)]
)
def test_a_refused_request_is_repeated_once_as_the_client_sent_it(
    refusal: str, members: tuple[str, ...], mode: str
) -> None:
    for each in tried(_refusing(REFUSALS[refusal], *members), mode):
        assert seen(each.through) == seen(each.direct), each
        assert seen(each.through).text == "".join(TEXTS)
        assert each.requests[-1] == json.dumps(each.body, separators=(",", ":")).encode()
        assert len(each.requests) <= 2


@everywhere
@pytest.mark.parametrize(
    "reply", [Reply(0, "", b""), Reply(500, "application/json", b"{", (("Content-Length", "99"),))]
)
def test_a_request_whose_answer_breaks_off_at_once_is_repeated_as_the_client_sent_it(reply: Reply, mode: str) -> None:
    for each in tried(_refusing(reply, *ADDED), mode):
        assert seen(each.through) == seen(each.direct), each
        assert each.requests[-1] == json.dumps(each.body, separators=(",", ":")).encode()
        assert len(each.requests) <= 2


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_counted_request_is_repeated_without_the_member_for_its_count(refusal: str) -> None:
    for each in tried(_refusing(REFUSALS[refusal], "stream_options"), "counted"):
        assert seen(each.through) == seen(each.direct), each
        assert each.through.content == each.direct.content
        assert len(each.requests) == 1 + each.stream


@pytest.mark.parametrize("mode", ["observe", "gate"])
def test_a_request_whose_connection_breaks_late_is_not_repeated(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens may have been generated for it, which nobody would count."""
    monkeypatch.setattr("justenough.gateway.upstream.client._STALE_S", 0.0)
    for each in tried(_refusing(Reply(0, "", b""), *ADDED), mode):
        assert each.through.status_code == 502, each
        assert len(each.requests) == 1


@everywhere
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_of_the_clients_own_request_passes(refusal: str, mode: str) -> None:
    for each in tried(Scripted(refuse=lambda _: REFUSALS[refusal]), mode):
        answer = each.through
        assert (answer.status_code, answer.content) == (each.direct.status_code, each.direct.content), each
        assert len(each.requests) <= 2


WAITING: Final = b": OPENROUTER PROCESSING\n\n" * 2
LATE: Final[dict[str, bytes]] = {
    "an error": event({"error": {"message": "no logprobs"}}),
    "an error after the role": event(chunk({"index": 0, "delta": {"role": "assistant"}}, {}))
    + event({"error": {"message": "no logprobs"}}),
    "other words": event({"detail": "no logprobs"}) + DONE,
    "nothing": b"",
}


@everywhere
@pytest.mark.parametrize("late", LATE)
def test_a_request_that_is_refused_after_comments_is_repeated_in_the_same_stream(late: str, mode: str) -> None:
    reply = Reply(200, "text/event-stream", WAITING + LATE[late])
    for each in tried(_refusing(reply, *ADDED), mode):
        assert seen(each.through) == seen(each.direct), each
        assert seen(each.through).text == "".join(TEXTS)
        assert each.requests[-1] == json.dumps(each.body, separators=(",", ":")).encode()
        if mode != "off" and each.stream:
            assert each.through.content == WAITING + each.direct.content


OWN_REFUSALS: Final = {
    b'{"error":{"message":"no such model"}}': b'data: {"error":{"message":"no such model"}}\n\n',
    b'{\n "detail": "busy"\n}': b'data: {  "detail": "busy" }\n\n',
    b"<html>busy</html>": b"continuation",
}


@pytest.mark.parametrize("mode", ["observe", "gate"])
@pytest.mark.parametrize("body", OWN_REFUSALS)
def test_a_refusal_of_the_clients_own_request_after_comments_is_an_error_event(body: bytes, mode: str) -> None:
    commented = Reply(200, "text/event-stream", WAITING + LATE["an error"])
    reply = Reply(400, "application/json", body)
    upstream = Scripted(refuse=lambda sent: commented if sent.get("stream") and "logprobs" in sent else reply)
    for each in tried(upstream, mode):
        if each.stream:
            assert each.through.content.startswith(WAITING)
            last = each.through.content.rstrip().rsplit(b"\n", 1)[-1]
            assert b"DONE" not in each.through.content
            assert last == OWN_REFUSALS[body].rstrip() or (b"upstream_broken" in last and body.startswith(b"<"))
        else:
            assert (each.through.status_code, each.through.content) == (400, body)


@dataclass(frozen=True)
class Wire:
    """A way in which servers write the same chunks."""

    write: Callable[[list[Body]], bytes] = lambda values: b"".join(map(event, values))
    end: bytes = b"data: [DONE]\n\n"
    pieces: bool = field(default=False)
    """Whether each byte comes alone, instead of all bytes together."""


def _every(write: Callable[[bytes], bytes]) -> Callable[[list[Body]], bytes]:
    return lambda values: b"".join(write(json.dumps(value).encode()) for value in values)


def _changed(change: Callable[[int, Body], object]) -> Callable[[list[Body]], bytes]:
    def write(values: list[Body]) -> bytes:
        for number, value in enumerate(values):
            change(number, value)
        return b"".join(map(event, values))

    return write


def _row(**members: Any) -> Callable[[int, Body], object]:
    return lambda _, value: [row.update({**members, **_end_of(row)}) for row in value["choices"]]


def _with_finish(value: Body, finish: str) -> Body:
    return value | {"choices": [row | {"finish_reason": finish} for row in value["choices"]]}


def _in_messages(value: Body) -> None:
    for row in value["choices"]:
        row |= {"message": row.pop("delta")} if "delta" in row else {}


def _end_of(row: Body) -> Body:
    return {"finish_reason": row["finish_reason"]} if row["finish_reason"] else {}


WIRES: Final[dict[str, Wire]] = {
    "plain": Wire(),
    "byte by byte": Wire(pieces=True),
    "done with a space": Wire(end=b"data: [DONE] \n\n"),
    "done without a space": Wire(end=b"data:[DONE]\n\n"),
    "no done": Wire(end=b""),
    "done without a blank line": Wire(end=b"data: [DONE]\n"),
    "no blank line at the end": Wire(lambda values: b"".join(map(event, values))[:-1], b""),
    "no line end at the end": Wire(lambda values: b"".join(map(event, values))[:-2], b""),
    "no blank lines": Wire(_every(lambda payload: b"data: %b\n" % payload), b"data: [DONE]\n"),
    "no blank lines, but names": Wire(_every(lambda payload: b"event: x\r\ndata: %b\r\n" % payload), b"data:[DONE]"),
    "a finish that is no text": Wire(_changed(_row(finish_reason={}))),
    "no finish, but done": Wire(lambda values: b"".join(map(event, values[:-1]))),
    "carriage returns": Wire(_every(lambda payload: b"data: %b\r\n\r\n" % payload), b"data: [DONE]\r\n\r\n"),
    "no space": Wire(_every(lambda payload: b"data:%b\n\n" % payload), b"data:[DONE]\n\n"),
    "empty data": Wire(_every(lambda payload: b"data:\n\ndata: %b\n\ndata: \n\n" % payload)),
    "comments": Wire(_every(lambda payload: b": keep-alive\n\ndata: %b\n\n: x\n" % payload)),
    "event names": Wire(_every(lambda payload: b"event: chunk\nid: 7\nretry: 9\ndata: %b\n\n" % payload)),
    "empty finish": Wire(_changed(_row(finish_reason=""))),
    "null finish as a text": Wire(_changed(_row(finish_reason="null"))),
    "an empty finish after the finish": Wire(
        lambda values: b"".join(map(event, [*values, _with_finish(values[-1], "")]))
    ),
    "messages instead of deltas": Wire(_changed(lambda _, value: _in_messages(value))),
    "null index": Wire(_changed(_row(index=None))),
    "numeric id": Wire(_changed(lambda _, value: value.update(id=17))),
    "infinity": Wire(_changed(_row(vendor=[float("-inf"), float("nan")]))),
    "an event without choices": Wire(lambda values: b"".join(event({"choices": None}) + event(v) for v in values)),
    "a ping that is not JSON": Wire(lambda values: b"".join(b"data: ping\n\n" + event(v) for v in values)),
}


@everywhere
@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_in_any_form_gives_the_same_answer(wire: str, mode: str) -> None:
    form = WIRES[wire]
    upstream = Scripted(write=lambda values: form.write(values) + form.end, byte_by_byte=form.pieces)
    for each in tried(upstream, mode):
        assert seen(each.through) == seen(each.direct), each
        assert seen(each.through).text == "".join(TEXTS)


BROKEN: Final = (b"{nothing}", b'{"choices":[{"delta":{"content":17}}]}', b'{"choices":"none"}', b"[]", b"1e999", b"17")


@everywhere
@pytest.mark.parametrize("broken", BROKEN)
def test_a_chunk_that_cannot_be_read_is_forwarded_and_nothing_is_stopped(broken: bytes, mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        return event(values[0]) + b"data: %b\n\n" % broken + b"".join(map(event, values[1:])) + b"data: [DONE]\n\n"

    for each in tried(Scripted(row=CONFIDENT, write=write), mode):
        assert seen(each.through) == seen(each.direct), each
        if each.stream:
            assert b"data: %b\n\n" % broken in each.through.content
            assert mode != "gate" or "unreadable_chunk" in each.through.text


@everywhere
def test_an_error_in_one_segment_with_tokens_loses_none_of_them(mode: str) -> None:
    error = event({"error": {"message": "out of memory", "code": 500}})
    for each in tried(Scripted(write=lambda values: b"".join(map(event, values[:4])) + error), mode):
        assert seen(each.through) == seen(each.direct), each
        if each.stream:
            assert (seen(each.through).text, seen(each.through).errors) == ("".join(TEXTS[:4]), 1)


@everywhere
@pytest.mark.parametrize("form", ["object", "type"])
def test_an_error_without_the_usual_member_is_an_error(form: str, mode: str) -> None:
    # Older vLLM writes it, and ends the stream as if nothing had happened.
    error = event({form: "error", "message": "out of memory", "code": 500}) + b"data: [DONE]\n\n"
    for each in tried(Scripted(write=lambda values: b"".join(map(event, values[:4])) + error), mode):
        if each.stream:
            assert "out of memory" in each.through.text
        assert seen(each.through)[:3] == seen(each.direct)[:3]


UNKNOWN: Final = (
    b'{"detail":"out of memory"}',
    b'{"message":"out of memory","code":500}',
    b'{"errors":[{"message":"out of memory"}]}',
    b'{"error_code":336100,"error_msg":"try again"}',
    b'{"choices":null,"base_resp":{"status_code":1000}}',
    b"Internal Server Error",
)
"""Errors in words of their own, after which servers end a stream."""


@everywhere
@pytest.mark.parametrize("error", UNKNOWN)
def test_an_error_in_any_words_is_never_the_end_of_an_answer_in_one_piece(error: bytes, mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        return b"".join(map(event, values[:4])) + b"data: %b\n\ndata: [DONE]\n\n" % error

    for each in tried(Scripted(write=write), mode):
        assert seen(each.through) == seen(each.direct), each
        assert not each.stream or b"data: %b\n\n" % error in each.through.content


@everywhere
@pytest.mark.parametrize("sign", [b'{"message":"still alive"}', b'{"type":"ping"}', b"ping", b"{}"])
def test_a_sign_of_life_ends_nothing(sign: bytes, mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        return b"".join(b"data: %b\n\n" % sign + event(value) for value in values) + b"data: [DONE]\n\n"

    for each in tried(Scripted(write=write), mode):
        assert seen(each.through) == seen(each.direct), each
        assert len(each.requests) == 1


FOREIGN: Final[dict[str, Callable[[list[Body]], bytes]]] = {
    "another protocol": lambda values: b"".join(event({"token": {"text": str(value)}}) for value in values),
    "lists of chunks": lambda values: b"".join(event([value]) for value in values),
    "no JSON": lambda values: b"".join(b"data: data: %b\n\n" % json.dumps(value).encode() for value in values),
}


@everywhere
@pytest.mark.parametrize("protocol", FOREIGN)
def test_a_stream_of_which_nothing_can_be_read_passes(protocol: str, mode: str) -> None:
    texts = [f"{number}\n\n" for number in range(40)]
    for each in tried(Scripted(texts=texts, write=lambda values: FOREIGN[protocol](values) + DONE), mode):
        if each.stream:
            assert each.through.content.count(b"\n\n") == each.direct.content.count(b"\n\n")
            assert b'"error"' not in each.through.content
            assert each.through.content.endswith(DONE)
        else:
            assert seen(each.through) == seen(each.direct), each


def _as_an_object(value: Body) -> object:
    return value | {"choices": {str(number): row for number, row in enumerate(value["choices"])}}


@everywhere
@pytest.mark.parametrize("odd", [_as_an_object, lambda value: [value]])
def test_an_answer_in_one_piece_loses_no_text_that_cannot_be_read(odd: Callable[[Body], object], mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        return (
            b"".join(event(odd(value) if at == 1 else value) for at, value in enumerate(values)) + b"data: [DONE]\n\n"
        )

    for each in tried(Scripted(write=write), mode):
        if each.stream:
            assert TEXTS[1] in each.through.text
        else:
            assert seen(each.through) == seen(each.direct), each


MERGED: Final[dict[str, tuple[list[Body], Body]]] = {
    "details of the reasoning": (
        [{"reasoning_details": [{"type": "t", "index": 0, "text": text}]} for text in ("Let", " me")]
        + [{"reasoning_details": [{"type": "t", "index": 1, "text": "So"}]}],
        {"reasoning_details": [{"type": "t", "index": 0, "text": "Let me"}, {"type": "t", "index": 1, "text": "So"}]},
    ),
    "annotations": (
        [{"annotations": [{"type": "url", "url": "a"}]}, {"annotations": [{"type": "url", "url": "b"}]}],
        {"annotations": [{"type": "url", "url": "a"}, {"type": "url", "url": "b"}]},
    ),
    "images": ([{"images": [{"url": "a"}]}, {"images": [{"url": "b"}]}], {"images": [{"url": "a"}, {"url": "b"}]}),
    "calls of tools": (
        [
            {"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
            {
                "tool_calls": [
                    {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}}
                ]
            },
            {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        ],
        {
            "tool_calls": [
                {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ]
        },
    ),
    "a text of the vendor": ([{"thinking_text": "Le"}, {"thinking_text": "t"}], {"thinking_text": "Let"}),
    "a label of the vendor": ([{"channel": "final"}, {"channel": "final"}], {"channel": "final"}),
    "an object of the vendor": (
        [{"v": {"a": {"b": [1]}}}, {"v": {"a": {"b": [2], "c": 3}}}],
        {"v": {"a": {"b": [1, 2], "c": 3}}},
    ),
}


@everywhere
@pytest.mark.parametrize("members", MERGED)
def test_a_whole_answer_has_the_members_of_all_chunks(members: str, mode: str) -> None:
    deltas, merged = MERGED[members]
    for each in tried(Scripted(deltas=deltas, message=merged), mode, kinds=("chat",)):
        assert seen(each.through) == seen(each.direct), each
        if not each.stream:
            expected, message = (answer.json()["choices"][0]["message"] for answer in (each.direct, each.through))
            assert message == expected


@everywhere
def test_members_of_choices_and_chunks_are_kept(mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        for number, value in enumerate(values):
            value |= {"system_fingerprint": "fp", "citations": ["a", "b"], "nothing": None}
            for row in value["choices"]:
                row |= {"token_ids": [number], "stop_reason": None, "filter": {"hate": False}}
        return b"".join(map(event, values))

    row = {"token_ids": [*range(len(TEXTS) + 1)], "stop_reason": None, "filter": {"hate": False}}
    members = {"system_fingerprint": "fp", "citations": ["a", "b"], "nothing": None}
    for each in tried(Scripted(write=write, row_members=row, members=members), mode):
        assert seen(each.through) == seen(each.direct), each
        if not each.stream:
            assert each.through.json() | {"justenough": 0} == each.direct.json() | {"justenough": 0}


@everywhere
def test_a_content_of_null_stays_null(mode: str) -> None:
    calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    members = {"content": None, "tool_calls": calls}
    for each in tried(Scripted(texts=(), deltas=[members], message=members), mode, kinds=("chat",)):
        assert seen(each.through) == seen(each.direct), each
        assert each.stream or each.through.json()["choices"][0]["message"]["content"] is None


USAGE: Final = {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17, "prompt_tokens_details": {"cached": 4}}


@everywhere
@pytest.mark.parametrize("usage", [None, USAGE])
@pytest.mark.parametrize("wanted", [True, False])
def test_the_usage_is_the_upstreams_and_none_is_invented(wanted: bool, usage: Body | None, mode: str) -> None:
    for each in tried(Scripted(usage=usage), mode, stream_options={"include_usage": wanted}):
        assert seen(each.through).usage == seen(each.direct).usage, each
        assert seen(each.through).usage == (usage if wanted or not each.stream else None)


@everywhere
def test_the_usage_may_be_in_the_last_event_of_the_text(mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        return b"".join(map(event, [*values[:-1], values[-1] | {"usage": USAGE}]))

    for each in tried(Scripted(write=write, members={"usage": USAGE}), mode):
        assert each.stream or seen(each.through).usage == USAGE


@everywhere
@pytest.mark.parametrize("count", [0, 1, 3])
def test_log_probabilities_of_a_text_completion_are_as_many_as_the_client_wants(count: int, mode: str) -> None:
    for each in tried(Scripted(), mode, kinds=("completion",), logprobs=count):
        logprobs = seen(each.through).logprobs
        assert logprobs == seen(each.direct).logprobs, each
        assert logprobs["text_offset"] == [len("".join(TEXTS[:at])) for at in range(len(TEXTS))]


def _together(values: list[Body]) -> list[Body]:
    return [value | {"choices": [*value["choices"], *_second(value)["choices"]]} for value in values]


def _one_by_one(values: list[Body]) -> list[Body]:
    return [each for value in values for each in (value, _second(value))]


def _second(value: Body) -> Body:
    return value | {"choices": [row | {"index": 1} for row in value["choices"]]}


@everywhere
@pytest.mark.parametrize("order", [_together, _one_by_one])
def test_choices_that_nobody_wants_are_kept_apart_and_nothing_is_stopped(
    order: Callable[[list[Body]], list[Body]], mode: str
) -> None:
    def write(values: list[Body]) -> bytes:
        return b"".join(map(event, order(values))) + b"data: [DONE]\n\n"

    for each in tried(Scripted(row=CONFIDENT, write=write), mode):
        if each.stream:
            assert seen(each.through) == seen(each.direct), each
        elif mode != "off":
            rows = each.through.json()["choices"]
            assert [row["index"] for row in rows] == [0, 1]
            assert [(row.get("message") or {"content": row.get("text")})["content"] for row in rows] == [
                "".join(TEXTS)
            ] * 2


CALL: Final = {"name": "f", "arguments": "{}"}


@everywhere
@pytest.mark.parametrize("call", [{"tool_calls": [{"index": 0, "function": CALL}]}, {"function_call": CALL}])
def test_after_a_call_of_a_tool_no_thought_is_cut(call: Body, mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        values.insert(2, values[0] | {"choices": [{"index": 0, "delta": call, "finish_reason": None}]})
        return b"".join(map(event, values)) + b"data: [DONE]\n\n"

    for each in tried(Scripted(row=CONFIDENT, write=write), mode, kinds=("chat",)):
        assert seen(each.through) == seen(each.direct), each
        assert mode == "off" or "tool_calls" in each.through.text


@everywhere
@pytest.mark.parametrize("removed", [-9999.0, -3.4e38, None])
def test_log_probabilities_from_after_the_samplers_stop_nothing(removed: Any, mode: str) -> None:
    for each in tried(Scripted(row=[0.0] + [removed] * 19), mode):
        assert seen(each.through) == seen(each.direct), each
        assert mode != "gate" or "short_logprobs" in each.through.text


def test_after_a_cut_the_chunks_have_the_head_of_a_chunk() -> None:
    def write(values: list[Body]) -> bytes:
        return event({"message": "queued", "status": "waiting"}) + b"".join(map(event, values)) + b"data: [DONE]\n\n"

    for each in tried(Scripted(row=CONFIDENT, write=write), "gate"):
        assert seen(each.through).text.endswith("</think>The answer is 42.")
        assert len(each.requests) == 2
        values = [json.loads(line[6:]) for line in each.through.text.split("\n\n") if line.startswith("data: {")]
        for value in values[1:] if each.stream else [each.through.json()]:
            assert value["id"] == "c-1"
            assert "status" not in value


@everywhere
def test_a_surrogate_pair_in_two_events_can_still_be_joined(mode: str) -> None:
    """Servers in JavaScript cut texts between its halves."""
    for each in tried(Scripted(texts=(*TEXTS, "\ud83d", "\ude00")), mode):
        if each.stream:
            assert seen(each.through).text == seen(each.direct).text


@everywhere
def test_who_wants_no_stream_gets_a_whole_answer_where_streams_have_no_end(mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        return b"".join(map(event, values[:-1]))

    for each in tried(Scripted(write=write), mode):
        if not each.stream:
            assert seen(each.through) == seen(each.direct), each
            assert each.through.json()["choices"][0]["finish_reason"] == "stop"


@everywhere
def test_several_choices_pass(mode: str) -> None:
    for each in tried(Scripted(), mode, n=2):
        assert each.through.content == each.direct.content


def _with_azures_ends(values: list[Body]) -> list[Body]:
    empty = {"id": "", "object": "", "created": 0, "model": ""}
    filtered: Body = {"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}}
    return [
        empty | {"choices": [], "prompt_filter_results": [1]},
        *values,
        empty | {"choices": [filtered]},
    ]


def _with_other_ids(values: list[Body]) -> list[Body]:
    return [
        value | ({"id": f"c-{number}", "created": number} if number > 1 else {}) for number, value in enumerate(values)
    ]


def _with_signs_of_life(values: list[Body]) -> list[Body]:
    return [{"message": "queued", "type": "status"}, *values, {"type": "ping"}]


@everywhere
@pytest.mark.parametrize(
    ("change", "row", "members"),
    [
        (_with_azures_ends, {"content_filter_offsets": {"check_offset": 1}}, {"prompt_filter_results": [1]}),
        (_with_other_ids, {}, {}),
        (_with_signs_of_life, {}, {}),
    ],
)
def test_an_answer_in_one_piece_has_the_head_of_its_chunks(
    change: Callable[[list[Body]], list[Body]], row: Body, members: Body, mode: str
) -> None:
    def write(values: list[Body]) -> bytes:
        return b"".join(map(event, change(values))) + b"data: [DONE]\n\n"

    for each in tried(Scripted(write=write, row_members=row, members=members), mode):
        if not each.stream:
            assert each.through.json() | {"justenough": 0} == each.direct.json() | {"justenough": 0}


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "?"}], "chat_template_kwargs": {"a": 1}}),
        ("/v1/responses", {"input": "?"}),
    ],
)
def test_a_question_of_the_gateways_own_that_gets_no_answer_does_not_fail_the_request_and_is_not_repeated(
    path: str, members: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("justenough.gateway.upstream.capability.LONGEST_ASIDE_S", 0.2)
    whole = Reply(200, "application/json", b'{"output":[]}')
    server = Scripted(
        hangs=lambda sent: sent.target == "/tokenize" or b'"background"' in sent.body,
        refuse=lambda sent: whole if "input" in sent else None,
    )

    async def main() -> None:
        async with before(server, "gate") as (gateway, _), httpx.AsyncClient(timeout=60) as client:
            for _ in range(3):
                answer = await client.post(gateway.url + path, json={"model": "m", **members})
                assert answer.status_code == 200
            assert len(server.hung) == 1

    asyncio.run(main())
