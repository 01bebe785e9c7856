"""Thresholds against the number of labels: counted by hand where nothing varies, narrowing where something does."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.calibration.thresholds import Examples, Mean, Outcome, RiskControlled
from justenough.evaluation import Table, table_of
from justenough.evaluation.sizes import SIZES, calibration_sizes
from justenough.gate import GateSettings
from tests.builders import SIGNAL, population

SETTINGS = GateSettings(signal=SIGNAL, max_steps=2)


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(population(240, seed=4), SIGNAL)


class Fixed:
    """Always the same threshold."""

    name = "fixed"

    def fit(self, examples: Examples) -> Outcome:
        assert len(examples.entropy) in (*SIZES, 240)
        return Outcome(method=self.name, threshold=0.5, reason="ok")


def test_what_does_not_depend_on_the_draw_has_no_spread(table: Table) -> None:
    found = calibration_sizes(table, Fixed(), SETTINGS, draws=20)
    # 300 labels cannot be had of 240 problems, and half are left to judge on.
    assert [row.n for row in found] == [5, 10, 20, 50, 100]
    stops = table.stops(GateSettings(signal=SIGNAL, max_steps=2, threshold=0.5))
    rows = np.arange(len(table))
    saving = 1 - table.spent[rows, stops].sum() / table.spent[:, -1].sum()
    change = (table.correct[rows, stops].astype(float) - table.correct[:, -1]).mean()
    for row in found:
        assert (row.none, row.draws) == (0.0, 20)
        assert row.threshold is not None
        assert (row.threshold.p5, row.threshold.mean, row.threshold.p95) == (0.5, 0.5, 0.5)
        for spread, expected in ((row.saving, saving), (row.accuracy_change, change)):
            assert (spread.p5, spread.mean, spread.p95) == pytest.approx((expected,) * 3)


def test_more_labels_narrow_the_spread(table: Table) -> None:
    found = calibration_sizes(table, Mean(), SETTINGS, draws=100)
    widths = []
    for row in found:
        assert row.threshold is not None
        widths.append(row.threshold.p95 - row.threshold.p5)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 3
    savings = [row.saving.p95 - row.saving.p5 for row in found]
    assert savings[-1] < savings[0] / 2
    assert calibration_sizes(table, Mean(), SETTINGS, draws=100) == found
    assert calibration_sizes(table, Mean(), SETTINGS, draws=100, seed=1) != found


def test_a_draw_without_a_threshold_stops_nothing(table: Table) -> None:
    found = calibration_sizes(table, RiskControlled(max_harm=0.05), SETTINGS, draws=30)
    small = found[0]
    assert (small.none, small.threshold) == (1.0, None)
    # All problems together do give a threshold: what a draw without one saves is nothing, up to who is left out.
    assert abs(small.saving.mean) < 0.02
    assert abs(small.accuracy_change.mean) < 0.02


def test_too_few_problems_give_no_row() -> None:
    assert calibration_sizes(table_of(population(9), SIGNAL), Mean(), SETTINGS, draws=5) == ()
