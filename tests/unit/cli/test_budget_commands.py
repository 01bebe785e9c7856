"""Budgets that cannot be spent: one clear line and exit 2, before anything is generated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.cli import main
from justenough.tracefile import read_traces, write_traces
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
