"""The upstream decides: what it is told, what its decisions become, and no log-probability on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from justenough.calibration.calibration import calibration_from_json
from justenough.errors import InputError
from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.test_gating import PATHS, events, said

CHAT = PATHS["/v1/chat/completions"]
CALIBRATION = calibration_of(0.5)
STEPS = [
    {"step": number, "action": action, "reason": reason, "entropy": bits, "threshold": 0.5, "margin": 0.5 - bits}
    | {"tokens": 2, "coverage": 1.0, "score": None, "hopeless": False}
    for number, action, reason, bits in ((1, "extend", "uncertain", 0.9), (2, "stop", "confident", 0.25))
]
TOLD = {"id": "…", "decision": "stopped", "cut_at": 4, "steps": STEPS, "notes": ["one"]}
Scenario = Callable[[Running, MockUpstream, httpx.AsyncClient], Coroutine[None, None, None]]


def decided(scenario: Scenario, *, decisions: Any = TOLD, **mock: Any) -> None:
    async def main() -> None:
        async with MockUpstream(engine="vllm", decisions=decisions, **mock) as upstream:
            settings = GatewaySettings(
                upstream=upstream.url, calibration=CALIBRATION, upstream_decides=True, audit_share=0.0
            )
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                await scenario(gateway, upstream, client)

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_the_upstreams_decisions_are_reported(path: str, stream: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        before = len(mock.completions)
        body = PATHS[path] | {"stream": stream, "justenough": {"decisions": True}, "vllm_xargs": {"own": 3}}
        answer = await client.post(path, json=body)
        chunks = events(answer.text) if stream else [answer.json()]
        (report,) = [chunk["justenough"] for chunk in chunks if chunk["choices"][0].get("finish_reason")]
        assert (report["decision"], report["reason"], report["step"]) == ("stopped", "confident", 2)
        assert (report["entropy"], report["thought_tokens"]) == (0.25, 4)
        assert (report["decided_by"], report["notes"]) == ("upstream", ["one"])
        assert [one["reason"] for one in report["decisions"]] == ["uncertain", "confident"]
        (asked,) = mock.completions[before:]
        sent: Any = asked.json()
        assert not {"logprobs", "top_logprobs", "justenough"} & sent.keys()
        gate = sent["vllm_xargs"]
        assert gate["own"] == 3
        assert calibration_from_json(json.loads(gate["justenough"])) == CALIBRATION
        assert mock.requests[-1].target == f"/justenough/decisions/{gate['justenough_id']}"
        if stream:
            assert said(chunks).endswith("The answer is 42.")

    decided(scenario)


def test_a_client_may_lower_the_threshold() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json=CHAT | {"justenough": {"threshold": 0.125}})
        sent: Any = mock.completions[-1].json()
        assert json.loads(sent["vllm_xargs"]["justenough"])["threshold"] == 0.125

    decided(scenario)


@pytest.mark.parametrize("decisions", [None, {"cut_at": "four"}, []])
def test_an_upstream_without_decisions_is_relayed_and_says_so(decisions: Any) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for _ in range(2):
            report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
            assert (report["decision"], report["entropy"], report["notes"][0]) == (
                "finished",
                None,
                "decisions_unknown",
            )

    decided(scenario, decisions=decisions)


def test_log_probabilities_that_the_client_asks_for_are_its_own() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = CHAT | {"logprobs": True, "top_logprobs": 2}
        answer = (await client.post("/v1/chat/completions", json=body)).json()
        assert {len(entry["top_logprobs"]) for entry in answer["choices"][0]["logprobs"]["content"]} == {2}
        assert answer["justenough"]["decision"] == "stopped"

    decided(scenario)


@pytest.mark.parametrize(
    "calibration", [None, calibration_of(None), calibration_of(0.5, shape="sequential", splitter="completion")]
)
def test_it_takes_a_threshold_for_a_long_thought(calibration: Any) -> None:
    with pytest.raises(InputError, match="the upstream can only decide"):
        GatewaySettings(upstream="http://127.0.0.1:1", calibration=calibration, upstream_decides=True)
