"""One generation that nothing may cut, under a budget, an audit and a client that wants its answer now."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.gate import GateSettings
from justenough.gateway.serve.streaming import Generation
from justenough.gateway.serve.work import usage_in
from justenough.gateway.stream.events import Payloads
from justenough.signal.thought import ThoughtFormat
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from justenough.wire.events import event_of, payload_of
from tests.unit.gateway.serve.test_elicit import job_of
from tests.unit.gateway.serving import Running, calibration_of
from tests.unit.gateway.test_gating import CHAT, gated
from tests.unit.gateway.ways import settled

LONG = ("Let me", " think.\n\n") * 40
UNKNOWN: dict[str, Any] = {"format": ThoughtFormat(open="<x>", close="</x>"), "reasoning_field": "reasoning"}


@pytest.mark.parametrize(
    ("mock", "members", "note"),
    [(UNKNOWN, {}, "unknown_tags"), ({}, {"stop": ["</think>"]}, "stop_sequence")],
    ids=["unknown tags", "stop sequence"],
)
@pytest.mark.parametrize("audit_share", [0.0, 1.0])
def test_a_spent_budget_that_cuts_nothing_is_no_outcome(
    audit_share: float, mock: dict[str, Any], members: dict[str, Any], note: str
) -> None:
    async def scenario(gateway: Running, upstream: MockUpstream, client: httpx.AsyncClient) -> None:
        wish = {"justenough": {"budget": 100}}
        report = (await client.post("/v1/chat/completions", json={**CHAT, **members, **wish})).json()["justenough"]
        outcome = "audited" if audit_share else "finished"
        assert (report["decision"], report["reason"]) == (outcome, "uncertain")
        assert note in report["notes"]
        await settled(gateway)
        assert gateway.service.metrics.outcomes == {outcome: 1}
        assert len(upstream.completions) == 1

    unsure = MockUpstream(thought=LONG, logprobs=(UNSURE,), **mock)
    gated(scenario, unsure, audit_share=audit_share, answer_tokens=50)


@pytest.mark.parametrize("course", [{"mode": "observe"}, {"audit_share": 1.0}], ids=["observe", "audit"])
def test_with_a_stop_sequence_in_the_closing_text_nothing_is_elicited(course: dict[str, Any]) -> None:
    async def scenario(gateway: Running, upstream: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "stop": ["</think>"]})).json()
        assert whole["justenough"]["notes"] == ["stop_sequence"]
        await asyncio.gather(*gateway.service._background)
        assert len(upstream.completions) == 1
        audit: Any = gateway.service.learning.audit.summary(None)
        assert audit["saving_gross"] is None or audit["saving_gross"]["value"] == 0.0
        # What the answer after the first step would be is not known.
        assert gateway.service.learning.recalibration.summary()["examples"] == 0

    gated(scenario, MockUpstream(thought=LONG, logprobs=(CONFIDENT,)), calibration=calibration_of(1.0), **course)


class Slow(Generation):
    """Reads every event as JSON."""

    def _token(self, data: bytes) -> bytes | None:
        return None


TEXTS = st.sampled_from(["a", " b", "ü", "so. ", ". <", "<think>", "</think>", "</", "\n\n", '"', "}]", "", "😀"])
OTHERS = st.sampled_from(["x", "}]", "}]}]}", '},{"token":"', '"top_logprobs":[', '"usage":{', "�", "\\", "\n"])
ROWS = st.sampled_from([CONFIDENT, UNSURE, UNSURE[::-1], CONFIDENT[:3], ()])
DETAILS = st.sampled_from([None, {"reasoning_tokens": 3}, {"reasoning_tokens": 12}])
ODD: tuple[tuple[bytes, bytes], ...] = (
    (b'"prompt_tokens":7', b'"prompt_tokens":7.0'),
    (b'"prompt_tokens":7', b'"prompt_tokens":null'),
    (b'"completion_tokens":', b'"completion_tokens":-'),
    (b'"completion_tokens":', b'"completion_tokens":99999999999'),
    (b'"usage":{', b'"usage":null,"vendor":{'),
    (b'"usage":{', b'"usage":{"usage":{"completion_tokens":1},'),
    (b'"usage":{', b'"usage":{"x":[{}],'),
    (b'"token_ids":null', b'"token_ids":[7]'),
    (b'"finish_reason":null', b'"finish_reason":null,"usage":{"completion_tokens":1}'),
    (b'"finish_reason":null', b'"finish_reason":"length"'),
    (b'"logprobs":{', b'"logprobs":null,"vendor":{'),
    (b"]}]}", b'],"vendor":1}]}'),
    (b"]}]}", b']}]},"vendor":{"a":[{"b":[{"c":[{}]}]}]}'),
    (b'"bytes":[120]', b'"bytes":[120],"token":"y"'),
    (b'"index":0', b'"index":1'),
    (b'"token":"x"', b'"token":"x\xff"'),
    (b',"usage"', b' ,"usage"'),
)
"""Changes by which an event no longer has the form of the others."""


@st.composite
def vllm_streams(draw: st.DrawFn) -> list[bytes]:
    """Streams of events as vLLM's own models of its answers write them, some with an odd change."""
    field = draw(st.sampled_from(["content", "reasoning"]))
    tokens = draw(st.lists(st.tuples(TEXTS, OTHERS, ROWS, DETAILS, st.sampled_from([None] * 5 + [*ODD])), max_size=20))
    first = ("<think>" if field == "content" else "So", "x", CONFIDENT, None, None)
    payloads: list[bytes] = []
    for number, (text, other, row, details, odd) in enumerate([first, *tokens], start=1):
        top = [{"token": other, "logprob": value, "bytes": [120]} for value in row]
        entry = {"token": text, "logprob": -0.1, "bytes": [*text.encode()], "top_logprobs": top}
        choice: dict[str, Any] = {"index": 0, "delta": {field: text}, "logprobs": {"content": [entry]}}
        choice |= {"finish_reason": None, "token_ids": None}
        chunk: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}
        counts = {"prompt_tokens": 7, "total_tokens": 7 + number, "completion_tokens": number}
        chunk["usage"] = counts | {"completion_tokens_details": details}
        payload = json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()
        payloads.append(payload if odd is None else payload.replace(*odd, 1))
    return payloads


