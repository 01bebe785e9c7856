"""The tables of the rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.report.data import Contents
from justenough.report.rulesheets import (
    LAYERS,
    MONEY,
    MORE,
    RULES,
    TIME,
    columns,
    lacks_threshold,
    missing,
    more_row,
    more_rules,
    recorded_columns,
    rule_row,
    rules,
)
from justenough.stats import Estimate, NonInferiority


@pytest.fixture
def without_risk(contents: Contents) -> Contents:
    """The contents with a method `risk` that gives no threshold."""
    evaluation = contents.evaluation
    never = replace(evaluation.rules["all-steps"], stopped=0.0)
    return replace(
        contents,
        evaluation=replace(
            evaluation,
            thresholds={**evaluation.thresholds, "risk": None},
            rules={**evaluation.rules, "entropy-risk": never, "risk": never},
        ),
    )


def test_a_row_has_one_value_for_each_column(contents: Contents) -> None:
    gated = contents.evaluation.gated
    assert len(rule_row("gate", gated)) == len(RULES)
    assert len(more_row("gate", gated)) == len(MORE) + len(recorded_columns(gated))


def test_the_row_of_a_rule(contents: Contents) -> None:
    figures = replace(
        contents.evaluation.gated,
        accuracy=0.9,
        accuracy_change=Estimate(0.01, -0.03, 0.05, 90),
        saving=Estimate(0.5, 0.4, 0.6, 90),
        tokens=12345.0,
        stopped=0.75,
        harm=Estimate(0.01, 0.0, 0.05, 90),
        rescue=None,
        non_inferiority=NonInferiority("inconclusive", 0.01, -0.03, 0.05),
    )
    assert rule_row("gate", figures) == (
        "gate",
        "90.0 %",
        "+1.0 [−3.0 to +5.0]",
        "50.0 % [40.0 to 60.0]",
        "12,345",
        "75.0 %",
        "1.0 % [0.0 to 5.0]",
        "–",
        "inconclusive",
    )


def test_the_further_figures_of_a_rule(contents: Contents) -> None:
    figures = replace(
        contents.evaluation.gated,
        saving_vs_first=-1.0,
        saving_vs_last=0.1,
        oracle_share=0.9,
        unanswered=0.05,
        mcnemar_p=0.0312,
        cost=1.25,
        cost_saving=Estimate(0.3, 0.2, 0.4, 90),
        cost_saving_vs_last=0.1,
        latency_saving=0.33,
        layers_saving=0.44,
    )
    assert more_row("gate", figures) == (
        "gate", "−100.0 %", "10.0 %", "90.0 %", "5.0 %", "0.031", "1.25", "30.0 % [20.0 to 40.0]", "10.0 %", "33.0 %",
        "44.0 %",
    )  # fmt: skip
    assert [name for name, _ in recorded_columns(figures)] == [*MONEY, *TIME, *LAYERS]


def test_what_is_not_recorded_has_no_column(contents: Contents) -> None:
    figures = replace(contents.evaluation.gated, cost=None, latency_saving=None, layers_saving=None)
    assert recorded_columns(figures) == []
    assert [name for name, _ in recorded_columns(replace(figures, latency_saving=0.5))] == list(TIME)


def test_a_method_without_a_threshold_has_no_figures(without_risk: Contents) -> None:
    sheet = rules(without_risk)
    row = next(row for row in sheet.rows if row[0] == "entropy-risk")
    assert row == ("entropy-risk", "–", "–", "no threshold", "–", "–", "–", "–", "–")
    assert "entropy-risk" not in [row[0] for row in more_rules(without_risk).rows]


def test_only_gates_can_lack_a_threshold(without_risk: Contents) -> None:
    assert lacks_threshold(without_risk.evaluation, "entropy-risk")
    assert not lacks_threshold(without_risk.evaluation, "risk")
    assert not lacks_threshold(without_risk.evaluation, "all-steps")
    assert not lacks_threshold(without_risk.evaluation, "entropy-mean")


def test_a_gate_that_stopped_in_some_draws_keeps_its_figures(without_risk: Contents) -> None:
    evaluation = without_risk.evaluation
    stopped = replace(evaluation.rules["entropy-risk"], stopped=0.2)
    changed = replace(evaluation, rules={**evaluation.rules, "entropy-risk": stopped})
    assert not lacks_threshold(changed, "entropy-risk")


def test_each_rule_has_a_row(contents: Contents) -> None:
    assert [row[0] for row in rules(contents).rows] == list(contents.evaluation.rules)
    assert "a margin of 1 percentage point" in rules(contents).note


def test_the_columns_are_explained_once(contents: Contents) -> None:
    named = [row[0] for row in columns(contents).rows]
    assert named == list(dict.fromkeys(named))
    assert set(RULES) <= set(named)


def test_rules_that_were_not_replayed_have_their_own_table(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, missing={"calm": "a live model, for its layers"})
    sheet = missing(replace(contents, evaluation=evaluation))
    assert sheet.rows == [("calm", "a live model, for its layers")]
