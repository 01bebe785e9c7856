"""OpenAI's replies, hand-written and genuine."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.evaluation.diagnosis import diagnose
from justenough.importing import ImportOptions, import_file
from justenough.trace import Json
from justenough.trace.files import read_traces, write_traces
from tests.unit.importing.samples import (
    LN2,
    batch,
    chat,
    completion,
    entry,
    lines,
    loaded,
    one_step,
)

SHARED = Path(__file__).parents[5] / "shared" / "data"


def test_one_response_keeps_rows_usage_and_texts(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "one.json", "openai", chat())
    step = trace.steps[0]
    assert (trace.id, trace.model, trace.signal.kind, trace.signal.top_k) == ("chatcmpl-1", "m-1", "entropy", 2)
    assert one_step(trace) == ("4", 3, 1.0)
    assert (step.correct, step.prompt_tokens, step.finish, step.coverage()) == (None, 7, "stop", 1.0)
    assert step.token_texts == ("Answer", ": ", "4")
    assert step.logprobs == (-LN2, -LN2, -LN2)
    assert bad == []


def test_batch_lines_are_graded_by_custom_id_and_bad_ones_named(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_bytes(
        lines(
            {"id": "q1", "problem": "2+2", "target": 4, "group": "easy"},
            {"id": "q2", "problem": "2+3", "target": "5"},
            {"id": "q3", "problem": "?", "target": "5"},
        )
    )
    content = lines(
        batch("q1", chat()),
        batch("q2", chat()),
        "{broken",
        batch("q3", chat(text="", finish="length")),
        {"id": "b4", "custom_id": "q4", "response": None, "error": {"message": "expired"}},
        batch("q5", {"error": {"message": "too long"}}, status=400),
        batch("q1", chat()),
        {"custom_id": "q6", "response": {"status_code": 200, "body": {"choices": []}}},
        batch("elsewhere", chat()),
        "[1]",
    )
    found = loaded(tmp_path / "out.jsonl", "openai", content, ImportOptions(tasks=str(tasks), model="mine"))
    graded = {trace.id: (trace.steps[0].correct, trace.steps[0].is_unanswered) for trace in found.traces}
    assert graded == {"q1": (True, False), "q2": (False, False), "q3": (None, True), "elsewhere": (None, False)}
    first = found.traces[0]
    assert (first.model, first.task, first.group, first.problem, first.target) == ("mine", "tasks", "easy", "2+2", "4")
    reasons = dict(found.bad)
    assert sorted(reasons) == [3, 5, 6, 7, 8, 10]
    assert "expired" in reasons[5]
    assert "400" in reasons[6]
    assert "too long" in reasons[6]
    assert "line 1" in reasons[7]


def test_ids_that_match_no_task_are_an_error(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_bytes(lines({"id": "q1", "problem": "2+2", "target": 4}))
    with pytest.raises(InputError, match="chatcmpl-1"):
        loaded(tmp_path / "one.json", "openai", chat(), ImportOptions(tasks=str(tasks)))


def test_the_top_k_is_what_all_replies_have(tmp_path: Path) -> None:
    wide = [entry("4", *[-1.0 - at for at in range(21)])] * 40
    # One token in forty was merged to fewer entries: it is left out, and the coverage says so.
    merged = [*wide[:39], entry("4", -0.1, -3.0)]
    values: list[Json] = [
        chat(*wide, identity="wide", text="4" * 40),
        chat(*[entry("4", *[-1.0 - at for at in range(20)])] * 40, identity="exact", text="4" * 40),
        chat(*merged, identity="merged", text="4" * 40),
        chat(entry("4", -0.1), identity="one", text="4"),
    ]
    traces, bad = loaded(tmp_path / "in", "openai", values)
    assert {trace.signal.top_k for trace in traces} == {20}
    bits = [trace.steps[0].bits(trace.signal) for trace in traces]
    assert bits[0] == pytest.approx(bits[1])
    assert [trace.steps[0].coverage() for trace in traces] == [1.0, 1.0, 39 / 40]
    assert [(line.line, "of the chosen tokens only" in line.reason) for line in bad] == [(4, True)]
    assert (traces[2].steps[0].tokens, traces[2].steps[0].token_texts) == (40, None)
    write_traces(traces, tmp_path / "out.parquet")
    defects = {
        defect.kind: defect.problems for defect in diagnose(read_traces(tmp_path / "out.parquet").traces).defects
    }
    assert defects["merged_entries"] == 1


def test_a_text_completion_and_a_server_without_usage(tmp_path: Path) -> None:
    tops: list[Json] = [{"4": -LN2, "5": -LN2}, {"2": -LN2, "3": -LN2}]
    [trace], _ = loaded(tmp_path / "in", "openai", completion("c", "42", tops))
    assert one_step(trace) == ("42", 2, 1.0)


def test_several_choices_are_runs_of_one_problem(tmp_path: Path) -> None:
    value = chat(tokens=6)
    choices = value["choices"]
    assert isinstance(choices, list)
    assert isinstance(choices[0], dict)
    value["choices"] = [choices[0], choices[0] | {"index": 1}]
    traces, _ = loaded(tmp_path / "in", "openai", value)
    assert [(trace.id, trace.seed, trace.tokens) for trace in traces] == [("chatcmpl-1", 0, 3), ("chatcmpl-1", 1, 3)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (chat(finish="") | {"object": "chat.completion.chunk"}, "breaks off"),
        (chat() | {"model": None}, "model"),
        ({"error": {"message": "no such model"}, "id": "x"}, "no such model"),
        (chat(entry("4", float("nan"), -1.0)), "logprobs"),
        (completion("c", "4", []) | {"choices": [{"text": "4"}]}, "no log-probabilities"),
        (chat() | {"choices": 3}, "choices"),
        (7, "object"),
    ],
)
def test_a_response_that_cannot_be_used_says_why(tmp_path: Path, value: Json, reason: str) -> None:
    found = loaded(tmp_path / "in", "openai", lines(value, chat(identity="good")))
    assert [trace.id for trace in found.traces] == ["good"]
    assert [bad.line for bad in found.bad] == [1]
    assert reason in found.bad[0].reason


@pytest.mark.parametrize(("name", "top_k"), [("topk_5", 5), ("domain_reasoning", 20), ("model_gpt4o", 20)])
def test_genuine_responses(name: str, top_k: int) -> None:
    path = SHARED / "openai" / f"chat_logprobs_{name}.json.gz"
    if not path.is_file():
        pytest.skip("the shared responses are not at hand")
    value = json.loads(gzip.decompress(path.read_bytes()))
    [trace], bad = import_file(path, format="openai")
    rows = value["choices"][0]["logprobs"]["content"]
    expected = []
    for row in rows:
        weights = [math.exp(item["logprob"]) for item in row["top_logprobs"]]
        total = sum(weights)
        expected.append(-sum(weight / total * math.log2(weight / total) for weight in weights))
    assert bad == []
    assert trace.signal.top_k == top_k
    assert trace.steps[0].bits(trace.signal) == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert trace.tokens == value["usage"]["completion_tokens"]
    assert "".join(trace.steps[0].token_texts or ()) == value["choices"][0]["message"]["content"]
