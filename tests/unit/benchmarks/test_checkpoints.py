"""The table of all rules at any checkpoint: on which problems, which rows, and which rule is the best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import checkpoints
from benchmarks.checkpoints import Row, best, halves, main, overview, rows_of, shown
from benchmarks.timing import RESULTS
from justenough.stats.text import percent, points
from justenough.trace.files import read_traces, write_traces
from tests.builders import population

PUBLISHED = {
    "sequential": {
        "answer convergence": "answer-convergence:2",
        "ES-CoT": "es-cot:tuned",
        "fixed budget": "always-2-steps",
        "DeepConf": "deepconf",
    },
    "streaming": {
        "the paper's gate": "mean, first",
        "HALT-CoT": "halt-cot:0.6:2",
        "answer convergence": "answer-convergence:2",
        "Dynasor": "dynasor:3",
        "DEER": "deer:0.95",
        "CoDE-Stop": "code-stop:0.9:2",
        "ES-CoT": "es-cot:tuned",
        "CUSUM": "cusum:tuned",
        "LearnStop": "learn-stop:tuned",
        "Conformal Thinking": "conformal-thinking:tuned",
        "fixed budget": "always-2-steps",
    },
}


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


@pytest.mark.parametrize("shape", ["sequential", "streaming"])
def test_the_published_figures_of_a_real_model_come_from_its_traces(shape: str) -> None:
    name = f"qwen2.5-coder-0.5b.word-problems.{shape}"
    labelled, measured = halves(read_traces(RESULTS / "real" / f"{name}.parquet").traces, seed=0)
    rows = rows_of(labelled, measured, levels=[0.1], seed=0)
    replayed = {row.rule: row.figures for row in rows if row.figures is not None}
    docs = RESULTS.parents[1] / "docs/explanation"
    table = (docs / "systems.md").read_text().split("## Rules that stop a thought")[1].split("\n## ")[0]
    for label, rule in PUBLISHED[shape].items():
        saving, change = replayed[rule].saving, replayed[rule].accuracy_change
        assert saving is not None
        cell = f"{percent(saving.value)}, {points(change).split(' [')[0]}"
        if not any((saving.value, saving.low, saving.high)):
            cell = "never stops"
        line = next(line for line in table.splitlines() if line.startswith(f"| {label}"))
        assert cell in line.split(" | ")[5], rule
    row = overview(name, len(labelled), len(measured), rows)
    assert f"\n{row}\n" in (docs / "checkpoints.md").read_text(encoding="utf-8")
