"""The promise of a threshold certified over all checkpoints, by simulation: harm above ε in at most δ of the sets.

A world is a finite population of problems with known checkpoints; calibration sets are drawn from it with replacement,
so the true harm of every threshold is the population's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.stats.exact import most_harms
from justenough.stats.sequence import one_run_each, quantile_grid, spend, sums_of_stops

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DRAWS = 2000
POPULATION = 3000
GRID = np.linspace(0.02, 1.2, 60)

Scores = Callable[[np.random.Generator, Floats, Floats], Floats]
"""From each checkpoint's share of the thought and the chance that its answer is wrong to its score."""


def drifting(rng: np.random.Generator, share: Floats, wrong: Floats) -> Floats:
    return 0.6 * wrong + 0.5 * share + 0.3 * rng.random(len(share))


def tied(rng: np.random.Generator, share: Floats, wrong: Floats) -> Floats:
    return np.round(2 * (wrong + 0.4 * rng.random(len(share)))) / 2


def discrete(rng: np.random.Generator, share: Floats, wrong: Floats) -> Floats:
    return np.floor(4 * wrong + 1.5 * rng.random(len(share))) / 4


def useless(rng: np.random.Generator, share: Floats, wrong: Floats) -> Floats:
    return rng.random(len(share))


def late(rng: np.random.Generator, share: Floats, wrong: Floats) -> Floats:
    """A lax threshold stops at once, where most answers are right; a strict one stops late, where they are wrong."""
    return np.where(share < 0.3, 0.8, 0.3 + 0.5 * rng.random(len(share)))


