"""Replies of Ollama's own protocol."""

from __future__ import annotations

from pathlib import Path

from justenough.trace import Json
from tests.unit.importing.samples import BITS, lines, loaded, ollama_reply, one_step, openai_entries


def test_a_reply_has_the_entropy_of_its_rows(tmp_path: Path) -> None:
    [trace], bad = loaded(tmp_path / "in", "ollama", ollama_reply())
    assert one_step(trace) == ("4", 2, BITS)
    assert (trace.model, trace.steps[0].prompt_tokens, trace.steps[0].finish) == ("m-1", 3, "stop")
    assert bad == []


def test_the_lines_of_a_streamed_chat_are_joined(tmp_path: Path) -> None:
    base: dict[str, Json] = {"model": "m-1", "done": False}
    pieces: list[Json] = [
        base | {"message": {"role": "assistant", "content": text}, "logprobs": [entry]}
        for text, entry in zip(("Answer: ", "4"), openai_entries(), strict=True)
    ]
    last: Json = ollama_reply(message={"role": "assistant", "content": ""}, logprobs=None)
    [trace], bad = loaded(tmp_path / "in", "auto", lines(*pieces, last))
    assert one_step(trace) == ("4", 2, BITS)
    assert bad == []


def test_a_thought_in_its_own_field_comes_before_the_answer(tmp_path: Path) -> None:
    message: Json = {"role": "assistant", "content": "4", "thinking": "Answer: "}
    [trace], _ = loaded(tmp_path / "in", "ollama", ollama_reply(message=message))
    assert trace.steps[0].text == "<think>Answer: </think>4"
