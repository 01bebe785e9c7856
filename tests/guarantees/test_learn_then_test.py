"""The promise of Learn-then-Test, by simulation: the certified setting's true risk exceeds its level in at most δ
of the calibration sets, for losses of 0 and 1 and for losses between, whether or not risk grows along the sequence."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from justenough.errors import InputError
from justenough.stats.learn_then_test import certify, p_value

Floats = NDArray[np.float64]
DRAWS = 2000


def tolerated(delta: float) -> float:
    """δ and three standard errors of the simulation."""
    return delta + 3 * math.sqrt(delta * (1 - delta) / DRAWS)


def certified(
    risks: Floats, *, level: float, confidence: float, n: int, bounded: bool, seed: int, draws: int = DRAWS
) -> Iterator[float]:
    """True risk of what is certified on each of the calibration sets, 0 where nothing is.

    One uniform number a problem is shared by all settings, as one model's answers are.
    """
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        luck = rng.random(n)

        def losses(risk: float, luck: Floats = luck) -> Floats:
            # Of the mean `risk` either way: all or nothing, or spread between 0 and twice the risk.
            return 2 * risk * luck if bounded else (luck < risk).astype(np.float64)

        found = certify(((at, losses(risk)) for at, risk in enumerate(risks)), level=level, confidence=confidence)
        yield 0.0 if found is None else float(risks[int(found.setting)])


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(("n", "level", "delta"), [(100, 0.05, 0.05), (300, 0.1, 0.1), (600, 0.02, 0.2)])
@pytest.mark.parametrize("shape", ["rising", "just above", "up and down"])
def test_the_risk_exceeds_its_level_in_no_more_draws_than_promised(
    shape: str, n: int, level: float, delta: float, bounded: bool
) -> None:
    rising = level * np.array([0.1, 0.3, 0.6, 0.9, 1.01, 1.2, 1.6, 2.0])
    risks = {"rising": rising, "just above": np.full(8, 1.001 * level), "up and down": rising[[0, 6, 1, 7, 2, 5, 3, 4]]}
    found = certified(risks[shape], level=level, confidence=1 - delta, n=n, bounded=bounded, seed=n)
    assert sum(risk > level for risk in found) / DRAWS <= tolerated(delta)


def test_the_simulation_can_fail() -> None:
    # Just above its level the exact test errs as often as it may: that is seen, and a test at a laxer error is caught.
    level, delta, n = 0.1, 0.2, 400
    for confidence, lowest, highest in ((1 - delta, 0.1, tolerated(delta)), (0.6, tolerated(delta), 0.5)):
        found = certified(np.array([1.001 * level]), level=level, confidence=confidence, n=n, bounded=False, seed=1)
        assert lowest < sum(risk > level for risk in found) / DRAWS < highest


def test_trying_every_setting_without_an_order_breaks_the_promise() -> None:
    # What fixed-sequence testing is for: the best of many independent settings looks good by luck.
    level, delta, n = 0.1, 0.1, 200
    rng = np.random.default_rng(0)
    lucky = sum(
        any(p_value((rng.random(n) < 1.05 * level).astype(np.float64), level) <= delta for _ in range(20))
        for _ in range(300)
    )
    assert lucky / 300 > 3 * delta


def test_with_room_it_certifies_a_later_setting() -> None:
    risks = np.linspace(0.001, 0.2, 40)
    found = list(certified(risks, level=0.1, confidence=0.95, n=600, bounded=False, seed=0, draws=100))
    assert np.mean(found) > 0.06
    assert min(found) > 0.04


def test_p_values_are_those_of_the_publications() -> None:
    assert p_value(np.zeros(59), 0.05) == pytest.approx(0.95**59)
    assert p_value(np.array([1.0] * 3 + [0.0] * 97), 0.1) == pytest.approx(float(binom.cdf(3, 100, 0.1)))
    assert p_value(np.full(50, 0.3), 0.2) == 1.0
    # Mean 0.02 of 100 losses that are not 0 or 1: Hoeffding's bound exp(-100 kl(0.02, 0.1)), or e times Bentkus's.
    kl = 0.02 * math.log(0.2) + 0.98 * math.log(0.98 / 0.9)
    wanted = min(math.exp(-100 * kl), math.e * float(binom.cdf(2, 100, 0.1)))
    assert p_value(np.full(100, 0.02), 0.1) == pytest.approx(wanted)


def test_testing_stops_at_the_first_failure() -> None:
    asked: list[float] = []

    def sequence() -> Iterator[tuple[float, Floats]]:
        for setting, wrong in ((0.9, 0), (0.8, 1), (0.7, 40), (0.6, 0)):
            asked.append(setting)
            yield setting, np.array([1.0] * wrong + [0.0] * (100 - wrong))

    found = certify(sequence(), level=0.05, confidence=0.9)
    assert found is not None
    assert (found.setting, found.n, found.risk) == (0.8, 100, 0.01)
    assert asked == [0.9, 0.8, 0.7]
    assert certify([(0.9, np.ones(10))], level=0.05, confidence=0.9) is None
    for losses, level in ((np.array([1.5]), 0.1), (np.array([]), 0.1), (np.zeros(5), 0.0)):
        with pytest.raises(InputError):
            p_value(losses, level)
    with pytest.raises(InputError):
        certify([], level=0.1, confidence=1.0)
