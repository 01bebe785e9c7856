"""A gated client of the `openai` library against the mock upstream."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

import justenough
from justenough.calibration.calibration import Calibration
from justenough.errors import InputError, MissingExtra, SignalMismatch
from justenough.gateway.settings import GatewaySettings
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.serving import calibration_of, running
from tests.unit.test_how_to import FOLDER, blocks

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is 6*7?"}]
THOUGHT = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
SURE_AT_STEP_2 = (UNSURE, UNSURE, UNSURE, CONFIDENT)
ANSWERED = "<think>Let me think.\n\nSo it is 42.\n\n\n</think>\n\nThe answer is 42."
CALIBRATION = calibration_of(1.0)


def thinking(**options: Any) -> MockUpstream:
    return MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2, **options)


def asynchronous(
    scenario: Callable[[openai.AsyncOpenAI, MockUpstream], Coroutine[None, None, None]],
    mock: MockUpstream | None = None,
) -> None:
    async def main() -> None:
        async with mock or thinking() as upstream:
            client = openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="secret", max_retries=0)
            async with justenough.gated(client, CALIBRATION) as gated:
                await scenario(gated, upstream)

    asyncio.run(main())


def synchronous(scenario: Callable[[openai.OpenAI, MockUpstream], None], mock: MockUpstream | None = None) -> None:
    async def main() -> None:
        async with mock or thinking() as upstream:
            client = openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="secret", max_retries=0)
            with justenough.gated(client, CALIBRATION) as gated:
                await asyncio.to_thread(scenario, gated, upstream)

    asyncio.run(main())


def test_a_synchronous_client_gets_the_answer_after_the_cut_and_the_report() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        reply = client.chat.completions.create(model="mock", messages=MESSAGES)
        assert reply.choices[0].message.content == ANSWERED
        assert reply.model_extra is not None
        report = reply.model_extra["justenough"]
        assert (report["decision"], report["step"], report["tokens"]) == ("stopped", 2, 9)
        # The probe too waits for the key of the first request.
        assert {request.headers.get("authorization") for request in mock.requests} == {"Bearer secret"}
        # Five tokens of the thought and four of the answer; the upstream would wait for ever with the sixth token.
        assert mock.cancelled == 1

    synchronous(scenario, thinking(fault=Fault.STALL_IN_STREAM, fault_at=5))


def test_the_report_is_in_the_chunk_with_the_finish_reason() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        chunks = list(client.chat.completions.create(model="mock", messages=MESSAGES, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWERED
        assert (chunks[-1].model_extra or {})["justenough"]["decision"] == "stopped"
        *_, last, usage = client.chat.completions.create(
            model="mock", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        assert (last.choices[0].finish_reason, (last.model_extra or {})["justenough"]["tokens"]) == ("stop", 9)
        assert (usage.choices, usage.usage and usage.usage.completion_tokens) == ([], 9)
        with client.chat.completions.stream(model="mock", messages=MESSAGES) as events:
            ended = [event.chunk for event in events if event.type == "chunk" and event.chunk.choices[0].finish_reason]
        assert [(chunk.model_extra or {})["justenough"]["decision"] for chunk in ended] == ["stopped"]
        text = client.completions.create(model="mock", prompt="What is 6*7?")
        assert (text.model_extra or {})["justenough"]["decision"] == "stopped"

    synchronous(scenario)


@pytest.mark.parametrize("stream", [False, True])
def test_the_replies_equal_those_of_a_client_of_the_gateway(stream: bool) -> None:
    async def replies(client: openai.AsyncOpenAI) -> list[dict[str, object]]:
        text: Any = await client.completions.create(model="mock", prompt="What is 6*7?", stream=stream)
        chat: Any = await client.chat.completions.create(model="mock", messages=MESSAGES, stream=stream)
        if stream:
            return [chunk.to_dict() async for chunk in text] + [chunk.to_dict() async for chunk in chat]
        return [text.to_dict(), chat.to_dict()]

    async def main() -> None:
        async with thinking() as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=CALIBRATION, audit_share=0.0)
            async with (
                running(settings) as gateway,
                openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as plain,
                justenough.gated(openai.AsyncOpenAI(base_url=mock.url, api_key="k"), CALIBRATION) as gated,
            ):
                assert await replies(gated) == await replies(plain)

    asyncio.run(main())


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    replace(CALIBRATION, model="Qwen/Qwen3-8B").save("calibration.json")

    async def main() -> None:
        async with thinking(model="Qwen/Qwen3-8B") as mock:
            known = {"justenough": justenough, "openai": openai, "messages": MESSAGES}
            for example in blocks(FOLDER / "openai-client.md", "python"):
                await asyncio.to_thread(exec, example.replace("http://localhost:8000", mock.url), known)
            reply: Any = known["reply"]
            assert (reply.choices[0].message.content, reply.justenough["decision"]) == (ANSWERED, "stopped")
            await asyncio.to_thread(cast("openai.OpenAI", known["client"]).close)

    asyncio.run(main())
    assert capsys.readouterr().out == "relayed; reason=model\n"


def test_leaving_a_stream_stops_an_upstream_that_is_silent() -> None:
    async def scenario(client: openai.AsyncOpenAI, mock: MockUpstream) -> None:
        stream = await client.chat.completions.create(model="mock", messages=MESSAGES, stream=True)
        await anext(aiter(stream))
        assert (mock.under_way, mock.cancelled) == (1, 0)
        await stream.close()
        while mock.under_way:
            await asyncio.sleep(0.001)
        assert mock.cancelled == 1

    asynchronous(scenario, thinking(fault=Fault.STALL_IN_STREAM, fault_at=2))


def test_leaving_a_synchronous_stream_stops_an_upstream_that_is_silent() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        stream = client.chat.completions.create(model="mock", messages=MESSAGES, stream=True)
        next(iter(stream))
        assert (mock.under_way, mock.cancelled) == (1, 0)
        stream.close()
        while mock.under_way:
            time.sleep(0.001)
        assert mock.cancelled == 1

    synchronous(scenario, thinking(fault=Fault.STALL_IN_STREAM, fault_at=2))


def test_responses_are_gated_too() -> None:
    async def scenario(client: openai.AsyncOpenAI, mock: MockUpstream) -> None:
        reply = await client.responses.create(model="mock", input="What is 6*7?")
        assert reply.output_text == ANSWERED
        assert (reply.model_extra or {})["justenough"]["decision"] == "stopped"
        events = [event async for event in await client.responses.create(model="mock", input="x", stream=True)]
        assert events[-1].type == "response.completed"
        assert (events[-1].response.model_extra or {})["justenough"]["decision"] == "stopped"

    asynchronous(scenario)


def test_what_is_no_completion_is_sent_as_it_is() -> None:
    async def scenario(client: openai.AsyncOpenAI, mock: MockUpstream) -> None:
        at_root = client.with_options(base_url=mock.url)
        echo: Any = await at_root.post("/echo", body={"input": ["a"]}, cast_to=object, options={"params": {"q": "1"}})
        assert echo["target"] == "/echo?q=1"
        assert echo["body"] == '{"input":["a"]}'
        assert echo["headers"]["authorization"] == "Bearer secret"
        assert (await client.models.list()).data[0].id == "mock"
        assert [request.target for request in mock.requests] == ["/echo?q=1", "/v1/models"]

    asynchronous(scenario)


def test_a_request_to_another_address_is_sent_as_it_is() -> None:
    async def scenario(client: openai.AsyncOpenAI, mock: MockUpstream) -> None:
        async with thinking() as other:
            there = client.with_options(base_url=f"{other.url}/v1")
            reply = await there.chat.completions.create(model="mock", messages=MESSAGES)
            assert reply.model_extra == {}
            assert (len(mock.requests), len(other.requests)) == (0, 1)

    asynchronous(scenario)


def test_another_model_is_relayed_and_its_header_tells_why() -> None:
    async def scenario(client: openai.AsyncOpenAI, mock: MockUpstream) -> None:
        raw = await client.chat.completions.with_raw_response.create(model="other", messages=MESSAGES)
        assert raw.headers["x-justenough"] == "relayed; reason=model"
        assert raw.parse().model_extra == {}

    asynchronous(scenario)


def test_the_status_of_a_refusal_is_the_upstreams_own() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        with pytest.raises(openai.AuthenticationError, match="Invalid API Key"):
            client.chat.completions.create(model="mock", messages=MESSAGES)

    synchronous(scenario, thinking(key="another"))


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_the_errors_are_those_of_the_users_http_client_and_are_tried_again(http: Any) -> None:
    sent: list[str] = []

    def refuse(request: Any) -> Any:
        sent.append(request.url.path)
        assert request.extensions["timeout"]["read"] == 7.0
        raise http.ConnectError("no route", request=request)

    own = http.Client(transport=http.MockTransport(refuse))
    client = openai.OpenAI(base_url="http://model.invalid/v1", api_key="k", http_client=own, max_retries=1, timeout=7.0)
    with justenough.gated(client, CALIBRATION) as gated, pytest.raises(openai.APIConnectionError) as caught:
        gated.chat.completions.create(model="mock", messages=MESSAGES, extra_headers={"x-retry": "1"})
    assert isinstance(caught.value.__cause__, http.ConnectError)
    assert len(sent) >= 2
    assert own.is_closed


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_the_users_http_client_sends_with_its_headers_and_hooks(http: Any) -> None:
    seen: list[Any] = []

    async def main() -> None:
        async with thinking() as mock:
            headers = http.Headers({"x-team": "grün"}, encoding="utf-8")
            own = http.AsyncClient(headers=headers, event_hooks={"request": [hook]}, timeout=5.0)
            client = openai.AsyncOpenAI(
                base_url=mock.url, api_key="k", http_client=own, default_headers={"x-own": "1"}, timeout=30.0
            )
            async with justenough.gated(client, CALIBRATION) as gated:
                reply = await gated.chat.completions.create(model="mock", messages=MESSAGES, timeout=9.0)
                assert (reply.model_extra or {})["justenough"]["decision"] == "stopped"
                last = mock.completions[-1].headers
                assert (last["x-team"].encode("latin-1").decode(), last["x-own"]) == ("grün", "1")

    async def hook(request: Any) -> None:
        seen.append(request.extensions["timeout"]["read"])

    asyncio.run(main())
    assert set(seen) == {9.0}


def test_streams_of_several_threads_run_at_the_same_time() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        streams = [client.chat.completions.create(model="mock", messages=MESSAGES, stream=True) for _ in range(12)]
        assert {stream.response.headers["x-justenough"] for stream in streams} == {"gating; threshold=1"}
        for stream in reversed(streams):
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ANSWERED

    synchronous(scenario)


def test_closing_the_client_ends_its_thread() -> None:
    def scenario(client: openai.OpenAI, mock: MockUpstream) -> None:
        client.chat.completions.create(model="mock", messages=MESSAGES)
        assert "justenough" in {thread.name for thread in threading.enumerate()}
        client.close()
        assert client.is_closed()
        assert "justenough" not in {thread.name for thread in threading.enumerate()}

    synchronous(scenario)


def test_a_client_may_be_used_in_one_loop_after_another() -> None:
    async def main() -> None:
        async with thinking() as mock:
            # The connections of a loop that has ended are useless, whether the client is gated or not.
            own = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
            client = openai.AsyncOpenAI(base_url=f"{mock.url}/v1", api_key="k", http_client=own)
            gated = justenough.gated(client, CALIBRATION)

            async def ask() -> str | None:
                return (await gated.chat.completions.create(model="mock", messages=MESSAGES)).choices[0].message.content

            for _ in range(2):
                assert await asyncio.to_thread(asyncio.run, ask()) == ANSWERED
            await gated.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (calibration_of(1.0), None),
        (calibration_of(1.0, shape="sequential", splitter="completion"), "so it can only add tokens"),
        (calibration_of(None), "never stops: it has no threshold"),
    ],
    ids=["streaming", "sequential", "without a threshold"],
)
def test_a_gate_that_cannot_save_anything_is_a_warning(
    calibration: Calibration, words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), justenough.gated(openai.OpenAI(api_key="k"), calibration):
        pass
    assert len(caplog.messages) == (words is not None)
    assert words is None or words in caplog.messages[0]


def test_something_else_cannot_be_gated() -> None:
    with pytest.raises(InputError, match="str cannot be gated"):
        justenough.gated("http://127.0.0.1", CALIBRATION)  # type: ignore[type-var]
    with pytest.raises(InputError, match=r"'c\.json' is no calibration"):
        justenough.gated(openai.OpenAI(api_key="k"), "c.json")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"models is 'other' \(models=\('other',\)\)"):
        justenough.gated(openai.OpenAI(api_key="k"), CALIBRATION, models="other")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"default_temperature": float("nan")}, "the default temperature is nan"),
        ({"default_temperature": float("inf")}, "the default temperature is inf"),
        ({"default_temperature": -0.5}, "the default temperature is -0.5"),
        ({"thought": "think"}, r"'think' is no format of a thought \(justenough.ThoughtFormat"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        justenough.gated(openai.OpenAI(api_key="k"), CALIBRATION, **options)


def test_entropies_of_the_whole_vocabulary_cannot_be_measured_through_a_server() -> None:
    full = replace(CALIBRATION, signal=replace(CALIBRATION.signal, top_k=None, tail="full"))
    with pytest.raises(SignalMismatch, match=r"the whole vocabulary.*calibrate on traces of this server"):
        justenough.gated(openai.OpenAI(api_key="k"), full)
    decides = GatewaySettings(upstream="http://127.0.0.1:8000", calibration=full, upstream_decides=True)
    assert decides.gate.signal.tail == "full"


@pytest.mark.parametrize("name", ["openai", "aiohttp"])
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"justenough\[openai\]"):
        justenough.gated(openai.OpenAI(api_key="k"), CALIBRATION)
