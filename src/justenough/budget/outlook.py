"""What a schedule plans with: the expected gain and cost of further steps, in the ledger's unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.expectation import Expectation
from justenough.budget.ledger import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One expectation for each problem, in a budget's unit and within the steps' token limits."""

    expectations: Sequence[Expectation] | None
    limits: tuple[int, ...]
    """Token limits of steps 1 … K."""
    unit: Unit

    def first(self) -> tuple[float, float]:
        """Mean and standard deviation of the cost of a first step, before anything is known about the problem."""
        if self.unit == "calls" or self.expectations is None:
            return 1.0, 0.0
        return self.expectations[0].first_step()

    def matrix(self, problems: Sequence[int], entropy: Floats) -> tuple[Floats | None, Floats]:
        """P(right) after each step and its expected cost, (n, K), given the step-1 entropies (n,) of some problems."""
        shape = (len(entropy), len(self.limits))
        if self.expectations is None:
            return None, np.ones(shape)
        right, cost = np.empty(shape), np.empty(shape)
        members: dict[int, list[int]] = {}
        for row, problem in enumerate(problems):
            members.setdefault(id(self.expectations[problem]), []).append(row)
        for rows in members.values():
            right[rows], cost[rows] = self.given(self.expectations[problems[rows[0]]], entropy[rows])
        return right, cost

    def given(self, expectation: Expectation, entropy: Floats) -> tuple[Floats, Floats]:
        """P(right) and expected cost (n, K) by one expectation."""
        right, lengths = (matrix[:, : len(self.limits)] for matrix in expectation.matrix(entropy))
        return right, np.ones_like(lengths) if self.unit == "calls" else np.minimum(lengths, self.limits)

    def later(self, problem: int, step: int, bits: float) -> list[float]:
        """P(right) after `step` … K, given the bits after it."""
        if self.expectations is None:
            return []
        return self.expectations[problem].after(step, bits)[: len(self.limits) - step + 1]
