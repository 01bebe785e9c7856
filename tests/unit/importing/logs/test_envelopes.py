"""Records of a request with its response."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.importing import ImportOptions
from justenough.trace import Json
from tests.unit.importing.samples import (
    BITS,
    chunks,
    known_chat,
    litellm_record,
    loaded,
    ollama_reply,
    one_step,
    vllm_output,
)


def test_a_record_of_litellm(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "in", "auto", litellm_record())
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.model, trace.problem, trace.seed) == ("call-1", "m-1", "2+2?", 7)
    assert (trace.signal.temperature, bad) == (0.6, [])


@pytest.mark.parametrize("response", [known_chat(), json.dumps(known_chat()), {"body": known_chat()}, ollama_reply()])
def test_a_request_with_its_response_in_many_forms(tmp_path: Path, response: Json) -> None:
    request: Json = {"model": "asked", "messages": [{"role": "user", "content": "2+2?"}], "seed": 3}
    [trace], bad = loaded(tmp_path / "in", "auto", {"id": "a", "request": request, "response": response})
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.model, trace.problem, trace.seed) == ("a", "m-1", "2+2?", 3)
    assert bad == []


@pytest.mark.parametrize("as_text", [True, False])
def test_a_response_that_was_streamed(tmp_path: Path, as_text: bool) -> None:
    events = "".join(f"data: {json.dumps(piece)}\n\n" for piece in chunks()) + "data: [DONE]\n\n"
    pieces: list[Json] = [*chunks()]
    records: list[Json] = [
        {"id": identity, "request": {"model": "m-1", "stream": True}, "response": events if as_text else pieces}
        for identity in ("a", "b")
    ]
    traces, bad = loaded(tmp_path / "in", "auto", records)
    assert [(trace.id, one_step(trace)) for trace in traces] == [("a", ("4", 2, BITS)), ("b", ("4", 2, BITS))]
    assert bad == []


@pytest.mark.parametrize(
    "request_body",
    [
        {"temperature": 0},
        {"options": {"temperature": 0.0}},
        {"generationConfig": {"temperature": 0}},
        {"sampling_params": {"temperature": 0}},
    ],
)
def test_the_temperature_of_the_request(tmp_path: Path, request_body: Json) -> None:
    [trace], _ = loaded(tmp_path / "in", "log", {"request": request_body, "response": known_chat()})
    assert trace.signal.temperature == 0.0


def test_a_request_that_states_no_temperature(tmp_path: Path) -> None:
    [trace], _ = loaded(tmp_path / "in", "log", {"request": {"model": "m-1"}, "response": known_chat()})
    assert trace.signal.temperature is None


def test_the_model_of_the_request_names_a_reply_without_one(tmp_path: Path) -> None:
    reply = vllm_output()
    del reply["model"]
    [trace], _ = loaded(tmp_path / "in", "log", {"request": {"model": "asked"}, "response": reply})
    assert (trace.id, trace.model) == ("q1", "asked")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (litellm_record(status="failure", response=None, error_str="overloaded"), "overloaded"),
        (litellm_record(response={}), "no response"),
        (litellm_record(response={"status_code": 429, "body": {"error": {"message": "slow down"}}}), "429: slow down"),
        (litellm_record(response="only text"), "log the whole response"),
        (litellm_record(response={"text": "redacted"}), "log the whole response"),
    ],
)
def test_a_record_without_a_reply_says_why(tmp_path: Path, record: Json, reason: str) -> None:
    traces, [line] = loaded(tmp_path / "in", "log", record)
    assert traces == []
    assert reason in line.reason


def test_a_reply_is_graded_by_the_text_of_its_problem(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"id": "t1", "problem": "2+2?", "target": "4", "group": "easy"}')
    [trace], _ = loaded(tmp_path / "in", "log", litellm_record(), ImportOptions(tasks=str(tasks)))
    assert (trace.id, trace.group, trace.steps[0].correct) == ("t1", "easy", True)
