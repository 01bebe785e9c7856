"""`justenough budget`, and the budgets of `collect` and `solve`: plans, comparisons and impossible totals."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.budget import POLICIES
from justenough.trace.files import read_traces, write_traces
from tests.builders import population
from tests.unit.cli.invoke import run

COLLECT = ["collect", "--model", "embedded", "--tasks", "sum"]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "t.jsonl"
    write_traces(population(60, seed=2), path)
    return path


@pytest.mark.parametrize("amount", ["0", "-5", "nan", "inf", "-inf", "0.5", "many", ""])
@pytest.mark.parametrize("option", ["--total", "--per-problem"])
def test_totals_that_cannot_be_planned_are_refused(option: str, amount: str, labelled: Path) -> None:
    result = run("budget", labelled, f"{option}={amount}", "--json")
    assert result.code == 2
    assert result.error.startswith("justenough budget: ")


def test_a_comparison_has_a_row_for_each_policy(labelled: Path) -> None:
    result = run("budget", labelled, "--total", 80)
    assert result.code == 0
    assert result.out.startswith("60 problems, 80 tokens in total\n")
    assert [line.split()[0] for line in result.out.splitlines()[3:]] == list(POLICIES)
    assert "\ngreedy * " in result.out
    reply = run("budget", labelled, "--total", 80, "--json").json
    assert (reply["policy"], reply["total"], reply["problems"], reply["unit"]) == ("greedy", 80, 60, "tokens")
    assert reply["spent"] <= 80
    assert set(reply["policies"]) == set(POLICIES)


def test_the_amount_per_problem_is_shared(labelled: Path) -> None:
    one = run("budget", labelled, "--per-problem", 1.5, "--json").json
    assert one == run("budget", labelled, "--total", 90, "--json").json


def test_an_unknown_policy_is_refused(labelled: Path) -> None:
    result = run("budget", labelled, "--total", 80, "--policy", "magic")
    assert result.code == 2
    assert "unknown policy 'magic'" in result.error


def test_calls_can_be_counted(labelled: Path) -> None:
    reply = run("budget", labelled, "--total", 80, "--unit", "calls", "--json").json
    assert reply["unit"] == "calls"
    assert reply["policies"]["uniform"]["spent"] == 80 == reply["policies"]["uniform"]["calls"]
    result = run("budget", labelled, "--total", 59, "--unit", "calls")
    assert result.code == 2
    assert "59 calls are below one step for each of 60 problems" in result.error.replace(".0", "")


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """Problems whose first step alone is recorded."""
    path = tmp_path / "w.jsonl"
    write_traces([replace(one, id=f"w-{one.id}", steps=one.steps[:1]) for one in population(40, seed=9)], path)
    return path


def test_a_plan_gives_steps_to_uncertain_problems(labelled: Path, waiting: Path) -> None:
    traces = read_traces(waiting).traces
    total = sum(trace.tokens for trace in traces) + 12
    result = run("budget", waiting, "--fit", labelled, "--total", total, "--json")
    assert result.code == 0
    plan = result.json
    assert (plan["policy"], plan["total"], plan["problems"]) == ("greedy", total, 40)
    assert plan["expected_spend"] <= total
    by_entropy = sorted(traces, key=lambda trace: trace.steps[0].usable_bits(trace.signal) or 0.0)
    steps = [plan["steps"][trace.id] for trace in by_entropy]
    assert steps[:15] == [1] * 15
    assert max(steps) == 2
    policies = plan["policies"]
    assert policies["greedy"]["expected_right"] > policies["uniform"]["expected_right"]
    assert sum(policies["greedy"]["steps_histogram"]) == 40
    text = run("budget", waiting, "--fit", labelled, "--total", total).out
    assert "greedy *" in text
    assert "bits of step 1" in text


def test_plans_that_are_not_possible_are_refused(labelled: Path, waiting: Path, tmp_path: Path) -> None:
    total_spent = sum(trace.tokens for trace in read_traces(waiting).traces)
    other = tmp_path / "o.jsonl"
    write_traces(population(60, seed=2, model="other"), other)
    for arguments, message in (
        (
            ("--fit", labelled, "--total", total_spent - 1),
            f"{total_spent - 1} tokens are below one step for each of 40 problems",
        ),
        (
            ("--fit", labelled, "--total", total_spent + 12, "--policy", "oracle"),
            "oracle needs recorded and graded steps",
        ),
        (("--fit", labelled, "--total", total_spent + 12, "--policy", "magic"), "unknown policy 'magic'"),
        (("--fit", other, "--total", 99), "fitted on other, the problems are answered by model"),
        (("--total", 99), "plan for them with --fit"),
    ):
        result = run("budget", waiting, *arguments)
        assert result.code == 2
        assert message in result.error


@pytest.mark.parametrize("amount", ["0", "-5", "nan", "inf", "many", "1.5"])
@pytest.mark.parametrize("command", ["collect", "solve"])
def test_budgets_that_cannot_be_spent_are_refused_before_a_run(command: str, amount: str, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    options: list[object] = ["solve", "7*18"]
    if command == "collect":
        options = [*COLLECT, "--limit", 3, "--out", out, "--policy", "uniform"]
    result = run(*options, f"--budget={amount}", "--json")
    assert result.code == 2
    assert "budget is" in result.error
    assert not out.exists()


def test_estimates_of_another_model_are_refused(labelled: Path, tmp_path: Path) -> None:
    command = [*COLLECT, "--limit", 3, "--steps", 2, "--out", tmp_path / "o.parquet", "--budget", 200]
    assert "fitted on model, the problems are answered by justenough-embedded" in run(*command, "--fit", labelled).error
    assert "needs an estimate of what further steps gain" in run(*command).error


def test_a_total_that_is_too_small_is_refused_before_a_run(embedded: Path, tmp_path: Path) -> None:
    command = [*COLLECT, "--limit", 8, "--steps", 2, "--out", tmp_path / "o.parquet", "--json"]
    for budget, options, message in (
        (7, ["--policy", "uniform"], "7 tokens are below one step for each of 8 problems"),
        (80, ["--fit", embedded], "80 tokens are below one step for each of 8 problems"),
        (900, ["--fit", embedded, "--policy", "oracle"], "it works only in a replay"),
        (900, ["--fit", embedded, "--policy", "magic"], "unknown policy 'magic'"),
        (900, ["--policy", "knapsack"], "needs an estimate of what further steps gain"),
    ):
        result = run(*command, "--budget", budget, *options)
        assert result.code == 2
        assert message in result.error
        assert list(tmp_path.iterdir()) == []


def test_a_budget_that_ends_early_keeps_what_it_paid_for(tmp_path: Path) -> None:
    command = [*COLLECT, "--limit", 3, "--steps", 2, "--out", tmp_path / "o.parquet", "--policy", "uniform", "--json"]
    result = run(*command, "--budget", 30)
    assert result.code == 0
    without = result.json["steps_histogram"][0]
    assert without > 0
    assert f"warning: the budget ended before {without} of 3 problems had an answer" in result.err
    assert result.json["spent"] == 30
    assert run(*command, "--budget", 400).json["steps_histogram"][0] == 0


def test_progress_shows_tokens_and_expected_accuracy(embedded: Path, tmp_path: Path) -> None:
    command = [*COLLECT, "--limit", 8, "--steps", 2, "--out", tmp_path / "o.parquet", "--fit", embedded]
    result = run(*command, "--budget", 400, "--json")
    lines = [line for line in result.err.splitlines() if line.startswith("budget: ")]
    assert len(lines) > 3
    parts = [
        re.fullmatch(r"budget: (\d+)/400 tokens, (\d) problems? answered, (.+) % expected right", x) for x in lines
    ]
    assert all(parts), lines
    total_spent = [int(part[1]) for part in parts if part]
    assert total_spent == sorted(total_spent)
    assert total_spent[-1] <= result.json["spent"] <= 400


def test_the_text_of_a_budgeted_run_shows_what_was_spent(tmp_path: Path) -> None:
    command = [*COLLECT, "--limit", 4, "--policy", "uniform", "--unit", "calls", "--out", tmp_path / "o.parquet"]
    reply = run(*command, "--budget", 6, "--json").json
    assert (reply["unit"], reply["spent"], reply["steps_histogram"]) == ("calls", 6, [0, 2, 2, 0, 0])
    assert run(*command, "--budget", 6).out.startswith("6 of 6 calls spent on 4 problems: ")
