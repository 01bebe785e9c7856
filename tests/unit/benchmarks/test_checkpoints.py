"""The table of all rules at any checkpoint: on which problems, which rows, and which rule is the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import checkpoints
from benchmarks.checkpoints import Row, best, halves, main, rows_of, shown
from justenough.trace.files import write_traces
from tests.builders import population


def test_all_runs_of_a_problem_are_in_one_half() -> None:
    traces = [trace for number in range(2) for trace in population(9, seed=number)]
    first, rest = halves(traces, seed=0)
    ids = [{trace.hashed_id for trace in part} for part in (first, rest)]
    assert (len(first), len(rest)) == (8, 10)
    assert not ids[0] & ids[1]


def test_the_best_rule_saves_most_within_the_margin() -> None:
    parts = halves(population(160, steps=4), seed=0)
    rows = {row.rule: row for row in rows_of(*parts, levels=[0.1], seed=0)}
    oracle, none = rows["oracle, every"], Row("risk", reason="too few")
    cheap, mean, equal = (rows[name] for name in ("always-one-step", "mean, first", "answer-convergence:2"))
    assert cheap.figures is not None
    assert cheap.figures.accuracy_change.value < -0.01
    assert best([oracle, none, cheap, mean]) == "mean, first"
    assert best([oracle, none, cheap, mean, equal]) == "answer-convergence:2"
    assert best([oracle, none, cheap]) is None


def test_a_certified_rule_is_shown_at_each_level() -> None:
    labelled, measured = halves(population(200, steps=4), seed=0)
    rows = rows_of(labelled, measured, levels=[0.01, 0.1], seed=0)
    known = {row.rule: row.figures is not None for row in rows}
    assert not known["risk, every, harm ≤ 1.0 %"]
    assert known["risk, every, harm ≤ 10.0 %"]
    assert [rule for rule in known if rule.startswith("mean")] == ["mean, first"]
    assert {"answer-convergence:2", "answer-convergence:tuned", "always-3-steps", "oracle, first"} < set(known)
    text = shown(rows, len(measured))
    assert "- risk, every, harm ≤ 1.0 %: risk: no threshold can be certified" in text
    assert text.count("% | 100 |") == sum(known.values())


def test_a_file_is_fitted_on_one_half_and_measured_on_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: dict[str, object] = {}
    monkeypatch.setattr(checkpoints, "write", lambda name, value: written.update({name: value}))
    traces = [replace(trace, id=f"{number}") for number, trace in enumerate(population(41, steps=3))]
    write_traces(traces, tmp_path / "own.jsonl")
    main([str(tmp_path / "own.jsonl")])
    assert "## own.jsonl: fitted on 20 problems, measured on 21 others" in capsys.readouterr().out
    assert list(written) == ["checkpoints-files"]
