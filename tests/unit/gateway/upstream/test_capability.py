"""An upstream that cannot be asked yet: its own answers pass, and it is asked again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from justenough.gateway.settings import BudgetSettings
from justenough.gateway.upstream import capability
from justenough.gateway.upstream.capability import call, probe
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.probing import PATIENT_PROBES, QUICK_PROBES
from justenough.signal.thought import FORMATS, THINK, ThoughtFormat
from justenough.testing import CONFIDENT, MockUpstream
from tests.unit.gateway.serving import running
from tests.unit.gateway.ways import CHAT, GATED, THOUGHT, faulty, settings_for


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("way", GATED)
def test_the_first_client_with_the_upstreams_key_opens_the_gate(way: str, engine: Any) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), engine=engine, key="sk-right")
        async with faulty(way, mock) as (gateway, client):
            assert gateway.service.capabilities is None
            for shown in ({}, {"authorization": "Bearer sk-wrong"}):
                refused = await client.post("/v1/chat/completions", json=CHAT, headers=shown)
                assert (refused.status_code, refused.json()["error"]["message"]) == (401, "Invalid API Key")
                assert refused.headers["x-justenough"] == "relayed; reason=not_probed"
                assert gateway.service.capabilities is None
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer sk-right"})
            assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("way", GATED)
def test_an_upstream_that_still_loads_is_asked_again(way: str, engine: Any, counted: bool) -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), engine=engine, loading=True) as mock:
            settings = settings_for(way, mock.url)
            if counted:
                settings = replace(settings, budget=BudgetSettings(tokens=1_000))
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                early = await client.post("/v1/chat/completions", json=CHAT)
                assert (early.status_code, early.json()["error"]["message"]) == (503, "Loading model")
                assert gateway.service.capabilities is None
                mock.loading = False
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


def answering(
    monkeypatch: pytest.MonkeyPatch, answers: Mapping[str, tuple[int, bytes]], times: int = 1_000_000
) -> Counter[str]:
    """Give these answers to so many calls of each path; returns the number of calls of each path."""
    calls: Counter[str] = Counter()

    async def answer(upstream: Upstream, method: str, path: str, **rest: Any) -> tuple[int, bytes]:
        calls[path] += 1
        if path in answers and calls[path] <= times:
            return answers[path]
        return await call(upstream, method, path, **rest)

    monkeypatch.setattr(capability, "call", answer)
    return calls


BAD = (
    (500, b'{"error":{"message":"x"}}'),
    (404, b'{"detail":"Not Found"}'),
    (408, b""),
    (520, b"<html>"),
    (200, b"<html>ok</html>"),
    (200, b'{"choices":[]}'),
    (400, b"<html>bad</html>"),
)


@pytest.mark.parametrize(("status", "body"), BAD)
@pytest.mark.parametrize("bad", [1, QUICK_PROBES])
def test_one_bad_answer_to_the_probe_settles_nothing(
    status: int, body: bytes, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {"/v1/chat/completions": (status, body)}, times=bad)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (_, client):
            reasons = []
            for _ in range(bad):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                reasons.append(answer.headers["x-justenough"])
                assert answer.status_code == 200
            assert reasons[:-1] == ["relayed; reason=not_probed"] * (bad - 1)
            assert reasons[-1].startswith("stopped")

    asyncio.run(scenario())


NO_PREFILL = b'{"error":{"message":"Unrecognized request argument: continue_final_message"}}'


@pytest.mark.parametrize("status", [400, 405, 422])
def test_a_refusal_that_names_the_member_tells_that_no_chat_is_continued(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"/v1/chat/completions": (status, NO_PREFILL), "/tokenize": (404, b"{}")}
    calls = answering(monkeypatch, answers)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT)) as (gateway, client):
            for _ in range(10):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert "cannot_continue" in answer.headers["x-justenough"]
            assert gateway.service.capabilities is not None
            # That it cannot is never final, since the refusal may come from something before the server.
            assert (gateway.service.capabilities.chat, gateway.service.capabilities.conclusive) == (None, False)
        assert calls["/v1/chat/completions"] == QUICK_PROBES + 1

    asyncio.run(scenario())


def test_a_refusal_of_something_else_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"/v1/chat/completions": (400, b'{"error":{"message":"try another day"}}')}, times=1)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (gateway, client):
            assert gateway.service.capabilities is None
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


def test_a_client_with_a_wrong_key_does_not_delay_the_probe_for_others() -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), key="sk-right")
        async with faulty("streaming", mock) as (_, client):
            for _ in range(20):
                refused = await client.post(
                    "/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer sk-wrong"}
                )
                assert refused.status_code == 401
            answer = await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer sk-right"})
            assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


def test_an_upstream_that_is_never_conclusive_is_asked_more_and_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, {"/v1/chat/completions": (404, b""), "/tokenize": (404, b"")})

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT)) as (gateway, client):
            for _ in range(20):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.headers["x-justenough"] == "relayed; reason=not_probed"
            assert calls["/v1/chat/completions"] == QUICK_PROBES + 1
            while gateway.service.capabilities is None:
                gateway.service.probing._next_at = 0.0
                await client.post("/v1/chat/completions", json=CHAT)
            assert calls["/v1/chat/completions"] == PATIENT_PROBES + 1
            assert not gateway.service.capabilities.conclusive
            monkeypatch.setattr(capability, "call", call)
            gateway.service.probing._next_at = 0.0
            assert (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


@pytest.mark.parametrize("target", ["/props", "/version", "/v1/models", "/apply-template", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, b"<html>busy</html>") for status in (200, 302, 400, 404, 408, 429, 500, 502)),
        *((status, b'{"error":{"message":"x"}}') for status in (200, 400, 404)),
        *(
            (200, b'{"data":[' + rows + b"]}")
            for rows in (
                *(b"", b'{"id":""}', b'{"id":7}', b'{"id":"mock"},{"id":null}', b'{"id":"mock","max_model_len":0}'),
                b'{"id":"%b"}' % (b"x" * 10_000),
            )
        ),
    ],
)
@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
def test_one_bad_answer_to_any_call_of_the_probe_settles_nothing(
    target: str, status: int, body: bytes, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_template = target not in ("/props", "/version", "/v1/models")
    answers = {target: (status, body)}
    calls = answering(monkeypatch, answers, times=1)
    mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), engine=engine, prefill=not needs_template)

    async def scenario() -> None:
        async with faulty("streaming", mock) as (gateway, client):
            for _ in range(2):
                answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.json()["justenough"]["decision"] == "stopped"
            assert gateway.service.capabilities is not None
            assert (gateway.service.capabilities.engine, gateway.service.capabilities.models) == (engine, ("mock",))
            assert gateway.service.capabilities.conclusive
            before = calls["/v1/models"]
            await client.post("/v1/chat/completions", json=CHAT)
            assert calls["/v1/models"] == before

    asyncio.run(scenario())


def test_an_unknown_server_that_can_be_gated_is_used_and_probed_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = answering(monkeypatch, {"/version": (404, b"404 page not found")})

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (_, client):
            for _ in range(10):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.json()["justenough"]["decision"] == "stopped"
            assert calls["/version"] == QUICK_PROBES + 1

    asyncio.run(scenario())


def test_odd_lists_of_models_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": "mock"}, {"id": "x" * 500}, {"id": "\x1b[31m\n"}, *({"id": f"m{n}"} for n in range(5_000))]
    answering(monkeypatch, {"/v1/models": (200, msgspec.json.encode({"data": rows}))})

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (_, client):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.json()["justenough"]["decision"] == "stopped"
            status = await client.get("/v1/justenough/status")
            assert status.json()["upstream"]["models"][0] == "mock"
            assert len(status.content) < 20_000

    asyncio.run(scenario())


def test_a_later_probe_with_fewer_answers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"/version": (404, b"404 page not found")}
    answering(monkeypatch, bad)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (gateway, client):
            known = gateway.service.capabilities
            for path in ("/v1/models", "/v1/chat/completions"):
                for status in (404, 503):
                    answering(monkeypatch, {**bad, path: (status, b"<html>")})
                    gateway.service.probing._next_at, gateway.service.probing._failed = 0.0, 2 * PATIENT_PROBES
                    answer = await client.post("/v1/chat/completions", json=CHAT)
                    assert answer.json()["justenough"]["decision"] == "stopped"
                    assert gateway.service.capabilities == known

    asyncio.run(scenario())


TEMPLATE = b'{"default_generation_settings": {}, "chat_template": "{{ x }}[THINK]{{ y }}[/THINK]"}'


@pytest.mark.parametrize(
    ("engine", "answers", "format", "end"),
    [
        ("llama.cpp", {"/props": (200, TEMPLATE), "/apply-template": (404, b"")}, FORMATS["mistral"], ""),
        ("llama.cpp", {"/props": (200, TEMPLATE), "/apply-template": (200, b'{"prompt": "Q<think>\\n"}')}, THINK, "\n"),
        ("vllm", {"/detokenize": (200, b'{"prompt": "Q<reasoning>"}')}, FORMATS["reasoning"], "Q<reasoning>"),
        ("vllm", {"/detokenize": (200, b'{"prompt": "Q"}')}, None, "Q"),
        ("vllm", {"/tokenize": (400, b'{"error": {"message": "no template"}}')}, None, ""),
        ("vllm", {}, THINK, "<|assistant|>"),
        ("plain", {}, None, ""),
    ],
)
def test_the_probe_finds_the_format_of_the_thought(
    engine: Any,
    answers: Mapping[str, tuple[int, bytes]],
    format: ThoughtFormat | None,
    end: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, answers)

    async def scenario() -> None:
        async with MockUpstream(engine=engine) as mock, Upstream(settings_for("off", mock.url)) as upstream:
            found = await probe(upstream, headers=[], settle=True)
            assert found.thought == format
            assert found.prompt_end.endswith(end)
            assert bool(found.prompt_end) == bool(end)

    asyncio.run(scenario())


@pytest.mark.parametrize(("text", "chat"), [("K", "prefill"), ("OK", None), ("", None)])
def test_a_server_that_continues_a_message_without_repeating_it_is_recognised(
    monkeypatch: pytest.MonkeyPatch, text: str, chat: str | None
) -> None:
    # As Ollama does it, with the same prompt whatever the request says of the turn.
    reply = {"choices": [{"index": 0, "message": {"content": text}}], "usage": {"prompt_tokens": 20}}
    answers = {"/v1/chat/completions": (200, msgspec.json.encode(reply)), "/version": (404, b""), "/props": (404, b"")}
    answering(monkeypatch, answers | {"/apply-template": (404, b"")})

    async def scenario() -> None:
        async with MockUpstream() as mock, running(settings_for("streaming", mock.url)) as gateway:
            assert (await gateway.service.probing.find(headers=[])).chat == chat

    asyncio.run(scenario())


@pytest.mark.parametrize("bad", [(503, b"busy"), (429, b"{}"), (200, b"<html>")])
@pytest.mark.parametrize(
    ("engine", "path"), [("llama.cpp", "/apply-template"), ("vllm", "/tokenize"), ("vllm", "/detokenize")]
)
def test_one_bad_answer_to_a_side_question_is_not_final(
    engine: Any, path: str, bad: tuple[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {path: bad}, times=1)

    async def scenario() -> None:
        async with MockUpstream(engine=engine) as mock, Upstream(settings_for("off", mock.url)) as upstream:
            first = await probe(upstream, headers=[])
            assert (first.chat is not None, first.conclusive) == (True, False)
            assert (await probe(upstream, headers=[])).conclusive

    asyncio.run(scenario())
