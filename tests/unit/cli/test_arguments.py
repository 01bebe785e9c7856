"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from justenough.cli import arguments
from justenough.errors import BudgetError
from justenough.trace.files import TraceFile, write_traces
from tests.builders import trace
from tests.unit.cli.invoke import run


@pytest.mark.parametrize("value", ["-1", "x", "1.5", str(2**63)])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "x"),
        ("report", "x", "--out", "x.html"),
        ("calibrate", "x", "--out", "c.json"),
        ("budget", "x", "--total", "9"),
        ("collect", "--model", "embedded", "--tasks", "sum", "--out", "o.jsonl"),
        ("solve", "41+93-28"),
        ("setup", "--upstream", "http://127.0.0.1:1"),
        ("exits", "train", "--model", "x", "--texts", "x"),
    ],
)
def test_a_seed_is_a_whole_number_from_0_on(command: tuple[str, ...], value: str) -> None:
    result = run(*command, "--seed", value)
    assert result.code == 2
    assert result.error == f"justenough {command[0]}: --seed is {value} (a whole number, 0 or more)"


@pytest.mark.parametrize("value", ["-1", "0", "x"])
@pytest.mark.parametrize(
    "command",
    [
        ("collect", "--model", "embedded", "--tasks", "sum", "--out", "o.jsonl"),
        ("diagnose", "--model", "embedded", "--tasks", "sum"),
        ("setup", "--upstream", "http://127.0.0.1:1"),
    ],
)
def test_at_least_one_problem_runs_at_a_time(command: tuple[str, ...], value: str) -> None:
    result = run(*command, "--concurrency", value)
    assert (result.code, result.error.endswith("(a whole number, 1 or more)")) == (2, True)


def test_both_formats_are_read_again_on_each_pass(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.jsonl"):
        path = tmp_path / name
        write_traces([trace(id="a"), trace(id="b")], path)
        options = argparse.Namespace(traces=path, skip_bad=False)
        opened = arguments.open_traces(options)
        assert isinstance(opened, TraceFile)
        for _ in range(2):
            assert [one.id for one in opened] == ["a", "b"]


def test_budgets_are_numbers_above_0() -> None:
    assert arguments.budget_of("1.5") == 1.5
    assert arguments.whole_budget("12") == 12
    for text in ("0", "-1", "nan", "inf", "x", ""):
        with pytest.raises(BudgetError, match="the budget is"):
            arguments.budget_of(text)
    with pytest.raises(BudgetError, match="a whole number"):
        arguments.whole_budget("1.5")
