"""Replies of the Responses API."""

from __future__ import annotations

import json
from pathlib import Path

from justenough.trace import Json
from tests.unit.importing.samples import BITS, loaded, one_step, openai_entries, response


def test_a_response_has_the_entropy_of_its_rows(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "in", "responses", response(temperature=0.6))
    assert (one_step(trace), trace.signal.temperature) == (("4", 2, BITS), 0.6)
    assert (trace.id, trace.model, trace.steps[0].prompt_tokens, trace.steps[0].finish) == ("q1", "m-1", 3, "stop")
    assert bad == []


def test_the_last_event_of_a_stream_has_the_response(tmp_path: Path) -> None:
    events: list[Json] = [
        {"type": "response.created", "response": response(status="in_progress", output=[])},
        {"type": "response.output_text.delta", "delta": "4", "logprobs": openai_entries()},
        {"type": "response.completed", "response": response()},
    ]
    text = "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events)
    traces, bad = loaded(tmp_path / "in", "auto", text.encode())
    assert [one_step(trace) for trace in traces] == [("4", 2, BITS)]
    assert bad == []


def test_a_response_that_calls_a_tool_is_not_a_trace(tmp_path: Path) -> None:
    call: Json = {"type": "function_call", "name": "add", "arguments": "{}"}
    traces, [line] = loaded(tmp_path / "in", "responses", response(output=[call]))
    assert traces == []
    assert line.reason.startswith("the reply calls a tool and has no log-probabilities")
    assert "message.output_text.logprobs" in line.reason


def test_a_failed_and_a_cut_response(tmp_path: Path) -> None:
    failed = response(status="failed", error={"message": "overloaded"})
    cut = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    [trace], [line] = loaded(tmp_path / "in", "responses", [failed, cut])
    assert "overloaded" in line.reason
    assert trace.steps[0].finish == "length"
