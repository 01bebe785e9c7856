import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import chi2, norm, rankdata
from scipy.stats import t as student

from justenough.errors import InputError
from justenough.stats import cohens_d, non_inferiority, tango_score
from justenough.stats.estimates import Z
from justenough.stats.intervals import (
    COMPARABLE,
    auroc_interval,
    comparable,
    effect_interval,
    noncentrality,
    within_interval,
)
from justenough.stats.tango import change_interval, discordant, tango_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def normal(right: int, wrong: int, d: float, *, seed: int = 0) -> tuple[Floats, Bools]:
    correct = np.arange(right + wrong) < right
    return np.random.default_rng(seed).normal(size=right + wrong) + d * ~correct, correct


def limits(estimate: object) -> tuple[float, float]:
    interval = getattr(estimate, "interval", None)
    assert interval is not None
    low, high = interval
    return float(low), float(high)


def below(t: float, freedom: int, noncentral: float) -> float:
    """P(T ≤ t) of a non-central t distribution, by its definition."""

    def integrand(x: float) -> float:
        return float(norm.cdf(t * math.sqrt(x / freedom) - noncentral) * chi2.pdf(x, freedom))

    low, high = float(chi2.ppf(1e-13, freedom)), float(chi2.ppf(1 - 1e-13, freedom))
    return float(quad(integrand, low, high, limit=400, points=[freedom * min(1.0, (noncentral / t) ** 2) + 1e-9])[0])


@pytest.mark.parametrize("freedom", [2, 18, 98, 5998])
@pytest.mark.parametrize("t", [-3.0, 0.4, 4.5, 45.0, 700.0, 2e5])
def test_the_noncentral_interval_leaves_the_tails_that_its_definition_says(freedom: int, t: float) -> None:
    low, high = noncentrality(t, freedom)
    assert low < t < high
    assert below(t, freedom, low) == pytest.approx(0.975, abs=3e-4)
    assert below(t, freedom, high) == pytest.approx(0.025, abs=3e-4)


def test_the_effect_is_cohens_d_and_its_interval_is_that_of_the_textbook() -> None:
    # Cumming and Finch 2001: t = 1.7 with 2 x 10, d = .76: the interval of d is about -.16 to 1.66.
    values, correct = normal(10, 10, 1.0)
    values = np.where(correct, (values - values[:10].mean()) / values[:10].std(ddof=1), values)
    wrong = values[10:]
    values[10:] = (wrong - wrong.mean()) / wrong.std(ddof=1) + 0.76
    estimate = effect_interval(values, correct)
    assert estimate is not None
    assert estimate.value == pytest.approx(0.76)
    assert limits(estimate) == pytest.approx((-0.16, 1.66), abs=0.01)
    turned = effect_interval(-values, correct)
    assert limits(turned) == pytest.approx((-limits(estimate)[1], -limits(estimate)[0]))


def test_an_enormous_effect_of_few_values_has_finite_limits() -> None:
    estimate = effect_interval(np.array([0, 1e-6, 1e3, 1e3 + 1e-6]), np.arange(4) < 2)
    assert estimate is not None
    assert all(map(math.isfinite, limits(estimate)))
    assert 0 < limits(estimate)[0] < estimate.value < limits(estimate)[1]


def test_what_has_no_effect_or_area_is_none() -> None:
    assert effect_interval(np.array([1.0, 2.0, 3.0]), np.array([True, True, False])) is None
    assert effect_interval(np.ones(8), np.arange(8) < 4) is None
    assert auroc_interval(np.arange(3.0), np.ones(3, dtype=bool)) is None
    assert auroc_interval(np.arange(2.0), np.arange(2) < 1, groups=["a", "b"]) is None


def test_without_ties_or_repeats_the_variance_is_delongs() -> None:
    values, correct = normal(31, 17, 0.9, seed=4)
    right, wrong = values[correct], values[~correct]
    pairs = (wrong[:, None] > right[None, :]).astype(float)
    parts = pairs.mean(axis=1).var(ddof=1) / 17, pairs.mean(axis=0).var(ddof=1) / 31
    variance, area = sum(parts), pairs.mean()
    quantile = float(student.ppf(0.975, variance**2 / (parts[0] ** 2 / 16 + parts[1] ** 2 / 30)))
    half = quantile * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    estimate = auroc_interval(values, correct)
    assert estimate is not None
    assert estimate.value == pytest.approx(area)
    assert limits(estimate) == pytest.approx((1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit))))


def test_an_area_of_one_or_zero_still_has_an_interval_that_shrinks_with_n() -> None:
    lows = []
    for n in (10, 20, 100):
        estimate = auroc_interval(np.arange(2.0 * n), np.arange(2 * n) < n)
        assert estimate is not None
        assert (estimate.value, limits(estimate)[1]) == (1.0, 1.0)
        lows.append(limits(estimate)[0])
    assert lows == pytest.approx([0.800, 0.898, 0.979], abs=2e-3)
    zero = auroc_interval(-np.arange(20.0), np.arange(20) < 10)
    assert limits(zero) == pytest.approx((0.0, 1 - lows[0]))
    constant = auroc_interval(np.ones(20), np.arange(20) < 10)
    assert limits(constant)[0] < 0.4 < 0.6 < limits(constant)[1]


