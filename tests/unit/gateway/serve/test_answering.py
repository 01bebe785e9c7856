"""The answer after a cut, for members of the request and of the answer that a cut touches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import httpx
import pytest

from justenough.gateway.budgets import Budgets
from justenough.gateway.settings import BudgetSettings
from justenough.testing import CONFIDENT
from tests.unit.gateway.test_budgets import standing
from tests.unit.gateway.ways import CHAT, settled
from tests.unit.gateway.wild import MODES, Body, Reply, Scripted, Seen, before, chunk, event, seen, tried

CUT: Final = "<think>Let me think.\n\n</think>The answer is 42."
DETAILS: Final = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


def sure(**members: Any) -> Scripted:
    """A server whose thought is cut after its first step."""
    return Scripted(row=CONFIDENT, **members)


def test_a_text_completion_has_log_probabilities_with_running_offsets_over_the_cut() -> None:
    for each in tried(sure(), "gate", kinds=("completion",), logprobs=3):
        answer = seen(each.through)
        assert answer.text == CUT
        tokens, offsets = answer.logprobs["tokens"], answer.logprobs["text_offset"]
        assert tokens == ["<think>", "Let me", " think.\n\n", "The answer", " is 42."]
        assert all(answer.text.startswith(token, at) for token, at in zip(tokens, offsets, strict=True))
        # The sampled token is not among the three most likely ones.
        assert {len(top) for top in answer.logprobs["top_logprobs"]} == {4}


@pytest.mark.parametrize("stop", ["</think>", ["x", "\n\n</think>The"]])
def test_with_a_stop_sequence_in_the_closing_text_nothing_is_cut(stop: Any) -> None:
    for each in tried(sure(), "gate", stop=stop):
        assert seen(each.through) == seen(each.direct), each
        assert "stop_sequence" in each.through.text
        assert len(each.requests) == 1


def test_the_least_number_of_tokens_is_for_the_whole_answer_and_nothing_is_echoed() -> None:
    for each in tried(sure(), "gate", kinds=("chat",), min_tokens=10, echo=True, stop="###"):
        assert seen(each.through).text == CUT
        first, second = map(json.loads, each.requests)
        assert (first["min_tokens"], first["echo"], first["stop"]) == (10, True, "###")
        assert (second["min_tokens"], second.get("echo"), second["stop"]) == (7, None, "###")


def test_the_usage_of_a_cut_answer_keeps_the_upstreams_members() -> None:
    def write(values: list[Body]) -> bytes:
        continuous = [value | {"usage": value.get("usage", DETAILS)} for value in values]
        return b"".join(map(event, continuous)) + b"data: [DONE]\n\n"

    usage = {"prompt_tokens": 30, "completion_tokens": 2}
    for each in tried(sure(write=write, usage=usage), "gate", stream_options={"include_usage": True}):
        assert seen(each.through).usage == DETAILS | {
            "completion_tokens": 5,
            "total_tokens": 14,
            "completion_tokens_details": {"reasoning_tokens": 3},
        }


def test_without_a_usage_of_the_upstream_a_cut_answer_has_none() -> None:
    for each in tried(sure(), "gate", stream_options={"include_usage": True}):
        answer = seen(each.through)
        assert (answer.text, answer.usage) == (CUT, None)


def test_a_text_completion_whose_answer_fails_is_answered_by_its_own_request() -> None:
    def write(values: list[Body]) -> bytes:
        whole = len(values) > 4
        return b"".join(map(event, values)) if whole else event(chunk(None, {}) | {"error": {"message": "full"}})

    for each in tried(sure(write=write), "gate"):
        answer = seen(each.through)
        assert (answer.status, answer.finish, answer.errors) == (200, "stop", 0)
        assert answer.text == (CUT if each.stream else seen(each.direct).text)


THOUGHT: Final = "<think>Let me think.\n\n</think>"
"""What the client has got before the answer: three tokens and the closing text."""
FAILS: Final = Reply(500, "application/json", b'{"error": {"message": "full"}}')
EMPTY: Final = Reply(200, "text/event-stream", b"data: [DONE]\n\n")
ERROR: Final = Reply(200, "text/event-stream", event({"error": {"message": "full"}}))


def delta(text: str, finish: str | None = None, **members: Any) -> Body:
    return {"index": 0, "delta": {"content": text, **members}, "finish_reason": finish}


def streamed(*rows: Body, usage: Body | None = None) -> Reply:
    values = [chunk(row, {}) for row in rows] + ([] if usage is None else [chunk(None, {}) | {"usage": usage}])
    return Reply(200, "text/event-stream", b"".join(map(event, values)))


OWN: Final = (delta("<think>Hm"), delta("</think>"), delta("It is"), delta(" 42."), delta("", "stop"))


class Outcome(NamedTuple):
    seen: Seen
    report: Body
    spent: int
    outcomes: dict[str, int]
    text: str


def rescued(own: Reply, *, elicited: Reply = FAILS, cue: str = "", stream: bool = True, **members: Any) -> Outcome:
    """What comes of a cut thought whose answer fails; `own`: the answer to the client's own request."""

    def answer(body: Body) -> Reply | None:
        if "</think>" in str(body["messages"]):
            return elicited
        return None if body.get("logprobs") else own

    async def main() -> Outcome:
        upstream = Scripted(row=CONFIDENT, refuse=answer)
        async with before(upstream, "gate") as (gateway, _), httpx.AsyncClient(base_url=gateway.url) as client:
            service = gateway.service
            budget = BudgetSettings(tokens=1000, per="batch")
            service.settings = replace(service.settings, answer_cue=cue, budget=budget)
            service.budgets = Budgets(service.settings)
            body = {**CHAT, "model": "m", "max_tokens": 200, "stream": stream, **members}
            got = await client.post("/v1/chat/completions", json=body, timeout=30)
            await settled(gateway)
            lines = [line.removeprefix("data: ") for line in got.text.split("\n") if '"justenough"' in line]
            report = json.loads(lines[-1])["justenough"] if lines else {}
            spent = (await standing(client))["accounts"]["all"]["spent"]
            return Outcome(seen(got), report, spent, dict(service.metrics.outcomes), got.text)

    return asyncio.run(main())


