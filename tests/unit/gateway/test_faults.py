"""The fault matrix: however an upstream fails, a client gets a clear end, and nothing is left over.

Every fault meets every way through the gateway, streaming and not, and, where the gate asks a second time, also the
second request. docs/explanation/gateway-faults.md has the same table.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Any, Final

import httpx
import pytest
from yarl import URL

from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings, Limits
from justenough.gateway.stream.watch import Watch
from justenough.gateway.upstream.capability import Capabilities
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.serving import calibration_of, running
from tests.unit.gateway.ways import (
    CHAT,
    GATED,
    RELAYED,
    THOUGHT,
    WAYS,
    ends_in_error,
    ends_well,
    faulty,
    settings_for,
    settled,
)
from tests.unit.gateway.wild import seen

SECRET: Final = "sk-of-a-client"
BEFORE: Final = {
    Fault.RESET_BEFORE_HEADERS: (502, "upstream_broken"),
    Fault.RESET_IN_HEADERS: (502, "upstream_broken"),
    Fault.STALL_BEFORE_HEADERS: (504, "upstream_timeout"),
}
"""Faults before any answer: status and code."""
PASSED: Final = {Fault.TOO_MANY_REQUESTS: 429, Fault.SERVER_ERROR: 500, Fault.REDIRECT: 307}
"""Answers that are the upstream's own."""
BROKEN: Final = {
    Fault.RESET_AFTER_HEADERS: "upstream_broken",
    Fault.RESET_IN_STREAM: "upstream_broken",
    Fault.HALF_CHUNK: "upstream_broken",
    Fault.STALL_IN_STREAM: "upstream_timeout",
}
"""Answers that stop coming: the code."""
MALFORMED: Final = {Fault.END_IN_STREAM: "upstream_broken", Fault.ERROR_EVENT: 500}
"""Streams that are wrong only for a reader: our code, or the upstream's own."""
FORWARDED: Final = {
    Fault.NOT_A_CHUNK: b'{"choices":[{"index":0,"delta":{"content":17}}]}',
    Fault.INVALID_JSON: b"{nothing}",
}
"""Streams with an event that cannot be read, and this event."""


def answered(way: str, fault: Fault, *, stream: bool, **mocked: Any) -> httpx.Response:
    """The gateway's answer; raises httpx.RemoteProtocolError where it breaks off."""

    async def scenario() -> httpx.Response:
        mock = MockUpstream(**{"thought": THOUGHT, "logprobs": (UNSURE,), "fault": fault, **mocked})
        async with faulty(way, mock) as (_, client):
            return await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})

    return asyncio.run(scenario())


def direct(fault: Fault, *, stream: bool) -> httpx.Response:
    """The upstream's answer without us."""

    async def scenario() -> httpx.Response:
        async with (
            MockUpstream(thought=THOUGHT, fault=fault) as mock,
            httpx.AsyncClient(base_url=mock.url, timeout=60) as client,
        ):
            return await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})

    return asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("probed", [True, False])
def test_an_upstream_that_refuses(way: str, stream: bool, probed: bool) -> None:
    async def scenario() -> None:
        # A port that nobody listens on, and that the gateway cannot get for itself.
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            mock = MockUpstream(thought=THOUGHT)
            if probed:
                await mock.__aenter__()
            url = mock.url if probed else f"http://127.0.0.1:{nobody.getsockname()[1]}"
            async with running(settings_for(way, url)) as gateway:
                if probed:
                    await mock.__aexit__()
                async with httpx.AsyncClient(base_url=gateway.url) as client:
                    answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
                    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
                    assert (await client.get("/ready")).status_code == 503
                    assert (await client.get("/health")).status_code == 200
                await settled(gateway)

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", BEFORE)
def test_no_answer_is_a_whole_error_of_ours(fault: Fault, way: str, stream: bool) -> None:
    answer = answered(way, fault, stream=stream)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["code"], error["type"]) == (*BEFORE[fault], "upstream_error")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", PASSED)
def test_the_upstreams_own_answers_pass_and_no_redirect_is_followed(fault: Fault, way: str, stream: bool) -> None:
    answer, without_us = answered(way, fault, stream=stream), direct(fault, stream=stream)
    assert (answer.status_code, answer.content) == (PASSED[fault], without_us.content)
    assert dict(without_us.headers).items() <= dict(answer.headers).items()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", BROKEN)
def test_a_stream_that_stops_coming_ends_with_an_error_event(fault: Fault, way: str) -> None:
    answer = answered(way, fault, stream=True)
    if way != "off" and fault is Fault.RESET_AFTER_HEADERS:
        # The headers wait for the first event.
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, BROKEN[fault])
    else:
        assert ends_in_error(answer) == BROKEN[fault]


