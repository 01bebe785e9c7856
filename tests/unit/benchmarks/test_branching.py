"""Branches, votes and second looks continue the same first samples, and the published comparison can be recomputed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import branching
from benchmarks.real.capitals import named
from justenough.trace.files import read_traces
from tests.builders import step, trace


@pytest.mark.parametrize(
    ("text", "question", "name"),
    [
        ("The capital of Nigeria is Abuja.", "What is the capital of Nigeria?", "abuja"),
        ("Nigeria's capital is Abuja, a large city.", "What is the capital of Nigeria?", "abuja"),
        ("Beijing is the capital of China.", "Which country has the capital Beijing?", "china"),
        ("It is New Delhi.", "What is the capital of India?", "it new delhi"),
        ("I do not know.", "What is the capital of India?", "i"),
        ("nothing", "What is the capital of India?", None),
    ],
)
def test_a_vote_is_the_name_that_the_question_does_not_contain(text: str, question: str, name: str | None) -> None:
    assert named(text, question) == name


def test_equal_names_outvote_a_sentence() -> None:
    texts = ["Its capital is Lagos.", "The capital of Nigeria is Abuja.", "Nigeria has the capital Abuja."]
    right = [False, True, True]
    steps = [
        replace(step(text=text), extra={"sample": text, "sample_correct": correct})
        for text, correct in zip(texts, right, strict=True)
    ]
    votes = branching.by_names(replace(trace(*steps), problem="What is the capital of Nigeria?"))
    assert [each.answer for each in votes.steps] == [texts[0], texts[0], texts[1]]
    assert [each.correct for each in votes.steps] == [False, False, True]


def test_every_way_continues_the_same_first_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branching, "SHARES", (2.0,))
    monkeypatch.setattr(branching, "DRAWS", 2)
    out, again = tmp_path / "out.json", tmp_path / "again.json"
    options = ["--limit", "6", "--tuning", "0", "--thresholds", "0.1", "--samples", "2", "--folder", str(tmp_path)]
    assert branching.main([*options, "--out", str(out)]) == 0
    firsts = [[each.steps[0].text for each in read_traces(path).traces] for path in sorted(tmp_path.glob("*.parquet"))]
    assert len(firsts) == 4
    assert all(each == firsts[0] for each in firsts)
    assert branching.main([*options, "--replay", "--out", str(again)]) == 0
    assert json.loads(again.read_text()) == json.loads(out.read_text())
