"""Curves: P(right | H) and the length of a step."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.budget import (
    RightGivenEntropy,
    StepLength,
)
from justenough.errors import BudgetError, GatingRefused, NotEnoughExamples


def test_p_right_given_entropy_is_recovered() -> None:
    rng = np.random.default_rng(0)
    bits = rng.uniform(0, 3, 20_000)
    correct = rng.random(20_000) < 1 / (1 + np.exp(-(2.0 - 1.5 * bits)))
    fitted = RightGivenEntropy.fit(bits, correct)
    assert fitted.intercept == pytest.approx(2.0, abs=0.1)
    assert fitted.slope == pytest.approx(-1.5, abs=0.1)
    # Calibrated: what it says of a part of the problems is what holds there.
    for low in (0.0, 1.0, 2.0):
        part = (bits >= low) & (bits < low + 1)
        assert float(fitted(bits[part]).mean()) == pytest.approx(float(correct[part].mean()), abs=0.02)
    assert fitted.at(1.3) == pytest.approx(float(fitted(1.3)), abs=1e-12)


def test_a_curve_that_rises_is_refused_and_a_perfect_one_stays_finite() -> None:
    rising = [0.1, 0.2, 0.3, 0.8, 0.9, 1.0], [False, False, False, True, True, True]
    with pytest.raises(GatingRefused, match="does not fall with entropy"):
        RightGivenEntropy.fit(*rising)
    flat = RightGivenEntropy.fit_or_flat(*rising)
    assert flat.slope == 0
    assert flat.at(0.1) == pytest.approx(0.5)
    perfect = RightGivenEntropy.fit(rising[0], [not right for right in rising[1]])
    assert -100 < perfect.slope < 0
    assert RightGivenEntropy.fit([0.5, 0.5, 0.5], [True, True, False]).slope == 0
    assert 0.5 < RightGivenEntropy.fit([0.1, 0.9], [True, True]).at(0.9) < 1
    with pytest.raises(NotEnoughExamples):
        RightGivenEntropy.fit([], [])
    with pytest.raises(BudgetError, match="problem 1: nan is no entropy"):
        RightGivenEntropy.fit([0.1, float("nan")], [True, False])


def test_the_expected_length_keeps_the_mean_of_a_long_tail() -> None:
    rng = np.random.default_rng(1)
    bits = rng.uniform(0, 1, 500)
    tokens = np.exp(rng.normal(4, 1.5, 500))
    assert float(StepLength.fit(bits, tokens)(bits).mean()) == pytest.approx(float(tokens.mean()))
