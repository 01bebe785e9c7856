"""The gateway before llama.cpp's own server: nothing lost in off mode, and a stop that its own counters see."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from justenough.gate import Gate, GateSettings
from justenough.gateway.settings import BudgetSettings, Limits
from justenough.wire.events import DONE, EventReader
from justenough.wire.lenient import read_chunk
from justenough.wire.logprobs import tokens_of
from tests import answers
from tests.e2e.gateway.through import ANYTHING, CHAT, MODEL, TEXT, payloads, through
from tests.llama_server import busy_slots, counter
from tests.unit.gateway.serving import Running, calibration_of


def steady(value: Any) -> Any:
    """What two answers to the same question have in common, whatever the server still knew of the prompt."""
    known = {"prompt_tokens_details": dict, "input_tokens_details": dict}
    return answers.steady(value, {**answers.CHANGING, "created_at": int, "completed_at": int, **known})


REQUESTS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "chat": ("POST", "/v1/chat/completions", CHAT),
    "chat-stream": (
        "POST",
        "/v1/chat/completions",
        {**CHAT, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "chat-logprobs": ("POST", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 3}),
    "chat-n": ("POST", "/v1/chat/completions", {**CHAT, "n": 2}),
    "chat-wrong": ("POST", "/v1/chat/completions", {"messages": 3}),
    "completion": ("POST", "/v1/completions", TEXT),
    "completion-stream": ("POST", "/v1/completions", {**TEXT, "stream": True}),
    "responses": ("POST", "/v1/responses", {"model": MODEL, "input": "47*36", "seed": 1}),
    "messages": ("POST", "/v1/messages", {"model": MODEL, "messages": CHAT["messages"], "max_tokens": 9, "top_k": 1}),
    "models": ("GET", "/v1/models", None),
    "tokenize": ("POST", "/tokenize", {"content": "47*36"}),
    "nothing": ("GET", "/v1/nothing?x=1", None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_off_mode_answers_what_the_server_answers(llama_server: str, name: str) -> None:
    method, path, body = REQUESTS[name]

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=llama_server, timeout=120) as straight:
            direct = await straight.request(method, path, json=body)
        answer = await client.request(method, path, json=body)
        assert answer.status_code == direct.status_code
        ours = ("x-justenough", "transfer-encoding", "content-length", "keep-alive", "connection")
        assert {k: v for k, v in answer.headers.items() if k not in ours} == {
            k: v for k, v in direct.headers.items() if k not in ours
        }
        if "event-stream" in direct.headers["content-type"]:
            assert steady(payloads(answer.text)) == steady(payloads(direct.text))
        else:
            assert steady(answer.json()) == steady(direct.json())

    through(llama_server, scenario, mode="off")


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_that_is_not_stopped_is_answered_as_without_us(llama_server: str, stream: bool) -> None:
    """Log-probabilities are asked for and taken out again; nothing else may differ."""

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        body = {**CHAT, "stream": stream}
        async with httpx.AsyncClient(base_url=llama_server, timeout=120) as straight:
            direct = await straight.post("/v1/chat/completions", json=body)
        answer = await client.post("/v1/chat/completions", json=body)
        if stream:
            chunks = payloads(answer.text)
            assert chunks[-1].pop("justenough")["decision"] == "finished"
            assert steady(chunks) == steady(payloads(direct.text))
        else:
            whole = answer.json()
            assert whole.pop("justenough")["decision"] == "finished"
            assert steady(whole) == steady(direct.json())

    through(llama_server, scenario, threshold=0.0)


OTHERS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": MODEL, "input": "47*36", "max_output_tokens": 300, "temperature": 0.8, "seed": 1},
    "/v1/messages": {"model": MODEL, "messages": CHAT["messages"], "max_tokens": 300, "temperature": 0.8, "top_k": 1},
}


@pytest.mark.parametrize("path", OTHERS)
def test_other_apis_are_cut_or_answered_as_without_us(llama_server: str, path: str) -> None:
    """llama.cpp makes a chat of these requests itself, so both chats must have the same answer."""
    body = OTHERS[path]

    def texts(answer: httpx.Response) -> tuple[str, str | None, int]:
        whole = answer.json()
        content = whole["content"] if path == "/v1/messages" else whole["output"][0]["content"]
        return content[0]["text"], whole.get("stop_reason", whole.get("status")), whole["usage"]["output_tokens"]

    def streamed(answer: httpx.Response) -> str:
        lines = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        deltas = [line["delta"] for line in lines if "delta" in line]
        return "".join([delta if isinstance(delta, str) else delta.get("text", "") for delta in deltas])

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=llama_server, timeout=120) as straight:
            direct = texts(await straight.post(path, json=body))
            events = streamed(await straight.post(path, json={**body, "stream": True}))
        uncut = {**body, "justenough": {"threshold": 0}}
        assert texts(await client.post(path, json=uncut)) == direct
        assert streamed(await client.post(path, json={**uncut, "stream": True})) == events == direct[0]
        answer = await client.post(path, json=body)
        assert answer.json()["justenough"]["decision"] == "stopped"
        text, reason, tokens = texts(answer)
        assert re.fullmatch(r"<think>\S+\n\n</think>Answer: \d+", text)
        assert (reason, tokens < direct[2]) == (direct[1], True)
        cut = await client.post(path, json={**body, "stream": True})
        assert streamed(cut) == text

    through(llama_server, scenario)


def test_the_same_tokens_give_the_same_decision_as_anywhere_else(llama_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=llama_server, timeout=120) as straight:
            asked = {**CHAT, "stream": True, "logprobs": True, "top_logprobs": 20}
            direct = await straight.post("/v1/chat/completions", json=asked)
        gate = Gate(GateSettings.of(calibration_of(ANYTHING, model=MODEL)))
        tokens = [
            token
            for payload in EventReader().feed(direct.content)
            if payload != DONE
            for choice in read_chunk(payload).choices or ()
            for token in tokens_of(choice.logprobs)
        ]
        expected = next(decision for token in tokens if (decision := gate.feed(token)).ends)
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert report["entropy"] == expected.entropy
        assert (report["step"], report["thought_tokens"]) == (expected.step, expected.tokens)

    through(llama_server, scenario)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stopped_thought_is_answered(llama_server: str, path: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        whole = (await client.post(path, json=CHAT if "chat" in path else TEXT)).json()
        choice = whole["choices"][0]
        text = choice["message"]["content"] if "chat" in path else choice["text"]
        thought, _, answer = text.partition("</think>")
        assert thought.startswith("<think>47*36")
        assert thought.endswith("\n\n")
        assert thought.count("\n\n") == 1
        assert answer.startswith("Answer: ")
        assert "<think>" not in answer
        assert choice["finish_reason"] == "stop"
        report, usage = whole["justenough"], whole["usage"]
        assert report["decision"] == "stopped"
        # llama.cpp counts the prompt as 8 tokens; the gateway learns that before the cut.
        assert usage["prompt_tokens"] == 8
        assert usage["completion_tokens"] == report["tokens"] == report["thought_tokens"] + report["probe_tokens"]
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["upstream"]["engine"], status["upstream"]["continues_by"]) == ("llama.cpp", "prefill")

    through(llama_server, scenario)


def endless_request(server: str, **more: Any) -> dict[str, Any]:
    """A thought that never closes and has no space in it; an answer to the cue `Answer:` ends with its first one."""

    def token(text: str) -> int:
        (found,) = httpx.post(f"{server}/tokenize", json={"content": text, "parse_special": True}).json()["tokens"]
        return int(found)

    barred = [[token(text), -100] for text in ("</think>", "Answer")]
    asked = {"model": "endless", "messages": [{"role": "user", "content": "47*36"}], "seed": 1, "stop": [" "]}
    return {**asked, "logit_bias": barred, "stream": True, **more}


async def idle(server: str) -> None:
    async with asyncio.timeout(30):
        while await asyncio.to_thread(busy_slots, server):
            await asyncio.sleep(0.01)


def test_a_stop_really_stops_the_generation(
    endless_server: str, record_property: Callable[[str, object], None]
) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        body = endless_request(endless_server, max_tokens=8000)
        before = counter(endless_server, "tokens_predicted_total")
        answer = await client.post("/v1/chat/completions", json=body)
        await idle(endless_server)
        generated = counter(endless_server, "tokens_predicted_total") - before
        report = payloads(answer.text)[-1]["justenough"]
        assert report["decision"] == "stopped"
        assert report["probe_tokens"] == 1
        overshoot = generated - report["tokens"]
        record_property("overshoot_tokens", overshoot)
        # Uncut it is 8000 tokens; what the server still made while the news travelled is a small part.
        assert 0 <= overshoot < 2000
        assert report["tokens"] < 200

    through(endless_server, scenario, model="endless", answer_cue="Answer:")


def test_the_same_request_uncut_runs_to_its_limit(endless_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        before = counter(endless_server, "tokens_predicted_total")
        body = endless_request(endless_server, max_tokens=2000)
        answer = await client.post("/v1/chat/completions", json={**body, "justenough": {"mode": "observe"}})
        report = payloads(answer.text)[-1]["justenough"]
        assert counter(endless_server, "tokens_predicted_total") - before == 2000 == report["tokens"]
        assert report["would_stop_at"] < 200

    through(endless_server, scenario, model="endless", answer_cue="Answer:")


@pytest.mark.parametrize("more", [{"n_predict": 200}, {"max_completion_tokens": 200}, {"n": 2}, {"n_cmpl": 2}])
def test_no_member_of_a_chat_leads_around_the_limit_of_a_response(endless_server: str, more: dict[str, int]) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        before = counter(endless_server, "tokens_predicted_total")
        body = {"model": "endless", "input": "47*36", "max_output_tokens": 30, **more}
        assert (await client.post("/v1/responses", json=body)).status_code == 200
        await idle(endless_server)
        assert counter(endless_server, "tokens_predicted_total") - before == 20

    through(endless_server, scenario, model="endless", limits=Limits(max_request_tokens=20))


@pytest.mark.parametrize("mode", ["off", "gate"])
def test_a_client_that_leaves_frees_the_servers_slot(endless_server: str, mode: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        body = endless_request(endless_server, max_tokens=16_000)
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            received = answer.aiter_bytes()
            await anext(received)
            assert await asyncio.to_thread(busy_slots, endless_server) == 1
        await idle(endless_server)

    through(endless_server, scenario, model="endless", mode=mode, threshold=0.0)


def test_openai_clients_see_no_difference_in_off_mode(llama_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        streamed: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

        def sync(url: str) -> list[Any]:
            with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as asked:
                chats = asked.chat.completions
                raw = chats.with_raw_response.create(**CHAT)
                with chats.with_streaming_response.create(**CHAT) as received:
                    body = json.loads("".join(received.iter_text()))
                with chats.stream(**CHAT) as events:
                    gathered = [event.to_dict() for event in events]
                chunks = [chunk.to_dict() for chunk in chats.create(**CHAT, **streamed)]
                whole, text, models = chats.create(**CHAT), asked.completions.create(**TEXT), asked.models.list()
                wholes = [each.to_dict() for each in (whole, raw.parse(), text, models)]
                return [raw.http_response.status_code, body, gathered, chunks, wholes]

        async def asynchronous(url: str) -> list[Any]:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as asked:
                chats = asked.chat.completions
                raw = await chats.with_raw_response.create(**CHAT)
                async with chats.with_streaming_response.create(**CHAT) as received:
                    body = json.loads("".join([piece async for piece in received.iter_text()]))
                async with chats.stream(**CHAT) as events:
                    gathered = [event.to_dict() async for event in events]
                chunks = [chunk.to_dict() async for chunk in await chats.create(**CHAT, **streamed)]
                whole, text = await chats.create(**CHAT), await asked.completions.create(**TEXT)
                models = await asked.models.list()
                wholes = [each.to_dict() for each in (whole, raw.parse(), text, models)]
                return [raw.http_response.status_code, body, gathered, chunks, wholes]

        direct, ours = await asyncio.to_thread(sync, llama_server), await asyncio.to_thread(sync, gateway.url)
        assert steady(ours) == steady(direct)
        assert steady(await asynchronous(gateway.url)) == steady(await asynchronous(llama_server)) == steady(direct)
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as asked:
            wrong: Any = 3
            with pytest.raises(openai.BadRequestError, match="array"):
                await asked.chat.completions.create(model=MODEL, messages=wrong)

    through(llama_server, scenario, mode="off")


def test_openai_clients_read_a_stopped_thought(llama_server: str) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as asked:
            raw = await asked.chat.completions.with_raw_response.create(**CHAT)
            whole = raw.parse()
            assert raw.headers["x-justenough"].startswith("stopped; reason=confident; step=1")
            assert whole.choices[0].finish_reason == "stop"
            assert whole.usage is not None
            details = whole.usage.completion_tokens_details
            assert details is not None
            assert 0 < (details.reasoning_tokens or 0) < whole.usage.completion_tokens
            stream = await asked.chat.completions.create(**CHAT, stream=True)
            chunks = [chunk async for chunk in stream]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert text == whole.choices[0].message.content
            assert (chunks[-1].model_extra or {})["justenough"]["decision"] == "stopped"

    through(llama_server, scenario)


def test_a_step_right_after_a_stream_does_not_meet_its_closing_connection(llama_server: str) -> None:
    """llama.cpp ends the connection of a stream without saying so: the next step once failed on it, every time."""

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 600})).json()
        assert (whole["justenough"]["decision"], whole["justenough"]["steps"]) == ("finished", 2)

    calibration = calibration_of(0.0, model=MODEL, temperature=0.8, shape="sequential", splitter="completion")
    through(llama_server, scenario, calibration=replace(calibration, max_steps=2), extend="refine")


def test_wait_goes_on_with_the_models_own_thought(llama_server: str) -> None:
    """The second step is what the model says to its first thought and "Wait": asked directly it is the same text."""

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        report = whole["justenough"]
        assert (report["decision"], report["steps"]) == ("finished", 2)
        assert report["tokens"] == whole["usage"]["completion_tokens"]
        thought = whole["choices"][0]["message"]["reasoning_content"]
        first, wait, second = thought.partition("\n\nWait,")
        assert first.startswith("<think>47*36")
        assert wait
        assert "<think>" not in second
        said = first.partition("</think>")[0].rstrip() + wait
        async with httpx.AsyncClient(base_url=llama_server, timeout=120) as straight:
            asked = {**CHAT, "messages": [*CHAT["messages"], {"role": "assistant", "content": said}]}
            left = (
                CHAT["max_tokens"]
                - (await straight.post("/v1/chat/completions", json=CHAT)).json()["usage"]["completion_tokens"]
            )
            direct = (await straight.post("/v1/chat/completions", json={**asked, "max_tokens": left})).json()
        assert direct["choices"][0]["message"]["content"].removeprefix(said) == second

    calibration = calibration_of(0.0, model=MODEL, temperature=0.8, shape="sequential", splitter="completion")
    through(llama_server, scenario, calibration=replace(calibration, max_steps=2), extend="wait")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/completions"])
def test_what_a_budget_counts_is_what_the_server_generated(llama_server: str, path: str, stream: bool) -> None:
    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        body = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}.get(path, {"model": MODEL, "input": "47*36"})
        before = counter(llama_server, "tokens_predicted_total")
        answer = await client.post(path, json={**body, "stream": stream, "justenough": {"mode": "off"}})
        assert answer.status_code == 200
        while await asyncio.to_thread(busy_slots, llama_server):
            await asyncio.sleep(0.01)
        budget = (await client.get("/v1/justenough/status")).json()["budget"]
        spent = budget["accounts"]["all"]["spent"]
        assert spent == counter(llama_server, "tokens_predicted_total") - before > 5
        assert budget["accounts"]["all"]["reserved"] == 0

    through(llama_server, scenario, budget=BudgetSettings(tokens=10_000, per="batch"))


def test_the_overshoot_is_what_the_servers_own_counter_says(
    endless_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("justenough.gateway.upstream.overshoot.SETTLED_S", 0.2)

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async def measured() -> None:
            async with asyncio.timeout(10):
                while gateway.service.overshoot.stale:
                    await asyncio.sleep(0.02)

        await measured()
        before = counter(endless_server, "tokens_predicted_total")
        received = 0
        for seed in (1, 2, 3):
            answer = await client.post(
                "/v1/chat/completions", json=endless_request(endless_server, max_tokens=4000, seed=seed)
            )
            received += payloads(answer.text)[-1]["justenough"]["tokens"]
        await measured()
        beyond = counter(endless_server, "tokens_predicted_total") - before - received
        told = (await client.get("/v1/justenough/status")).json()["overshoot"]
        assert told["source"] == "llamacpp:tokens_predicted_total"
        assert told["stops"] == 3
        # An answer that ends by itself is received without the token that ends it.
        assert told["tokens"] == pytest.approx(beyond, abs=3)
        assert told["overshoot_tokens"] == pytest.approx(told["tokens"] / 3)

    through(endless_server, scenario, model="endless", answer_cue="Answer:", overshoot_every_s=0.05)
