"""The fault matrix: every way an upstream can fail ends in a clear error, a closed stream, and nothing left over."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.gateway.capability import Capabilities
from justenough.gateway.mock import CONFIDENT, UNSURE, Fault, MockUpstream
from justenough.gateway.settings import GatewaySettings, Limits, Mode
from tests.unit.gateway.serving import Running, calibration_of, running

CHAT: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}
THOUGHT = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")

BEFORE = {
    Fault.RESET_BEFORE_HEADERS: (502, "upstream_broken"),
    Fault.RESET_IN_HEADERS: (502, "upstream_broken"),
    Fault.STALL_BEFORE_HEADERS: (504, "upstream_timeout"),
}
"""Faults before any answer: status and code."""
PASSED = {Fault.TOO_MANY_REQUESTS: 429, Fault.SERVER_ERROR: 500, Fault.REDIRECT: 307}
"""Answers that are the upstream's own and pass as they are."""
WITHIN = {
    Fault.RESET_AFTER_HEADERS: "upstream_broken",
    Fault.RESET_IN_STREAM: "upstream_broken",
    Fault.END_IN_STREAM: "upstream_broken",
    Fault.STALL_IN_STREAM: "upstream_timeout",
    Fault.HALF_CHUNK: "upstream_broken",
    Fault.INVALID_JSON: "upstream_malformed",
    Fault.NOT_A_CHUNK: "upstream_malformed",
    Fault.ERROR_EVENT: 500,
}
"""Faults within a stream that is gated: our code, or the upstream's own."""


async def served(
    fault: Fault, *, mode: Mode, stream: bool, **mocked: Any
) -> tuple[httpx.Response, MockUpstream, Running]:
    async with MockUpstream(thought=THOUGHT, logprobs=(UNSURE,), fault=fault) as mock:
        for key, value in mocked.items():
            setattr(mock, key, value)
        settings = GatewaySettings(
            upstream=mock.url,
            calibration=calibration_of(1.0),
            mode=mode,
            audit_share=0.0,
            close="</think>",
            limits=Limits(idle_timeout_s=0.2),
        )
        async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            await settled(gateway)
        return answer, mock, gateway


async def settled(gateway: Running) -> None:
    """Nothing is left under way; fails by the timeout."""
    async with asyncio.timeout(2):
        while gateway.service.active or gateway.service.upstream.open_requests:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("mode", ["off", "gate"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", BEFORE)
def test_a_failure_before_the_answer_is_an_error_of_ours(fault: Fault, stream: bool, mode: Mode) -> None:
    answer, _, _ = asyncio.run(served(fault, mode=mode, stream=stream))
    status, code = BEFORE[fault]
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("upstream_error", code)


@pytest.mark.parametrize("mode", ["off", "gate"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", PASSED)
def test_the_upstreams_own_errors_pass_with_status_headers_and_body(fault: Fault, stream: bool, mode: Mode) -> None:
    answer, mock, _ = asyncio.run(served(fault, mode=mode, stream=stream))
    assert answer.status_code == PASSED[fault]
    assert len(mock.completions) == 1
    if fault is Fault.TOO_MANY_REQUESTS:
        assert answer.headers["retry-after"] == "7"
        assert answer.json() == {"error": {"message": "slow down", "type": "rate_limit"}}
    if fault is Fault.REDIRECT:
        assert answer.headers["location"] == "http://127.0.0.1:1/v1/chat/completions"


@pytest.mark.parametrize("fault", WITHIN)
def test_a_failure_within_a_gated_stream_ends_it_with_an_error_event(fault: Fault) -> None:
    answer, _, _ = asyncio.run(served(fault, mode="gate", stream=True))
    assert answer.status_code == 200
    last = [line for line in answer.text.split("\n\n") if line.strip()][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == WITHIN[fault]
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize("fault", WITHIN)
def test_a_failure_within_is_a_whole_error_for_a_client_that_does_not_stream(fault: Fault) -> None:
    answer, _, _ = asyncio.run(served(fault, mode="gate", stream=False))
    assert answer.status_code in (502, 504)
    assert answer.json()["error"]["code"] == WITHIN[fault]


@pytest.mark.parametrize("fault", [Fault.RESET_IN_STREAM, Fault.HALF_CHUNK, Fault.STALL_IN_STREAM])
def test_a_relayed_stream_that_breaks_ends_with_an_error_event_too(fault: Fault) -> None:
    answer, _, _ = asyncio.run(served(fault, mode="off", stream=True))
    assert '"code":"upstream_' in answer.text.rstrip().rsplit("\n\n", 1)[1]


def test_an_upstream_that_is_not_there_is_502_and_not_ready() -> None:
    async def scenario() -> None:
        async with MockUpstream() as mock:
            url = mock.url
        async with running(GatewaySettings(upstream=url)) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200

    asyncio.run(scenario())


def test_an_upstream_that_comes_later_is_probed_then() -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)) as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
            early = replace(settings, upstream="http://127.0.0.1:1")
            async with running(early) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                assert gateway.service.capabilities is None
                gateway.service.upstream._settings = settings
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


def test_an_answer_that_is_no_stream_passes_as_it_is() -> None:
    answer, _, _ = asyncio.run(served(Fault.WRONG_CONTENT_TYPE, mode="gate", stream=True))
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["x-justenough"] == "relayed; reason=not_streamed"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_ten_megabytes_in_one_chunk_pass_and_more_than_the_limit_do_not() -> None:
    answer, _, _ = asyncio.run(served(Fault.HUGE_CHUNK, mode="gate", stream=True))
    assert len(answer.text) > 10 * 1024 * 1024
    assert answer.text.endswith("data: [DONE]\n\n")


def test_invalid_utf8_is_replaced_and_the_stream_goes_on() -> None:
    answer, _, _ = asyncio.run(served(Fault.INVALID_UTF8, mode="gate", stream=True))
    assert "\ufffd\ufffd" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("fault", [Fault.CONTINUATION_FAILS, Fault.CONTINUATION_BREAKS])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_cannot_be_elicited_is_an_error_not_a_short_answer(fault: Fault, stream: bool) -> None:
    answer, _, _ = asyncio.run(served(fault, mode="gate", stream=stream, logprobs=(CONFIDENT,)))
    code = "continuation_failed" if fault is Fault.CONTINUATION_FAILS else "upstream_broken"
    if stream:
        assert f'"code":"{code}"' in answer.text.rstrip().rsplit("\n\n", 1)[1]
        assert "[DONE]" not in answer.text
        assert '"finish_reason":"stop"' not in answer.text
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, code)


@pytest.mark.parametrize("mode", ["off", "gate"])
def test_a_client_that_leaves_an_endless_stream_ends_it(mode: Mode) -> None:
    async def scenario() -> None:
        async with MockUpstream(fault=Fault.ENDLESS, logprobs=(UNSURE,), interval_s=0.002) as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), mode=mode, audit_share=0.0)
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
                    async for _ in answer.aiter_bytes():
                        if mock.generated > 20:
                            break
                async with asyncio.timeout(1):
                    while not mock.cancelled:
                        await asyncio.sleep(0.005)
                await settled(gateway)

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [Fault.STALL_BEFORE_HEADERS, Fault.STALL_IN_STREAM])
def test_a_client_that_leaves_a_stalled_upstream_frees_everything(fault: Fault) -> None:
    async def scenario() -> None:
        async with MockUpstream(fault=fault, logprobs=(UNSURE,)) as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=0.2) as client:
                with pytest.raises(httpx.TimeoutException):
                    await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
                await settled(gateway)
                async with asyncio.timeout(1):
                    while mock.connections:
                        await asyncio.sleep(0.005)

    asyncio.run(scenario())


