"""AdaDec on a real model: its files are apart, and the published figures come from the traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.real import look_ahead
from benchmarks.timing import RESULTS
from justenough.stats import Estimate
from justenough.stats.text import points
from justenough.trace import trace_from_json
from justenough.trace.files import read_traces

FOLDER = RESULTS / "real" / "look-ahead"


def test_no_question_is_learned_from_and_measured_on() -> None:
    rows = look_ahead.files()
    learned, measured = ({row["problem"] for row in rows[name]} for name in ("right", "rest"))
    assert len(learned) == look_ahead.LEARNED_ON
    assert not learned & measured
    assert all(trace_from_json(row).steps[0].is_correct for row in rows["right"])


def test_the_published_figures_come_from_the_traces(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert look_ahead.main([str(FOLDER), "--out", str(out)]) == 0
    again, published = (json.loads(path.read_text()) for path in (out, FOLDER / "comparison.json"))
    assert published.pop("pauses")["positions"] > 0
    assert again == published
    page = (RESULTS.parents[1] / "docs/explanation/systems.md").read_text()
    value, interval = points(Estimate(**again["change"])).replace(" to ", ", ").split(" ", 1)
    right, tokens = ([again[name][key] for name in ("greedy", "adadec")] for key in ("right", "tokens"))
    assert f"{right[0]} → {right[1]} right, {value} points {interval}, {again['rescued']} rescued" in page
    assert f"{tokens[0]:,} → {tokens[1]:,} tokens" in page


def test_other_problems_are_not_compared() -> None:
    greedy = list(read_traces(FOLDER / "greedy.parquet").traces)
    with pytest.raises(ValueError, match="not about the same problems"):
        look_ahead.compared(greedy, greedy[1:])
