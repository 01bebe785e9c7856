"""The commands behind the budget's tables, on synthetic answers of known truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import budget, budget_pairs, budget_prompts
from justenough.budget import Recorded, cross_fit, sweep
from justenough.stats import Estimate
from justenough.trace.files import write_traces
from tests.builders import step, trace


def gsm8k(path: Path, *, n: int = 120) -> Path:
    """One model whose first answers' entropy tells right from wrong, one whose entropy says nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for model, tells in (("maker/tells", True), ("maker/blind", False)):
        for number in range(n):
            right = bool(rng.random() < 0.5)
            for name, limit in (("baseline", 30), ("cod", 80), ("cot", 100)):
                bits = float(rng.uniform(0, 0.4) + (0.5 if tells and not right else 0))
                unanswered = number % 40 == 0
                rows.append(
                    {
                        "model": model,
                        "prompting": name,
                        "prompt_id": f"prompt{number}",
                        "max_tokens": limit,
                        "entropy": None if unanswered else bits,
                        "tokens_used": int(rng.integers(limit // 3, limit)),
                        "correct": None if unanswered else right,
                        "llm_answer": None if unanswered else "1",
                    }
                )
                right = right or bool(rng.random() < 0.8)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_prompts_are_steps_and_the_entropy_s_part_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = gsm8k(tmp_path / "gsm8k.parquet")
    traces, limits = budget_prompts.ladders(answers)["maker/tells"]
    assert limits == [30, 80, 100]
    assert [len(each.steps) for each in traces] == [3] * 120
    assert sum(each.steps[0].is_unanswered for each in traces) == 3
    out = tmp_path / "out.json"
    assert budget_prompts.main([str(answers), "--points", "4", "--draws", "2", "--out", str(out)]) == 0
    made = json.loads(out.read_text())
    gains = {model: entropy_gains(answers, f"maker/{model}") for model in ("tells", "blind")}
    assert gains["tells"] > 0.05
    assert abs(gains["blind"]) < 0.05
    told = made["greedy against uniform, tokens"]
    assert told["tells"]["value"] > told["blind"]["value"]
    assert 0 <= told["tells"]["p_holm"] <= 0.05
    assert "cannot tell in" in capsys.readouterr().out


def entropy_gains(answers: Path, model: str) -> float:
    traces, limits = budget_prompts.ladders(answers)[model]
    held = Recorded.of(traces, limits=limits)
    totals = [int(held.tokens[:, 0].sum() * times) for times in (1.5, 2.5)]
    return budget_prompts.entropy_gain(held, cross_fit(held), totals).value


def test_many_weak_gains_are_none_after_holm(capsys: pytest.CaptureFixture[str]) -> None:
    base = sweep([trace(step(0.1 * n), step(0.1), id=f"p-{n}") for n in range(20)], points=3, draws=2, stops=[1] * 20)
    # Each interval lies just above 0: p is about .04, and four times that after Holm.
    weak, flat = Estimate(0.105, 0.005, 0.205, 20), Estimate(0.0, -0.1, 0.1, 20)
    made = [replace(base, overall={**base.overall, "greedy": weak}, equal_spend={"greedy": flat}) for _ in range(4)]
    found = budget_pairs.verdicts("greedy", list("abcd"), [(each, each) for each in made], unit="tokens")
    assert "interval above 0 in 4; after Holm better in 0, worse in 0, cannot tell in 4" in capsys.readouterr().out
    told: Any = found["greedy against uniform, tokens"]
    assert told["a"]["p_holm"] == pytest.approx(4 * budget_pairs.p_value(weak))
    assert budget_pairs.p_value(weak) < 0.05 < told["a"]["p_holm"]


def test_what_the_entropy_brings_is_averaged_over_the_same_totals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def entropy_gain(held: Any, known: Any, totals: Any) -> Estimate:
        asked.append(totals)
        return Estimate(0.0, 0.0, 0.0, 1)

    monkeypatch.setattr(budget_prompts, "entropy_gain", entropy_gain)
    path = gsm8k(tmp_path / "gsm8k.parquet", n=80)
    budget_prompts.main([str(path), "--points", "4", "--draws", "2", "--out", str(tmp_path / "out.json")])
    # Between the ends; early stopping's own total is none of them.
    assert [len(totals) for totals in asked] == [2, 2]


def test_blind_greedy_spends_as_greedy_does_but_on_anybody() -> None:
    rng = np.random.default_rng(1)
    made = []
    for number in range(200):
        right = bool(rng.random() < 0.5)
        bits = float(rng.uniform(0, 0.4) + (0 if right else 0.5))
        made.append(trace(step(entropy=bits, correct=right, tokens=20), step(entropy=0.1, tokens=20), id=f"p-{number}"))
    found = sweep(made, policies=("greedy", budget.Blind()), points=5, draws=4)
    assert found.verdict("greedy") == "better"
    assert found.verdict("greedy, blind") == "cannot tell"
    for total in found.totals[1:-1]:
        sees, blind = found.at("greedy", total), found.at("greedy, blind", total)
        assert sees is not None
        assert blind is not None
        assert sees.spent == pytest.approx(blind.spent, rel=0.05)


def test_the_sweep_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    traces = []
    for number in range(60):
        right = bool(rng.random() < 0.5)
        bits = float(rng.uniform(0, 0.4) + (0 if right else 0.5))
        traces.append(
            trace(step(entropy=bits, correct=right, tokens=20), step(entropy=0.1, tokens=20), id=f"p-{number}")
        )
    path, out = tmp_path / "t.jsonl", tmp_path / "out.json"
    write_traces(traces, path)
    assert budget.main([str(path), "--points", "3", "--draws", "2", "--out", str(out)]) == 0
    made = json.loads(out.read_text())["t.jsonl"]
    assert made.keys() >= {"batch", "online", "ablation", "signal"}
    shown = capsys.readouterr().out
    assert "against early stopping" in shown
    assert "greedy, blind" in shown
    row = next(row for row in made["batch"]["rows"] if row["policy"] == "greedy" and row["against_stopping"])
    assert row["total"] == next(row["total"] for row in made["batch"]["rows"] if row["policy"] == "early-stopping")


def test_verdicts_count_after_holm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    answers = gsm8k(tmp_path / "gsm8k.parquet", n=80)
    made = []
    for traces, limits in budget_prompts.ladders(answers).values():
        held = Recorded.of(traces, limits=limits)
        stops = [1] * 70 + [3] * 10
        made.append(sweep(held, policies=budget_pairs.POLICIES, points=4, draws=2, stops=stops))
    pairs = [(each, each) for each in made]
    found = budget_pairs.verdicts("greedy", ["blind", "tells"], pairs, unit="tokens")
    assert len(found) == 4
    for what, told in found.items():
        assert told.keys() == {"blind", "tells"}, what  # type: ignore[union-attr]
    said = capsys.readouterr().out
    assert said.count("after Holm better in") == 4
