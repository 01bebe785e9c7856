"""The live check: the same requests on both ways, counted by the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from justenough.errors import BackendRejected, BackendUnavailable
from justenough.gateway.livecheck import LiveCheck, Reply, Side, capabilities_of, check
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from justenough.trace import Json
from tests.unit.gateway.serving import calibration_of

BODIES: list[dict[str, Json]] = [
    {"model": "mock", "messages": [{"role": "user", "content": f"{number}?"}], "temperature": 0.6}
    for number in range(3)
]


def checked(threshold: float = 9.0, bodies: list[dict[str, Json]] = BODIES, **mock: Any) -> tuple[LiveCheck, int]:
    """The check, and the tokens that the server has generated for it."""

    async def main() -> tuple[LiveCheck, int]:
        async with MockUpstream(**mock) as upstream:
            settings = GatewaySettings(upstream=upstream.url, calibration=calibration_of(threshold))
            done = await check(settings, bodies, concurrency=2)
            return done, upstream.generated

    return asyncio.run(main())


def test_tokens_are_the_servers_own() -> None:
    done, generated = checked(metrics=True)
    assert done.counter == "vllm:generation_tokens_total"
    assert done.stopped == 3
    # The gateway's own probe came before.
    assert 1 <= generated - sum(done.tokens) <= 3
    assert done.saving == 1 - done.tokens[1] / done.tokens[0]
    # The gate stops after the first of three steps.
    assert done.gated.used < done.direct.used == done.tokens[0]
    assert done.tokens[1] >= done.gated.used


def test_without_a_counter_the_usage_of_the_answers_is_taken() -> None:
    done, _ = checked()
    assert done.counter is None
    assert done.tokens == (done.direct.used, done.gated.used)
    assert done.saving > 0


def test_a_gate_that_stops_nothing_says_why() -> None:
    done, _ = checked(threshold=0.0)
    assert done.stopped == 0
    assert done.saving == 0
    assert done.reasons == ["uncertain"]
    assert [reply.text for reply in done.gated.replies] == [reply.text for reply in done.direct.replies]


def test_nothing_generated_is_no_saving() -> None:
    nothing = Side(replies=(Reply(text="", tokens=0),), counted=None)
    assert LiveCheck(direct=nothing, gated=nothing, counter=None).saving == 0


def test_errors_of_the_server_are_errors_of_the_backend() -> None:
    with pytest.raises(BackendRejected, match="status 400"):
        checked(bodies=[{"model": "mock", "messages": 3}])
    settings = GatewaySettings(upstream="http://127.0.0.1:9")
    with pytest.raises(BackendUnavailable, match="not reachable"):
        asyncio.run(capabilities_of(settings, model="mock"))


def test_a_server_that_wants_a_key_is_not_probed_without_it() -> None:
    async def main(key: str | None) -> str | None:
        async with MockUpstream(key="secret") as upstream:
            settings = GatewaySettings(upstream=upstream.url, upstream_key=key)
            return (await capabilities_of(settings, model="mock")).chat

    assert asyncio.run(main("secret")) == "continue_final_message"
    with pytest.raises(BackendRejected, match="401"):
        asyncio.run(main(None))
