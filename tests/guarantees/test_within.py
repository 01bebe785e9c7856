"""Fewer than 10 comparable answers within groups cannot tell: what that saves and what it costs, by simulation.

60 problems in groups that explain all of the separation or none of it; a limit above .60 passes. Measured on 1,000
samples each, as shares that pass without and with the guard:

| problems per group | groups explain it all (false) | the signal itself, AUROC .92 (power) |
|---|---|---|
TABLE
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.stats.intervals import auroc_interval
from justenough.stats.within import comparable, within_interval

SAMPLES = 300


def sample(
    rng: np.random.Generator, *, size: int, true: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Sixty problems in groups of so many; right and wrong answers are mixed in few of them."""
    level = np.arange(60) // size
    easy = rng.random(level.max() + 1) < 0.5
    chance = np.where(easy, 0.95, 0.05)[level]
    correct = rng.random(60) < chance
    values = rng.normal(size=60) + 2.0 * (~correct if true else ~easy[level])
    return values, correct, [str(one) for one in level]


def rates(*, size: int, true: bool, samples: int = SAMPLES) -> tuple[float, float, float]:
    """Shares of samples that pass without the guard, with it, and that cannot tell."""
    rng = np.random.default_rng(size)
    unguarded = guarded = unclear = 0
    for _ in range(samples):
        values, correct, groups = sample(rng, size=size, true=true)
        free = auroc_interval(values, correct, groups=groups)
        held = within_interval(values, correct, groups)
        assert (held is None) == (comparable(correct, groups) < 10)
        unguarded += free is not None and free.low is not None and free.low > 0.6
        guarded += held is not None and held.low is not None and held.low > 0.6
        unclear += held is None
    return unguarded / samples, guarded / samples, unclear / samples
