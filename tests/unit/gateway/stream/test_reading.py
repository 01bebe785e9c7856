"""Log-probabilities wait for a quiet moment, are read then for all streams, and nobody is held up for long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from justenough.gate import GateSettings
from justenough.gateway.stream import reading as module
from justenough.gateway.stream.reading import AT_ONCE, QUIET_S, TOGETHER, Reading
from justenough.gateway.stream.watch import Watch
from justenough.signal.signal import Signal
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from justenough.trace.meter import BLOCK
from justenough.wire.lenient import read_chunk
from tests.unit.gateway.stream.test_template import logprobs_of, payload
from tests.unit.gateway.ways import CHAT, faulty

SETTINGS = GateSettings(threshold=1.0, shape="streaming", signal=Signal(splitter="paragraph"), decide="every")


@dataclass(eq=False)
class Stream:
    """So many tokens wait."""

    waiting: int
    log: list[Any] = field(default_factory=list)

    def catch_up(self) -> None:
        self.log.append(self)
        self.waiting = 0


def following(reading: Reading | None) -> Watch:
    watch = Watch(SETTINGS, cut=True, reading=reading)
    watch.take(read_chunk(payload("<think>", CONFIDENT)))
    return watch


def think(watch: Watch, tokens: int) -> None:
    for _ in range(tokens):
        watch.take_later("a", logprobs_of("a", UNSURE))


def test_once_one_stream_has_much_waiting_all_are_read_in_the_next_quiet_moment() -> None:
    async def scenario() -> None:
        reading = Reading()
        long, short = following(reading), following(reading)
        with reading.of(long), reading.of(short):
            think(short, 2)
            think(long, TOGETHER - 1)
            await asyncio.sleep(3 * QUIET_S)
            assert (long.waiting, short.waiting) == (TOGETHER - 1, 2)
            think(long, 1)
            assert (long.waiting, short.waiting) == (TOGETHER, 2)
            await asyncio.sleep(3 * QUIET_S)
            assert (long.waiting, short.waiting) == (0, 0)
            assert (long.entries, short.entries) == (TOGETHER + 1, 3)

    asyncio.run(scenario())


def test_a_step_that_ends_does_not_wait_for_a_quiet_moment() -> None:
    watch = following(None)
    think(watch, TOGETHER + 1)
    assert watch.waiting == TOGETHER + 1
    watch.take(read_chunk(payload(".\n\n", CONFIDENT)))
    assert watch.waiting == 0
    assert watch.decision is not None
    assert watch.decision.tokens == TOGETHER + 3


def test_where_no_moment_is_quiet_no_more_than_a_block_waits() -> None:
    watch = following(None)
    for _ in range(3 * BLOCK):
        think(watch, 1)
        assert watch.waiting < BLOCK
    assert watch.entries + watch.waiting == 3 * BLOCK + 1


def test_a_long_reading_lets_others_have_their_turn_and_who_has_left_is_not_read() -> None:
    async def scenario() -> None:
        reading = Reading()
        log: list[Any] = []
        first, second, gone, none = (Stream(number, log) for number in (AT_ONCE, 1, 1, 0))
        turns = 0
        with reading.of(second), reading.of(first), reading.of(none):
            with reading.of(gone):
                reading.soon()
                reading.soon()
            asyncio.get_running_loop().call_later(QUIET_S, lambda: log.append("other"))
            while len(log) < 3:
                turns += 1
                await asyncio.sleep(QUIET_S)
                assert turns < 100
        assert log.index(first) < log.index("other") < log.index(second)
        assert len(log) == 3

    asyncio.run(scenario())


def test_a_stream_that_leaves_while_its_turn_is_to_come_is_not_read() -> None:
    async def scenario() -> None:
        reading = Reading()
        log: list[Any] = []
        stays, leaves = Stream(AT_ONCE, log), Stream(1, log)
        with reading.of(leaves), reading.of(stays):
            reading._begin()
            assert log == [stays]
        await asyncio.sleep(QUIET_S)
        assert log == [stays]

    asyncio.run(scenario())


@pytest.mark.parametrize("quiet", [0.0, 60.0])
def test_the_gate_decides_alike_whenever_its_evidence_is_read(quiet: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", quiet)

    async def scenario() -> Any:
        thought = ["a "] * (TOGETHER + 10) + [".\n\n"] + ["b "] * 10 + [".\n\n"]
        rows = [UNSURE] * (TOGETHER + 11) + [CONFIDENT]
        mock = MockUpstream(thought=thought, logprobs=rows, interval_s=0.001)
        async with faulty("streaming", mock, idle_timeout_s=10) as (gateway, client):
            answer = (await client.post("/v1/chat/completions", json=CHAT)).json()
            assert not gateway.service.reading.followed
            return answer["justenough"]

    report = asyncio.run(scenario())
    assert (report["decision"], report["step"], report["tokens"] - report["probe_tokens"]) == (
        "stopped",
        2,
        TOGETHER + 23,
    )


def test_waiting_log_probabilities_that_cannot_be_read_are_noted() -> None:
    watch = following(None)
    think(watch, 1)
    watch.take_later("b", logprobs_of("b", UNSURE).replace(b'"logprob"', b'"x""logprob"', 1))
    watch.catch_up()
    assert "unreadable_chunk" in watch.notes
    assert watch.waiting == 0
