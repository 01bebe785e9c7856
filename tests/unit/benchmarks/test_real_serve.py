"""A base model behind llama.cpp's server: its conversation is a list of worked examples, and an answer is one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import httpx
import jinja2

from benchmarks.real.plan import tasks
from benchmarks.real.prompts import SENTENCE
from benchmarks.real.serve import FEW_SHOT, serve
from benchmarks.real.servers import usable_port
from tests.conftest import GGUF


def rendered(*contents: str) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    template = jinja2.Template(FEW_SHOT.read_text())
    return str(template.render(messages=messages, add_generation_prompt=True))


def test_a_question_follows_the_worked_examples() -> None:
    ask = SENTENCE.prompts.ask.format(problem="What is the capital of France?")
    blocks = rendered(ask).split("\n\n")
    assert len(blocks) == 6
    for example in blocks[:-1]:
        question, answer = example.split("\n")
        assert question.startswith("Question: ")
        # The form in which the tasks ask.
        assert question.endswith(ask.removeprefix("What is the capital of France?"))
        assert answer.startswith("Answer: ")
    assert blocks[-1] == f"Question: {ask}\nAnswer:"


def test_a_later_request_repeats_the_question_after_the_answers() -> None:
    text = rendered("A?", " First.", "Check it.", " Second.", "Check it.")
    turns = "Question: A?\nAnswer: First.\n\nQuestion: A? Check it.\nAnswer: Second.\n\nQuestion: A? Check it.\nAnswer:"
    assert text.endswith(f"\n\n{turns}")


def test_no_example_is_a_problem_of_a_task() -> None:
    examples = rendered("?")
    lines = [json.loads(line) for task in tasks().values() for line in task.lines or ()]
    assert len(lines) > 1000
    assert not [line["problem"] for line in lines if line["problem"] in examples]


def without_template(path: Path) -> Path:
    """The embedded model's file with another name for the entry of its template, which nobody knows."""
    key = b"tokenizer.chat_template"
    data = GGUF.read_bytes()
    entry = struct.pack("<Q", len(key)) + key
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, entry[:-1] + b"_"))
    return path


def served(path: Path) -> tuple[str, str]:
    """The prompt that the server makes of a question, and why an answer of many line ends is finished."""
    body = {"messages": [{"role": "user", "content": "A?"}], "max_tokens": 4, "logit_bias": [["\n", 1000]]}
    server = serve(path, port=usable_port(0), slots=1, context=640, threads=1, batch_threads=1)
    with httpx.Client(base_url=server.listening_address, timeout=600, trust_env=False) as client:
        prompt = client.post("/apply-template", json=body).json()["prompt"]
        return prompt, client.post("/v1/chat/completions", json=body).json()["choices"][0]["finish_reason"]


def test_a_file_without_a_template_gets_the_examples_and_stops_at_the_end_of_a_line(tmp_path: Path) -> None:
    assert served(without_template(tmp_path / "base.gguf")) == (rendered("A?"), "stop")


def test_a_file_with_a_template_keeps_it_and_writes_several_lines() -> None:
    assert served(GGUF) == ("<|user|>A?<|end|><|assistant|>", "length")
