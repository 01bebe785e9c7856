"""Expectations: fitted, from a calibration, and without a signal."""

from __future__ import annotations

import pytest

from justenough.budget import (
    Expectation,
    allocate,
)
from justenough.calibration.calibration import calibrate
from justenough.errors import BudgetError, NotEnoughExamples
from tests.builders import population, step, trace


def test_an_expectation_from_a_calibration_falls_between_its_means() -> None:
    calibration = calibrate(population(200, seed=3))
    known = Expectation.from_calibration(calibration, tokens=[100, 200], rescue=0.5)
    assert known.right[0][0].at(0.3) > 0.9
    assert known.right[0][0].at(0.9) < 0.1
    assert known.right[0][1].at(0.9) == pytest.approx(0.5, abs=0.06)
    assert known.warnings
    with pytest.raises(BudgetError, match="the calibration is for model, the problems are answered by other"):
        Expectation.from_calibration(calibration, tokens=[100, 200], model="other")
    made = allocate([0.2, 1.0], total=500, expectation=known, model="model")
    assert made.steps == (1, 2)
    assert made.warnings == known.warnings


def test_an_expectation_without_a_signal_plans_all_alike_and_says_so() -> None:
    traces = [trace(step(0.1 * (i % 7), correct=i % 7 > 3), step(0.2), id=f"p-{i}") for i in range(40)]
    known = Expectation.fit(traces)
    assert known.right[0][0].slope == 0
    assert "does not tell right from wrong" in known.warnings[0]
    with pytest.raises(NotEnoughExamples):
        Expectation.fit([trace(step(correct=True), step(0.2))])
    with pytest.raises(NotEnoughExamples):
        Expectation.fit([])
