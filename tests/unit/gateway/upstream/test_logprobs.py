"""Models without log-probabilities: learned slowly, from plain requests alone, and forgotten again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import httpx
import pytest

from justenough.gateway.request import CompletionRequest, read_request
from justenough.gateway.upstream.logprobs import (
    CLIENTS,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_MODELS,
    NEEDED,
    LogprobsMemory,
)
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream, Received
from tests.unit.gateway.ways import CHAT, THOUGHT, ends_well, faulty, settled


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def asked(model: str = "mock", members: Mapping[str, object] | None = None) -> CompletionRequest:
    body = json.dumps({**CHAT, "model": model, **(members or {})}).encode()
    return read_request("/v1/chat/completions", body, [])


def test_only_answers_in_a_row_count() -> None:
    memory = LogprobsMemory()
    for _ in range(NEEDED - 1):
        memory.missing(asked(), "absent")
    memory.given("mock")
    for _ in range(NEEDED - 1):
        memory.missing(asked(), "absent")
    assert not memory.lacks("mock")
    assert memory.summary() == {}
    memory.missing(asked(), "refused")
    assert memory.lacks("mock")
    assert not memory.lacks("another")
    assert memory.summary() == {"mock": "refused"}


def test_it_is_tried_again_after_pauses_that_double_to_a_limit() -> None:
    clock = Clock()
    memory = LogprobsMemory(clock=clock)
    for _ in range(NEEDED):
        memory.missing(asked(), "absent")
    pauses = []
    for _ in range(10):
        pauses.append(clock.now)
        while memory.lacks("mock"):
            clock.now += FIRST_PAUSE_S / 4
        pauses[-1] = clock.now - pauses[-1]
        for _ in range(NEEDED):
            assert not memory.lacks("mock")
            memory.missing(asked(), "absent")
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_one_client_turns_the_gate_off_only_for_itself_and_several_for_all() -> None:
    memory = LogprobsMemory()
    for number in range(CLIENTS):
        assert not memory.lacks("mock", "another")
        for _ in range(NEEDED):
            memory.missing(asked(), "absent", f"client {number}")
        assert memory.lacks("mock", f"client {number}")
    assert memory.lacks("mock", "another")
    memory.given("mock")
    assert not memory.lacks("mock", "client 0")


@pytest.mark.parametrize(
    "members",
    [
        {"reasoning_effort": "high"},
        {"post_sampling_probs": True},
        {"prompt_logprobs": 1},
        {"return_logprob": False},
        {"anything": 1},
    ],
)
def test_a_request_that_a_client_shaped_teaches_nothing(members: dict[str, object]) -> None:
    memory = LogprobsMemory()
    for _ in range(10 * NEEDED):
        memory.missing(asked(members=members), "absent")
    assert not memory.lacks("mock")


def test_names_are_bounded_in_number_and_length() -> None:
    memory = LogprobsMemory()
    for number in range(MOST_MODELS + 50):
        for _ in range(NEEDED):
            memory.missing(asked(f"{number}" + "x" * 10_000), "absent")
    shown = memory.summary()
    assert len(shown) == MOST_MODELS
    assert max(map(len, shown)) < 100
    assert sum(map(len, shown)) < 100 * MOST_MODELS


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", ["streaming", "sequential", "observing"])
def test_a_server_that_stays_silent_when_asked_for_them_costs_one_time_out(way: str, stream: bool) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))
        async with faulty(way, mock) as (gateway, client):

            def stall(request: Received) -> None:
                mock.fault = Fault.STALL_BEFORE_HEADERS if b'"logprobs"' in request.body else Fault.NONE

            mock.on_request = stall
            asked = {**CHAT, "stream": stream}
            assert (await client.post("/v1/chat/completions", json=asked)).status_code == 504
            for _ in range(2):
                answer = await client.post("/v1/chat/completions", json=asked)
                assert answer.headers["x-justenough"] == "relayed; reason=no_logprobs"
                assert ends_well(answer, stream=stream)
            assert gateway.service.logprobs.summary() == {"mock": "silent"}

    asyncio.run(scenario())


@pytest.mark.parametrize(("patience", "relayed"), [(0.0, True), (60.0, False)])
def test_clients_that_wait_in_vain_and_leave_are_relayed_later(
    patience: float, relayed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("justenough.gateway.upstream.logprobs.PATIENCE_S", patience)

    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), fault=Fault.STALL_BEFORE_HEADERS)
        async with faulty("streaming", mock, idle_timeout_s=60.0) as (gateway, client):
            for _ in range(NEEDED):
                assert not gateway.service.logprobs.lacks("mock", "127.0.0.1")
                with pytest.raises(httpx.ReadTimeout):
                    await client.post("/v1/chat/completions", json=CHAT, timeout=0.1)
                await settled(gateway)
            assert gateway.service.logprobs.lacks("mock", "127.0.0.1") is relayed
            mock.fault = Fault.NONE
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert (answer.headers["x-justenough"] == "relayed; reason=no_logprobs") is relayed

    asyncio.run(scenario())


def test_a_silence_after_the_first_token_says_nothing_about_them() -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(UNSURE,), fault=Fault.STALL_IN_STREAM)
        async with faulty("streaming", mock) as (gateway, client):
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 504
            assert gateway.service.logprobs.summary() == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("member", "reason"), [("post_sampling_probs", "sampling_probs"), ("prompt_logprobs", "prompt_logprobs")]
)
def test_such_requests_are_relayed_and_the_gate_stays_on_for_the_others(member: str, reason: str) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))
        async with faulty("streaming", mock) as (_, client):
            mock.fault = Fault.NO_LOGPROBS
            for _ in range(2 * NEEDED):
                answer = await client.post("/v1/chat/completions", json={**CHAT, member: 1})
                assert answer.headers["x-justenough"] == f"relayed; reason={reason}"
            mock.fault = Fault.NONE
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


def test_long_names_do_not_fill_memory_log_or_status(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        mock = MockUpstream(thought=("Hm.",), fault=Fault.NO_LOGPROBS)
        async with faulty("observing", mock) as (gateway, client):
            for number in range(4):
                for _ in range(NEEDED):
                    name = f"{number}" + "x" * 50_000
                    await client.post("/v1/chat/completions", json={**CHAT, "model": name})
            status: httpx.Response = await client.get("/v1/justenough/status")
            assert len(status.content) < 20_000
            assert len(status.json()["without_logprobs"]) == 4
            assert gateway.service.logprobs.lacks("0" + "x" * 50_000, "127.0.0.1")

    asyncio.run(scenario())
    assert sum(len(record.getMessage()) for record in caplog.records) < 20_000
