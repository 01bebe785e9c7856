"""Replies of Gemini."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from justenough.trace import Json
from tests.unit.importing.samples import BITS, gemini_reply, lines, loaded, one_step


def test_a_reply_has_the_entropy_of_its_rows(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "in", "gemini", gemini_reply())
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.model, trace.steps[0].finish) == ("q1", "m-1", "stop")
    assert bad == []


def test_the_names_of_the_python_client_are_known(tmp_path: Path) -> None:
    def snake(value: Json) -> Json:
        if isinstance(value, list):
            return [snake(item) for item in value]
        if not isinstance(value, dict):
            return "FinishReason.STOP" if value == "STOP" else value
        return {re.sub("([A-Z])", r"_\1", key).lower(): snake(item) for key, item in value.items()}

    traces = loaded(tmp_path / "in", "auto", snake(gemini_reply())).traces
    assert traces == loaded(tmp_path / "in", "gemini", gemini_reply()).traces


def test_the_pieces_of_a_stream_are_joined(tmp_path: Path) -> None:
    piece = gemini_reply(finishReason=None, content={"parts": [{"text": "thinking", "thought": True}]})
    last = gemini_reply(logprobsResult=None)
    traces, bad = loaded(tmp_path / "in", "gemini", lines(piece, last))
    assert [one_step(trace) for trace in traces] == [("4", 2, BITS)]
    assert traces[0].steps[0].text == "<think>thinking</think>Answer: 4"
    assert bad == []


@pytest.mark.parametrize("result", [None, {}, {"chosenCandidates": [{"token": "4", "logProbability": -0.1}]}])
def test_a_reply_without_rows_says_how_to_get_them(tmp_path: Path, result: Json) -> None:
    traces, [line] = loaded(tmp_path / "in", "gemini", gemini_reply(logprobsResult=result))
    assert (traces, "responseLogprobs: true" in line.reason) == ([], True)
