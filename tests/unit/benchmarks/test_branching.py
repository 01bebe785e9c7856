"""Branches, votes and second looks continue the same first samples, and the published comparison can be recomputed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import branching
from benchmarks.real.capitals import named
from benchmarks.timing import RESULTS
from justenough.stats import Estimate
from justenough.stats.text import points
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


def test_the_published_comparison_comes_from_its_traces(tmp_path: Path) -> None:
    folder, out = RESULTS / "real" / "branching", tmp_path / "out.json"
    options = ["--replay", "--names", "--folder", str(folder), "--thresholds", "2", "3", "--out", str(out)]
    assert branching.main(options) == 0
    again, published = (json.loads(path.read_text()) for path in (out, folder / "comparison.json"))
    assert again == published
    page = (RESULTS.parents[1] / "docs/explanation/systems.md").read_text()
    for way, label in (("eager", "EAGer"), ("entropy-gated", "entropy-gated")):
        for bits in (2, 3):
            rows = [again["totals"][f"{total} tokens"][f"{way}:{bits}.0, uniform"] for total in (4977, 6636)]
            assert f"| {label}, {bits} bits | {' | '.join(map(change, rows))} |" in page


def test_the_published_comparison_of_thoughts_comes_from_its_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branching, "SHARES", (2.0, 4.0))
    folder, out = RESULTS / "branching-thoughts", tmp_path / "out.json"
    options = ["--thoughts", "--model", "embedded:overconfident", "--replay", "--folder", str(folder)]
    assert branching.main([*options, "--thresholds", "0.25", "1", "--out", str(out)]) == 0
    again, published = (json.loads(path.read_text()) for path in (out, folder / "comparison.json"))
    totals = again["totals"]
    assert totals == {name: published["totals"][name] for name in totals}
    page = (RESULTS.parents[1] / "docs/explanation/budget.md").read_text()
    assert f"**Whole thoughts as samples**: {again['problems']} problems" in page
    for way, label in (("eager", "EAGer"), ("entropy-gated", "entropy-gated")):
        for bits, shown in ((0.25, ".25 bits"), (1.0, "1 bit")):
            cells = [
                change(rows[f"{way}:{bits}, {policy}"]) for rows in totals.values() for policy in ("uniform", "greedy")
            ]
            assert f"| {label}, {shown} | {' | '.join(cells)} |" in page


def change(row: dict[str, Any]) -> str:
    return points(Estimate(**row["change"])).replace(" to ", ", ")
