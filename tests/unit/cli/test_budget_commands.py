"""Budgets that cannot be spent: one clear line and exit 2, before anything is generated."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.cli import main
from justenough.trace.files import read_traces, write_traces
from tests.builders import population


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("budget")
    write_traces(population(60, seed=2), made / "t.jsonl")
    return made


def run(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0)


@pytest.mark.parametrize("amount", ["0", "-5", "nan", "inf", "-inf", "59", "many", ""])
@pytest.mark.parametrize("option", ["--total", "--per-problem"])
def test_totals_that_cannot_be_planned(
    option: str, amount: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (option, amount) == ("--per-problem", "59"):
        amount = "0.5"
    assert run("budget", folder / "t.jsonl", f"{option}={amount}", "--json") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1, shown.err


def test_a_plan_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("budget", folder / "t.jsonl", "--total", 80, "--json") == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)
    assert (made["policy"], made["total"], made["problems"]) == ("greedy", 80, 60)
    assert made["spent"] <= 80
    assert run("budget", folder / "t.jsonl", "--total", 80, "--policy", "magic") == 2
    assert "unknown policy 'magic'" in capsys.readouterr().err


@pytest.mark.parametrize("amount", ["0", "-5", "nan", "inf", "many", "1.5"])
@pytest.mark.parametrize("command", ["collect", "solve"])
def test_budgets_that_cannot_be_spent_live(
    command: str, amount: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.parquet"
    given: list[object] = ["7*18"]
    if command == "collect":
        given = ["--model", "embedded", "--tasks", "sum", "--limit", 3, "--out", out, "--policy", "uniform"]
    assert run(command, *given, f"--budget={amount}", "--json") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1, shown.err
    assert not out.exists()


def test_estimates_of_another_model_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.parquet"
    wanted = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", "3", "--steps", "2", "--out", out]
    assert run(*wanted, "--budget", 200, "--fit", folder / "t.jsonl") == 2
    shown = capsys.readouterr().err
    assert "fitted on model, the problems are answered by justenough-embedded" in shown
    assert len(shown.strip().splitlines()) == 1
    assert run(*wanted, "--budget", 200) == 2
    assert "needs to know what further steps bring" in capsys.readouterr().err


def test_the_limit_cuts_the_embedded_model_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.parquet"
    assert run("solve", "47*36", "--json") == 0
    free = json.loads(capsys.readouterr().out)["tokens"]
    assert run("solve", "47*36", "--budget", free - 3, "--json") == 0
    assert json.loads(capsys.readouterr().out)["tokens"] <= free - 3
    wanted = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", "6", "--out", out, "--policy", "uniform"]
    for total in (100, 101, 260):
        assert run(*wanted, "--budget", total, "--json") == 0
        made = json.loads(capsys.readouterr().out)
        assert made["spent"] <= total
        kept = sum(trace.tokens for trace in read_traces(out).traces)
        assert kept <= made["spent"]
    assert made["spent"] == 260


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled traces of the embedded model, to expect by."""
    out = tmp_path_factory.mktemp("fit") / "fit.parquet"
    wanted = ["collect", "--model", "embedded", "--tasks", "arithmetic-calibration", "--limit", 24, "--steps", 2]
    assert run(*wanted, "--out", out, "--json") == 0
    return out


def test_what_cannot_be_spent_as_asked_is_refused_before_anything_is_generated(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", 8, "--steps", 2]
    wanted += ["--out", tmp_path / "o.parquet", "--json"]
    for budget, given, said in (
        (7, ["--policy", "uniform"], "7 tokens are below one step for each of 8 problems"),
        (80, ["--fit", fitted], "80 tokens are below one step for each of 8 problems"),
        (900, ["--fit", fitted, "--policy", "oracle"], "only replay can"),
        (900, ["--fit", fitted, "--policy", "magic"], "unknown policy 'magic'"),
        (900, ["--policy", "knapsack"], "needs to know what further steps bring"),
    ):
        assert run(*wanted, "--budget", budget, *given) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert said in shown.err
        assert len(shown.err.strip().splitlines()) == 1, shown.err
        assert list(tmp_path.iterdir()) == []


def test_what_only_the_run_can_tell_to_be_too_little_is_told_with_what_was_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.parquet"
    wanted = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", 3, "--steps", 2, "--out", out]
    wanted += ["--policy", "uniform"]
    assert run(*wanted, "--budget", 30, "--json") == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)
    without = made["steps_histogram"][0]
    assert without > 0
    assert f"the budget ended before {without} of 3 problems had an answer" in shown.err
    assert made["spent"] == 30
    assert run(*wanted, "--budget", 400, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps_histogram"][0] == 0


def test_progress_is_in_tokens_and_expected_accuracy(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", 8, "--steps", 2]
    assert run(*wanted, "--out", tmp_path / "o.parquet", "--budget", 400, "--fit", fitted, "--json") == 0
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("budget: ")]
    assert len(lines) > 3
    parts = [re.fullmatch(r"budget: (\d+)/400 tokens, (\d) problems answered, (.+) % expected right", x) for x in lines]
    assert all(parts), lines
    spent = [int(part[1]) for part in parts if part]
    assert spent == sorted(spent)
    assert spent[-1] <= json.loads(shown.out)["spent"] <= 400


def test_one_problem_below_one_step_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "47*36", "--budget", 3, "--json") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip().splitlines() == [
        "justenough solve: 3 tokens were not enough for one step (raise the budget)"
    ]


