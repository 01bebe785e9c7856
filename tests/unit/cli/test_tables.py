"""An evaluation as text: what is shown, and what is left out if it is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.cli.tables import evaluation_text, rules_table
from justenough.evaluation import Evaluation, evaluate
from justenough.stats import Estimate
from tests.builders import population


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(population(80, seed=2), rules="oracle,all-steps,entropy-mean", draws=5)


def test_every_rule_has_a_row_with_its_figures(evaluation: Evaluation) -> None:
    head, _, *rows = rules_table(evaluation).splitlines()
    assert head.split()[:3] == ["rule", "accuracy", "change"]
    assert [row.split()[0] for row in rows] == list(evaluation.rules)
    for row, figures in zip(rows, evaluation.rules.values(), strict=True):
        assert f"{100 * figures.accuracy:.1f} %" in row
        # A mean over draws has no test.
        assert row.endswith("–" if figures.non_inferiority is None else figures.non_inferiority.verdict)


def test_layers_have_a_column_if_the_traces_record_them(evaluation: Evaluation) -> None:
    assert "layers saved" not in rules_table(evaluation)
    early = {name: replace(figures, layers_saving=0.375) for name, figures in evaluation.rules.items()}
    shown = replace(evaluation, rules=early, gated=replace(evaluation.gated, layers_saving=0.375))
    lines = rules_table(shown).splitlines()
    assert lines[0].endswith("layers saved")
    assert all(line.endswith("37.5 %") for line in lines[2:])


def test_money_and_time_have_columns_only_if_they_are_known(evaluation: Evaluation) -> None:
    plain = rules_table(evaluation)
    assert "money saved" not in plain
    assert "time saved" not in plain
    known = {
        name: replace(figures, cost=1.0, cost_saving=Estimate(0.25, 0.2, 0.3, 80), latency_saving=0.125)
        for name, figures in evaluation.rules.items()
    }
    gated = replace(
        evaluation.gated,
        cost=1.5,
        cost_saving=Estimate(0.25, 0.2, 0.3, 80),
        cost_saving_vs_last=0.1,
        latency_saving=0.1,
    )
    richer = replace(evaluation, rules=known, gated=gated)
    lines = rules_table(richer).splitlines()
    assert lines[0].endswith("money saved  time saved")
    assert all(line.endswith("25.0 %      12.5 %") for line in lines[2:])
    assert (
        "money: 1.5 for mean, saving 25.0 % against all steps, 10.0 % against the last step alone"
        in evaluation_text(richer)
    )


def test_the_head_names_model_task_and_problems_left_out(evaluation: Evaluation) -> None:
    assert evaluation_text(evaluation).startswith("model on task: 80 problems of 2 steps\nright at step 1 ")
    left_out = replace(evaluation, left_out=20, task="")
    first = evaluation_text(left_out).splitlines()[0]
    assert first == (
        "model on traces: 80 problems of 2 steps; 20 more are left out because the calibration was fitted on them"
    )


def test_warnings_and_rules_that_cannot_be_replayed_are_shown(evaluation: Evaluation) -> None:
    shown = evaluation_text(replace(evaluation, warnings=("prices differ",), missing={"deepconf": "confidences"}))
    assert shown.splitlines()[-2:] == ["warning: prices differ", "deepconf: not replayed, confidences"]


def test_what_cannot_be_estimated_is_a_dash(evaluation: Evaluation) -> None:
    name, figures = next(iter(evaluation.rules.items()))
    bare = replace(figures, saving=None, saving_vs_first=None, saving_vs_last=None, oracle_share=None, harm=None)
    row = rules_table(replace(evaluation, rules={name: replace(bare, non_inferiority=None)})).splitlines()[-1]
    assert row.split()[-6:] == ["–"] * 6
