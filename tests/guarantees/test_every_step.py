"""The promise of certificates for every step, by simulation on populations whose true harm is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.calibration.certified import FINE_BITS, Checkpoints, NetControlled, RiskControlled

Floats = NDArray[np.float64]
POPULATION = 20_000
DRAWS = 400
EPSILON, DELTA, N = 0.05, 0.1, 200


def population(kind: str, *, seed: int = 0) -> Checkpoints:
    """Runs of one to twelve checkpoints; a wrong answer may become right, and a right one wrong."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, size=POPULATION)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    problem = np.repeat(np.arange(POPULATION), lengths)
    place = np.arange(lengths.sum()) - starts[problem]
    share = place / np.maximum(lengths - 1, 1)[problem]
    hard, luck = rng.random(POPULATION)[problem], rng.random(len(problem))
    final = rng.random(POPULATION) < 0.8
    right = np.where(place == lengths[problem] - 1, final[problem], luck < share * (1.2 - hard))
    scores = (
        np.exp(rng.normal(0, 0.5, len(problem))) * np.where(right, 0.4, 1.1) * {"drifting": 1.5 - share}.get(kind, 1.0)
    )
    if kind == "tied":
        scores = np.ceil(scores * 3) / 3
    if kind == "discrete":
        scores = np.where(scores < 0.5, 0.25, 1.0)
    if kind == "not monotone":
        # The strictest thresholds stop at wrong answers; laxer ones stop earlier, where the answer is right.
        right = np.where(place == 0, final[problem] | (luck < 0.5), right & (luck < 0.3))
        scores = np.where(place == 0, 0.9 + luck / 10, np.where(right, 0.8, 0.2 + 4 * hard))
    scores[rng.random(len(scores)) < 0.05] = math.nan
    return Checkpoints(scores=scores, harms=~right & final[problem], rescues=right & ~final[problem], starts=starts)


def drawn(whole: Checkpoints, rng: np.random.Generator, n: int) -> Checkpoints:
    chosen = rng.integers(len(whole), size=n)
    lengths = np.diff(np.append(whole.starts, len(whole.scores)))[chosen]
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    rows = np.arange(lengths.sum()) + np.repeat(whole.starts[chosen] - starts, lengths)
    return Checkpoints(scores=whole.scores[rows], harms=whole.harms[rows], rescues=whole.rescues[rows], starts=starts)


def violations(
    kind: str, method: RiskControlled | NetControlled, *, loss: Callable[[Checkpoints, Floats], Floats]
) -> tuple[float, float]:
    """The share of draws whose threshold breaks the promise, and the share with a threshold."""
    whole = population(kind)
    truth = dict(zip(FINE_BITS.tolist(), loss(whole, FINE_BITS).tolist(), strict=True))
    rng = np.random.default_rng(1)
    thresholds = [method.fit_every(drawn(whole, rng, N)).threshold for _ in range(DRAWS)]
    broken = [one is not None and truth[one] > EPSILON for one in thresholds]
    return float(np.mean(broken)), float(np.mean([one is not None for one in thresholds]))


def harm(whole: Checkpoints, grid: Floats) -> Floats:
    return whole.counts(grid)[0] / len(whole)


def net(whole: Checkpoints, grid: Floats) -> Floats:
    harms, rescues = whole.counts(grid)
    return (harms - rescues) / len(whole)


KINDS = ("plain", "drifting", "tied", "discrete", "not monotone")
ALLOWED = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)


@pytest.mark.parametrize("kind", KINDS)
def test_harm_at_any_checkpoint_exceeds_its_limit_no_more_often_than_promised(kind: str) -> None:
    broken, certified = violations(kind, RiskControlled(EPSILON, 1 - DELTA), loss=harm)
    assert broken <= ALLOWED
    assert certified > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_net_loss_at_any_checkpoint_exceeds_its_limit_no_more_often_than_promised(kind: str) -> None:
    broken, certified = violations(kind, NetControlled(EPSILON, 1 - DELTA), loss=net)
    assert broken <= ALLOWED
    assert certified > 0.5


def test_the_worlds_are_hard_enough_that_a_laxer_level_is_caught() -> None:
    assert violations("plain", RiskControlled(EPSILON, 0.5), loss=harm)[0] > ALLOWED
    steps = np.diff(harm(population("not monotone"), FINE_BITS))
    assert (steps < 0).any()
    assert (steps > 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_net_certifies_wherever_harm_alone_does(kind: str) -> None:
    whole, rng = population(kind), np.random.default_rng(2)
    for n in (60, 200):
        for _ in range(20):
            sample = drawn(whole, rng, n)
            alone = RiskControlled(EPSILON).fit_every(sample).threshold
            both = NetControlled(EPSILON).fit_every(sample).threshold
            assert alone is None or (both is not None and both >= alone)