@pytest.mark.parametrize("way", RELAYED)
@pytest.mark.parametrize("fault", [*BROKEN, Fault.END_IN_STREAM])
def test_an_answer_in_one_piece_that_stops_coming_breaks_off_as_it_did(fault: Fault, way: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        answered(way, fault, stream=False)


@pytest.mark.parametrize(("way", "fault"), [*product(GATED, BROKEN)])
def test_who_does_not_stream_gets_a_whole_error_and_no_short_answer(way: str, fault: Fault) -> None:
    answer = answered(way, fault, stream=False)
    code = BROKEN[fault]
    assert answer.json()["error"]["code"] == code
    assert answer.status_code == (504 if code == "upstream_timeout" else 502)


@pytest.mark.parametrize(("way", "fault"), [*product(GATED, MALFORMED)])
def test_a_stream_that_cannot_be_used_ends_with_an_error_event(way: str, fault: Fault) -> None:
    assert ends_in_error(answered(way, fault, stream=True)) == MALFORMED[fault]


@pytest.mark.parametrize("fault", [Fault.ERROR_EVENT, Fault.INVALID_JSON])
@pytest.mark.parametrize("way", GATED)
def test_without_a_stream_the_request_is_repeated_where_the_stream_cannot_be_used(way: str, fault: Fault) -> None:
    answer = answered(way, fault, stream=False)
    assert answer.content == direct(fault, stream=False).content
    assert answer.headers["x-justenough"] == "relayed; reason=refused"


@pytest.mark.parametrize("fault", FORWARDED)
@pytest.mark.parametrize("way", GATED)
def test_a_chunk_that_cannot_be_read_is_forwarded_and_the_gate_lets_go(way: str, fault: Fault) -> None:
    # The gate is sure of every token, and would stop at the end of the first step.
    sure = (CONFIDENT,) if way == "streaming" else (UNSURE,)
    answer = answered(way, fault, stream=True, fault_at=1, logprobs=sure)
    assert ends_well(answer, stream=True)
    assert "unreadable_chunk" in answer.text
    assert '"decision":"stopped"' not in answer.text
    assert FORWARDED[fault] in answer.content


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", RELAYED)
@pytest.mark.parametrize(
    "fault",
    [
        *(Fault.INVALID_UTF8, Fault.INVALID_JSON, Fault.WRONG_CONTENT_TYPE, Fault.HUGE_CHUNK),
        *(Fault.NOT_A_CHUNK, Fault.ERROR_EVENT),
    ],
)
def test_what_is_relayed_is_not_judged(fault: Fault, way: str, stream: bool) -> None:
    answer, without_us = answered(way, fault, stream=stream), direct(fault, stream=stream)
    assert answer.headers["content-type"] == without_us.headers["content-type"]
    if way == "counted" and stream and fault is Fault.WRONG_CONTENT_TYPE:
        # The usage, which only we had asked for, cannot be taken out of what is no stream.
        assert answer.content.count(b"data: ") == without_us.content.count(b"data: ") + 1
    else:
        assert answer.content == without_us.content


@pytest.mark.parametrize("way", RELAYED)
def test_a_relayed_stream_that_just_ends_does_so_for_the_client(way: str) -> None:
    assert answered(way, Fault.END_IN_STREAM, stream=True).content == direct(Fault.END_IN_STREAM, stream=True).content


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", GATED)
def test_invalid_utf8_is_replaced_and_the_answer_goes_on(way: str, stream: bool) -> None:
    answer = answered(way, Fault.INVALID_UTF8, stream=stream)
    assert "\ufffd\ufffd" in answer.text
    assert ends_well(answer, stream=stream)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", GATED)
def test_a_stream_with_another_content_type_is_read_as_a_stream(way: str, stream: bool) -> None:
    answer = answered(way, Fault.WRONG_CONTENT_TYPE, stream=stream)
    assert answer.headers["content-type"] == ("text/html" if stream else "application/json")
    assert answer.headers["x-justenough"].startswith("gating" if stream else "finished")
    assert answer.text.endswith("data: [DONE]\n\n") or answer.json()["choices"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", GATED)
def test_ten_megabytes_in_one_chunk_pass_and_more_than_the_limit_do_not(way: str, stream: bool) -> None:
    answer = answered(way, Fault.HUGE_CHUNK, stream=stream)
    assert len(answer.content) > 10 * 1024 * 1024
    assert ends_well(answer, stream=stream)

    async def bounded() -> httpx.Response:
        mock = MockUpstream(thought=THOUGHT, logprobs=(UNSURE,), fault=Fault.HUGE_CHUNK)
        async with faulty(way, mock, max_event_bytes=1024 * 1024) as (_, client):
            return await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})

    refused = asyncio.run(bounded())
    if stream:
        assert ends_in_error(refused) == "upstream_malformed"
    else:
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_malformed")


SECOND: Final = {
    **{fault: code for fault, (_, code) in BEFORE.items()},
    **dict.fromkeys(PASSED, "continuation_failed"),
    **BROKEN,
    **MALFORMED,
    **dict.fromkeys(FORWARDED, "continuation_failed"),
}
"""Faults of the request for the answer to a thought that was cut, or for a further step: the code."""