@pytest.mark.parametrize("elicited", [FAILS, EMPTY, ERROR], ids=["status", "empty", "error"])
@pytest.mark.parametrize("cue", ["", "Answer:"])
def test_an_answer_that_fails_before_its_first_token_is_replaced_by_the_clients_own_request(
    cue: str, elicited: Reply
) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
    own = streamed(*OWN, usage=usage)
    outcome = rescued(own, elicited=elicited, cue=cue, stream_options={"include_usage": True})
    assert (outcome.seen.text, outcome.seen.finish, outcome.seen.errors) == (f"{THOUGHT}It is 42.", "stop", 0)
    # Three tokens of the thought, and six of which two are a thought too.
    details = {"completion_tokens_details": {"reasoning_tokens": 5}}
    assert outcome.seen.usage == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16} | details
    assert (outcome.report["decision"], outcome.report["reason"]) == ("finished", "answer_failed")
    assert (outcome.spent, outcome.outcomes) == (9, {"finished": 1})
    assert outcome.report["failure"]


def test_a_cue_is_the_beginning_of_an_answer_that_comes() -> None:
    rest = streamed(delta(" 42."), delta("", "stop"))
    assert rescued(streamed(*OWN), elicited=rest, cue="Answer:").seen.text == f"{THOUGHT}Answer: 42."


BAD: Final = {"index": 0, "delta": {"content": 5}, "finish_reason": None}


@pytest.mark.parametrize(
    ("rows", "least", "most"),
    [
        ([delta("w")] * 60, 60, 60),
        ([delta("word ")] * 10, 50, 50),
        ([delta("w"), BAD, delta("", "stop")], 60, 200),
        ([delta("<think>")] + [delta("w")] * 20, 27, 27),
    ],
    ids=["breaks off", "breaks off in long pieces", "unreadable", "in the thought"],
)
def test_the_clients_own_request_is_charged_also_if_it_fails(rows: Sequence[Body], least: int, most: int) -> None:
    outcome = rescued(streamed(*rows))
    assert outcome.seen.errors == 1
    assert 3 + least <= outcome.spent <= 3 + most


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_in_one_piece_instead_of_a_stream_may_have_cost_any_number(stream: bool) -> None:
    whole = Reply(200, "application/json", json.dumps(chunk({"index": 0, "message": {"content": "42"}}, {})).encode())
    assert rescued(FAILS, elicited=whole, stream=stream).spent == 200


