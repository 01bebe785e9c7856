"""Logs of Inspect AI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing import ImportOptions
from justenough.trace import Json
from tests.unit.importing.samples import (
    LN2,
    entry,
    inspect_log,
    loaded,
    model_event,
    one_step,
    sample,
)


def test_an_inspect_log(tmp_path: Path) -> None:
    tool = model_event("")
    output = tool["output"]
    assert isinstance(output, dict)
    choices = output["choices"]
    assert isinstance(choices, list)
    assert isinstance(choices[0], dict)
    choices[0]["message"] = {"content": "calling 4", "tool_calls": [{"function": "calculator"}]}
    judge: Json = {"event": "span_begin", "name": "scorers", "type": "scorers"}
    log = inspect_log(
        sample(1, model_event("5"), model_event("4"), judge, model_event("9")),
        sample("two", model_event("4", model="openai/other"), model_event("5"), value=0, answer=None),
        sample(3, tool, model_event("4", error="overloaded"), model_event("4"), value=True),
        sample(4, model_event("4"), value={"a": 1}),
        sample(5, model_event("4"), error={"message": "killed"}),
        sample(6, model_event("?"), value="N", answer=None),
        sample(7, judge, model_event("4")),
        "what",
    )
    traces, bad = loaded(tmp_path / "log.json", "inspect", log)
    graded = [[(step.answer, step.correct) for step in trace.steps] for trace in traces]
    assert graded == [
        [("5", False), ("4", True)],
        [("5", False)],
        [(None, None), ("4", True)],
        [(None, None)],
    ]
    first = traces[0]
    assert (first.id, first.task, first.model, first.seed) == ("1", "popularity", "openai/m-1", 1)
    assert (first.problem, first.target) == ("2+2?", "4")
    assert (first.signal.top_k, first.signal.temperature) == (2, 0.7)
    assert one_step(first) == ("5", 1, 1.0)
    assert (first.steps[0].prompt_tokens, first.steps[0].latency_s, first.steps[0].finish) == (11, 1.5, "length")
    assert [row.line for row in bad] == [4, 5, 7, 8]
    assert "killed" in bad[1].reason


def test_an_inspect_log_of_the_older_form_with_texts_apart(tmp_path: Path) -> None:
    event = model_event("4")
    output = event["output"]
    assert isinstance(output, dict)
    parts: Json = [{"type": "reasoning", "reasoning": "hm 7"}, {"type": "text", "text": "attachment://k"}]
    logprobs: Json = {"content": [entry("4", -LN2, -LN2)]}
    output["choices"] = [{"message": {"content": parts}, "stop_reason": "stop", "logprobs": logprobs}]
    old = sample("q", answer=None, input=[{"role": "user", "content": "tc://p"}], attachments={"k": "Answer: 4"})
    del old["events"]
    old["transcript"] = {"events": [event], "content": {"p": "2+2?"}}
    plain = sample("p", answer=None, output=output, attachments={"k": "Answer: 4"})
    traces, bad = loaded(tmp_path / "log.json", "inspect", inspect_log(old, plain, sample("lost", event)))
    assert [trace.steps[0].answer for trace in traces] == ["4", "4"]
    assert traces[0].problem == "2+2?"
    assert traces[0].steps[0].text == "<think>hm 7</think>Answer: 4"
    assert traces[0].steps[0].bits(traces[0].signal) == 1.0
    assert "attachment://k" in bad[0].reason


def test_a_json_file_that_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an Inspect log"):
        loaded(tmp_path / "log.json", "inspect", {"a": 1})


def test_the_header_may_follow_the_samples(tmp_path: Path) -> None:
    log = dict(reversed(inspect_log(sample(1, model_event("4"))).items()))
    (trace,), bad = loaded(tmp_path / "log.json", "auto", log)
    assert (trace.model, trace.signal.temperature, bad) == ("openai/m-1", 0.7, [])


def test_the_temperature_of_the_call_comes_before_that_of_the_log(tmp_path: Path) -> None:
    log = inspect_log(sample(1, model_event("4", config={"temperature": 0})))
    [trace], _ = loaded(tmp_path / "log.json", "inspect", log)
    assert trace.signal.temperature == 0.0


def test_a_call_of_a_tool_has_log_probabilities_of_another_text(tmp_path: Path) -> None:
    event = model_event("Calling.")
    output = event["output"]
    assert isinstance(output, dict)
    entries: Json = [entry(text, -LN2, -LN2) for text in ('{"name"', ": ", '"add"}')]
    message: Json = {"content": "Calling.", "tool_calls": [{"function": "add"}]}
    output["choices"] = [{"message": message, "stop_reason": "tool_calls", "logprobs": {"content": entries}}]
    [trace], bad = loaded(tmp_path / "log.json", "inspect", inspect_log(sample(1, event, model_event("4"))))
    assert ([step.answer for step in trace.steps], bad) == ([None, "4"], [])


def test_logs_on_lines_and_in_an_array(tmp_path: Path) -> None:
    logs: list[Json] = [inspect_log(sample(name, model_event("4"))) for name in ("a", "b")]
    for content in ("\n".join(map(json.dumps, logs)), json.dumps(logs)):
        traces, bad = loaded(tmp_path / "log.json", "auto", content.encode())
        assert ([trace.id for trace in traces], bad) == (["a", "b"], [])


def test_a_log_that_breaks_off_keeps_its_whole_samples(tmp_path: Path) -> None:
    log = json.dumps(inspect_log(*[sample(number, model_event("4")) for number in (1, 2, 3)]))
    traces, (bad,) = loaded(tmp_path / "log.json", "auto", log[: log.rindex('"scores"')].encode())
    assert [trace.id for trace in traces] == ["1", "2"]
    assert bad.line == 3
    assert bad.reason.startswith("not JSON: Expecting property name")


def test_epochs_are_runs_and_reports_of_the_gateway_stay(tmp_path: Path) -> None:
    event = model_event("4")
    output = event["output"]
    assert isinstance(output, dict)
    output["metadata"] = {"justenough": {"stopped": True}}
    log = inspect_log(*[sample(1, event, epoch=epoch, metadata={"justenough": {"rule": "r"}}) for epoch in (1, 2, 2)])
    traces, bad = loaded(tmp_path / "log.json", "auto", log)
    assert [(trace.id, trace.seed, trace.extra) for trace in traces] == [
        ("1", 1, {"justenough": {"rule": "r"}}),
        ("1", 2, {"justenough": {"rule": "r"}}),
    ]
    assert traces[0].steps[0].extra == {"justenough": {"stopped": True}}
    assert [line.line for line in bad] == [3]


def test_the_report_in_the_recorded_response_of_the_gateway_stays(tmp_path: Path) -> None:
    event = model_event("4") | {"call": {"request": {}, "response": {"justenough": {"decision": "stopped"}}}}
    [trace], _ = loaded(tmp_path / "log.json", "inspect", inspect_log(sample(1, event)))
    assert trace.steps[0].extra == {"justenough": {"decision": "stopped"}}


def test_a_sample_without_log_probabilities_is_a_bad_line(tmp_path: Path) -> None:
    event = model_event("4")
    output = event["output"]
    assert isinstance(output, dict)
    output["choices"] = [{"message": {"content": "4"}, "stop_reason": "stop"}]
    traces, bad = loaded(tmp_path / "log.json", "inspect", inspect_log(sample(1, event)))
    assert (traces, len(bad)) == ([], 1)
    assert "no log-probabilities: run Inspect with" in bad[0].reason


def test_a_sample_of_one_call_is_split(tmp_path: Path) -> None:
    event = model_event("Hm.\n\nSo</think>Answer: 4")
    output = event["output"]
    assert isinstance(output, dict)
    entries: Json = [entry(text, -LN2, -LN2) for text in ("Hm.\n\n", "So", "</think>", "Answer: 4")]
    message: Json = {"content": "Hm.\n\nSo</think>Answer: 4"}
    output["choices"] = [{"message": message, "stop_reason": "stop", "logprobs": {"content": entries}}]
    output["usage"] = {"output_tokens": 4}
    log = inspect_log(sample(1, event), sample(2, event, event))
    traces, bad = loaded(tmp_path / "log.json", "inspect", log, ImportOptions(split="paragraph"))
    assert [[step.text for step in trace.steps] for trace in traces] == [["Hm.\n\n", "So"]]
    assert traces[0].steps[-1].correct is True
    assert [(line.line, "2 calls" in line.reason) for line in bad] == [(2, True)]
