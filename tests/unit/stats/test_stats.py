import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import binom, mannwhitneyu, norm

from justenough.errors import InputError
from justenough.stats import (
    auroc,
    cohens_d,
    mcnemar,
    non_inferiority,
    paired_bootstrap,
    saving_bootstrap,
    separation,
    tango_score,
    wilson,
    within_groups,
)

Bools = NDArray[np.bool_]


def paired(both: int, only_first: int, only_second: int, neither: int) -> tuple[Bools, Bools]:
    """Two gradings with so many pairs of each kind."""
    counts = [both, only_first, only_second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def normal(n_right: int, n_wrong: int, d: float, *, seed: int = 0) -> tuple[NDArray[np.float64], Bools]:
    """Values whose classes lie exactly `d` pooled standard deviations apart."""
    rng = np.random.default_rng(seed)
    right, wrong = rng.normal(size=n_right), rng.normal(size=n_wrong)
    values = np.concatenate(
        ((right - right.mean()) / right.std(ddof=1), (wrong - wrong.mean()) / wrong.std(ddof=1) + d)
    )
    return values, np.arange(n_right + n_wrong) < n_right


def test_effect_size_and_auroc_against_the_direct_formulae() -> None:
    rng = np.random.default_rng(1)
    right, wrong = np.round(rng.normal(0, 1, 40), 1), np.round(rng.normal(0.7, 2, 25), 1)
    pooled = (39 * right.var(ddof=1) + 24 * wrong.var(ddof=1)) / 63
    assert cohens_d(right, wrong) == pytest.approx((wrong.mean() - right.mean()) / math.sqrt(pooled))
    assert auroc(right, wrong) == pytest.approx(mannwhitneyu(wrong, right).statistic / (40 * 25))
    pairs = np.sign(wrong[:, None] - right[None, :])
    assert auroc(right, wrong) == pytest.approx(float(((pairs + 1) / 2).mean()))


def test_what_cannot_be_estimated_is_none() -> None:
    one, two = np.array([0.1]), np.array([0.2, 0.4])
    assert cohens_d(one, two) is None
    assert cohens_d(two, one) is None
    assert cohens_d(np.full(3, 0.1), np.full(3, 0.3)) is None
    assert auroc(one[:0], two) is None
    assert within_groups(np.array([0.1, 0.2]), np.array([True, False]), ["a", "b"]) is None
    assert wilson(0, 0) is None
    assert saving_bootstrap(np.zeros(3), np.zeros(3)) is None


def test_within_groups_counts_pairs_of_one_group_only() -> None:
    values = np.array([1.0, 2.0, 11.0, 12.0, 10.5])
    correct = np.array([True, False, True, False, False])
    assert within_groups(values, correct, ["a", "a", "b", "b", "b"]) == pytest.approx(2 / 3)
    assert auroc(values[correct], values[~correct]) == pytest.approx(4 / 6)


def test_the_bootstrap_interval_of_a_mean_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(120):
        low, high = paired_bootstrap(rng.normal(size=70), seed=run, resamples=150).interval or (math.nan, math.nan)
        covered += low <= 0.0 <= high
    # Of 120 at 95 %, fewer than 104 happens once in ten thousand; all 120 would mean intervals without an end.
    assert 104 <= covered < 120


def test_intervals_without_scale_are_absent_rather_than_astronomical() -> None:
    values = np.array([0.1, 0.2, 0.7, 0.9])
    found = separation(values, np.array([True, True, False, False]))
    assert found.cohens_d is not None
    assert found.cohens_d.high is None or found.cohens_d.high < 1e6


def test_verdicts() -> None:
    cannot = separation(*normal(9, 200, 3.0))
    assert (cannot.verdict, cannot.needed > 0, cannot.sentence) == (
        "cannot tell",
        True,
        f"cannot tell: need {cannot.needed} more",
    )
    assert separation(np.arange(30.0), np.ones(30, dtype=bool)).verdict == "cannot tell"
    # No number of examples would make a constant signal tell.
    assert separation(np.ones(40), np.arange(40) < 20).verdict == "absent"
    assert separation(np.ones(19), np.arange(19) < 9).verdict == "cannot tell"
    unclear = separation(*normal(15, 15, 0.4))
    assert (unclear.verdict, unclear.needed > 0) == ("cannot tell", True)
    # From a d of rounding's size no number of examples follows: as many again.
    nothing = separation(np.r_[np.arange(20.0), np.arange(20.0) + 1e-12], np.arange(40) < 20)
    assert (nothing.verdict, nothing.needed) == ("cannot tell", 40)
    assert separation(*normal(400, 400, 0.0)).verdict == "absent"
    assert separation(*normal(400, 400, -1.0)).verdict == "absent"
    weak = separation(*normal(300, 300, 0.5))
    assert (weak.verdict, weak.gating_refused) == ("weak", False)
    strong = separation(*normal(200, 200, 1.5))
    assert (strong.verdict, strong.gating_refused, strong.sentence) == ("separates", False, "separates")
    assert separation(*normal(400, 400, 0.0)).gating_refused


def test_either_figure_alone_makes_a_signal_absent() -> None:
    both, correct = np.tile(norm.ppf((np.arange(400) + 0.5) / 400), 2), np.arange(800) < 400
    # Wrong answers are mostly the less sure ones, but a few right ones by far.
    few = np.where(correct & (np.arange(800) < 12), 40.0, 0.0)
    by_effect = separation(both + 0.8 * ~correct + few, correct)
    assert by_effect.cohens_d is not None
    assert by_effect.auroc is not None
    assert (by_effect.verdict, (by_effect.cohens_d.high or 1) < 0.3, (by_effect.auroc.low or 0) > 0.6) == (
        "absent",
        True,
        True,
    )
    # And mostly alike, but a few wrong ones by far.
    some = np.where(~correct & (np.arange(800) >= 760), 40.0, 0.0)
    by_ranks = separation(both + some, correct)
    assert by_ranks.cohens_d is not None
    assert (by_ranks.verdict, (by_ranks.cohens_d.low or 0) > 0.3) == ("absent", True)


def test_tied_values_are_no_evidence_in_the_interval_either() -> None:
    rng = np.random.default_rng(5)
    correct = np.arange(600) < 300
    tied = separation((rng.random(600) < 0.5).astype(np.float64), correct, groups=[str(n % 2) for n in range(600)])
    for estimate in (tied.auroc, tied.within_groups):
        assert estimate is not None
        assert estimate.interval is not None
        assert estimate.interval[0] < estimate.value < estimate.interval[1]
        assert estimate.interval[1] - estimate.interval[0] < 0.12


def test_a_separation_that_difficulty_explains_is_weak_and_refused() -> None:
    rng = np.random.default_rng(2)
    level = np.arange(600) % 2
    correct = rng.random(600) < np.where(level == 0, 0.9, 0.1)
    values = rng.normal(size=600) + 3.0 * level
    found = separation(values, correct, groups=[str(one) for one in level])
    assert found.cohens_d is not None
    assert (found.cohens_d.low or 0) > 1
    assert (found.verdict, found.gating_refused) == ("weak", True)
    # Within levels that the signal does separate, the same verdict needs no level at all.
    honest = separation(values + 2.0 * ~correct, correct, groups=[str(one) for one in level])
    assert honest.verdict == "separates"
    assert honest.within_groups is not None


def test_groups_that_hold_one_kind_of_answer_alone_do_not_pass_for_separation() -> None:
    values, correct = normal(100, 100, 2.0)
    result = separation(values, correct, groups=["easy" if right else "hard" for right in correct])
    assert (result.verdict, result.within_groups, result.gating_refused) == ("cannot tell", None, False)
    assert result.needed > 200
    assert separation(values, correct, groups=["one"] * 200).verdict == "separates"


def test_copies_of_each_problem_are_no_evidence() -> None:
    values, correct = normal(12, 12, 1.0)
    names = [str(row // 10) for row in range(240)]
    once = separation(values, correct)
    copies = separation(np.repeat(values, 10), np.repeat(correct, 10), problems=names)
    assert once.verdict == copies.verdict == "weak"
    assert separation(np.repeat(values, 10), np.repeat(correct, 10)).verdict == "separates"


def test_separation_refuses_what_is_no_signal() -> None:
    values, correct = normal(30, 30, 1.0)
    with pytest.raises(InputError, match="one grading for each"):
        separation(values, correct[:-1])
    with pytest.raises(InputError, match="finite"):
        separation(np.array([math.nan, 1.0]), np.array([True, False]))


def test_saving_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    found = saving_bootstrap(np.array([10.0, 100.0]), np.array([100.0, 100.0]))
    assert found is not None
    assert found.value == pytest.approx(0.45)
    assert found.interval == pytest.approx((0.0, 0.9))


def test_wilson_by_hand() -> None:
    found = wilson(8, 10)
    assert found is not None
    assert found.interval == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (7, 2), (5, 5), (0, 20)])
def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_pairs(first: int, second: int) -> None:
    found = mcnemar(*paired(30, first, second, 4))
    tail = 2 * float(binom.cdf(min(first, second), first + second, 0.5)) if first + second else 1.0
    assert (found.only_first, found.only_second) == (first, second)
    assert found.p_value == pytest.approx(min(1.0, tail))


def score_by_maximum(gained: int, lost: int, n: int, change: float) -> float:
    """Tango's score with the constrained likelihood maximised by search."""

    def loss(p_lost: float) -> float:
        p_gained, same = p_lost + change, 1 - 2 * p_lost - change
        terms = ((gained, p_gained), (lost, p_lost), (n - gained - lost, same))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    bounds = (max(0.0, -change), (1 - change) / 2)
    p_lost = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x)
    return (gained - lost - n * change) / math.sqrt(n * (2 * p_lost + change * (1 - change)))


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 7, 100), (0, 5, 60), (5, 0, 60), (12, 9, 45), (0, 0, 400)])
@pytest.mark.parametrize("change", [-0.3, -0.05, -0.01, 0.02, 0.2])
def test_tangos_score_against_a_numerical_maximum(gained: int, lost: int, n: int, change: float) -> None:
    assert tango_score(gained, lost, n, change) == pytest.approx(score_by_maximum(gained, lost, n, change), rel=1e-4)