def harms_of(scores: Scores, *, seed: int, worst_in_the_middle: bool = False) -> NDArray[np.bool_]:
    """Whether each threshold harms each problem, (60, population), from problems of 1 to 12 checkpoints."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, size=POPULATION)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    problem = np.repeat(np.arange(POPULATION), lengths)
    share = (np.arange(len(problem)) - starts[problem] + 1) / lengths[problem]
    hard = rng.beta(1, 3, size=POPULATION)[problem]
    chance = hard * (np.exp(-8 * (share - 0.5) ** 2) if worst_in_the_middle else 1.2 - share)
    wrong = rng.random(len(problem)) < np.minimum(chance, 1.0)
    last = ~wrong[starts + lengths - 1]
    harmful = wrong & last[problem]
    values = scores(rng, share, chance)
    # By problem: that of one problem alone is the sum over its own checkpoints.
    table = np.zeros((len(GRID), POPULATION), dtype=bool)
    for at, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        rows = slice(start, start + length)
        table[:, at] = sums_of_stops(GRID, values[rows], harmful[rows].astype(float), np.array([0])) > 0
    assert table.sum(axis=1).tolist() == sums_of_stops(GRID, values, harmful.astype(float), starts).tolist()
    return table


def chosen(table: NDArray[np.bool_], drawn: Ints, *, max_harm: float, error: float) -> Ints:
    """The last certified setting of each calibration set (draws, n); -1 where there is none."""
    allowed = most_harms(drawn.shape[1], limit=max_harm, error=error)
    settings = np.full(len(drawn), len(table) - 1)
    going = np.ones(len(drawn), dtype=bool)
    for at, row in enumerate(table):
        failed = going & (row[drawn].sum(axis=1) > allowed)
        settings[failed] = at - 1
        going &= ~failed
    return settings


def violated(table: NDArray[np.bool_], settings: Ints, max_harm: float) -> NDArray[np.bool_]:
    return np.asarray((settings >= 0) & (table.mean(axis=1)[settings] > max_harm))


def tolerated(error: float, draws: int = DRAWS) -> float:
    return error + 3 * math.sqrt(error * (1 - error) / draws)


@pytest.mark.parametrize("scores", [drifting, tied, discrete, useless, late])
@pytest.mark.parametrize("worst_in_the_middle", [False, True])
@pytest.mark.parametrize(("n", "max_harm", "error"), [(100, 0.04, 0.1), (300, 0.02, 0.05)])
def test_harm_exceeds_its_limit_in_no_more_sets_than_promised(
    scores: Scores, worst_in_the_middle: bool, n: int, max_harm: float, error: float
) -> None:
    table = harms_of(scores, seed=1, worst_in_the_middle=worst_in_the_middle)
    drawn = np.random.default_rng(n).integers(POPULATION, size=(DRAWS, n))
    settings = chosen(table, drawn, max_harm=max_harm, error=error)
    assert violated(table, settings, max_harm).mean() <= tolerated(error)


def test_harm_is_not_monotone_in_these_worlds_and_choosing_the_best_setting_breaks_the_promise() -> None:
    table = harms_of(late, seed=1, worst_in_the_middle=True)
    assert (np.diff(table.mean(axis=1)) < -0.01).any()
    # The last setting that passes, whatever failed before it, is chosen among many: that is what the order is for.
    lucky = np.random.default_rng(0).random((40, POPULATION)) < 0.045
    drawn = np.random.default_rng(2).integers(POPULATION, size=(500, 100))
    allowed = most_harms(100, limit=0.04, error=0.1)
    passing = np.array([row[drawn].sum(axis=1) <= allowed for row in lucky])
    best = np.where(passing.any(axis=0), len(lucky) - 1 - np.argmax(passing[::-1], axis=0), -1)
    assert violated(lucky, best, 0.04).mean() > 2 * tolerated(0.1, 500)


def test_a_good_score_is_certified_beyond_the_strictest_settings() -> None:
    table = harms_of(drifting, seed=1)
    drawn = np.random.default_rng(3).integers(POPULATION, size=(200, 600))
    settings = chosen(table, drawn, max_harm=0.05, error=0.05)
    best = int(np.argmax(table.mean(axis=1) > 0.05)) - 1
    assert best > 10
    assert settings.mean() > 0.85 * best


def test_a_grid_of_quantiles_of_other_problems_keeps_the_promise() -> None:
    rng = np.random.default_rng(4)
    score = rng.random(POPULATION)
    harmful = rng.random(POPULATION) < 0.12 * score
    broken = 0
    for _ in range(500):
        grid = quantile_grid(score[rng.integers(POPULATION, size=100)], 25)
        drawn = rng.integers(POPULATION, size=(1, 200))
        table = (score[None, :] <= grid[:, None]) & harmful
        settings = chosen(table, drawn, max_harm=0.03, error=0.1)
        broken += int(violated(table, settings, 0.03)[0])
    assert broken / 500 <= tolerated(0.1, 500)


def test_refits_that_share_the_error_keep_one_promise_and_others_do_not() -> None:
    # A threshold is in force from one refit to the next: one broken promise among them breaks the whole.
    table = (np.random.default_rng(6).random((1, POPULATION)) < 0.0205).repeat(2, axis=0)
    refits, n = 8, 1200
    for levels, holds in ((spend(0.05, refits), True), ((0.05,) * refits, False)):
        drawn = np.random.default_rng(7).integers(POPULATION, size=(DRAWS, n))
        broken = np.zeros(DRAWS, dtype=bool)
        for refit, level in enumerate(levels):
            known = drawn[:, : n * (refit + 1) // refits]
            limit = float(table.mean()) - 1e-9
            broken |= violated(table, chosen(table, known, max_harm=limit, error=level), limit)
        assert bool(broken.mean() <= tolerated(0.05)) is holds


def test_sixty_problems_with_ten_seeds_keep_the_promise_only_with_one_run_each() -> None:
    rng = np.random.default_rng(8)
    # Of each problem, either most runs are harmed by a setting or none is.
    settings = 12
    level = np.sort(rng.random(POPULATION) ** 0.35 * 1.1) * settings
    chance = (np.arange(settings)[:, None] >= level[None, :]) * 0.9
    truth = chance.mean(axis=1)
    names = [str(row // 10) for row in range(600)]
    broken = {"one run": 0, "all runs": 0}
    draws = 500
    for seed in range(draws):
        problems = np.repeat(rng.integers(POPULATION, size=60), 10)
        harmed = rng.random((settings, 600)) < chance[:, problems]
        for name, rows in (("one run", one_run_each(names, seed=seed)), ("all runs", np.arange(600))):
            allowed = most_harms(len(rows), limit=0.05, error=0.05)
            passing = harmed[:, rows].sum(axis=1) <= allowed
            last = int(np.argmin(np.append(passing, False))) - 1
            broken[name] += last >= 0 and truth[last] > 0.05
    assert broken["one run"] / draws <= tolerated(0.05, draws)
    assert broken["all runs"] / draws > 3 * tolerated(0.05, draws)