ASKS = st.sampled_from([{}, *({"logprobs": True, "top_logprobs": top} for top in (0, 2, 19, 20, 25))])
USAGE = st.sampled_from([{}, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}])


def served(
    kind: type[Generation], payloads: list[bytes], members: dict[str, Any], splitter: str, *, together: int = 1
) -> dict[str, Any]:
    """What the client and the gate get of events, of which `together` come at once."""
    job = job_of(stream=True, **members)
    plan = replace(job.plan, gate=GateSettings.of(calibration_of(3.0, splitter=splitter)))
    asked: dict[str, object] = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    job = replace(job, plan=plan, capabilities=replace(job.capabilities, extra=asked))
    generation = kind(job, reading=cast("Any", SimpleNamespace(soon=lambda: None)))
    received, shown = Payloads(limit=1 << 20), list[bytes]()
    for begin in range(0, len(payloads), together):
        event = b"".join(map(event_of, payloads[begin : begin + together]))
        if received.may_be_one(event) and (seen := generation._token(event)) is not None:
            shown.append(payload_of(seen))
        else:
            generation._events(received.of(event), shown)
        if generation._cut_here:
            break
    watch = generation.watch
    watch.catch_up()
    names = ("phase", "tokens", "thought_tokens", "decisions", "stopped_at", "stopped_text", "text", "entries", "notes")
    own = ("_prompt_tokens", "_received", "unread", "unseen", "_cut_here", "_head", "_never_cuts")
    state = {name: getattr(watch, name) for name in names} | {name: getattr(generation, name) for name in own}
    return state | {"shown": shown, "usage": usage_in(generation._usage_event), "report": generation.report()}


@given(vllm_streams(), ASKS, USAGE, st.sampled_from(["paragraph", "sentence", "tokens:5"]), st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=300)
def test_the_quick_way_shows_and_decides_what_the_slow_way_does(
    payloads: list[bytes], asks: dict[str, Any], usage: dict[str, Any], splitter: str, together: int
) -> None:
    quick, slow = [
        served(kind, payloads, {**asks, **usage}, splitter, together=together) for kind in (Generation, Slow)
    ]
    assert quick == slow


def plain(
    number: int, text: str = " b", *, field: str = "reasoning", other: str = "x", reasoning: int | None = None
) -> bytes:
    """An event of vLLM with a plain token of the thought."""
    top = [{"token": other, "logprob": value, "bytes": [120]} for value in CONFIDENT]
    entry = {"token": text, "logprob": -1.0, "bytes": [32, 98], "top_logprobs": top}
    choice = {"index": 0, "delta": {field: text}, "logprobs": {"content": [entry]}, "finish_reason": None}
    counts = {"prompt_tokens": 7, "total_tokens": 7 + number, "completion_tokens": number}
    details = None if reasoning is None else {"reasoning_tokens": reasoning}
    chunk = {"id": "x", "choices": [choice], "usage": counts | {"completion_tokens_details": details}}
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("asks", [{}, {"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 20}])
@pytest.mark.parametrize("usage", [{}, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}])
def test_only_the_first_of_vllms_plain_tokens_is_read_as_json(
    asks: dict[str, Any], usage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = [plain(9), plain(10, other="ü"), plain(11, reasoning=9), plain(12, reasoning=10)]
    slow = served(Slow, payloads, {**asks, **usage}, "paragraph")
    read = list[bytes]()
    event = Generation._event

    def counted(self: Generation, data: bytes) -> bytes | None:
        read.append(data)
        return event(self, data)

    monkeypatch.setattr(Generation, "_event", counted)
    assert served(Generation, payloads, {**asks, **usage}, "paragraph") == slow
    assert read == payloads[:1]


def test_bytes_that_are_not_utf_8_are_shown_in_the_same_way_by_both() -> None:
    odd = plain(10).replace(b'"token":"x"', b'"token":"\xff"', 1)
    for asks in ({}, {"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 20}):
        quick, slow = [served(kind, [plain(9), odd], asks, "paragraph") for kind in (Generation, Slow)]
        assert quick == slow


@pytest.mark.parametrize("kind", [Generation, Slow])
@pytest.mark.parametrize("together", [1, 4])
def test_a_cut_takes_the_beginning_of_a_tag_only_once(kind: type[Generation], together: int) -> None:
    payloads = [plain(at, text, field="content") for at, text in enumerate(["<think>", "a", " b", "c. <"], start=1)]
    state = served(kind, payloads, {}, "sentence", together=together)
    assert state["_cut_here"]
    deltas = [json.loads(event)["choices"][0]["delta"]["content"] for event in state["shown"]]
    assert "".join(deltas) == state["stopped_text"] == "<think>a bc. "
