"""The gateway before vLLM: nothing lost in off mode, and a stop that its own counters see. `make test-vllm`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import httpx
import pytest

from justenough.gate import Gate, GateSettings
from justenough.gateway.settings import BudgetSettings
from justenough.signal.thought import THINK
from justenough.wire.events import DONE, EventReader
from justenough.wire.lenient import read_chunk
from justenough.wire.logprobs import tokens_of
from tests import answers
from tests.e2e.gateway import through as asked
from tests.e2e.gateway.through import ANYTHING, MODEL, payloads
from tests.unit.gateway.serving import Running, calibration_of
from tests.vllm.conftest import generated, settled

pytestmark = pytest.mark.vllm

CHAT = asked.CHAT | {"temperature": 0}
TEXT = asked.TEXT | {"temperature": 0}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CONTINUOUS = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
LONG = CHAT | {"ignore_eos": True, "max_tokens": 600}
"""A thought without an end: what the model says after its answer is thought again."""


def through(url: str, scenario: Any, **settings: Any) -> None:
    # Where the thought has a field of its own, its tags are seen only if the parser leaves one in, by chance.
    given: dict[str, Any] = {"temperature": 0.0, "thought": THINK}
    asked.through(url, scenario, **given | settings)


def steady(chunks: list[Any]) -> Any:
    """What an answer comes to, whole or streamed, without what no two of them have in common.

    How many tokens come in an event, and whether a tag that opens the thought is left in it, is a matter of time.
    """
    whole: Any = {}
    for chunk in chunks:
        whole = merged(whole, chunk)
    for choice in whole.get("choices", []):
        for said in (choice.get("delta"), choice.get("message")):
            if said and said.get("reasoning"):
                said["reasoning"] = said["reasoning"].removeprefix("<think>")
    return answers.steady(whole, {**answers.CHANGING, "created_at": int, "completed_at": int})


def merged(one: Any, other: Any, name: str = "") -> Any:
    """Two pieces of an answer as one: texts and lists go on, what else there is holds for both; null is nothing."""
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, dict):
        return {key: merged(one.get(key), other.get(key), key) for key in one | other}
    if name == "choices":
        return [merged(*pair) for pair in zip_longest(one, other)]
    if isinstance(one, list) or name in ("content", "reasoning", "text"):
        return one + other
    return other


def chunks_of(answer: httpx.Response) -> list[Any]:
    streamed = "event-stream" in answer.headers["content-type"]
    return payloads(answer.text) if streamed else [answer.json()]


REQUESTS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "chat": ("POST", "/v1/chat/completions", CHAT),
    "chat-stream": ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
    "chat-usage": ("POST", "/v1/chat/completions", CHAT | USAGE),
    "chat-continuous": ("POST", "/v1/chat/completions", CHAT | CONTINUOUS),
    "chat-logprobs": ("POST", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 3}),
    "chat-token-ids": ("POST", "/v1/chat/completions", CHAT | {"stream": True, "return_token_ids": True}),
    "chat-n": ("POST", "/v1/chat/completions", CHAT | {"n": 2, "temperature": 0.5}),
    "chat-wrong": ("POST", "/v1/chat/completions", {"messages": 3}),
    "completion": ("POST", "/v1/completions", TEXT),
    "completion-stream": ("POST", "/v1/completions", TEXT | {"stream": True, "logprobs": 2}),
    "responses": ("POST", "/v1/responses", {"model": MODEL, "input": "47*36", "temperature": 0}),
    "models": ("GET", "/v1/models", None),
    "tokenize": ("POST", "/tokenize", {"model": MODEL, "prompt": "47*36"}),
    "nothing": ("GET", "/v1/nothing?x=1", None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_off_mode_answers_what_the_server_answers(vllm_server: str, name: str) -> None:
    method, path, body = REQUESTS[name]

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=vllm_server, timeout=120) as straight:
            direct = await straight.request(method, path, json=body)
        answer = await client.request(method, path, json=body)
        assert answer.status_code == direct.status_code
        assert steady(chunks_of(answer)) == steady(chunks_of(direct))

    through(vllm_server, scenario, mode="off")


def said_something(value: Any) -> Any:
    """A JSON value without members that are null: a whole answer put together from a stream has fewer of them."""
    if isinstance(value, dict):
        return {key: said_something(item) for key, item in value.items() if item is not None}
    return [said_something(item) for item in value] if isinstance(value, list) else value


UNSTOPPED = {
    name: (REQUESTS[name][1], REQUESTS[name][2] or {})
    for name in REQUESTS
    if name.startswith("c") and name not in ("chat-n", "chat-wrong")
}


@pytest.mark.parametrize("name", UNSTOPPED)
def test_a_thought_that_is_not_stopped_is_answered_as_without_us(vllm_server: str, name: str) -> None:
    """Log-probabilities and counts of tokens are asked for and taken out again; nothing else may differ."""
    path, body = UNSTOPPED[name]

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=vllm_server, timeout=120) as straight:
            direct = await straight.post(path, json=body)
        answer = await client.post(path, json=body)
        ours, theirs = steady(chunks_of(answer)), steady(chunks_of(direct))
        report = ours.pop("justenough")
        # Completions name alternatives by their text, and those of the same text are one.
        assert report.get("notes", ["short_logprobs"]) == ["short_logprobs"]
        assert ("notes" in report) is ("completions" in path and "chat" not in path)
        assert report["decision"] == "finished"
        if body.get("stream") and "stream_options" not in body:
            # It stands in the event of the usage, which the client did not ask for.
            del theirs["system_fingerprint"]
        assert said_something(ours) == said_something(theirs)

    through(vllm_server, scenario, threshold=0.0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stopped_thought_is_answered(vllm_server: str, path: str, stream: bool) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        body = (CHAT if "chat" in path else TEXT) | (USAGE if stream else {})
        answer = steady(chunks_of(await client.post(path, json=body)))
        (choice,) = answer["choices"]
        said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        thought, text = said.get("reasoning"), said["content"]
        if not thought:
            thought, _, text = text.removeprefix("<think>").partition("</think>")
        assert thought.startswith("47*36")
        assert thought.endswith("\n\n")
        assert thought.count("\n\n") == 1
        assert text == "Answer: 1692"
        assert choice["finish_reason"] == "stop"
        report, usage = answer["justenough"], answer["usage"]
        assert (report["decision"], report["step"]) == ("stopped", 1)
        assert usage["prompt_tokens"] == 8
        assert usage["completion_tokens"] == report["tokens"] == report["thought_tokens"] + report["probe_tokens"]
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["upstream"]["engine"], status["upstream"]["continues_by"]) == ("vllm", "continue_final_message")

    through(vllm_server, scenario)


@pytest.mark.parametrize("vllm_server", ["forgetful"], indirect=True)
def test_a_template_that_takes_thoughts_away_is_gone_round(vllm_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        answer = steady(chunks_of(await client.post("/v1/chat/completions", json=CHAT | USAGE)))
        (choice,) = answer["choices"]
        assert (choice["delta"]["content"], choice["finish_reason"]) == ("Answer: 1692", "stop")
        assert answer["justenough"]["decision"] == "stopped"
        assert answer["usage"]["prompt_tokens"] == 8
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["upstream"]["engine"], status["upstream"]["continues_by"]) == ("vllm", "template")

    through(vllm_server, scenario)


def test_the_same_tokens_give_the_same_decision_as_anywhere_else(vllm_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=vllm_server, timeout=120) as straight:
            question = CHAT | {"stream": True, "logprobs": True, "top_logprobs": 20}
            direct = await straight.post("/v1/chat/completions", json=question)
        gate = Gate(GateSettings.of(calibration_of(ANYTHING, model=MODEL)))
        chunks = [read_chunk(each) for each in EventReader().feed(direct.content) if each != DONE]
        tokens = [token for chunk in chunks for choice in chunk.choices or () for token in tokens_of(choice.logprobs)]
        expected = next(decision for token in tokens if (decision := gate.feed(token)).ends)
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["entropy"], report["step"]) == (expected.entropy, expected.step)
        # Some more may have come in the same event.
        assert report["thought_tokens"] >= expected.tokens

    through(vllm_server, scenario)


def test_a_stop_really_stops_the_generation(vllm_server: str, record_property: Callable[[str, object], None]) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        before = generated(vllm_server)
        report = steady(chunks_of(await client.post("/v1/chat/completions", json=LONG | USAGE)))["justenough"]
        beyond = await settled(vllm_server) - before - report["tokens"]
        record_property("overshoot_tokens", beyond)
        assert report["decision"] == "stopped"
        # Uncut it is 600 tokens, as the next test shows.
        assert report["thought_tokens"] < 100
        assert 0 <= beyond < 200
        await asyncio.sleep(0.5)
        assert generated(vllm_server) == before + report["tokens"] + beyond

    through(vllm_server, scenario)


def test_the_same_request_uncut_runs_to_its_limit(vllm_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        before = generated(vllm_server)
        body = LONG | {"justenough": {"mode": "observe"}}
        report = (await client.post("/v1/chat/completions", json=body)).json()["justenough"]
        assert generated(vllm_server) - before == report["tokens"] == LONG["max_tokens"]
        assert report["would_stop_at"] < 100

    through(vllm_server, scenario)


@pytest.mark.parametrize("mode", ["off", "gate"])
def test_a_client_that_leaves_ends_the_generation(vllm_server: str, mode: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        counts = []
        for _ in range(3):
            before = generated(vllm_server)
            async with client.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as answer:
                await anext(answer.aiter_bytes())
            counts.append(await settled(vllm_server) - before)
        # Without us too its first bytes come late now and then, when most has been generated.
        assert min(counts) < LONG["max_tokens"] / 2
        before = generated(vllm_server)
        await asyncio.sleep(0.5)
        assert generated(vllm_server) == before

    through(vllm_server, scenario, mode=mode, threshold=0.0)


def test_the_overshoot_is_what_the_servers_own_counter_says(vllm_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.gateway.upstream.overshoot.SETTLED_S", 0.5)

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async def measured() -> None:
            async with asyncio.timeout(60):
                while gateway.service.overshoot.stale:
                    await asyncio.sleep(0.02)

        await measured()
        before, received = generated(vllm_server), 0
        for number in range(3):
            body = LONG | {"messages": [{"role": "user", "content": f"4{number}*36"}]}
            received += (await client.post("/v1/chat/completions", json=body)).json()["justenough"]["tokens"]
        await measured()
        told = (await client.get("/v1/justenough/status")).json()["overshoot"]
        assert (told["source"], told["stops"]) == ("vllm:generation_tokens_total", 3)
        assert told["tokens"] == generated(vllm_server) - before - received

    through(vllm_server, scenario, overshoot_every_s=0.05)


@pytest.mark.parametrize("extend", ["refine", "wait"])
def test_later_steps_follow(vllm_server: str, extend: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        before = generated(vllm_server)
        answer = steady(chunks_of(await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 600} | USAGE)))
        report, said = answer["justenough"], answer["choices"][0]["delta"]
        assert (report["decision"], report["steps"]) == ("finished", 2)
        assert said["content"]
        assert said.get("reasoning") or said["reasoning_content"]
        assert answer["usage"]["completion_tokens"] == report["tokens"] == generated(vllm_server) - before

    calibration = calibration_of(0.0, model=MODEL, temperature=0.0, shape="sequential", splitter="completion")
    through(vllm_server, scenario, calibration=replace(calibration, max_steps=2), extend=extend)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/completions"])
def test_what_a_budget_counts_is_what_the_server_generated(vllm_server: str, path: str, stream: bool) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        asked = {"model": MODEL, "input": "47*36", "temperature": 0}
        body = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}.get(path, asked)
        before = generated(vllm_server)
        answer = await client.post(path, json=body | {"stream": stream, "justenough": {"mode": "off"}})
        assert answer.status_code == 200
        account = (await client.get("/v1/justenough/status")).json()["budget"]["accounts"]["all"]
        assert account["spent"] == await settled(vllm_server) - before == 276
        assert account["reserved"] == 0

    through(vllm_server, scenario, budget=BudgetSettings(tokens=10_000, per="batch"))
