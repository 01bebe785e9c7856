"""The budget curve of the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from justenough.budget import STOPPING, Recorded
from justenough.report import budget
from justenough.report.budget import recorded
from justenough.stats.text import signed
from tests.reports import CASES, Case, contents_of, written


def test_the_budget_stands_in_every_form_and_adds_up(case: Case, forms: dict[str, str]) -> None:
    result = contents_of(case)
    policies = result.budget
    assert policies is not None
    assert json.loads(forms["json"])["budget"]["rows"] == json.loads(
        json.dumps([r.to_json() for r in policies.sweep.rows])
    )
    gate = policies.sweep.at(STOPPING, int(case.evaluation.gated.tokens))
    assert gate is not None
    assert gate.accuracy == pytest.approx(case.evaluation.gated.accuracy)
    for row in policies.sweep.rows:
        assert row.spent <= row.total
        for shares in row.groups.values():
            assert sum(share.problems for share in shares.values()) == case.evaluation.problems
            assert sum(share.cost * share.problems for share in shares.values()) == pytest.approx(row.spent)
    assert len(policies.sweep.rows[0].groups["entropy of step 1"]) == 5
    columns = recorded(result.table, model="")
    read = Recorded.of(case.traces)
    assert columns.lengths == read.lengths
    assert columns.limits == read.limits
    assert np.array_equal(columns.cost("tokens"), read.cost("tokens"))
    bare = re.sub(r"<[^>]*>", "", forms["html"])
    for name, estimate in policies.sweep.overall.items():
        if name != "uniform":
            assert signed(100 * estimate.value) in bare


def test_without_a_further_step_there_is_no_budget(tmp_path: Path) -> None:
    assert "The same tokens" not in written(CASES["one step"](), tmp_path / "r.html")


def test_many_problems_are_sampled(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    monkeypatch.setattr(budget, "MOST", 40)
    policies = contents_of(case).budget
    assert policies is not None
    assert (policies.sweep.problems, policies.problems_in_all) == (40, case.evaluation.problems)


def test_fifths_hold_ties_and_what_has_no_signal() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.5, 0.5, 1.0, np.nan])
    named = budget.fifths(values)
    assert named[-1] == "no signal"
    assert len({named[at] for at in range(3)}) == 1
    assert budget.sorted_groups(["no signal", "10 to 20", "9 to 10"])[-1] == "no signal"
    assert set(budget.fifths(np.zeros(30))) == {"0.000 to 0.000"}
