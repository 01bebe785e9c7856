"""A server that ignores `stream`, or whose stream has another name: the client sees what it asked for, and no more."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx
import pytest

from justenough.gateway.stream.edits import limited_logprobs
from justenough.testing import CONFIDENT, UNSURE
from tests.unit.gateway.wild import MODES, TEXTS, Reply, Scripted, Try, chunks, event, seen, tried

Body = dict[str, Any]
everywhere = pytest.mark.parametrize("mode", MODES)
EVENTS: Final = "text/event-stream"


def whole_only(*, before: bytes = b"") -> Scripted:
    """A server that answers every request in one piece, with these bytes before it."""
    server = Scripted()
    server.refuse = lambda body: Reply(200, "application/json", before + json.dumps(server._whole(body)).encode())
    return server


def events_only(kind: str, **settings: Any) -> Scripted:
    """A server that answers every request with events, with this content type."""
    server = Scripted(**settings)

    def answer(body: Body) -> Reply:
        closed = "</think>" in str(body.get("messages") or body["prompt"])
        return Reply(200, kind, server.write(chunks(server.rest if closed else TEXTS, body, server.row)))

    server.refuse = answer
    return server


def as_events(answer: httpx.Response) -> httpx.Response:
    """The answer with the name of a stream of events, if it is one."""
    kind = EVENTS if answer.content.startswith(b"data:") else answer.headers["content-type"]
    return httpx.Response(answer.status_code, headers={"content-type": kind}, content=answer.content)


@everywhere
@pytest.mark.parametrize("asked", [{}, {"logprobs": True, "top_logprobs": 2}, {"logprobs": 1}])
def test_an_answer_in_one_piece_has_only_the_log_probabilities_that_its_client_wants(asked: Body, mode: str) -> None:
    kinds = ("completion",) if asked.get("logprobs") == 1 else ("chat",) if asked else ("chat", "completion")
    for each in tried(whole_only(), mode, kinds=kinds, **asked):
        assert each.through.json() == each.direct.json(), each
        assert mode == "off" or int(each.through.headers["content-length"]) == len(each.through.content)
        assert len(each.requests) == 1


@everywhere
def test_blank_lines_before_an_answer_in_one_piece_pass(mode: str) -> None:
    for each in tried(whole_only(before=b"\n" * (1 << 20)), mode):
        assert each.through.json() == each.direct.json(), each
        assert len(each.requests) == 1


def test_without_log_probabilities_an_answer_in_one_piece_keeps_all_other_bytes() -> None:
    answer = b'{"choices": [{"text": "\\"logprobs\\":1", "logprobs": {"tokens": ["a"]}, "v": 1.0}],  "n": 1e2}\n'
    assert limited_logprobs(answer, None) == answer.replace(b' "logprobs": {"tokens": ["a"]},', b"")
    assert limited_logprobs(b'{"choices": [{"logprobs": null}]}', None) == b'{"choices": [{"logprobs": null}]}'
    assert limited_logprobs(b"{", None) == b"{"


@everywhere
def test_a_client_that_wants_no_events_gets_none_of_the_log_probabilities_in_them(mode: str) -> None:
    for each in tried(events_only(EVENTS), mode):
        assert seen(each.through) == seen(each.direct), each
        assert "logprobs" not in each.through.text


def _named(each: Try) -> str:
    return str(each.through.headers["x-justenough"])


@everywhere
def test_a_stream_under_another_name_is_gated(mode: str) -> None:
    for row in (UNSURE, CONFIDENT):
        for each in tried(events_only("text/plain", row=row), mode):
            view, direct = seen(as_events(each.through)), seen(as_events(each.direct))
            assert "logprobs" not in each.through.text
            assert len(each.requests) == 1 + (mode == "gate" and row is CONFIDENT)
            if len(each.requests) == 1:
                assert view == direct, each
                assert not each.stream or each.through.headers["content-type"] == "text/plain"
            else:
                assert view.text == "<think>Let me think.\n\n</think>The answer is 42."
            assert mode == "off" or not _named(each).startswith("relayed")


@everywhere
def test_a_stream_with_another_status_is_asked_for_again_without_changes(mode: str) -> None:
    server = Scripted()
    server.refuse = lambda body: Reply(201, EVENTS, b"".join(map(event, chunks(TEXTS, body, UNSURE))))
    for each in tried(server, mode):
        assert each.through.content == each.direct.content, each
        assert each.through.status_code == 201
