"""What follows where the calibration gives up: answer now, think on and say so, or think on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.settings import GatewaySettings
from justenough.testing import UNSURE, MockUpstream
from tests.builders import DECIDER
from tests.unit.gateway.serving import Running, calibration_of
from tests.unit.gateway.test_gating import CHAT, THOUGHT, gated

NEVER_RIGHT = replace(DECIDER, weights=(0.0,) * 6, intercept=-9.0)
GIVES_UP = replace(calibration_of(1e-6), outlook=NEVER_RIGHT, give_up=0.5)
MOCK: dict[str, Any] = {"thought": THOUGHT, "logprobs": (UNSURE,)}


def test_the_model_answers_now_by_default() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["reason"], report["step"]) == ("stopped", "hopeless", 1)
        assert report["hopeless"] is True

    gated(scenario, MockUpstream(**MOCK), calibration=GIVES_UP)


def test_a_flagged_thought_goes_on_and_the_report_and_header_say_so() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"decisions": True}})
        report = answer.json()["justenough"]
        assert (report["decision"], report["reason"], report["hopeless"]) == ("finished", "uncertain", True)
        assert all(row["hopeless"] for row in report["decisions"])
        assert "; hopeless;" in answer.headers["x-justenough"]

    gated(scenario, MockUpstream(**MOCK), calibration=GIVES_UP, on_hopeless="flag")


def test_without_giving_up_nothing_is_said() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["reason"]) == ("finished", "uncertain")
        assert "hopeless" not in report

    gated(scenario, MockUpstream(**MOCK), calibration=GIVES_UP, on_hopeless="continue")


def test_the_score_of_a_decider_is_in_report_and_decisions() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**CHAT, "justenough": {"decisions": True}}
        report = (await client.post("/v1/chat/completions", json=body)).json()["justenough"]
        assert report["decision"] == "stopped"
        assert report["score"] == report["decisions"][-1]["score"] <= report["threshold"]

    gated(scenario, calibration=replace(calibration_of(1.0), decider=DECIDER))


@pytest.mark.parametrize("choice", ["flag", "continue"])
def test_a_choice_without_giving_up_is_refused(choice: Any) -> None:
    with pytest.raises(InputError, match="gives up"):
        GatewaySettings(upstream="http://127.0.0.1:1", calibration=calibration_of(0.5), on_hopeless=choice)
