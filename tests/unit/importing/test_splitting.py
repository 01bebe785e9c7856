"""A recorded thought as the steps of a stream."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from justenough.calibration import calibrate
from justenough.importing import ImportOptions
from justenough.trace import Json, Trace
from justenough.trace.files import BadLine
from tests.unit.importing.samples import LN2, chat, entry, lines, loaded

TWO = (-LN2, -LN2)
"""Probabilities 1/2 and 1/2: 1 bit."""
SURE = (0.0, -800.0)
"""Probabilities 1 and 0: 0 bits."""


def thoughtful(*tokens: tuple[str, tuple[float, float]], identity: str = "q1", finish: str = "stop") -> dict[str, Json]:
    text = "".join(token for token, _ in tokens)
    return chat(*[entry(token, *row) for token, row in tokens], identity=identity, text=text, finish=finish)


THOUGHT = (
    ("<think>", TWO),
    ("First", TWO),
    (".\n\n", TWO),
    ("Then", SURE),
    (" more", SURE),
    ("</think>", TWO),
    ("Answer: 4", TWO),
)


def split(tmp_path: Path, value: Json, name: str = "paragraph") -> tuple[list[Trace], list[BadLine]]:
    return loaded(tmp_path / "in", "auto", value, ImportOptions(split=name))


def test_a_thought_is_split_at_its_paragraphs(tmp_path: Path) -> None:
    [trace], bad = split(tmp_path, thoughtful(*THOUGHT))
    assert (trace.shape, trace.signal.splitter, bad) == ("streaming", "paragraph", [])
    assert [step.text for step in trace.steps] == ["<think>First.\n\n", "Then more"]
    # Three tokens of 1 bit, then two of 0 bits.
    assert [step.bits(trace.signal) for step in trace.steps] == [1.0, 0.0]
    first, last = trace.steps
    assert (first.answer, first.probe, first.prompt_tokens, first.finish) == (None, None, 7, None)
    assert (last.answer, last.prompt_tokens, last.finish) == ("4", 0, "stop")
    assert last.probe is not None
    assert (last.probe.answer, last.probe.tokens, last.probe.text) == ("4", 2, "</think>Answer: 4")
    assert trace.tokens == 7


@pytest.mark.parametrize(("name", "steps"), [("tokens:1", 4), ("tokens:2", 2), ("sentence", 2)])
def test_every_splitter_can_be_used(tmp_path: Path, name: str, steps: int) -> None:
    [trace], _ = split(tmp_path, thoughtful(*THOUGHT), name)
    assert (len(trace.steps), trace.tokens) == (steps, 7)


def test_a_thought_that_the_prompt_opens(tmp_path: Path) -> None:
    [trace], _ = split(tmp_path, thoughtful(*THOUGHT[1:]))
    assert [step.text for step in trace.steps] == ["First.\n\n", "Then more"]


def test_a_thought_that_is_cut_off_has_no_probe(tmp_path: Path) -> None:
    [trace], _ = split(tmp_path, thoughtful(*THOUGHT[:5], finish="length"))
    assert [step.text for step in trace.steps] == ["<think>First.\n\n", "Then more"]
    assert (trace.steps[-1].probe, trace.steps[-1].answer, trace.steps[-1].finish) == (None, None, "length")


def test_a_reply_without_a_thought_stays_one_step(tmp_path: Path) -> None:
    [trace], _ = split(tmp_path, thoughtful(("First.\n\n", TWO), ("Answer: 4", TWO)))
    assert (trace.shape, len(trace.steps), trace.steps[0].answer) == ("streaming", 1, "4")


def test_a_thought_of_which_most_tokens_are_hidden_is_not_split(tmp_path: Path) -> None:
    value = thoughtful(*THOUGHT) | {"usage": {"prompt_tokens": 7, "completion_tokens": 90}}
    traces, [line] = split(tmp_path, value)
    assert (traces, "only 7 of its 90 tokens" in line.reason) == ([], True)


def test_an_earlier_step_has_the_answer_that_the_thought_has_stated(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"id": "q1", "problem": "2+2?", "target": "4"}')
    stated = [("<think>", TWO), ("Hm.\n\n", TWO), ("The answer is 5.\n\n", TWO), ("No.\n\n", TWO)]
    value = thoughtful(*stated, ("The answer is 4.", TWO), ("\n\n", TWO), ("Done.", TWO), *THOUGHT[5:])
    options = ImportOptions(split="paragraph", tasks=str(tasks))
    [trace], _ = loaded(tmp_path / "in", "auto", value, options)
    assert [(step.answer, step.correct) for step in trace.steps] == [
        (None, None),
        ("5", False),
        ("5", False),
        ("4", True),
        ("4", True),
    ]


def test_a_streaming_calibration_can_be_made_from_split_replies(tmp_path: Path) -> None:
    values: list[Json] = []
    for at in range(60):
        right = at % 3 > 0
        row = (math.log(0.99), math.log(0.01)) if right else TWO
        state = f"The answer is {4 if right else 5}.\n\n"
        tokens = [("<think>", row), (state, row), ("So", row), ("</think>", TWO), ("Answer: 4", TWO)]
        values.append(thoughtful(*tokens, identity=f"q{at}"))
    tasks = tmp_path / "tasks.jsonl"
    problems: list[Json] = [{"id": f"q{at}", "problem": str(at), "target": "4"} for at in range(60)]
    tasks.write_bytes(lines(*problems))
    traces = loaded(tmp_path / "in", "auto", lines(*values), ImportOptions(split="paragraph", tasks=str(tasks))).traces
    calibration = calibrate(traces)
    # Right first steps: 0.99 and 0.01, so -0.99 log2 0.99 - 0.01 log2 0.01 = 0.0808 bits. Wrong ones: 1 bit.
    assert calibration.threshold == pytest.approx(0.0808, abs=1e-4)
    assert calibration.shape == "streaming"