def test_a_calibration_of_another_model_is_refused_under_a_budget(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = tmp_path / "c.json"
    assert run("calibrate", folder / "t.jsonl", "--out", calibration, "--force", "--json") == 0
    capsys.readouterr()
    assert run("solve", "47*36", "--budget", 60, "--calibration", calibration, "--temperature", 0.6, "--json") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "justenough-embedded" in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_calls_are_counted_by_every_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("budget", folder / "t.jsonl", "--total", 80, "--unit", "calls", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["unit"] == "calls"
    assert made["policies"]["uniform"]["spent"] == 80 == made["policies"]["uniform"]["calls"]
    assert run("budget", folder / "t.jsonl", "--total", 59, "--unit", "calls") == 2
    assert "59 calls are below one step for each of 60 problems" in capsys.readouterr().err.replace(".0", "")
    wanted = [
        "collect",
        "--model",
        "embedded",
        "--tasks",
        "sum",
        "--limit",
        4,
        "--policy",
        "uniform",
        "--unit",
        "calls",
    ]
    assert run(*wanted, "--out", tmp_path / "o.parquet", "--budget", 6, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["unit"], made["spent"], made["steps_histogram"]) == ("calls", 6, [0, 2, 2, 0, 0])
    assert run("solve", "47*36", "--budget", 1, "--unit", "calls", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["steps"]) == 1


def test_first_steps_alone_are_planned_for(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = [replace(trace, id=f"w-{trace.id}", steps=trace.steps[:1]) for trace in population(40, seed=9)]
    write_traces(waiting, tmp_path / "w.jsonl")
    spent = sum(trace.tokens for trace in waiting)
    wanted = ["budget", tmp_path / "w.jsonl", "--fit", folder / "t.jsonl"]
    assert run(*wanted, "--total", spent + 12, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["policy"], made["total"], made["problems"]) == ("greedy", spent + 12, 40)
    assert made["expected_spend"] <= spent + 12
    by_entropy = sorted(waiting, key=lambda trace: trace.steps[0].usable_bits(trace.signal) or 0.0)
    steps = [made["steps"][trace.id] for trace in by_entropy]
    assert steps[:15] == [1] * 15
    assert max(steps) == 2
    policies = made["policies"]
    assert policies["greedy"]["expected_right"] > policies["uniform"]["expected_right"]
    assert sum(policies["greedy"]["steps_histogram"]) == 40
    assert run(*wanted, "--total", spent + 12) == 0
    assert "greedy *" in capsys.readouterr().err
    for amount, more, said in (
        (spent - 1, [], f"{spent - 1} tokens are below one step for each of 40 problems"),
        (spent + 12, ["--policy", "oracle"], "the oracle needs recorded and graded steps"),
        (spent + 12, ["--policy", "magic"], "unknown policy 'magic'"),
    ):
        assert run(*wanted, "--total", amount, *more, "--json") == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert said in shown.err
    write_traces(population(60, seed=2, model="other"), tmp_path / "o.jsonl")
    assert run("budget", tmp_path / "w.jsonl", "--fit", tmp_path / "o.jsonl", "--total", 99) == 2
    assert "fitted on other, the problems are answered by model" in capsys.readouterr().err
    assert run("budget", tmp_path / "w.jsonl", "--total", 99) == 2
    assert "plan for them with --fit" in capsys.readouterr().err


def test_all_steps_are_beyond_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "47*36", "--budget", 40, "--verify") == 2
    assert "--verify runs all steps" in capsys.readouterr().err
