"""Generations of Langfuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.trace import Json
from tests.unit.importing.samples import BITS, known_chat, langfuse_generation, loaded, one_step


@pytest.mark.parametrize(
    "places",
    [
        {"output": known_chat()},
        {"output": json.dumps(known_chat())},
        {"output": {"role": "assistant", "content": "4"}, "metadata": {"response": known_chat()}},
    ],
)
def test_a_generation_with_the_whole_response(tmp_path: Path, places: dict[str, Json]) -> None:
    [trace], bad = loaded(tmp_path / "in", "auto", langfuse_generation(**places))
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.id, trace.model, trace.problem, trace.signal.temperature) == ("g1", "m-1", "2+2?", 0.6)
    assert bad == []


def test_a_parameter_may_be_written_as_a_text(tmp_path: Path) -> None:
    [trace], _ = loaded(tmp_path / "in", "langfuse", langfuse_generation(modelParameters={"temperature": "0.7"}))
    assert trace.signal.temperature == 0.7


def test_a_generation_with_the_message_only_is_a_bad_line(tmp_path: Path) -> None:
    record = langfuse_generation(output={"role": "assistant", "content": "4"})
    traces, [line] = loaded(tmp_path / "in", "langfuse", record)
    assert (traces, "log the whole response" in line.reason) == ([], True)


def test_the_generations_of_a_trace(tmp_path: Path) -> None:
    span = langfuse_generation(id="s1", type="SPAN", output=None)
    record: Json = {"id": "t1", "observations": [span, langfuse_generation(), langfuse_generation(id="g2")]}
    traces, bad = loaded(tmp_path / "in", "auto", record)
    assert ([trace.id for trace in traces], bad) == (["g1", "g2"], [])
