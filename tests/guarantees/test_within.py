"""Fewer than 10 comparable answers within groups cannot tell: what that saves and what it costs, by simulation.

60 problems in groups of 12; in half of the groups a share `mixed` of the answers is wrong, in the others right. A lower
limit above .60 passes. Shares of 600 samples that pass, with percentile bootstrap, DeLong alone, and DeLong with guard:

| `mixed` | false: groups explain it all | power: the answer itself, AUROC .92 | cannot tell |
|---|---|---|---|
| .04 | .07, .01, 0 | .73, .33, 0 | 1.00 |
| .10 | 0, .01, 0 | .89, .69, .06 | .93 |
| .15 | 0, 0, 0 | .93, .85, .38 | .58 |
| .20 | 0, 0, 0 | .97, .94, .76 | .21 |
| .25 | 0, 0, 0 | .99, .97, .94 | .03 |
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.stats.estimates import Estimate
from justenough.stats.intervals import auroc_interval, comparable, within_interval

SAMPLES = 300


def sample(
    rng: np.random.Generator, *, mixed: float, true: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Values, gradings and groups of sixty problems; either the answer itself or its group moves the value."""
    level = np.arange(60) // 12
    easy = (rng.permutation(5) < 3)[level]
    correct = rng.random(60) < np.where(easy, 1 - mixed, mixed)
    values = rng.normal(size=60) + 2.0 * (~correct if true else ~easy)
    return values, correct, [str(one) for one in level]


def passing(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.low is not None and estimate.low > 0.6


def rates(*, mixed: float, true: bool, samples: int = SAMPLES) -> tuple[float, float, float]:
    """Shares of samples that pass without the guard, with it, and that cannot tell."""
    rng = np.random.default_rng(7)
    unguarded = guarded = unclear = 0
    for _ in range(samples):
        values, correct, groups = sample(rng, mixed=mixed, true=true)
        held = within_interval(values, correct, groups)
        assert (held is None) == (comparable(correct, groups) < 10)
        unguarded += passing(auroc_interval(values, correct, groups=groups))
        guarded += passing(held)
        unclear += held is None
    return unguarded / samples, guarded / samples, unclear / samples


@pytest.mark.parametrize("mixed", [0.04, 0.1, 0.25])
def test_what_groups_explain_does_not_pass(mixed: float) -> None:
    assert rates(mixed=mixed, true=False)[1] <= 0.025 + 3 * (0.025 * 0.975 / SAMPLES) ** 0.5


def test_the_guard_costs_power_only_where_groups_hardly_mix() -> None:
    scarce, mixed = rates(mixed=0.04, true=True), rates(mixed=0.25, true=True)
    # 60 problems of which 2 or 3 are comparable: nothing may be said of them.
    assert scarce[1] == 0.0
    assert scarce[2] > 0.95
    assert mixed[1] > 0.8
    assert mixed[0] - mixed[1] < 0.1
