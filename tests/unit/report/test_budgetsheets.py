"""The tables and the chart data of the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from justenough.budget import POLICIES, STOPPING
from justenough.report import budgetsheets
from justenough.report.budget import Budget, sorted_groups
from justenough.report.data import Contents
from justenough.report.templates import sentences
from justenough.report.words import count
from justenough.stats.text import number, percent
from justenough.trace import Json


@pytest.fixture
def budget(contents: Contents) -> Budget:
    assert contents.budget is not None
    return contents.budget


def test_the_claim_compares_each_policy_with_uniform(budget: Budget) -> None:
    sheet = budgetsheets.budget_claim(budget)
    names = [row[0] for row in sheet.rows]
    assert names == [name for name in budget.sweep.overall if name != "uniform"]
    for name, row in zip(names, sheet.rows, strict=True):
        assert row[2] == budget.sweep.verdict(name)
        assert row[4] == budget.sweep.verdict(name, equal_spend=True)
        assert row[5] == POLICIES[name]().needs


def test_the_note_names_the_sample_and_the_gate(budget: Budget) -> None:
    assert "on a sample of" not in sentences("budget", budget)
    assert "Early stopping (the gate of the calibration)" in sentences("budget", budget)
    other = replace(budget, problems_in_all=12345, calibrated=False)
    assert f"on a sample of {budget.sweep.problems} of 12,345 problems" in sentences("budget", other)
    assert "Early stopping (the entropy mean of the other folds)" in sentences("budget", other)


def test_the_curve_has_each_policy_at_each_total(budget: Budget) -> None:
    sheet = budgetsheets.budget_curve(budget)
    assert len(sheet.rows) == len(budget.sweep.rows)
    for row, point in zip(sheet.rows, budget.sweep.rows, strict=True):
        assert row[:3] == (count(point.total), point.policy, percent(point.accuracy))
        assert (row[3] == "–") == (point.policy == "uniform")


def test_the_shares_have_one_table_for_each_grouping(budget: Budget) -> None:
    sheets = budgetsheets.budget_shares(budget)
    assert [sheet.key for sheet in sheets] == [f"shares-{at + 1}" for at in range(len(budget.groupings))]
    first, grouping = sheets[0], budget.groupings[0]
    uniform = budget.sweep.at("uniform", budget.shown)
    assert uniform is not None
    column = list(first.header).index("uniform")
    for row, name in zip(first.rows, sorted_groups(list(uniform.groups[grouping])), strict=True):
        assert row[0] == name
        assert row[column] == number(uniform.groups[grouping][name].steps)


def test_the_chart_data_has_a_row_for_each_total(budget: Budget) -> None:
    data = cast("dict[str, Any]", budgetsheets.budget_payload(budget))
    assert data["totals"] == list(budget.sweep.totals)
    assert len(data["rows"]) == len(budget.sweep.totals)
    policies = cast("list[str]", data["policies"])
    assert policies.index(STOPPING) == data["stopping"]
    for total, row in zip(budget.sweep.totals, data["rows"], strict=True):
        for name, entry in zip(policies, cast("list[dict[str, Json] | None]", row), strict=True):
            point = budget.sweep.at(name, total)
            assert (entry is None) == (point is None)
            if point is not None and entry is not None:
                assert entry["accuracy"] == point.accuracy
                assert entry["spent"] == point.spent


def test_the_json_names_all_problems_and_the_shown_total(budget: Budget) -> None:
    data = budgetsheets.budget_json(budget)
    assert data["problems_in_all"] == budget.problems_in_all
    assert data["shown_total"] == budget.sweep.totals[1]
