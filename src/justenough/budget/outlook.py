"""What a schedule plans by: what further steps are expected to bring and to cost, in the ledger's unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.expectation import Expectation
from justenough.budget.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Expectations, one for each problem, seen through a budget's unit and the steps' token limits."""

    expectations: Sequence[Expectation] | None
    limits: tuple[int, ...]
    """Token limits of steps 1 … K."""
    unit: Unit
    prices: tuple[int, ...] = ()
    """Of a token of each step, where cost is counted."""

    def first(self) -> tuple[float, float]:
        """Mean and standard deviation of what a first step costs, before anything is known of the problem."""
        if self.unit == "calls" or self.expectations is None:
            return 1.0, 0.0
        price = self.prices[0] if self.prices else 1
        mean, spread = self.expectations[0].first_step()
        return mean * price, spread * price

    def matrix(self, problems: Sequence[int], entropy: Floats) -> tuple[Floats | None, Floats]:
        """P(right) after, and expected cost of, each step: (n, K), given the step-1 entropies (n,) of some problems."""
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
        return right, self._cost(lengths)

    def later(self, problem: int, step: int, bits: float) -> list[float]:
        """P(right) after `step` … K, given the bits after it."""
        if self.expectations is None:
            return []
        return self.expectations[problem].after(step, bits)[: len(self.limits) - step + 1]

    def _cost(self, lengths: Floats) -> Floats:
        if self.unit == "calls":
            return np.ones_like(lengths)
        limited = np.minimum(lengths, np.asarray(self.limits, dtype=np.float64))
        return limited * np.asarray(self.prices, dtype=np.float64) if self.prices else limited
