"""What is learned from one request: outcomes, drift, and audits of both shapes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from justenough.gateway.learn.drift import REPEATS, WINDOW
from justenough.gateway.learn.learning import Learning
from justenough.gateway.metrics import Metrics
from justenough.gateway.plan import Plan
from justenough.gateway.request import read_request
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.overshoot import Overshoot
from justenough.testing import CONFIDENT, MockUpstream
from justenough.trace.files import read_traces
from tests.unit.gateway.serve.test_sequential import Surer, stepwise
from tests.unit.gateway.serving import calibration_of
from tests.unit.gateway.test_gating import CHAT, THOUGHT, gated

SETTINGS = GatewaySettings(upstream="http://x", calibration=calibration_of(1.0))


def learning_of(metrics: Metrics) -> Learning:
    return Learning(SETTINGS, metrics, Overshoot())


def work(course: Any, reason: str | None = None, *, bits: float | None = None, ended: Any = None) -> Any:
    plan = Plan(course=course, gate=SETTINGS.gate, reason=reason)
    request = read_request("/v1/chat/completions", json.dumps(CHAT).encode(), [])
    return SimpleNamespace(plan=plan, request=request, first_entropy=bits, ended=ended, id="a")


@pytest.mark.parametrize(
    ("course", "ended", "outcome"),
    [
        ("gate", None, "finished"),
        ("gate", "stopped", "stopped"),
        ("gate", "budget", "budget"),
        ("audit", "stopped", "audited"),
        ("audit", "budget", "budget"),
        ("observe", None, "observed"),
    ],
)
def test_each_request_has_one_outcome(course: Any, ended: Any, outcome: str) -> None:
    metrics = Metrics()
    learning = learning_of(metrics)
    learning.count(work(course, ended=ended), client="a")
    assert metrics.outcomes == {outcome: 1}
    learning.close()


def test_drift_is_reported_once_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    learning = learning_of(Metrics())
    for _ in range(2 * REPEATS * WINDOW):
        learning.count(work("gate", bits=4.0), client="a")
    assert learning.drift.drifted
    for _ in range(WINDOW):
        learning.count(work("observe", "drift", bits=0.5), client="a")
    assert not learning.drift.drifted
    assert caplog.text.count("nothing is stopped until") == 1
    assert caplog.text.count("the gate decides again") == 1
    learning.close()


def test_another_temperature_says_nothing_about_drift() -> None:
    learning = learning_of(Metrics())
    for _ in range(2 * REPEATS * WINDOW):
        learning.count(work("observe", "temperature", bits=4.0), client="a")
    assert not learning.drift.drifted
    assert learning.feedback.summary()["labels"] == 0
    learning.close()


async def idle(gateway: Any) -> None:
    async with asyncio.timeout(30):
        while gateway.service.active or gateway.service._background:
            await asyncio.sleep(0.005)


def test_an_audited_thought_is_compared_with_the_answer_at_its_stop_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json=CHAT)
        await idle(gateway)
        audit: Any = gateway.service.learning.audit.summary(None)
        assert (audit["requests"], audit["unread"]) == (1, 0)
        assert audit["agreement"]["value"] == 1.0
        assert 0 < audit["saving_gross"]["value"] < 1
        assert audit["probe_tokens"] > 0
        assert gateway.service.learning.recorder.traces == 1

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)), audit_share=1.0, record=path)
    (trace,) = read_traces(path).traces
    assert (trace.model, trace.shape, trace.problem) == ("mock", "streaming", "What is 6*7?")
    assert trace.steps[-1].answer == "42"


def test_an_audited_sequence_records_every_step(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json=CHAT)
        await idle(gateway)

    stepwise(scenario, Surer(thought=()), audit_share=1.0, record=path)
    (trace,) = read_traces(path).traces
    assert (trace.shape, len(trace.steps)) == ("sequential", 4)
    assert [step.answer for step in trace.steps] == ["1", "2", "3", "4"]
    assert all(len(step.entropies or ()) == step.tokens == 2 for step in trace.steps)


@pytest.mark.parametrize(("answer_id", "remembered"), [("a" * 256, 1), ("a" * 257, 0), ("a" * 100_000, 0)])
def test_an_answer_with_an_endless_id_is_not_remembered(answer_id: str, remembered: int) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["id"] == answer_id
        assert len(gateway.service.learning.feedback._outcomes) == remembered

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), answer_id=answer_id))


@pytest.mark.parametrize(("member", "examples"), [({}, 1), ({"top_p": 0.9}, 1), ({"logit_bias": {"1": 100}}, 0)])
def test_a_request_that_its_client_shaped_is_no_example(member: dict[str, Any], examples: int) -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={**CHAT, **member})
        await idle(gateway)
        assert gateway.service.learning.recalibration.summary()["examples"] == examples
        assert len(gateway.service.learning.audit) == 1

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)), audit_share=1.0)


def test_the_answers_of_an_audit_keep_the_least_number_of_tokens_of_the_whole_answer() -> None:
    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={**CHAT, "min_tokens": 10})
        await idle(gateway)
        assert [request.json()["min_tokens"] for request in mock.completions] == [10, 7]

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,)), audit_share=1.0)
