"""Under a budget, a thought that the gateway does not cut is limited by the server itself."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.gateway.budgets import Budgets
from justenough.gateway.settings import BudgetSettings, Limits
from justenough.gateway.upstream import thinking
from justenough.testing import UNSURE, MockUpstream
from tests.unit.gateway.test_gating import CHAT, gated
from tests.unit.gateway.ways import settled
from tests.unit.gateway.wild import Reply, Scripted, before

MEMBERS = {"llama.cpp": "thinking_budget_tokens", "vllm": "thinking_token_budget", "plain": None}


@pytest.mark.parametrize("engine", MEMBERS)
def test_a_budget_limits_the_thought_of_an_observed_request(engine: Any) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: Any) -> None:
        wish = {"budget": 100, "mode": "observe"}
        report = (await client.post("/v1/chat/completions", json={**CHAT, "justenough": wish})).json()["justenough"]
        sent = mock.completions[0].json()
        if (member := MEMBERS[engine]) is None:
            assert "thinking_budget" not in report
            assert not [name for name in sent if name.startswith("thinking")]
        else:
            assert (sent[member], report["thinking_budget"]) == (50, 50)
        status = (await client.get("/v1/justenough/status")).json()
        assert status["upstream"]["limits_thoughts_by"] == member

    gated(scenario, MockUpstream(logprobs=(UNSURE,), engine=engine), answer_tokens=60)


OWN_LIMITS: list[tuple[dict[str, int], int | None]] = [
    ({}, 50),
    ({"thinking_budget_tokens": 7}, 7),
    ({"reasoning_budget_tokens": 7}, None),
]


@pytest.mark.parametrize(("own", "expected"), OWN_LIMITS)
def test_a_relayed_request_tells_its_limit_in_the_header(own: dict[str, int], expected: int | None) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: Any) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, **own, "n": 1, "tools": [{}]})
        assert mock.completions[0].json().get("thinking_budget_tokens") == expected
        said = "" if own else "; thinking_budget=50"
        assert answer.headers["x-justenough"] == f"relayed; reason=tools{said}"

    gated(scenario, MockUpstream(engine="llama.cpp"), limits=Limits(max_request_tokens=100), answer_tokens=60)


def test_without_a_budget_and_where_the_gateway_cuts_nothing_is_sent() -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: Any) -> None:
        for wish in ({"mode": "observe"}, {"budget": 100}):
            await client.post("/v1/chat/completions", json={**CHAT, "justenough": wish})
        assert not [request for request in mock.completions if b"thinking" in request.body]

    gated(scenario, MockUpstream(logprobs=(UNSURE,), engine="llama.cpp"))


def test_a_vllm_that_refuses_the_member_does_not_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> tuple[int, bytes]:
        return 400, b"{}"

    monkeypatch.setattr(thinking, "call", refuse)

    async def scenario(gateway: Any, mock: MockUpstream, client: Any) -> None:
        wish = {"budget": 100, "mode": "observe"}
        await client.post("/v1/chat/completions", json={**CHAT, "justenough": wish})
        assert b"thinking" not in mock.completions[0].body
        assert gateway.service.capabilities.chat is not None

    gated(scenario, MockUpstream(logprobs=(UNSURE,)))


def test_another_model_at_the_same_server_is_not_limited() -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: Any) -> None:
        wish = {"justenough": {"budget": 100}}
        answer = await client.post("/v1/chat/completions", json={**CHAT, "model": "other", **wish})
        assert answer.headers["x-justenough"] == "relayed; reason=model"
        assert b"thinking" not in mock.completions[0].body

    gated(scenario, MockUpstream(logprobs=(UNSURE,)))


COUNTED = BudgetSettings(tokens=1000, per="batch")


@pytest.mark.parametrize(("mode", "budget"), [("observe", None), ("observe", COUNTED), ("off", COUNTED)])
def test_a_request_whose_limit_on_the_thought_is_refused_is_repeated_without_it(
    mode: str, budget: BudgetSettings | None
) -> None:
    member = "thinking_token_budget"
    refusal = Reply(400, "application/json", b'{"error": {"message": "no reasoning parser"}}')

    async def main() -> None:
        upstream = Scripted(refuse=lambda body: refusal if member in body else None)
        async with before(upstream, mode) as (gateway, _), httpx.AsyncClient(base_url=gateway.url) as client:
            service = gateway.service
            service.settings = replace(service.settings, budget=budget)
            service.budgets = Budgets(service.settings)
            assert service.capabilities is not None
            service.probing.capabilities = replace(service.capabilities, thinking=member, probed_model="m")
            wish = {"model": "m", "justenough": {"budget": 100}}
            answer = await client.post("/v1/chat/completions", json={**CHAT, **wish}, timeout=30)
            assert answer.status_code == 200
            assert [member in json.loads(body) for body in upstream.requests] == [True, False]
            await settled(gateway)

    asyncio.run(main())
