"""What the upstream generates after a stop, by its own counter, and savings net of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from justenough.gateway.learn.audit import Audit, Audited
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream import overshoot
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.overshoot import Overshoot
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from tests.unit.gateway.serving import Running
from tests.unit.gateway.test_gating import CHAT, gated


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_it_is_measured_by_the_upstreams_counter_in_quiet_moments(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.gateway.upstream.overshoot.SETTLED_S", 0.02)

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async def read() -> dict[str, Any]:
            async with asyncio.timeout(30):
                while gateway.service.overshoot.stale:
                    await asyncio.sleep(0.01)
            found = (await client.get("/v1/justenough/status")).json()["overshoot"]
            assert isinstance(found, dict)
            return found

        assert (await read())["source"] == "not measured yet"
        # A thought and its answer: ten tokens more than anyone gets.
        mock.on_request = lambda request: setattr(mock, "generated", mock.generated + 5 * (request.method == "POST"))
        for number in range(4):
            whole = (await client.post("/v1/chat/completions", json={**CHAT, "seed": number})).json()
            assert whole["justenough"]["decision"] == "stopped"
        found = await read()
        stops = gateway.service.metrics.outcomes["stopped"]
        assert found["stops"] == stops == 4
        assert 40 <= found["tokens"] <= 40 + 5 * stops
        assert found["overshoot_tokens"] == found["tokens"] / stops
        assert found["source"] == found["counter"]
        assert ("llamacpp" in found["source"]) is (engine == "llama.cpp")
        # Across a request that nobody followed a reading tells nothing.
        mock.on_request = lambda request: setattr(mock, "generated", mock.generated + 4000)
        await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"mode": "off"}})
        assert (await read())["tokens"] == found["tokens"]
        audit = (await client.get("/v1/justenough/status")).json()["audit"]
        assert audit["saving_is"] == "net of the overshoot"
        assert "justenough_overshoot_tokens_per_stop" in (await client.get("/metrics")).text

    thought = [*("Let me think", ".\n\n", "So it is", " 42.\n\n"), *["more "] * 200]
    mock = MockUpstream(
        thought=thought,
        logprobs=(UNSURE, UNSURE, UNSURE, CONFIDENT),
        engine=engine,
        metrics=True,
        interval_s=0.002,
    )
    gated(scenario, mock, overshoot_every_s=0.01, audit_share=0.0)


def test_an_upstream_without_a_counter_is_told_when_it_was_looked_for() -> None:
    assert Overshoot().summary()["source"] == "not measured yet"

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await gateway.service.overshoot.read(gateway.service.upstream)
        told = (await client.get("/v1/justenough/status")).json()["overshoot"]
        assert (told["overshoot_tokens"], told["source"]) == (None, "the upstream offers no counter")

    gated(scenario, MockUpstream())


def test_savings_are_net_of_it_and_a_bound_where_it_is_not_known() -> None:
    audit = Audit()
    for at in range(20):
        audit.add(Audited(full=100, gated=40 if at % 2 else 100, stopped=bool(at % 2), agreed=True))
    net: Any = audit.summary(10.0)
    assert net["saving"]["value"] == pytest.approx(0.25)
    assert net["saving_gross"]["value"] == pytest.approx(0.30)
    assert net["saving_is"] == "net of the overshoot"
    unknown: Any = audit.summary(None)
    assert unknown["saving"] == unknown["saving_gross"]
    assert unknown["saving_is"].startswith("an upper bound")
    assert unknown["overshoot_bound"] == 60
    # A sequence that takes no further step leaves no stream: nothing is generated for nobody.
    steps = Audit()
    steps.add(Audited(full=100, gated=40, stopped=True, agreed=True, cut=False, cascade_full=300, cascade_gated=0))
    whole: Any = steps.summary(None)
    assert (whole["saving"]["value"], whole["saving_is"]) == (pytest.approx(0.6), "net of the overshoot")
    assert whole["cascade_saving"]["value"] == 1.0
    empty: Any = Audit().summary(None)
    assert empty["saving"] is None


@pytest.mark.parametrize("value", ["e", "1.2.3", "NaN", "Inf", "1e999", "-1", "9" * 400, "", "1 2"])
def test_a_counter_that_is_no_number_is_no_counter(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def odd(*_: Any, **__: Any) -> tuple[int, bytes]:
        return 200, f"llamacpp:tokens_predicted_total {value}\n".encode()

    monkeypatch.setattr(overshoot, "call", odd)
    reading = Overshoot()
    asyncio.run(reading.read(Upstream(GatewaySettings(upstream="http://x"))))
    assert reading.counter is None
