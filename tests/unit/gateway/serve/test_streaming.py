"""One generation that nothing may cut, under a budget, an audit and a client that wants its answer now."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from justenough.signal.thought import ThoughtFormat
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from tests.unit.gateway.serving import Running, calibration_of
from tests.unit.gateway.test_gating import CHAT, gated
from tests.unit.gateway.ways import settled

LONG = ("Let me", " think.\n\n") * 40
UNKNOWN: dict[str, Any] = {"format": ThoughtFormat(open="<x>", close="</x>"), "reasoning_field": "reasoning"}


@pytest.mark.parametrize(
    ("mock", "members", "note"),
    [(UNKNOWN, {}, "unknown_tags"), ({}, {"stop": ["</think>"]}, "stop_sequence")],
    ids=["unknown tags", "stop sequence"],
)
@pytest.mark.parametrize("audit_share", [0.0, 1.0])
def test_a_spent_budget_that_cuts_nothing_is_no_outcome(
    audit_share: float, mock: dict[str, Any], members: dict[str, Any], note: str
) -> None:
    async def scenario(gateway: Running, upstream: MockUpstream, client: httpx.AsyncClient) -> None:
        wish = {"justenough": {"budget": 100}}
        report = (await client.post("/v1/chat/completions", json={**CHAT, **members, **wish})).json()["justenough"]
        outcome = "audited" if audit_share else "finished"
        assert (report["decision"], report["reason"]) == (outcome, "uncertain")
        assert note in report["notes"]
        await settled(gateway)
        assert gateway.service.metrics.outcomes == {outcome: 1}
        assert len(upstream.completions) == 1

    unsure = MockUpstream(thought=LONG, logprobs=(UNSURE,), **mock)
    gated(scenario, unsure, audit_share=audit_share, answer_tokens=50)


@pytest.mark.parametrize("course", [{"mode": "observe"}, {"audit_share": 1.0}], ids=["observe", "audit"])
def test_with_a_stop_sequence_in_the_closing_text_nothing_is_elicited(course: dict[str, Any]) -> None:
    async def scenario(gateway: Running, upstream: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "stop": ["</think>"]})).json()
        assert whole["justenough"]["notes"] == ["stop_sequence"]
        await asyncio.gather(*gateway.service._background)
        assert len(upstream.completions) == 1
        audit: Any = gateway.service.learning.audit.summary(None)
        assert audit["saving_gross"] is None or audit["saving_gross"]["value"] == 0.0
        # What the answer after the first step would be is not known.
        assert gateway.service.learning.recalibration.summary()["examples"] == 0

    gated(scenario, MockUpstream(thought=LONG, logprobs=(CONFIDENT,)), calibration=calibration_of(1.0), **course)
