"""Live rules in the gateway: probes while the thought waits, the cut, the answer, and what is charged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.settings import BudgetSettings, GatewaySettings, Limits
from justenough.rules.live import open_live
from justenough.signal.thought import thought_format
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.serve.test_metered import spent
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.test_gating import CHAT, PATHS, events, said
from tests.unit.gateway.ways import settled
from tests.unit.gateway.wild import Reply, Scripted, before, chunk, event, seen, serving

THOUGHT = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n", "Again", ".\n\n")
Scenario = Callable[[Running, MockUpstream, httpx.AsyncClient], Coroutine[None, None, None]]


def ruled(scenario: Scenario, rule: str = "answer-convergence@1", *, settings: Any = None, **mock: Any) -> None:
    async def main() -> None:
        async with MockUpstream(**{"thought": THOUGHT, "answer": (" 42", "."), **mock}) as upstream:
            base = GatewaySettings(upstream=upstream.url, rule=open_live(rule), **(settings or {}))
            async with running(base) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                await scenario(gateway, upstream, client)

    asyncio.run(main())


def is_probe(body: dict[str, Any]) -> bool:
    last = body["messages"][-1] if "messages" in body else {"content": body["prompt"]}
    return "</think>" in str(last["content"])


async def streamed(client: httpx.AsyncClient, path: str = "/v1/chat/completions", **changes: Any) -> Any:
    body = {**PATHS[path], "stream": True, "stream_options": {"include_usage": True}, **changes}
    answer = await client.post(path, json=body)
    chunks = events("\n\n".join(part for part in answer.text.split("\n\n") if not part.startswith(":")))
    reports = [chunk["justenough"] for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
    (report,) = reports
    return answer, chunks, report


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.NO_LOGPROBS, Fault.REFUSE_LOGPROBS])
@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("path", PATHS)
def test_equal_answers_stop_the_thought_with_or_without_log_probabilities(path: str, engine: str, fault: Fault) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer, chunks, report = await streamed(client, path)
        assert answer.headers["x-justenough"] == "gating"
        assert said(chunks) == "<think>Let me think.\n\nSo it is 42.\n\n\n</think>\n\nAnswer: 42."
        assert (report["decision"], report["reason"], report["step"]) == ("stopped", "rule", 2)
        # The thought, and two probes of two tokens each.
        assert (report["thought_tokens"], report["probe_tokens"], report["tokens"]) == (5, 4, 9)
        assert chunks[-1]["usage"]["completion_tokens"] == 9
        bodies = [json.loads(request.body) for request in mock.completions]
        assert [is_probe(body) for body in bodies] == [False, True, True]
        assert [body.get("max_tokens") for body in bodies] == [None, 64, 64]
        assert not any(body.get("logprobs") for body in bodies)
        async with asyncio.timeout(30):
            while mock.cancelled != 1:
                await asyncio.sleep(0.005)
        assert gateway.service.metrics.probe_tokens == 4
        assert ": the thought is probed" in answer.text

    # The thought is long, so that the mock cannot end it before the cut.
    ruled(scenario, engine=engine, fault=fault, interval_s=0.005, thought=(*THOUGHT, *[" on"] * 2000))


def test_a_thought_in_a_field_of_its_own_is_probed_with_its_tag() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert said(chunks, "reasoning_content") == "Let me think.\n\nSo it is 42.\n\n"
        assert said(chunks) == "Answer: 42."
        assert report["reason"] == "rule"
        assert json.loads(mock.completions[1].body)["messages"][-1]["content"].startswith("<think>\nLet me think.")

    ruled(scenario, reasoning_field="reasoning_content")


def test_an_answer_of_a_probe_keeps_what_it_has_beside_text() -> None:
    def delta(text: str, thought: bool) -> dict[str, Any]:
        return {"reasoning": text} if thought else {"content": text, "annotations": [{"of": text}]}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert report["reason"] == "rule"
        deltas = [row["delta"] for chunk in chunks for row in chunk["choices"]]
        assert [part["annotations"] for part in deltas if "annotations" in part] == [[{"of": " 42"}], [{"of": "."}]]

    ruled(scenario, reasoning_field="reasoning", delta=delta)


def test_a_client_without_streaming_gets_one_object() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        reply = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert reply["choices"][0]["message"]["content"].endswith("</think>\n\nAnswer: 42.")
        assert (reply["justenough"]["reason"], reply["usage"]["completion_tokens"]) == ("rule", 9)

    ruled(scenario)


def test_a_rule_that_does_not_stop_leaves_the_thought_alone_and_its_probes_are_charged() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert said(chunks).endswith("</think> 42.")
        assert (report["decision"], report["reason"]) == ("finished", "rule")
        # The rule looks at the steps 1, 3 and 4.
        assert report["probe_tokens"] == 6
        assert report["tokens"] == len(["<think>", *THOUGHT, "</think>"]) + 2 + 6
        assert sum(is_probe(json.loads(request.body)) for request in mock.completions) == 3

    ruled(scenario, "answer-convergence:9@1-8")


def test_a_rule_on_log_probabilities_reads_them_off_the_probe_and_generates_the_answer_anew() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert (report["reason"], report["step"]) == ("rule", 1)
        assert report["probe_tokens"] == 6
        assert "logprobs" not in json.dumps(chunks)
        bodies = [json.loads(request.body) for request in mock.completions]
        assert [bool(body.get("logprobs")) for body in bodies] == [False, True, False]

    ruled(scenario, "deer:0.9@1", logprobs=(CONFIDENT,), answer=(" 4", "2", "."))

    async def unsure(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        assert (await streamed(client))[2]["decision"] == "finished"

    ruled(unsure, "deer:0.9@1", logprobs=(UNSURE,), answer=(" 4", "2", "."))


@pytest.mark.parametrize(
    ("fault", "note"), [(Fault.NO_LOGPROBS, "missing_logprobs"), (Fault.REFUSE_LOGPROBS, "probe_failed")]
)
def test_without_them_such_a_rule_stops_nothing_and_says_so(fault: Fault, note: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert said(chunks).endswith("</think> 42.")
        assert (report["decision"], report["notes"]) == ("finished", [note])
        assert len(mock.completions) == 2

    ruled(scenario, "deer:0.9@1", fault=fault)


@pytest.mark.parametrize("fault", [Fault.CONTINUATION_FAILS, Fault.CONTINUATION_BREAKS])
def test_a_probe_that_fails_leaves_the_thought_alone(fault: Fault) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert said(chunks).endswith("</think> 42.")
        assert report["notes"] == ["probe_failed"]

    ruled(scenario, fault=fault)


def test_an_upstream_that_cannot_continue_a_chat_is_only_observed() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer, _, report = await streamed(client)
        assert "reason=cannot_continue" in answer.headers["x-justenough"]
        assert (report["decision"], report["probe_tokens"]) == ("observed", 0)
        assert not any(is_probe(json.loads(request.body)) for request in mock.completions)

    ruled(scenario, engine="openai", prefill=False)


def test_probes_are_charged_to_the_budget() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await streamed(client)
        assert gateway.service.budgets.totals()["budget_spent_tokens"] == 9

    ruled(scenario, settings={"budget": BudgetSettings(tokens=10_000)})


def test_an_answer_that_the_probe_did_not_finish_is_generated_whole() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, chunks, report = await streamed(client)
        assert said(chunks).endswith("Answer: 42" + " and so on" * 70)
        assert report["probe_tokens"] == 64 + 64 + 71

    ruled(scenario, answer=(" 42", *[" and so on"] * 70))


def test_the_decisions_name_the_rule() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        reply = (await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"decisions": True}})).json()
        rows = reply["justenough"]["decisions"]
        assert [(row["step"], row["action"], row["reason"]) for row in rows] == [
            (1, "extend", "rule"),
            (2, "stop", "rule"),
        ]

    ruled(scenario)


def test_settings_that_contradict_a_rule_are_refused() -> None:
    url = "http://127.0.0.1:1"
    with pytest.raises(InputError, match="without a calibration"):
        GatewaySettings(upstream=url, rule=open_live("deer"), calibration=calibration_of(1.0))
    with pytest.raises(InputError, match="reads every token"):
        GatewaySettings(upstream=url, rule=open_live("leash"))
    settings = GatewaySettings(upstream=url, rule=open_live("deer"), thought=thought_format("harmony"), answer_cue="")
    assert settings.effective_mode == "gate"
    assert (settings.prompts.thought.open, settings.prompts.answer) == ("<|channel|>analysis<|message|>", "")


@pytest.mark.parametrize("most", [99, 100])
def test_probes_stay_within_the_operators_limit_of_a_request(most: int) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        _, _, report = await streamed(client, max_tokens=most)
        # One step may be under way, and one answer follows.
        assert report["tokens"] <= 100 + 64

    limits = {"limits": Limits(max_request_tokens=100)}
    ruled(scenario, "answer-convergence:50@1", settings=limits, thought=("So", " on", ".\n\n") * 30)


@pytest.mark.parametrize(
    ("mock", "members", "note"),
    [({"thought": ()}, {}, "no_thought"), ({}, {"stop": ["\n\n"]}, "stop_sequence")],
    ids=["no thought", "stop sequence"],
)
def test_the_reasons_of_the_thought_itself_are_told_too(
    mock: dict[str, Any], members: dict[str, Any], note: str
) -> None:
    async def scenario(gateway: Running, _: MockUpstream, client: httpx.AsyncClient) -> None:
        _, _, report = await streamed(client, **members)
        assert (report["decision"], report["notes"]) == ("finished", [note])
        await settled(gateway)
        assert gateway.service.metrics.undecided == {note: 1}

    ruled(scenario, **mock)


def test_a_probe_needs_no_more_tokens_than_it_may_have() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await streamed(client, min_tokens=100)
        assert [json.loads(request.body)["min_tokens"] for request in mock.completions] == [100, 64, 64]

    ruled(scenario)


def test_an_answer_that_a_probe_gave_is_charged_once() -> None:
    upstream = Scripted(texts=("<think>", "Let me", " think.\n\n", "So", " 42.\n\n", "On"))
    settings = {"calibration": None, "rule": open_live("answer-convergence@1")}
    # Without log-probabilities and a usage each byte counts: of two steps, and of two probes.
    expected = sum(map(len, upstream.texts[:5])) + 2 * sum(map(len, upstream.rest))
    assert asyncio.run(spent(upstream, "gate", settings=settings, max_tokens=500)) == expected


def test_a_stream_that_just_ends_is_an_error_and_one_without_a_blank_line_is_whole() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert '"code":"upstream_broken"' in answer.text
        assert "[DONE]" not in answer.text

    ruled(scenario, fault=Fault.END_IN_STREAM)
    server = Scripted(write=lambda values: b"".join(map(event, values))[:-1])

    async def main() -> None:
        async with (
            serving(server) as url,
            running(GatewaySettings(upstream=url, rule=open_live("answer-convergence:9@1-8"))) as gateway,
        ):
            async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
            assert '"finish_reason":"stop"' in answer.text

    asyncio.run(main())


@pytest.mark.parametrize(
    "begin", [b": waiting\n\n", b"", event(chunk({"index": 0, "delta": {"role": "assistant"}}, {}))]
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_before_the_first_output_is_repeated(stream: bool, begin: bytes) -> None:
    error = event({"error": {"message": "extra fields not permitted"}})
    refusal = Reply(200, "text/event-stream", begin + error)
    server = Scripted(refuse=lambda sent: refusal if "stream_options" in sent else None)

    async def main() -> None:
        async with before(server, "gate") as (gateway, url), httpx.AsyncClient(timeout=60) as client:
            gateway.service.settings = GatewaySettings(upstream=url, rule=open_live("answer-convergence@1"))
            path, body = "/v1/chat/completions", {**CHAT, "model": "m", "stream": stream}
            direct, through = await client.post(url + path, json=body), await client.post(gateway.url + path, json=body)
            assert seen(through) == seen(direct)
            assert seen(through).errors == 0

    asyncio.run(main())