@pytest.mark.parametrize("fault", SECOND)
def test_an_answer_after_a_cut_that_fails_is_an_error_not_a_short_answer(fault: Fault) -> None:
    answer = answered("streaming", fault, stream=True, fault_from=2, fault_at=1, logprobs=(CONFIDENT,))
    assert ends_in_error(answer) == ("continuation_failed" if fault in MALFORMED else SECOND[fault])
    assert '"finish_reason":"stop"' not in answer.text.replace(" ", "")


@pytest.mark.parametrize("fault", SECOND)
def test_without_a_stream_the_request_is_repeated_where_the_answer_after_a_cut_fails(fault: Fault) -> None:
    def outcome(call: Callable[[], httpx.Response]) -> object:
        try:
            answer = call()
        except (httpx.TransportError, httpx.StreamError):
            return "broken"
        return "broken" if answer.status_code in (502, 504) else (answer.status_code, answer.content)

    stalls = fault in (Fault.STALL_BEFORE_HEADERS, Fault.STALL_IN_STREAM)
    expected = "broken" if stalls else outcome(lambda: direct(fault, stream=False))
    again: dict[str, Any] = {"fault_from": 2, "fault_at": 1, "logprobs": (CONFIDENT,)}
    assert outcome(lambda: answered("streaming", fault, stream=False, **again)) == expected


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", [Fault.CONTINUATION_FAILS, Fault.CONTINUATION_BREAKS])
def test_where_only_the_answer_after_a_cut_fails_the_clients_own_request_is_answered(
    fault: Fault, stream: bool
) -> None:
    answer = answered("streaming", fault, stream=stream, logprobs=(CONFIDENT,))
    assert ends_well(answer, stream=stream)
    assert "".join(MockUpstream().answer) in seen(answer).text
    if stream:
        assert '"failure":"' in answer.text
        assert seen(answer).text.count("</think>") == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", SECOND)
def test_a_further_step_that_fails_leaves_the_answer_of_the_step_before(fault: Fault, stream: bool) -> None:
    answer = answered("sequential", fault, stream=stream, fault_from=2, fault_at=2, logprobs=(UNSURE,))
    assert ends_well(answer, stream=stream)
    assert '"reason":"step_failed"' in answer.text
    assert '"failure":' in answer.text


@pytest.mark.parametrize(("way", "stream"), [*((way, True) for way in WAYS), *((way, False) for way in GATED)])
def test_an_upstream_that_is_slow_but_not_silent_is_waited_for(way: str, stream: bool) -> None:
    async def scenario() -> None:
        # Each token comes well within the time that silence may last, all of them do not.
        mock = MockUpstream(thought=THOUGHT, logprobs=(UNSURE,), interval_s=0.06)
        async with faulty(way, mock, idle_timeout_s=0.6) as (_, client):
            answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert ends_well(answer, stream=stream)

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_mistake_of_ours_is_an_error_like_any_other(
    way: str, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError(SECRET)

    async def scenario() -> None:
        async with faulty(way, MockUpstream(thought=THOUGHT)) as (gateway, client):
            asked = {**CHAT, "stream": stream}
            with monkeypatch.context() as patched:
                patched.setattr(Service, "_complete", broken)
                answer = await client.post("/v1/chat/completions", json=asked)
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
            assert SECRET not in answer.text + caplog.text
            assert "KeyError" in caplog.text
            assert gateway.service.metrics.refused["internal_error"] == 1
            assert ends_well(await client.post("/v1/chat/completions", json=asked), stream=stream)
            if stream and way == "streaming":
                with monkeypatch.context() as patched:
                    patched.setattr(Watch, "take", broken)
                    answer = await client.post("/v1/chat/completions", json=asked)
                    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")

    asyncio.run(scenario())


def test_an_upstream_that_comes_later_is_probed_then() -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)) as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
            early = replace(settings, upstream="http://127.0.0.1:1")
            async with running(early) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                assert gateway.service.capabilities is None
                gateway.service.upstream._base = URL(mock.url)
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert answer.json()["justenough"]["decision"] == "stopped"

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
                async with asyncio.timeout(30):
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
        probed = Capabilities(engine="vllm", models=("mock",), chat="continue_final_message")
        async with running(replace(settings, mode="off")) as gateway:
            gateway.service.settings, gateway.service.probing.capabilities = settings, probed
            async with (
                httpx.AsyncClient(base_url=gateway.url) as client,
                client.stream("POST", "/v1/chat/completions", json=CHAT) as answer,
            ):
                assert (answer.status_code, answer.headers["x-request-id"]) == (400, "7")
                assert answer.headers["x-justenough"] == "relayed; reason=refused"
                async for data in answer.aiter_bytes():
                    assert data.startswith(said)
                    break
            await settled(gateway)
        server.close()

    asyncio.run(scenario())