def test_a_thought_that_its_limit_ends_is_no_answer() -> None:
    outcome = rescued(streamed(delta("<think>Hm"), delta(" and on"), delta("", "length")))
    assert (outcome.seen.text, outcome.seen.finish) == (THOUGHT, "length")
    apart = streamed(delta("", reasoning_content="Hm"), delta("", "length"))
    assert rescued(apart).seen.text == THOUGHT
    answered = rescued(streamed(delta("It is 4"), delta("", "length")))
    assert (answered.seen.text, answered.seen.finish) == (f"{THOUGHT}It is 4", "length")


def test_an_answer_that_breaks_off_without_streaming_costs_what_its_events_may_hold() -> None:
    row = {"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}
    whole = chunk(row, {}) | {"usage": {"completion_tokens": 8}}
    own = Reply(200, "application/json", json.dumps(whole).encode())
    outcome = rescued(own, elicited=streamed(delta("w" * 40)), stream=False)
    assert (outcome.seen.text, outcome.spent) == ("42", 3 + 40 + 8)


def test_a_usage_without_completion_tokens_takes_no_count_away() -> None:
    rest = streamed(delta("word " * 8), delta("", "stop"), usage={"completion_tokens": 9, "prompt_tokens": 5})
    rest = rest._replace(body=rest.body + event(chunk(None, {}) | {"usage": {"prompt_tokens": 5}}))
    assert rescued(streamed(*OWN), elicited=rest).spent == 3 + 9
    own = streamed(*OWN, usage={"completion_tokens": 50})
    own = own._replace(body=own.body + event(chunk(None, {}) | {"usage": {"prompt_tokens": 5}}))
    assert rescued(own).spent == 3 + 50


ROLE: Final = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
FAILED: Final = {"index": 0, "delta": {}, "finish_reason": "error"}


@pytest.mark.parametrize("last", [{"error": {"message": "no logprobs"}}, {"choices": [FAILED]}, {"choices": []}])
def test_a_refusal_after_a_chunk_with_only_the_role_is_repeated_as_the_client_sent_it(last: Body) -> None:
    for status in (200, 400):

        def refuse(sent: Body, status: int = status) -> Reply | None:
            if not sent.get("logprobs"):
                return None if status == 200 else Reply(400, "application/json", b'{"error":{"message":"bad"}}')
            return Reply(200, "text/event-stream", event(chunk(ROLE, sent)) + event(chunk(None, sent) | last))

        for each in tried(Scripted(refuse=refuse), "gate", kinds=("chat",)):
            assert seen(each.through) == seen(each.direct), each
            assert each.through.status_code == status
            assert len(each.requests) == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("after", [[], [{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}]])
def test_a_generation_that_fails_later_gives_what_it_gives_without_the_gateway(after: list[Body], mode: str) -> None:
    def write(values: list[Body]) -> bytes:
        failed = values[0] | {"choices": [FAILED | ({"text": ""} if "text" in values[0]["choices"][0] else {})]}
        last = [values[0] | more for more in after]
        return b"".join(map(event, [*values[:3], failed, *last])) + b"data: [DONE]\n\n"

    for each in tried(Scripted(write=write), mode, stream_options={"include_usage": bool(after)}):
        assert seen(each.through) == seen(each.direct), each
        assert each.through.text.endswith("data: [DONE]\n\n") is each.stream


def test_where_the_answer_after_a_cut_fails_at_once_the_clients_own_request_is_answered() -> None:
    def refuse(sent: Body) -> Reply | None:
        closed = "</think>" in str(sent["messages"])
        return Reply(200, "text/event-stream", event(chunk(FAILED, sent))) if closed else None

    for each in tried(Scripted(row=CONFIDENT, refuse=refuse), "gate", kinds=("chat",)):
        assert seen(each.through).text.endswith("</think>The answer is 42.")
        assert seen(each.through).finish == "stop"


AFTER_FINISH: Final = (b"data: [done]\n\n", b'data: "[DONE]"\n\n', b"data: bye\n\n", event({"choices": "none"}))


@pytest.mark.parametrize("last", AFTER_FINISH)
def test_what_cannot_be_read_after_the_end_of_the_text_loses_no_answer(last: bytes) -> None:
    for each in tried(sure(write=lambda values: b"".join(map(event, values)) + last), "gate"):
        answer = seen(each.through)
        assert (answer.status, answer.text, answer.finish, answer.errors) == (200, CUT, "stop", 0)


CALL: Final[Body] = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}


