"""A short run of `benchmarks.gateway_fuzz`, and each input that it ever found to be too much."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from typing import cast

import aiohttp
import pytest

from benchmarks.gateway_fuzz import fuzz
from benchmarks.scripted import Answer, Content
from justenough.gateway.exchange import Exchange, Refused
from justenough.gateway.learn.feedback import Feedback
from justenough.gateway.place import KINDS
from justenough.gateway.request import read_request
from justenough.gateway.serve.elicit import piece_of
from justenough.gateway.stream.events import Payloads, batches, decoded, head_of, read
from justenough.gateway.stream.output import WholeOutput

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_two_thousand_wrong_inputs_end_in_an_answer_or_one_clear_error() -> None:
    found = asyncio.run(fuzz(inputs=2000, seed=1))
    assert found.failures == []
    assert sum(found.outcomes.values()) == 2000
    ends = {outcome.split(": ", 1)[1] for outcome in found.outcomes}
    # It is only worth something where it comes to every kind of end.
    assert ends >= {"stopped", "stopped stream", "finished", "audited stream", "observed", "relayed", "labelled"}
    assert ends >= {"error 502 error upstream_broken", "stream ended by upstream_broken"}
    assert ends >= {"error 400 error invalid_justenough", "stream ended by continuation_failed"}


@pytest.mark.usefixtures("quiet")
def test_a_mistake_of_ours_is_a_failure_though_the_client_gets_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(payload: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("justenough.gateway.serve.streaming.read", broken)
    found = asyncio.run(fuzz(inputs=40, seed=1))
    assert any("an internal error" in failure for failure in found.failures)


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize(
    "member", [b'"x":' + DEEP, b'"model":"\xff"', b'"messages":[{"content":"\xff"}]', b'"prompt":"\\ud800"']
)
def test_what_cannot_be_read_is_the_upstreams_to_judge(path: str, member: bytes) -> None:
    body = b"{" + member + b"}"
    asked = read_request(path, body, [])
    assert asked.body == body
    assert asked.relay_reason is not None
    assert asked.problem is None


def test_a_justenough_object_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(Refused, match="justenough"):
        read_request("/v1/completions", b'{"justenough":{"mode":"\xff"}}', [])


@pytest.mark.parametrize("body", [DEEP, b'{"id":"\xff","correct":true}'])
def test_feedback_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="expected"):
        Feedback().label(body)


@pytest.mark.parametrize("reader", [decoded, head_of])
def test_a_chunk_that_no_client_could_read_is_malformed(reader: Callable[[bytes], object]) -> None:
    with pytest.raises(Refused) as refused:
        reader(b'{"x":' + DEEP + b"}")
    assert refused.value.code == "upstream_malformed"
    # A number beyond a double makes no chunk unreadable.
    reader(b'{"x":1e999}')


def test_an_event_of_several_lines_is_forwarded_as_one() -> None:
    sent = b'data: \ndata: {"a":\r\ndata: 1}\n\ndata: {"b":"\xc3\xa9"}\n\n'
    answer = Answer(200, "text/event-stream", Content([sent[:20], sent[20:]], broken=False))

    async def payloads() -> list[bytes]:
        received = batches(cast("aiohttp.ClientResponse", answer), Payloads(limit=1000))
        return [payload async for batch in received for payload in batch]

    found = asyncio.run(payloads())
    assert [json.loads(payload) for payload in found] == [{"a": 1}, {"b": "é"}]
    assert not any(b"\n" in payload for payload in found)


@pytest.mark.parametrize(
    ("choice", "nothing"),
    [
        (b'{"delta":{"role":"assistant","content":null}}', True),
        (b'{"delta":{"reasoning":"Hm"}}', False),
        (b'{"text":"Hm"}', False),
        (b'{"text":"","finish_reason":"stop"}', False),
    ],
)
def test_a_report_on_the_prompt_is_only_dropped_where_it_is_nothing_else(choice: bytes, nothing: bool) -> None:
    chunk = read(b'{"choices":[%b],"prompt_progress":{"total":3}}' % choice)
    assert chunk.choice is not None
    assert (not chunk.choice.has_output and chunk.choice.finish_reason is None) is nothing


@pytest.mark.parametrize("said", [b"null", b"{}", b"[]", b'""', b"false", b"0"])
def test_an_error_that_says_nothing_is_none(said: bytes) -> None:
    assert read(b'{"choices":[],"error":' + said + b"}").choices == []
    with pytest.raises(Refused):
        read(b'{"choices":[],"error":{"message":"' + b"x" + b'"}}')


@pytest.mark.parametrize("usage", ["many", 3, [], None])
def test_a_usage_that_is_no_object_is_none(usage: object) -> None:
    piece = piece_of(json.dumps({"choices": [{"delta": {"content": "4"}}], "usage": usage}).encode())
    assert (piece.text, piece.usage) == ("4", None)


@pytest.mark.parametrize("theirs", [b"1e308", b'{"prompt_tokens":2}', b'{"decision":"stopped"}', b"null"])
def test_an_upstreams_own_member_does_not_hide_what_the_gate_did(theirs: bytes) -> None:
    ours = b'{"choices":[{"finish_reason":"stop"}],"justenough":%b,"justenough":{"decision":"finished"}}' % theirs
    other = b'{"choices":[],"justenough":%b}' % theirs

    async def whole() -> object:
        output = WholeOutput(cast("Exchange", None), "chat", limit=1000)
        await output.send([other, ours, other])
        return output.whole()["justenough"]

    assert asyncio.run(whole()) == {"decision": "finished"}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("first", [619_822, 619_825])
def test_log_probabilities_that_the_client_wants_are_never_passed_on_unread(first: int) -> None:
    # Among them is an event like those before it, except for a broken end of its log-probabilities.
    assert asyncio.run(fuzz(inputs=1, seed=0, first=first)).failures == []
