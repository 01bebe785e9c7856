"""A client that asks for `decisions` sees each step being decided; others see nothing of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from tests.unit.gateway.serve.test_sequential import Surer, stepwise
from tests.unit.gateway.serving import Running
from tests.unit.gateway.test_gating import CHAT, SURE_AT_STEP_2, THOUGHT, events, gated

WATCHED: dict[str, Any] = {**CHAT, "justenough": {"decisions": True}}


def marks(chunks: list[dict[str, Any]]) -> list[Any]:
    """The decisions of each event that carries some, the last event's report left out."""
    return [chunk["justenough"]["decisions"] for chunk in chunks[:-1] if "justenough" in chunk]


@pytest.mark.parametrize("mode", ["gate", "observe"])
def test_each_decision_comes_with_the_token_that_ended_its_step(mode: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**WATCHED, "stream": True, "justenough": {"decisions": True, "mode": mode}}
        chunks = events((await client.post("/v1/chat/completions", json=body)).text)
        (first,), (second,) = marks(chunks)
        assert (first["step"], first["action"], first["reason"]) == (1, "extend", "uncertain")
        assert (second["step"], second["action"], second["reason"]) == (2, "stop", "confident")
        texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if "justenough" in chunk]
        assert texts[:2] == [".\n\n", " 42.\n\n"]
        report = chunks[-1]["justenough"]
        assert report["decisions"] == [first, second]
        assert (report["entropy"], report["step"]) == (second["entropy"], 2)
        assert first["tokens"] + second["tokens"] == 5

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2))


def test_whoever_does_not_ask_is_told_only_at_the_end() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        chunks = events((await client.post("/v1/chat/completions", json={**CHAT, "stream": True})).text)
        assert [chunk for chunk in chunks if "justenough" in chunk] == chunks[-1:]
        assert "decisions" not in chunks[-1]["justenough"]
        whole = (await client.post("/v1/chat/completions", json=WATCHED)).json()
        assert [row["step"] for row in whole["justenough"]["decisions"]] == [1, 2]

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2))


def test_sequential_steps_are_marked_and_keep_the_log_probabilities_that_were_asked_for() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**WATCHED, "stream": True, "logprobs": True, "top_logprobs": 5}
        chunks = events((await client.post("/v1/chat/completions", json=body)).text)
        ((first,),) = marks(chunks)
        assert (first["step"], first["action"], first["reason"]) == (1, "extend", "uncertain")
        rows = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        reasoning = [row for row in rows if row["delta"].get("reasoning_content")]
        at = next(number for number, chunk in enumerate(chunks) if "justenough" in chunk)
        tops = [[top["logprob"] for top in row["logprobs"]["content"][0]["top_logprobs"]] for row in reasoning]
        assert tops[:at] == [list(UNSURE[:5])] * at
        assert tops[at:] == [list(CONFIDENT[:5])] * (len(tops) - at)
        assert [row["step"] for row in chunks[-1]["justenough"]["decisions"]] == [1, 2]

    stepwise(scenario, Surer(thought=("Hm.",)))


def test_sequential_log_probabilities_stay_out_where_nobody_asked() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert "logprobs" not in answer.text

    stepwise(scenario, Surer(thought=("Hm.",)))


def test_an_audited_sequence_goes_on_after_its_stop_and_marks_that_too() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        chunks = events((await client.post("/v1/chat/completions", json={**WATCHED, "stream": True})).text)
        first, *later = marks(chunks)
        assert [row["action"] for row in first] == ["stop"]
        assert later == [[]] * (chunks[-1]["justenough"]["steps"] - 2)

    stepwise(scenario, MockUpstream(thought=("Hm.",), logprobs=(CONFIDENT,)), audit_share=1.0)
