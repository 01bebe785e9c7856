"""Saved streams."""

from __future__ import annotations

import json
from pathlib import Path

from justenough.trace import Json
from tests.unit.importing.samples import BITS, chunks, completion, lines, loaded, one_step


def events(*values: Json, empty_lines: bool = True) -> bytes:
    end = "\n\n" if empty_lines else "\n"
    return "".join(f"data: {json.dumps(value)}{end}" for value in values).encode()


def test_chunks_are_joined_and_two_streams_may_alternate(tmp_path: Path) -> None:
    both: list[Json] = [piece for pair in zip(chunks(), chunks(identity="q2"), strict=True) for piece in pair]
    traces, bad = loaded(tmp_path / "in", "auto", lines(*both))
    assert [(trace.id, one_step(trace)) for trace in traces] == [("q1", ("4", 2, BITS)), ("q2", ("4", 2, BITS))]
    assert (traces[0].steps[0].prompt_tokens, traces[0].steps[0].finish, bad) == (3, "stop", [])


def test_server_sent_events_with_and_without_empty_lines(tmp_path: Path) -> None:
    for empty_lines in (True, False):
        content = b": ping\n\nevent: message\n" + events(*chunks(), empty_lines=empty_lines) + b"data: [DONE]\n\n"
        traces, bad = loaded(tmp_path / "in", "auto", content + content)
        assert [one_step(trace) for trace in traces] == [("4", 2, BITS)]
        # After [DONE] another connection begins; the same id again is no run of its own.
        assert [("also in line" in line.reason) for line in bad] == [True]


def test_a_stream_that_breaks_off_is_a_bad_line(tmp_path: Path) -> None:
    traces, bad = loaded(tmp_path / "in", "auto", lines(*chunks()[:2], *chunks(identity="q2")))
    assert [trace.id for trace in traces] == ["q2"]
    assert [(line.line, "breaks off" in line.reason) for line in bad] == [(1, True)]


def test_an_event_that_is_not_json_is_a_bad_line(tmp_path: Path) -> None:
    traces, bad = loaded(tmp_path / "in", "openai", b"data: {oops\n\n" + events(*chunks()))
    assert ([trace.id for trace in traces], [line.line for line in bad]) == (["q1"], [1])


def test_reasoning_and_a_tool_call_in_chunks(tmp_path: Path) -> None:
    first, *rest = chunks()
    choice: Json = {"index": 0, "delta": {"reasoning_content": "hm "}}
    thought: Json = first | {"choices": [choice]}
    [trace], _ = loaded(tmp_path / "in", "auto", lines(thought, first, *rest))
    assert trace.steps[0].text == "<think>hm </think>Answer: 4"
    calls: Json = {"index": 0, "delta": {"tool_calls": [{"index": 0}]}, "finish_reason": "tool_calls"}
    traces, [line] = loaded(tmp_path / "in", "auto", lines(first | {"choices": [calls]}))
    assert (traces, "calls a tool" in line.reason) == ([], True)


def test_more_streams_than_are_kept_open(tmp_path: Path) -> None:
    pieces: list[Json] = [piece for at in range(300) for piece in chunks(identity=f"q{at}")]
    traces, bad = loaded(tmp_path / "in", "auto", lines(*pieces))
    assert (len(traces), bad) == (300, [])


def test_text_completions_as_events(tmp_path: Path) -> None:
    pieces: list[Json] = [completion("c", text, [{text: -0.5, "5": -1.0}]) for text in "42"]
    choices = pieces[0]["choices"]  # type: ignore[index, call-overload]
    choices[0]["finish_reason"] = None  # type: ignore[index, call-overload]
    [trace], bad = loaded(tmp_path / "in", "auto", events(*pieces))
    assert (trace.steps[0].text, trace.tokens, trace.steps[0].finish, bad) == ("42", 2, "length", [])
