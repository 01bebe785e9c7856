"""The promise of `RiskControlled`, by simulation: harm above ε in at most δ of the draws, and power where there is any.

In each world the true harm of every threshold is known: scores take the values 0, 1, …, m - 1, a large m standing for a
continuous score, with a known chance of being drawn and of being harmful (stopped wrong, last answer right).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from justenough.calibration.thresholds import Examples, RiskControlled

Floats = NDArray[np.float64]
DRAWS = 2000


@dataclass(frozen=True)
class World:
    chance: Floats
    """Of each score, shape (m,)."""
    harmful: Floats
    """Chance that a problem of that score is harmed by stopping, shape (m,)."""

    def harm(self, threshold: float | None) -> float:
        """True harm of stopping at scores up to a threshold."""
        return 0.0 if threshold is None else float((self.chance * self.harmful)[: int(threshold) + 1].sum())

    def stopped(self, threshold: float | None) -> float:
        """True share of problems stopped."""
        return 0.0 if threshold is None else float(self.chance[: int(threshold) + 1].sum())

    def thresholds(self, method: RiskControlled, n: int, *, draws: int, seed: int) -> Iterator[float | None]:
        """What the method makes of so many calibration sets of n problems."""
        rng = np.random.default_rng(seed)
        for _ in range(draws):
            scores = rng.choice(len(self.chance), size=n, p=self.chance)
            harmful = rng.random(n) < self.harmful[scores]
            # Harmful is wrong first and right last; of the others, half are right both times and half wrong.
            right = ~harmful & (rng.random(n) < 0.5)
            examples = Examples(entropy=scores.astype(np.float64), correct=right, final=harmful | right)
            yield method.fit(examples).threshold


def even(harmful: Floats) -> World:
    """Every score as likely as the others."""
    return World(np.full(len(harmful), 1 / len(harmful)), harmful)


def worlds(epsilon: float) -> dict[str, World]:
    """Continuous and tied scores, good, bad and built to be as hard as can be at this ε."""
    grid = (np.arange(5000) + 0.5) / 5000
    just_above = epsilon * 1.001
    return {
        "continuous, independent": even(np.full(5000, 3 * epsilon)),
        "continuous, rising": even(9 * epsilon * grid**2),
        "continuous, worst first": even(np.where(grid < 0.3, 5 * epsilon, 0.0)),
        "tied in five": even(np.array([0.1, 0.5, 1.0, 4.0, 5.0]) * epsilon),
        "tied, a jump just above": World(np.array([0.5, 0.5]), np.array([0.0, 2 * just_above])),
        "one value, just above": World(np.array([1.0]), np.array([just_above])),
    }


@pytest.mark.parametrize("world", list(worlds(0.1)))
@pytest.mark.parametrize(("n", "epsilon", "delta"), [(60, 0.05, 0.05), (300, 0.02, 0.1), (400, 0.1, 0.2)])
def test_harm_exceeds_its_limit_in_no_more_draws_than_promised(
    world: str, n: int, epsilon: float, delta: float
) -> None:
    method = RiskControlled(max_harm=epsilon, confidence=1 - delta)
    truth = worlds(epsilon)[world]
    found = truth.thresholds(method, n, draws=DRAWS, seed=n)
    violations = sum(truth.harm(threshold) > epsilon for threshold in found) / DRAWS
    assert violations <= delta + 3 * math.sqrt(delta * (1 - delta) / DRAWS)


def test_the_simulation_can_fail() -> None:
    # At the jump just above ε the exact test's own error is all there is: it must be seen, and a laxer test caught.
    epsilon, delta, n = 0.1, 0.2, 400
    truth = worlds(epsilon)["one value, just above"]
    for confidence, lowest, highest in ((1 - delta, 0.1, delta), (0.6, delta + 0.1, 0.5)):
        method = RiskControlled(max_harm=epsilon, confidence=confidence)
        found = truth.thresholds(method, n, draws=DRAWS, seed=1)
        violations = sum(truth.harm(threshold) > epsilon for threshold in found) / DRAWS
        assert lowest < violations < highest + 3 * math.sqrt(delta * (1 - delta) / DRAWS)


def gaussian(*, d: float, accuracy: float, rescued: float) -> World:
    """Gaussian scores, wrong answers `d` deviations above right ones, of which extension rescues a share."""
    edges = np.linspace(-5, 6, 4001)
    right = accuracy * np.diff(norm.cdf(edges))
    wrong = (1 - accuracy) * np.diff(norm.cdf(edges - d))
    total = (right + wrong).sum()
    return World((right + wrong) / total, rescued * wrong / (right + wrong))


def test_with_room_it_certifies_and_stops() -> None:
    truth = gaussian(d=0.8, accuracy=0.6, rescued=0.1)
    assert truth.harm(len(truth.chance)) > 0.03
    found = list(truth.thresholds(RiskControlled(max_harm=0.02), 2000, draws=200, seed=0))
    assert sum(threshold is not None for threshold in found) >= 198
    shares = [truth.stopped(threshold) for threshold in found]
    assert np.mean(shares) >= 0.4
    assert np.quantile(shares, 0.05) >= 0.3


def test_without_room_it_refuses_or_stops_next_to_nothing() -> None:
    truth = gaussian(d=0.0, accuracy=0.6, rescued=0.5)
    found = list(truth.thresholds(RiskControlled(max_harm=0.02), 2000, draws=200, seed=0))
    assert np.mean([truth.stopped(threshold) for threshold in found]) <= 0.1
    # Too few labels for any certificate: always a refusal.
    assert set(truth.thresholds(RiskControlled(max_harm=0.01), 298, draws=50, seed=0)) == {None}


def test_more_labels_stop_more() -> None:
    truth = gaussian(d=1.5, accuracy=0.6, rescued=0.3)
    stopped = [
        float(
            np.mean([truth.stopped(t) for t in truth.thresholds(RiskControlled(max_harm=0.02), n, draws=100, seed=0)])
        )
        for n in (200, 1000, 5000)
    ]
    assert stopped == sorted(stopped)
    assert stopped[0] < stopped[-1] - 0.05
