"""Samples of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.importing import ImportOptions
from justenough.trace import Json
from tests.unit.importing.samples import lmeval_sample, loaded

MINE = ImportOptions(model="mine")


def test_the_entropy_over_the_choices(tmp_path: Path) -> None:
    # Likelihoods e**-2 twice and 0 (as -inf cannot be in JSON, -800): 1/2 and 1/2 of their sum, so 1 bit.
    replies: Json = [["-2.0", "True"], ["-800", "False"], ["-2.0", "False"]]
    path = tmp_path / "samples_arc_2026-01-02T03-04-05.123.jsonl"
    [trace], bad = loaded(path, "auto", lmeval_sample(filtered_resps=replies), MINE)
    step = trace.steps[0]
    assert step.bits(trace.signal) == pytest.approx(1.0)
    assert (trace.id, trace.task, trace.model, trace.problem, trace.target) == ("0", "arc", "mine", "2+2?", "1")
    assert (step.answer, step.correct, trace.signal.kind) == ("0", True, "answer-choice-entropy")
    assert bad == []


@pytest.mark.parametrize("replies", [["the answer is 4"], [["-2.0", "True"]], [], None])
def test_generated_text_has_no_signal(tmp_path: Path, replies: Json) -> None:
    traces, [line] = loaded(tmp_path / "in", "lm-eval", lmeval_sample(filtered_resps=replies, resps=replies), MINE)
    assert (traces, "no log-probabilities of generated text" in line.reason) == ([], True)


def test_the_model_must_be_named(tmp_path: Path) -> None:
    traces, [line] = loaded(tmp_path / "in", "lm-eval", lmeval_sample())
    assert (traces, "give --model NAME" in line.reason) == ([], True)
