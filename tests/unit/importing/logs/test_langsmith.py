"""Runs of LangSmith."""

from __future__ import annotations

from pathlib import Path

from justenough.trace import Json
from tests.unit.importing.samples import BITS, known_chat, langsmith_run, loaded, one_step, openai_entries


def test_a_run_of_langchain(tmp_path: Path) -> None:
    run = langsmith_run(extra={"invocation_params": {"temperature": 0.6}})
    [trace], bad = loaded(tmp_path / "in", "auto", run)
    assert (one_step(trace), trace.signal.temperature) == (("4", 2, BITS), 0.6)
    assert (trace.id, trace.model, trace.problem, trace.steps[0].prompt_tokens) == ("r1", "m-1", "2+2?", 3)
    assert bad == []


def test_a_run_of_a_wrapped_client(tmp_path: Path) -> None:
    inputs: Json = {"messages": [{"role": "user", "content": "2+2?"}], "temperature": 0.6}
    [trace], bad = loaded(tmp_path / "in", "auto", langsmith_run(outputs=known_chat(), inputs=inputs))
    assert (one_step(trace), trace.problem, trace.signal.temperature) == (("4", 2, BITS), "2+2?", 0.6)
    assert bad == []


def test_log_probabilities_in_the_generation_info(tmp_path: Path) -> None:
    info: Json = {"finish_reason": "stop", "logprobs": {"content": openai_entries()}, "model_name": "m-1"}
    outputs: Json = {"generations": [[{"text": "Answer: 4", "generation_info": info}]]}
    [trace], bad = loaded(tmp_path / "in", "langsmith", langsmith_run(outputs=outputs))
    assert one_step(trace) == ("4", 2, BITS)
    assert bad == []


def test_chains_have_no_reply_and_texts_no_log_probabilities(tmp_path: Path) -> None:
    chain = langsmith_run(id="c1", run_type="chain")
    message: Json = {"content": "4", "type": "ai"}
    bare = langsmith_run(outputs={"generations": [[{"text": "4", "message": message}]]})
    traces, [line] = loaded(tmp_path / "in", "langsmith", [chain, langsmith_run() | {"id": "r0"}, bare])
    assert [trace.id for trace in traces] == ["r0"]
    assert line.line == 3
