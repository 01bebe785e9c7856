"""A probe whose connection fails: the request is relayed, and the upstream is probed again."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any, cast

import pytest

from justenough.gateway.exchange import Refused
from justenough.gateway.upstream import capability, probing
from justenough.gateway.upstream.capability import Capabilities, NotProbed, call
from justenough.gateway.upstream.probing import QUICK_PROBES, Probing
from justenough.signal.thought import THINK
from justenough.testing import CONFIDENT, MockUpstream
from tests.unit.gateway.ways import CHAT, THOUGHT, faulty

BROKEN = Refused(502, "the upstream broke off its answer", code="upstream_broken")
SLOW = Refused(504, "the upstream did not answer in time", code="upstream_timeout")
UNREACHABLE = Refused(502, "the upstream is not reachable", code="upstream_unreachable")


def failing(monkeypatch: pytest.MonkeyPatch, path: str, error: Refused) -> None:
    """Let each call of this path fail."""

    async def answer(upstream: Any, method: str, target: str, **rest: Any) -> tuple[int, bytes]:
        if target == path:
            raise error
        return await call(upstream, method, target, **rest)

    monkeypatch.setattr(capability, "call", answer)


@pytest.mark.parametrize("error", [BROKEN, SLOW, UNREACHABLE], ids=lambda error: error.code)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
def test_a_request_is_relayed_while_the_probes_connection_fails(
    path: str, error: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, path, error)

    async def scenario() -> None:
        async with faulty("streaming", MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,))) as (gateway, client):
            for _ in range(2 * QUICK_PROBES):
                answer = await client.post("/v1/chat/completions", json=CHAT)
                assert (answer.status_code, answer.headers["x-justenough"]) == (200, "relayed; reason=not_probed")
            # Only a probe that had a connection is followed by a pause.
            assert (gateway.service.probing._next_at > 0.0) is (error is not UNREACHABLE)
            monkeypatch.setattr(capability, "call", call)
            gateway.service.probing._next_at = 0.0
            assert (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]["decision"] == "stopped"

    asyncio.run(scenario())


KNOWN = Capabilities(
    engine="vllm",
    models=("m",),
    chat="prefill",
    temperature=0.0,
    thought=THINK,
    prompt_end="<think>",
    apart=True,
    thinking="thinking_token_budget",
    probed_model="m",
    extra={"stream_options": {}},
    doubtful=True,
)
BARE = Capabilities(engine="vllm", models=("m",), chat="prefill", probed_model="m", doubtful=True)


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (BARE, True),
        (replace(BARE, engine="unknown"), True),
        (replace(BARE, doubtful=False), False),
        (replace(BARE, models=("n",), probed_model="n"), False),
        (replace(BARE, engine="llama.cpp"), False),
    ],
    ids=["doubtful", "no engine", "certain", "another model", "another engine"],
)
def test_a_doubtful_probe_takes_away_nothing_that_is_known_of_the_model(
    result: Capabilities, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [KNOWN, result]

    async def probe(*_: Any, **__: Any) -> Capabilities:
        return results.pop(0)

    async def with_thinking(_: Any, known: Capabilities, **__: Any) -> Capabilities:
        return known

    monkeypatch.setattr(probing, "probe", probe)
    monkeypatch.setattr(probing, "with_thinking", with_thinking)
    monkeypatch.setattr(probing, "with_apart", with_thinking)

    async def scenario() -> None:
        one = Probing(cast("Any", None), (), learned=lambda _: None)
        await one.find(headers=[])
        assert await one.find(headers=[]) == (KNOWN if kept else result)

    asyncio.run(scenario())


def test_a_server_of_something_else_is_told_from_one_that_refuses() -> None:
    assert "answers 401 to the probe" in str(NotProbed(401))
    assert "cannot be read; is it an OpenAI-compatible server?" in str(NotProbed(200))


def test_a_request_during_a_pause_starts_no_probe() -> None:
    async def scenario() -> None:
        probing = Probing(cast("Any", None), (), learned=lambda _: None)
        probing._next_at = math.inf
        with pytest.raises(NotProbed):
            await probing.find(headers=[])
        probing.capabilities = KNOWN
        assert await probing.find(headers=[]) is KNOWN
        assert probing._probe is None

    asyncio.run(scenario())
