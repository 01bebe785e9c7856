"""The knapsack, against all choices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from justenough.budget.knapsack import optimum


def test_the_knapsack_is_the_optimum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(120):
        n, steps = int(rng.integers(1, 6)), int(rng.integers(2, 5))
        gain = np.c_[np.zeros(n), rng.normal(0.1, 0.2, (n, steps - 1))]
        cost = np.c_[np.zeros(n), np.cumsum(rng.integers(1, 20, (n, steps - 1)), axis=1)].astype(np.float64)
        room = float(rng.integers(0, int(cost.sum()) + 1))
        best = max(
            gain[np.arange(n), choice].sum()
            for choice in itertools.product(range(steps), repeat=n)
            if cost[np.arange(n), choice].sum() <= room
        )
        taken = optimum(gain, cost, room=room)
        assert cost[np.arange(n), taken - 1].sum() <= room
        assert gain[np.arange(n), taken - 1].sum() == pytest.approx(best)