def test_a_call_of_a_tool_in_the_answer_after_a_cut_is_not_lost_in_silence() -> None:
    def refuse(sent: Body) -> Reply | None:
        row = {"index": 0, "delta": CALL, "finish_reason": "tool_calls"}
        closed = "</think>" in str(sent["messages"])
        return Reply(200, "text/event-stream", event(chunk(row, sent)) + b"data: [DONE]\n\n") if closed else None

    for each in tried(sure(refuse=refuse), "gate", kinds=("chat",)):
        answer = seen(each.through)
        # The client's own request gives another answer, which is whole.
        assert (answer.text[-17:], answer.finish, answer.errors) == ("The answer is 42.", "stop", 0)


def test_a_call_of_a_tool_in_the_clients_own_answer_ends_a_stream_with_an_error() -> None:
    def refuse(sent: Body) -> Reply | None:
        if "</think>" in str(sent["messages"]):
            return FAILS
        row = {"index": 0, "delta": CALL, "finish_reason": "tool_calls"}
        return Reply(200, "text/event-stream", event(chunk(row, sent))) if "logprobs" not in sent else None

    for each in tried(sure(refuse=refuse), "gate", kinds=("chat",)):
        answer = seen(each.through)
        if each.stream:
            assert (answer.text, answer.finish, answer.errors) == (THOUGHT, None, 1)


IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHERS: Final[dict[str, tuple[list[Body], Body]]] = {
    "refusal": ([{"refusal": "I can"}, {"refusal": "not."}], {"refusal": "I cannot."}),
    "images": ([{"content": "", "images": [IMAGE]}, {"images": [IMAGE]}], {"images": [IMAGE, IMAGE]}),
    "audio": (
        [{"audio": {"id": "a", "transcript": "Ye"}}, {"audio": {"id": "a", "transcript": "s", "data": "QQ=="}}],
        {"audio": {"id": "a", "transcript": "Yes", "data": "QQ=="}},
    ),
    "annotations": (
        [{"content": "", "annotations": [{"type": "url_citation"}]}],
        {"annotations": [{"type": "url_citation"}]},
    ),
}


@pytest.mark.parametrize("rest", [(), ("The answer", " is 42.")])
@pytest.mark.parametrize("name", OTHERS)
def test_what_an_answer_after_a_cut_has_beside_text_is_not_lost(name: str, rest: Sequence[str]) -> None:
    deltas, expected = OTHERS[name]
    streamed, whole = tried(sure(deltas=deltas, rest=rest), "gate", kinds=("chat",))
    assert len(streamed.requests) == len(whole.requests) == 2
    values = [json.loads(line[6:]) for line in streamed.through.text.split("\n\n") if line.startswith("data: {")]
    sent = [row["delta"] for value in values for row in value["choices"] if name in row["delta"]]
    assert sent == [{key: value for key, value in own.items() if value} for own in deltas]
    message = whole.through.json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": CUT[: -len("The answer is 42.")] + "".join(rest)} | expected


@pytest.mark.parametrize("stream", [True, False])
def test_parts_of_an_answer_after_a_cut_that_are_no_text_are_not_lost(stream: bool) -> None:
    parts = [{"type": "text", "text": "See: "}, IMAGE]
    each = tried(sure(deltas=[{"content": parts}], rest=()), "gate", kinds=("chat",))[not stream]
    if stream:
        sent = [json.loads(line[6:]) for line in each.through.text.split("\n\n") if "image_url" in line]
        assert [value["choices"][0]["delta"]["content"] for value in sent] == [parts]
    else:
        assert each.through.json()["choices"][0]["message"]["content"][-2:] == parts


def test_an_image_that_the_client_has_got_is_not_followed_by_another_answer() -> None:
    own, broken = streamed(delta("No.", "stop")), streamed(delta("", images=[IMAGE]))
    outcome = rescued(own, elicited=broken)
    assert "image_url" in outcome.text
    assert "No." not in outcome.text


def test_a_member_that_is_no_answer_hinders_no_other_answer() -> None:
    broken = streamed(delta("", provider_specific_fields={"a": 1}))
    outcome = rescued(streamed(*OWN), elicited=broken)
    assert (outcome.seen.text, outcome.report["reason"]) == (f"{THOUGHT}It is 42.", "answer_failed")


def test_the_clients_own_answer_keeps_what_it_has_beside_text() -> None:
    rows = [delta("", refusal="I can"), delta("", "stop", refusal="not.", images=[IMAGE])]
    outcome = rescued(streamed(*rows))
    assert '"refusal":"I cannot."' in outcome.text
    assert "image_url" in outcome.text
