"""The promise of `NetControlled`, by simulation: more than ε of accuracy lost in at most δ of the draws, and power.

Scores lie on points of the grid, so that the true net loss of each of its thresholds is a sum over the points below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.calibration.certified import Bound, NetControlled
from justenough.calibration.thresholds import Examples, Outcome
from justenough.stats.sequence import BITS

Floats = NDArray[np.float64]
DRAWS = 2000


@dataclass(frozen=True)
class World:
    at: Floats
    """Scores, ascending, points of the grid, all equally likely; shape (m,)."""
    harmful: Floats
    """Chance at each score that stopping loses the answer."""
    rescued: Floats
    """Chance at each score that stopping saves it."""

    def loss(self, threshold: float | None) -> float:
        """True net loss of stopping up to a threshold."""
        below = self.at <= (-1.0 if threshold is None else threshold)
        return float((self.harmful - self.rescued)[below].sum() / len(self.at))

    def outcomes(self, method: NetControlled, n: int, *, draws: int, seed: int) -> Iterator[Outcome]:
        rng = np.random.default_rng(seed)
        for _ in range(draws):
            place = rng.integers(len(self.at), size=n)
            luck = rng.random(n)
            harmful = luck < self.harmful[place]
            rescued = ~harmful & (luck < (self.harmful + self.rescued)[place])
            both = ~harmful & ~rescued & (rng.random(n) < 0.5)
            yield method.fit(Examples(entropy=self.at[place], correct=rescued | both, final=harmful | both))


def worlds(epsilon: float) -> dict[str, World]:
    """Net losses that rise, that cross ε and come back, and that lie just above it, ties included."""
    points = BITS[120:200:4]
    m = len(points)
    share = (np.arange(m) + 1) / m
    none = np.zeros(m)
    return {
        "rising": World(points, 6 * epsilon * share**2, none),
        "just above, at once": World(points[:1], np.array([epsilon * 1.01]), np.array([0.0])),
        "just above, with rescue": World(points[:1], np.array([0.2 + epsilon * 1.01]), np.array([0.2])),
        "harm first, rescue later": World(points, np.where(share < 0.4, 4 * epsilon, 0), np.where(share > 0.4, 0.3, 0)),
        "rescue first, harm later": World(points, np.where(share > 0.5, 0.3, 0), np.where(share < 0.5, 0.1, 0)),
    }


@pytest.mark.parametrize("world", list(worlds(0.1)))
@pytest.mark.parametrize(("n", "epsilon", "delta"), [(100, 0.1, 0.1), (400, 0.03, 0.05)])
def test_more_is_lost_in_no_more_draws_than_promised(world: str, n: int, epsilon: float, delta: float) -> None:
    truth = worlds(epsilon)[world]
    method = NetControlled(max_loss=epsilon, confidence=1 - delta)
    found = truth.outcomes(method, n, draws=DRAWS, seed=n)
    violations = sum(truth.loss(outcome.threshold) > epsilon for outcome in found) / DRAWS
    assert violations <= delta + 3 * math.sqrt(delta * (1 - delta) / DRAWS)


def test_the_general_bound_holds_too_and_the_simulation_can_fail() -> None:
    epsilon, delta = 0.2, 0.2
    truth = worlds(epsilon)["just above, at once"]
    for test, confidence in (("hoeffding-bentkus", 1 - delta), ("exact", 0.2)):
        kind: Bound = "exact" if test == "exact" else "hoeffding-bentkus"
        method = NetControlled(max_loss=epsilon, confidence=confidence, test=kind)
        found = truth.outcomes(method, 300, draws=DRAWS, seed=1)
        violations = sum(truth.loss(outcome.threshold) > epsilon for outcome in found) / DRAWS
        # A test at a laxer level is caught.
        assert (violations <= delta + 0.03) == (kind == "hoeffding-bentkus")


def test_rescue_makes_room_that_harm_alone_has_not() -> None:
    from justenough.calibration.thresholds import RiskControlled

    points = BITS[120:200:4]
    truth = World(points, np.full(len(points), 0.03), np.full(len(points), 0.06))
    found = list(truth.outcomes(NetControlled(max_loss=0.02), 2000, draws=50, seed=0))
    stopped = [0.0 if made.threshold is None else float((points <= made.threshold).mean()) for made in found]
    # All of it may be stopped: accuracy even grows.
    assert np.mean(stopped) > 0.9
    assert found[0].guarantee is not None
    assert "2.00% of accuracy" in found[0].guarantee
    rng = np.random.default_rng(0)
    place = rng.integers(len(points), size=2000)
    harmful = rng.random(2000) < 0.03
    examples = Examples(entropy=points[place], correct=~harmful, final=np.ones(2000, dtype=bool))
    alone = RiskControlled(max_harm=0.02).fit(examples).threshold
    assert alone is not None
    assert (points <= alone).mean() < 0.8


@pytest.mark.parametrize(("test", "needed"), [("exact", 149), ("hoeffding-bentkus", 14976)])
def test_so_many_labels_suffice_and_for_the_exact_test_no_fewer(test: Bound, needed: int) -> None:
    method = NetControlled(max_loss=0.02, test=test)
    assert method.labels_needed() == needed
    # Bentkus's bound is a little better than the closed form of Hoeffding's.
    fewer = needed - 1 if test == "exact" else needed // 2
    for n, certified in ((needed, True), (fewer, False)):
        every = np.ones(n, dtype=bool)
        made = method.fit(Examples(entropy=np.full(n, 0.5), correct=every, final=every))
        assert (made.threshold is not None) is certified
        assert made.needed == (0 if certified else needed - n)