def test_the_interval_ends_where_the_score_reaches_the_normal_quantile() -> None:
    found = non_inferiority(*paired(43, 2, 5, 10), margin=0.1)
    z = float(norm.ppf(0.975))
    assert score_by_maximum(2, 5, 60, found.low) == pytest.approx(z, abs=1e-3)
    assert score_by_maximum(2, 5, 60, found.high) == pytest.approx(-z, abs=1e-3)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ((379, 0, 0, 0), "inconclusive"),
        ((380, 0, 0, 0), "inconclusive"),
        ((381, 0, 0, 0), "non-inferior"),
        ((200, 0, 0, 200), "non-inferior"),
        ((300, 1, 0, 99), "non-inferior"),
        ((300, 0, 5, 99), "inconclusive"),
        ((300, 0, 40, 60), "inferior"),
        ((0, 1, 0, 0), "inconclusive"),
        ((0, 0, 1, 0), "inconclusive"),
        ((0, 500, 0, 0), "non-inferior"),
        ((0, 0, 500, 0), "inferior"),
    ],
)
def test_non_inferiority_at_one_point(pairs: tuple[int, int, int, int], verdict: str) -> None:
    found = non_inferiority(*paired(*pairs), margin=0.01)
    change = (pairs[1] - pairs[2]) / sum(pairs)
    assert found.verdict == verdict
    assert -1 <= found.low <= change <= found.high <= 1
    assert (found.low >= -0.01) == (verdict == "non-inferior")
    assert (found.high <= -0.01) == (verdict == "inferior")


def test_non_inferiority_needs_pairs_and_a_margin() -> None:
    nothing = np.zeros(0, dtype=bool)
    with pytest.raises(InputError, match="no problem"):
        non_inferiority(nothing, nothing)
    with pytest.raises(InputError, match="margin"):
        non_inferiority(*paired(1, 1, 1, 1), margin=1.0)
    with pytest.raises(InputError, match="no problem"):
        paired_bootstrap(np.zeros(0))
