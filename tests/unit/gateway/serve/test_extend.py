"""The next step of a sequential request: its text, its server and its body."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from justenough.gateway.exchange import Refused
from justenough.gateway.serve.extend import CompletionStep, next_request, server_of
from justenough.gateway.serve.work import Job
from justenough.gateway.settings import CascadeSettings, GatewaySettings
from justenough.gateway.upstream.capability import JSON
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.formats import Formats
from justenough.signal.thought import ANY, FORMATS
from tests.unit.gateway.serve.test_elicit import job_of
from tests.unit.gateway.serving import calibration_of
from tests.unit.gateway.ways import CHAT

CALIBRATION = calibration_of(1.0, shape="sequential", splitter="completion")


def extending(extend: Any, **members: Any) -> Job:
    cascade = CascadeSettings(upstream="http://y", model="strong") if extend == "cascade" else None
    settings = GatewaySettings(upstream="http://x", calibration=CALIBRATION, extend=extend, cascade=cascade)
    job = job_of(**members)
    return replace(job, settings=settings, cascade=Upstream(settings) if cascade else None)


def step_of(content: str, reasoning: str = "") -> CompletionStep:
    return CompletionStep(content=[content], reasoning=[reasoning] if reasoning else [])


def body_after(job: Job, *steps: CompletionStep, left: int | None = None) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(asyncio.run(next_request(job, steps, left=left)).body)
    return body


@pytest.mark.parametrize(
    ("step", "thought", "answer"),
    [
        (step_of("<think>Hm.</think>\n\nYes."), "<think>Hm.", "Yes."),
        (step_of("Yes.", reasoning="Hm."), "Hm.", "Yes."),
        (step_of("No thought."), "No thought.", "No thought."),
        (step_of("<think>Endless"), "<think>Endless", "<think>Endless"),
    ],
)
def test_thought_and_answer_of_a_step(step: CompletionStep, thought: str, answer: str) -> None:
    assert (step.thought, step.answer) == (thought, answer)


def test_the_larger_count_of_tokens_is_used() -> None:
    assert CompletionStep(tokens=3, counted=5).generated == 5
    assert CompletionStep(tokens=3).generated == 3


@pytest.mark.parametrize("extend", ["refine", "wait", "effort", "cascade"])
def test_the_first_step_is_the_clients_request_with_log_probabilities(extend: str) -> None:
    body = body_after(extending(extend, max_tokens=9), left=9)
    assert body["messages"] == CHAT["messages"]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 9)
    assert body.get("reasoning_effort") == ("low" if extend == "effort" else None)


def test_refine_shows_every_attempt() -> None:
    job = extending("refine")
    ask = {"role": "user", "content": job.settings.prompts.refine}
    body = body_after(job, step_of("A"), step_of("B", reasoning="Hm."))
    assert body["messages"] == [
        *CHAT["messages"],
        {"role": "assistant", "content": "A"},
        ask,
        {"role": "assistant", "content": "B"},
        ask,
    ]


@pytest.mark.parametrize(("steps", "effort"), [(0, "low"), (1, "medium"), (2, "high"), (7, "high")])
def test_effort_rises_to_the_highest(steps: int, effort: str) -> None:
    body = body_after(extending("effort"), *[step_of("A")] * steps)
    assert (body["reasoning_effort"], body["messages"]) == (effort, CHAT["messages"])


def test_wait_continues_the_open_thought() -> None:
    wait = GatewaySettings(upstream="http://x", calibration=CALIBRATION).prompts.wait
    tagged = body_after(extending("wait"), step_of("<think>Hm. </think>A"))
    assert tagged["messages"][-1] == {"role": "assistant", "content": f"<think>Hm.{wait}"}
    separate = body_after(extending("wait"), step_of("A", reasoning="Hm."))
    assert separate["messages"][-1]["content"].startswith("<think>")


def test_wait_continues_a_thought_only_in_its_own_tags() -> None:
    job = replace(extending("wait"), formats=Formats(others=ANY, known=False))
    shown = replace(step_of("A", reasoning="<think>Hm."), formats=job.formats)
    assert body_after(job, shown)["messages"][-1]["content"] == f"<think>Hm.{job.settings.prompts.wait}"
    with pytest.raises(Refused) as refused:
        body_after(job, replace(step_of("A", reasoning="Hm."), formats=job.formats))
    assert refused.value.code == "unknown_tags"
    step = replace(step_of("[THINK]Hm.[/THINK]A"), formats=job.formats)
    assert body_after(job, step)["messages"][-1]["content"] == f"[THINK]Hm.{job.settings.prompts.wait}"
    opened = replace(step_of("Hm.</think>A"), formats=Formats(FORMATS["think-opened"]))
    assert body_after(job, opened)["messages"][-1]["content"] == f"<think>\nHm.{job.settings.prompts.wait}"


def test_a_cascade_asks_the_second_server_with_its_own_headers() -> None:
    job = extending("cascade", logprobs=True)
    body = body_after(job, step_of("A"))
    assert (body["model"], body["messages"]) == ("strong", CHAT["messages"])
    assert "top_logprobs" not in body
    assert server_of(job, 1) == (job.upstream, job.exchange.headers_for_new_body)
    assert server_of(job, 2) == (job.cascade, JSON)
    assert server_of(extending("refine"), 2)[0] is not None