def test_client_and_upstream_that_break_at_once_leave_nothing_behind() -> None:
    async def scenario() -> None:
        async with MockUpstream(fault=Fault.RESET_IN_STREAM, fault_at=3, interval_s=0.01, logprobs=(UNSURE,)) as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
            async with running(settings) as gateway:
                before = len(asyncio.all_tasks())
                for delay in range(20):
                    async with httpx.AsyncClient(base_url=gateway.url, timeout=0.025 + delay / 1000) as client:
                        with suppress(httpx.TimeoutException):
                            await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
                await settled(gateway)
                async with asyncio.timeout(2):
                    while len(asyncio.all_tasks()) > before or mock.connections:
                        await asyncio.sleep(0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_an_answer_that_does_not_end_is_not_held_without_end(shape: Any) -> None:
    async def scenario() -> None:
        async with MockUpstream(fault=Fault.ENDLESS, logprobs=(UNSURE,)) as mock:
            calibration = calibration_of(
                0.1, shape=shape, splitter="paragraph" if shape == "streaming" else "completion"
            )
            settings = GatewaySettings(
                upstream=mock.url, calibration=calibration, audit_share=0.0, limits=Limits(max_answer_bytes=100_000)
            )
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_malformed")
                await settled(gateway)
                async with asyncio.timeout(1):
                    while not mock.cancelled:
                        await asyncio.sleep(0.005)

    asyncio.run(scenario())


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
@pytest.mark.parametrize("endless", [False, True])
def test_an_error_passes_with_its_headers_however_long_it_is(shape: Any, endless: bool) -> None:
    said = b'{"error":{"message":"no such model"}}'
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nX-Request-Id: 7\r\n"

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            size = b"" if endless else b"Content-Length: %d\r\n" % len(said)
            writer.write(head + size + b"Connection: close\r\n\r\n" + said)
            while endless:
                writer.write(b" " * 65536)
                await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(answered, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        calibration = calibration_of(0.1, shape=shape, splitter="paragraph" if shape == "streaming" else "completion")
        settings = GatewaySettings(upstream=url, calibration=calibration, default_temperature=1.0, audit_share=0.0)
        probed = Capabilities(engine="unknown", models=("mock",), chat="continue_final_message")
        async with running(replace(settings, mode="off")) as gateway:
            gateway.service.settings, gateway.service.capabilities = settings, probed
            async with (
                httpx.AsyncClient(base_url=gateway.url) as client,
                client.stream("POST", "/v1/chat/completions", json=CHAT) as answer,
            ):
                assert (answer.status_code, answer.headers["x-request-id"]) == (400, "7")
                assert answer.headers["x-justenough"] == "relayed; reason=error"
                async for data in answer.aiter_bytes():
                    assert data.startswith(said)
                    break
            await settled(gateway)
        server.close()

    asyncio.run(scenario())