def test_groups_compare_pairs_of_the_same_group_only() -> None:
    values, correct = normal(60, 60, 0.8, seed=2)
    level = np.arange(120) % 3
    shifted = values + 100 * level
    names = [str(one) for one in level]
    inside, ranked = auroc_interval(shifted, correct, groups=names), auroc_interval(rankdata(values), correct)
    assert inside is not None
    assert ranked is not None
    assert inside.value == pytest.approx(ranked.value, abs=0.06)
    assert limits(inside)[1] - limits(inside)[0] == pytest.approx(limits(ranked)[1] - limits(ranked)[0], rel=0.25)
    one = auroc_interval(values, correct, groups=["a"] * 120)
    assert limits(one) == pytest.approx(limits(auroc_interval(values, correct)))


def test_copies_of_each_problem_do_not_narrow_an_interval() -> None:
    values, correct = normal(20, 15, 1.0, seed=3)
    names = [str(row) for row in range(35)]
    copies, labels, repeated = np.repeat(values, 10), np.repeat(correct, 10), list(np.repeat(names, 10))
    for interval in (effect_interval, auroc_interval):
        once = limits(interval(values, correct))
        clustered, naive = limits(interval(copies, labels, problems=repeated)), limits(interval(copies, labels))
        assert clustered[1] - clustered[0] == pytest.approx(once[1] - once[0], rel=0.1)
        assert naive[1] - naive[0] < 0.5 * (once[1] - once[0])
    reference = np.roll(correct, 1)
    assert change_interval(labels, np.repeat(reference, 10), problems=repeated) == pytest.approx(
        change_interval(correct, reference)
    )


def test_runs_of_a_problem_count_as_fractions_of_it() -> None:
    candidate, reference = np.array([True, True, False, False, True]), np.array([False, False, False, True, True])
    gained, lost, n = discordant(candidate, reference, problems=["a", "a", "a", "b", "c"])
    assert gained == pytest.approx(2 / 3)
    assert (lost, n) == (1.0, 3)
    assert discordant(candidate, reference) == (2.0, 1.0, 5)


@pytest.mark.parametrize(
    ("gained", "lost", "n"), [(0, 0, 60), (2, 5, 60), (0, 60, 60), (60, 0, 60), (1, 0, 1), (40, 3, 300)]
)
def test_tangos_interval_ends_where_the_score_is_the_quantile(gained: int, lost: int, n: int) -> None:
    low, high = tango_interval(gained, lost, n)
    assert -1 <= low < high <= 1
    if low > -1:
        assert tango_score(gained, lost, n, low) == pytest.approx(Z, abs=1e-6)
    if high < 1:
        assert tango_score(gained, lost, n, high) == pytest.approx(-Z, abs=1e-6)


@pytest.mark.parametrize("counts", [(40, 0, 0, 20), (30, 3, 4, 23), (200, 1, 9, 90), (381, 0, 0, 0)])
def test_the_interval_and_the_verdict_agree(counts: tuple[int, int, int, int]) -> None:
    candidate = np.repeat([True, True, False, False], counts)
    reference = np.repeat([True, False, True, False], counts)
    estimate, verdict = change_interval(candidate, reference), non_inferiority(candidate, reference, margin=0.01)
    assert limits(estimate) == pytest.approx((verdict.low, verdict.high))
    assert (limits(estimate)[0] >= -0.01) == (verdict.verdict == "non-inferior")


def test_wrong_shapes_are_refused() -> None:
    values, correct = normal(5, 5, 1.0)
    with pytest.raises(InputError, match="problem of each row"):
        effect_interval(values, correct, problems=["a"])
    with pytest.raises(InputError, match="one of each"):
        change_interval(correct, correct[1:])
    with pytest.raises(InputError, match="one of each"):
        change_interval(correct[:0], correct[:0])
    assert cohens_d(values[:1], values) is None


def test_the_rarer_answers_of_each_group_are_comparable() -> None:
    correct = np.array([True, True, True, False, False, True, True])
    assert comparable(correct, ["a", "a", "a", "a", "b", "b", "c"]) == 2
    assert comparable(correct, ["a"] * 7) == 2
    assert comparable(correct[:0], []) == 0


def test_fewer_than_ten_comparable_answers_cannot_tell() -> None:
    # Nine groups of two are nine pairs, all in the right order.
    values, correct = np.arange(20.0), np.arange(20) % 2 == 0
    groups = [str(row // 2) for row in range(20)]
    assert within_interval(values[:18], correct[:18], groups[:18]) is None
    ten = within_interval(values, correct, groups)
    assert ten is not None
    assert ten.interval is not None
    assert (ten.value, COMPARABLE) == (1.0, 10)
    assert ten.interval[0] < 0.85
