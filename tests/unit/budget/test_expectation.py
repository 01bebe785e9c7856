"""Expectations: fitted, and without a signal."""

from __future__ import annotations

import pytest

from justenough.budget import (
    Expectation,
)
from justenough.errors import NotEnoughExamples
from tests.builders import step, trace


def test_an_expectation_without_a_signal_plans_all_alike_and_says_so() -> None:
    traces = [trace(step(0.1 * (i % 7), correct=i % 7 > 3), step(0.2), id=f"p-{i}") for i in range(40)]
    known = Expectation.fit(traces)
    assert known.right[0][0].slope == 0
    assert "does not tell right from wrong" in known.warnings[0]
    with pytest.raises(NotEnoughExamples):
        Expectation.fit([trace(step(correct=True), step(0.2))])
    with pytest.raises(NotEnoughExamples):
        Expectation.fit([])
